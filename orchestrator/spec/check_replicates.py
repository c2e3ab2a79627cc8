"""Checks replicates: nothing is chosen among seeds, and what is compared or starts from one another has equal seeds."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.spec.check_paths import axis_paths
from orchestrator.spec.check_trials import CheckedTrial
from orchestrator.spec.diagnostics import Problems, Steps
from orchestrator.spec.job import JobSpec
from orchestrator.spec.seeds import (
    SEED,
    StageSeeds,
    given_first,
    seed_axis,
    seeds_text,
    sets_weights,
)
from orchestrator.spec.sweep import Search
from orchestrator.spec.yaml_nodes import YamlNode
from tasks.backbones.spec import FieldPath, FromStage, inits
from tasks.bounds import MAX_SEED


class CheckReplicates:
    """Checks the stages of a job in their order."""

    def __init__(self, root: YamlNode, job: JobSpec, problems: Problems) -> None:
        self._root, self._job, self._problems = root, job, problems
        self._seeds = StageSeeds(job)
        self._starts_from: dict[str, dict[FieldPath, set[str]]] = {}
        """Stage -> steps to the weights that its trials start from -> the stages that make them."""
        self._told: set[str] = set()
        """Stages with replicates of which it is told that another stage needs as many, or whose seeds may not vary."""
        self._wrong: set[str] = set()
        """Stages whose seeds make no sense by themselves or beside their sources'."""

    def check(self, i: int, per: Sequence[str]) -> None:
        """The seeds of stage `i` by themselves, and beside those of the stages whose winners it takes. `per`: the
        fields that form its groups."""
        stage, before = self._job.stages[i], len(self._problems)
        near: Steps = ["neighbourhood", "near", SEED]
        if stage.neighbourhood is not None and SEED in stage.neighbourhood.near:
            what = "a seed has no neighbourhood; to try each setting with n seeds: replicates: n"
            self._report(i, near, f"stages.{stage.name}.neighbourhood.near", SEED, what, key=True)
        if SEED not in per and stage.replicates is None and (takers := self._job.consumers(i)):
            self._no_axis(i, f"{takers[0].name} takes its winner")
        if stage.replicates is not None:
            self._alone(i, per)
        if len(self._problems) == before:
            self._sources(i)
        if len(self._problems) > before:
            self._wrong.add(stage.name)

    def weights(self, i: int, built: Sequence[CheckedTrial], per: dict[str, list[str]]) -> None:
        """The trials of stage `i` start from a stage with as many replicates, also those whose weights a winner has.

        `built`: its trials; `per`: the fields that form the groups of each stage.
        """
        stage = self._job.stages[i]
        own: dict[FieldPath, set[str]] = {}
        for name in stage.from_:
            for steps, sources in self._starts_from.get(name, {}).items():
                if not sets_weights(stage, steps):
                    own.setdefault(steps, set()).update(sources)
        for trial in built:
            for steps, init in inits(trial.spec):
                if isinstance(init, FromStage) and init.job is None and init.stage in self._seeds.of:
                    own.setdefault(steps, set()).add(init.stage)
        self._starts_from.setdefault(stage.name, own)
        numbers = {each.name: number for number, each in reversed(list(enumerate(self._job.stages)))}
        for source in sorted({name for sources in own.values() for name in sources}):
            if SEED not in per.get(source, ()):
                self._no_axis(numbers[source], f"{stage.name} starts from its best weights")
            self._as_many(i, source)

    def _no_axis(self, i: int, why: str) -> None:
        """No stage tries several seeds from which a winner is taken: the luckiest would win."""
        stage = self._job.stages[i]
        if stage.name in self._told:
            return
        for steps, path in axis_paths(self._root, stage, ["stages", i]):
            if path == SEED:
                self._told.add(stage.name)
                what = f"{why}, which would be the luckiest seed; write replicates: n instead"
                place = self._root.place_of([*steps, SEED], key=True)
                self._problems.report(place, f"stages.{stage.name}.sweep", SEED, what)
                return

    def _alone(self, i: int, per: Sequence[str]) -> None:
        """Nothing else in the stage sets seeds, no trial of it stops early, and its seeds are seeds."""
        stage = self._job.stages[i]
        name = f"stages.{stage.name}.replicates"
        instead = "the seeds are those of `replicates`; keep one of them"
        if SEED in stage.override:
            self._report(i, ["override", SEED], f"stages.{stage.name}.override", SEED, instead, key=True)
        for steps, path in axis_paths(self._root, stage, ["stages", i]):
            if path == SEED:
                place = self._root.place_of([*steps, SEED], key=True)
                self._problems.report(place, f"stages.{stage.name}.sweep", SEED, instead)
                return
        if SEED in per:
            self._report(i, ["replicates"], name, "each group has a seed of its own (per: seed); remove one of them")
        if isinstance(stage.sweep, Search) and stage.sweep.population is not None:
            what = "members of a population copy each other, so no setting is run as a whole; remove it"
            self._report(i, ["replicates"], name, what)
        elif isinstance(stage.sweep, Search) and stage.sweep.stopping != "none":
            what = "a trial that stops early has no result, and the seeds of a setting would stop at different times"
            self._report(i, ["replicates"], name, what + "; remove stopping or replicates")
        if self._seeds.of[stage.name][-1] > MAX_SEED:
            what = f"the last seed, first + n - 1, is above {MAX_SEED} (2^63 - 1); write a smaller first"
            self._report(i, ["replicates"], name, str(self._seeds.of[stage.name][-1]), what)

    def _sources(self, i: int) -> None:
        """Winners are chosen over equal seeds, and run again with others."""
        stage = self._job.stages[i]
        stages = {each.name: each for each in self._job.stages}
        sources = [name for name in stage.from_ if name in self._seeds.of]
        if not sources or any(seed_axis(stages[name]) or name in self._wrong for name in sources):
            return
        seeds = {name: self._seeds.of[name] for name in sources}
        if len({frozenset(each) for each in seeds.values()}) > 1:
            listed = "; ".join(f"{name}: {seeds_text(each)}" for name, each in seeds.items())
            what = f"the settings of its sources run with different seeds ({listed}), so luck would choose among them"
            self._report(i, ["from"], f"stages.{stage.name}.from", what + "; give them equal seeds")
        elif stage.neighbourhood is not None:
            self._around(i, sources[0])
        elif (first := given_first(stage)) is not None:
            before = self._seeds.chosen_with[stage.name]
            if before.intersection(self._seeds.of[stage.name]):
                what = (
                    f"its setting was chosen with seeds {seeds_text(before)}, whose luck would be reported; "
                    f"write first: {max(before) + 1}, or leave first out"
                )
                self._report(i, ["replicates", "first"], f"stages.{stage.name}.replicates.first", str(first), what)

    def _around(self, i: int, source: str) -> None:
        """The points around a winner are compared with its own, so they have the same seeds."""
        stage, own = self._job.stages[i], self._seeds.of[self._job.stages[i].name]
        wanted = self._seeds.of[source]
        if own == wanted or (stage.replicates is None and len(wanted) == 1):
            return
        key = "neighbourhood" if stage.replicates is None else "replicates"
        many = "1 seed" if len(wanted) == 1 else f"{len(wanted)} seeds"
        remedy = f"replicates: {len(wanted)}"
        if len(wanted) == 1 and own[0] == wanted[0]:
            remedy = f"replicates: {len(own)} in {source} too, or remove it here"
        what = f"its points are compared with those of {source}, which run with {many} ({seeds_text(wanted)})"
        self._report(i, [key], f"stages.{stage.name}.{key}", f"{what}; write {remedy}", key=True)

    def _as_many(self, i: int, source: str) -> None:
        stage = self._job.stages[i]
        own, count = len(self._seeds.of[stage.name]), len(self._seeds.of[source])
        if min(own, count) == 1 or (own == count and stage.replicates is not None) or source in self._told:
            return
        self._told.add(source)
        key = "replicates" if stage.replicates is not None else "sweep"
        what = f"runs {own} seeds, but starts from stage {source}, which has {count}, and each starts from one"
        self._report(i, [key], f"stages.{stage.name}.{key}", f"{what}; write replicates: {count}, or none", key=True)

    def _report(self, i: int, steps: Steps, *parts: str, key: bool = False) -> None:
        self._problems.report(self._root.place_of(["stages", i, *steps], key=key), *parts)
