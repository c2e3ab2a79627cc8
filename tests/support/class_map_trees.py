"""Writes small data sets of class maps: ADE20K's published layout, and one of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HEIGHT, WIDTH = 24, 32
PUBLISHED = {"training": 5, "validation": 3}
OWN = {"train": 6, "val": 3, "test": 2}


def write_map(path: Path, numbers: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(numbers).save(path)


def numbers(seed: int, first: int, last: int) -> NDArray[np.uint8]:
    """(HEIGHT, WIDTH): blocks of the numbers first..last."""
    blocks = np.random.default_rng(seed).integers(first, last + 1, (HEIGHT // 8, WIDTH // 8))
    return np.kron(blocks, np.ones((8, 8))).astype(np.uint8)


def _write_image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)).save(path)


def write_ade20k(root: Path, counts: Mapping[str, int] = PUBLISHED) -> Path:
    """ADEChallengeData2016 below a data root: 0 is other, 1 to 150 are the classes. The folder of the set."""
    base = root / "ADEChallengeData2016"
    for folder, count in counts.items():
        short = "train" if folder == "training" else "val"
        for number in range(1, count + 1):
            stem = f"ADE_{short}_{number:08d}"
            _write_image(base / "images" / folder / f"{stem}.jpg", number)
            write_map(base / "annotations" / folder / f"{stem}.png", numbers(number, 0, 150))
    (base / "objectInfo150.txt").write_text("Idx\tRatio\tTrain\tVal\tName\n1\t0.1576\t11664\t1172\twall\n")
    return base


def write_own(base: Path, classes: str = "sky\nroad\t#804080\ntree\n", counts: Mapping[str, int] = OWN) -> Path:
    """Maps of one's own: numbers from 0 on, classes.txt."""
    (base).mkdir(parents=True, exist_ok=True)
    (base / "classes.txt").write_text(classes)
    for part, count in counts.items():
        for number in range(count):
            _write_image(base / "images" / part / f"{part}{number}.png", number)
            write_map(base / "annotations" / part / f"{part}{number}.png", numbers(number, 0, 2))
    return base
