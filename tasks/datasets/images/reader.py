"""The only place that reads images by index through a transform: worker processes, reading ahead, unreadable images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from tasks.base import DataContext
from tasks.datasets import transforms
from tasks.datasets.images.source import Source, Unreadable
from tasks.datasets.transforms import derived_seed
from tasks.errors import DataError

Transform = Callable[[Any], Any]
"""RGB image -> tensor, or a tuple or dict of tensors; draws from the global generators, which are seeded for it."""
Item = tuple[int, int]
"""(epoch, index of an image)."""
TRIES = 100
"""Images in a row that are tried in the place of an unreadable one: when all fail, it is not the images."""


class Reader:
    """Batches of transformed images. What an image looks like depends on (seed, epoch, index) alone."""

    def __init__(
        self, source: Source, transform: Transform, place: DataContext, replace_unreadable: bool = False
    ) -> None:
        """`replace_unreadable`: an image that cannot be read is replaced by the next one that can (by index, round
        the end; with the transform's random numbers of the one it stands for); without, it raises DataError."""
        self._items = _Items(source, transform, place.seed, replace_unreadable)
        self._place = place
        self.failures: dict[str, int] = {}
        """Images that could not be read -> how often they were met."""

    def read(self, batches: Iterable[list[Item]]) -> Iterator[tuple[Any, Tensor]]:
        """For each list of items what the transform gave, stacked, on the device; and the indices of the images that
        it is made from. `batches` is asked ahead of time where there are worker processes, which live as long as
        this iterator. Raises DataError."""
        place = self._place
        # A generator of its own: without, it draws a seed (that nothing here uses) from the global one.
        loader = DataLoader(
            self._items, batch_sampler=batches, num_workers=place.loader_workers,  # type: ignore[arg-type]
            pin_memory=place.device.startswith("cuda"), collate_fn=_collate, generator=torch.Generator(),
        )  # fmt: skip
        for values, indices, failures in loader:
            for failure in failures:
                self.failures[failure] = self.failures.get(failure, 0) + 1
            if values is None:
                raise DataError(failures[-1])
            yield _moved(values, place.device), indices


class _Items(Dataset[Any]):
    """One image at a time; pickles to worker processes."""

    def __init__(self, source: Source, transform: Transform, seed: int, replace: bool) -> None:
        self._source, self._transform, self._seed, self._replace = source, transform, seed, replace

    def __getitem__(self, item: Item) -> tuple[Any, int, list[str]]:
        """What the transform gave (None: nothing could be read), the image's index, and what could not be read.

        Failures are values, not exceptions: one that comes from a worker process arrives as the text of a traceback.
        """
        epoch, wanted = item
        failures: list[str] = []
        for tried in range(min(TRIES, len(self._source)) if self._replace else 1):
            index = (wanted + tried) % len(self._source)
            try:
                image = self._source.image(index)
            except Unreadable as error:
                failures.append(str(error))
                continue
            with transforms.seeded(derived_seed(self._seed, "augment", epoch, wanted)):
                return self._transform(image), index, failures
        return None, wanted, failures


def _collate(items: Sequence[tuple[Any, int, list[str]]]) -> tuple[Any, Tensor, list[str]]:
    values = [value for value, _, _ in items]
    failures = [failure for _, _, each in items for failure in each]
    if any(value is None for value in values):
        last = next(each[-1] for value, _, each in items if value is None)
        return None, torch.empty(0), [*failures, last]
    return default_collate(values), torch.tensor([index for _, index, _ in items]), failures


def _moved(values: Any, device: str) -> Any:
    if isinstance(values, Tensor):
        return values.to(device, non_blocking=True)
    if isinstance(values, dict):
        return {name: _moved(value, device) for name, value in values.items()}
    return type(values)(_moved(value, device) for value in values)
