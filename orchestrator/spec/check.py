"""Checks a whole job before anything starts: its fields, its trials, and how its stages refer to each other."""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from orchestrator.records.recorded_spec import lookup
from orchestrator.spec.check_claims import check_claims
from orchestrator.spec.check_labels import check_labels
from orchestrator.spec.check_layers import check_layers, check_second_axes
from orchestrator.spec.check_paths import check_effect, check_paths
from orchestrator.spec.check_replicates import CheckReplicates
from orchestrator.spec.check_report import check_figures, check_names, check_stage
from orchestrator.spec.check_search import check_after_population, check_search
from orchestrator.spec.check_sizes import check_sizes
from orchestrator.spec.check_test_access import AccessToTest
from orchestrator.spec.check_trials import (
    BaseFields,
    CheckedTrial,
    build,
    check_base,
    check_neighbours,
    trace,
)
from orchestrator.spec.check_winners import alike, undirected_sources
from orchestrator.spec.diagnostics import (
    FORMS,
    MAX_ERRORS,
    MAX_LINES,
    Problems,
    Steps,
    causes,
    offer,
    problem_from_pydantic,
)
from orchestrator.spec.job import JobSpec, Stage
from orchestrator.spec.sweep import Grid, Search
from orchestrator.spec.trial_fields import group_of
from orchestrator.spec.yaml_nodes import Location, YamlNode
from tasks.backbones.spec import FieldPath, FromStage, FromTrial, inits


def check(root: YamlNode, problems: Problems, unreadable: Collection[Location] = ()) -> JobSpec | None:
    """Returns the job that `root` describes (profile and overrides applied); adds all its mistakes to `problems`.

    `unreadable`: places of values that the reader refused; they are reported already. The trials of a stage in which
    anything is wrong or unreadable are not built: what they lack may be what is wrong.
    The job is None if too much of it is wrong. Use it only if there are no problems.
    """
    job, wrong = _structure(root, problems)
    base = check_base(root, problems)
    if job is None or len(problems) > MAX_LINES:  # more would not be shown
        return None
    bad = {job.stages[i].name for i in wrong}
    bad |= {stage.name for i, stage in enumerate(job.stages) if _holds(root.find(["stages", i]), unreadable)}
    bad |= check_paths(root, job, problems)
    if _holds(root.child("trial"), unreadable):
        base = replace(base, sound=False)
    check_effect(root, job, problems)
    bad |= check_sizes(root, job, problems)
    for i, stage in enumerate(job.stages):
        check_labels(root, stage, ["stages", i], problems)
    stages = _Stages(root, job, problems)
    replicates = CheckReplicates(root, job, problems)
    seeds_known = not any(root.find(["stages", i, "replicates"]) for i in wrong)
    for i, stage in enumerate(job.stages):
        if stages.references(i, i not in wrong) and stage.name not in bad:
            if seeds_known:
                replicates.check(i, stages.per.get(stage.name, []))
            stages.trials(i, base)
            if seeds_known:
                replicates.weights(i, stages.built.get(stage.name, []), stages.per)
            for source in stages.populations(i):
                check_after_population(root, stage, ["stages", i], source, stages.built.get(source, []), problems)
            if isinstance(stage.sweep, Search):
                check_search(root, stage, ["stages", i], stages.built.get(stage.name, []), problems)
    valid, places = not len(problems), problems.places()
    rows_and_columns = not places.intersection(root.place_of(["report", key]) for key in ("rows", "columns"))
    test_access = AccessToTest(root, job, stages.built, stages.started_from, problems)
    for i, stage in enumerate(job.stages):
        if stages.built.get(stage.name):
            # What may vary on test depends on them, and whether winners are taken on the stages that take them.
            if rows_and_columns and stage.name not in stages.undirected:
                test_access.check_selection(i)
            test_access.check_one_test_set(i)
            if valid:  # another mistake can make it seem that winners are chosen across cells
                stages.comparable(i)
    if (
        check_stage(root, job, problems) and valid and base.sound and not bad
    ):  # else names may be those of trials that were not built
        check_names(root, job, stages.built, problems)
        check_claims(root, job, stages.built, problems)
    check_figures(root, job, stages.built, problems)
    check_layers(root, job, stages.built, problems)
    check_second_axes(root, job, stages.built, problems)
    return job


def check_unapplied(root: YamlNode, problems: Problems) -> None:
    """Adds the mistakes of a file that a profile hides by replacing them: single values that their field never takes.

    `root`: without a profile applied. What is missing, or does not go together, may be what the profile is for; so may
    a null.
    """
    errors = _errors(root.plain())
    for error in causes([error for error in errors if _by_itself(error)]):
        problems.add(problem_from_pydantic(JobSpec, error, root))
    check_base(root, problems, partial=True)


def _by_itself(error: Any) -> bool:
    """False for an error that disappears when something is added or a null is replaced."""
    of_mapping = isinstance(error["input"], Mapping) and error["type"] in ("value_error", *FORMS)
    return error["input"] is not None and not of_mapping and error["type"] not in ("missing", "too_short")


def _holds(node: YamlNode | None, places: Collection[Location]) -> bool:
    """True if anything at or below a node is written at one of the places."""
    if node is None or not places:
        return False
    if isinstance(node.value, dict):
        below = list(node.value.values())
    else:
        below = node.value if isinstance(node.value, list) else []
    return node.place in places or any(_holds(child, places) for child in below)


def _errors(plain: Any) -> list[Any]:
    try:
        JobSpec.model_validate(plain, by_alias=True, by_name=False)
    except ValidationError as error:
        return list(error.errors())
    return []


def _structure(root: YamlNode, problems: Problems) -> tuple[JobSpec | None, set[int]]:
    """Validates with pydantic, then again without the wrong parts, so that the rest is checked in the same run.

    Returns the job, and the positions of the stages of which something was wrong.
    """
    plain = root.plain()
    stages: set[int] = set()
    for attempt in range(20):
        errors = _errors(plain)
        if not errors:
            return JobSpec.model_validate(plain, by_alias=True, by_name=False), stages
        if attempt == 0:
            worded = causes(errors)
            problems.add(*(problem_from_pydantic(JobSpec, each, root) for each in worded))
            problems.leave_out(max(0, len(errors) - MAX_ERRORS))
        stages |= {loc[1] for each in errors if (loc := each["loc"])[0] == "stages" and len(loc) > 1}
        wrong = [each["loc"] for each in errors if each["type"] != "missing"]
        plain = copy.deepcopy(plain)
        if not wrong or not [loc for loc in wrong if _prune(plain, loc)]:
            break
    return None, stages


def _prune(plain: Any, loc: tuple[str | int, ...]) -> bool:
    """Removes the innermost named part of a location from `plain`. False if there is none."""
    innermost: tuple[dict[str, Any], str] | None = None
    value = plain
    for step in loc:
        if isinstance(value, dict) and step in value:
            innermost = (value, str(step))
            value = value[step]
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
    if innermost is None:
        return False
    mapping, key = innermost
    del mapping[key]
    return True


class _Stages:
    """Checks the stages of a job against each other, in their order."""

    def __init__(self, root: YamlNode, job: JobSpec, problems: Problems) -> None:
        self.root, self.job, self.problems = root, job, problems
        self.built: dict[str, list[CheckedTrial]] = {}
        """Stage -> its valid trials."""
        self.per: dict[str, list[str]] = {}
        """Stage -> the fields that form its groups, its own or those of its source."""
        self.started_from: dict[str, str] = {}
        """Stage whose weights are taken -> one of the stages that start from them."""
        self.same_name = False
        """Two stages have one name."""
        self.undirected: set[str] = set()
        """Stages of which it is told that nobody can take their winners."""

    def references(self, i: int, whole: bool) -> bool:
        """The stage's name is unique, `from` names earlier stages with equal groups, and its fields go together.

        `whole`: none of its fields is wrong by itself. Returns False if its trials cannot be told.
        """
        stage, before = self.job.stages[i], len(self.problems)
        at: Steps = ["stages", i]
        earlier = [each.name for each in self.job.stages[:i]]
        if stage.name in earlier:
            first = self.root.place_of(["stages", earlier.index(stage.name), "name"])
            place = self.root.place_of([*at, "name"])
            self.problems.report(place, "stages.name", stage.name, f"a second stage of this name; the first: {first}")
            self.same_name = True
        for k, name in enumerate(stage.from_):
            if name not in earlier and not self.same_name:  # else it may be what the second one should be called
                place = self.root.place_of([*at, "from", k])
                self.problems.report(place, f"stages.{stage.name}.from", name, self.not_earlier(name, i))
        if not whole:
            return False
        groups = {name: self.per[name] for name in stage.from_ if name in self.per}
        if groups or not (stage.from_ or stage.neighbourhood):
            self.per.setdefault(stage.name, next(iter(groups.values()), stage.per))
        if len({tuple(per) for per in groups.values()}) > 1:
            listed = "; ".join(f"{name}: {', '.join(per) or 'none'}" for name, per in groups.items())
            self.about(i, "from", f"the sources form different groups ({listed}); give them the same `per`")
        if stage.from_ and stage.per and not isinstance(stage.sweep, Search):
            self.about(i, "per", "a stage with `from` has the groups of its source; remove `per`")
        if stage.neighbourhood is not None and not stage.from_:
            self.about(i, "neighbourhood", "needs `from`: the stages around whose winner it searches")
        if stage.neighbourhood is not None and isinstance(stage.sweep, Grid | Search):
            what = "grid" if isinstance(stage.sweep, Grid) else "search"
            self.about(i, "sweep", f"a stage has a {what} or a neighbourhood, not both; split it into two stages")
        if stage.from_ and isinstance(stage.sweep, Search):
            self.about(i, "from", "a search stands on its own, and later stages may take its winner; remove `from`")
        elif isinstance(stage.sweep, Search) and stage.per != list(stage.sweep.each):
            self.about(i, "per", "the groups of a search are those of its `each`; remove `per`")
        return len(self.problems) == before

    def about(self, i: int, key: str, *parts: str) -> None:
        place = self.root.place_of(["stages", i, key], key=True)
        self.problems.report(place, f"stages.{self.job.stages[i].name}.{key}", *parts)

    def not_earlier(self, name: str, i: int) -> str:
        """Why a stage cannot be referred to that is not an earlier one. (The order in the file rules out cycles.)"""
        stage_names = [each.name for each in self.job.stages]
        earlier = f"earlier stages: {', '.join(stage_names[:i]) or 'none'}"
        if name == stage_names[i]:
            return f"a stage cannot take from itself; {earlier}"
        if name in stage_names:
            return f"comes later than {stage_names[i]}, and stages take only from earlier ones; {earlier}"
        return "no such stage; " + offer(name, stage_names[:i], "earlier stages")

    def trials(self, i: int, base: BaseFields) -> None:
        """Every trial of the stage is valid, an earlier stage makes its initial weights, its neighbours are allowed."""
        stage = self.job.stages[i]
        at: Steps = ["stages", i]
        start = base
        if stage.from_:
            sources = [trial for name in stage.from_ for trial in self.built.get(name, [])]
            if not sources:
                return  # the sources' own problems are reported
            if undirected := undirected_sources(self.root, stage, at, self.built, self.problems):
                self.undirected.update(undirected)
                return
            start = BaseFields(sources[0].fields, sources[0].origins, base.sound)
        built = build(self.root, stage, at, start, self.job.resources_of(stage).workers, self.problems)
        self.built.setdefault(stage.name, built)
        self.initial_weights(i, built)
        self.workers(i, built)
        if stage.neighbourhood is not None and stage.from_ and built:
            values = {path: self.grid_values(stage, path) for path in stage.neighbourhood.near}
            check_neighbours(self.root, stage, at, built[0], values, self.problems)

    def workers(self, i: int, built: list[CheckedTrial]) -> None:
        """The global batch is a multiple of what the task needs for so many workers, and their number is fixed where
        the loss depends on it."""
        stage = self.job.stages[i]
        resources = self.job.resources_of(stage)
        workers = resources.workers
        at: Steps = ["stages", i, "resources"] if stage.resources else ["resources"]
        if len(resources.fitting()) > 1 and any(t.spec.trains and t.spec.task.loss_over == "batch" for t in built):
            what = (
                f"the loss needs a worker's whole share of the batch, so trials run with {workers} workers; remove it"
            )
            place = self.root.place_of([*at, "min_workers"], key=True)
            self.problems.report(place, f"stages.{stage.name}: resources.min_workers", str(resources.min_workers), what)
        for trial in built:
            batch, (multiple, reason) = trial.spec.optim.batch, trial.spec.task.batch_multiple(workers)
            if not trial.spec.trains or batch % multiple == 0:
                continue
            at_batch = trace(self.root, ["optim", "batch"], trial.origins)
            place = self.root.place_of([*at, "workers"]) if workers > 1 else at_batch
            if place in self.problems.places():
                continue  # reported for another stage
            if workers > 1:
                what = f"does not go with optim.batch {batch}: {reason}; use a batch that is a multiple of {multiple}"
                self.problems.report(place, f"stages.{stage.name}: resources.workers", str(workers), what)
            else:
                what = f"{reason}: use a multiple of {multiple}"
                self.problems.report(place, f"stages.{stage.name}: optim.batch", str(batch), what)

    def grid_values(self, stage: Stage, path: str) -> list[Any]:
        """The values that the sources' grids and overrides set at `path`, each once."""
        sources = [each.settings for name in stage.from_ for each in self.built.get(name, [])]
        values = [settings[path] for settings in sources if path in settings]
        return list({json.dumps(value): value for value in values}.values())

    def initial_weights(self, i: int, built: list[CheckedTrial]) -> None:
        """Every source of weights of the stage's trials that names a stage names one that this stage may start from."""
        for trial in built:
            for steps, init in inits(trial.spec):
                if isinstance(init, FromTrial):
                    place = trace(self.root, [*steps, "kind"], trial.origins)
                    name = self._init_name(i, steps)
                    self.problems.report(place, name, "trial: set by the planner alone; write {kind: stage, ...}")
                elif isinstance(init, FromStage) and init.job is None:
                    self._weights_of_stage(
                        i, trial, steps, init
                    )  # another job's are looked up when this one is planned

    def _init_name(self, i: int, steps: FieldPath) -> str:
        return f"stages.{self.job.stages[i].name}: {'.'.join(map(str, steps))}"

    def _weights_of_stage(self, i: int, trial: CheckedTrial, steps: FieldPath, init: FromStage) -> None:
        """`kind: stage` names an earlier stage that ends with one set of weights."""
        name, earlier = self._init_name(i, steps), [each.name for each in self.job.stages[:i]]
        place = trace(self.root, [*steps, "stage"], trial.origins)
        if init.stage not in earlier:
            self.problems.report(place, name, init.stage, self.not_earlier(init.stage, i))
            return
        self.started_from.setdefault(init.stage, self.job.stages[i].name)
        per = self.per.get(init.stage, [])
        groups = list(dict.fromkeys(group_of(source.spec, per)[0] for source in self.built.get(init.stage, [])))
        if init.group is None and len(groups) > 1:
            what = f"ends with a winner in each of {len(groups)} groups; name one of them with `group`"
            self.problems.report(place, name, init.stage, f"{what}: {', '.join(groups[:8])}")
        elif groups and init.group is not None and init.group not in groups:
            what = f"no such group of stage {init.stage}; " + offer(init.group, groups, "its groups")
            self.problems.report(trace(self.root, [*steps, "group"], trial.origins), name, init.group, what)
        elif what := alike(self.built.get(init.stage, []), per, init.group):
            self.problems.report(place, name, init.stage, what)
        if self.job.stages[earlier.index(init.stage)].keep_weights is False:
            self.problems.report(place, name, init.stage, "its keep_weights is false; remove that")

    def populations(self, i: int) -> list[str]:
        """Names of the stages with a population from which this stage takes winners."""
        sweeps = {each.name: each.sweep for each in self.job.stages[:i]}
        sources = ((name, sweeps.get(name)) for name in self.job.stages[i].from_)
        return [name for name, sweep in sources if isinstance(sweep, Search) and sweep.population is not None]

    def comparable(self, i: int) -> None:
        """A winner is chosen among trials of the same data sets, and of one cell of the table."""
        stage, consumers = self.job.stages[i], self.job.consumers(i)
        if not consumers or stage.from_:
            return
        built = self.built[stage.name]
        data = {f"task.{field}" for trial in built for field in trial.spec.task.data_fields}
        paths = sorted({self.job.report.rows, self.job.report.columns, *data} - set(stage.per))
        dumped = [trial.spec.model_dump(mode="json") for trial in built] if paths else []
        tried = [path for path in paths if len({json.dumps(lookup(spec, path), sort_keys=True) for spec in dumped}) > 1]
        if tried:
            listed, taker = ", ".join(tried), consumers[0].name
            what = f"lacks {listed}, whose values are tried: {taker} would take one winner for all of them"
            self.about(i, "per", what + f"; add {listed}")
