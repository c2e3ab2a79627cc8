"""The `optim` section of a trial: learning rate, schedule, length, batch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

LONGEST_EPOCHS = 1_000_000
LONGEST_STEPS = 1_000_000_000
LARGEST_BATCH = 10_000_000
"""Lengths in epochs or rounds, in optimizer steps, and in samples, beyond which no training goes. Numbers that torch, a
database or a date cannot hold are so refused when a spec is read."""

Epochs = Annotated[int, Field(ge=0, le=LONGEST_EPOCHS)]
Steps = Annotated[int, Field(gt=0, le=LONGEST_STEPS)]
Samples = Annotated[int, Field(gt=0, le=LARGEST_BATCH)]
Rate = Annotated[float, Field(ge=0, le=1e6)]
Beta = Annotated[float, Field(ge=0, lt=1)]


_ONLY_OF: dict[str, tuple[str, ...]] = {
    "momentum": ("sgd", "momentum", "lars"), "nesterov": ("sgd", "momentum", "lars"), "trust_coeff": ("lars",),
    "always_adapt": ("lars", "lamb"), "betas": ("adamw", "lamb"), "eps": ("adamw", "lamb", "lars"),
}  # fmt: skip
"""Fields that only some optimizers have."""


def without_default(schema: dict[str, Any]) -> None:
    """Editors offer no default for a field whose default depends on others."""
    del schema["default"]


EMA = "ema_"
"""Begins the names of figures of the averaged weights."""


class EmaSpec(BaseModel):
    """A moving average of the weights, measured in every evaluation: the figures `ema_top1` and so on.

    As timm's ModelEmaV3: after every optimizer step the average moves by 1 - decay of its way to the weights; batch
    norm's statistics too. After the first step it is these weights themselves.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    decay: float = Field(default=0.9998, gt=0, lt=1)
    """timm's training script has 0.9998."""
    warmup: bool = False
    """The decay begins low: 1 - (n + 1) ** (-2 / 3) after n + 1 steps, until it reaches `decay`."""
    choose: bool = False
    """Trials are chosen by the figure of the averaged weights."""
    hand_on: bool = False
    """The averaged weights are those that the trial keeps and others start from; false: the trained ones."""

    def decay_at(self, updates: int) -> float:
        """The decay of an update; `updates`: optimizer steps so far, this one included."""
        if updates <= 1:
            return 0.0
        return min(self.decay, 1 - updates ** (-2 / 3)) if self.warmup else self.decay


class OptimSpec(BaseModel):
    """How the weights are trained: the optimizer, layer decay, a schedule per step.

    Source of the defaults: appendix E and Table 7 of the paper; SimMIM's fine-tuning configuration for the rest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    lr: float = Field(gt=0, le=1e6)
    """Learning rate at the top of the schedule, in the convention below."""
    lr_convention: Literal["absolute", "per_512"] = "absolute"
    """`absolute`: as the paper's "base learning rate". `per_512`: it, `warmup_lr` and `min_lr` are
    multiplied by batch / 512, as in SimMIM's configurations."""
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    """Factor of the learning rate per level below the head (1: none)."""
    layer_decay_scheme: Literal["timm", "swin26", "swin29", "beit", "replknet13"] = "timm"
    """How parameters are divided into levels; a scheme that does not fit the model is refused.

    `timm`: timm.optim.param_groups_layer_decay, that is the model's own `group_matcher`.
    `swin26`: SimMIM's fine-tuning of Swin and SwinV2: a patch merging at the level of the block before it, the last
    norm at the head's (26 levels for depths 2, 2, 18, 2). timm puts the former with the block after it and the latter
    with the last block: 11 of SwinV2-B's 425 tensors differ.
    `swin29`: the paper's depth and pose code: a patch merging is a level of its own (29).
    `beit`: SimMIM's fine-tuning of its vision transformer (14 for 12 blocks); as timm, except that the last norm, where
    there is one before pooling, and a shared relative position bias are at the head's level.
    `replknet13`: RepLKNet's code, two blocks a level (13 and the head's); the same as `timm` for our RepLKNet.
    """
    backbone_lr_factor: float = Field(default=1.0, gt=0, le=100)
    """Factor of the learning rate of the backbone, all of it, beside what is trained on top of it; layer decay comes on
    top. 0.1 in SwinTrack (tracking) and Mask2Former."""
    weight_decay: Rate = 0.05
    no_decay: Literal["timm", "simmim_swin_pretrain", "simmim_vit", "one_dimensional", "none"] = "timm"
    """Parameters without weight decay: except for `none`, those of one dimension (norms, biases), and

    `timm`: those that the model's `no_weight_decay` lists. For SwinV2 cpb_mlp and logit_scale, for Swin the relative
    position tables: as SimMIM's fine-tuning and the depth and pose code. For vision transformers class token, position
    embedding and (BEiT) relative position tables.
    `simmim_swin_pretrain`: absolute_pos_embed and mask_token, as in SimMIM's pre-training of Swin and SwinV2. It also
    intends to spare cpb_mlp, logit_scale and relative position tables, but its keywords never match, so these decay.
    `simmim_vit`: class token and position embedding. SimMIM's vision transformer, in pre-training and fine-tuning: the
    mask token and relative position tables decay.
    `one_dimensional`: no others, as in RepLKNet's code.
    `none`: none at all, every parameter decays, as in SwinTrack's code.
    """
    optimizer: Literal["adamw", "sgd", "momentum", "lars", "lamb"] = "adamw"
    """By timm's names. `adamw`: torch's. `sgd`: torch's with Nesterov momentum; `momentum`: with plain momentum. `lars`
    and `lamb`: timm's; they are refused with fsdp, since they need the norm of whole weights; `lamb`
    clips no gradient by itself (timm's default is a norm of 1), `clip` does. Weight decay is decoupled in `adamw`;
    `sgd`, `momentum` and `lars` add it to the gradient, `lamb` to the step before its length is adapted."""
    momentum: Beta = 0.9
    """Of `sgd`, `momentum` and `lars`."""
    nesterov: bool | None = None
    """Of the same; null: true for `sgd`, false for the others."""
    trust_coeff: float = Field(default=0.001, gt=0, le=1000)
    """Of `lars`: the length of a step, relative to that of the weights, at a learning rate of 1."""
    always_adapt: bool = False
    """Of `lars` and `lamb`: adapt the step to the length of the weights also where their weight decay is 0. False, as
    timm: norms and biases are not adapted, nor is anything if `weight_decay` is 0. MAE's public LARS adapts all weights
    of more than one dimension whatever their decay."""
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    """Of `adamw` and `lamb`; not used by the others."""
    eps: float = Field(default=1e-8, gt=0, le=1)
    """Of `adamw`, `lamb` and `lars`; not used by the others."""
    epochs: Epochs = 100
    """Length of the training. 0 where `iterations` gives the length; otherwise 0 means no training: the initial weights
    are evaluated once."""
    iterations: Steps | None = None
    """Length of the training in optimizer steps, in place of `epochs`. Reports, evaluations and checkpoints then follow
    rounds of `runtime.report_iterations` steps instead of epochs."""
    warmup_epochs: float = Field(default=0, ge=0, le=LONGEST_EPOCHS, json_schema_extra=without_default)
    """Length of the warm-up, linear from `warmup_lr` to `lr`. Unless it is set: a fifth of `epochs`, at most 20 (the
    paper's 20 of 100), recorded as a number; 0 for `up_down`, or where `iterations` or `warmup_iterations` is given."""
    warmup_iterations: int | None = Field(default=None, ge=0, le=LONGEST_STEPS)
    """Length of the warm-up in optimizer steps, in place of `warmup_epochs`."""
    warmup_lr: Rate = 2.5e-7
    """The same absolute number for every group, as in SimMIM's code (not scaled by layer decay)."""
    warmup_prefix: bool = False
    """True: `cosine` and `poly` start after the warm-up (Swin-Transformer code). False: they start at step 0, and the
    warm-up replaces their beginning (SimMIM code, 2022)."""
    schedule: Literal["cosine", "step", "up_down", "poly"] = "cosine"
    """`poly`: falls from `lr` to `min_lr` with a power of the share of the training that is left (`poly_power`), as
    segmentation does. `up_down`: the paper's depth code. It rises from `min_lr` to `lr` in `up_epochs`, falls in the
    same way and stays at `min_lr`; there is no warm-up. Layer decay scales the whole of it, `min_lr` too."""
    min_lr: Rate = 2.5e-7
    """The floor of `cosine` and `poly`, the same absolute number for every group, and of `up_down`, scaled by layer
    decay."""
    lr_lag: Literal[0, 1] = 0
    """Steps by which the learning rate lags behind the schedule: optimizer step i (from 0) is made at the schedule's
    value for step i - lr_lag. 1: the code of Swin and SimMIM, which reads the schedule after a step, so that steps 0
    and 1 are both made at the first value (`warmup_lr`)."""
    step_epochs: Annotated[tuple[Annotated[float, Field(ge=0, le=LONGEST_EPOCHS)], ...], Field(max_length=1000)] = ()
    """`step`: epochs, counted from 0, at which the learning rate is multiplied by `step_factor`."""
    step_iterations: Annotated[tuple[Steps, ...], Field(max_length=1000)] = ()
    """The same in optimizer steps, for a training whose length is in `iterations`."""
    step_factor: float = Field(default=0.1, gt=0, le=1)
    up_epochs: float | None = Field(default=None, gt=0, le=LONGEST_EPOCHS)
    """`up_down`: epochs in which the learning rate rises. None: half of `epochs`, rounded down (12 of the paper's 25:
    the last epoch is at `min_lr`)."""
    up_iterations: Steps | None = None
    """The same in optimizer steps, for a training whose length is in `iterations`; None: half of them."""
    up_power: float = Field(default=0.9, gt=0, le=100)
    """`up_down`: power of the share of the rise, or of the fall, that is done (the paper's "factor of 0.9")."""
    poly_power: float = Field(default=1.0, gt=0, le=100)
    """`poly`: the power. 1, a straight line, in the public code of Swin's segmentation; 0.9 in Mask2Former."""
    batch: Samples
    """Samples per optimizer step over all workers and accumulation steps."""
    micro_batch: Samples | None = None
    """Samples per forward pass of one worker (none: all of the worker's share at once)."""
    clip: Rate = 5.0
    """Largest L2 norm of the gradient (0: not clipped)."""
    ema: EmaSpec | None = None
    """Also keep and measure a moving average of the weights. It takes the memory of one more copy of them, and every
    evaluation is made twice."""

    @model_validator(mode="after")
    def _one_unit(self) -> OptimSpec:
        """Where a length is given in iterations, the field in epochs that it replaces becomes 0. A warm-up that is not
        given becomes a number."""
        if self.iterations is not None:
            self._replace("epochs", f"iterations {self.iterations}", 0)
            self._replace("warmup_epochs", f"iterations {self.iterations} (use warmup_iterations)", 0.0)
        if self.warmup_iterations is not None:
            self._replace("warmup_epochs", f"warmup_iterations {self.warmup_iterations}", 0.0)
        given = "warmup_epochs" in self.model_fields_set or self.warmup_iterations is not None
        if self.schedule == "up_down" and not given:
            object.__setattr__(self, "warmup_epochs", 0.0)
        elif not given:
            object.__setattr__(self, "warmup_epochs", min(20.0, self.epochs / 5))  # frozen: it depends on epochs
        return self

    def _replace(self, name: str, by: str, nothing: float) -> None:
        """Sets the field to `nothing`. Raises ValueError when it was written with another value than 0."""
        value = getattr(self, name)
        if value and name in self.model_fields_set:
            raise ValueError(f"{name} {value:g} cannot be combined with {by}: leave {name} out, or set it to 0")
        object.__setattr__(self, name, nothing)  # frozen: this is a default that depends on another field

    @model_validator(mode="after")
    def _fits_the_optimizer(self) -> OptimSpec:
        for name, optimizers in _ONLY_OF.items():
            default = type(self).model_fields[name].default
            if self.optimizer in optimizers or getattr(self, name) == default:
                continue
            if name in ("betas", "eps"):  # of every training so far: a stage may change the optimizer alone
                object.__setattr__(self, name, default)  # frozen: without effect, so no part of the key
                continue
            raise ValueError(
                f"{name} is of the optimizer{'s' * (len(optimizers) > 1)} {', '.join(optimizers)}, not of "
                f"{self.optimizer}: leave {name} out"
            )
        if self.nesterov and self.optimizer == "momentum":
            raise ValueError("optimizer momentum is without nesterov: write optimizer sgd, or leave nesterov out")
        if self.uses_nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum: set momentum above 0, or nesterov to false")
        return self

    @property
    def uses_nesterov(self) -> bool:
        """Nesterov momentum, with the default of the optimizer's name."""
        return self.optimizer == "sgd" if self.nesterov is None else self.nesterov

    @model_validator(mode="after")
    def _consistent(self) -> OptimSpec:
        if self.iterations is None and self.step_iterations:
            raise ValueError("step_iterations is for a length in iterations: set iterations, or write step_epochs")
        if self.iterations is not None and self.step_epochs:
            raise ValueError(f"step_epochs cannot be combined with iterations {self.iterations}: write step_iterations")
        if not self.trains:
            return self
        unit, length, warmup, steps = (
            ("epochs", self.epochs, self.warmup_epochs, self.step_epochs)
            if self.iterations is None
            else ("iterations", self.iterations, self.warmup_iterations or 0, self.step_iterations)
        )
        if warmup >= length:
            raise ValueError(f"warmup_{unit} {warmup:g} must be below {unit} {length}")
        if self.schedule == "step" and not steps:
            raise ValueError(f"schedule step needs step_{unit}")
        outside = [step for step in steps if not 0 < step < length]
        if self.schedule == "step" and outside:
            raise ValueError(f"step_{unit} {outside[0]:g} never comes in {length} {unit}: from 1 to {length - 1}")
        return self

    @model_validator(mode="after")
    def _up_and_down(self) -> OptimSpec:
        if self.iterations is None and self.up_iterations is not None:
            raise ValueError("up_iterations is for a length in iterations: set iterations, or write up_epochs")
        if self.iterations is not None and self.up_epochs is not None:
            raise ValueError(f"up_epochs cannot be combined with iterations {self.iterations}: write up_iterations")
        if self.schedule != "up_down" or not self.trains:
            return self
        unit, length = ("epochs", self.epochs) if self.iterations is None else ("iterations", self.iterations)
        if self.warmup_epochs or self.warmup_iterations:
            raise ValueError(f"schedule up_down has no warm-up: leave warmup_{unit} out")
        if self.up_length == 0:
            raise ValueError(
                f"schedule up_down rises for half of the {unit}, rounded down, and of {length} that is 0: set up_{unit}"
            )
        if self.up_length >= length:
            raise ValueError(f"up_{unit} {self.up_length:g} must be below {unit} {length}")
        if self.min_lr >= self.lr:
            raise ValueError(f"schedule up_down rises from min_lr {self.min_lr:g}, which must be below lr {self.lr:g}")
        return self

    @property
    def up_length(self) -> float:
        """`up_down`: how long it rises, in epochs, or in steps where the length is in iterations."""
        if self.iterations is not None:
            return self.up_iterations or self.iterations // 2
        return self.epochs // 2 if self.up_epochs is None else self.up_epochs

    @property
    def trains(self) -> bool:
        """False: the length is zero epochs."""
        return self.iterations is not None or self.epochs > 0

    @property
    def peak_lr(self) -> float:
        """The absolute learning rate at the top of the schedule."""
        return self.lr if self.lr_convention == "absolute" else self.lr * self.batch / 512
