"""Monocular depth estimation: a depth in metres for every pixel of a single image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from tasks.base import Batch, DataContext, Loaders
from tasks.bounds import Label
from tasks.datasets import find_dataset
from tasks.datasets.depth_pairs.dataset import DepthDataset
from tasks.datasets.depth_pairs.described import DepthField, DepthPairs, Metres, PairCounts
from tasks.datasets.depth_pairs.layout import DepthFormat
from tasks.datasets.depth_pairs.task_data import DepthData
from tasks.datasets.depth_pairs.window import Window
from tasks.datasets.labelled.card import DIGEST
from tasks.datasets.one_set import OneDataSet
from tasks.depth.metrics import METRICS
from tasks.depth.options import DepthAugment
from tasks.metrics import Measurement, Metric, Summary

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from tasks.backbones.preprocessing import Preprocessing
    from tasks.backbones.spec import BackboneSpec
    from tasks.depth.data import Prepared

OF_MEAN_MAP = Metric("mean_map_rmse", "RMSE of the mean map", "lower", "m")
APART = Metric("apart_rmse", "RMSE on the photograph apart", "lower", "m")
CUT_DEPTH = (
    "CutDepth shows depth from black at 0 m to white at the longest depth; the paper's code copies the file's numbers "
    "into 8 bits, where they begin anew at every 256 (task.augment.cut_depth_values uint8_wrap)"
)
AT_ONCE = 32
"""Crops of one forward pass in evaluation."""


class Depth(OneDataSet[DepthData]):
    """Depth from a single image, trained with SILog over the batch (appendix E of the paper; Table 2, Figure 5).

    Images are square crops of `backbone.image_size` in training; in evaluation square windows of that height slide
    along the width. Pixels go in from 0 to 1, without mean and deviation, whatever weights are loaded, as in the
    paper's depth code. Figures are means of values per image.
    """

    loss_over: ClassVar[Literal["samples", "batch"]] = "batch"
    split_field: ClassVar[str] = "evaluate"
    part_fields: ClassVar[tuple[str, ...]] = ("evaluate",)
    changeable: ClassVar[tuple[str, ...]] = ("augment.",)

    kind: Literal["depth"] = "depth"
    dataset: DepthField
    """nyuv2, kitti-eigen, scene-rooms (generated); or a description of your own."""
    evaluate: Literal["val", "test"] = "val"
    """The list that is evaluated; the published lists of nyuv2 and kitti-eigen have no val."""
    shortest: Metres | None = None
    """Metres; nearer pixels are not evaluated. None: the data set's (0.001)."""
    longest: Metres | None = None
    """Metres; pixels farther away are not evaluated, and the model predicts none. None: the data set's (nyuv2 10,
    kitti-eigen 80)."""
    window: Window | None = None
    """The part of an image that is evaluated: whole, garg, eigen or nyu. None: the data set's (nyuv2 nyu, kitti-eigen
    garg)."""
    windows: int | None = Field(default=None, ge=1, le=1000)
    """Square windows along the width of an image that is evaluated. None: the data set's (nyuv2 2, kitti-eigen 16), or
    as few as cover the image; the facts record their number."""
    flip_test: bool = True
    """The prediction of a window is the mean of its own and its mirror image's."""
    resize: Literal["none", "height"] = "none"
    """`height`: images and depth maps become so large that their height is backbone.image_size, bilinear and nearest.
    `none`: the size on disk, as in the paper."""
    embedding: int | None = Field(default=None, ge=1, le=1 << 14)
    """Channels of the head after its deconvolutions. None: the width of the backbone's first stage, as in the depth
    code (128 for SwinV2-B)."""
    head_std: float = Field(default=0.001, gt=0, le=1)
    """Standard deviation of the head's initial weights (normal). 0.001 is the depth code's; in a training of a few
    hundred steps the head then hardly begins to learn, and 0.05 is better (specs/depth.yaml)."""
    final_norm: bool = True
    """The head takes the map after the backbone's last norm, as in the depth code; false for models that have
    none (ResNet)."""
    augment: DepthAugment = DepthAugment()
    baseline: Literal["none", "mean_map"] = "none"
    """`mean_map`: also gives the RMSE of the mean depth of every pixel over all training maps, as mean_map_rmse. It
    reads every training map once before the training, and all must be of one size."""
    apart: bool = False
    """Also evaluates the real photograph of scene-rooms (scikit-image's stereo_motorcycle) where test is evaluated; its
    RMSE is a figure of its own, apart_rmse, and enters no other."""
    manifests: dict[Label, Annotated[str, Field(pattern=DIGEST)]] = Field(default={})
    """Name of the lists -> SHA-256 of their manifest, filled in by `submit`; see `Classify.manifests`."""
    sizes: dict[Label, PairCounts] = Field(default={})
    """Name of the lists -> pairs of each part, filled in by `submit`; not part of the key."""

    @field_validator("dataset")
    @classmethod
    def _known(cls, value: str | DepthPairs) -> str | DepthPairs:
        return find_dataset(value, DepthDataset).name if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_the_data(self) -> Depth:
        data, format = self._data, self._format
        if format.shortest >= format.longest:
            raise ValueError(f"shortest {format.shortest:g} m must be below longest {format.longest:g} m")
        if data.sizes is not None and not data.samples(self.evaluate):
            other = "test" if self.evaluate == "val" else "val"
            raise ValueError(f"{data.name} has no list of {self.evaluate}: write one, or evaluate on {other}")
        if self.apart and not (isinstance(data.whole, DepthDataset) and data.whole.apart):
            raise ValueError(f"apart is for scene-rooms, and {data.name} has no photograph apart: set it to false")
        return self

    @classmethod
    def data_of(cls, fields: Mapping[str, Any]) -> DepthData:
        return DepthData.of(_resolved(fields["dataset"]), fields)

    @property
    def _format(self) -> DepthFormat:
        """The data set's, with what the task sets."""
        own = {"shortest": self.shortest, "longest": self.longest, "window": self.window}
        return replace(self._data.format, **{name: value for name, value in own.items() if value is not None})  # type: ignore[arg-type]

    @property
    def _windows(self) -> int | None:
        whole = self._data.whole
        return self.windows or (whole.windows if isinstance(whole, DepthDataset) else None)

    @property
    def _with_apart(self) -> bool:
        return self.apart and self.evaluate == "test"

    @property
    def metrics(self) -> tuple[Metric, ...]:
        further = (*((OF_MEAN_MAP,) if self.baseline == "mean_map" else ()), *((APART,) if self._with_apart else ()))
        return (*METRICS, *further)

    @property
    def measured_figures(self) -> Mapping[str, str]:
        return {"rmse": "image"}

    @property
    def caveats(self) -> tuple[str, ...]:
        whole = self._data.whole
        made = isinstance(whole, DepthDataset) and whole.caveat
        scaled = self.augment.cut_depth > 0 and self.augment.cut_depth_values == "scaled"
        return (*super().caveats, *((CUT_DEPTH,) if scaled and not made else ()))

    @property
    def prepares(self) -> Preprocessing | None:
        return None

    @property
    def model_options(self) -> Mapping[str, Any]:
        return {"embedding": self.embedding, "longest": self._format.longest, "final_norm": self.final_norm}

    @property
    def train_samples(self) -> int:
        return self._data.samples("train")

    @property
    def evaluation_samples(self) -> int:
        whole = self._data.whole
        apart = whole.apart_count if self._with_apart and isinstance(whole, DepthDataset) else 0
        return self._data.samples(self.evaluate) + apart

    def build(self, backbone: BackboneSpec, weights: Mapping[str, torch.Tensor] | None) -> nn.Module:
        """`weights` are loaded into the backbone; the head is always drawn.

        Raises ValueError for an image size that is no multiple of the stride.
        """
        from tasks.backbones.features import feature_info
        from tasks.backbones.loading import load
        from tasks.backbones.model import build_backbone
        from tasks.depth.head import DepthModel

        body = build_backbone(backbone, self.input_size(backbone), final_norm=self.final_norm)
        if weights is not None:
            load(body, weights)
        levels = feature_info(body)
        _check_stride(backbone.image_size, levels[-1].stride)
        embedding = self.embedding or levels[0].channels
        return DepthModel(
            body, embedding=embedding, longest=self._format.longest, final_norm=self.final_norm, std=self.head_std
        )

    def _prepared(self, side: int) -> Prepared:
        from tasks.depth.data import Prepared

        return Prepared(self._data.name, self._format, side, self.resize, self.augment)

    def loaders(self, context: DataContext) -> Loaders:
        self.check_may_test(context)
        from tasks.depth.data import depth_loaders

        pairs = self._data.read(context.root, self._with_apart)
        how = self._prepared(context.image_size)
        return depth_loaders(pairs, how, self._windows, self.baseline == "mean_map", context)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """`loss`: SILog over the whole batch."""
        from tasks.depth.losses import silog

        return {"loss": silog(model(batch["images"]), batch["depth"])}

    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[str, Any]]:
        """Yields for each batch a list of images: name, whether it stands apart, figures, and RMSE of the mean map (or
        None)."""
        from tasks.depth.metrics import evaluated_pixels, image_figures

        format = self._format
        for batch in batches:
            rows = []
            maps = batch.get("mean_map", [None] * len(batch["names"]))
            predicted = (depth for _, depth in self._predicted(model, batch))
            for name, apart, guess, truth, mean in zip(
                batch["names"], batch["apart"], predicted, batch["depth"], maps, strict=True
            ):
                pixels = evaluated_pixels(truth[0], format.window, format.shortest, format.longest)
                figures = image_figures(guess[0], truth[0], pixels)
                known = mean is not None and not apart
                of_mean = image_figures(mean[0], truth[0], pixels)["rmse"] if known else None
                rows.append((name, apart, figures, of_mean))
            yield batch["item"], rows

    def _predicted(self, model: nn.Module, batch: Batch) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Each image (3, h, w) and the depth (1, h, w) predicted for it by the windows; those of one size together."""
        from torch import Tensor

        from tasks.depth.data import windows_for
        from tasks.depth.sliding import sliding_prediction

        images = batch["images"]
        for group in [images] if isinstance(images, Tensor) else [image[None] for image in images]:
            windows = windows_for(group.shape[-2], group.shape[-1], self._windows)
            predicted = sliding_prediction(
                model, group, windows, flip=self.flip_test, shortest=self._format.shortest, at_once=AT_ONCE
            )
            yield from zip(group, predicted.depth, strict=True)

    def summarize(self, parts: Sequence[tuple[str, Any]]) -> Summary:
        """Means of the values per image, and RMSE of each as a measurement."""
        from tasks.depth.metrics import mean_over_images

        rows = [row for _, part in parts for row in part]
        counted = [row for row in rows if not row[1]]
        figures = mean_over_images([row[2] for row in counted])
        if self.baseline == "mean_map":
            figures[OF_MEAN_MAP.name] = sum(row[3] for row in counted) / len(counted)
        if self._with_apart:
            apart = [row[2]["rmse"] for row in rows if row[1]]
            figures[APART.name] = sum(apart) / len(apart)
        measured = [Measurement("rmse", values["rmse"], item=name) for name, _, values, _ in counted]
        return Summary(figures, measured)

    def pictures(self, model: nn.Module, loaders: Loaders) -> dict[str, NDArray[np.uint8]]:
        """`depth`: images, their depth, the prediction and its error, in one scale of colours."""
        from tasks.datasets.loaders import SampleLoaders
        from tasks.depth.pictures import sheet

        assert isinstance(loaders, SampleLoaders)  # see `loaders`
        return {"depth": sheet(loaders, lambda batch: self._predicted(model, batch))}

    def facts(self, model: nn.Module) -> dict[str, Any]:
        """`depth_head`: the size of the head, where it follows from the backbone."""
        head: Any = model.head
        return {"depth_head": {"embedding": head.embed[0].out_channels, "deconvolutions": head.deconvolutions.count}}


def _resolved(dataset: str | DepthPairs) -> DepthDataset | DepthPairs:
    """The known data set of this name, or the description itself. Raises ValueError for an unknown name."""
    return find_dataset(dataset, DepthDataset) if isinstance(dataset, str) else dataset


def _check_stride(side: int, stride: int) -> None:
    """Raises ValueError for a side of the input, in pixels, that the stride does not divide."""
    below = side - side % stride
    if side != below:
        fitting = " or ".join(str(size) for size in (below, below + stride) if size)
        raise ValueError(
            f"backbone.image_size {side} is no multiple of the stride {stride} of the map that the depth head takes, "
            f"so that another number of pixels would be predicted: use {fitting}"
        )
