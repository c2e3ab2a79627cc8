"""The head that turns a feature map into depth, and the model of backbone and head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tasks.backbones.dense_head import Deconvolutions
from tasks.backbones.features import feature_info, feature_maps

STD = 0.001
"""Standard deviation of the initial weights in the public code."""
STRIDE = 4
"""Pixels per position of the map after the deconvolutions; two bilinear enlargements by 2 lead from it to pixels."""


class DepthHead(nn.Module):
    """Deconvolutions to stride 4, a 3x3 convolution with BatchNorm and ReLU, twice bilinear x2, two 3x3 convolutions
    with a ReLU between, and a sigmoid times the longest depth.

    The paper names only the deconvolutions and "a normal convolution"; what follows them, and the initial weights
    (normal, standard deviation 0.001, so that training begins at half the longest depth everywhere), are those of its
    depth code, SwinTransformer/MIM-Depth-Estimation.
    """

    def __init__(
        self, in_channels: int, stride_in: int, *, embedding: int, longest: float, filters: int = 32, std: float = STD
    ) -> None:
        """`stride_in`: pixels per position of the map that comes in. `embedding`: channels after the deconvolutions; in
        that code the width of the backbone's first stage (128 for SwinV2-B, 192 for L). `longest`: metres (10 for
        NYUv2, 80 for KITTI). `std`: of the initial weights. Raises ValueError as `Deconvolutions`."""
        super().__init__()
        self.longest = longest
        self.deconvolutions = Deconvolutions(in_channels, stride_in, STRIDE, filters)
        self.embed = nn.Sequential(
            nn.Conv2d(self.deconvolutions.out_channels, embedding, 3, padding=1),
            nn.BatchNorm2d(embedding),
            nn.ReLU(inplace=True),
        )
        self.enlarge = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        self.to_depth = nn.Sequential(
            nn.Conv2d(embedding, embedding, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(embedding, 1, 3, padding=1)
        )
        for layer in (*self.deconvolutions.layers, *self.embed, *self.to_depth):
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, std=std)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:
        """(n, in_channels, h, w) -> depth (n, 1, h * stride_in, w * stride_in) in metres."""
        embedded = self.embed(self.deconvolutions(features))
        return torch.sigmoid(self.to_depth(self.enlarge(self.enlarge(embedded)))) * self.longest


class DepthModel(nn.Module):
    """A backbone and a depth head on its last feature map."""

    def __init__(
        self, backbone: nn.Module, *, embedding: int, longest: float, final_norm: bool = True, std: float = STD
    ) -> None:
        """`backbone`: from `build_backbone`, its last level being the map that the head takes; `final_norm` as there.
        The others as in `DepthHead`. Raises ValueError as `feature_info` and `DepthHead`."""
        super().__init__()
        level = feature_info(backbone)[-1]
        self.backbone = backbone
        self.final_norm = final_norm
        self.head = DepthHead(level.channels, level.stride, embedding=embedding, longest=longest, std=std)

    def forward(self, images: Tensor) -> Tensor:
        """Images (n, 3, height, width) -> depth (n, 1, height, width) in metres."""
        (features,) = feature_maps(self.backbone, images, final_norm=self.final_norm)
        depth: Tensor = self.head(features)
        return depth
