"""Makes the data of the loaders: JPEGs with persons in COCO's layout, and JPEGs with depth maps in lists of pairs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT = 640, 480
JOINTS = 17
PEOPLE, ROOMS = "people", "rooms"
_EVALUATED = 4
"""Images of val: the loaders want some, nothing is measured on them."""
_FIGURE = np.array([
    (50, 8), (54, 5), (46, 5), (58, 8), (42, 8), (66, 25), (34, 25), (74, 42), (26, 42), (78, 58), (22, 58), (60, 55),
    (40, 55), (61, 76), (39, 76), (62, 96), (38, 96),
]) / 100  # fmt: skip
"""(17, 2): COCO's joints of a standing person, as shares of the box."""


def photograph(random: np.random.Generator) -> Image.Image:
    """640 x 480: a part of one of scikit-image's photographs."""
    from skimage import data

    source = Image.fromarray(getattr(data, str(random.choice(["astronaut", "chelsea", "coffee", "rocket"])))())
    width = int(random.integers(source.width // 2, source.width))
    height = min(source.height, width * HEIGHT // WIDTH)
    x, y = int(random.integers(source.width - width + 1)), int(random.integers(source.height - height + 1))
    return source.crop((x, y, x + width, y + height)).resize((WIDTH, HEIGHT)).convert("RGB")


def people(root: Path, images: int, each: int = 2) -> None:
    """`root`/people in COCO's layout: `images` photographs to train on, `each` persons in each."""
    random = np.random.default_rng(0)
    base, count = root / PEOPLE, 0
    (base / "annotations").mkdir(parents=True)
    for part, number in (("train", images), ("val", _EVALUATED)):
        (base / f"{part}2017").mkdir()
        entries, persons = [], []
        for _ in range(number):
            count += 1
            name = f"{count:012d}.jpg"
            photograph(random).save(base / f"{part}2017" / name, quality=90)
            entries.append({"id": count, "file_name": name, "width": WIDTH, "height": HEIGHT})
            persons += [person(random, len(persons) + 1000 * count + 1, count) for _ in range(each)]
        written = {"images": entries, "annotations": persons, "categories": [{"id": 1, "name": "person"}]}
        (base / "annotations" / f"person_keypoints_{part}2017.json").write_text(json.dumps(written))


def person(random: np.random.Generator, identity: int, image: int) -> dict[str, Any]:
    """A person's annotation: a box 100 to 400 pixels high, and joints in it, some of them without label."""
    height = float(random.uniform(100, 400))
    sides = np.array([height * random.uniform(0.35, 0.7), height])
    corner = random.uniform(0, np.array([WIDTH, HEIGHT]) - sides)
    places = corner + (_FIGURE + random.normal(0, 0.02, (JOINTS, 2))) * sides
    seen = random.choice([0, 1, 2], JOINTS, p=[0.2, 0.2, 0.6])
    seen[5] = 2
    joints = np.where(seen[:, None] > 0, np.c_[places, seen], 0).round(1)
    return {
        "id": identity, "image_id": image, "category_id": 1, "iscrowd": 0, "bbox": [*corner.round(1), *sides.round(1)],
        "keypoints": joints.ravel().tolist(), "num_keypoints": int((seen > 0).sum()), "area": float(0.6 * sides.prod()),
    }  # fmt: skip


def rooms(root: Path, images: int) -> None:
    """`root`/rooms: `images` pairs to train on, in train.txt; depth in millimetres, PNG of 16 bits."""
    random = np.random.default_rng(0)
    base = root / ROOMS
    base.mkdir(parents=True)
    for part, number in (("train", images), ("val", _EVALUATED)):
        lines = []
        for i in range(number):
            image, depth = f"{part}_{i:05d}.jpg", f"{part}_{i:05d}.png"
            photograph(random).save(base / image, quality=90)
            Image.fromarray(depth_map(random)).save(base / depth)
            lines.append(f"{image} {depth}\n")
        (base / f"{part}.txt").write_text("".join(lines))


def depth_map(random: np.random.Generator) -> NDArray[np.uint16]:
    """(480, 640) millimetres: a wall, slanting, and boxes before it; 3 mm of noise, a tenth of the pixels not known."""
    x, y = np.meshgrid(np.linspace(-1, 1, WIDTH), np.linspace(-1, 1, HEIGHT))
    depth = 5000 + x * random.uniform(-1500, 1500) + y * random.uniform(-1500, 1500)
    for _ in range(6):
        left, top = random.uniform(-1, 0.7, 2)
        inside = (abs(x - left) < random.uniform(0.1, 0.4)) & (abs(y - top) < random.uniform(0.1, 0.4))
        depth = np.where(inside, depth - random.uniform(500, 2500), depth)
    depth += random.normal(0, 3, depth.shape)
    unknown = np.kron(random.random((HEIGHT // 20, WIDTH // 20)) < 0.1, np.ones((20, 20)))
    return np.where(unknown > 0, 0, depth.clip(400, 9900).round()).astype(np.uint16)
