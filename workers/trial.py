"""The spec of a trial: task, backbone, optimization, runtime; and the key that identifies it."""

from __future__ import annotations

import hashlib
import json
import math
import operator
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from tasks import AnyTask
from tasks.backbones.spec import BackboneSpec, Freeze, FromStage, FromTrial, inits
from tasks.bounds import MAX_SEED
from tasks.metrics import Metric
from workers.key_content import key_content
from workers.optim_spec import EMA, LONGEST_EPOCHS, Epochs, OptimSpec, Steps, without_default
from workers.plugin_code import Plugin

KEY_VERSION = 3
"""Part of every key: raise it when the same spec comes to mean another computation, as when a default changes. (Fields
at their default are left out of keys, so a new field does not change the keys of recorded trials.)

3: drop path, dropout and mixing in pairs or elements are drawn for the global batch (see workers.draws);
`optim.warmup_epochs` is by default a fifth of the epochs, at most 20, where it was 20; on a GPU fp32 does not use tf32
(`runtime.tf32`). Trials recorded under 1 and 2 keep their keys, and are read as before."""

NOT_IN_KEY = (
    "checkpoint_epochs", "checkpoint_minutes", "loader_workers", "pictures_every", "grad_checkpointing", "parallel",
)  # fmt: skip
"""Fields of the runtime that cannot change the result of a trial, beyond the order of sums (as the number of workers
does)."""


Rounds = Annotated[int, Field(gt=0, le=LONGEST_EPOCHS)]


class RuntimeSpec(BaseModel):
    """How a trial is executed. Fields that cannot change the figures are left out of the key (see `NOT_IN_KEY`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of training; evaluation is always in fp32. `auto`: bf16 autocast on a GPU that has it in hardware
    (Ampere and later), else fp32; the result's facts record which."""
    tf32: bool = False
    """On a GPU: convolutions and matrix products in fp32 may round their inputs to tf32 (10 bits), which is faster. Off
    by default, so that fp32 is what it says, in training and in every evaluation, as on a CPU; torch's own default is
    on for convolutions, off for products. Products in bf16 do not use it."""
    channels_last: Literal["auto", "on", "off"] = "auto"
    """`auto`: on CUDA only, and there for all models but RepLKNet (see `BackboneSpec.suits_channels_last`)."""
    compile: bool = False
    """torch.compile of the model's repeated blocks, each kind of block once, or of all of it where it has none. Changes
    the order of sums."""
    deterministic: bool = False
    """torch.use_deterministic_algorithms, for bit-equal repeats on CUDA (on CPU they are without)."""
    report_iterations: Steps = 1000
    """Optimizer steps in a round, where the length is `optim.iterations`; otherwise a round is an epoch, and this is
    not used. Part of the key although it does not change the weights: reports, and with them the rungs and spans of
    searches, are counted in rounds, so trials with different rounds cannot share them."""
    evaluate_every: Rounds = 1
    """Rounds (epochs, unless the length is in iterations) between evaluations on val. Test data are always evaluated
    once, after the last round."""
    checkpoint_epochs: Rounds = 10
    """Rounds between checkpoints."""
    checkpoint_minutes: float = Field(default=10.0, gt=0, le=1e6)
    """Minutes after which a checkpoint is written in any case."""
    loader_workers: int = Field(default=0, ge=0, le=1024)
    """Processes that decode images, for data sets that do not fit in memory."""
    max_unreadable: float = Field(default=0.0, ge=0, lt=1)
    """Share of an epoch's images that may be unreadable and are replaced by others (the facts list them); with more the
    trial fails."""
    pictures_every: Rounds | None = None
    """Rounds between the task's pictures (none: after the last round only)."""
    grad_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, more time, same numbers."""
    sync_batchnorm: bool | None = None
    """With several workers: true for batch statistics over all of them, false for those of each worker's own share (the
    result then depends on the number of workers). Unset: a model with batch norm is refused. Not used by one worker."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """With several workers: whole replicas (DistributedDataParallel), or parameters in shards (FSDP2)."""


class Span(BaseModel):
    """A part of a schedule, for population-based training: rounds [first_epoch, last_epoch) of `TrialSpec.rounds`.

    With first_epoch above 0 the trial continues from the whole training state (model and optimizer) of the trial from
    which its backbone starts.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    first_epoch: Epochs
    last_epoch: Rounds

    @model_validator(mode="after")
    def _forward(self) -> Span:
        if self.last_epoch <= self.first_epoch:
            raise ValueError(f"last_epoch {self.last_epoch} must be above first_epoch {self.first_epoch}")
        return self


NO_TRAINING = OptimSpec(lr=1.0, batch=1, epochs=0)
"""`optim` of every trial whose task only measures; only its length is used."""

_SCHEME_IS_FOR = {"swin26": ("swin",), "swin29": ("swin",), "beit": ("vit", "eit", "eva"), "replknet13": ("replknet",)}


class TrialSpec(BaseModel):
    """One run of one task with one setting."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    task: AnyTask
    backbone: BackboneSpec
    optim: OptimSpec = Field(default=NO_TRAINING, json_schema_extra=without_default)
    """Required, unless the task only measures: then it may be left out, and what is written is not used."""
    runtime: RuntimeSpec = RuntimeSpec()
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    span: Span | None = None
    """None: the whole schedule."""
    may_test: bool = False
    """True if test data may be opened. Only the planner sets it, for trials that come after all selection."""
    batch_workers: int = Field(default=1, gt=0, le=1_000_000)
    """Workers among which the loss is computed, each over its own share of the batch. Set by the planner alone, to the
    stage's workers. It counts where the task's loss needs a whole share at once (`Task.loss_over` is `batch`): another
    number of shares is then another loss. It becomes 1 for every other trial, whose result does not depend on it."""
    plugins: tuple[Plugin, ...] = Field(default=(), exclude_if=operator.not_)
    """The job's plugins, each with its digest. Set by the planner alone. Modules and digests enter the key."""

    @model_validator(mode="after")
    def _optim_where_it_trains(self) -> TrialSpec:
        if not self.task.makes_steps:
            object.__setattr__(self, "optim", NO_TRAINING)  # frozen: this depends on another field
        elif "optim" not in self.model_fields_set:
            missing = InitErrorDetails(type="missing", loc=("optim",), input={})
            raise ValidationError.from_exception_data(type(self).__name__, [missing])
        return self

    @model_validator(mode="after")
    def _frozen_backbone(self) -> TrialSpec:
        """Fields that mean nothing where the backbone is not trained get their default, so that they are in no key."""
        unused: dict[str, Any] = {}
        if self.backbone.freeze != Freeze() and (self.task.trains_head_alone or not self.trains):
            unused["freeze"] = Freeze()
        frozen = self.task.trains_head_alone or self.task.makes_steps is not self.task.trains
        if frozen and self.backbone.drop_path:
            unused["drop_path"] = 0.0
        if self.task.trains_head_alone:
            plain = {"layer_decay": 1.0, "layer_decay_scheme": "timm"}
            if any(getattr(self.optim, name) != value for name, value in plain.items()):
                object.__setattr__(self, "optim", self.optim.model_copy(update=plain))  # frozen: it follows from task
        if unused:
            object.__setattr__(self, "backbone", self.backbone.model_copy(update=unused))
        return self

    @model_validator(mode="after")
    def _no_test_before_selection(self) -> TrialSpec:
        if self.task.reads_test and not self.may_test:
            field = self.task.split_field
            remedy = f"set task.{field} to another split" if field else "use a task that evaluates on another split"
            raise ValueError(
                "asks for test data before selection; only a stage from which nothing is chosen may evaluate on test "
                f"({remedy})"
            )
        return self

    @model_validator(mode="after")
    def _span_fits(self) -> TrialSpec:
        if self.span is None:
            return self
        if not self.trains:
            raise ValueError("span: with optim.epochs 0 nothing is trained, in parts or as a whole; leave span out")
        length = f"optim.epochs {self.optim.epochs}"
        if self.optim.iterations is not None:
            per_round = self.runtime.report_iterations
            length = f"the {self.rounds} rounds of optim.iterations {self.optim.iterations} by {per_round}"
        if self.last_round > self.rounds:
            raise ValueError(f"span.last_epoch {self.last_round} is above {length}: lower it")
        if self.first_round > 0 and not isinstance(self.backbone.init, FromTrial):
            raise ValueError(
                f"span.first_epoch {self.first_round} continues from the state of a trial: backbone.init must name it "
                f"(kind: trial), not {self.backbone.init.kind}"
            )
        return self

    @model_validator(mode="after")
    def _task_takes_backbone(self) -> TrialSpec:
        self.task.check(self.backbone)
        return self

    @model_validator(mode="after")
    def _loss_gets_a_whole_share(self) -> TrialSpec:
        optim, workers = self.optim, self.batch_workers
        if self.task.loss_over == "samples" or not self.trains:
            object.__setattr__(self, "batch_workers", 1)  # frozen: this depends on another field
            return self
        if optim.batch % workers:
            raise ValueError(f"optim.batch {optim.batch} does not divide among {workers} workers: choose a multiple")
        if optim.micro_batch is not None and optim.micro_batch < optim.batch // workers:
            raise ValueError(
                f"optim.micro_batch {optim.micro_batch} is below a worker's share of {optim.batch // workers} (batch "
                f"{optim.batch}, {workers} workers), all of which this task's loss needs at once: leave it out; for "
                "less memory lower optim.batch"
            )
        return self

    @model_validator(mode="after")
    def _optimizer_gets_whole_weights(self) -> TrialSpec:
        if self.trains and self.runtime.parallel == "fsdp" and self.optim.optimizer in ("lars", "lamb"):
            raise ValueError(
                f"optim.optimizer {self.optim.optimizer} needs the norm of whole weights, which runtime.parallel fsdp "
                "cuts into shards: set runtime.parallel to ddp, or use another optimizer"
            )
        return self

    @model_validator(mode="after")
    def _layer_decay_scheme_fits(self) -> TrialSpec:
        scheme, model = self.optim.layer_decay_scheme, self.backbone.model
        parts = _SCHEME_IS_FOR.get(scheme)
        if parts and not any(part in model for part in parts):  # by name; workers.layer_decay looks at parameters
            raise ValueError(
                f"optim.layer_decay_scheme {scheme} does not fit backbone.model {model}: it is for models with "
                f"{' or '.join(parts)} in their name (timm fits every model)"
            )
        return self

    @property
    def key(self) -> str:
        """SHA-256 (hex) of the canonical JSON of everything that can change the result.

        Left out: fields at their default, labels of initial weights, `NOT_IN_KEY`, and `optim` of a trial that does not
        train. Weights made by another trial enter by that trial's key, so a key covers its whole lineage; a file's by
        their digest, wherever it lies; a plugin by its module and digest.
        Raises ValueError while a source of weights still names a stage instead of a trial.
        """
        for steps, init in inits(self):
            if isinstance(init, FromStage):
                raise ValueError(f"{'.'.join(map(str, steps))} still names stage {init.stage!r}: plan it first")
        content = key_content(self)
        content["task"] = self.task.key_content(content["task"])
        if self.plugins:
            content["plugins"] = [[plugin.module, plugin.digest] for plugin in self.plugins]
        if not self.trains:
            content.pop("optim", None)
        left_out = NOT_IN_KEY if self.optim.iterations is not None else (*NOT_IN_KEY, "report_iterations")
        content["runtime"] = {name: value for name, value in key_content(self.runtime).items() if name not in left_out}
        text = json.dumps([KEY_VERSION, content], sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Every figure that the trial may end with; trials are chosen by the first. Those of the task, and with
        `optim.ema` the same of the averaged weights."""
        ema = self.optim.ema if self.trains else None
        if ema is None:
            return self.task.metrics
        averaged = tuple(
            replace(metric, name=f"{EMA}{metric.name}", title=f"{metric.title}, averaged weights")
            for metric in self.task.metrics
        )
        return (*averaged, *self.task.metrics) if ema.choose else (*self.task.metrics, *averaged)

    @property
    def metric(self) -> str:
        """Name of the figure that trials are chosen by."""
        return self.metrics[0].name

    @property
    def mode(self) -> Literal["max", "min"]:
        return self.metrics[0].mode

    @property
    def measured_figures(self) -> Mapping[str, str]:
        """As `Task.measured_figures`, and with `optim.ema` the same of the averaged weights."""
        own = self.task.measured_figures
        averaged = {f"{EMA}{figure}": item for figure, item in own.items()}
        return {**own, **averaged} if self.trains and self.optim.ema else own

    @property
    def caveats(self) -> tuple[str, ...]:
        """What its figures are noted for in tables: see `Task.all_caveats` and `Task.training_caveats`."""
        training = self.task.training_caveats(self.backbone) if self.trains else ()
        return (*self.task.all_caveats(self.backbone), *training)

    @property
    def trains(self) -> bool:
        """False: the initial weights are evaluated once, and no optimizer step is made."""
        return self.task.makes_steps and self.optim.trains

    @property
    def rounds(self) -> int:
        """Length of the whole schedule in rounds: its epochs, or the runs of `runtime.report_iterations` optimizer
        steps, of which the last may be shorter. A trial that does not train has one round, its evaluation.

        After every round a report falls due; checkpoints, evaluations, spans and plans count rounds.
        """
        if not self.trains:
            return 1
        if self.optim.iterations is None:
            return self.optim.epochs
        return math.ceil(self.optim.iterations / self.runtime.report_iterations)

    @property
    def first_round(self) -> int:
        """The first round of this trial, from 0."""
        return self.span.first_epoch if self.span else 0

    @property
    def last_round(self) -> int:
        """Rounds of the schedule that are complete at the end of the trial."""
        return self.span.last_epoch if self.span else self.rounds

    @property
    def parent(self) -> str | None:
        """Key of the trial whose weights the backbone starts from, if any."""
        return self.backbone.init.trial if isinstance(self.backbone.init, FromTrial) else None

    @property
    def parents(self) -> tuple[str, ...]:
        """Keys of all trials whose weights this one needs, each once, `parent` first: the task may name more."""
        keys = [init.trial for _, init in inits(self) if isinstance(init, FromTrial)]
        return tuple(dict.fromkeys([self.parent, *keys] if self.parent else keys))


def plain_number(value: float) -> float:
    """Rounds to 12 significant digits, so that 0.9500000000000001 and 0.95 are one setting with one key."""
    return float(f"{value:.12g}") if math.isfinite(value) else value
