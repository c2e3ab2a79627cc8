"""Human pose, top-down: joints of the person in each box as heat maps, measured by the average precision of OKS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from tasks.base import Batch, DataContext, Loaders
from tasks.bounds import FilePath, Label
from tasks.datasets import find_dataset
from tasks.datasets.augment import MAX_SIDE, MEAN_STD
from tasks.datasets.labelled.card import DIGEST
from tasks.datasets.one_set import OneDataSet
from tasks.datasets.persons.dataset import PoseDataset
from tasks.datasets.persons.described import CocoDescription, PoseField
from tasks.datasets.persons.task_data import BOXES, PART_FIELDS, BoxSource, Counts, Learnt, Measured, PoseData
from tasks.metrics import Metric, Summary, percent
from tasks.pose.joints import COCO, CROWDPOSE, Skeleton
from tasks.pose.options import PoseAugment

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from tasks.backbones.preprocessing import Preprocessing
    from tasks.backbones.spec import BackboneSpec
    from tasks.pose.evaluation import Rules

STRIDE = 4
"""Pixels of the input along a side per pixel of a heat map (see tasks.pose.head)."""
_COMMON = (percent("ap", "AP"), percent("ap50", "AP50"), percent("ap75", "AP75"))
OKS = percent("oks_mean", "mean OKS of images")
METRICS = {
    "coco": (*_COMMON, percent("apm", "APM"), percent("apl", "APL"), percent("ar", "AR"), OKS),
    "crowdpose": (
        *_COMMON, percent("ap_easy", "AP easy"), percent("ap_medium", "AP medium"), percent("ap_hard", "AP hard"), OKS,
    ),
}  # fmt: skip
Side = Annotated[int, Field(ge=8, le=MAX_SIDE, multiple_of=STRIDE)]


class Pose(OneDataSet[PoseData]):
    """Heat maps of joints by deconvolutions on the last feature map, as the paper (appendix E) and Simple Baseline.

    What the paper leaves open follows PCT's public code, by its co-first author; each is a field.
    """

    split_field: ClassVar[str] = "evaluate"
    part_fields: ClassVar[tuple[str, ...]] = PART_FIELDS
    changeable: ClassVar[tuple[str, ...]] = ("augment.",)
    setting_titles: ClassVar[Mapping[str, str]] = {
        "augment.flip": "Random horizontal flip",
        "augment.half_body": "Half body prob.", "augment.scale": "Random scale",
        "augment.rotation": "Random rotation", "augment.grid_dropout": "Grid dropout prob.",
        "augment.brightness": "Color jitter (brightness)",
    }  # fmt: skip

    kind: Literal["pose"] = "pose"
    dataset: PoseField
    """coco-keypoints, crowdpose, scene-people (generated); or a description of your own."""
    train: Learnt = "train"
    """`trainval`: also the persons of val, as the paper does with CrowdPose."""
    evaluate: Measured = "val"
    """`test` of COCO is test-dev, whose labels are not public: the trial ends with a submission and no figure."""
    boxes: BoxSource = "detections"
    """Boxes of the persons that are evaluated: a detector's, as the paper has it, or those annotated, which flatter."""
    boxes_file: FilePath | None = None
    """Detected boxes in the published form; absolute, below the home folder (~), or below the data root. None: those
    that are published with the data set. Its place does not enter the key of a planned trial, its content does."""
    evaluator: Literal["auto", "coco", "crowdpose"] = "auto"
    """Whose figures are measured. `auto`: CrowdPose's for persons with its joints, else COCO's. CrowdPose's takes 0.53
    of a person's box as its area, and needs a crowd index of every image."""
    size: tuple[Side, Side] | None = None
    """Height and width of the input in pixels. None: backbone.image_size for both, as in the paper."""
    padding: float = Field(default=1.25, ge=1, le=4)
    """Sides of the part of the photograph that becomes the input over those of the box."""
    sigma: float = Field(default=2.0, ge=0.25, le=32)
    """Of the Gaussian of a joint, in pixels of the heat map: 2 for 64 x 64 (Simple Baseline); 1 suits 16 x 16."""
    refine: Literal["dark", "none"] = "dark"
    """`dark`: the joint is placed between pixels, as UDP's public code does. `none`: at the highest pixel."""
    blur: int | None = Field(default=None, ge=1, le=255)
    """Side of the blur before that, in pixels of the heat map, odd. None: what suits sigma (11 for 2)."""
    loss_factor: float = Field(default=1.0, gt=0, le=1e6)
    """Of the mean squared error: 1 in mmpose and PCT, 0.5 in Simple Baseline. AdamW hardly feels it."""
    filters: int = Field(default=32, ge=1, le=4096)
    """Of each deconvolution: the paper's 32, which PCT's larger model has as 48."""
    final_norm: bool = True
    """Normalise the last feature map by the backbone's own final norm, if it has one, as PCT and the paper's depth code
    do."""
    flip_test: bool = True
    """Average with the heat maps of the mirrored input."""
    oks_limit: float = Field(default=0.9, gt=0, le=1)
    """Of two poses more alike than this, the one with the lower score is dropped."""
    least_joint_score: float = Field(default=0.2, ge=0, lt=1)
    """Joints up to this score do not count in the score of a pose."""
    normalize: Literal["imagenet", "half"] = "imagenet"
    """Mean and standard deviation for normalising pixels: ImageNet's, or 0.5 and 0.5."""
    head: Literal["fresh", "keep"] = "fresh"
    """`keep`: head and backbone are those of an earlier trial of this task; with optim.epochs 0 it is evaluated anew,
    with other boxes or on test-dev."""
    augment: PoseAugment = PoseAugment()
    manifests: dict[Label, Annotated[str, Field(pattern=DIGEST)]] = Field(default={})
    """Name of a split -> SHA-256 of its manifest or of its boxes, filled in by `submit`; see `Classify.manifests`."""
    sizes: dict[Label, Counts] = Field(default={})
    """Name of a split -> persons or boxes of each part, filled in by `submit`; not part of the key."""

    @field_validator("dataset")
    @classmethod
    def _known(cls, value: str | CocoDescription) -> str | CocoDescription:
        return find_dataset(value, PoseDataset).name if isinstance(value, str) else value

    @field_validator("blur")
    @classmethod
    def _is_odd(cls, value: int | None) -> int | None:
        if value is not None and value % 2 == 0:
            raise ValueError(f"blur {value} has no middle pixel: use {value - 1} or {value + 1}")
        return value

    @model_validator(mode="after")
    def _parts_fit(self) -> Pose:
        data = self._data
        if self.train == "trainval" and self.evaluate == "val":
            raise ValueError("train: trainval holds the images of evaluate: val; evaluate on test, or train on train")
        if self.evaluate not in data.whole.part_files:
            raise ValueError(f"{data.whole.name} has no {self.evaluate}; its parts: {', '.join(data.whole.part_files)}")
        if self.boxes == "ground_truth" and not data.labelled:
            raise ValueError(
                f"boxes: ground_truth needs labels, and those of {data.whole.name} {self.evaluate} are not public: set "
                "boxes to detections"
            )
        if self.boxes == "ground_truth" and self.boxes_file is not None:
            raise ValueError("boxes_file names detected boxes, and boxes is ground_truth: leave one of the two out")
        return self

    @classmethod
    def data_of(cls, fields: Mapping[str, Any]) -> PoseData:
        return PoseData.of(_resolved(fields["dataset"]), fields)

    @property
    def skeleton(self) -> Skeleton:
        """The joints of the data set."""
        return {"coco": COCO, "crowdpose": CROWDPOSE}[self._data.whole.skeleton]

    @property
    def _evaluator(self) -> Literal["coco", "crowdpose"]:
        return self._data.whole.skeleton if self.evaluator == "auto" else self.evaluator

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return METRICS[self._evaluator]

    @property
    def measured_figures(self) -> Mapping[str, str]:
        return {"oks": "image"}

    @property
    def model_options(self) -> Mapping[str, Any]:
        return {
            **self.model_dump(mode="json", include={"size", "filters", "final_norm", "head"}),
            "joints": len(self.skeleton),
        }

    @property
    def prepares(self) -> Preprocessing:
        from tasks.backbones.preprocessing import Preprocessing

        return Preprocessing(*MEAN_STD[self.normalize], "bilinear", 1.0)

    def input_size(self, backbone: BackboneSpec) -> tuple[int, int]:
        return self.size or (backbone.image_size, backbone.image_size)

    def check(self, backbone: BackboneSpec) -> None:
        size = self.input_size(backbone)
        if any(side % STRIDE or side < 2 * STRIDE for side in size):
            raise ValueError(
                f"backbone.image_size {backbone.image_size}: heat maps have a quarter of the input's sides; take a "
                f"multiple of {STRIDE} from {2 * STRIDE} on"
            )
        if self.augment.grid_dropout and self.augment.grid_unit[1] > min(size):
            raise ValueError(
                f"task.augment.grid_unit {list(self.augment.grid_unit)} is larger than the input of {size[0]} x "
                f"{size[1]} pixels: lower it, or set task.augment.grid_dropout to 0"
            )
        if self.head == "keep" and backbone.init.kind == "none":
            raise ValueError("task.head keep takes the head of an earlier trial, and backbone.init is of kind none")

    @property
    def train_samples(self) -> int:
        return self._data.train_samples

    @property
    def evaluation_samples(self) -> int:
        return self._data.evaluation_samples

    def key_content(self, content: dict[str, Any]) -> dict[str, Any]:
        """The base's; and detected boxes by their digest, wherever they lie."""
        if not content.get("manifests"):
            return super().key_content(content)
        by_role = self._data.in_key(content["manifests"])
        left_out = "boxes_file" if BOXES in by_role else ""
        kept = {name: value for name, value in content.items() if name != left_out}
        return super().key_content({**kept, "manifests": by_role})

    def build(self, backbone: BackboneSpec, weights: Mapping[str, torch.Tensor] | None) -> nn.Module:
        from tasks.backbones.features import feature_info
        from tasks.backbones.loading import load, load_whole
        from tasks.backbones.model import build_backbone
        from tasks.pose.model import PoseModel

        size = self.input_size(backbone)
        body = build_backbone(backbone, size, final_norm=self.final_norm)
        stride = feature_info(body)[-1].stride
        if any(side % stride for side in size):
            raise ValueError(
                f"an input of {size[0]} x {size[1]} pixels does not divide by the stride of {stride} of "
                f"{backbone.model}'s last feature map, so heat maps would not lie on it: set backbone.image_size or "
                "task.size to multiples"
            )
        model = PoseModel(body, len(self.skeleton), self.filters, self.final_norm)
        if weights is not None and self.head == "keep":
            load_whole(model, weights, "a pose model", "a trial of kind pose with the same model and joints")
        elif weights is not None:
            load(body, weights)
        return model

    def loaders(self, context: DataContext) -> Loaders:
        self.check_may_test(context)
        from tasks.pose.loaders import PoseInput, PoseLoaders

        how = PoseInput(self.padding, self.skeleton, self.augment, self.normalize)
        training, measured = self._data.read(context.root)
        if self._evaluator == "crowdpose":  # before the training, not after it
            measured.persons.check_crowd_index(self._data.name)
        return PoseLoaders(training, measured, how, context)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """`loss`: the mean squared error of heat maps, over all joints and pixels; joints without label add nothing."""
        from tasks.pose import heat_maps

        images = batch["images"]
        maps = model(images)
        size, map_size = ((each.shape[-2], each.shape[-1]) for each in (images, maps))
        wanted, weights = heat_maps.targets(batch["joints"], batch["visible"], size, map_size, self.sigma)
        return {"loss": heat_maps.loss(maps, wanted, weights, self.loss_factor)}

    def predicted(self, model: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Places (n, k, 2) of joints in pixels of the input, and their scores (n, k)."""
        from tasks.pose import heat_maps

        maps = model(images).float()
        if self.flip_test:
            maps = heat_maps.flip_averaged(maps, model(images.flip(-1)).float(), self.skeleton.flip_order)
        return heat_maps.decoded(maps, (images.shape[-2], images.shape[-1]), self._blur)

    @property
    def _blur(self) -> int | None:
        from tasks.pose import heat_maps

        return None if self.refine == "none" else self.blur or heat_maps.blur_side(self.sigma)

    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[str, Any]]:
        """Yields for each batch the poses in its boxes, and what the annotations say of its images."""
        from tasks.pose.boxes import warped_points

        for batch in batches:
            places, joint_scores = self.predicted(model, batch["images"])
            part = {name: batch[name] for name in ("image_ids", "scores", "areas", "truth")}
            part["places"] = warped_points(places.double().cpu().numpy(), batch["back"])
            part["joint_scores"] = joint_scores.double().cpu().numpy()
            yield batch["item"], part

    def summarize(self, parts: Sequence[tuple[str, Any]]) -> Summary:
        """Fractions, see `evaluation.average_precision`; where labels are not public a submission in their place."""
        from tasks.pose import evaluation

        truth = [image for _, part in parts for image in part["truth"]]
        found = evaluation.results([part for _, part in parts], self._rules)
        if not self._data.labelled:
            name = evaluation.SUBMISSION
            content = evaluation.submission(found, [image["id"] for image in truth], len(self.skeleton), f"{name}.json")
            return Summary({}, submission=(f"{name}.zip", content))
        alike = evaluation.similarities(found, truth, self._rules)
        figures = evaluation.average_precision(found, truth, self._rules)
        if alike:
            figures["oks_mean"] = sum(row.value for row in alike) / len(alike)
        return Summary(figures, alike)

    @property
    def _rules(self) -> Rules:
        from tasks.pose.evaluation import Rules

        return Rules(self.skeleton, self.oks_limit, self.least_joint_score, self._evaluator == "crowdpose")

    def pictures(self, model: nn.Module, loaders: Loaders) -> dict[str, NDArray[np.uint8]]:
        """`worst_poses` and `best_poses` by OKS, of persons in their annotated boxes: annotation above prediction."""
        from typing import cast

        from tasks.pose.loaders import PoseLoaders
        from tasks.pose.pictures import sheets

        batches = cast("PoseLoaders", loaders).pictured()
        return sheets(batches, lambda images: self.predicted(model, images), self.skeleton, self.normalize)

    def facts(self, model: nn.Module) -> dict[str, Any]:
        """`pose`: the choices that fields left to the task."""
        return {"pose": {"evaluator": self._evaluator, "joints": len(self.skeleton), "blur": self._blur}}


def _resolved(dataset: str | CocoDescription) -> PoseDataset | CocoDescription:
    """The known data set of this name, or the description itself. Raises ValueError for an unknown name."""
    return find_dataset(dataset, PoseDataset) if isinstance(dataset, str) else dataset
