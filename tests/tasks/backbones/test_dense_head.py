"""Deconvolutions: how many, what they consist of, and how their weights begin."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from tasks.backbones.dense_head import Deconvolutions
from tasks.backbones.features import feature_info, feature_maps


@pytest.mark.parametrize(("stride", "count"), [(4, 0), (8, 1), (16, 2), (32, 3), (64, 4)])
def test_their_number_follows_from_the_stride(stride: int, count: int) -> None:
    part = Deconvolutions(20, stride)
    assert sum(isinstance(module, nn.ConvTranspose2d) for module in part.modules()) == part.count == count
    out = part(torch.rand(2, 20, 3, 2))
    assert out.shape == (2, part.out_channels, 3 * 2**count, 2 * 2**count)
    assert part.out_channels == (32 if count else 20)


def test_each_has_kernel_and_stride_two_without_bias_then_norm_and_relu() -> None:
    part = Deconvolutions(20, 32, filters=48)
    assert [type(layer) for layer in part.layers] == [nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU] * 3
    for inputs, deconvolution in zip((20, 48, 48), part.layers[::3], strict=True):
        assert isinstance(deconvolution, nn.ConvTranspose2d)
        assert deconvolution.weight.shape == (inputs, 48, 2, 2)
        assert deconvolution.stride == (2, 2)
        assert deconvolution.bias is None
        assert 0.0009 < deconvolution.weight.std() < 0.0011
        assert abs(deconvolution.weight.mean()) < 1e-4


@pytest.mark.parametrize("stride", [0, 1, 2, 3, 12, 14, 24])
def test_a_stride_that_does_not_lead_to_four_is_refused(stride: int) -> None:
    with pytest.raises(
        ValueError, match=f"do not lead from stride {stride} to stride 4: take a feature map of stride 4"
    ):
        Deconvolutions(20, stride)


@pytest.mark.parametrize(("level", "count"), [(-1, 3), (2, 2)])
def test_a_swins_last_map_takes_three_and_its_third_stage_two(level: int, count: int) -> None:
    backbone = timm.create_model(
        "swinv2_tiny_window8_256", img_size=64, window_size=2, embed_dim=16, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2)
    ).eval()
    info = feature_info(backbone)[level]
    part = Deconvolutions(info.channels, info.stride)
    assert part.count == count
    with torch.no_grad():
        assert part(feature_maps(backbone, torch.rand(1, 3, 64, 64), [level])[0]).shape == (1, 32, 16, 16)
