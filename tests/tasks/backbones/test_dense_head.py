"""Deconvolutions: how many, what they consist of, and how their weights begin."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from tasks.backbones.dense_head import Deconvolutions, init_dense_head
from tasks.backbones.features import feature_info, feature_maps


@pytest.mark.parametrize(("stride", "count"), [(4, 0), (8, 1), (16, 2), (32, 3), (64, 4)])
def test_their_number_follows_from_the_stride(stride: int, count: int) -> None:
    part = Deconvolutions(channels=20, stride=stride)
    assert sum(isinstance(module, nn.ConvTranspose2d) for module in part) == count
    out = part(torch.rand(2, 20, 3, 2))
    assert out.shape == (2, part.channels, 3 * 2**count, 2 * 2**count)
    assert part.channels == (32 if count else 20)


def test_each_has_kernel_and_stride_two_without_bias_then_norm_and_relu() -> None:
    kinds = [nn.ConvTranspose2d, nn.BatchNorm2d, nn.ReLU]
    part = Deconvolutions(channels=20, stride=32, filters=48)
    assert [type(module) for module in part] == kinds * 3
    for inputs, deconvolution in zip((20, 48, 48), list(part)[::3], strict=True):
        assert isinstance(deconvolution, nn.ConvTranspose2d)
        assert deconvolution.weight.shape == (inputs, 48, 2, 2)
        assert deconvolution.stride == (2, 2)
        assert deconvolution.bias is None


@pytest.mark.parametrize("stride", [0, 1, 2, 3, 12, 14, 24])
def test_a_stride_that_does_not_lead_to_four_is_refused(stride: int) -> None:
    with pytest.raises(ValueError, match=f"a feature map of stride {stride} does not reach stride 4 by doubling"):
        Deconvolutions(channels=20, stride=stride)


def test_weights_begin_as_in_the_public_code() -> None:
    head = nn.Sequential(Deconvolutions(channels=64, stride=16), nn.Conv2d(32, 64, 3))
    head[1].bias.data.fill_(3)
    init_dense_head(head)
    for module in head.modules():
        if isinstance(module, nn.ConvTranspose2d | nn.Conv2d):
            assert 0.0009 < module.weight.std() < 0.0011
            assert abs(module.weight.mean()) < 1e-4
        if isinstance(module, nn.BatchNorm2d):
            assert torch.equal(module.weight, torch.ones(32))
    assert not head[1].bias.any()


@pytest.mark.parametrize(("level", "count"), [(-1, 3), (2, 2)])
def test_a_swins_last_map_takes_three_and_its_third_stage_two(level: int, count: int) -> None:
    backbone = timm.create_model(
        "swinv2_tiny_window8_256", img_size=64, window_size=2, embed_dim=16, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2)
    ).eval()
    info = feature_info(backbone)[level]
    part = Deconvolutions(info.channels, info.stride)
    assert sum(isinstance(module, nn.ConvTranspose2d) for module in part) == count
    with torch.no_grad():
        assert part(feature_maps(backbone, torch.rand(1, 3, 64, 64), [level])[0]).shape == (1, 32, 16, 16)
