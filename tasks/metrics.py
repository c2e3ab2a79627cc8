"""How a task's figures are named, printed and compared, and the rows of figures that belong to single items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Metric:
    """A figure that a task returns, and how people read it. Recorded with every trial, so that a table can be printed
    without the task's code."""

    name: str
    """Key of the figure, for example top1."""
    title: str
    """In words, for headings and captions: top-1 accuracy."""
    better: Literal["higher", "lower", "neither"]
    """`neither`: no value is better than another, as of an attention distance. Tables mark none, and no stage or search
    chooses by such a figure."""
    unit: str = ""
    """Printed behind the scaled value: %, m, px, nats."""
    scale: float = 1.0
    """Recorded value times this is the value in `unit` (100 for fractions shown as percent)."""
    digits: int = 3
    """Decimals of the scaled value."""
    complement: str = ""
    """Title of (1 - value), where that is a quantity of its own: error rate. Empty: it is none."""

    @property
    def mode(self) -> Literal["max", "min"]:
        """`better` as searches and selection name it. Of `neither` it is max, which is recorded and decides nothing."""
        return "min" if self.better == "lower" else "max"


def percent(name: str, title: str, complement: str = "") -> Metric:
    """A fraction of one that is better when higher, printed in percent with one decimal."""
    return Metric(name, title, "higher", "%", 100.0, 1, complement)


LOSS = Metric("loss", "loss", "lower")
"""The mean loss on the split that is evaluated."""


@dataclass(frozen=True)
class FromLogits:
    """A figure that a plugin computes from the outputs of a classifier; see `METRICS` in docs/plugins.md."""

    metric: Metric
    compute: Callable[[Tensor, Tensor], float]
    """(logits, labels) -> one finite number, a Python float or a tensor of one element.

    logits: (images, classes), float32, before softmax; labels: (images,), int64, from 0. Both are on the CPU and hold
    all images that are evaluated, in the order of the loaders. Where the data have several labels per image, labels are
    (images, classes): 1 for a label that the image has, 0 for one that it has not, -1 for one that does not count
    (VOC 2007 calls such objects difficult).
    """


@dataclass(frozen=True)
class Measurement:
    """One value of a figure for one item (image, class, sequence), layer or head; a row of the table `measurements`."""

    figure: str
    """Name of a declared metric; or such a name without its ending `_mean`, for values that this one is the mean of."""
    value: float
    item: str = ""
    layer: int | None = None
    head: int | None = None


@dataclass(frozen=True)
class Summary:
    """What an evaluation amounts to."""

    figures: Mapping[str, float]
    """One number for each declared metric that the evaluation yields."""
    measurements: Iterable[Measurement] = field(default=())
    """Values per item, layer or head; read once."""
    shares: Mapping[str, int] = field(default_factory=dict)
    """Figures that are the share of samples that were right, each of which counts alike -> the number of samples. A
    report of a single seed gives these an interval over samples."""
    submission: tuple[str, bytes] | None = None
    """Name and content of a file of predictions, where labels are not public and there are no figures. The loop writes
    it into the trial's folder, and the fact `submission` is its path; the trial is then done without a figure."""
