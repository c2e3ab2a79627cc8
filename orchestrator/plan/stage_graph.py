"""The graph of a job's stages: which stages take winners or weights from which, and what tells their trials apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from orchestrator.rules.selection import Range, read_tie, search_ranges
from orchestrator.spec.access_to_test import why_refused
from orchestrator.spec.job import JobSpec, Resources, Stage
from orchestrator.spec.seeds import SEED, StageSeeds
from orchestrator.spec.sweep import Grid, Search
from workers.trial import TrialSpec


class StageGraph:
    """A job's stages and the edges between them. Edges of weights are added while the sweeps are expanded."""

    def __init__(self, job: JobSpec) -> None:
        self.job = job
        self.seeds = StageSeeds(job)
        self.by_name = {stage.name: stage for stage in job.stages}
        self.consumers = {stage.name: job.consumers(number) for number, stage in enumerate(job.stages)}
        """Stage -> stages that take its winners."""
        self._weight_consumers: dict[str, set[str]] = defaultdict(set)
        self.watched = {stage.name: self._watched(stage) for stage in job.stages}
        """Paths that tell the stage's trials apart, form its groups, or are read by later selections, so that all
        candidates of a selection state the same settings."""
        self.named_by = {
            stage.name: [path for path in self._varied(stage) if path not in self._per(stage)] for stage in job.stages
        }
        """Paths that tell the trials of one group apart, shown in a trial's name."""

    def add_weights_edge(self, source: str, consumer: str) -> None:
        """Records that trials of stage `consumer` start from the weights of stage `source`."""
        self._weight_consumers[source].add(consumer)

    def weight_consumers(self, stage: str) -> list[str]:
        """Stages whose trials start from the weights of `stage`, by name."""
        return sorted(self._weight_consumers.get(stage, ()))

    def may_test(self, stage: Stage) -> bool:
        """True if nothing depends on the stage and the report shows all its trials (see spec.access_to_test)."""
        number = next(i for i, each in enumerate(self.job.stages) if each.name == stage.name)
        return not self.weight_consumers(stage.name) and why_refused(self.job, number) is None

    def resources(self, stage: Stage) -> Resources:
        return self.job.resources_of(stage)

    def keeps_weights(self, stage: Stage, spec: TrialSpec) -> bool:
        """True if the weights of the stage's trial are kept: always if a later trial starts from them; else as the
        stage says; by default those of trials that read test or of a task that makes weights."""
        if self.weight_consumers(stage.name):
            return True
        if stage.keep_weights is not None:
            return stage.keep_weights
        reruns_winners = bool(stage.from_) and self.may_test(stage)
        return reruns_winners or spec.task.reads_test or spec.task.makes_weights

    def sources(self, stage: Stage) -> list[Stage]:
        return [self.by_name[name] for name in stage.from_]

    def axes(self, stage: Stage) -> list[str]:
        """Paths that the stage's own sweep sets; for a stage with `from`, first those of the sweeps before it."""
        own = [*stage.sweep.each, *stage.sweep.search] if isinstance(stage.sweep, Search) else self.grid_axes(stage)
        return _unique([*(path for source in self.sources(stage) for path in self.axes(source)), *own])

    def grid_axes(self, stage: Stage) -> list[str]:
        """Paths that the stage's own grid sets."""
        return _unique(path for axes in stage.sweep.grid for path in axes) if isinstance(stage.sweep, Grid) else []

    def ranges(self, names: Iterable[str]) -> dict[str, Range]:
        """The ranges of numbers of those of these stages that search."""
        sweeps = [sweep for name in names if isinstance(sweep := self.by_name[name].sweep, Search)]
        spaces = [sweep.model_dump(mode="json", by_alias=True)["search"] for sweep in sweeps]
        return search_ranges({path: body for space in spaces for path, body in space.items()})[0]

    def sweeps(self, stage: Stage) -> list[str]:
        """Names of the stages with a sweep of their own to which `stage` goes back through `from`, or its own name."""
        if not stage.from_:
            return [stage.name]
        return _unique(name for source in self.sources(stage) for name in self.sweeps(source))

    def _varied(self, stage: Stage) -> list[str]:
        """Paths that tell the stage's trials apart: axes and neighbourhoods, its own and those of stages before it."""
        own = list(stage.neighbourhood.near) if stage.neighbourhood else []
        own += [] if stage.replicates is None else [SEED]
        before = [path for source in self.sources(stage) for path in self._varied(source)]
        return _unique([*before, *self.axes(stage), *own])

    def _watched(self, stage: Stage) -> list[str]:
        paths = [*self._varied(stage), *self._per(stage)]
        for consumer in self.consumers[stage.name]:
            paths += [tie.name for tie in map(read_tie, self.by_name[consumer.from_[0]].ties) if not tie.figure]
            paths += [*(consumer.neighbourhood.near if consumer.neighbourhood else ()), *self._watched(consumer)]
        return _unique(paths)

    def _per(self, stage: Stage) -> list[str]:
        return self._per(self.by_name[stage.from_[0]]) if stage.from_ else stage.per


def _unique(paths: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(paths))
