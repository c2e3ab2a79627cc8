"""Tracking: one object is followed through a sequence from its box in the first frame, as SwinTrack does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from tasks.base import Batch, DataContext, Loaders
from tasks.bounds import Label
from tasks.datasets import find_dataset
from tasks.datasets.augment import MAX_SIDE, MEAN_STD
from tasks.datasets.labelled.card import DIGEST
from tasks.datasets.one_set import OneDataSet
from tasks.datasets.sequences.dataset import StillImages
from tasks.datasets.sequences.described import SequencesDescription, SequencesField
from tasks.datasets.sequences.got10k_lists import Taken
from tasks.metrics import Measurement, Metric, Summary, percent
from tasks.tracking.data import KINDS, PART_FIELDS, FrameCounts, Measured, TrackingData, place_of
from tasks.tracking.options import FusionOptions, Inference, TrackingAugment

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from tasks.backbones.preprocessing import Preprocessing
    from tasks.backbones.spec import BackboneSpec
    from tasks.tracking.tracker import Tracker

Side = Annotated[int, Field(ge=16, le=MAX_SIDE)]
RULES = 2
"""Raise it when the same options begin to mean other figures. 2: boxes are measured as the model gives them, annotated
ones are clipped to the frame where SwinTrack's code and GOT-10k's toolkit do that."""
BESIDE = {
    "baselines": {"still": "of a box that never moves", "match": "of cross-correlation"},
    "other_template": {"other": "with another's template"},
}
"""Figures beside the model's, by the field that asks for them; see tasks/tracking/baselines.py."""


class Tracking(OneDataSet[TrackingData]):
    """SwinTrack with any backbone (section 4.2 and appendix E of the paper; Table 2).

    The search region is a square of `backbone.image_size`. What the paper leaves open follows SwinTrack's public code
    and its configuration of SwinTrack-B, which the paper says it follows strictly; each is a field.
    """

    loss_over: ClassVar[Literal["samples", "batch"]] = "batch"
    resumes_evaluation: ClassVar[bool] = True
    data_fields: ClassVar[tuple[str, ...]] = ("dataset", "train_sets")
    split_field: ClassVar[str] = "evaluate"
    part_fields: ClassVar[tuple[str, ...]] = PART_FIELDS
    changeable: ClassVar[tuple[str, ...]] = ("augment.",)

    kind: Literal["tracking"] = "tracking"
    dataset: SequencesField
    """The sequences that are tracked: got10k, trackingnet, lasot, scene-tracks (generated); or a description."""
    train_sets: Annotated[tuple[SequencesField, ...], Field(min_length=1, max_length=20)] | None = None
    """Data sets whose train parts pairs are drawn from, each with the same weight; coco-boxes gives still pairs. None:
    `dataset` alone."""
    evaluate: Measured = "val"
    """The part that is tracked. Where its boxes are not public (test of got10k and trackingnet) the trial ends with a
    submission for the makers' server, and no figure."""
    got10k_train: Taken = "reference"
    """Sequences of GOT-10k's train part: see tasks/datasets/sequences/got10k_lists.py."""
    pairs: int = Field(default=131_072, ge=1, le=10**9)
    """Training pairs of an epoch."""
    frame_gap: int = Field(default=100, ge=1, le=100_000)
    """Frames that the two of a pair are apart at most, at 30 frames a second; at other rates in proportion."""
    template: Side | None = None
    """Side of the template in pixels. None: half of backbone.image_size, as in the paper (112 of 224)."""
    stride: int = Field(default=16, ge=1, le=64)
    """Pixels per token, which says at which stage the backbone ends: the third of Swin."""
    fusion: FusionOptions = FusionOptions()
    varifocal_weight: float = Field(default=1.5, ge=0, le=1e6)
    """Of the loss of the scores."""
    varifocal_alpha: float = Field(default=0.75, ge=0, le=1000)
    """Weight of tokens that the object does not touch, within that loss."""
    varifocal_gamma: float = Field(default=2.0, ge=0, le=10)
    """Power of their score in that weight."""
    giou_weight: float = Field(default=1.5, ge=0, le=1e6)
    """Of the loss of the boxes."""
    normalize: Literal["imagenet", "half"] = "imagenet"
    """Mean and standard deviation for normalising pixels: ImageNet's, or 0.5 and 0.5."""
    augment: TrackingAugment = TrackingAugment()
    inference: Inference = Inference()
    head: Literal["fresh", "keep"] = "fresh"
    """`keep`: the whole model is that of an earlier trial of this task; with optim.epochs 0 it tracks other data."""
    baselines: bool = False
    """Also measure a box that never moves and normalised cross-correlation with the first frame (skimage's
    match_template), as the figures `still` and `match`."""
    other_template: bool = False
    """Also measure the tracker with the template of another sequence, half of the set further on, as figure `other`. If
    it is near the tracker's own, the tracker finds any object, without comparing it with its template. Everything is
    then tracked twice, the second time one sequence after the other."""
    manifests: dict[Label, Annotated[str, Field(pattern=DIGEST)]] = Field(default={})
    """Name of a data set -> SHA-256 of its manifest, filled in by `submit`; see `Classify.manifests`."""
    sizes: dict[Label, FrameCounts] = Field(default={})
    """Name of a data set -> frames of each part, filled in by `submit`; not part of the key."""

    @field_validator("dataset", "train_sets")
    @classmethod
    def _known(cls, value: Any) -> Any:
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, str):
                find_dataset(each, *KINDS)
        return value

    @model_validator(mode="after")
    def _parts_fit(self) -> Tracking:
        data = self._data
        if isinstance(data.whole, StillImages):
            raise ValueError(
                f"dataset {data.name} has still images, which nothing is tracked in: name it in train_sets, and "
                "sequences in dataset"
            )
        if data.whole.counts and not data.whole.counts.get(self.evaluate):
            known = ", ".join(part for part in ("val", "test") if data.whole.counts.get(part))
            raise ValueError(f"{data.name} has no {self.evaluate} part; set evaluate to {known}")
        trained = [place_of(each) for each in data.trained]
        twice = next((place for place in trained if trained.count(place) > 1), None)
        if twice is not None:
            raise ValueError(f"train_sets has {twice} twice, and gives every data set the same weight: name it once")
        asked = next((field for field in BESIDE if getattr(self, field)), None)
        if asked and not data.protocol.public_labels:
            raise ValueError(
                f"{asked} needs boxes, and those of {data.name} {self.evaluate} are not public: set {asked} to false"
            )
        return self

    @property
    def _beside(self) -> dict[str, str]:
        """Figures beside the model's, and what they are of."""
        return {name: what for field, some in BESIDE.items() if getattr(self, field) for name, what in some.items()}

    @classmethod
    def data_of(cls, fields: Mapping[str, Any]) -> TrackingData:
        return TrackingData.of(fields)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        from tasks.tracking.metrics import METRICS

        own = METRICS[self._data.protocol.kind]
        short = {"success_mean": "SUC", "ao": "AO"}[own[0].name]
        return (*own, *(percent(name, f"{short} {what}") for name, what in self._beside.items()))

    @property
    def measured_figures(self) -> Mapping[str, str]:
        """`success` has a value for each threshold, in percent, in the place of a layer."""
        from tasks.tracking.metrics import METRICS

        return {**{metric.name: "sequence" for metric in METRICS["otb"]}, "success": ""}

    @property
    def model_options(self) -> Mapping[str, Any]:
        return self.model_dump(mode="json", include={"template", "stride", "fusion", "head"})

    @property
    def prepares(self) -> Preprocessing:
        from tasks.backbones.preprocessing import Preprocessing

        return Preprocessing(*MEAN_STD[self.normalize], "bilinear", 1.0)

    def _template(self, search: int) -> int:
        return self.template or search // 2

    def check(self, backbone: BackboneSpec) -> None:
        search = backbone.image_size
        for name, side in (("backbone.image_size", search), ("task.template", self._template(search))):
            if side % self.stride or side < 2 * self.stride:
                raise ValueError(
                    f"{name} {side}: a crop is divided into tokens of task.stride {self.stride} pixels along a side; "
                    f"take a multiple from {2 * self.stride} on"
                )
        if self.head == "keep" and backbone.init.kind == "none":
            raise ValueError("task.head keep takes the head of an earlier trial, and backbone.init is of kind none")

    @property
    def train_samples(self) -> int:
        return self.pairs

    @property
    def evaluation_samples(self) -> int:
        """Frames."""
        return self._data.evaluation_samples

    def key_content(self, content: dict[str, Any]) -> dict[str, Any]:
        """The base's, with `rules`; described sets to train on enter without their names and places too."""
        content = {**content, "rules": RULES}
        described = [each for each in self.train_sets or () if not isinstance(each, str)]
        if not described or not content.get("manifests"):
            return super().key_content(content)
        trained = [
            {name: value for name, value in each.items() if name not in {"name", *SequencesDescription.covered}}
            if isinstance(each, dict)
            else each
            for each in content["train_sets"]
        ]
        return super().key_content({**content, "train_sets": trained, "manifests": _values(content["manifests"])})

    def build(self, backbone: BackboneSpec, weights: Mapping[str, torch.Tensor] | None) -> nn.Module:
        """Raises ValueError for a stride that the backbone does not have, or weights that do not fit."""
        from tasks.backbones.loading import load, load_whole
        from tasks.backbones.model import build_backbone
        from tasks.tracking.model import TrackingModel, level_in

        search = backbone.image_size
        level = level_in(backbone, self.stride)
        body = build_backbone(backbone, (search, search), [level], any_size=True)
        model = TrackingModel(body, self.stride, self._template(search), search, self.fusion)
        if weights is not None and self.head == "keep":
            load_whole(model, weights, "a tracker", "a trial of kind tracking with the same model")
        elif weights is not None:
            load(body, weights)
        return model

    def loaders(self, context: DataContext) -> Loaders:
        self.check_may_test(context)
        from tasks.tracking.loaders import TrackingInput, TrackingLoaders
        from tasks.tracking.sampler import Sampling

        search = context.image_size
        how = TrackingInput(
            self._template(search), search, Sampling(self.pairs, self.frame_gap), self.augment, self.normalize,
            self.fusion.drop_path_from,
        )  # fmt: skip
        return TrackingLoaders(*self._data.read(context.root), how, context)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """`varifocal` and `giou`, see `losses.tracking_sums`, with their weights."""
        from tasks.tracking.labels import positives
        from tasks.tracking.losses import tracking_sums

        scores, boxes = model(templates=batch["templates"], searches=batch["images"], drop=all(batch["drop"]))
        positive = positives(batch["boxes"], (scores.shape[1], scores.shape[2]))
        varifocal, giou = tracking_sums(
            scores, boxes, batch["boxes"], positive, self.varifocal_alpha, self.varifocal_gamma
        )
        return {"varifocal": self.varifocal_weight * varifocal, "giou": self.giou_weight * giou}

    def denominators(self, batch: Batch) -> Mapping[str, float | torch.Tensor]:
        """The number of positives. The GIoU loss is a mean weighted by the scores of a worker's share; those of several
        workers weigh by their positives (SwinTrack: by their scores)."""
        from tasks.tracking.labels import positives

        side = batch["images"].shape[-1] // self.stride
        count = positives(batch["boxes"], (side, side)).sum()
        return {"varifocal": count, "giou": count}

    def tracker(self, model: nn.Module) -> Tracker:
        """The model with the rules of `inference`."""
        from tasks.tracking.model import TrackingModel
        from tasks.tracking.tracker import Tracker

        assert isinstance(model, TrackingModel)  # see `build`
        return Tracker(model, self.inference, self.normalize)

    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[str, Any]]:
        """Yields for each sequence, as soon as it ends, what its frames come to; where boxes are not public the
        predicted ones. Of those under way pieces, so that after a kill at most as many frames of a worker are tracked
        again as the shortest of them has."""
        from tasks.tracking.measuring import measured

        tracker = self.tracker(model)
        yield from measured(tracker, batches, self.inference.at_once, self._data.protocol, self._beside)
        model.tracked = (tracker.frames, tracker.seconds)  # type: ignore[assignment]

    def summarize(self, parts: Sequence[tuple[str, Any]]) -> Summary:
        """Fractions, see `metrics.figures`; where boxes are not public a submission in their place."""
        from tasks.tracking.metrics import THRESHOLDS, SequenceFigures, figures

        protocol = self._data.protocol
        if not protocol.public_labels:
            return Summary({}, submission=self._data.submission([part for _, part in parts]))
        of: dict[str, list[SequenceFigures]] = {
            name: [SequenceFigures(**part[name]) for _, part in parts] for name in ("model", *self._beside)
        }
        found, curve = figures(of["model"], protocol.kind)
        found |= {name: figures(of[name], protocol.kind)[0][self.metric] for name in self._beside}
        rows = [
            Measurement(name, value, item=each.name)
            for each in of["model"]
            if each.frames
            for name, value in each.figures().items()
        ]
        rows += [
            Measurement("success", value, layer=round(100 * threshold))
            for threshold, value in zip(THRESHOLDS.tolist(), curve, strict=True)
        ]
        return Summary(found, rows)

    def pictures(self, model: nn.Module, loaders: Loaders) -> dict[str, NDArray[np.uint8]]:
        """`tracks` and `worst_tracks`: strips of frames with the annotated and the predicted box."""
        from tasks.tracking.loaders import TrackingLoaders
        from tasks.tracking.pictures import LOOKED_AT, sheets, tracked

        assert isinstance(loaders, TrackingLoaders)  # see `loaders`
        return sheets(tracked(loaders.pictured(LOOKED_AT), self.tracker(model), self.inference.at_once))

    def facts(self, model: nn.Module) -> dict[str, Any]:
        """`tracking`: frames that this process tracked in its last evaluation, and how many in a second."""
        frames, seconds = getattr(model, "tracked", (0, 0.0))
        return {"tracking": {"frames": frames, "frames_per_second": round(frames / seconds, 1) if seconds else None}}


def _values(manifests: Mapping[str, str]) -> dict[str, str]:
    """The digests without the names of their data sets, which hold places."""
    return {str(place): value for place, value in enumerate(sorted(manifests.values()))}
