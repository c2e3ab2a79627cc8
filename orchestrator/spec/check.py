"""The only place that checks a whole job before anything starts: its fields, how its stages refer to each other,
and that test data stay closed until every choice is made."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from orchestrator.records.recorded_spec import label
from orchestrator.spec.check_paths import check_effect, check_paths
from orchestrator.spec.check_search import check_after_population, check_search
from orchestrator.spec.check_trials import (
    BaseFields,
    CheckedTrial,
    build,
    check_base,
    check_neighbours,
    check_values,
    trace,
)
from orchestrator.spec.diagnostics import Problems, Steps, offer, problem_from_pydantic
from orchestrator.spec.field_paths import names
from orchestrator.spec.job import JobSpec, Stage
from orchestrator.spec.sweep import Grid, Search, one_setting
from orchestrator.spec.trial_fields import group_of, lookup
from orchestrator.spec.yaml_nodes import Location, YamlNode
from tasks.backbones.spec import FromStage, FromTrial


def check(root: YamlNode, problems: Problems) -> JobSpec | None:
    """The job that `root` (profile and overrides laid over) describes; adds everything that is wrong with it.

    The job is None when too little of it could be understood; it is only of use when there are no problems.
    """
    job = _structure(root, problems)
    start = check_base(root, problems)
    if job is None:
        return None
    bad = check_paths(root, job, problems)
    check_effect(root, job, problems)
    stages = _Stages(root, job, problems)
    for i, stage in enumerate(job.stages):
        stages.references(i)
        if stage.name not in bad:
            stages.trials(i, start)
            for source in stages.populations(i):
                check_after_population(root, stage, ["stages", i], source, problems)
            if isinstance(stage.sweep, Search):
                check_search(root, stage, ["stages", i], stages.built.get(stage.name, []), problems)
    understood = not len(problems)
    for i, stage in enumerate(job.stages):
        if stages.built.get(stage.name):
            stages.no_test_before_selection(i)
            stages.one_test_set(i)
            if understood:  # else it may only look as if winners were chosen across cells
                stages.comparable(i)
    _report(root, job, stages, problems)
    return job


def _structure(root: YamlNode, problems: Problems) -> JobSpec | None:
    """Pydantic's verdict; then again without what is wrong, so that the rest can be checked in the same go."""
    plain = root.plain()
    for attempt in range(20):
        try:
            return JobSpec.model_validate(plain)
        except ValidationError as error:
            errors = error.errors()
        if attempt == 0:
            problems.add(*(problem_from_pydantic(JobSpec, each, root) for each in errors))
        wrong = [each["loc"] for each in errors if each["type"] != "missing"]
        plain = copy.deepcopy(plain)
        if not wrong or not [loc for loc in wrong if _prune(plain, loc)]:
            break
    return None


def _prune(plain: Any, loc: tuple[str | int, ...]) -> bool:
    """Takes the innermost named part of a location away; False when there is none."""
    at: tuple[dict[str, Any], str] | None = None
    here = plain
    for step in loc:
        if isinstance(here, dict) and step in here:
            at = (here, str(step))
            here = here[step]
        elif isinstance(here, list) and isinstance(step, int) and step < len(here):
            here = here[step]
    if at is None:
        return False
    del at[0][at[1]]
    return True


class _Stages:
    """What a job's stages say about each other; stages are checked in their order."""

    def __init__(self, root: YamlNode, job: JobSpec, problems: Problems) -> None:
        self.root, self.job, self.problems = root, job, problems
        self.built: dict[str, list[CheckedTrial]] = {}
        self.per: dict[str, list[str]] = {}
        self.started_from: dict[str, str] = {}
        """Stage whose weights are taken -> one of the stages that start from them."""
        self.closed: set[Location] = set()
        """Where test data were asked for in vain."""

    def references(self, i: int) -> None:
        """The stage's name is its own, `from` names earlier stages with equal groups, and its parts go together."""
        stage = self.job.stages[i]
        at: Steps = ["stages", i]
        earlier = [each.name for each in self.job.stages[:i]]
        if stage.name in earlier:
            first = self.root.place_of(["stages", earlier.index(stage.name), "name"])
            place = self.root.place_of([*at, "name"])
            self.problems.report(place, "stages.name", stage.name, f"a second stage of this name; the first: {first}")
        for k, name in enumerate(stage.from_):
            if name not in earlier:
                place = self.root.place_of([*at, "from", k])
                self.problems.report(place, f"stages.{stage.name}.from", name, self.not_earlier(name, i))
        groups = {name: self.per[name] for name in stage.from_ if name in self.per}
        if groups or not (stage.from_ or stage.neighbourhood):
            self.per.setdefault(stage.name, next(iter(groups.values()), stage.per))
        if len({tuple(per) for per in groups.values()}) > 1:
            told = "; ".join(f"{name}: {', '.join(per) or 'none'}" for name, per in groups.items())
            self.about(i, "from", f"the sources form different groups ({told}); give them the same `per`")
        if stage.from_ and stage.per and not isinstance(stage.sweep, Search):
            self.about(i, "per", "a stage with `from` has the groups of its source; remove `per`")
        if stage.neighbourhood is not None and not stage.from_:
            self.about(i, "neighbourhood", "needs `from`: the stages around whose winner it searches")
        if stage.neighbourhood is not None and isinstance(stage.sweep, Grid | Search):
            what = "grid" if isinstance(stage.sweep, Grid) else "search"
            self.about(i, "sweep", f"a stage has a {what} or a neighbourhood, not both; make two stages of it")
        if stage.from_ and isinstance(stage.sweep, Search):
            self.about(i, "from", "a search stands on its own, and later stages may take its winner; remove `from`")
        elif isinstance(stage.sweep, Search) and stage.per != list(stage.sweep.each):
            self.about(i, "per", "the groups of a search are those of its `each`; remove `per`")

    def about(self, i: int, key: str, *parts: str) -> None:
        place = self.root.place_of(["stages", i, key], key=True)
        self.problems.report(place, f"stages.{self.job.stages[i].name}.{key}", *parts)

    def not_earlier(self, name: str, i: int) -> str:
        """Why a stage that is no earlier one cannot be referred to. (Order in the file rules cycles out.)"""
        known = [each.name for each in self.job.stages]
        earlier = f"earlier stages: {', '.join(known[:i]) or 'none'}"
        if name == known[i]:
            return f"a stage cannot take from itself; {earlier}"
        if name in known:
            return f"comes later than {known[i]}, and stages take only from earlier ones; {earlier}"
        return "no such stage; " + offer(name, known[:i], "earlier stages")

    def trials(self, i: int, base: BaseFields) -> None:
        """Every trial of the stage is valid, its initial weights exist by then, its neighbours are allowed."""
        stage = self.job.stages[i]
        at: Steps = ["stages", i]
        start = base
        if stage.from_:
            sources = [trial for name in stage.from_ for trial in self.built.get(name, [])]
            if not sources:
                return  # reported there
            start = BaseFields(sources[0].fields, sources[0].origins)
        built = build(self.root, stage, at, start, self.problems)
        self.built.setdefault(stage.name, built)
        self.initial_weights(i, built)
        self.workers(i, built)
        if stage.neighbourhood is not None and stage.from_ and built:
            values = {path: self.grid_values(stage, path) for path in stage.neighbourhood.near}
            check_neighbours(self.root, stage, at, built[0], values, self.problems)

    def workers(self, i: int, built: list[CheckedTrial]) -> None:
        """A global batch is shared out evenly among a trial's workers, to each an even part where images are paired."""
        stage = self.job.stages[i]
        workers = (stage.resources or self.job.resources).workers
        for trial in built:
            batch = trial.spec.optim.batch
            if batch % workers:
                what = f"does not divide among {workers} workers (resources.workers): a multiple of {workers}, at least"
                wrong = f"{what} {workers}"
            elif batch % trial.spec.task.batch_multiple(workers)[0]:
                wrong = f"mixup and cutmix pair the images of a worker: a multiple of {2 * workers}, or without them"
            else:
                continue
            place = trace(self.root, ["optim", "batch"], trial.origins)
            self.problems.report(place, f"stages.{stage.name}: optim.batch", str(batch), wrong)

    def grid_values(self, stage: Stage, path: str) -> list[Any]:
        """What a winner may have at `path`, as far as the sources' grids say."""
        sources = [each.settings for name in stage.from_ for each in self.built.get(name, [])]
        found = [settings[path] for settings in sources if path in settings]
        return list({json.dumps(value): value for value in found}.values())

    def initial_weights(self, i: int, built: list[CheckedTrial]) -> None:
        """`kind: stage` names an earlier stage that ends with one set of weights."""
        stage = self.job.stages[i]
        earlier = [each.name for each in self.job.stages[:i]]
        for trial in built:
            init = trial.spec.backbone.init
            name = f"stages.{stage.name}: backbone.init"
            if isinstance(init, FromTrial):
                place = trace(self.root, ["backbone", "init", "kind"], trial.origins)
                self.problems.report(place, name, "trial: the planner's own kind; write {kind: stage, ...}")
            if not isinstance(init, FromStage) or init.job is not None:
                continue  # another job's is looked up when this one is planned
            place = trace(self.root, ["backbone", "init", "stage"], trial.origins)
            if init.stage not in earlier:
                self.problems.report(place, name, init.stage, self.not_earlier(init.stage, i))
                continue
            self.started_from.setdefault(init.stage, stage.name)
            per = self.per.get(init.stage, [])
            groups = list(dict.fromkeys(group_of(source.spec, per)[0] for source in self.built.get(init.stage, [])))
            if init.group is None and len(groups) > 1:
                what = f"ends with a winner in each of {len(groups)} groups; name one of them with `group`"
                self.problems.report(place, name, init.stage, f"{what}: {', '.join(groups[:8])}")
            elif groups and init.group is not None and init.group not in groups:
                what = f"no such group of stage {init.stage}; " + offer(init.group, groups, "its groups")
                self.problems.report(
                    trace(self.root, ["backbone", "init", "group"], trial.origins), name, init.group, what
                )
            if self.job.stages[earlier.index(init.stage)].keep_weights is False:
                self.problems.report(place, name, init.stage, "its keep_weights is false; remove that")

    def populations(self, i: int) -> list[str]:
        """Stages with a population that this one takes winners from."""
        sweeps = {each.name: each.sweep for each in self.job.stages[:i]}
        sources = ((name, sweeps.get(name)) for name in self.job.stages[i].from_)
        return [name for name, sweep in sources if isinstance(sweep, Search) and sweep.population is not None]

    def takers(self, i: int) -> list[str]:
        return [each.name for each in self.job.stages[i + 1 :] if self.job.stages[i].name in each.from_]

    def comparable(self, i: int) -> None:
        """A winner is chosen among trials of one data set, and of one cell of the table."""
        stage, takers = self.job.stages[i], self.takers(i)
        if not takers or stage.from_:
            return
        for path in sorted({self.job.report.rows, self.job.report.columns, "task.dataset"} - set(stage.per)):
            if len({_group(trial, [path]) for trial in self.built[stage.name]}) > 1:
                what = f"lacks {path}, whose values are tried: {takers[0]} would take one winner for all of them"
                self.about(i, "per", what + f"; add {path}")

    def no_test_before_selection(self, i: int) -> None:
        """Only a stage that takes winners as they are, and on whose results nothing builds, may read test."""
        stage, takers = self.job.stages[i], self.takers(i)
        if takers:
            why = f"winners are chosen from this stage (by {', '.join(takers)})"
        elif stage.name in self.started_from:
            why = f"{self.started_from[stage.name]} starts from its weights"
        elif not stage.from_:
            why = "this stage takes no winners"
        elif stage.neighbourhood is not None:
            why = "this stage searches a neighbourhood"
        elif not one_setting(stage.sweep):
            why = "this stage tries several settings, and the best of them on test would be a choice"
        else:
            return
        rule = (
            "only a stage with `from`, without neighbourhood or axes other than seed and task.dataset, on which no "
            "other stage builds, may; "
            "allowed here: task.evaluate val"
        )
        for trial in self.built[stage.name]:
            if trial.spec.task.reads_test:
                place, path = self.test_origin(i, trial)
                if place in self.closed:
                    continue  # inherited from an earlier stage
                self.closed.add(place)
                what = f"test data before selection: {why}; {rule}"
                self.problems.report(place, f"stages.{stage.name}", path, "test", what)

    def one_test_set(self, i: int) -> None:
        """Of a data set whose test images are read, no trial of the job takes other images for test: what one of them
        trains on or chooses by would be what another is measured on."""
        rules = {(name, rule): stage for stage, trials in self.built.items() for trial in trials
                 for name, rule in trial.spec.task.opens.items()}  # fmt: skip
        for trial in self.built[self.job.stages[i].name]:
            ours = trial.spec.task.opens if trial.spec.task.reads_test else {}
            place, path = self.test_origin(i, trial)
            others = [(name, rule, stage) for (name, rule), stage in rules.items() if rule != ours.get(name, rule)]
            if others and place not in self.closed:
                self.closed.add(place)
                name, rule, stage = others[0]
                what = (
                    f"test images of {name} are chosen here by task.{ours[name]}, and stage {stage} opens images of it "
                    f"by task.{rule}, which may be some of them: let both have the same, or leave {name} out of one"
                )
                self.problems.report(place, f"stages.{self.job.stages[i].name}", path, "test", what)

    def test_origin(self, i: int, trial: CheckedTrial) -> tuple[Location, str]:
        """What makes a trial read test: the field of its task that says so, where that is written."""
        said = [name for name, value in trial.fields.get("task", {}).items() if value == "test"]
        if not said:
            return self.root.place_of(["stages", i]), "task"
        return trace(self.root, ["task", said[0]], trial.origins), f"task.{said[0]}"


def _group(trial: CheckedTrial, paths: list[str]) -> str:
    """The values of some paths as a text, initial weights with all that they say."""
    values = trial.spec.model_dump(mode="json")
    found = []
    for path in paths:
        here: Any = values
        for step in path.split("."):
            here = here.get(step) if isinstance(here, dict) else None
        found.append(here)
    return json.dumps(found, sort_keys=True)


def _report(root: YamlNode, job: JobSpec, stages: _Stages, problems: Problems) -> None:
    """The table's stage exists, and names of its columns are values that the column's field takes."""
    report = job.report
    known = [stage.name for stage in job.stages]
    if report.stage and report.stage not in known:
        what = "no such stage; " + offer(report.stage, known, "stages")
        problems.report(root.place_of(["report", "stage"]), "report.stage", report.stage, what)
    built = next((trials for trials in stages.built.values() if trials), None)
    if built is None or not names(type(built[0].spec), report.columns.split(".")[:-1]):
        return
    described = {
        label(value) for trials in stages.built.values() for trial in trials
        if isinstance(value := lookup(trial.fields, report.columns), Mapping)
    }  # fmt: skip
    columns = [
        (name, root.place_of(["report", "averages", k, "over", n]))
        for k, average in enumerate(report.averages) for n, name in enumerate(average.over)
    ] + [
        (name, root.place_of(["report", "reference", "values", row, name], key=True))
        for row, values in (report.reference.values if report.reference else {}).items() for name in values
    ]  # fmt: skip
    columns = [(name, place) for name, place in columns if name not in described]
    check_values(root, report.columns, columns, built[0], problems)
