"""Detection: boxes, classes and masks of objects by Mask R-CNN, measured by COCO's average precision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from tasks.base import Batch, DataContext, Loaders
from tasks.bounds import Label
from tasks.datasets.annotated import AnnotatedData, AnnotatedDataset, Evaluated, ImageCounts
from tasks.datasets.annotated_task import AnnotatedTask
from tasks.datasets.instances.dataset import InstanceDataset
from tasks.datasets.instances.described import InstancesField
from tasks.datasets.instances.task_data import InstanceData
from tasks.datasets.labelled.card import DIGEST
from tasks.detection.figures import METRICS
from tasks.detection.options import MOST, DetectionAugment, DetectorOptions
from tasks.metrics import Metric, Summary

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from tasks.backbones.spec import BackboneSpec

TORCHVISIONS = (
    "boxes are learnt with torchvision's smooth L1 loss (beta 1/9), and regions are pooled without a shift by half a "
    "pixel; mmdetection's Mask R-CNN, which the paper most likely used, has L1 and the shift"
)


class Detection(AnnotatedTask[InstanceData]):
    """Mask R-CNN with a feature pyramid over any backbone (section 4.3 and appendices D and E; Table 6, Figure 7).

    Images go in as squares of `backbone.image_size`: in training cut by large-scale jitter, in evaluation whole, with
    the longer side as long as the square and padded. The total of five terms, with equal weights, is minimised; each
    is reported for every epoch.
    """

    loss_over: ClassVar[Literal["samples", "batch"]] = "batch"
    loss_terms: ClassVar[tuple[str, ...]] = ("rpn_class", "rpn_box", "roi_class", "roi_box", "mask")
    dataset_type: ClassVar[type[AnnotatedDataset]] = InstanceDataset
    data_type: ClassVar[type[AnnotatedData]] = InstanceData
    setting_titles: ClassVar[Mapping[str, str]] = {
        "augment.scale": "Large-scale jitter", "augment.flip": "Random horizontal flip",
    }  # fmt: skip

    kind: Literal["detection"] = "detection"
    dataset: InstancesField
    """coco-instances, scene-objects (generated); or a description of your own."""
    evaluate: Evaluated = "val"
    """The part that is evaluated."""
    detector: DetectorOptions = DetectorOptions()
    normalize: Literal["imagenet", "half"] = "imagenet"
    """Mean and standard deviation for normalising pixels: ImageNet's, or 0.5 and 0.5."""
    head: Literal["fresh", "keep"] = "fresh"
    """`keep`: the whole model is that of an earlier trial of this task; with optim.epochs 0 it is evaluated on another
    part."""
    augment: DetectionAugment = DetectionAugment()
    manifests: dict[Label, Annotated[str, Field(pattern=DIGEST)]] = Field(default={})
    """Name of a split -> SHA-256 of its manifest, filled in by `submit`; see `Classify.manifests`."""
    sizes: dict[Label, ImageCounts] = Field(default={})
    """Name of a split -> images of each part, filled in by `submit`; not part of the key."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return METRICS

    @property
    def measured_figures(self) -> Mapping[str, str]:
        return {"ap_box": "class", "ap_mask": "class"}

    @property
    def caveats(self) -> tuple[str, ...]:
        most = self.detector.detections
        other = (f"at most {most} detections of an image; published figures are of {MOST}",) if most != MOST else ()
        return (*super().caveats, *(() if self._data.whole.caveat else (TORCHVISIONS, *other)))

    @property
    def model_options(self) -> Mapping[str, Any]:
        return {"classes": self._data.classes, **self.model_dump(mode="json", include={"detector", "head"})}

    @property
    def train_samples(self) -> int:
        """Images that show an object; others are not trained on."""
        return self._data.learnt

    def build(self, backbone: BackboneSpec, weights: Mapping[str, torch.Tensor] | None) -> nn.Module:
        """Raises ValueError for a backbone that no pyramid can be made of, or weights that do not fit."""
        from tasks.backbones.loading import load, load_whole
        from tasks.backbones.map_pyramid import levels_in
        from tasks.backbones.model import build_backbone
        from tasks.detection.model import Detector
        from tasks.detection.pyramid import Pyramid

        levels = levels_in(backbone)
        body = build_backbone(backbone, self.input_size(backbone), levels)
        pyramid = Pyramid(body, levels, self.detector.channels, self.detector.level_norm)
        coarsest = pyramid.strides[-1]
        if backbone.image_size % coarsest:
            raise ValueError(
                f"backbone.image_size {backbone.image_size}: the coarsest map of the pyramid has a stride of "
                f"{coarsest} pixels; take a multiple of {coarsest}"
            )
        model = Detector(pyramid, self._data.classes, self.detector)
        if weights is not None and self.head == "keep":
            load_whole(model, weights, "a detector", "a trial of kind detection with the same model and classes")
        elif weights is not None:
            load(body, weights)
        return model

    def loaders(self, context: DataContext) -> Loaders:
        self.check_may_test(context)
        from tasks.detection.loaders import DetectionLoaders

        training, evaluated = self._data.read(context.root)
        return DetectionLoaders(training, evaluated, self.augment, self.normalize, context)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """`loss`, the sum of `rpn_class` and `rpn_box` (region proposals: object or not, and where), `roi_class`,
        `roi_box` and `mask` (the heads)."""
        terms: dict[str, torch.Tensor] = model(batch["images"], batch["sizes"], batch["targets"], batch["seeds"])
        total = terms["roi_class"] + terms["roi_box"] + terms["mask"] + terms["rpn_class"] + terms["rpn_box"]
        return {"loss": total, **terms}

    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[str, Any]]:
        """Yields for each batch what is found in its images, and what their annotations say."""
        from tasks.detection.measuring import part_of

        for batch in batches:
            yield batch["item"], part_of(batch, model(batch["images"], batch["sizes"]))

    def summarize(self, parts: Sequence[tuple[str, Any]]) -> Summary:
        """COCO's figures as fractions, and the AP of each class."""
        from tasks.detection.evaluation import figures_of, together

        found = [each for _, part in parts for each in part["found"]]
        return Summary(*figures_of(found, together(part for _, part in parts)))

    def pictures(self, model: nn.Module, loaders: Loaders) -> dict[str, NDArray[np.uint8]]:
        """`detections`: annotated objects above those that are found, boxes and masks over images."""
        from tasks.detection.loaders import DetectionLoaders
        from tasks.detection.pictures import sheet

        assert isinstance(loaders, DetectionLoaders)  # see `loaders`
        return {"detections": sheet(loaders, model)}
