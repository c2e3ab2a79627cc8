"""The pose head: the public code's maps from its weights, and the size of maps for every stride."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tasks.pose.head import PoseHead

DATA = Path(__file__).parents[2] / "data" / "pose"


def test_maps_are_the_public_codes() -> None:
    head = PoseHead(in_channels=64, stride_in=32, joints=17).eval()
    with np.load(DATA / "head.npz", allow_pickle=False) as file:
        weights = {name: torch.from_numpy(file[name]) for name in file.files if name.startswith("w.")}
        features, wanted = torch.from_numpy(file["features"]), torch.from_numpy(file["heatmaps"])
    renamed = {
        name.removeprefix("w.").replace("deconv_layers", "deconvolutions.layers").replace("final_layer", "last"): value
        for name, value in weights.items()
    }
    counted = {name: value for name, value in head.state_dict().items() if name.endswith("num_batches_tracked")}
    head.load_state_dict(renamed | counted)
    with torch.no_grad():
        torch.testing.assert_close(head(features), wanted, rtol=0, atol=1e-5)


def test_a_map_for_each_joint_at_a_quarter_of_the_image_whatever_the_stride() -> None:
    for stride in (4, 8, 16, 32):
        maps = PoseHead(in_channels=24, stride_in=stride, joints=14)(torch.rand(2, 24, 128 // stride, 96 // stride))
        assert maps.shape == (2, 14, 32, 24)


def test_a_fresh_head_begins_near_zero_and_every_weight_learns() -> None:
    torch.manual_seed(0)
    head = PoseHead(in_channels=24, stride_in=16, joints=17)
    maps = head(torch.randn(2, 24, 4, 4))
    assert maps.abs().max() < 0.1
    maps.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in head.parameters())
    assert not head.last.bias.any()
    assert 0.0009 < head.last.weight.std() < 0.0011
