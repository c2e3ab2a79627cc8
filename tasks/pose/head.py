"""The end of a pose network: from a backbone's feature map to a heat map for each joint."""

from __future__ import annotations

from torch import Tensor, nn

from tasks.backbones.dense_head import FILTERS, Deconvolutions, init_dense_head


class PoseHead(nn.Module):
    """(n, channels, h, w) -> heat maps (n, joints, h * stride / 4, w * stride / 4), not limited to any range.

    Deconvolutions, then a 1x1 convolution (Simple Baseline; PCT's hmp_base has the same sizes, its hmp_large 48
    filters).
    """

    def __init__(self, channels: int, stride: int, joints: int, filters: int = FILTERS) -> None:
        """`channels`, `stride`: of the map that comes in. Raises ValueError for a stride as Deconvolutions does."""
        super().__init__()
        self.deconvolutions = Deconvolutions(channels, stride, filters)
        self.last = nn.Conv2d(self.deconvolutions.channels, joints, kernel_size=1)
        init_dense_head(self.last)

    def forward(self, features: Tensor) -> Tensor:
        maps: Tensor = self.last(self.deconvolutions(features))
        return maps
