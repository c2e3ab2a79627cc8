"""Figures of one pass of a task over batches, in this process."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from tasks.base import Batch, Task


def figures_of(task: Task, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
    """As the loop has them of all ranks and attempts: measured, then summarised."""
    return dict(task.summarize(list(task.measure(model, batches))).figures)
