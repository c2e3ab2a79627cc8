"""RepLKNet, the large-kernel network of the paper's appendix B, which timm lacks.

Ding et al. 2022 (arXiv 2203.06717). Parameters have the names of their code (DingXiaoH/RepLKNet-pytorch), so that its
files need no renaming. Importing this module registers `replknet_31b` and `replknet_31b_mim` with timm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from timm.layers import calculate_drop_path_rates
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import nn

from tasks.backbones.large_kernel_conv import FeedForward, LargeKernel, LargeKernelBlock, Stage, conv_bn

ENTRY_CHANNELS = 128
"""Channels of the "high-dimensional space" in front of the stem (appendix B). The paper gives no number; we take that
of the stem, and of the tokens that SimMIM masks in SwinV2-B."""


class RepLKNet(nn.Module):
    """Stem, stages of large-kernel blocks with transitions between them, batch norm, average pool, linear head.

    Input (B, in_chans, H, W); features (B, channels[-1], H/32, W/32) with four stages. The defaults are RepLKNet-31B:
    79.86 M weights with `small_kernel` 5, 79.54 M without (0). Weights start as PyTorch's layers do, as in the
    reference code.
    """

    def __init__(
        self,
        layers: Sequence[int] = (2, 2, 18, 2),
        channels: Sequence[int] = (128, 256, 512, 1024),
        kernels: Sequence[int] = (31, 29, 27, 13),
        small_kernel: int = 5,
        merged: bool = False,
        dw_ratio: float = 1.0,
        ffn_ratio: float = 4.0,
        entry_channels: int = 0,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        """`merged`: with the small kernels folded into the large ones (`merge`), for files with such weights.

        `small_kernel`: of the parallel branch; 0: no such branch (timm.create_model drops arguments that are None).
        `entry_channels`: of the 1x1 convolution in front of the stem, where SimMIM masks (appendix B); 0: none.
        Raises ValueError if the lists differ in length or a kernel is even.
        """
        super().__init__()
        if not len(layers) == len(channels) == len(kernels):
            raise ValueError(f"RepLKNet: layers {layers}, channels {channels}, kernels {kernels} differ in length")
        if any(kernel % 2 == 0 for kernel in (*kernels, small_kernel or 1)):
            raise ValueError(f"RepLKNet: kernels {kernels} and small_kernel {small_kernel} must be odd")
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = channels[-1]
        self.entry_channels = entry_channels
        self.entry = nn.Conv2d(in_chans, entry_channels, 1) if entry_channels else nn.Identity()
        width = channels[0]
        self.stem = nn.Sequential(
            conv_bn(entry_channels or in_chans, width, 3, stride=2, relu=True),
            conv_bn(width, width, 3, groups=width, relu=True),
            conv_bn(width, width, 1, relu=True),
            conv_bn(width, width, 3, stride=2, groups=width, relu=True),
        )
        rates = calculate_drop_path_rates(drop_path_rate, list(layers), stagewise=True)
        self.stages = nn.ModuleList()
        self.transitions = nn.ModuleList()
        self.feature_info: list[dict[str, Any]] = []
        for index, (width, kernel) in enumerate(zip(channels, kernels, strict=True)):
            if index:
                self.transitions.append(
                    nn.Sequential(
                        conv_bn(channels[index - 1], width, 1, relu=True),
                        conv_bn(width, width, 3, stride=2, groups=width, relu=True),
                    )
                )
            blocks: list[nn.Module] = []
            for rate in rates[index]:
                blocks.append(LargeKernelBlock(width, int(width * dw_ratio), kernel, small_kernel, merged, rate))
                blocks.append(FeedForward(width, int(width * ffn_ratio), rate))
            self.stages.append(Stage(blocks))
            self.feature_info.append({"num_chs": width, "reduction": 4 * 2**index, "module": f"stages.{index}"})
        self.norm: nn.Module = nn.BatchNorm2d(channels[-1])
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Maps images (B, 3, H, W) to the high-dimensional space (B, entry_channels, H, W), where SimMIM masks."""
        if not self.entry_channels:
            raise ValueError(
                "this RepLKNet has no entry in front of its stem: set entry_channels (replknet_31b_mim: 128)"
            )
        return cast("torch.Tensor", self.entry(images))

    def forward_embedded(self, x: torch.Tensor) -> torch.Tensor:
        """Features (B, num_features, H/32, W/32) after the last batch norm. `x`: result of `embed`."""
        x = self.stem(x)
        for index, stage in enumerate(self.stages):
            x = stage(self.transitions[index - 1](x) if index else x)
        return cast("torch.Tensor", self.norm(x))

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Features (B, num_features, H/32, W/32) of images, after the last batch norm."""
        return self.forward_embedded(self.entry(x))

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        x = self.head_drop(x.mean((2, 3)) if self.global_pool == "avg" else x)
        return x if pre_logits else cast("torch.Tensor", self.head(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: torch.Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[torch.Tensor] | tuple[torch.Tensor, list[torch.Tensor]]:
        """timm's interface: maps (NCHW) of the stages in `indices`, and the features unless `intermediates_only`.

        `norm`: applies the last batch norm to the last stage's map (no other has its number of channels).
        """
        if output_fmt != "NCHW":
            raise ValueError(f"RepLKNet returns maps as NCHW, not {output_fmt}")
        taken, last = feature_take_indices(len(self.stages), indices)
        maps = []
        x = self.stem(self.entry(x))
        for index, stage in enumerate(self.stages[: last + 1] if stop_early else self.stages):
            x = stage(self.transitions[index - 1](x) if index else x)
            if index in taken:
                maps.append(self.norm(x) if norm and index == len(self.stages) - 1 else x)
        if intermediates_only:
            return maps
        return (self.norm(x) if index == len(self.stages) - 1 else x), maps

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """timm's interface: drops the stages after the last of `indices` (and then norm and head, which no longer fit),
        and norm or head if asked for. Returns the indices of the stages."""
        taken, last = feature_take_indices(len(self.stages), indices)
        cut = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        self.transitions = self.transitions[:last]
        if cut:
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
        if prune_norm or cut:
            self.norm = nn.Identity()
        if prune_head or cut:
            self.reset_classifier(0)
        return cast("list[int]", taken)

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replaces the head; 0 classes: none. `global_pool`: avg, or empty for none (then without a head)."""
        if global_pool is not None:
            if global_pool not in ("avg", ""):
                raise ValueError(f"RepLKNet: global_pool {global_pool!r} is neither avg nor empty")
            self.global_pool = global_pool
        if num_classes and not self.global_pool:
            raise ValueError("RepLKNet: a head needs global_pool avg")
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> Callable[[str], float]:
        """timm's levels for layer decay, from the input on: 13 and the head's, as in the reference (optim_factory.py).

        Level 0 is the stem with the entry. Each further level has two large-kernel blocks with their feed-forwards; a
        transition belongs to the level before it, norm and head to the last. `coarse`: one level per stage.
        """
        halves = [1 if coarse else -(-len(cast("Stage", stage).blocks) // 4) for stage in self.stages]

        def level(name: str) -> float:
            part, index, *rest = name.split(".")
            if part in ("entry", "stem"):
                return 0
            if part == "transitions":
                return sum(halves[: int(index) + 1])
            if part == "stages":
                return 1 + sum(halves[: int(index)]) + (0 if coarse else int(rest[1]) // 4)
            return float("inf")

        return level

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """No names: as in the reference code, only parameters of one dimension have no weight decay."""
        return set()

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Makes blocks recompute their activations in the backward pass instead of storing them."""
        for stage in self.stages:
            cast("Stage", stage).grad_checkpointing = enable

    def merge(self) -> None:
        """Structural re-parametrisation: every large kernel becomes one convolution with bias, for eval mode."""
        for module in self.modules():
            if isinstance(module, LargeKernel):
                module.merge()


default_cfgs = generate_default_cfgs(
    {
        name: {
            "url": "",
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": (7, 7),
            "crop_pct": 0.875,
            "interpolation": "bicubic",
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
            "first_conv": first,
            "classifier": "head",
        }
        for name, first in {"replknet_31b": "stem.0.conv", "replknet_31b_mim": "entry"}.items()
    }
)


def _create(variant: str, pretrained: bool, **arguments: Any) -> nn.Module:
    features = {"out_indices": (0, 1, 2, 3), "feature_cls": "getter"}
    return cast("nn.Module", build_model_with_cfg(RepLKNet, variant, pretrained, feature_cfg=features, **arguments))


@register_model
def replknet_31b(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """RepLKNet-31B with parallel 5x5 kernels, for supervised training."""
    return _create("replknet_31b", pretrained, **arguments)


@register_model
def replknet_31b_mim(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """RepLKNet-31B as in appendix B: no small kernels, and a 1x1 convolution in front of the stem."""
    return _create("replknet_31b_mim", pretrained, **{"small_kernel": 0, "entry_channels": ENTRY_CHANNELS, **arguments})
