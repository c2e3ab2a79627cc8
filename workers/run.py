"""Runs a trial that was assigned to this node, on the device it was given."""

from __future__ import annotations

from collections.abc import Callable

from workers.errors import ErrorClass, TrialError
from workers.messages import Assignment, Outcome, Report
from workers.ray_train import run_with_ray_train
from workers.state import rank_context

Emit = Callable[[Report], None]


def run_trial(assignment: Assignment, emit: Emit, stop: Callable[[], bool]) -> Outcome:
    """Runs a trial in this process, or through Ray Train when it has several workers. Raises as `train`."""
    if assignment.workers > 1:
        return run_with_ray_train(assignment, stop)
    from workers.train import train

    return train(assignment.trial, rank_context(assignment, 0, _device(assignment)), emit, stop)


def _device(assignment: Assignment) -> str:
    """`cuda:0` of the GPUs that Ray made visible to this process, if the trial was given any; else `cpu`."""
    if assignment.gpus == 0:
        return "cpu"
    import torch

    if not torch.cuda.is_available():
        raise TrialError(ErrorClass.data, f"given {assignment.gpus:g} GPUs, but torch sees no CUDA device on this node")
    return "cuda:0"
