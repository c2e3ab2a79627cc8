"""Semantic segmentation: the class of every pixel by UperNet or Mask2Former, measured by mean IoU."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from tasks.base import Batch, DataContext, Loaders
from tasks.bounds import Label
from tasks.datasets.annotated import AnnotatedData, AnnotatedDataset, Evaluated, ImageCounts
from tasks.datasets.annotated_task import AnnotatedTask
from tasks.datasets.class_maps.dataset import ClassMapDataset
from tasks.datasets.class_maps.described import ClassMapsField
from tasks.datasets.class_maps.task_data import ClassMapData
from tasks.datasets.labelled.card import DIGEST
from tasks.errors import DataError
from tasks.metrics import Measurement, Metric, Summary, percent
from tasks.segmentation.options import Mask2FormerOptions, SegmentationAugment, TestOptions, UperNetOptions

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from tasks.backbones.spec import BackboneSpec
    from tasks.segmentation.predicting import Predicting

METRICS = (percent("miou", "mIoU"), percent("macc", "mean accuracy of classes"), percent("aacc", "pixel accuracy"))
FREQUENT = percent("frequent_miou", "mIoU of the most frequent class of each place")
LIBRARY = "transformers"


class Segmentation(AnnotatedTask[ClassMapData]):
    """UperNet or Mask2Former over any backbone (appendices D and E of the paper; Table 6).

    Squares of `backbone.image_size` are trained on. An image is evaluated at one scale, and its prediction is brought
    back to the size of its file. Figures come from one confusion matrix of all pixels of all images.
    """

    dataset_type: ClassVar[type[AnnotatedDataset]] = ClassMapDataset
    data_type: ClassVar[type[AnnotatedData]] = ClassMapData
    setting_titles: ClassVar[Mapping[str, str]] = {
        "augment.scale": "Scale range", "augment.flip": "Random horizontal flip",
    }  # fmt: skip

    kind: Literal["segmentation"] = "segmentation"
    dataset: ClassMapsField
    """ade20k, scene-maps (generated); or a description of your own."""
    evaluate: Evaluated = "val"
    """The part that is evaluated."""
    decoder: Literal["upernet", "mask2former"] = "upernet"
    """What follows the backbone. Both need the library transformers (`pip install .[segmentation]`)."""
    upernet: UperNetOptions = UperNetOptions()
    """Of decoder upernet; no part of the key with the other one."""
    mask2former: Mask2FormerOptions = Mask2FormerOptions()
    """Of decoder mask2former, likewise."""
    level_norm: bool = True
    """A LayerNorm over the channels of every map that the decoder takes from the backbone, as in the public code for
    Swin. False suits convolutional networks (ResNet)."""
    normalize: Literal["imagenet", "half"] = "imagenet"
    """Mean and standard deviation for normalising pixels: ImageNet's, or 0.5 and 0.5."""
    head: Literal["fresh", "keep"] = "fresh"
    """`keep`: the whole model is that of an earlier trial of this task; with optim.epochs 0 it is evaluated on another
    part."""
    augment: SegmentationAugment = SegmentationAugment()
    test: TestOptions = TestOptions()
    baseline: Literal["none", "frequent_class"] = "none"
    """`frequent_class`: also gives the mIoU of a prediction without a model, as frequent_miou: for every place of an
    image the class that most training maps have there. It reads every training map once before the training, and all
    maps must be of one size."""
    manifests: dict[Label, Annotated[str, Field(pattern=DIGEST)]] = Field(default={})
    """Name of a split -> SHA-256 of its manifest, filled in by `submit`; see `Classify.manifests`."""
    sizes: dict[Label, ImageCounts] = Field(default={})
    """Name of a split -> images of each part, filled in by `submit`; not part of the key."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (*METRICS, *((FREQUENT,) if self.baseline == "frequent_class" else ()))

    @property
    def measured_figures(self) -> Mapping[str, str]:
        return {"miou": "class"}

    def key_content(self, content: dict[str, Any]) -> dict[str, Any]:
        """Without the options of the other decoder."""
        other = "mask2former" if self.decoder == "upernet" else "upernet"
        return super().key_content({name: value for name, value in content.items() if name != other})

    @property
    def model_options(self) -> Mapping[str, Any]:
        shaping = {self.decoder, "decoder", "level_norm", "test", "head"}
        return {"classes": self._data.classes, **self.model_dump(mode="json", include=shaping)}

    def batch_multiple(self, workers: int) -> tuple[int, str]:
        if self.decoder == "upernet":
            return 2 * workers, f"UperNet's batch norm needs two images or more on each of {workers} workers"
        return super().batch_multiple(workers)

    def check(self, backbone: BackboneSpec) -> None:
        if importlib.util.find_spec(LIBRARY) is None:
            raise ValueError(
                f"task.kind {self.kind} needs the library {LIBRARY}, which is not installed: "
                "pip install '.[segmentation]'"
            )
        super().check(backbone)

    @property
    def train_samples(self) -> int:
        return self._data.samples("train")

    def build(self, backbone: BackboneSpec, weights: Mapping[str, torch.Tensor] | None) -> nn.Module:
        """Raises ValueError for a backbone that the decoder cannot take, or weights that do not fit."""
        from tasks.backbones.loading import load, load_whole
        from tasks.backbones.map_pyramid import PyramidMaps, levels_in
        from tasks.backbones.model import build_backbone

        levels, whole = levels_in(backbone), self._mode == "whole"
        body = build_backbone(backbone, self.input_size(backbone), levels, any_size=whole)
        if whole:
            _check_multiple(body, self.test.multiple)
        maps = PyramidMaps(body, levels, self.level_norm)
        if backbone.image_size % maps.strides[-1]:
            raise ValueError(
                f"backbone.image_size {backbone.image_size}: the coarsest map has a stride of {maps.strides[-1]} "
                f"pixels; take a multiple of {maps.strides[-1]}"
            )
        model: nn.Module
        if self.decoder == "upernet":
            from tasks.segmentation.upernet import UperNet

            model = UperNet(maps, self._data.classes, self.upernet)
        else:
            from tasks.segmentation.mask2former import Mask2Former

            model = Mask2Former(maps, self._data.classes, self.mask2former)
        if weights is not None and self.head == "keep":
            load_whole(model, weights, "this decoder", "a trial of kind segmentation with the same model")
        elif weights is not None:
            load(body, weights)
        return model

    @property
    def _mode(self) -> Literal["slide", "whole"]:
        return self.test.mode or ("slide" if self.decoder == "upernet" else "whole")

    def _predicting(self, side: int) -> Predicting:
        from tasks.segmentation.predicting import Predicting

        return Predicting(self._mode, side, self.test.stride or max(1, 2 * side // 3), self.test.multiple)

    def loaders(self, context: DataContext) -> Loaders:
        self.check_may_test(context)
        from tasks.segmentation.loaders import Prepared, SegmentationLoaders

        training, evaluated = self._data.read(context.root)
        side = context.image_size
        short = self.test.short or side
        how = Prepared(side, short, self.test.long or 4 * short, self.augment, self.normalize)
        return SegmentationLoaders(training, evaluated, how, self.baseline == "frequent_class", context)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """Sums: of UperNet `main` and `auxiliary`, cross entropies of the two heads; of Mask2Former `class`, `mask` and
        `dice`, over all its layers."""
        terms: dict[str, torch.Tensor] = model(batch["images"], batch["maps"], batch["seeds"])
        return terms

    def denominators(self, batch: Batch) -> Mapping[str, float | torch.Tensor]:
        from tasks.segmentation import mask2former, upernet

        if self.decoder == "upernet":
            return upernet.denominators(batch["maps"], self.upernet)
        return mask2former.denominators(batch["maps"], self.mask2former)

    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[str, Any]]:
        """Yields for each batch its confusion matrix, the names of the classes, and perhaps the matrix of the
        baseline."""
        from tasks.segmentation.confusion import added, confusion

        for batch in batches:
            names = batch["classes"]
            found = [confusion(guess, truth, len(names)) for guess, truth in self.predicted(model, batch)]
            part = {"counts": added(found), "classes": names}
            if "frequent" in batch:
                pairs = zip(batch["frequent"], batch["maps"], strict=True)
                part["frequent"] = added(confusion(guess, truth, len(names)) for guess, truth in pairs)
            yield batch["item"], part

    def predicted(self, model: nn.Module, batch: Batch) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The class predicted for each pixel of an image (h, w), and its map, in the size of the file; images and maps
        of one size are predicted together."""
        from torch import Tensor

        images, maps, how = batch["images"], batch["maps"], self._predicting(batch["side"])
        if isinstance(images, Tensor) and isinstance(maps, Tensor):
            groups = [(images, maps)]
        else:
            groups = [(image[None], truth[None]) for image, truth in zip(images, maps, strict=True)]
        for group, truths in groups:
            guesses = how.classes(model, group, (truths.shape[-2], truths.shape[-1]))
            yield from zip(guesses, truths, strict=True)

    def summarize(self, parts: Sequence[tuple[str, Any]]) -> Summary:
        """Figures as fractions, and the IoU of each class that is there or predicted. Raises DataError where no pixel
        has a class."""
        import math

        from tasks.segmentation.confusion import added, figures, ious

        counts = added(part["counts"] for _, part in parts)
        if not counts.any():
            raise DataError(
                f"{self._data.name}: no pixel of {self.evaluate} has a class, so there is nothing to measure: 255 in a "
                "map is no class, and 0 neither with zero: ignored"
            )
        found = figures(counts)
        if self.baseline == "frequent_class":
            found[FREQUENT.name] = figures(added(part["frequent"] for _, part in parts))["miou"]
        names = parts[0][1]["classes"]
        each = zip(names, ious(counts).tolist(), strict=True)
        return Summary(found, [Measurement("miou", iou, item=name) for name, iou in each if not math.isnan(iou)])

    def pictures(self, model: nn.Module, loaders: Loaders) -> dict[str, NDArray[np.uint8]]:
        """`segmentation`: images, their maps and the predictions in the set's colours. `confusion`: what the worst
        classes are taken for, in some of the images."""
        from tasks.segmentation.loaders import SegmentationLoaders
        from tasks.segmentation.pictures import sheets

        assert isinstance(loaders, SegmentationLoaders)  # see `loaders`
        return sheets(loaders, lambda batch: self.predicted(model, batch))


def _check_multiple(body: nn.Module, multiple: int) -> None:
    """Raises ValueError for padded images that the windows of the backbone do not divide."""
    from tasks.backbones.swin_windows import check_windows

    try:
        check_windows(body, (multiple, multiple))
    except ValueError as error:
        raise ValueError(f"task.test.multiple {multiple}, to which images are padded in evaluation: {error}") from error
