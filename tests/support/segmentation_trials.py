"""The smallest trials of segmentation, on class maps whose colours tell the classes."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from class_map_trees import HEIGHT, WIDTH, numbers, write_map
from PIL import Image
from shared_folders import shared_folder

from tasks.segmentation.task import Segmentation
from workers.trial import TrialSpec

IMAGES = {"train": 26, "val": 9, "test": 5}
NAMES = ("sky", "road", "tree")
COLOURS = np.array([[40, 80, 220], [120, 120, 120], [20, 160, 40]])
SWIN: dict[str, Any] = {
    "model": "swinv2_tiny_window8_256", "image_size": 32,
    "args": {"patch_size": 4, "embed_dim": 8, "depths": [1, 1, 1], "num_heads": [1, 2, 4], "window_size": 2},
}  # fmt: skip
"""Maps of stride 4, 8 and 16."""
UPERNET = {"channels": 16, "auxiliary_channels": 8}
MASK2FORMER = {
    "channels": 32, "queries": 6, "encoder_layers": 1, "decoder_layers": 2, "attention_heads": 4,
    "encoder_feed_forward": 32, "feed_forward": 32, "points": 64,
}  # fmt: skip


def write(base: Path, counts: dict[str, int] | None = None, side: tuple[int, int] = (HEIGHT, WIDTH)) -> Path:
    """Maps of three classes and, in every fourth image, of no class (255)."""
    (base / "images").mkdir(parents=True, exist_ok=True)
    (base / "classes.txt").write_text("\n".join(NAMES))
    for place, (part, count) in enumerate((counts or IMAGES).items()):
        for number in range(count):
            seed = 1000 * place + number
            classes = np.resize(numbers(seed, 0, 2), side)
            if number % 4 == 1:
                classes[:5] = 255
            noise = np.random.default_rng(seed).integers(-15, 16, (*side, 3))
            pixels = np.clip(COLOURS[np.minimum(classes, 2)] + noise, 0, 255).astype(np.uint8)
            (base / "images" / part).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(base / "images" / part / f"{number:03d}.png")
            write_map(base / "annotations" / part / f"{number:03d}.png", classes)
    return base


@functools.cache
def shared_tree() -> Path:
    """One tree for all tests of a process, which none changes."""
    return write(shared_folder("maps"))


def described(base: Path | None = None, **fields: Any) -> dict[str, Any]:
    """The task on the shared tree, or another one."""
    dataset = {"kind": "class_maps", "path": str(base or shared_tree())}
    return {
        "kind": "segmentation", "dataset": dataset, "upernet": UPERNET, "mask2former": MASK2FORMER,
        "test": {"multiple": 32}, **fields,
    }  # fmt: skip


def segmentation(base: Path | None = None, **fields: Any) -> Segmentation:
    """The same, as it is planned: sizes of described data are read from them."""
    wanted = described(base, **fields)
    planned = Segmentation.model_validate(wanted).planned_fields(base or shared_tree())  # digests are kept below it
    return Segmentation.model_validate({**wanted, **planned})


def segmentation_trial(task: Segmentation, optim: dict[str, Any] | None = None, **other: Any) -> TrialSpec:
    settings = {"lr": 2e-3, "batch": 6, "epochs": 1, "warmup_epochs": 0, "clip": 0, **(optim or {})}
    content = {"backbone": SWIN, **other}
    return TrialSpec.model_validate({"task": task.model_dump(mode="json"), "optim": settings, **content})
