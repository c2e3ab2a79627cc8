"""Boxes, UDP matrices and warps against the public code's numbers, OpenCV's pixels and plain loops."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tasks.datasets.transforms import Size
from tasks.pose import boxes
from tasks.pose.boxes import Floats

DATA = Path(__file__).parents[2] / "data" / "pose"
GOLDEN = json.loads((DATA / "udp_warps.json").read_text())
SIZE = (256, 192)


def matrix_of(case: dict[str, Any]) -> Floats:
    return boxes.input_matrices(case["center"], case["scale_pixels"], case["rot_deg"], size_of(case))


def size_of(case: dict[str, Any]) -> Size:
    width, height = case["output_size_wh"]
    return height, width


def some_matrices(count: int, size: Size, mirrored: bool = False) -> Floats:
    """Boxes in and around an image of about 40 x 48, at any angle."""
    draws = np.random.default_rng(5)
    centres, scales = draws.uniform(0, 45, (count, 2)), draws.uniform(15, 60, (count, 2))
    return boxes.input_matrices(centres, scales, draws.uniform(-180, 180, count), size, np.full(count, mirrored))


def some_image(height: int = 40, width: int = 48, seed: int = 1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, height, width)).astype(np.uint8))


@pytest.mark.parametrize("case", GOLDEN["cases"])
def test_matrix_and_points_are_those_of_both_public_codes(case: dict[str, Any]) -> None:
    matrix = matrix_of(case)
    np.testing.assert_allclose(matrix, case["matrix"], rtol=1e-6, atol=1e-4)
    moved = boxes.warped_points(np.array(case["points"]), matrix)
    np.testing.assert_allclose(moved, case["warped"], rtol=1e-6, atol=2e-4)
    np.testing.assert_allclose(moved, case["udp_repo_rotate_points"], rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(boxes.inverse(matrix), case["udp_repo_matrix_dst_to_src"], rtol=1e-5, atol=1e-4)


def test_all_cases_as_one_batch_are_the_same_in_both_directions() -> None:
    cases = [case for case in GOLDEN["cases"] if case["output_size_wh"] == [192, 256]]
    fields = ([case[name] for case in cases] for name in ("center", "scale_pixels", "rot_deg"))
    matrices = boxes.input_matrices(*fields, SIZE)
    np.testing.assert_allclose(matrices, np.stack([matrix_of(case) for case in cases]), rtol=1e-12, atol=1e-12)
    points = np.array([case["points"] for case in cases])
    back = boxes.warped_points(boxes.warped_points(points, matrices), boxes.inverse(matrices))
    np.testing.assert_allclose(back, points, atol=1e-9)
    on_device = boxes.warped_points(torch.from_numpy(points), torch.from_numpy(matrices))
    np.testing.assert_allclose(on_device.numpy(), boxes.warped_points(points, matrices), atol=1e-12)


def test_centre_and_scale_of_a_box_are_the_public_codes() -> None:
    golden = GOLDEN["bbox_to_center_scale"]
    corners = np.array(golden["bbox_xyxy"])
    given = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], -1)
    centres, scales = boxes.centre_and_scale(given, (256, 256), golden["padding"])
    np.testing.assert_allclose(centres, golden["center"])
    np.testing.assert_allclose(scales, np.max(golden["scale"], -1, keepdims=True).repeat(2, 1))


def test_the_scale_covers_the_padded_box_with_the_aspect_of_the_input() -> None:
    centre, scale = boxes.centre_and_scale([10, 20, 60, 40], SIZE)
    assert centre.tolist() == [40, 40]
    assert scale.tolist() == [75, 100]  # the width decides
    assert boxes.centre_and_scale([10, 20, 30, 80], SIZE)[1].tolist() == [75, 100]  # the height decides


@pytest.mark.parametrize(
    "wrong", [[5, 5, 0, 10], [5, 5, 10, 0], [5, 5, -3, 10], [5, math.nan, 3, 3], [5, 5, math.inf, 3]]
)
def test_a_box_without_area_is_refused(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match=r"box \[5.*has no area, one of 1 such boxes"):
        boxes.centre_and_scale([[1, 1, 10, 10], wrong], SIZE)


def test_a_box_reaches_from_the_first_pixel_of_the_input_to_its_last() -> None:
    matrix = boxes.input_matrices([30, 50], [75, 100], 0, SIZE)
    corners = boxes.warped_points(np.array([[30 - 37.5, 0], [30 + 37.5, 100]]), matrix)
    np.testing.assert_allclose(corners, [[0, 0], [191, 255]], atol=1e-12)


def test_rotation_turns_clockwise() -> None:
    matrix = boxes.input_matrices([50, 50], [101, 101], 90, (102, 102))
    np.testing.assert_allclose(boxes.warped_points(np.array([[60.0, 50.0]]), matrix), [[50.5, 60.5]], atol=1e-12)


def test_a_mirrored_input_is_the_input_of_the_mirrored_image_with_the_other_sense_of_rotation() -> None:
    image, width = some_image().float(), 48
    ours = boxes.warped_images(
        image[None], boxes.input_matrices([20, 12], [30, 25], 33, (20, 24), True)[None], (20, 24)
    )
    theirs = boxes.input_matrices([width - 1 - 20, 12], [30, 25], -33, (20, 24))
    torch.testing.assert_close(
        ours, boxes.warped_images(image.flip(-1)[None], theirs[None], (20, 24)), rtol=0, atol=0.02
    )


def test_warps_are_opencvs_up_to_its_rounding() -> None:
    with np.load(DATA / "cv2_warps.npz", allow_pickle=False) as golden:
        image = torch.from_numpy(golden["image"]).permute(2, 0, 1)
        matrices, wanted = golden["matrices"], golden["warped_float"].transpose(0, 3, 1, 2)
        whole = golden["warped"].transpose(0, 3, 1, 2)
    size = (wanted.shape[2], wanted.shape[3])
    ours = boxes.warped_images(image.expand(len(matrices), -1, -1, -1), matrices, size).numpy()
    np.testing.assert_allclose(ours, wanted, atol=0.05)
    np.testing.assert_allclose(ours, whole, atol=0.55)


def plain_warp(image: Floats, matrix: Floats, size: Size) -> Floats:
    """Bilinear, zero outside, in loops."""
    channels, height, width = image.shape
    out = np.zeros((channels, *size))
    for row in range(size[0]):
        for column in range(size[1]):
            x, y = boxes.warped_points(np.array([[column, row]], dtype=float), boxes.inverse(matrix))[0]
            for i in (math.floor(y), math.floor(y) + 1):
                for j in (math.floor(x), math.floor(x) + 1):
                    if 0 <= i < height and 0 <= j < width:
                        out[:, row, column] += image[:, i, j] * (1 - abs(x - j)) * (1 - abs(y - i))
    return out


@pytest.mark.parametrize(("height", "width"), [(40, 48), (7, 1), (1, 1)])
def test_warps_are_those_of_a_plain_loop(height: int, width: int) -> None:
    image, size = some_image(height, width), (10, 14)
    matrices = some_matrices(4, size, mirrored=True)
    ours = boxes.warped_images(image.expand(4, -1, -1, -1), matrices, size)
    assert ours.dtype == torch.float32
    wanted = np.stack([plain_warp(image.numpy().astype(float), matrix, size) for matrix in matrices])
    np.testing.assert_allclose(ours.numpy(), wanted, atol=0.02)


def test_autocast_changes_no_warp() -> None:
    image, size = some_image()[None], (10, 14)
    matrices = some_matrices(1, size)
    plain = boxes.warped_images(image, matrices, size)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(boxes.warped_images(image, matrices, size), plain)


def test_images_of_several_sizes_warp_in_one_batch_as_each_alone() -> None:
    images, size = [some_image(40, 48), some_image(20, 60, 2), some_image(50, 30, 3)], (10, 14)
    matrices = some_matrices(3, size)
    together = boxes.warped_images(boxes.padded(images), matrices, size)
    for i, image in enumerate(images):
        alone = boxes.warped_images(image[None], matrices[i : i + 1], size)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=0.02)


def test_the_window_of_an_input_holds_all_that_the_warp_reads() -> None:
    image, size = some_image(), (10, 14)
    smaller = 0
    for matrix in some_matrices(20, size):
        window = boxes.source_window(boxes.inverse(matrix), size, (40, 48))
        cut = image[:, window[0], window[1]]
        smaller += cut.numel() < image.numel()
        ours = boxes.warped_images(cut[None], boxes.in_window(matrix, window)[None], size)
        torch.testing.assert_close(ours, boxes.warped_images(image[None], matrix[None], size), rtol=0, atol=0.02)
    assert smaller > 3


@pytest.mark.parametrize("centre", [[-500, 20], [500, 20], [20, -500], [20, 500]])
def test_a_box_beside_the_image_is_black(centre: list[float]) -> None:
    matrix = boxes.input_matrices(centre, [30, 30], 0, (10, 10))
    window = boxes.source_window(boxes.inverse(matrix), (10, 10), (40, 48))
    cut = some_image()[:, window[0], window[1]]
    assert cut.numel() > 0
    assert not boxes.warped_images(cut[None], boxes.in_window(matrix, window)[None], (10, 10)).any()
