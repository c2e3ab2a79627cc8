"""What figures over the layers of a network contain: plain data, in the unit of their metric."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from orchestrator.records.rows import MetricRow


@dataclass(frozen=True)
class SeedLayers:
    """The values of one trial, layer by layer."""

    seed: int
    key: str
    layers: tuple[int, ...]
    """Numbers of the layers, from 0."""
    means: tuple[float | None, ...]
    """The mean over heads (pairs, channels) of each layer; of a matrix over the other layers. None: not a number."""


@dataclass(frozen=True)
class Value:
    """One measured value."""

    seed: int
    layer: int
    head: int | None
    item: str
    value: float | None


@dataclass(frozen=True)
class Panel:
    """The trials of one row of the table."""

    row: str
    seeds: tuple[SeedLayers, ...] = ()
    """In the order of the seeds; empty: nothing was measured, see `reason`."""
    anchor: tuple[tuple[int, float], ...] = ()
    """(layer, value) of the anchor, of the first seed: it depends on the model alone."""
    reason: str = ""
    missing: tuple[str, ...] = ()
    """Of a panel with values: the seeds that it is without, each with why, such as `seed 2: failed`."""
    values: tuple[Value, ...] = field(default=(), metadata={"json": False})
    """Everything that was measured; in the CSV beside the picture."""

    @property
    def count(self) -> str:
        """How many seeds it shows, such as `3 seeds`, and of how many if some are left out; empty for one alone."""
        asked = len(self.seeds) + len(self.missing)
        if not self.seeds or asked == 1:
            return ""
        return f"{len(self.seeds)} of {asked} seeds" if self.missing else f"{asked} seeds"

    @property
    def layers(self) -> tuple[int, ...]:
        """All its layers."""
        return tuple(sorted({layer for seed in self.seeds for layer in seed.layers}))

    def mean(self, layer: int) -> float | None:
        """The mean of a layer over the seeds; None if a seed has none."""
        found = [value for seed in self.seeds for at, value in zip(seed.layers, seed.means, strict=True) if at == layer]
        return _mean(found)

    def matrix(self) -> tuple[tuple[float | None, ...], ...]:
        """The mean over seeds of the values between each layer and each item that names a layer; None where a seed has
        none."""
        layers = self.layers
        others = sorted({int(value.item) for value in self.values if value.item.isdigit()})
        found: dict[tuple[int, int], list[float | None]] = {}
        for value in self.values:
            if value.item.isdigit():
                found.setdefault((value.layer, int(value.item)), []).append(value.value)
        return tuple(tuple(_mean(found.get((layer, other), [])) for other in others) for layer in layers)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


@dataclass(frozen=True)
class LayerFigure:
    """A figure with a panel for each row; of the forms `curves` and `epochs` a line."""

    name: str
    """Of its files."""
    title: str
    form: Literal["dots", "mean", "matrix", "curves", "epochs"]
    figure: MetricRow
    stage: str
    columns: tuple[str, ...]
    panels: tuple[Panel, ...]
    caption: str = ""
    low: float | None = None
    high: float | None = None
    axis: str = "layer (from 0)"
    """Title of the axis that layers are on."""
    beside: tuple[LayerFigure, ...] = ()
    """Figures in the same picture, without titles of their own."""
