"""Image classification: fine-tuning or from scratch, chosen on val, reported on test."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from tasks.base import Batch, DataContext, Loaders, Presets
from tasks.bounds import MAX_NUMPY_SEED, Label
from tasks.classification.chosen import check_chosen, of_plugins, ordered
from tasks.classification.neighbours import NearestNeighbours
from tasks.datasets import find_dataset
from tasks.datasets.augment import MEAN_STD, PRESETS, Augment
from tasks.datasets.labelled.card import DIGEST
from tasks.datasets.labelled.dataset import LabelledDataset
from tasks.datasets.labelled.described import LabelledDescription, Sizes
from tasks.datasets.labelled.kinds import LabelledField
from tasks.datasets.labelled.task_data import SPLIT_FIELDS, LabelledData
from tasks.datasets.one_set import OneDataSet
from tasks.metrics import LOSS, Metric, Summary, percent

if TYPE_CHECKING:
    import torch
    from torch import nn

    from tasks.backbones.preprocessing import Preprocessing
    from tasks.backbones.spec import BackboneSpec

TOP1 = percent("top1", "top-1 accuracy", complement="error rate")
MEAN_PER_CLASS = percent("mean_per_class", "mean per-class accuracy", complement="mean per-class error rate")
AUGMENT_TITLES = {
    "augment.label_smoothing": "Label smoothing",
    "augment.crop_scale": "Random crop scale",
    "augment.crop_ratio": "Random resize ratio",
    "augment.flip": "Random horizontal flip",
    "augment.color_jitter": "Color jitter",
    "augment.rand_augment": "Rand augment",
    "augment.erasing": "Random erasing prob.",
    "augment.mixup": "Mixup alpha",
    "augment.cutmix": "Cutmix alpha",
}
"""Rows of Table 7 (appendix E). Its "Mixup prob. 0.8" and "Cutmix prob. 1.0" are the two alphas, as in the public
code."""
MEAN_AP = percent("map11", "11-point mAP")
KNN = percent("knn", "k-NN accuracy", complement="k-NN error rate")
PROBES = {"none": "", "linear": "linear probe", "linear_bn": "linear probe with batch norm", "knn": "k-NN alone"}
"""Words for `Classify.probe`."""
CROP_AND_FLIP = {
    "rand_augment": "none", "color_jitter": 0, "erasing": 0, "mixup": 0, "cutmix": 0, "label_smoothing": 0,
}  # fmt: skip
"""Augmentation of a probe, unless fields are written: random crop and flip alone, as MAE's main_linprobe.py."""


class Classify(OneDataSet[LabelledData]):
    """One label per image (VOC 2007: several); a linear head on the pooled features of a timm backbone.

    Protocol of the paper's K12 study (appendix): settings are chosen on `val` after training on `train`; the chosen
    one is trained again on `trainval` and evaluated on `test`.
    """

    split_field: ClassVar[str] = "evaluate"
    part_fields: ClassVar[tuple[str, ...]] = SPLIT_FIELDS
    changeable: ClassVar[tuple[str, ...]] = ("augment.",)
    setting_titles: ClassVar[Mapping[str, str]] = AUGMENT_TITLES
    presets: ClassVar[Mapping[str, Presets]] = {"augment": PRESETS}

    kind: Literal["classify"] = "classify"
    dataset: LabelledField
    """Name of a data set, for example digits, food101, pets; or a description of your own."""
    train: Literal["train", "trainval"] = "train"
    evaluate: Literal["val", "test"] = "val"
    val_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of the official training set that is held out as val, stratified, if there is no official val."""
    split_seed: int = Field(default=0, ge=0, le=MAX_NUMPY_SEED)
    """Seed of that draw (and of the 30 images per class of Caltech-101)."""
    counts: Literal["exact", "any"] = "exact"
    """`exact`: stop when the number of images on disk is not the published one. `any`: accept any number; the results
    cannot be compared with published ones (39,000 to 47,000 of Birdsnap's 49,829 images can still be had)."""
    caltech_background: bool = True
    """Count BACKGROUND_Google as a class of Caltech-101. With it there are the 102 classes and 9,144 images that
    Kornblith et al. count; torchvision and many others leave it out."""
    official_val: Literal["val", "test"] = "val"
    """Use of the official validation set where test labels are not public (imagenet, inat18). `val`: settings are
    chosen and figures reported on it, as is usual. `test`: it is opened once, after every choice, and val is held out
    of the training set."""
    head: Literal["trunc_normal", "zero", "timm", "keep"] = "trunc_normal"
    """Initial head: normal with standard deviation 0.02 truncated at 2 (SimMIM's fine-tuning code), zero (Swin's code
    when the number of classes differs), timm's own for the model, or that of the initial weights."""
    probe: Literal["none", "linear", "linear_bn", "knn"] = "none"
    """How the backbone is judged. `none`: it is trained with the head.

    `linear`: linear probe. The backbone is frozen and in eval mode (batch norm keeps its statistics, nothing is
    dropped), and the head alone is trained. `linear_bn`: the same with a batch norm without scale and shift before the
    head, as in MAE's public code (which begins with head weights of standard deviation 0.01, uses lars with a weight
    decay of 0, and a learning rate of 0.1 for 256 images). In both, augmentation is random crop and flip; what is
    written in `augment` is added to that.
    `knn`: nothing is trained, there is no head, and the one figure is that of `knn`; `optim` is not used.
    """
    knn: NearestNeighbours | None = None
    """Also measure k-NN classification in every evaluation, the figure `knn`; each passes all training images through
    the model too."""
    plugin_metrics: tuple[Label, ...] = Field(default=(), max_length=50)
    """Names of metrics of the job's plugins that every evaluation computes too (docs/plugins.md)."""
    choose_by: Label = ""
    """The figure that trials are chosen by, one of a plugin or of ours; empty: the first of ours, or of `knn` if that
    says so."""
    normalize: Literal["imagenet", "half"] = "imagenet"
    """Mean and standard deviation for normalising pixels: ImageNet's, or 0.5 and 0.5."""
    preprocessing: Literal["stated", "weights"] = "stated"
    """`stated`: as `normalize` and `augment.interpolation` say. `weights`: mean, standard deviation and interpolation
    are those that timm states for the tag of backbone.init (of kind timm), and neither of these two fields is used; the
    fact `preprocessing` records them."""
    augment: Augment = Augment()
    """Also `none`, `light` or `table7`, or {preset: light, flip: 0}."""
    manifests: dict[Label, Annotated[str, Field(pattern=DIGEST)]] = Field(default={})
    """Name of a split -> SHA-256 of its manifest (see tasks/datasets/manifest.py). `submit` fills it in from the data
    that are there; a trial keeps the entry of its own split, and refuses other data. Empty: not compared."""
    sizes: dict[Label, Sizes] = Field(default={})
    """Name of a split -> classes and images of described data, filled in by `submit`; not part of the key."""

    @field_validator("dataset")
    @classmethod
    def _known(cls, value: str | LabelledDescription) -> str | LabelledDescription:
        return find_dataset(value, LabelledDataset).name if isinstance(value, str) else value

    @model_validator(mode="after")
    def _crop_and_flip(self) -> Classify:
        if self.probe != "none":
            less = {name: value for name, value in CROP_AND_FLIP.items() if name not in self.augment.model_fields_set}
            object.__setattr__(self, "augment", self.augment.model_copy(update=less))  # frozen: it follows from probe
        return self

    @model_validator(mode="after")
    def _fits_the_data(self) -> Classify:
        data = self._data
        data.split.check(data.whole)
        if data.known and data.whole.classes < 2 and not data.whole.several_labels:
            raise ValueError(f"{data.whole.name} has one class only: there is nothing to classify")
        if data.whole.several_labels and (self.augment.mixes or self.augment.label_smoothing):
            raise ValueError(
                f"{data.whole.name} has several labels per image, for which mixing and smoothing labels is not defined "
                "here: set augment.mixup, augment.cutmix and augment.label_smoothing to 0"
            )
        return self

    @model_validator(mode="after")
    def _neighbours_fit(self) -> Classify:
        if self.probe == "knn" and self.knn is None:
            object.__setattr__(self, "knn", NearestNeighbours())  # frozen: it follows from probe
        if self.knn is None:
            return self
        card, images = self._card, self.train_samples if self._data.known else None
        if card.several_labels:
            raise ValueError(
                f"{card.name} has several labels per image, for which k-NN is not defined here: leave out knn"
            )
        if images is not None and self.knn.k > images:
            raise ValueError(f"knn.k {self.knn.k} is more than the {images} training images of {card.name}: lower it")
        return self

    @model_validator(mode="after")
    def _metrics_exist(self) -> Classify:
        check_chosen(self.plugin_metrics, self.choose_by, self.metrics, bool(self.knn and self.knn.choose))
        if self.plugin_metrics and self.probe == "knn":
            raise ValueError("probe knn has no classifier, and plugin_metrics are computed from logits: leave one out")
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> Classify:
        if self.train == "trainval" and self.evaluate == "val":
            raise ValueError("train: trainval holds the images of evaluate: val; evaluate on test, or train on train")
        if self.evaluate == "test" and self._data.known and self._card.test == 0:
            raise ValueError(f"{self._card.name} has no test images; evaluate on val")
        return self

    def key_content(self, content: dict[str, Any]) -> dict[str, Any]:
        kept = dict(super().key_content(content))
        augment = {name: value for name, value in kept.pop("augment", {}).items() if name != "name"}
        return {**kept, "augment": augment} if augment else kept

    @classmethod
    def data_of(cls, fields: Mapping[str, Any]) -> LabelledData:
        return LabelledData.of(_resolved(fields["dataset"]), fields)

    @property
    def _card(self) -> LabelledDataset:
        return self._data.card

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return ordered((*self._own_metrics, *of_plugins(self.plugin_metrics)), self.choose_by)

    @property
    def _own_metrics(self) -> tuple[Metric, ...]:
        if self._card.several_labels:
            return (MEAN_AP, LOSS)
        if self.probe == "knn":
            return (KNN,)
        both = (TOP1, MEAN_PER_CLASS) if self._card.metric == "top1" else (MEAN_PER_CLASS, TOP1)
        first, second = (_of_probe(each, PROBES[self.probe]) for each in both)
        if self.knn is None:
            return (first, second, LOSS)
        return (KNN, first, second, LOSS) if self.knn.choose else (first, second, KNN, LOSS)

    @property
    def measured_figures(self) -> Mapping[str, str]:
        if self.probe == "knn":
            return {}
        return {"map11" if self._card.several_labels else "mean_per_class": "class"}

    @property
    def makes_steps(self) -> bool:
        return self.probe != "knn"

    @property
    def trains_head_alone(self) -> bool:
        return self.probe in ("linear", "linear_bn")

    @property
    def protocol(self) -> str:
        forward = {"none": "", "knn": ", nothing is trained"}.get(self.probe, ", a step costs a forward pass")
        return PROBES[self.probe] + forward

    @property
    def model_options(self) -> Mapping[str, Any]:
        options = {"classes": self._card.classes, "head": self.head}
        return options if self.probe == "none" else {**options, "probe": self.probe}

    @property
    def prepares(self) -> Preprocessing | None:
        from tasks.backbones.preprocessing import Preprocessing

        if self.preprocessing == "weights":
            return None
        return Preprocessing(*MEAN_STD[self.normalize], self.augment.interpolation, self.augment.eval_crop)

    def training_caveats(self, backbone: BackboneSpec) -> tuple[str, ...]:
        strong = self.augment.too_strong_for(*self.input_size(backbone))
        return (strong,) if strong else ()

    def check(self, backbone: BackboneSpec) -> None:
        if self.preprocessing == "weights" and backbone.init.kind != "timm":
            raise ValueError(
                "task.preprocessing weights is what timm states for the tag of the initial weights, and backbone.init "
                f"is of kind {backbone.init.kind}: set task.preprocessing to stated for these weights"
            )

    def batch_multiple(self, workers: int) -> tuple[int, str]:
        if not self.augment.mixes:
            return super().batch_multiple(workers)
        return 2 * workers, "mixup and cutmix pair the images of each worker's share"

    @property
    def train_samples(self) -> int:
        return self._data.samples(self.train)

    @property
    def evaluation_samples(self) -> int:
        return self._data.samples(self.evaluate)

    @property
    def reference_samples(self) -> int:
        return 0 if self.knn is None else self.train_samples

    def build(self, backbone: BackboneSpec, weights: Mapping[str, torch.Tensor] | None) -> nn.Module:
        from tasks.backbones.loading import load
        from tasks.backbones.model import build, draw_head
        from tasks.classification.probe import freeze_backbone, norm_before_head

        if self.probe == "knn":
            model = build(backbone, 0)
            if weights is not None:
                load(model, weights)
            return model
        self._data.require_known()
        model = build(backbone, self._card.classes)
        if self.probe == "linear_bn":
            norm_before_head(model)
        if weights is not None:
            load(model, weights, keep_head=self.head == "keep")
        if self.head in ("trunc_normal", "zero"):
            draw_head(model, zero=self.head == "zero")
        if self.trains_head_alone:
            freeze_backbone(model)
        return model

    def image_transform(self, backbone: BackboneSpec) -> Callable[[Any], torch.Tensor]:
        from tasks.backbones.preprocessing import required
        from tasks.datasets.transforms import from_memory, single_image

        theirs = required(backbone.init) if self.preprocessing == "weights" else None
        normalize = (theirs.mean, theirs.std) if theirs else self.normalize
        interpolation = theirs.interpolation if theirs else self.augment.interpolation
        augment = self.augment.model_copy(update={"interpolation": interpolation})
        if self._card.source != "folder":  # images that are in memory as a whole are resized there, not by Pillow
            return from_memory(self.input_size(backbone), augment, normalize)
        return single_image(self.input_size(backbone), augment, normalize, training=False)

    def class_names(self, root: Path) -> tuple[str, ...]:
        return self._data.class_names(root)

    def plain_model(self, backbone: BackboneSpec, model: nn.Module) -> nn.Module:
        from tasks.classification.probe import with_norm_in_head

        if self.probe == "knn":
            return super().plain_model(backbone, model)
        return with_norm_in_head(model) if self.probe == "linear_bn" else model

    def loaders(self, context: DataContext) -> Loaders:
        self.check_may_test(context)
        from tasks.datasets.labelled.loaders import ImageInput, NamedClasses, labelled_loaders, mixing

        images = self._data.read(context.root, self.train, self.evaluate)
        batches = NamedClasses(mixing(self._card.classes, self.augment, context), images.train)
        reference = self.knn is not None
        if self.preprocessing == "stated":
            return labelled_loaders(images, ImageInput(self.augment, self.normalize), context, batches, reference)
        from tasks.backbones.preprocessing import required

        assert context.init is not None
        theirs = required(context.init)
        augment = self.augment.model_validate({**dict(self.augment), "interpolation": theirs.interpolation})
        how = ImageInput(augment, (theirs.mean, theirs.std))
        loaders = labelled_loaders(images, how, context, batches, reference)
        loaders.preprocessing = theirs.plain()
        return loaders

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        from torch.nn import functional

        logits = model(batch["images"])
        if self._card.several_labels:
            from tasks.classification.measuring import binary_loss

            return {"loss": binary_loss(logits, batch["labels"])}
        if "targets" in batch:
            return {"loss": functional.cross_entropy(logits, batch["targets"])}
        smoothing = self.augment.label_smoothing
        return {"loss": functional.cross_entropy(logits, batch["labels"], label_smoothing=smoothing)}

    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[str, Any]]:
        from tasks.classification.measuring import measured

        outputs = bool(self.plugin_metrics)
        yield from measured(model, batches, self._card, self.probe == "knn", self.knn is not None, outputs)

    def summarize(self, parts: Sequence[tuple[str, Any]]) -> Summary:
        """`top1` and `mean_per_class` as fractions, and `loss`: cross entropy without smoothing. For several labels per
        image: `map11` as a fraction, and `loss`: binary cross entropy. With `knn`: `knn` as a fraction. And
        `plugin_metrics`, which raise PluginError where they return no finite number.

        `mean_per_class` is the mean, over the classes that occur in the labels, of the part of their images that is
        classified correctly; its measurements are these parts. (torchmetrics' macro average also counts, as zero, a
        class that is predicted but absent.) Those of `map11` are the average precision of each class.
        """
        from tasks.classification.measuring import summarized

        return summarized([part for _, part in parts], self._card, self.knn, self.plugin_metrics)


def _resolved(dataset: str | LabelledDescription) -> LabelledDataset | LabelledDescription:
    """The known data set of this name, or the description itself. Raises ValueError for an unknown name."""
    return find_dataset(dataset, LabelledDataset) if isinstance(dataset, str) else dataset


def _of_probe(metric: Metric, words: str) -> Metric:
    """The figure as a probe has it, with that in its title: linear probe, top-1 accuracy"""
    if not words:
        return metric
    complement = f"{words}, {metric.complement}" if metric.complement else ""
    return replace(metric, title=f"{words}, {metric.title}", complement=complement)
