"""The task `ships`: where is a ship? Measured in metres, chosen in the harbour, reported at sea."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from tasks.base import Batch, DataContext, Loaders, Task
from tasks.errors import DataError
from tasks.metrics import Measurement, Metric, Summary, percent

if TYPE_CHECKING:
    import torch
    from torch import nn

    from tasks.backbones.spec import BackboneSpec

METRES = 2.0
"""Of a pixel."""
DISTANCE = Metric("distance", "distance to the nearest ship", "lower", "m", digits=2)
HIT = percent("hit", "ships hit")
SHAPES = {"training": 60, "harbour": 20, "sea": 30}


class Ships(Task):
    """Finds the cell of a feature map that is nearest to a ship."""

    split_field: ClassVar[str] = "site"

    kind: Literal["ships"] = "ships"
    dataset: Literal["ships"] = "ships"
    site: Literal["harbour", "sea"] = "harbour"
    """Where figures are measured; sea is the test set."""
    stage: int = 2
    """The stage of the backbone whose map is used."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (DISTANCE, HIT)

    @property
    def reads_test(self) -> bool:
        return self.site == "sea"

    @property
    def opens(self) -> Mapping[str, str]:
        return {"ships": "the makers' sites"}

    @property
    def caveats(self) -> tuple[str, ...]:
        return ("ships are generated: compare with nothing",)

    @property
    def train_samples(self) -> int:
        return SHAPES["training"]

    @property
    def evaluation_samples(self) -> int:
        return SHAPES[self.site]

    def missing_data(self, root: Path) -> str | None:
        return None

    def input_size(self, backbone: BackboneSpec) -> tuple[int, int]:
        return 48, 64

    def build(self, backbone: BackboneSpec, weights: Mapping[str, torch.Tensor] | None) -> nn.Module:
        from ships.model import Finder
        from tasks.backbones.loading import load
        from tasks.backbones.model import build_backbone

        body = build_backbone(backbone, self.input_size(backbone), (self.stage,))
        if weights is not None:
            load(body, weights)
        return Finder(body, self.stage)

    def loaders(self, context: DataContext) -> Loaders:
        from ships.data import collated, evaluated, records, trained
        from tasks.datasets.loaders import Pipeline, SampleLoaders

        if self.reads_test and not context.may_test:
            raise DataError("ships: the sea is opened only after every choice")
        pipeline = Pipeline(trained, evaluated, collated, evaluation_batch=8)
        return SampleLoaders(records("training"), records(self.site), pipeline, context)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """`cells`: binary cross entropy over the cells, summed; divided by the number of ships."""
        from torch.nn import functional

        from ships.model import covered

        logits = model(batch["images"])
        wanted = covered(batch["boxes"], logits)
        return {"cells": functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")}

    def denominators(self, batch: Batch) -> Mapping[str, float | torch.Tensor]:
        return {"cells": float(sum(len(boxes) for boxes in batch["boxes"]))}

    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[str, Any]]:
        from ships.model import distances

        for batch in batches:
            found = distances(model(batch["images"]), batch["boxes"])
            numbers = batch["numbers"].tolist()
            yield (
                batch["item"],
                [(number, METRES * away, hit) for number, (away, hit) in zip(numbers, found, strict=True)],
            )

    def summarize(self, parts: Sequence[tuple[str, Any]]) -> Summary:
        rows = [row for _, part in parts for row in part if row[1] == row[1]]  # images without ships have no distance
        figures = {
            "distance": sum(away for _, away, _ in rows) / len(rows),
            "hit": sum(hit for _, _, hit in rows) / len(rows),
        }
        return Summary(figures, [Measurement("distance", away, item=f"image-{number}") for number, away, _ in rows])
