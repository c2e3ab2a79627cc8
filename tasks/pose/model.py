"""The model of pose: a backbone and the head that makes heat maps of its last feature map."""

from __future__ import annotations

from torch import Tensor, nn

from tasks.backbones.features import feature_info, feature_maps
from tasks.pose.head import PoseHead


class PoseModel(nn.Module):
    """Images (n, 3, h, w) -> heat maps (n, joints, h / 4, w / 4)."""

    def __init__(self, backbone: nn.Module, joints: int, filters: int, final_norm: bool) -> None:
        """Raises ValueError for a backbone without feature maps, or of a stride that the head cannot start from."""
        super().__init__()
        self.backbone, self.final_norm = backbone, final_norm
        level = feature_info(backbone)[-1]
        self.head = PoseHead(level.channels, level.stride, joints=joints, filters=filters)

    def forward(self, images: Tensor) -> Tensor:
        (features,) = feature_maps(self.backbone, images, final_norm=self.final_norm)
        maps: Tensor = self.head(features)
        return maps
