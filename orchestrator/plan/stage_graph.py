"""The graph of a job's stages: who takes winners or weights from whom."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from orchestrator.plan.trials import _once
from orchestrator.rules.selection import Range, read_tie, search_ranges
from orchestrator.spec.job import JobSpec, Resources, Stage
from orchestrator.spec.sweep import Grid, Search, one_setting
from workers.trial import TrialSpec


class StageGraph:
    """What a job's stages say about each other; fixed at load."""

    def __init__(self, job: JobSpec) -> None:
        self.job = job
        self.by_name = {stage.name: stage for stage in job.stages}
        self.consumers = {
            stage.name: [other for other in job.stages if stage.name in other.from_] for stage in job.stages
        }
        self.weight_sources: set[str] = set()
        """Stages from whose weights another stage starts; complete once the sweeps are expanded."""
        self.watched = {stage.name: self._watched(stage) for stage in job.stages}
        """Paths that tell the stage's trials apart, form its groups, or are looked at by later choices: so all
        candidates of a choice state the same settings."""
        self.named_by = {
            stage.name: [path for path in self._moved(stage) if path not in self._per(stage)] for stage in job.stages
        }
        """Paths that tell the trials of one group apart: what a trial's name shows."""

    def may_test(self, stage: Stage) -> bool:
        """Only winners as they are, in one setting each, and only where nothing more is chosen or started from the
        result: of several settings that read test, somebody would take the best."""
        after = self.consumers[stage.name] or stage.name in self.weight_sources
        return bool(stage.from_) and stage.neighbourhood is None and one_setting(stage.sweep) and not after

    def resources(self, stage: Stage) -> Resources:
        return stage.resources or self.job.resources

    def keeps_weights(self, stage: Stage, spec: TrialSpec) -> bool:
        """What a later trial starts from is kept whatever the stage says; else as it says; else what read test."""
        if stage.name in self.weight_sources:
            return True
        if stage.keep_weights is not None:
            return stage.keep_weights
        return self.may_test(stage) or spec.task.makes_weights

    def sources(self, stage: Stage) -> list[Stage]:
        return [self.by_name[name] for name in stage.from_]

    def axes(self, stage: Stage) -> list[str]:
        """Paths that the stage's own sweep sets, and, for one with `from`, those of the sweeps it goes back to."""
        own = [*stage.sweep.each, *stage.sweep.search] if isinstance(stage.sweep, Search) else self.grid_axes(stage)
        return _once([*(path for source in self.sources(stage) for path in self.axes(source)), *own])

    def grid_axes(self, stage: Stage) -> list[str]:
        """Paths that the stage's own grid sets."""
        return _once(path for axes in stage.sweep.grid for path in axes) if isinstance(stage.sweep, Grid) else []

    def ranges(self, names: Iterable[str]) -> tuple[dict[str, Range], dict[str, list[Any]]]:
        """Of those of these stages that search: ranges of numbers, and lists of choices."""
        sweeps = [sweep for name in names if isinstance(sweep := self.by_name[name].sweep, Search)]
        plain = [sweep.model_dump(mode="json", by_alias=True)["search"] for sweep in sweeps]
        return search_ranges({path: one for search in plain for path, one in search.items()})

    def _moved(self, stage: Stage) -> list[str]:
        """Paths that tell the stage's trials apart: axes and neighbourhoods, its own and those it goes back to."""
        own = list(stage.neighbourhood.near) if stage.neighbourhood else []
        before = [path for source in self.sources(stage) for path in self._moved(source)]
        return _once([*before, *self.axes(stage), *own])

    def _watched(self, stage: Stage) -> list[str]:
        paths = [*self._moved(stage), *self._per(stage)]
        for taker in self.consumers[stage.name]:
            paths += [tie.name for tie in map(read_tie, self.by_name[taker.from_[0]].ties) if not tie.figure]
            paths += [*(taker.neighbourhood.near if taker.neighbourhood else ()), *self._watched(taker)]
        return _once(paths)

    def _per(self, stage: Stage) -> list[str]:
        return self._per(self.by_name[stage.from_[0]]) if stage.from_ else stage.per

    def sweeps(self, stage: Stage) -> list[str]:
        """Names of the stages with a sweep of their own that `stage` goes back to, itself included."""
        if not stage.from_:
            return [stage.name]
        return _once(name for source in self.sources(stage) for name in self.sweeps(source))
