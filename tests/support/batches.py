"""Compares batches of loaders."""

from __future__ import annotations

import torch

from tasks.base import Batch


def same(one: Batch, other: Batch) -> bool:
    """True if both batches have the same names, equal tensors, and the same item."""

    def equal(name: str) -> bool:
        value, its_twin = one[name], other[name]
        return torch.equal(value, its_twin) if isinstance(value, torch.Tensor) else value == its_twin

    return one.keys() == other.keys() and all(map(equal, one))
