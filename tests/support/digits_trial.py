"""A trial of seconds on digits, and specs of it, for tests on a real Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

TRIAL: dict[str, Any] = {
    "task": {
        "kind": "classify", "dataset": "digits", "normalize": "half",
        "augment": {
            "crop_scale": [0.7, 1], "flip": 0, "color_jitter": 0, "rand_augment": "none", "erasing": 0, "mixup": 0,
            "cutmix": 0, "eval_crop": 1,
        },
    },
    "backbone": {
        "model": "vit_tiny_patch16_224", "image_size": 16, "drop_path": 0.1,
        "args": {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2},
    },
    "optim": {"lr": 3e-3, "layer_decay": 0.8, "batch": 64, "epochs": 2, "warmup_epochs": 0.5},
}  # fmt: skip


def spec_file(folder: Path, **fields: Any) -> Path:
    path = folder / f"{fields['name']}.yaml"
    path.write_text(yaml.safe_dump({"trial": TRIAL, **fields}))
    return path
