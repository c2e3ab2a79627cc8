"""The only place that says what a task promises to the training loop and to the planner."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from tasks.backbones.spec import BackboneSpec

Batch = dict[str, Any]
"""Tensors by name, first dimension the image; a task reads only what its own loaders made."""


@dataclass(frozen=True)
class DataContext:
    """Where and how a trial reads its data."""

    root: Path
    image_size: int
    device: str
    seed: int
    batch: int
    """Global batch: images per optimizer step over all ranks."""
    rank: int = 0
    world: int = 1
    loader_workers: int = 0
    may_test: bool = False
    """Loaders refuse (DataError) to open test data without this."""
    max_unreadable: float = 0.0
    """Share of an epoch's images that may be unreadable and are replaced (`Loaders.unreadable`); beyond: DataError."""


class Loaders(ABC):
    """The data of one trial, in an order that depends only on (seed, epoch, step), so a resumed run sees the same."""

    train_images: int
    """Images per epoch, before the last partial batch is dropped."""
    steps_per_epoch: int
    digest: str
    """SHA-256 of what is trained and evaluated on (which images, which labels)."""
    unreadable: Sequence[str] = ()
    """Training images that this process could not read so far and replaced by others: each once, with the reason."""
    image_cache: str = "none"
    """In words, whether decoded images are shared with the node's other trials; for the record."""

    @abstractmethod
    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """This rank's share of every global batch of `epoch` (0-based), from `first_step` on; on the device.

        Randomness of augmentation comes from (seed, epoch, step, rank), never from a generator that lives on.
        """

    @abstractmethod
    def evaluation(self) -> Iterable[Batch]:
        """The images to evaluate on, each exactly once, in fixed order; on the device."""


class Task(BaseModel, ABC):
    """What is trained and measured. Options are fields; behaviour is methods; torch is imported inside them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @property
    @abstractmethod
    def metric(self) -> str:
        """Name of the figure that trials are chosen by and tables show."""

    @property
    @abstractmethod
    def mode(self) -> Literal["max", "min"]:
        """Whether the metric is better when larger or smaller."""

    @property
    @abstractmethod
    def reads_test(self) -> bool:
        """Whether this task opens test data."""

    @property
    def opens(self) -> Mapping[str, str]:
        """Data sets of which this task opens images, each with the field, and its value, that settles which of them
        are test. In a job that reads test of a set these must agree: where they differ, what one trial learns from or
        is chosen by may be what another is measured on."""
        return {}

    @property
    def makes_weights(self) -> bool:
        """Whether the weights are what this task is run for: they are kept unless a stage says otherwise."""
        return False

    @property
    def pairs_images(self) -> bool:
        """Whether training mixes images two by two, so that each worker's part of a batch has to be even."""
        return False

    @property
    @abstractmethod
    def train_images(self) -> int:
        """Training images per epoch as the data set's description states them; for cost, before data are opened."""

    @property
    @abstractmethod
    def evaluation_images(self) -> int:
        """Images evaluated on, likewise."""

    @abstractmethod
    def missing_data(self, root: Path) -> str | None:
        """None when the data are there; else what is missing, where it was looked for, and how to get it."""

    def check(self, backbone: BackboneSpec) -> None:
        """Raises ValueError, naming field, value and remedy, when this task cannot be had with this backbone; from the
        spec alone, so that it is said before anything runs."""

    @abstractmethod
    def build(self, backbone: BackboneSpec, weights: Mapping[str, torch.Tensor] | None) -> nn.Module:
        """The model. `weights`: a state dict of an earlier trial's model or an imported file, already verified;
        None: random. Every backbone weight must find its place (ValueError with the list otherwise); what becomes
        of a head is the task's matter."""

    @abstractmethod
    def loaders(self, place: DataContext) -> Loaders:
        """Opens the data. Raises DataError."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """Scalar means over the batch; `loss` is what is minimised, other names are terms worth a curve."""

    @abstractmethod
    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """Figures, among them `metric`; and `loss` where it is defined. The model is in eval mode, gradients off."""

    def pictures(self, model: nn.Module, loaders: Loaders) -> dict[str, NDArray[np.uint8]]:
        """Pictures of what the model does, by name, each (height, width, 3); always of the same images.

        The model is in eval mode, gradients off. None by default.
        """
        return {}

    def facts(self, model: nn.Module) -> dict[str, Any]:
        """What the task found out or decided by itself, as JSON values; recorded beside the loop's own facts."""
        return {}
