"""Targets, loss and decoding against the public code, and what UDP promises: nothing is lost on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from tasks.pose import heat_maps
from tasks.pose.joints import COCO

DATA = Path(__file__).parents[2] / "data" / "pose"
INPUT, MAP = (256, 256), (64, 64)


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(DATA / "heat_maps.npz", allow_pickle=False) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files if name != "settings"}


def close(value: Tensor, wanted: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(value, wanted, rtol=0, atol=tolerance)


def target_of(x: float, y: float, map_size: tuple[int, int] = MAP, sigma: float = 2.0) -> tuple[Tensor, float]:
    """Map and weight of one labelled joint of an input four times as large as the map."""
    size = (4 * map_size[0], 4 * map_size[1])
    maps, weights = heat_maps.targets(torch.tensor([[[x, y]]]), torch.ones(1, 1), size, map_size, sigma)
    return maps, weights.item()


def test_targets_and_weights_are_the_public_codes(golden: dict[str, Tensor]) -> None:
    maps, weights = heat_maps.targets(golden["keypoints"], golden["visible"], INPUT, MAP, sigma=2)
    close(maps, golden["targets"], 1e-5)
    assert torch.equal(weights, golden["target_weights"])


def test_targets_and_places_of_an_upright_input_are_the_public_codes(golden: dict[str, Tensor]) -> None:
    joints = golden["keypoints_192x256"][None]
    maps, weights = heat_maps.targets(joints, torch.ones(joints.shape[:2]), (256, 192), (64, 48))
    close(maps[0], golden["targets_192x256"], 1e-5)
    assert weights.min() == 1
    places, _ = heat_maps.decoded(maps, (256, 192), blur=11)
    close(places[0], golden["decoded_192x256_correct"], 1e-3)


def test_a_joint_weighs_nothing_once_its_gaussian_does_not_reach_the_map() -> None:
    beyond = 64 + 6 - 0.5  # where the square of 13 pixels has left the map, in pixels of the map
    unit = 255 / 63
    last, weight = target_of((beyond - 0.01) * unit, 100)
    assert weight == 1
    assert 0 < last.max() < 0.02
    gone, weight = target_of((beyond + 0.01) * unit, 100)
    assert weight == 0
    assert not gone.any()


def test_above_and_left_a_joint_keeps_its_weight_a_little_longer_as_in_the_public_code() -> None:
    unit = 255 / 63
    empty, weight = target_of(100, -8 * unit)
    assert weight == 1
    assert not empty.any()
    assert target_of(100, -8.6 * unit)[1] == 0


def test_a_joint_without_label_has_no_target_and_no_weight() -> None:
    maps, weights = heat_maps.targets(torch.full((1, 2, 2), 100.0), torch.tensor([[0.0, 1.0]]), INPUT, MAP)
    assert weights.tolist() == [[0, 1]]
    assert not maps[0, 0].any()
    assert maps[0, 1].max() > 0.9


def test_loss_is_the_public_codes(golden: dict[str, Tensor]) -> None:
    pair = golden["pred"], golden["targets"][:2], golden["target_weights"][:2]
    close(heat_maps.loss(*pair, factor=0.5), golden["joints_mse_half_udp"], 1e-9)
    close(heat_maps.loss(*pair, factor=1), 2 * golden["joints_mse_half_udp"], 1e-9)


def test_a_joint_of_weight_zero_teaches_nothing_but_counts_in_the_mean() -> None:
    predicted = torch.ones(1, 2, 4, 4, requires_grad=True)
    value = heat_maps.loss(predicted, torch.zeros(1, 2, 4, 4), torch.tensor([[1.0, 0.0]]), factor=1)
    assert value.item() == 0.5
    value.backward()
    assert predicted.grad is not None
    assert not predicted.grad[0, 1].any()
    assert predicted.grad[0, 0].min() > 0


def test_refined_places_and_scores_are_the_public_codes(golden: dict[str, Tensor]) -> None:
    places, scores = heat_maps.decoded(golden["pred"], INPUT, blur=11)
    close(places, golden["decoded_correct"], 1e-3)
    assert torch.equal(scores, golden["scores"])
    clean, _ = heat_maps.decoded(golden["targets"][:1], INPUT, blur=11)
    close(clean[0], golden["clean_decoded_correct"], 1e-3)


def test_the_original_udp_code_differs_by_its_smaller_blur_only(golden: dict[str, Tensor]) -> None:
    sure = golden["visible_inside_mask"].bool()
    theirs = golden["udp_repo_preds_input_space"]
    close(heat_maps.decoded(golden["pred"], INPUT, blur=11)[0][sure], theirs[sure], 0.11)


@pytest.mark.parametrize("height", [1.0, 0.01, 1.03e-3])
def test_refinement_is_that_of_a_plain_computation_for_faint_maps_too(height: float) -> None:
    map_ = target_of(101.0, 138.5)[0][0, 0].double().numpy() * height
    blurred = ndimage.gaussian_filter(map_, sigma=2.0, radius=5, mode="constant")
    logs = np.log(np.clip(blurred * map_.max() / blurred.max(), 1e-3, 50))
    y, x = np.unravel_index(map_.argmax(), map_.shape)
    near = logs[y - 1 : y + 2, x - 1 : x + 2]
    slope = np.array([near[1, 2] - near[1, 0], near[2, 1] - near[0, 1]]) / 2
    mixed = (near[2, 2] + near[0, 0] + 2 * near[1, 1] - near[1, 2] - near[1, 0] - near[2, 1] - near[0, 1]) / 2
    curves = near[1, 2] + near[1, 0] - 2 * near[1, 1], near[2, 1] + near[0, 1] - 2 * near[1, 1]
    step = np.linalg.solve([[curves[0], mixed], [mixed, curves[1]]], slope)
    places, _ = heat_maps.decoded(torch.from_numpy(map_)[None, None], INPUT, blur=11)
    close(places[0, 0].double(), torch.from_numpy((np.array([x, y]) - step) * 255 / 63), 1e-3)


def test_without_refinement_a_place_is_the_highest_pixel(golden: dict[str, Tensor]) -> None:
    places, scores = heat_maps.decoded(golden["pred"][:1], INPUT, blur=None)
    close(places[0], golden["argmax_xy_pred0"] * (255 / 63), 1e-4)
    assert torch.equal(scores, golden["scores"][:1])


@pytest.mark.parametrize(
    ("map_size", "sigma", "tolerance"), [((64, 64), 2.0, 0.004), ((96, 72), 3.0, 0.004), ((16, 16), 1.0, 0.05)]
)
def test_what_targets_encode_decoding_gives_back(map_size: tuple[int, int], sigma: float, tolerance: float) -> None:
    size = (4 * map_size[0], 4 * map_size[1])
    margin = 4 * (3 * sigma + heat_maps.blur_side(sigma) // 2)
    inner = torch.tensor([size[1] - 1 - 2 * margin, size[0] - 1 - 2 * margin]).clamp(min=1)
    joints = margin + torch.rand(1, 40, 2, generator=torch.Generator().manual_seed(0)) * inner
    maps, _ = heat_maps.targets(joints, torch.ones(1, 40), size, map_size, sigma)
    places, scores = heat_maps.decoded(maps, size, heat_maps.blur_side(sigma))
    close(places, joints, tolerance)
    assert scores.min() > 0.77


def test_a_joint_in_a_corner_is_found() -> None:
    for x, y in ((0.0, 0.0), (255.0, 0.0), (0.0, 255.0), (255.0, 255.0)):
        places, scores = heat_maps.decoded(target_of(x, y)[0], INPUT, blur=11)
        close(places[0, 0], torch.tensor([x, y]), 6.0)
        assert scores.item() == 1


def test_a_map_without_a_value_above_zero_has_no_score_and_a_finite_place() -> None:
    places, scores = heat_maps.decoded(torch.stack([torch.zeros(3, 16, 16), -torch.rand(3, 16, 16)]), (64, 64), blur=11)
    assert scores.max() <= 0
    assert places.isfinite().all()
    assert places.min() >= 0
    assert places.max() <= 63


def test_maps_in_half_precision_are_decoded_in_single(golden: dict[str, Tensor]) -> None:
    half = golden["pred"].half()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        places, scores = heat_maps.decoded(half, INPUT, blur=11)
    assert places.dtype == scores.dtype == torch.float32
    close(places, heat_maps.decoded(half.float(), INPUT, blur=11)[0], 0)


@pytest.mark.parametrize(("sigma", "side"), [(2, 11), (3, 17), (1, 3), (0.5, 3), (1.5, 7)])
def test_the_blur_follows_sigma(sigma: float, side: int) -> None:
    assert heat_maps.blur_side(sigma) == side


def test_a_blur_without_a_middle_is_refused() -> None:
    with pytest.raises(ValueError, match="a blur of 4 pixels has no middle"):
        heat_maps.decoded(torch.rand(1, 1, 8, 8), (32, 32), blur=4)


def test_a_map_of_one_row_is_refused() -> None:
    with pytest.raises(ValueError, match="heat maps of 1 x 8 pixels cannot place a joint"):
        heat_maps.units((4, 32), (1, 8))


def test_the_flip_test_averages_left_with_right_without_a_shift() -> None:
    order = COCO.flip_order
    joints = 30 + torch.rand(2, 17, 2, generator=torch.Generator().manual_seed(1)) * 190
    mirrored = torch.stack([255 - joints[..., 0], joints[..., 1]], -1)[:, order]
    maps, _ = heat_maps.targets(joints, torch.ones(2, 17), INPUT, MAP)
    of_mirrored, _ = heat_maps.targets(mirrored, torch.ones(2, 17), INPUT, MAP)
    close(heat_maps.flip_averaged(maps, of_mirrored, order), maps, 0.02)
    close(heat_maps.flip_averaged(maps, torch.zeros_like(maps), order), maps / 2, 1e-7)
    assert (heat_maps.flip_averaged(maps, of_mirrored, list(range(17))) - maps).abs().max() > 0.4
