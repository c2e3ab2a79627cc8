"""The forward pass of each family of encoders in two parts, between which SimMIM puts its mask tokens.

Everything else takes maps from `tasks.backbones.features`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class Family:
    """The two parts for one family of encoders."""

    title: str
    embed: Callable[[Any, Tensor], Tensor]
    """Encoder, images (n, 3, h, w) -> tokens or map, in which mask tokens replace what is hidden."""
    forward_rest: Callable[[Any, Tensor], Tensor]
    """Encoder, result of `embed` with mask tokens -> features (n, channels, h / stride, w / stride) after the final
    norm."""
    channels_last: bool
    """True if `embed` returns (n, h, w, c) or (n, h * w, c), false for (n, c, h, w)."""


def _patches(encoder: Any, images: Tensor) -> Tensor:
    """Tokens after the patch embedding and its norm; before position embedding, dropout and class token."""
    return cast("Tensor", encoder.patch_embed(images))


def _through_stages(encoder: Any, tokens: Tensor) -> Tensor:
    """Swin and SwinV2: every map is (n, h, w, c)."""
    return cast("Tensor", encoder.norm(encoder.layers(tokens)).permute(0, 3, 1, 2))


def _as_map(encoder: Any, tokens: Tensor) -> Tensor:
    """Tokens as a map (n, c, h, w), without class token and other prefix tokens."""
    patches = tokens[:, encoder.num_prefix_tokens :]
    return patches.transpose(1, 2).reshape(len(tokens), -1, *encoder.patch_embed.grid_size)


def _through_vit(encoder: Any, tokens: Tensor) -> Tensor:
    """timm's plain vision transformer: position embedding and class token are added after the mask token."""
    tokens = encoder.norm_pre(encoder.patch_drop(encoder._pos_embed(tokens)))
    for block in encoder.blocks:
        tokens = checkpoint(block, tokens, use_reentrant=False) if encoder.grad_checkpointing else block(tokens)
    return _as_map(encoder, encoder.norm(tokens))


def _through_beit(encoder: Any, tokens: Tensor) -> Tensor:
    """timm's BEiT, which is SimMIM's "ViT-B" if all blocks share its relative position bias."""
    tokens = torch.cat([encoder.cls_token.expand(len(tokens), -1, -1).to(tokens.dtype), tokens], dim=1)
    if encoder.pos_embed is not None:
        tokens = tokens + encoder.pos_embed
    tokens = encoder.pos_drop(tokens)
    bias = encoder.rel_pos_bias() if encoder.rel_pos_bias is not None else None
    for block in encoder.blocks:
        if encoder.grad_checkpointing:
            tokens = checkpoint(block, tokens, shared_rel_pos_bias=bias, use_reentrant=False)
        else:
            tokens = block(tokens, shared_rel_pos_bias=bias)
    return _as_map(encoder, encoder.norm(tokens))


FAMILIES = {
    "SwinTransformerV2": Family("SwinV2", _patches, _through_stages, True),
    "SwinTransformer": Family("Swin", _patches, _through_stages, True),
    "VisionTransformer": Family("vision transformer", _patches, _through_vit, True),
    "Beit": Family("BEiT", _patches, _through_beit, True),
    "RepLKNet": Family(
        "RepLKNet", lambda encoder, images: encoder.embed(images),
        lambda encoder, embedded: encoder.forward_embedded(embedded), False,
    ),
}  # fmt: skip
"""By name of the encoder's class, timm's or our RepLKNet."""
