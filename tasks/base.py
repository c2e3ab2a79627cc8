"""The contract between a task, the training loop and the planner."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from tasks.errors import DataError
from tasks.metrics import Metric, Summary

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from tasks.backbones.preprocessing import Preprocessing
    from tasks.backbones.spec import BackboneSpec, Init

Batch = dict[str, Any]
"""Values by name: tensors, or lists with one entry per sample where targets vary in size (boxes of an image). The first
axis of every training value is the sample: the loop slices all of them alike, lists too, into micro-batches. Evaluation
batches also carry `item`, a string: the name of what the batch belongs to (see `Task.measure`)."""

Presets = Mapping[str, Mapping[str, Any]]
"""Name of a preset -> fields and their values, as they are written in a spec."""


@dataclass(frozen=True)
class DataContext:
    """Where and how a trial reads its data."""

    root: Path
    input_size: tuple[int, int]
    """(height, width) of the model's input in pixels."""
    device: str
    seed: int
    batch: int
    """Global batch: samples per optimizer step over all ranks. In a trial that does not train, the smallest that the
    task takes (`Task.batch_multiple`)."""
    rank: int = 0
    world: int = 1
    loader_workers: int = 0
    may_test: bool = False
    """Loaders refuse (DataError) to open test data without this."""
    max_unreadable: float = 0.0
    """Share of an epoch's samples that may be unreadable and are replaced (`Loaders.unreadable`); beyond: DataError."""
    init: Init | None = None
    """Where the backbone's weights come from, for a task that prepares images as those were trained."""

    @property
    def image_size(self) -> int:
        """The side of a square input. Raises DataError for any other."""
        height, width = self.input_size
        if height != width:
            raise DataError(f"these images are square, and the model takes {height} x {width} pixels (height x width)")
        return height


@dataclass(frozen=True)
class EvaluationShare:
    """The part of an evaluation that one rank measures."""

    rank: int = 0
    world: int = 1
    done: frozenset[str] = frozenset()
    """Items whose results are known already."""
    begun: Mapping[str, Sequence[Any]] | None = None
    """Values of the pieces, in order, that earlier attempts kept of other items. None: nobody keeps any, and `measure`
    yields none."""

    def wants(self, position: int, item: str) -> bool:
        """True if this rank measures the item at this position in the order of the loaders."""
        return position % self.world == self.rank and item not in self.done


EVERYTHING = EvaluationShare()


@dataclass(frozen=True)
class Piece:
    """What `measure` may yield of an item before its part, so that a later attempt goes on from there: what was found
    since the piece before."""

    value: Any
    """A JSON value."""


class Loaders(ABC):
    """The data of one trial, in an order that depends only on (seed, epoch, step), so a resumed run sees the same."""

    train_samples: int
    """Samples per epoch, before the last partial batch is dropped."""
    steps_per_epoch: int
    """0 for a task that trains nothing."""
    digest: str
    """SHA-256 of the data that are trained and evaluated on (which samples, which targets)."""
    unreadable: Sequence[str] = ()
    """Training samples that this process could not read so far and replaced by others: each once, with the reason."""
    positions: torch.Tensor | None = None
    """(share,): where the samples of this rank's batches lie in the global batch, in their order; None: batch number
    `rank` of `world` equal blocks. What a sample is given at random follows from its place there."""
    image_cache: str = "none"
    """Says whether decoded images are shared with the node's other trials; for the record."""
    preprocessing: Mapping[str, Any] | None = None
    """How images are prepared where the spec does not say it, as JSON values; for the record."""

    @abstractmethod
    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """This rank's share of every global batch of `epoch` (0-based), from `first_step` on; on the device.

        Randomness of augmentation comes from (seed, epoch, step) and the sample or its place in the global batch: never
        from the rank, so that the number of workers changes nothing, nor from a generator that lives on.
        """

    @abstractmethod
    def evaluation(self, share: EvaluationShare = EVERYTHING) -> Iterable[Batch]:
        """The samples to evaluate on, each exactly once over all ranks, in a fixed order; on the device.

        Each batch has an `item`; items sort, as strings, in the order of the loaders.
        """


class Task(BaseModel, ABC):
    """Something to train or measure. Options are fields; behaviour is methods; torch is imported inside them."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    trains: ClassVar[bool] = True
    """False: the task only measures; its trials make no optimizer step, their loaders need no training set, and `optim`
    may be left out of a spec. (A trial of any other task is evaluated without training by optim.epochs 0.)"""
    loss_over: ClassVar[Literal["samples", "batch"]] = "samples"
    """`samples`: the loss of a batch follows from those of its parts (see `loss` and `denominators`). `batch`: it needs
    all predictions of a worker's share at once (SILog), so a smaller micro-batch is refused and the number of workers
    enters the key."""
    loss_terms: ClassVar[tuple[str, ...]] = ()
    """Names of the terms that `loss` gives besides `loss`, for figures over epochs: reports have them as
    train_<name>."""
    resumes_evaluation: ClassVar[bool] = False
    """True: results of finished items stay in the trial's folder, and an evaluation that was interrupted measures only
    the others. The parts that `measure` yields must then be JSON values; of items that take long it may yield pieces
    first (see Piece and EvaluationShare.begun), after as many steps on every rank that measures the same."""
    data_fields: ClassVar[tuple[str, ...]] = ("dataset",)
    """Fields that name data sets, or describe them (see tasks/datasets/described.py)."""
    split_field: ClassVar[str] = ""
    """The field that says which split is evaluated; empty: no field does."""
    setting_titles: ClassVar[Mapping[str, str]] = {}
    """Fields of the task, by dotted path, that a table of training settings shows (Table 7 of the paper), and their
    titles there."""
    presets: ClassVar[Mapping[str, Presets]] = {}
    """Fields of the task whose value in a spec may be the name of a preset, or {preset: NAME, ..}. Loading a spec puts
    the preset's fields in its place, so that nothing later knows of it."""
    changeable: ClassVar[tuple[str, ...]] = ()
    """Paths within the task (a trailing dot: all below) that population-based training may change on the way."""

    kind: str
    """Names the task in specs; the same for all of a class (see tasks.TASKS)."""

    @property
    @abstractmethod
    def metrics(self) -> tuple[Metric, ...]:
        """Every figure that `summarize` may return; trials are chosen by the first."""

    @property
    def measured_figures(self) -> Mapping[str, str]:
        """Figures of which `summarize` also gives measurements (values per item, layer or head), each with what their
        `item` names: image, class, sequence; head or layer, the other one of a pair; empty: nothing."""
        return {}

    def measured_layers(self, model: nn.Module) -> Mapping[str, Mapping[int, Sequence[str]]]:
        """Of figures with values per layer: the layers that have some, each with the items that its values name. Empty
        where nothing is known of that. `model`: as `build` made it, perhaps on torch's meta device."""
        return {}

    @property
    def metric(self) -> str:
        """Name of the figure that trials are chosen by."""
        return self.metrics[0].name

    @property
    def mode(self) -> Literal["max", "min"]:
        return self.metrics[0].mode

    @property
    def split(self) -> str:
        """Name of the split that is evaluated."""
        return str(getattr(self, self.split_field)) if self.split_field else "val"

    @property
    @abstractmethod
    def reads_test(self) -> bool:
        """True if this task opens test data."""

    @property
    def opens(self) -> Mapping[str, str]:
        """Data sets of which this task opens images, each with the field, and its value, that settles which of them
        are test. In a job that reads test of a set these must agree: where they differ, what one trial learns from or
        is chosen by may be what another is measured on."""
        return {}

    @property
    def makes_steps(self) -> bool:
        """True if trials of this task make optimizer steps, as far as the task decides it: `trains`, unless an option
        says otherwise."""
        return self.trains

    @property
    def trains_head_alone(self) -> bool:
        """True if the backbone is frozen, in eval mode, and the head alone trains. A step then costs a forward pass,
        and `backbone.drop_path`, `backbone.freeze` and layer decay mean nothing."""
        return False

    @property
    def protocol(self) -> str:
        """In words, for plans: how the model is trained or measured where an option changes that (linear probe); else
        empty."""
        return ""

    @property
    def makes_weights(self) -> bool:
        """True if this task is run for its weights: they are kept unless a stage says otherwise."""
        return False

    def batch_multiple(self, workers: int) -> tuple[int, str]:
        """The global batch must be a multiple of this; the second value says why, for the error message."""
        return workers, f"each of {workers} workers takes an equal share"

    @property
    def caveats(self) -> tuple[str, ...]:
        """Why figures of this task cannot be compared with published ones; empty when nothing stands against it."""
        return ()

    @property
    def prepares(self) -> Preprocessing | None:
        """How images become input of the model; None where that follows from the weights, or there are no images."""
        return None

    def all_caveats(self, backbone: BackboneSpec) -> tuple[str, ...]:
        """`caveats`, and those that depend on the backbone: published weights that were trained on images prepared
        otherwise. Imports timm if the weights are timm's."""
        from tasks.backbones.preprocessing import differences

        return (*self.caveats, *differences(backbone.init, self.prepares))

    def training_caveats(self, backbone: BackboneSpec) -> tuple[str, ...]:
        """Likewise, where a model of this backbone is trained: settings with which it can hardly learn."""
        return ()

    @property
    @abstractmethod
    def train_samples(self) -> int:
        """Training samples per epoch as the data set states them; for cost, before data are opened. 0 while nothing is
        known of them (described data before the job is planned)."""

    @property
    @abstractmethod
    def evaluation_samples(self) -> int:
        """Samples evaluated on, likewise."""

    @property
    def reference_samples(self) -> int:
        """Training samples that every evaluation passes through the model besides, likewise (k-NN)."""
        return 0

    @abstractmethod
    def missing_data(self, root: Path) -> str | None:
        """None when the data are there; else what is missing, where it was looked for, and how to get it."""

    @property
    def manifest_names(self) -> tuple[str, ...]:
        """Names of the splits that `data_manifests` looks for: it is not asked again for those already known."""
        return ()

    def data_manifests(self, root: Path, folders: Sequence[Path] = ()) -> Mapping[str, str]:
        """SHA-256 of the split manifests of the data that are there, by the name of the split. They enter the key
        through a field `manifests`, which planning sets to those of all tasks of the job: the task keeps its own.

        `folders`: where else manifests may lie or be written. Raises DataError.
        """
        return {}

    def planned_fields(self, root: Path, folders: Sequence[Path] = ()) -> Mapping[str, Mapping[str, Any]]:
        """Fields that planning fills in from the data that are there: field of this task -> {name of a split: value}.
        Every task of the job gets all entries and keeps its own. Raises DataError."""
        manifests = self.data_manifests(root, folders)
        return {"manifests": manifests} if manifests else {}

    def key_content(self, content: dict[str, Any]) -> dict[str, Any]:
        """The part of `content`, this task's JSON without fields at their default, that enters the key.

        A description of data (a mapping in one of `data_fields`) enters without its name in tables, and, if there is a
        manifest, without everything that the manifest's digest covers: place, classes and counts (`sizes`).
        """
        described = [name for name in self.data_fields if isinstance(content.get(name), dict)]
        if not described:
            return content
        manifests = content.get("manifests")
        kept = {name: value for name, value in content.items() if name != "sizes"}
        if manifests:
            kept["manifests"] = sorted(manifests.values())  # their names hold the place
        for name in described:
            dropped = {"name", *(getattr(self, name).covered if manifests else ())}
            kept[name] = {key: value for key, value in content[name].items() if key not in dropped}
        return kept

    def check(self, backbone: BackboneSpec) -> None:
        """Raises ValueError, naming field, value and remedy, when this task cannot be had with this backbone; from the
        spec alone, before anything runs."""

    @property
    def model_options(self) -> Mapping[str, Any]:
        """What shapes the model besides the backbone, as JSON values: trials that agree in these and in the backbone
        build the same model. Unless a task overrides it, all its fields except `manifests`."""
        return self.model_dump(mode="json", exclude={"manifests"})

    def input_size(self, backbone: BackboneSpec) -> tuple[int, int]:
        """(height, width) of the model's input in pixels."""
        return backbone.image_size, backbone.image_size

    @abstractmethod
    def build(self, backbone: BackboneSpec, weights: Mapping[str, torch.Tensor] | None) -> nn.Module:
        """The model. `weights`: a state dict of an earlier trial's model or an imported file, already verified;
        None: random. Every backbone weight must find its place (ValueError with the list otherwise); what becomes
        of a head is the task's matter."""

    def load_others(self, model: nn.Module, load: Callable[[nn.Module, Init], None]) -> None:
        """Loads the weights of further models that belong to what `build` made, where fields of the task name sources
        of weights. `load` copies those of a source into a backbone (of a `Scratch` none), and raises as `build` does
        for weights that do not fit."""

    @abstractmethod
    def loaders(self, context: DataContext) -> Loaders:
        """Opens the data. Raises DataError."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """Scalar terms of the loss over a micro-batch; the same names for every batch.

        Without `denominators` every term is a mean over the samples, `loss` is minimised, and other names are terms
        worth a curve. With them every term is a sum with its weight included, and none is called `loss`: the loop
        divides each by its denominator over the whole global batch, and minimises the total, which it reports as
        `loss`.

        What is drawn at random here must be drawn for the global batch. Layers timm.layers.DropPath, nn.Dropout and
        nn.Dropout2d are (see workers.draws): the first axis of their input must be the samples, each with the same
        number of consecutive rows. Other draws are refused where the batch is divided.
        """

    def denominators(self, batch: Batch) -> Mapping[str, float | torch.Tensor] | None:
        """For losses that are not means over samples: what each term's sum over the global batch is divided by, from
        the targets alone (positives, valid pixels), under the names of the terms. Must be additive: the loop asks once
        for a rank's whole share of the batch, and adds the ranks'. A total of 0 counts as 1. None: terms are means over
        samples."""
        return None

    @abstractmethod
    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[str, Any]]:
        """Yields (item, part) for each item of the batches when it is complete. A part holds whatever `summarize` needs
        of it: numbers, or tensors on the CPU. The model is in eval mode, gradients and autocast are off (fp32)."""

    @abstractmethod
    def summarize(self, parts: Sequence[tuple[str, Any]]) -> Summary:
        """Figures from the parts of all items, of all ranks and attempts, in the order of the items."""

    def pictures(self, model: nn.Module, loaders: Loaders) -> dict[str, NDArray[np.uint8]]:
        """Pictures of what the model does, by name, each (height, width, 3); always of the same images.

        The model is in eval mode, gradients and autocast are off. None by default.
        """
        return {}

    def image_transform(self, backbone: BackboneSpec) -> Callable[[Any], torch.Tensor] | None:
        """Makes a PIL image, in RGB, the model's input (3, height, width), as in an evaluation; None where samples are
        more than one whole image (persons in a picture, depth maps, masks)."""
        return None

    def class_names(self, root: Path) -> tuple[str, ...]:
        """Names of the classes by number, from the data; empty where they have none. Raises DataError where the data
        are not there."""
        return ()

    def plain_model(self, backbone: BackboneSpec, model: nn.Module) -> nn.Module:
        """What is taken away of `model`, as timm builds it, for programs without this one: unless a task says
        otherwise its backbone, bare, which gives pooled features. Raises ValueError where timm has no such form."""
        from tasks.backbones.loading import load
        from tasks.backbones.model import build

        bare = build(backbone, 0)
        load(bare, model.state_dict())
        return bare

    def facts(self, model: nn.Module) -> dict[str, Any]:
        """What the task found out or decided by itself, as JSON values; recorded beside the loop's own facts."""
        return {}
