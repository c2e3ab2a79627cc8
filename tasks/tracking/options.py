"""The options of tracking that specs have: fusion, crops and augmentation, inference; without numpy and torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_strict = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
Share = Annotated[float, Field(ge=0, le=1)]


class FusionOptions(BaseModel):
    """What compares template and search region. Defaults: SwinTrack-B, which the paper uses."""

    model_config = _strict

    width: int = Field(default=512, ge=8, le=4096)
    """Channels; features of another number of channels are projected."""
    heads: int = Field(default=8, ge=1, le=256)
    """Of the attention; they must divide the width."""
    blocks: int = Field(default=8, ge=1, le=64)
    """Self-attention blocks over the tokens of both, before the one cross-attention decoder."""
    mlp_ratio: float = Field(default=4.0, gt=0, le=16)
    """Width of an MLP's hidden layer over its own."""
    init_std: float = Field(default=0.02, gt=0, le=1)
    """Standard deviation of the initial weights of fusion and heads. 0.02 is SwinTrack's, for a width of 512; at a
    width of 64 the three layers of a head then pass on almost nothing, and 0.08 begins to learn sooner
    (specs/tracking.yaml)."""
    template_bias: float = Field(default=0.0, ge=0, le=20)
    """Added to the initial positional bias with which the search region's tokens attend to the template's. 0: nothing,
    as in SwinTrack. 49 tokens of the template beside 196 then get a fifth of the attention, and from thousands of pairs
    a fusion may learn to find any object without comparing it with the template. With 3 they get 83 %, and it compares
    within hundreds of steps (docs/studies.md)."""
    box_from: Literal["region", "token"] = "region"
    """What the middle of a token's box is measured from. `region`: from the search region's corner, as in SwinTrack. A
    token must then find out where it is itself, which takes millions of pairs. `token`: from the token's own middle, by
    up to half the region's sides; it learns from thousands of pairs, and is no part of SwinTrack."""
    drop_path: float = Field(default=0.1, ge=0, lt=1)
    """Stochastic depth rate of the decoder; that of the blocks before it rises to it from 0."""
    drop_path_from: float = Field(default=150.0, ge=0, le=100_000)
    """Epochs without drop path in the fusion at the beginning: 150 of 300, as in SwinTrack's code ("constant" warm-up
    over half of the training)."""

    @model_validator(mode="after")
    def _heads_fit(self) -> FusionOptions:
        if self.width % self.heads:
            fitting = ", ".join(str(n) for n in range(1, min(self.width, 32) + 1) if self.width % n == 0)
            raise ValueError(f"heads {self.heads} do not divide width {self.width}: use one of {fitting}")
        return self


class TrackingAugment(BaseModel):
    """How a training pair is cut and changed. Defaults: SwinTrack's public configuration, which the paper follows."""

    model_config = _strict

    scale_jitter: float = Field(default=0.25, ge=0, le=2)
    """The search region's width and height are each multiplied by exp(a normal number times this)."""
    shift_jitter: float = Field(default=3.0, ge=0, le=10)
    """The search region is moved by up to half of this, times the mean of the object's width and height in it; drawn
    again while the object is out of it."""
    grey: Share = 0.05
    """Probability that both crops of a pair become grey."""
    brightness: Share = 0.4
    """The factor is uniform from 1 - this to 1 + this, for each crop anew."""
    contrast: Share = 0.4
    """As brightness."""
    saturation: Share = 0.4
    """As brightness."""

    @classmethod
    def none(cls) -> TrackingAugment:
        """No randomness."""
        return cls(scale_jitter=0, shift_jitter=0, grey=0, brightness=0, contrast=0, saturation=0)


class Inference(BaseModel):
    """How the object is followed from frame to frame. Defaults: SwinTrack's public configuration."""

    model_config = _strict

    window_penalty: Share = 0.49
    """Weight of a Hann window over the search region; the rest is that of the scores."""
    least_size: float = Field(default=10.0, ge=1, le=1000)
    """Pixels; a box that is narrower or lower counts as so wide or high when the search region is cut."""
    reported: Literal["predicted", "clipped"] = "predicted"
    """The boxes that are measured and sent to servers. `predicted`: as the model gives them, even where they reach out
    of the frame, as in SwinTrack's code. `clipped`: their part in the frame; where there is none the last one. The
    search region follows the clipped box in both."""
    at_once: int = Field(default=8, ge=1, le=256)
    """Sequences that one worker tracks at the same time, as a batch."""
