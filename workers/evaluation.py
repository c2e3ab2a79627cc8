"""Evaluates the model after a round: figures, shared out over the ranks, and pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from tasks.base import EVERYTHING, EvaluationShare
from tasks.metrics import Summary
from workers import distributed
from workers.errors import ErrorClass, TrialError
from workers.prepare import from_rank_0, seed_all
from workers.state import TrainingState


def evaluate(run: TrainingState) -> dict[str, float]:
    """Figures after this epoch, on every rank; none when it is not time.

    Test data are evaluated once, after the last epoch: a curve over them would invite a choice. The last step's
    own loss and gradients were finite before it; what it made of the weights is seen here (diverged).
    """
    if not distributed.all_finite(run.model):
        raise TrialError(ErrorClass.diverged, run.where("weights are not finite"))
    runtime, task, epochs = run.trial.runtime, run.trial.task, run.progress.epoch + 1
    last = epochs == run.trial.last_round
    if not last and (task.reads_test or epochs % runtime.evaluate_every):
        return {}
    seed_all(run.trial.seed, "evaluate", run.progress.step)

    return {name: float(value) for name, value in _summary(run).figures.items()}


def _summary(run: TrainingState) -> Summary:
    """Measures this rank's share of the evaluation; every rank gets the summary of all. A model in shards needs all
    ranks for every forward pass, so there each rank measures everything."""
    task, place = run.trial.task, run.place
    shared_out = place.world > 1 and not run.sharded
    share = EvaluationShare(place.rank, place.world) if shared_out else EVERYTHING
    with _eval_mode(run):
        parts = list(task.measure(run.model, run.loaders.evaluation(share)))
    if shared_out:
        of_ranks: list[Any] = [None] * place.world
        dist.all_gather_object(of_ranks, parts)
        parts = sorted((part for each in of_ranks for part in each), key=lambda part: str(part[0]))
    return from_rank_0(place, lambda: task.summarize(parts))


def pictures(run: TrainingState) -> tuple[str, ...]:
    """Names of the pictures that the task makes after this epoch, written; on rank 0."""
    trial, epochs = run.trial, run.progress.epoch + 1
    every = trial.runtime.pictures_every
    if epochs < trial.last_round and not (every and epochs % every == 0):
        return ()
    seed_all(trial.seed, "pictures", run.progress.step)
    with _eval_mode(run):
        found = trial.task.pictures(run.model, run.loaders) if run.sharded or run.place.rank == 0 else {}
    if run.place.rank > 0:
        return ()
    return tuple(run.folder.save_picture(name, epochs, pixels) for name, pixels in found.items())


@contextmanager
def _eval_mode(run: TrainingState) -> Iterator[None]:
    """The model in eval mode, without gradients and without autocast: figures are computed in fp32."""
    run.model.eval()
    with torch.no_grad():
        yield
