"""Analyses of weights: attention distance, entropy and divergence of heads, and CKA between layers; nothing is trained.

Section 3 of the paper, and appendices A (Swin) and B (RepLKNet). The paper says what is measured and hardly how, and
its code was never published: every choice is a field here, and recorded with the trial.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tasks.analysis.figures import ATTENTION, cka_metrics
from tasks.backbones.spec import BackboneSpec, Init
from tasks.base import Batch, DataContext, Loaders
from tasks.bounds import MAX_NUMPY_SEED, Label
from tasks.datasets import find_dataset
from tasks.datasets.augment import MEAN_STD, Augment
from tasks.datasets.labelled.card import DIGEST
from tasks.datasets.labelled.dataset import LabelledDataset
from tasks.datasets.labelled.described import LabelledDescription, Sizes
from tasks.datasets.labelled.kinds import LabelledField
from tasks.datasets.labelled.task_data import SPLIT_FIELDS, LabelledData
from tasks.datasets.one_set import OneDataSet
from tasks.metrics import Metric, Summary

if TYPE_CHECKING:
    import torch
    from torch import nn

    from tasks.analysis.measuring import Analysed, Subject
    from tasks.backbones.preprocessing import Preprocessing

Estimator = Literal["unbiased", "biased"]
FEWEST = 4
"""Images of a batch for which the unbiased estimate of CKA is defined."""


class Other(BaseModel):
    """A second model, with whose layers those of the trial's backbone are compared."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    backbone: BackboneSpec
    """Its weights may come from anywhere, and from another stage too. Random ones are other ones than the trial's."""


class Analyse(OneDataSet[LabelledData]):
    """Measures what the weights of `backbone` do with images: one row per layer and head in the table `measurements`.

    Rows: `attention_distance`, `attention_entropy` (layer, head); `head_divergence` (layer, head, item: the other head;
    of RepLKNet the mean over all other channels, without item); `uniform_distance`, `uniform_entropy` (layer: the same
    of attention that is uniform over what the layer's queries see); `cka` (layer, item: the other layer). Layers count
    all blocks of the network from 0.
    """

    trains: ClassVar[bool] = False
    resumes_evaluation: ClassVar[bool] = True
    split_field: ClassVar[str] = "evaluate"
    part_fields: ClassVar[tuple[str, ...]] = SPLIT_FIELDS

    kind: Literal["analysis"] = "analysis"
    dataset: LabelledField = Field(default="imagenet", validate_default=True)
    """Images to look at: a data set that `classify` takes too, or a description. Labels are not read. The paper does
    not say on which images; ImageNet's are what its models were trained on."""
    evaluate: Literal["val", "test"] = "val"
    """The part they are drawn from."""
    val_fraction: float = Field(default=0.2, gt=0, lt=1)
    """See `Classify.val_fraction`."""
    split_seed: int = Field(default=0, ge=0, le=MAX_NUMPY_SEED)
    counts: Literal["exact", "any"] = "exact"
    """See `Classify.counts`."""
    caltech_background: bool = True
    official_val: Literal["val", "test"] = "val"
    """See `Classify.official_val`."""
    images: int | None = Field(default=1024, ge=1, le=100_000_000)
    """Number of images, drawn without replacement; null: all. The paper gives none: 1,024 is our choice."""
    image_seed: int = Field(default=0, ge=0, le=MAX_NUMPY_SEED)
    """Seed of that draw, which is also the order in which images form batches of CKA."""
    batch: int = Field(default=32, ge=1, le=4096)
    """Images of one forward pass: what memory depends on. Results differ by rounding alone."""
    measures: tuple[Literal["attention", "cka"], ...] = Field(default=("attention", "cka"), min_length=1, max_length=2)
    """`attention`: distance, entropy, divergence (of RepLKNet: of its kernels). `cka`: similarity of layers."""
    cls_rule: Literal["drop_renormalise", "drop", "keep"] = "drop_renormalise"
    """Class token and other tokens without a place. `drop_renormalise`: their queries and keys are left out, and the
    rest of each row is made to sum to 1, after adding 1e-8 for the distance (naver-ai/cl-vs-mim, the nearest public
    code). `drop`: without that. `keep`: they count for entropy and divergence, and are left out of the distance."""
    eps: float = Field(default=1e-8, gt=0, le=1e-2)
    """Added to both probabilities in the logarithm of the divergence. It decides how far apart sharp heads are: 27, 18
    or 11 nats for the same maps with 1e-12, 1e-8 or 1e-5. 1e-8 is what the same public code adds."""
    kernel_rule: Literal["abs", "softmax", "square"] = "abs"
    """How a kernel's signed weights become parts of 1. The paper says that channels are normalised, not how; `abs`
    keeps proportions."""
    kernel_pixels: Literal["image", "map"] = "image"
    """Distances in kernels: in pixels of the input (as attention distance is), or of the map that the kernel sees."""
    re_param: bool = False
    """RepLKNet: false for the large kernel as it is trained, true for the kernel that the block applies, into which the
    small kernel and batch norms are merged (structural re-parametrisation)."""
    cka: Estimator = "unbiased"
    """Estimator of HSIC, over minibatches. `biased`: also near 1 for layers of noise where features are many."""
    sensitivity: tuple[Estimator, ...] = Field(default=(), max_length=2)
    """Other estimators of CKA, as figures of their own: cka_biased, cka_unbiased."""
    cka_batch: int = Field(default=256, ge=2, le=8192)
    """Most images of a minibatch of CKA; all are of this size, or one less, where it divides the number of images."""
    pooled: bool = False
    """CKA of each block's mean over its patches, in place of its whole flattened output (class token included)."""
    other: Other | None = None
    """A second model: CKA is then between its layers (item) and the trial's (layer)."""
    normalize: Literal["imagenet", "half"] = "imagenet"
    """Mean and standard deviation for normalising pixels: ImageNet's, or 0.5 and 0.5."""
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    eval_crop: float = Field(default=224 / 256, gt=0, le=1)
    """The shorter side is resized to image_size / eval_crop, and the centre taken."""
    preprocessing: Literal["stated", "weights"] = "stated"
    """See `Classify.preprocessing`."""
    manifests: dict[Label, Annotated[str, Field(pattern=DIGEST)]] = Field(default={})
    """Name of a split -> SHA-256 of its manifest, filled in by `submit`; see `Classify.manifests`."""
    sizes: dict[Label, Sizes] = Field(default={})
    """Name of a split -> classes and images of described data, filled in by `submit`; not part of the key."""

    @field_validator("dataset")
    @classmethod
    def _known(cls, value: str | LabelledDescription) -> str | LabelledDescription:
        return find_dataset(value, LabelledDataset).name if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_the_data(self) -> Analyse:
        data = self._data
        data.split.check(data.whole)
        there = data.samples(self.evaluate) if data.known else None
        if there == 0:
            raise ValueError(f"{data.whole.name} has no {self.evaluate} images; choose another task.evaluate")
        if there and self.images is not None and self.images > there and self.counts == "exact":
            raise ValueError(
                f"images {self.images} is more than the {there} {self.evaluate} images of {data.whole.name}: lower it, "
                "or set it to null for all"
            )
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> Analyse:
        if len(set(self.measures)) < len(self.measures):
            raise ValueError(f"measures {list(self.measures)} names one twice")
        if "cka" not in self.measures:
            if self.other is not None or self.sensitivity:
                name = "other" if self.other is not None else "sensitivity"
                raise ValueError(f"{name} is about CKA: add cka to measures, or leave {name} out")
            return self
        if self.cka in self.sensitivity or len(set(self.sensitivity)) < len(self.sensitivity):
            raise ValueError(f"sensitivity {list(self.sensitivity)} names an estimator that is measured already")
        estimator, fewest = ("unbiased", FEWEST) if "unbiased" in self._estimators else ("biased", 2)
        few = next((name for name in ("images", "cka_batch") if (getattr(self, name) or fewest) < fewest), None)
        if few:
            raise ValueError(
                f"{few} {getattr(self, few)}: {estimator} CKA needs at least {fewest} images in a batch; "
                f"raise it, or leave cka out of measures"
            )
        self._check_batches(estimator, fewest)
        return self

    def _check_batches(self, estimator: str, fewest: int) -> None:
        """Raises ValueError if a batch of CKA is too small, as far as the number of images is known."""
        total = self.evaluation_samples if self.images is not None or self.counts == "exact" else 0
        smallest = total and total // -(-total // self.cka_batch)  # as tasks.analysis.images.Choice.chunks has them
        if 0 < smallest < fewest <= total:
            raise ValueError(
                f"cka_batch {self.cka_batch}: it divides {total} images into batches of which one has {smallest}, and "
                f"{estimator} CKA needs at least {fewest}; raise it"
            )

    @property
    def _estimators(self) -> tuple[Estimator, ...]:
        return (self.cka, *self.sensitivity) if "cka" in self.measures else ()

    @property
    def _figures(self) -> dict[str, str]:
        """Estimator of CKA -> name of its figure."""
        return {each: "cka" if each == self.cka else f"cka_{each}" for each in self._estimators}

    @classmethod
    def data_of(cls, fields: Mapping[str, Any]) -> LabelledData:
        return LabelledData.of(_resolved(fields["dataset"]), fields)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        metrics: tuple[Metric, ...] = ATTENTION if "attention" in self.measures else ()
        for estimator, name in self._figures.items():
            title = "CKA of layers" if name == "cka" else f"{estimator} CKA of layers"
            metrics += cka_metrics(name, title)
        return metrics

    @property
    def measured_figures(self) -> Mapping[str, str]:
        items = {"head_divergence": "head"}
        attention = {m.name: items.get(m.name, "") for m in ATTENTION} if "attention" in self.measures else {}
        return attention | dict.fromkeys(self._figures.values(), "layer")

    def measured_layers(self, model: nn.Module) -> Mapping[str, Mapping[int, Sequence[str]]]:
        return self._subject(model).layers(self._figures)

    @property
    def model_options(self) -> Mapping[str, Any]:
        return self.model_dump(mode="json", include={"measures", "re_param", "other"})

    @property
    def prepares(self) -> Preprocessing | None:
        from tasks.backbones.preprocessing import Preprocessing

        if self.preprocessing == "weights":
            return None
        return Preprocessing(*MEAN_STD[self.normalize], self.interpolation, self.eval_crop)

    def check(self, backbone: BackboneSpec) -> None:
        if self.preprocessing == "weights" and backbone.init.kind != "timm":
            raise ValueError(
                "task.preprocessing weights is what timm states for the tag of the initial weights, and backbone.init "
                f"is of kind {backbone.init.kind}: set task.preprocessing to stated for these weights"
            )
        if self.other is not None and self.other.backbone.image_size != backbone.image_size:
            raise ValueError(
                f"task.other.backbone.image_size {self.other.backbone.image_size} is not backbone.image_size "
                f"{backbone.image_size}: both models see the same images"
            )

    @property
    def train_samples(self) -> int:
        return 0

    @property
    def evaluation_samples(self) -> int:
        return self.images or (self._data.samples(self.evaluate) if self._data.known else 0)

    def build(self, backbone: BackboneSpec, weights: Mapping[str, torch.Tensor] | None) -> nn.Module:
        """The backbone without a head, and the other model, whose weights `load_others` loads."""
        from tasks.analysis.measuring import Analysed
        from tasks.backbones.loading import load
        from tasks.backbones.model import build

        first = build(backbone, 0)
        if weights is not None:
            load(first, weights)
        second = None if self.other is None else build(self.other.backbone, 0)
        model = Analysed(first, second, self.input_size(backbone))
        self._subject(model).check()
        return model

    def load_others(self, model: nn.Module, load: Callable[[nn.Module, Init], None]) -> None:
        from typing import cast

        second = cast("Analysed", model).other
        if self.other is not None and second is not None:
            load(second, self.other.backbone.init)

    def loaders(self, context: DataContext) -> Loaders:
        self.check_may_test(context)
        from tasks.analysis.images import Choice, ChosenImages
        from tasks.datasets.labelled.loaders import ImageInput

        prepares = self.prepares
        if prepares is None:
            from tasks.backbones.preprocessing import required

            assert context.init is not None
            prepares = required(context.init)
        crop = prepares.eval_crop if self.preprocessing == "stated" else self.eval_crop
        augment = Augment.none().model_validate(
            {**dict(Augment.none()), "interpolation": prepares.interpolation, "eval_crop": crop}
        )
        images = self._data.read(context.root, "train", self.evaluate)
        choice = Choice(self.images, self.image_seed, self.cka_batch if self._estimators else self.batch)
        loaders = ChosenImages(images, choice, ImageInput(augment, (prepares.mean, prepares.std)), context)
        loaders.preprocessing = {**prepares.plain(), "eval_crop": crop}
        return loaders

    def loss(self, model: nn.Module, batch: Batch) -> NoReturn:
        raise ValueError("an analysis trains nothing")

    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[str, Any]]:
        """Yields for each chunk sums over its images, as JSON values."""
        return self._subject(model).parts(batches, self.evaluation_samples)

    def summarize(self, parts: Sequence[tuple[str, Any]]) -> Summary:
        """See `tasks.analysis.results.summary`."""
        from tasks.analysis.results import summary

        return summary([part for _, part in parts], self._figures, two_models=self.other is not None)

    def facts(self, model: nn.Module) -> dict[str, Any]:
        """`analysis`: the options, the layers as the model has them, and for CKA how many images each batch has and how
        many numbers a layer's features."""
        from tasks.analysis.images import Choice

        options = {"dataset", "val_fraction", "split_seed", "counts", "caltech_background", "official_val", "manifests"}
        found = self.model_dump(mode="json", exclude={*options, "kind", "sizes", "other"})
        if self._estimators and (self.images is not None or self.counts == "exact"):
            sizes = Choice(None, 0, self.cka_batch).chunks(self.evaluation_samples)
            found["cka_batches"] = [chunk.stop - chunk.start for chunk in sizes]
        return {"analysis": {**found, **self._subject(model).facts()}}

    def _subject(self, model: nn.Module) -> Subject:
        from typing import cast

        from tasks.analysis.measuring import Options, Subject

        options = Options(
            "attention" in self.measures, self._estimators, self.batch, self.cls_rule, self.eps, self.kernel_rule,
            self.kernel_pixels == "image", self.re_param, self.pooled,
        )  # fmt: skip
        return Subject(cast("Analysed", model), options)


def _resolved(dataset: str | LabelledDescription) -> LabelledDataset | LabelledDescription:
    """The known data set of this name, or the description itself. Raises ValueError for an unknown name."""
    return find_dataset(dataset, LabelledDataset) if isinstance(dataset, str) else dataset
