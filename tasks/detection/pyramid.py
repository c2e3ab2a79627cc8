"""A feature pyramid over any timm backbone: of its stages, or of the one map of a vision transformer."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from tasks.backbones.features import FeatureLevel, feature_info, feature_maps
from tasks.backbones.model import build_backbone
from tasks.backbones.spec import BackboneSpec

FINEST, COARSEST = 4, 32
"""Strides in pixels between which maps are taken; one of twice the coarsest stride is pooled from them."""


def levels_in(spec: BackboneSpec) -> tuple[int, ...]:
    """The levels of the backbone that the pyramid takes: the last one of every stride from 4 to 32; of a backbone all
    of whose levels have one stride (ViT), the last.

    Raises ValueError for a backbone without feature maps, or of strides that no pyramid can be made of.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        known = feature_info(build_backbone(spec))
    deepest: dict[int, int] = {}
    for index, level in enumerate(known):
        if FINEST <= level.stride <= COARSEST:
            deepest[level.stride] = index
    if not deepest or any(stride & (stride - 1) for stride in deepest):
        strides = ", ".join(str(stride) for stride in sorted({level.stride for level in known}))
        raise ValueError(
            f"{spec.model} has feature maps of stride {strides}, and the pyramid of a detector needs powers of two "
            f"from {FINEST} to {COARSEST}: take another backbone.model, or another patch_size in backbone.args"
        )
    return tuple(sorted(deepest.values()))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of maps (n, c, h, w)."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Resampled(nn.Module):
    """One map at the strides 4 to 32: by deconvolutions or pooling of it.

    Source: the simple feature pyramid of ViTDet (Li et al. 2022, section 3), whose convolutions of the maps are here
    those of the pyramid network.
    """

    def __init__(self, level: FeatureLevel) -> None:
        super().__init__()
        channels, parts = level.channels, list[nn.Module]()
        self.channels, self.strides = list[int](), list[int]()
        stride = FINEST
        while stride <= COARSEST:
            steps: list[nn.Module] = []
            width, at = channels, level.stride
            while at > stride:
                steps += [ChannelNorm(width), nn.GELU()] if steps else []
                steps.append(nn.ConvTranspose2d(width, max(1, width // 2), kernel_size=2, stride=2))
                width, at = max(1, width // 2), at // 2
            if at < stride:
                steps.append(nn.MaxPool2d(stride // at))
            parts.append(nn.Sequential(*steps))
            self.channels.append(width)
            self.strides.append(stride)
            stride *= 2
        self.parts = nn.ModuleList(parts)

    def forward(self, features: Tensor) -> list[Tensor]:
        return [part(features) for part in self.parts]


class Pyramid(nn.Module):
    """Images (n, 3, h, w) -> maps (n, channels, h / stride, w / stride) by name, "0" the finest; "pool" is half as fine
    as the last."""

    def __init__(self, backbone: nn.Module, levels: Sequence[int], channels: int, level_norm: bool) -> None:
        super().__init__()
        self.backbone, self._levels = backbone, tuple(levels)
        known = feature_info(backbone)
        taken = [known[level] for level in levels]
        self.norms = nn.ModuleList(ChannelNorm(each.channels) if level_norm else nn.Identity() for each in taken)
        self.resampled = Resampled(taken[0]) if len(taken) == 1 else None
        widths = [each.channels for each in taken] if self.resampled is None else self.resampled.channels
        self.strides = [each.stride for each in taken] if self.resampled is None else self.resampled.strides
        """Of the maps but "pool", in pixels."""
        self.fpn = FeaturePyramidNetwork(widths, channels, LastLevelMaxPool())
        self.out_channels = channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = feature_maps(self.backbone, images, self._levels)
        maps = [norm(each) for norm, each in zip(self.norms, maps, strict=True)]
        if self.resampled is not None:
            maps = self.resampled(maps[0])
        out: dict[str, Tensor] = self.fpn(OrderedDict((str(i), each) for i, each in enumerate(maps)))
        return out
