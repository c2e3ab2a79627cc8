"""Early stopping by Ray Tune's schedulers: ASHA and the median rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from orchestrator.spec.search_space import Asha, Median, rungs
from orchestrator.spec.sweep import Search


class StoppingRule:
    """Decides by a trial's reports whether it stops early; this one never stops a trial."""

    def listens(self, epoch: int) -> bool:
        """True if a report after this epoch can matter."""
        return False

    def begin(self, key: str, number: int) -> None:
        """Adds the group's trial of this number, counted from 1."""

    def stops(self, key: str, epoch: int, value: float) -> bool:
        """Takes a report; True if the trial shall stop."""
        return False

    def spare(self, key: str) -> None:
        """Takes back that `stops` was True: the trial continues."""

    def end(self, key: str, epoch: int, value: float) -> None:
        """Takes the result of a trial that ran in full."""


@dataclass(frozen=True)
class _TuneTrial:
    """The part of a trial, and of Tune's controller, that its schedulers use."""

    trial_id: str = ""

    def get_live_trials(self) -> list[Any]:
        """None that could run in place of a paused one: trials are never paused."""
        return []


class _TuneRule(StoppingRule):
    """One of Tune's schedulers, without Tune's controller."""

    def __init__(self, search: Search, metric: str, mode: str, epochs: int) -> None:
        from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule

        self._metric, self._epochs, self._seed = metric, epochs, search.seed
        self._stopped: set[Any] = set()
        """Trials that the scheduler has stopped, whose further reports it ignores."""
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
            self._stopped = self.tune._stopped_trials
            self._rungs = set(range(1, epochs))

    def listens(self, epoch: int) -> bool:
        return epoch in self._rungs

    def begin(self, key: str, number: int) -> None:
        import numpy as np

        before = np.random.get_state()
        np.random.seed([self._seed, number])  # Tune draws the bracket from numpy's global generator
        self.tune.on_trial_add(_TuneTrial(), _TuneTrial(key))
        np.random.set_state(before)

    def stops(self, key: str, epoch: int, value: float) -> bool:
        decision = self.tune.on_trial_result(_TuneTrial(), _TuneTrial(key), {"epoch": epoch, self._metric: value})
        return bool(decision == "STOP")

    def spare(self, key: str) -> None:
        self._stopped.discard(_TuneTrial(key))

    def end(self, key: str, epoch: int, value: float) -> None:
        self.tune.on_trial_complete(_TuneTrial(), _TuneTrial(key), {"epoch": epoch, self._metric: value})


def stopping_rule(search: Search, metric: str, mode: str, epochs: int) -> StoppingRule:
    """The rule of a search. `epochs`: of a trial in full; `mode`: "max" or "min" of `metric`."""
    return StoppingRule() if search.stopping == "none" else _TuneRule(search, metric, mode, epochs)
