"""The blocks of RepLKNet, and the merge of their kernels into one.

Ding et al. 2022 (arXiv 2203.06717), sections 3.2 and 4; names of parameters as in DingXiaoH/RepLKNet-pytorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from timm.layers import DropPath
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


def conv_bn(
    channels: int, out: int, kernel: int, stride: int = 1, groups: int = 1, relu: bool = False
) -> nn.Sequential:
    """Convolution without bias, padded to keep the size (divided by the stride), batch norm, and ReLU if asked for."""
    layers = nn.Sequential()
    layers.add_module("conv", nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False))
    layers.add_module("bn", nn.BatchNorm2d(out))
    if relu:
        layers.add_module("nonlinear", nn.ReLU())
    return layers


def fused(branch: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Kernel and bias (float64) of the single convolution that equals a `conv_bn` in eval mode."""
    conv, bn = cast("nn.Conv2d", branch.conv), cast("nn.BatchNorm2d", branch.bn)
    mean, variance = cast("torch.Tensor", bn.running_mean), cast("torch.Tensor", bn.running_var)
    scale = bn.weight.double() / (variance.double() + bn.eps).sqrt()
    return conv.weight.double() * scale[:, None, None, None], bn.bias.double() - mean.double() * scale


class LargeKernel(nn.Module):
    """Depthwise convolution with batch norm, and optionally a small one in parallel (structural re-parametrisation).

    `small` 0: large kernel alone. `merged`: the one convolution with bias that equals both in eval mode.
    """

    def __init__(self, channels: int, kernel: int, small: int, merged: bool) -> None:
        super().__init__()
        if small and (small > kernel or (kernel - small) % 2):
            raise ValueError(f"small_kernel {small} does not fit centrally in the large kernel {kernel}")
        if merged:
            self.lkb_reparam = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
            return
        self.lkb_origin = conv_bn(channels, channels, kernel, groups=channels)
        if small:
            self.small_conv = conv_bn(channels, channels, small, groups=channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if hasattr(self, "lkb_reparam"):
            return cast("torch.Tensor", self.lkb_reparam(x))
        out: torch.Tensor = self.lkb_origin(x)
        return out + self.small_conv(x) if hasattr(self, "small_conv") else out

    def equivalent(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Kernel (C, 1, k, k) and bias (C,), float64, of the single convolution that equals this in eval mode."""
        if hasattr(self, "lkb_reparam"):
            return self.lkb_reparam.weight.double(), cast("torch.Tensor", self.lkb_reparam.bias).double()
        kernel, bias = fused(self.lkb_origin)
        if hasattr(self, "small_conv"):
            small, small_bias = fused(self.small_conv)
            kernel = kernel + functional.pad(small, [(kernel.shape[-1] - small.shape[-1]) // 2] * 4)
            bias = bias + small_bias
        return kernel, bias

    @torch.no_grad()
    def merge(self) -> None:
        """Replaces the layers with that convolution, `lkb_reparam`, which has the running statistics folded in."""
        if hasattr(self, "lkb_reparam"):
            return
        origin = cast("nn.Conv2d", self.lkb_origin.conv)
        kernel, bias = self.equivalent()
        channels, size = origin.out_channels, origin.kernel_size[0]
        conv = nn.Conv2d(channels, channels, size, padding=size // 2, groups=channels).to(origin.weight)
        conv.weight.copy_(kernel)
        cast("torch.Tensor", conv.bias).copy_(bias)
        self.lkb_reparam = conv
        del self.lkb_origin
        if hasattr(self, "small_conv"):
            del self.small_conv


class LargeKernelBlock(nn.Module):
    """x + drop path of (batch norm, 1x1 to the depthwise width, large kernel, ReLU, 1x1 back)."""

    def __init__(self, channels: int, width: int, kernel: int, small: int, merged: bool, drop_path: float) -> None:
        super().__init__()
        self.prelkb_bn = nn.BatchNorm2d(channels)
        self.pw1 = conv_bn(channels, width, 1, relu=True)
        self.large_kernel = LargeKernel(width, kernel, small, merged)
        self.lk_nonlinear = nn.ReLU()
        self.pw2 = conv_bn(width, channels, 1)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.pw2(self.lk_nonlinear(self.large_kernel(self.pw1(self.prelkb_bn(x)))))
        return cast("torch.Tensor", x + self.drop_path(out))


class FeedForward(nn.Module):
    """x + drop path of (batch norm, 1x1 to the hidden width, GELU, 1x1 back), the paper's ConvFFN."""

    def __init__(self, channels: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.preffn_bn = nn.BatchNorm2d(channels)
        self.pw1 = conv_bn(channels, hidden, 1)
        self.nonlinear = nn.GELU()
        self.pw2 = conv_bn(hidden, channels, 1)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast("torch.Tensor", x + self.drop_path(self.pw2(self.nonlinear(self.pw1(self.preffn_bn(x))))))


class Stage(nn.Module):
    """Alternating large-kernel blocks and feed-forwards: `blocks.0` large kernel, `blocks.1` feed-forward, ..."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.grad_checkpointing = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            # batch norm then sees every batch twice: workers.train undoes the second update of its statistics
            recompute = self.grad_checkpointing and self.training
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        return x
