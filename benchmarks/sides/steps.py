"""The side of a training step that is ours: the real loop over batches in memory, in turns with a loop by hand.

The loop by hand has its own process, as the script that it stands for: what our loop sets for its process must not help
it.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from tasks.base import EVERYTHING, Batch, EvaluationShare, Loaders
from tasks.metrics import Metric, Summary
from workers.messages import Report
from workers.state import RankContext
from workers.train import train
from workers.trial import TrialSpec

from .turns import row

CLOCK: list[float] = []
"""When our loop asked for an epoch's data, in processor time."""


class Ready(Loaders):
    """Batches that lie ready in memory; there is nothing to evaluate."""

    def __init__(self, made: list[Batch]) -> None:
        self._batches = made
        self.steps_per_epoch, self.digest = len(made), ""
        self.train_samples = sum(len(batch["images"]) for batch in made)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        CLOCK.append(time.process_time())
        return iter(self._batches[first_step:])

    def evaluation(self, share: EvaluationShare = EVERYTHING) -> Iterable[Batch]:
        return []


class InMemory:
    """Mixed into a task: it trains on `made_batches(steps)` of `batch` images each, and measures nothing."""

    batch: ClassVar[int]
    metrics = property(lambda self: (Metric("none", "nothing", "higher"),))
    measured_figures = property(lambda self: {})
    reads_test = property(lambda self: False)
    train_samples = property(lambda self: self.steps * self.batch)
    evaluation_samples = property(lambda self: 0)

    def missing_data(self, root: Path) -> str | None:
        return None

    def loaders(self, context: Any) -> Loaders:
        return Ready(self.made_batches(self.steps))

    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[str, Any]]:
        yield from ()

    def summarize(self, parts: Sequence[tuple[str, Any]]) -> Summary:
        return Summary({"none": 0.0})

    def pictures(self, model: nn.Module, loaders: Loaders) -> dict[str, Any]:
        return {}


class PlainLoop:
    """A loop by hand, as public references have it, with AdamW."""

    def __init__(self, model: nn.Module, made: list[Batch], loss: Callable[[Batch], Tensor], lr: float) -> None:
        self._batches, self._loss = made, loss
        self._optimizer = torch.optim.AdamW(model.parameters(), lr=lr, fused=True)

    def epoch(self) -> float:
        """Seconds, of the processor."""
        started = time.process_time()
        for batch in self._batches:
            loss = self._loss(batch)
            loss.item()  # the references look at it in every step
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()
        return time.process_time() - started


class Loop(Protocol):
    def epoch(self) -> float:
        """Trains an epoch; seconds of the processor."""


_MADE: list[Loop] = []
"""The loop by hand, in its process."""


def _make(make: Callable[[], Loop]) -> None:
    torch.set_num_threads(1)
    _MADE.append(make())


def _epoch_by_hand() -> float:
    return _MADE[0].epoch()


def epochs_in_turns(trial: TrialSpec, make_other: Callable[[], Loop]) -> tuple[list[float], list[float]]:
    """Seconds of the trial's epochs and of the other loop's, in turns; the first of both warms up and is left out.
    `make_other` goes to the other process, so it must be picklable."""
    ours: list[float] = []
    others: list[float] = []
    spawned = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(1, spawned, initializer=_make, initargs=(make_other,)) as by_hand,
    ):

        def take_turns(report: Report) -> None:
            ours.append(time.process_time() - CLOCK[-1])
            others.append(by_hand.submit(_epoch_by_hand).result())

        place = RankContext(folder=Path(folder), data_root=Path(folder), device="cpu", threads=1)
        train(trial, place, take_turns, lambda: False)
    return ours[1:], others[1:]


def in_turns_with_the_loop(
    part: str, trial: TrialSpec, peer: str, make_other: Callable[[], PlainLoop], samples: int
) -> dict[str, Any]:
    """`samples`: of an epoch."""
    ours, others = epochs_in_turns(trial, make_other)
    return row(part, "images/s of training", {"ours": ours, peer: others}, samples, "at least 1.0")
