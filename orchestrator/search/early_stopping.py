"""Early stopping by Ray Tune's schedulers: ASHA and the median rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.spec.search_space import Asha, Median, rungs
from orchestrator.spec.sweep import Search


class _Rule:
    """No early stopping."""

    def listens(self, epoch: int) -> bool:
        """Whether a report after this epoch can matter."""
        return False

    def begin(self, key: str, number: int) -> None:
        """The group's trial of this number, from 1, begins."""

    def stops(self, key: str, epoch: int, value: float) -> bool:
        return False

    def spare(self, key: str) -> None:
        """The trial goes on, although `stops` said otherwise."""

    def end(self, key: str, epoch: int, value: float) -> None:
        """A trial ran in full."""


@dataclass(frozen=True)
class _Named:
    """What Tune's schedulers want to know of a trial, and of the controller."""

    trial_id: str = ""

    def get_live_trials(self) -> list[Any]:
        """None to yield to: a trial is never paused."""
        return []


class _TuneRule(_Rule):
    """One of Tune's schedulers, without Tune's controller."""

    def __init__(self, search: Search, metric: str, mode: str, epochs: int) -> None:
        from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule

        self._metric, self._epochs, self._seed = metric, epochs, search.seed
        self._refused: set[Any] = set()
        """Trials that the rule wanted to stop, of which it takes no further report."""
        common = {"time_attr": "epoch", "metric": metric, "mode": mode}
        stopping = search.stopping
        if isinstance(stopping, Asha):
            rule = stopping.asha
            self.tune: Any = AsyncHyperBandScheduler(
                max_t=epochs,
                grace_period=rule.grace_epochs,
                reduction_factor=rule.reduction_factor,
                brackets=rule.brackets,
                stop_last_trials=False,
                **common,
            )
            self._rungs = {epoch for bracket in range(rule.brackets) for epoch in rungs(rule, epochs, bracket)}
        else:
            assert isinstance(stopping, Median)
            self.tune = MedianStoppingRule(
                grace_period=stopping.median.grace_epochs,
                min_samples_required=stopping.median.min_trials,
                **common,
            )
            self._refused = self.tune._stopped_trials
            self._rungs = set(range(1, epochs))

    def listens(self, epoch: int) -> bool:
        return epoch in self._rungs

    def begin(self, key: str, number: int) -> None:
        import numpy as np

        before = np.random.get_state()
        np.random.seed([self._seed, number])  # Tune draws the bracket from numpy's global generator
        self.tune.on_trial_add(_Named(), _Named(key))
        np.random.set_state(before)

    def stops(self, key: str, epoch: int, value: float) -> bool:
        said = self.tune.on_trial_result(_Named(), _Named(key), {"epoch": epoch, self._metric: value})
        return bool(said == "STOP")

    def spare(self, key: str) -> None:
        self._refused.discard(_Named(key))

    def end(self, key: str, epoch: int, value: float) -> None:
        self.tune.on_trial_complete(_Named(), _Named(key), {"epoch": epoch, self._metric: value})


def _rule(search: Search, metric: str, mode: str, epochs: int) -> _Rule:
    return _Rule() if search.stopping == "none" else _TuneRule(search, metric, mode, epochs)
