"""The only place where a node meets Ray: an actor that runs trial after trial and keeps its news until it is heard."""

from __future__ import annotations

from collections.abc import Callable

from workers.errors import ErrorClass, TrialError
from workers.messages import Assignment, Outcome, Report
from workers.ray_train import _run_with_ray_train
from workers.state import rank_context

Emit = Callable[[Report], None]


def run_trial(assignment: Assignment, emit: Emit, stop: Callable[[], bool]) -> Outcome:
    """Runs a trial on this node: in this process, or through Ray Train when it has several workers."""
    if assignment.workers > 1:
        return _run_with_ray_train(assignment, stop)
    from workers.train import train

    return train(assignment.trial, rank_context(assignment, 0, _device(assignment)), emit, stop)


def _device(assignment: Assignment) -> str:
    """`cuda:0` of the GPUs that Ray made visible to this process, when the trial was given any."""
    if assignment.gpus == 0:
        return "cpu"
    import torch

    if not torch.cuda.is_available():
        raise TrialError(ErrorClass.data, f"given {assignment.gpus:g} GPUs, but torch sees no CUDA device on this node")
    return "cuda:0"
