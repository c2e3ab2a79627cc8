"""A feature pyramid network over any timm backbone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from tasks.backbones.map_pyramid import PyramidMaps


class Pyramid(nn.Module):
    """Images (n, 3, h, w) -> maps (n, channels, h / stride, w / stride) by name, "0" the finest; "pool" is half as fine
    as the last."""

    def __init__(self, backbone: nn.Module, levels: Sequence[int], channels: int, level_norm: bool) -> None:
        super().__init__()
        self.maps = PyramidMaps(backbone, levels, level_norm)
        self.strides = self.maps.strides
        """Of the maps but "pool", in pixels."""
        self.fpn = FeaturePyramidNetwork(self.maps.channels, channels, LastLevelMaxPool())
        self.out_channels = channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.maps(images)
        out: dict[str, Tensor] = self.fpn(OrderedDict((str(i), each) for i, each in enumerate(maps)))
        return out
