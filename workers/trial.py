"""The only place that says what a node is asked for (a trial and where it runs) and what it answers."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from tasks import AnyTask
from tasks.backbones.spec import BackboneSpec, FromStage, FromTrial

KEY_VERSION = 2
"""Enters every key: raise it when the same spec begins to mean another computation, as when a default changes (fields
at their default are left out of keys, so that a new field leaves the keys of what was recorded before as they are)."""

NOT_IN_KEY = (
    "checkpoint_epochs", "checkpoint_minutes", "loader_workers", "pictures_every", "grad_checkpointing", "parallel",
)  # fmt: skip
"""Fields of the runtime that say how a trial is carried out and cannot change what comes out of it (beyond the order of
sums, as the number of workers does)."""


class OptimSpec(BaseModel):
    """How the weights are moved: AdamW, layer decay, a schedule per step.

    Source of the defaults: appendix E and Table 7 of the paper; SimMIM's fine-tuning configuration for the rest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    lr: PositiveFloat
    """Learning rate at the top of the schedule, in the convention below."""
    lr_convention: Literal["absolute", "per_512"] = "absolute"
    """`absolute`: as the paper's "base learning rate". `per_512`: it, `warmup_lr` and `min_lr` are
    multiplied by batch / 512, as in SimMIM's configurations."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Factor of the learning rate per level below the head (1: none)."""
    layer_decay_scheme: Literal["timm", "swin26", "swin29", "beit", "replknet13"] = "timm"
    """Which parameter belongs to which level; one that does not fit the model is refused.

    `timm`: timm.optim.param_groups_layer_decay, that is the model's own `group_matcher`.
    `swin26`: SimMIM's fine-tuning of Swin and SwinV2: a patch merging at the level of the block before it, the last
    norm at the head's (26 levels for depths 2, 2, 18, 2). timm has the one with the block after it and the other with
    the last block: 11 of SwinV2-B's 425 tensors differ.
    `swin29`: the paper's depth and pose code: a patch merging is a level of its own (29).
    `beit`: SimMIM's fine-tuning of its vision transformer (14 for 12 blocks); as timm, but that the last norm, where
    there is one before pooling, and a shared relative position bias are at the head's level.
    `replknet13`: RepLKNet's code, two blocks a level (13 and the head's); the same as `timm` for our RepLKNet.
    """
    weight_decay: NonNegativeFloat = 0.05
    no_decay: Literal["timm", "simmim_swin_pretrain", "simmim_vit", "one_dimensional"] = "timm"
    """Which parameters have no weight decay; always those of one dimension (norms, biases), and

    `timm`: what the model's `no_weight_decay` names. For SwinV2 cpb_mlp and logit_scale, for Swin the relative position
    tables: as SimMIM's fine-tuning and the depth and pose code. For vision transformers class token, position embedding
    and (BEiT) relative position tables.
    `simmim_swin_pretrain`: absolute_pos_embed and mask_token. What SimMIM's pre-training of Swin and SwinV2 does; it
    means to spare cpb_mlp, logit_scale and relative position tables too, but its keywords never match, so these decay.
    `simmim_vit`: class token and position embedding. SimMIM's vision transformer, in pre-training and fine-tuning: the
    mask token and relative position tables decay.
    `one_dimensional`: nothing else, as in RepLKNet's code.
    """
    betas: tuple[float, float] = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    epochs: PositiveInt = 100
    warmup_epochs: NonNegativeFloat = 20
    """Linear from `warmup_lr` to `lr`."""
    warmup_lr: NonNegativeFloat = 2.5e-7
    """The same absolute number for every group, as in SimMIM's code (not scaled by layer decay)."""
    warmup_prefix: bool = False
    """Whether the cosine starts after the warm-up (Swin-Transformer code) or is cut by it (SimMIM code, 2022)."""
    schedule: Literal["cosine", "step"] = "cosine"
    min_lr: NonNegativeFloat = 2.5e-7
    """The floor of the cosine; the same absolute number for every group."""
    step_epochs: tuple[float, ...] = ()
    """`step`: epochs, counted from 0, at which the learning rate is multiplied by `step_factor`."""
    step_factor: float = Field(default=0.1, gt=0, le=1)
    batch: PositiveInt
    """Images per optimizer step over all workers and accumulation steps."""
    micro_batch: PositiveInt | None = None
    """Images per forward pass of one worker (none: all of the worker's share at once)."""
    clip: NonNegativeFloat = 5.0
    """Largest L2 norm of the gradient (0: not clipped)."""

    @model_validator(mode="after")
    def _consistent(self) -> OptimSpec:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs {self.warmup_epochs:g} must be below epochs {self.epochs}")
        if self.schedule == "step" and not self.step_epochs:
            raise ValueError("schedule step needs step_epochs")
        outside = [epoch for epoch in self.step_epochs if not 0 < epoch < self.epochs]
        if self.schedule == "step" and outside:
            raise ValueError(
                f"step_epochs {outside[0]:g} never comes in {self.epochs} epochs: from 1 to {self.epochs - 1}"
            )
        return self

    @property
    def peak_lr(self) -> float:
        """The absolute learning rate at the top of the schedule."""
        return self.lr if self.lr_convention == "absolute" else self.lr * self.batch / 512


class RuntimeSpec(BaseModel):
    """How a trial is executed. What cannot change the figures is left out of the key (see `TrialSpec.key`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """`auto`: bf16 autocast on a GPU that has it in hardware (Ampere and later), else fp32; what was used is recorded
    with the result."""
    channels_last: Literal["auto", "on", "off"] = "auto"
    """`auto`: on CUDA only."""
    compile: bool = False
    """torch.compile of the model."""
    deterministic: bool = False
    """torch.use_deterministic_algorithms, for bit-equal repeats on CUDA (CPU runs are bit-equal without)."""
    evaluate_every: PositiveInt = 1
    """Epochs between evaluations on val. Test data are evaluated once, after the last epoch, whatever this says."""
    checkpoint_epochs: PositiveInt = 10
    checkpoint_minutes: PositiveFloat = 10.0
    """A checkpoint is written when either has passed since the last one."""
    loader_workers: int = Field(default=0, ge=0)
    """Processes that decode images, for data sets that do not fit in memory."""
    max_unreadable: float = Field(default=0.0, ge=0, lt=1)
    """Share of an epoch's images that may be unreadable and are replaced by others (named and counted in the facts);
    beyond it the trial stops."""
    pictures_every: PositiveInt | None = None
    """Epochs between pictures of what the task shows (none: after the last epoch only)."""
    grad_checkpointing: bool = False
    """Forget activations and compute them again in the backward pass: less memory, the same numbers, more time."""
    sync_batchnorm: bool | None = None
    """With several workers: batch statistics over all of them, or (false) of each worker's own share, so that the
    result depends on the number of workers. None: a model with batch norm is refused there. One worker needs none."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """With several workers: whole replicas (DistributedDataParallel) or parameters in shards (FSDP2)."""


class Span(BaseModel):
    """A part of a schedule: epochs [first_epoch, last_epoch) of `optim.epochs`, for population-based training.

    Above 0 the trial goes on from the whole training state (model and optimizer) of the trial its backbone starts from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    first_epoch: int = Field(ge=0)
    last_epoch: PositiveInt

    @model_validator(mode="after")
    def _forward(self) -> Span:
        if self.last_epoch <= self.first_epoch:
            raise ValueError(f"last_epoch {self.last_epoch} must be above first_epoch {self.first_epoch}")
        return self


_SCHEME_IS_FOR = {"swin26": ("swin",), "swin29": ("swin",), "beit": ("vit", "eit", "eva"), "replknet13": ("replknet",)}


class TrialSpec(BaseModel):
    """One run of one task with one setting."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    task: AnyTask
    backbone: BackboneSpec
    optim: OptimSpec
    runtime: RuntimeSpec = RuntimeSpec()
    seed: int = Field(default=0, ge=0)
    span: Span | None = None
    """None: all of the schedule."""
    may_test: bool = False
    """Whether test data may be opened. Set by the planner alone, for trials that come after every choice."""

    @model_validator(mode="after")
    def _no_test_before_selection(self) -> TrialSpec:
        if self.task.reads_test and not self.may_test:
            raise ValueError(
                "asks for test data before selection; only a stage that takes a winner, and from which nothing "
                "is chosen, may evaluate on test (set task.evaluate: val here)"
            )
        return self

    @model_validator(mode="after")
    def _span_fits(self) -> TrialSpec:
        if self.last_epoch > self.optim.epochs:
            raise ValueError(f"span.last_epoch {self.last_epoch} is above optim.epochs {self.optim.epochs}: lower it")
        if self.first_epoch > 0 and not isinstance(self.backbone.init, FromTrial):
            raise ValueError(
                f"span.first_epoch {self.first_epoch} goes on from the state of a trial: backbone.init must name it "
                f"(kind: trial), not {self.backbone.init.kind}"
            )
        return self

    @model_validator(mode="after")
    def _task_takes_backbone(self) -> TrialSpec:
        self.task.check(self.backbone)
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

        Left out: fields at their default, the label of the initial weights, and `NOT_IN_KEY`. Weights made by another
        trial enter by that trial's key, so a key covers its whole lineage; a file's by their digest, wherever it lies.
        Raises ValueError while `backbone.init` still names a stage instead of a trial.
        """
        if isinstance(self.backbone.init, FromStage):
            raise ValueError(f"backbone.init still names stage {self.backbone.init.stage!r}: plan it first")
        content = _said(self)
        content["task"] = self.task.key_content(content["task"])
        init = content["backbone"].get("init", {})
        init.pop("name", None)
        if init.get("sha256"):
            init.pop("path")
        content["runtime"] = {name: value for name, value in _said(self.runtime).items() if name not in NOT_IN_KEY}
        text = json.dumps([KEY_VERSION, content], sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def first_epoch(self) -> int:
        """0-based, the first one that is trained."""
        return self.span.first_epoch if self.span else 0

    @property
    def last_epoch(self) -> int:
        """Epochs of the schedule that are behind when the trial ends."""
        return self.span.last_epoch if self.span else self.optim.epochs

    @property
    def parent(self) -> str | None:
        """Key of the trial whose weights this one starts from, if any."""
        return self.backbone.init.trial if isinstance(self.backbone.init, FromTrial) else None


def _said(model: BaseModel) -> dict[str, Any]:
    """A model as JSON values, without the fields at their default; what tells the members of a union apart stays."""
    plain = model.model_dump(mode="json")
    said: dict[str, Any] = {}
    for name, field_ in type(model).model_fields.items():
        value = getattr(model, name)
        if name != "kind" and not field_.is_required() and value == field_.get_default(call_default_factory=True):
            continue
        said[name] = _said(value) if isinstance(value, BaseModel) else plain[name]
    return said


def plain_number(value: float) -> float:
    """12 significant digits, so that 0.9500000000000001 and 0.95 are one setting with one key."""
    return float(f"{value:.12g}") if math.isfinite(value) else value
