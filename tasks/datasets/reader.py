"""Reads batches of samples through a transform, in worker processes and ahead of time; replaces unreadable ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tasks.base import Batch, DataContext
from tasks.datasets.images.decode import Unreadable
from tasks.datasets.samples import Collate, Sample, Samples, Transform
from tasks.datasets.transforms import derived_seed, seed_all, states_restored
from tasks.errors import DataError

Item = tuple[int, int]
"""(epoch, index of a sample)."""
TRIES = 100
"""Samples in a row that are tried in the place of an unreadable one: when all fail, it is not the images."""


class Reader:
    """Batches of transformed samples. What a sample looks like depends on (seed, epoch, index) alone."""

    def __init__(
        self,
        samples: Samples,
        transform: Transform,
        collate: Collate,
        context: DataContext,
        replace_unreadable: bool = False,
    ) -> None:
        """`replace_unreadable`: a sample that cannot be read is replaced by the next one that can (by index, round
        the end; with the random numbers of the one it stands for); without, it raises DataError."""
        self._items = _Items(samples, transform, context.seed, replace_unreadable)
        self._collate, self._context = _Collate(collate), context
        self.failures: dict[str, int] = {}
        """Samples that could not be read -> how often they were met."""

    def read(self, batches: Iterable[list[Item]]) -> Iterator[tuple[Batch, Tensor]]:
        """For each list of items their batch, on the device, and the indices of the samples that it really holds.

        `batches` is asked ahead of time where there are worker processes, which live as long as this iterator. Raises
        DataError.
        """
        context = self._context
        # A generator of its own: without, it draws a seed (that nothing here uses) from the global one.
        loader = DataLoader(
            self._items, batch_sampler=batches, num_workers=context.loader_workers,  # type: ignore[arg-type]
            pin_memory=context.device.startswith("cuda"), collate_fn=self._collate, generator=torch.Generator(),
        )  # fmt: skip
        for batch, indices, failures in loader:
            for failure in failures:
                self.failures[failure] = self.failures.get(failure, 0) + 1
            if batch is None:
                raise DataError(failures[-1])
            yield moved(batch, context.device), indices


class _Items(Dataset[Any]):
    """The samples of a batch one after the other; pickles to worker processes."""

    def __init__(self, samples: Samples, transform: Transform, seed: int, replace: bool) -> None:
        self._samples, self._transform, self._seed, self._replace = samples, transform, seed, replace

    def __getitems__(self, items: Sequence[Item]) -> list[tuple[Sample | None, int, list[str]]]:
        """As torch's loader asks for a batch. States of generators are kept and restored once for all of it."""
        with states_restored():
            return [self._read(*item) for item in items]

    def _read(self, epoch: int, wanted: int) -> tuple[Sample | None, int, list[str]]:
        """The transformed sample (None: nothing could be read), its index, and what could not be read.

        Failures are values, not exceptions: one that comes from a worker process arrives as the text of a traceback.
        """
        failures: list[str] = []
        for tried in range(min(TRIES, len(self._samples)) if self._replace else 1):
            index = (wanted + tried) % len(self._samples)
            try:
                seed_all(derived_seed(self._seed, "augment", epoch, wanted))
                return self._transform(self._samples.sample(index)), index, failures
            except Unreadable as error:
                failures.append(str(error))
        return None, wanted, failures


class _Collate:
    """The task's collate, beside the indices and failures of a batch; pickles to worker processes."""

    def __init__(self, collate: Collate) -> None:
        self._collate = collate

    def __call__(self, items: Sequence[tuple[Sample | None, int, list[str]]]) -> tuple[Batch | None, Tensor, list[str]]:
        samples = [sample for sample, _, _ in items if sample is not None]
        failures = [failure for _, _, each in items for failure in each]
        if len(samples) < len(items):
            last = next(each[-1] for sample, _, each in items if sample is None)
            return None, torch.empty(0), [*failures, last]
        return self._collate(samples), torch.tensor([index for _, index, _ in items]), failures


def moved(value: Any, device: str) -> Any:
    """Every tensor in lists, tuples and dicts of any depth, on the device; anything else unchanged."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {name: moved(part, device) for name, part in value.items()}
    if isinstance(value, list):
        return [moved(part, device) for part in value]
    return tuple(moved(part, device) for part in value) if isinstance(value, tuple) else value
