"""The end of a pose network: from a backbone's feature map to a heat map for each joint."""

from __future__ import annotations

from torch import Tensor, nn

from tasks.backbones.dense_head import Deconvolutions

STRIDE = 4
"""Pixels of the image along a side per pixel of a heat map."""


class PoseHead(nn.Module):
    """(n, in_channels, h, w) -> heat maps (n, joints, h * stride_in / 4, w * stride_in / 4), not limited to any range.

    Deconvolutions, then a 1x1 convolution that begins with a normal distribution of deviation 0.001 (Simple Baseline;
    PCT's hmp_base has the same, its hmp_large 48 filters).
    """

    def __init__(self, in_channels: int, stride_in: int, *, joints: int, filters: int = 32) -> None:
        """`in_channels`, `stride_in`: of the map that comes in. Raises ValueError as `Deconvolutions`."""
        super().__init__()
        self.deconvolutions = Deconvolutions(in_channels, stride_in, STRIDE, filters)
        self.last = nn.Conv2d(self.deconvolutions.out_channels, joints, kernel_size=1)
        nn.init.normal_(self.last.weight, std=0.001)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)

    def forward(self, features: Tensor) -> Tensor:
        maps: Tensor = self.last(self.deconvolutions(features))
        return maps
