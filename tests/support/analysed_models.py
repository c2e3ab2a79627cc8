"""Small models of every family that an analysis knows, 32 or 64 px, with attention that is far from uniform."""

from __future__ import annotations

import torch
from torch import nn

from tasks.backbones.model import build
from tasks.backbones.spec import BackboneSpec

_VIT = {"patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 4}
_SWIN = {"patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
_REPLKNET = {"layers": [1, 2, 1, 1], "channels": [8, 16, 16, 16], "kernels": [7, 5, 3, 3], "small_kernel": 3}

ATTENTIVE = {
    "vit": BackboneSpec(model="vit_tiny_patch16_224", image_size=32, args=_VIT),
    "deit": BackboneSpec(model="deit_tiny_distilled_patch16_224", image_size=32, args=_VIT),
    "registers": BackboneSpec(model="vit_tiny_patch16_224", image_size=32, args={**_VIT, "reg_tokens": 3}),
    "beit": BackboneSpec(model="beit_base_patch16_224", image_size=32, args=_VIT),
    "swin": BackboneSpec(model="swin_tiny_patch4_window7_224", image_size=32, args=_SWIN),
    "swinv2": BackboneSpec(model="swinv2_tiny_window8_256", image_size=32, args=_SWIN),
}
REPLKNET = BackboneSpec(model="replknet_31b", image_size=64, args=_REPLKNET)
RESNET = BackboneSpec(model="resnet10t", image_size=64)


def drawn(spec: BackboneSpec, seed: int = 0) -> nn.Module:
    """In eval mode, with weights large enough that heads differ."""
    torch.manual_seed(seed)
    model = build(spec, 0).eval()
    sharpen(model)
    return model


def sharpen(model: nn.Module) -> None:
    """Draws every weight of two dimensions anew, with a larger deviation than any initialisation."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.3)


def images(number: int, size: int = 32) -> torch.Tensor:
    return torch.randn(number, 3, size, size, generator=torch.Generator().manual_seed(3))
