"""The options of segmentation, which specs have; without numpy and torch."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tasks.datasets.augment import MAX_SIDE, is_range

Channels = Annotated[int, Field(ge=1, le=1 << 14)]
Count = Annotated[int, Field(ge=1, le=1 << 20)]
Probability = Annotated[float, Field(ge=0, le=1)]
Factor = Annotated[float, Field(gt=0, le=100)]
Weight = Annotated[float, Field(ge=0, le=1000)]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class SegmentationAugment(_Options):
    """Training images: scaled, cut to a square, mirrored, their colours changed, padded with the mean colour.

    Defaults are those of the public segmentation code for Swin (mmsegmentation's ade20k_640x640), which the paper
    follows through SwinV2 and whose numbers it does not repeat; its scale range for Mask2Former (appendix E) is the
    same.
    """

    scale: tuple[Factor, Factor] = (0.5, 2.0)
    """Range of the factor by which an image is larger than for evaluation, uniform."""
    scale_step: Annotated[float, Field(ge=0, le=100)] = 0.0
    """The factor is the lower end of the range plus a multiple of this, each equally likely; 0: any number.
    Mask2Former's code has 0.1."""
    most_of_one_class: Annotated[float, Field(gt=0, le=1)] = 0.75
    """Squares are drawn up to ten times until no class has more than this share of their labelled pixels, and more than
    one class is there. 1: the first one is taken, as in Mask2Former's configuration for ADE20K."""
    flip: Probability = 0.5
    """Probability of a left-right flip."""
    colours: Probability = 0.5
    """Probability of each of four changes: brightness, contrast, saturation, hue."""
    brightness: Annotated[float, Field(ge=0, le=255)] = 32
    """At most so much of 255 is added or taken away."""
    contrast: tuple[Factor, Factor] = (0.5, 1.5)
    """Range of the factor of pixels."""
    saturation: tuple[Factor, Factor] = (0.5, 1.5)
    """Range of the factor of the saturation."""
    hue: Annotated[int, Field(ge=0, le=90)] = 18
    """At most so many units of 2 degrees (OpenCV's)."""

    @field_validator("scale", "contrast", "saturation")
    @classmethod
    def _is_range(cls, value: tuple[float, float]) -> tuple[float, float]:
        return is_range(value)

    @classmethod
    def none(cls) -> SegmentationAugment:
        """No randomness but the place of the square."""
        return cls(scale=(1, 1), most_of_one_class=1, flip=0, colours=0)


class TestOptions(_Options):
    """How an image is evaluated, at one scale. Its prediction is brought back to the size of its file, where classes
    are compared. The paper's 2560 x 640 and 2048 x 512 (appendix E) are the defaults at those image sizes."""

    __test__ = False  # of pytest, which collects classes by their names

    short: Side | None = None
    """Pixels that the shorter side of an image becomes. None: backbone.image_size."""
    long: Side | None = None
    """Pixels that its longer side has at most, which then decides. None: four times `short`."""
    mode: Literal["slide", "whole"] | None = None
    """`slide`: the mean of the predictions of squares of backbone.image_size. `whole`: all at once, padded. None:
    slide for UperNet, whole for Mask2Former, as in their public code."""
    stride: Side | None = None
    """`slide`: pixels from one square to the next. None: two thirds of backbone.image_size, rounded down (426 of
    640)."""
    multiple: Side = 256
    """`whole`: images are padded, on the right and below, to multiples of this, which the windows of the backbone must
    divide at every stage (8 at stride 32: 256)."""

    @model_validator(mode="after")
    def _ordered(self) -> TestOptions:
        if self.short is not None and self.long is not None and self.long < self.short:
            raise ValueError(f"long {self.long} is below short {self.short}: set it to {self.short} or more")
        return self


class UperNetOptions(_Options):
    """UperNet (Xiao et al. 2018) with an auxiliary head, in mmsegmentation's sizes."""

    channels: Channels = 512
    """Of the head's maps."""
    auxiliary_channels: Channels = 256
    """Of the auxiliary head, a convolution on the last map but one (stage 3 of 4)."""
    auxiliary_weight: Weight = 0.4
    """Weight of the auxiliary head's loss; 0: there is no such head."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability, in training, that a channel of a head's last map is 0, of both heads. mmsegmentation has 0.1;
    transformers has no such layer."""
    averaged_over: Literal["all", "labelled"] = "all"
    """The loss is the sum over labelled pixels, divided by the number of all pixels, padding included
    (mmsegmentation), or of labelled ones (transformers)."""


class Mask2FormerOptions(_Options):
    """Mask2Former (Cheng et al. 2022), in the sizes and weights of its configuration for ADE20K."""

    channels: Annotated[int, Field(ge=32, le=1 << 12, multiple_of=32)] = 256
    """Of maps, masks and queries; their group norm has 32 groups."""
    queries: Annotated[int, Field(ge=1, le=10_000)] = 100
    encoder_layers: Annotated[int, Field(ge=1, le=100)] = 6
    """Of the pixel decoder, with deformable attention."""
    decoder_layers: Annotated[int, Field(ge=1, le=100)] = 9
    """Of the decoder with masked attention; the loss is taken after each, and before the first."""
    attention_heads: Annotated[int, Field(ge=1, le=256)] = 8
    encoder_feed_forward: Channels = 1024
    feed_forward: Channels = 2048
    points: Count = 12_544
    """Points that masks are compared at, drawn for each image."""
    class_weight: Weight = 2.0
    mask_weight: Weight = 5.0
    dice_weight: Weight = 5.0
    no_object: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Weight of queries that stand for nothing, in the loss of classes."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Mask2FormerOptions:
        if self.channels % self.attention_heads:
            raise ValueError(
                f"attention_heads {self.attention_heads} does not divide channels {self.channels}: choose one that does"
            )
        return self
