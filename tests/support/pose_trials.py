"""Smallest trials of pose on the trees of person_trees.py."""

from __future__ import annotations

from typing import Any

from person_trees import shared_tree

from workers.trial import TrialSpec

SWIN: dict[str, Any] = {
    "model": "swinv2_tiny_window8_256", "image_size": 32,
    "args": {"patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4},
}  # fmt: skip
STILL = {"grid_dropout": 0}
"""Grid dropout with distances up to 40 pixels does not fit these inputs."""


def described(**fields: Any) -> dict[str, Any]:
    """The task on the shared tree."""
    dataset = {"kind": "coco", "path": str(shared_tree())}
    return {"kind": "pose", "dataset": dataset, "boxes": "ground_truth", "sigma": 1, "augment": STILL, **fields}


def pose_trial(
    task: dict[str, Any] | None = None, backbone: dict[str, Any] | None = None, may_test: bool = False, **other: Any
) -> TrialSpec:
    """One epoch in batches of 12, unless `other` says otherwise. `task`: all its fields; None: as `described`."""
    optim = {"lr": 1e-3, "batch": 12, "epochs": 1, "warmup_epochs": 0, "clip": 0, **other.pop("optim", {})}
    return TrialSpec.model_validate({
        "task": task or described(), "backbone": {**SWIN, **(backbone or {})}, "optim": optim, "may_test": may_test,
        **other,
    })  # fmt: skip
