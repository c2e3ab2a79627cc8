"""Compares batches of loaders."""

from __future__ import annotations

from typing import Any

import torch

from tasks.base import Batch


def same(one: Batch, other: Batch) -> bool:
    """True if both batches have the same names and equal values: tensors, in lists and dictionaries too, items."""
    return one.keys() == other.keys() and all(_equal(one[name], other[name]) for name in one)


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return same(one, other)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)
