"""SimMIM: masked tokens in each family of encoders, the linear decoder, its target and its loss.

Xie et al. 2022, "SimMIM" (microsoft/SimMIM; for SwinV2 microsoft/Swin-Transformer, models/simmim.py).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.backbones.split_forward import FAMILIES
from tasks.pretraining.masking import check_patch

EPS_COUNT = 1e-5
"""Added to the number of hidden pixels in the loss."""

EPS_VARIANCE = 1e-6
"""Added to the variance of a normalised target."""


class SimMIM(nn.Module):
    """An encoder, a learnt token in place of what is hidden, and a decoder of one 1x1 convolution.

    Parameters: `encoder.` and the encoder's own names, `mask_token` (1, 1, channels), `decoder.0.`. All tokens, hidden
    ones too, go through the encoder. The token starts normal with standard deviation 0.02, cut at +-2; the decoder as
    PyTorch draws a convolution, both as in the reference code.
    """

    def __init__(self, encoder: nn.Module, image_size: int, mask_patch: int) -> None:
        """Raises ValueError when the encoder's family has no place for a token, when it ends in no norm of its own, and
        when the mask patch does not fit its patches."""
        super().__init__()
        known = FAMILIES.get(type(encoder).__name__)
        if known is None:
            raise ValueError(
                f"{type(encoder).__name__} cannot be pre-trained with SimMIM here: it is written for "
                f"{', '.join(family.title for family in FAMILIES.values())}"
            )
        self.family = known
        model = cast("Any", encoder)
        if isinstance(model.norm, nn.Identity):
            raise ValueError(
                f"this {known.title} normalises after pooling, and SimMIM's decoder works on tokens after the last "
                "norm: set backbone.args.global_pool to token for pre-training"
            )
        self.patch = model.patch_embed.patch_size[0] if known.channels_last else 1
        check_patch(mask_patch, self.patch)
        self.stride = int(model.feature_info[-1]["reduction"])
        if image_size % self.stride:
            raise ValueError(
                f"image_size {image_size} does not divide by the {self.stride} pixels that one vector of the last map "
                f"stands for: use for example {self.stride * max(1, round(image_size / self.stride))}"
            )
        self.image_size, self.mask_patch = image_size, mask_patch
        channels = int(model.patch_embed.proj.out_channels if known.channels_last else model.entry_channels)
        self.encoder = encoder
        self.mask_token = nn.Parameter(torch.zeros(1, 1, channels))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.decoder = nn.Sequential(
            nn.Conv2d(int(model.num_features), self.stride**2 * 3, kernel_size=1), nn.PixelShuffle(self.stride)
        )

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        """Images (n, 3, h, w) and masks (n, h / mask_patch, w / mask_patch), true: hidden -> what the decoder says of
        every pixel (n, 3, h, w), in units of the target."""
        embedded = self.family.embed(self.encoder, images)
        hidden = upsample_mask(mask, self.mask_patch // self.patch)
        token = self.mask_token.to(embedded.dtype)
        if not self.family.channels_last:
            embedded = torch.where(hidden[:, None], token.view(1, -1, 1, 1), embedded)
        elif embedded.ndim == 4:
            embedded = torch.where(hidden[..., None], token.unsqueeze(0), embedded)
        else:
            embedded = torch.where(hidden.flatten(1)[..., None], token, embedded)
        return cast("Tensor", self.decoder(self.family.forward_rest(self.encoder, embedded)))

    def no_weight_decay(self) -> set[str]:
        """What the encoder names, by the names here, and the mask token."""
        encoder = cast("Any", self.encoder)
        named = encoder.no_weight_decay() if hasattr(encoder, "no_weight_decay") else ()
        return {"mask_token"} | {f"encoder.{name}" for name in named}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        cast("Any", self.encoder).set_grad_checkpointing(enable)


def upsample_mask(mask: Tensor, factor: int) -> Tensor:
    """(n, h, w) -> (n, h * factor, w * factor), every value a square."""
    return mask.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)


def hidden_l1(target: Tensor, said: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of |target - said| over hidden pixels and channels, and the number of hidden pixels.

    `mask`: (n, h / mask_patch, w / mask_patch); the mask patch follows from the sizes.
    """
    hidden = upsample_mask(mask, target.shape[-1] // mask.shape[-1])[:, None].to(target.dtype)
    return ((target - said.to(target.dtype)).abs() * hidden).sum(), hidden.sum()


def masked_l1(target: Tensor, said: Tensor, mask: Tensor) -> Tensor:
    """The loss: that sum over (number of hidden pixels + 1e-5), over the 3 channels."""
    total, count = hidden_l1(target, said, mask)
    return total / (count + EPS_COUNT) / target.shape[1]


def local_statistics(images: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each channel in a square of `window` (odd) pixels around every pixel, both as `images`.

    Only pixels inside the image count; the variance is the unbiased one, not below 0, and 1e-6 is added before the
    root. Means are taken along one side after the other, which is the same number for a 47th of the work.
    """
    half = window // 2

    def mean(values: Tensor) -> Tensor:
        values = functional.avg_pool2d(values, (window, 1), 1, (half, 0), count_include_pad=False)
        return functional.avg_pool2d(values, (1, window), 1, (0, half), count_include_pad=False)

    centre = mean(images)
    unbiased = _unbiased(images.shape[-2], images.shape[-1], half, images.dtype, images.device)
    variance = (mean(images.square()) - centre.square()) * unbiased
    return centre, (variance.clamp(min=0) + EPS_VARIANCE).sqrt()


@lru_cache(8)
@torch.inference_mode(False)
def _unbiased(height: int, width: int, half: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(height, width): pixels of the image in the square around each, over one less. Kept: fifteen small operations."""

    def inside(length: int) -> Tensor:
        at = torch.arange(length, device=device)
        return (at + half).clamp(max=length - 1) - (at - half).clamp(min=0) + 1

    count = (inside(height)[:, None] * inside(width)[None]).to(dtype)
    return count / (count - 1)


def normalised_target(images: Tensor, window: int) -> Tensor:
    """Every pixel less its neighbourhood's mean, by its deviation (SimMIM's NORM_TARGET, window 47, for SwinV2)."""
    centre, deviation = local_statistics(images, window)
    return (images - centre) / deviation
