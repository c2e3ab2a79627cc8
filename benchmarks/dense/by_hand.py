"""The loaders that one writes by hand: albumentations and OpenCV, a sample at a time, in torch's DataLoader.

Operations, their order and probabilities are those of our defaults, which are those of the public code: of pose
mmpose's and PCT's transforms, of depth those of SwinTransformer/MIM-Depth-Estimation.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from .made import PEOPLE, ROOMS, WIDTH

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # it would look for a newer version in the network

import albumentations
import cv2

Floats = NDArray[np.float64]
SIDE, MAP, SIGMA = 256, 64, 2.0
CROP = 480
PADDING, HALF_BODY_ABOVE, UPPER = 1.25, 8, np.arange(17) < 11
PAIRS = [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class People(Dataset[Any]):
    """Inputs (3, 256, 256), heat maps (17, 64, 64) and target weights (17,) of persons."""

    def __init__(self, root: Path) -> None:
        base = root / PEOPLE
        self._folder = base / "train2017"
        read = json.loads((base / "annotations" / "person_keypoints_train2017.json").read_text())
        names = {image["id"]: image["file_name"] for image in read["images"]}
        self._persons = [(names[p["image_id"]], p["bbox"], p["keypoints"]) for p in read["annotations"]]
        self._colours = albumentations.Compose([
            albumentations.ColorJitter((0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (-0.2, 0.2), p=1.0),
            albumentations.GridDropout(ratio=0.5, unit_size_range=(10, 40), random_offset=True, p=0.5),
            albumentations.Normalize(MEAN, STD),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self._persons)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, NDArray[np.float32], NDArray[np.float32]]:
        name, box, keypoints = self._persons[index]
        image = cv2.cvtColor(cv2.imread(str(self._folder / name)), cv2.COLOR_BGR2RGB)
        joints = np.array(keypoints).reshape(-1, 3)
        places, seen = joints[:, :2], joints[:, 2] > 0
        centre = np.array([box[0] + box[2] / 2, box[1] + box[3] / 2])
        scale = np.full(2, max(box[2], box[3])) * PADDING
        if np.random.rand() < 0.3:
            centre = centre + np.random.uniform(-0.16, 0.16, 2) * scale
        if np.random.rand() < 0.5:
            image = image[:, ::-1, :]
            centre[0] = WIDTH - 1 - centre[0]
            places = (places * (-1, 1) + (WIDTH - 1, 0))[PAIRS]
            seen = seen[PAIRS]
        if np.random.rand() < 0.3 and seen.sum() > HALF_BODY_ABOVE:
            centre, scale = half_body(places, seen, centre, scale)
        scale = scale * np.clip(np.random.randn() * 0.5 + 1, 0.5, 1.5)
        angle = float(np.clip(np.random.randn() * 40, -80, 80)) if np.random.rand() < 0.6 else 0.0
        matrix = udp_matrix(centre, scale, angle)
        image = cv2.warpAffine(image, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR)
        places = places @ matrix[:, :2].T + matrix[:, 2]
        image = self._colours(image=image)["image"]
        return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))), *heat_maps(places, seen)


def half_body(places: Floats, seen: NDArray[np.bool_], centre: Floats, scale: Floats) -> tuple[Floats, Floats]:
    upper, lower = places[seen & UPPER], places[seen & ~UPPER]
    chosen = upper if (np.random.randn() < 0.5 and len(upper) > 2) or len(lower) <= 2 else lower
    if len(chosen) < 2:
        return centre, scale
    return chosen.mean(0), np.full(2, (chosen.max(0) - chosen.min(0)).max()) * 1.5


def udp_matrix(centre: Floats, scale: Floats, angle: float) -> Floats:
    """mmpose's get_udp_warp_matrix."""
    across, down = (SIDE - 1) / scale
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    return np.array([
        [cos * across, -sin * across, across * (-centre[0] * cos + centre[1] * sin + scale[0] / 2)],
        [sin * down, cos * down, down * (-centre[0] * sin - centre[1] * cos + scale[1] / 2)],
    ])  # fmt: skip


def heat_maps(places: Floats, seen: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """mmpose's generate_udp_gaussian_heatmaps."""
    maps, weights = np.zeros((len(places), MAP, MAP), np.float32), seen.astype(np.float32)
    radius = round(SIGMA * 3)
    steps = np.arange(2 * radius + 1, dtype=np.float32)
    for k, place in enumerate(places * (MAP - 1) / (SIDE - 1)):
        if not seen[k]:
            continue
        x, y = (place + 0.5).astype(int)
        if x - radius >= MAP or y - radius >= MAP or x + radius + 1 < 0 or y + radius + 1 < 0:
            weights[k] = 0
            continue
        middle = radius + place - (x, y)
        bump = np.exp(-((steps - middle[0]) ** 2 + (steps[:, None] - middle[1]) ** 2) / (2 * SIGMA**2))
        left, top, right, bottom = x - radius, y - radius, x + radius + 1, y + radius + 1
        maps[k, max(0, top) : min(MAP, bottom), max(0, left) : min(MAP, right)] = bump[
            max(0, -top) : min(MAP, bottom) - top, max(0, -left) : min(MAP, right) - left
        ]
    return maps, weights


class Rooms(Dataset[Any]):
    """Inputs (3, 480, 480) from 0 to 1 and depth (1, 480, 480) in metres."""

    def __init__(self, root: Path) -> None:
        self._base = root / ROOMS
        self._pairs = [line.split() for line in (self._base / "train.txt").read_text().splitlines()]
        self._change = albumentations.Compose(
            [
                albumentations.HorizontalFlip(p=0.5),
                albumentations.RandomCrop(CROP, CROP),
                albumentations.RandomBrightnessContrast(p=0.5),
                albumentations.RandomGamma(p=0.5),
                albumentations.HueSaturationValue(p=0.5),
            ],
            additional_targets={"depth": "mask"},
        )

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        name, of_depth = self._pairs[index]
        image = cv2.cvtColor(cv2.imread(str(self._base / name)), cv2.COLOR_BGR2RGB)
        depth = cv2.imread(str(self._base / of_depth), cv2.IMREAD_UNCHANGED).astype(np.float32) / 1000
        if np.random.rand() < 0.25:
            start = int(np.random.rand() * WIDTH)
            end = start + max(int((WIDTH - start) * np.random.rand() * 0.75), 1)
            strip = (depth[:, start:end] / 10 * 255).clip(0, 255).astype(np.uint8)
            image[:, start:end] = strip[..., None]
        changed = self._change(image=image, depth=depth)
        pixels = torch.from_numpy(changed["image"].transpose((2, 0, 1))).contiguous().float().div(255)
        return pixels, torch.from_numpy(np.ascontiguousarray(changed["depth"]))[None]
