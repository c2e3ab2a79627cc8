"""UperNet: transformers' heads over the maps of a backbone, and the loss of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import UperNetConfig
from transformers.models.upernet.modeling_upernet import UperNetFCNHead, UperNetHead, UperNetPreTrainedModel

from tasks.backbones.map_pyramid import PyramidMaps
from tasks.datasets.class_maps.types import IGNORED
from tasks.segmentation.options import UperNetOptions


class _DroppedConv(nn.Conv2d):
    """A convolution of single pixels, after dropout of whole channels."""

    def __init__(self, convolution: nn.Conv2d, dropout: float) -> None:
        super().__init__(convolution.in_channels, convolution.out_channels, kernel_size=1)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(self.dropout(input))


class _Heads(UperNetPreTrainedModel):
    """The heads alone, with transformers' initial weights."""

    def __init__(self, config: UperNetConfig, channels: Sequence[int], auxiliary: bool, dropout: float) -> None:
        super().__init__(config)
        self.decode_head = UperNetHead(config, list(channels))
        level = max(0, len(channels) - 2)  # stage 3 of 4
        self.auxiliary_head = UperNetFCNHead(config, list(channels), in_index=level) if auxiliary else None
        for head in (self.decode_head, self.auxiliary_head):
            if head is not None and dropout:
                head.classifier = _DroppedConv(head.classifier, dropout)
        self.post_init()


class UperNet(nn.Module):
    """With maps the terms of the loss, without them scores of classes."""

    def __init__(self, maps: PyramidMaps, classes: int, options: UperNetOptions) -> None:
        super().__init__()
        self.maps, self._options = maps, options
        config = UperNetConfig(
            num_labels=classes, hidden_size=options.channels, auxiliary_channels=options.auxiliary_channels
        )
        self.heads = _Heads(config, maps.channels, auxiliary=options.auxiliary_weight > 0, dropout=options.dropout)

    def forward(self, images: Tensor, truth: Tensor | None = None, seeds: Sequence[int] = ()) -> Any:
        """`images` (n, 3, h, w). With `truth` (n, h, w) the terms by name, each a sum; else (n, classes, h, w). Nothing
        is drawn at random, so `seeds` have no effect.

        Raises ValueError for one image alone in training: its pooled maps have one value for batch norm.
        """
        norm = self.heads.decode_head.bottleneck.batch_norm
        if self.training and len(images) == 1 and isinstance(norm, nn.BatchNorm2d):
            raise ValueError(
                "UperNet's batch norm needs two images or more in a forward pass: set optim.micro_batch to 2 or more, "
                "or runtime.sync_batchnorm with several workers"
            )
        maps = self.maps(images)
        scores = _upsampled(self.heads.decode_head(maps), images)
        if truth is None:
            return scores
        terms = {"main": _summed(scores, truth)}
        if self.heads.auxiliary_head is not None:
            auxiliary = _summed(_upsampled(self.heads.auxiliary_head(maps), images), truth)
            terms["auxiliary"] = self._options.auxiliary_weight * auxiliary
        return terms


def denominators(maps: Tensor, options: UperNetOptions) -> Mapping[str, Tensor | float]:
    """What each term is divided by. `maps` (n, h, w)."""
    pixels = float(maps.numel()) if options.averaged_over == "all" else (maps != IGNORED).sum()
    return dict.fromkeys(("main", *(("auxiliary",) if options.auxiliary_weight > 0 else ())), pixels)


def _upsampled(scores: Tensor, images: Tensor) -> Tensor:
    return functional.interpolate(scores.float(), images.shape[-2:], mode="bilinear", align_corners=False)


def _summed(scores: Tensor, truth: Tensor) -> Tensor:
    with torch.autocast(scores.device.type, enabled=False):
        return functional.cross_entropy(scores, truth.long(), ignore_index=IGNORED, reduction="sum")
