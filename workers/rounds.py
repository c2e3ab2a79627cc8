"""Divides the optimizer steps of a trial into rounds (epochs, or parts of a length in iterations), and reads their
batches."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from tasks.base import Batch, Loaders
from workers.trial import TrialSpec


@dataclass(frozen=True)
class Rounds:
    """Which optimizer steps belong to which round; both are counted from 0."""

    steps_per_round: int
    """The last round may have fewer."""
    total_steps: int

    @classmethod
    def of(cls, trial: TrialSpec, steps_per_epoch: int) -> Rounds:
        if not trial.trains:
            return cls(0, 0)
        if trial.optim.iterations is not None:
            return cls(trial.runtime.report_iterations, trial.optim.iterations)
        return cls(steps_per_epoch, trial.optim.epochs * steps_per_epoch)

    def first_step(self, number: int) -> int:
        """Optimizer steps before round `number`."""
        return min(number * self.steps_per_round, self.total_steps)

    def steps(self, number: int) -> int:
        """Optimizer steps of round `number`."""
        return self.first_step(number + 1) - self.first_step(number)


def batches_from(loaders: Loaders, step: int) -> Iterator[Batch]:
    """The batches of optimizer step `step` and all later ones, epoch after epoch without end.

    Raises RuntimeError when the loaders give more or fewer batches than an epoch has steps.
    """
    epoch, first = divmod(step, loaders.steps_per_epoch)
    for number in itertools.count(epoch):
        given = first
        for batch in loaders.epoch(number, first):
            given += 1
            if given > loaders.steps_per_epoch:
                break
            yield batch
        if given != loaders.steps_per_epoch:
            more = "more" if given > loaders.steps_per_epoch else str(given)
            raise RuntimeError(f"the loaders gave {more} batches in an epoch of {loaders.steps_per_epoch} steps")
        first = 0
