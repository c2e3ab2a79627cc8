"""Groups trials by their setting: those of one setting differ in their seed alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.report.figures import has_direction, metric_of, scaled
from orchestrator.report.marks import Mark, mark_of

if TYPE_CHECKING:
    from orchestrator.records.rows import PlacedRow


@dataclass(frozen=True)
class Replicates:
    """The trials of one setting, in the order of their seeds, with the metric that they are chosen by."""

    trials: tuple[PlacedRow, ...]
    values: tuple[float, ...]
    """In the metric's unit, one for each of `seeds`: of the trials that ended with a number."""
    seeds: tuple[int, ...]

    @property
    def state(self) -> Mark:
        """`diverged` also for a trial that ended with a figure that is no number."""
        state = mark_of(trial.state for trial in self.trials)
        return "diverged" if state == "done" and len(self.values) < len(self.trials) else state

    @property
    def value(self) -> float | None:
        """The mean over the seeds; None unless each of them ended with a number."""
        return math.fsum(self.values) / len(self.values) if self.state == "done" else None

    @property
    def diverged(self) -> int:
        """Seeds that ended without a number."""
        ended = sum(trial.state in ("done", "diverged") for trial in self.trials)
        return ended - len(self.values)


def setting_of(trial: PlacedRow) -> str:
    """Equal for trials that differ in their seed alone."""
    return repr(sorted((path, repr(value)) for path, value in trial.settings.items() if path != "seed"))


def by_seed(trials: Iterable[PlacedRow]) -> list[PlacedRow]:
    """The trials in the order of their seeds."""
    return sorted(trials, key=lambda trial: (trial.seed, trial.key))


def replicates(trials: Sequence[PlacedRow]) -> Replicates:
    """Of trials of one setting."""
    ordered = by_seed(trials)
    ended = [(trial.seed, scaled(trial.value, metric_of(trial))) for trial in ordered if trial.state == "done"]
    known = [(seed, value) for seed, value in ended if value is not None]
    return Replicates(tuple(ordered), tuple(value for _, value in known), tuple(seed for seed, _ in known))


def by_setting(trials: Iterable[PlacedRow]) -> list[Replicates]:
    """In the order in which each setting first appears."""
    settings: dict[str, dict[str, PlacedRow]] = {}
    listed = list(trials)
    alone = len({trial.seed for trial in listed}) < 2  # the usual case, where settings need not be compared
    for trial in listed:
        settings.setdefault(trial.key if alone else setting_of(trial), {})[trial.key] = trial
    return [replicates(list(members.values())) for members in settings.values()]


def best_first(trials: Iterable[PlacedRow]) -> list[Replicates]:
    """By the mean over the seeds, those without a value last; equal ones by key, so that the order is always the
    same. Where no value is better than another, all with a value are equal."""

    def rank(setting: Replicates) -> tuple[bool, float, str]:
        value, first = setting.value, setting.trials[0]
        if value is None or not has_direction(first):
            return (value is None, 0.0, first.key)
        return (False, -value if first.mode == "max" else value, first.key)

    return sorted(by_setting(trials), key=rank)
