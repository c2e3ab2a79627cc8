"""Rooms: the depth of a plane by its formula, the layout on disk, and the real stereo photograph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.datasets.depth_pairs.dataset import SCENE_ROOMS
from tasks.datasets.scenes import rooms
from tasks.datasets.scenes.rooms import FOCAL, SIDE, Camera, Plane, nearest


def camera(pitch: float = 0.0, yaw: float = 0.0) -> Camera:
    return Camera(np.array([0.0, 1.5, 0.0]), rooms._rotation(yaw, pitch, 0.0))


def plane(normal: tuple[float, float, float], distance: float, axes: list[list[float]]) -> Plane:
    return Plane(np.array(normal), distance, np.array(axes), np.full(2, -50.0), np.full(2, 50.0))


def test_the_floor_has_the_depth_of_its_formula() -> None:
    """A camera 1.5 m above a floor that looks ahead: a row y pixels below the middle is 1.5 * FOCAL / y away."""
    floor = plane((0, 1, 0), 0, [[1, 0, 0], [0, 0, 1]])
    depth, which = nearest([floor], camera().position, camera().rays(1))
    below = np.arange(SIDE) + 0.5 - SIDE / 2
    far = 1.5 * FOCAL / below
    seen = (below > 0) & (far < 40)
    assert np.allclose(depth[seen], far[seen][:, None])
    assert np.isinf(depth[below < 0]).all()
    assert (which[seen] == 0).all()


@pytest.mark.parametrize(("pitch", "yaw"), [(0.0, 0.0), (0.2, 0.0), (0.0, 0.3), (0.25, -0.4)])
def test_the_wall_ahead_has_the_depth_of_its_formula(pitch: float, yaw: float) -> None:
    """Depth is along the camera's axis: for a wall 5 m ahead, 5 / (the ray's part along the world's z)."""
    wall = plane((0, 0, 1), 5, [[1, 0, 0], [0, 1, 0]])
    eye = camera(pitch, yaw)
    depth, _ = nearest([wall], eye.position, eye.rays(1))
    x, y = np.meshgrid(*[(np.arange(SIDE) + 0.5 - SIDE / 2) / FOCAL] * 2)
    along = -np.sin(yaw) * x + np.cos(yaw) * (np.cos(pitch) - np.sin(pitch) * y)
    assert np.allclose(depth, 5 / along)
    points = eye.position + depth[..., None] * eye.rays(1)
    assert np.allclose((points - eye.position) @ eye.rotation[2], depth)


def test_what_is_nearer_hides_what_is_behind_and_ends_where_it_ends() -> None:
    wall = plane((0, 0, 1), 5, [[1, 0, 0], [0, 1, 0]])
    board = Plane(np.array([0.0, 0, 1]), 3.0, np.eye(3)[:2], np.array([-0.5, 1.0]), np.array([0.5, 2.0]))
    depth, which = nearest([wall, board], camera().position, camera().rays(1))
    assert set(np.unique(depth.round(6))) == {3.0, 5.0}
    assert ((depth == 3) == (which == 1)).all()
    side = FOCAL / 3  # pixels of one metre at 3 metres
    assert abs((which == 1).sum() - side**2) < 4 * side


def test_a_room_is_the_same_on_every_call_and_closed() -> None:
    for index in range(4):
        first, again = rooms.room("val", index), rooms.room("val", index)
        assert np.array_equal(first.pixels, again.pixels)
        assert np.array_equal(first.depth, again.depth)
        assert 0.3 < first.depth.min() < first.depth.max() < 14
        assert first.pixels.std() > 10
    assert not np.array_equal(first.pixels, rooms.room("test", index).pixels)


def test_rooms_are_what_version_1_made() -> None:
    """Raise VERSIONS in made.py when this changes. Coarse, since JPEG and rounding differ a little between machines."""
    made = [rooms.room("val", index) for index in range(3)]
    found = np.array([[room.pixels.mean(), room.depth.mean()] for room in made])
    assert (np.abs(found - [[141.3, 3.007], [163.3, 4.965], [160.9, 4.622]]) < [1, 0.01]).all()


def test_the_camera_is_upright_and_its_axes_are_at_right_angles() -> None:
    right, down, forward = rooms._rotation(0.3, 0.2, 0.0)
    assert np.allclose(rooms._rotation(0.3, 0.2, 0.1) @ rooms._rotation(0.3, 0.2, 0.1).T, np.eye(3))
    assert right[1] == 0
    assert down[1] < -0.9
    assert forward[1] < 0


def test_the_stereo_photograph_has_the_depth_of_its_disparity() -> None:
    from skimage.data import stereo_motorcycle

    left, _, disparity = stereo_motorcycle()
    made = rooms.stereo()
    assert made.pixels.shape == (64, 95, 3)
    for row, column in ((60, 10), (32, 47), (50, 80)):
        y, x = int((row + 0.5) * 500 / 64), int((column + 0.5) * 741 / 95)
        assert made.depth[row, column] == pytest.approx(193.001 * 994.978 / (disparity[y, x] + 31.086) / 1000)
        assert np.abs(made.pixels[row, column] - left[y - 3 : y + 4, x - 3 : x + 4].mean((0, 1))).max() < 15
    assert 0.02 < (made.depth == 0).mean() < 0.2
    assert 2 < made.depth[made.depth > 0].min() < made.depth.max() < 6


def test_files_are_lists_of_pairs_with_depth_in_millimetres(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SCENE_ROOMS.counts == rooms.COUNTS
    monkeypatch.setattr(rooms, "COUNTS", {"train": 2, "val": 1, "test": 1})
    rooms.write(tmp_path)
    for name, count in (("train", 2), ("val", 1), ("test", 1), ("stereo_motorcycle", 1)):
        lines = (tmp_path / f"{name}.txt").read_text().splitlines()
        assert len(lines) == count
        for line in lines:
            image, depth = (Image.open(tmp_path / file) for file in line.split())
            assert (image.mode, image.size) == ("RGB", depth.size)
            assert depth.mode.startswith("I")
            assert 0.3 < np.asarray(depth).max() / 1000 < 14
    made = rooms.room("train", 1)
    saved = np.asarray(Image.open(tmp_path / "train" / "00002_depth.png"))
    assert np.abs(saved / 1000 - made.depth).max() <= 0.0005 + 1e-9
