"""Writes tiny depth data sets in the layouts that are read: pairs of your own, NYUv2's, and KITTI's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from shared_folders import shared_folder

SIDE = 16
COUNTS = {"train": 30, "val": 8, "test": 6}


def pair(seed: int, height: int = SIDE, width: int = SIDE, longest: float = 10) -> tuple[NDArray[Any], NDArray[Any]]:
    """An image whose brightness tells its depth (metres, from 0.2 to 0.8 of the longest; 0 in one corner)."""
    generator = np.random.default_rng(seed)
    slope = generator.uniform(-1, 1, 2)
    rows, columns = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    depth = longest * (0.5 + 0.15 * (slope[0] * rows + slope[1] * columns))
    shade = (255 * depth / longest)[..., None] + generator.normal(0, 4, (height, width, 3))
    depth[0, 0] = 0
    return shade.clip(0, 255).astype(np.uint8), depth


def write_pair(image: Path, depth: Path, pixels: NDArray[Any], metres: NDArray[Any], steps: float = 1000) -> None:
    for path in (image, depth):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(image)
    Image.fromarray(np.rint(metres * steps).astype(np.uint16)).save(depth)


def write_own(folder: Path, counts: dict[str, int] | None = None, size: tuple[int, int] = (SIDE, SIDE)) -> Path:
    """Pairs in millimetres with lists train.txt, val.txt and test.txt."""
    seed = 0
    for part, count in (counts or COUNTS).items():
        lines = []
        for number in range(count):
            names = f"{part}/rgb_{number:03d}.png", f"{part}/depth_{number:03d}.png"
            write_pair(folder / names[0], folder / names[1], *pair(seed, *size))
            lines.append(" ".join(names))
            seed += 1
        (folder / f"{part}.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_nyuv2(root: Path, counts: Sequence[int] = (6, 3), size: tuple[int, int] = (32, 44)) -> Path:
    """GLPDepth's layout: lists with leading slashes and focal lengths, sync/ and official_splits/test/."""
    base = root / "nyu_depth_v2"
    for file, folder, count, first in (
        ("train_list.txt", "sync", counts[0], 0), ("test_list.txt", "official_splits/test", counts[1], 100),
    ):  # fmt: skip
        lines = []
        for number in range(count):
            names = f"/kitchen_{first}/rgb_{number:05d}.png", f"/kitchen_{first}/sync_depth_{number:05d}.png"
            image, depth = (base / folder / name[1:] for name in names)
            write_pair(image, depth, *pair(first + number, *size))
            lines.append(f"{names[0]} {names[1]} 518.8579")
        (base / file).write_text("\n".join(lines) + "\n")
    return root


def write_kitti(root: Path, counts: Sequence[int] = (4, 2), size: tuple[int, int] = (375, 1242)) -> Path:
    """The layout of raw images and improved ground truth; the last test image has no depth map."""
    base, drive = root / "kitti", "2011_09_26_drive_0001_sync"
    for file, count, first in (("train_list.txt", counts[0], 0), ("test_list.txt", counts[1], 100)):
        lines = []
        for number in range(first, first + count):
            image = f"/2011_09_26/{drive}/image_02/data/{number:010d}.png"
            depth = f"/{drive}/proj_depth/groundtruth/image_02/{number:010d}.png"
            write_pair(base / image[1:], base / depth[1:], *pair(number, *size, 60), 256)
            lines.append(f"{image} {depth} 721.5377")
        (base / file).write_text("\n".join(lines) + "\n")
    with (base / "test_list.txt").open("a") as file_:
        file_.write(f"/2011_09_26/{drive}/image_02/data/0000000999.png None 721.5377\n")
    return root


@cache
def shared() -> Path:
    """One set of pairs of your own for all tests of this process, which only read it."""
    return write_own(shared_folder("pairs") / "rooms")


def described(path: Path | None = None, **fields: Any) -> dict[str, Any]:
    return {"kind": "depth_pairs", "path": str(path or shared()), **fields}


def spoil(path: Path, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    """Writes a depth map again, changed."""
    Image.fromarray(change(np.asarray(Image.open(path)))).save(path)
