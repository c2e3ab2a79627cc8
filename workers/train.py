"""The training loop. It uses no Ray, no MLflow and no SQL, and no task by name."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from tasks.backbones.frozen import train_mode
from tasks.base import Batch
from tasks.errors import DataError
from tasks.metrics import Summary
from workers import distributed, throughput
from workers.averaged import Average
from workers.checkpoint import AVERAGED, Folder
from workers.epoch_line import epoch_line
from workers.errors import ErrorClass, Stopped, TrialError
from workers.evaluation import evaluate, pictures
from workers.fault_injection import fault_point
from workers.gradients import first_line, gradients, is_out_of_memory
from workers.initial_weights import weights_metadata
from workers.messages import Outcome, Report, Weights
from workers.optim import set_lr
from workers.prepare import from_rank_0, prepare
from workers.rounds import batches_from
from workers.state import RankContext, TrainingState
from workers.trial import TrialSpec

log = logging.getLogger(__name__)


@contextmanager
def _error_classes() -> Iterator[None]:
    """Turns exceptions whose error class is clear from themselves into TrialError."""
    try:
        yield
    except DataError as error:
        raise TrialError(ErrorClass.data, str(error)) from error
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise TrialError(ErrorClass.out_of_memory, f"outside the training step: {first_line(error)}") from error


@_error_classes()
def train(trial: TrialSpec, place: RankContext, emit: Callable[[Report], None], stop: Callable[[], bool]) -> Outcome:
    """Runs a trial to its end, from its last checkpoint if there is one, and returns its outcome.

    With several workers every rank calls this; rank 0 writes, emits and returns what counts.
    `emit` gets a report after every round, on rank 0; after a resume also those of earlier attempts, again.
    `stop` is asked after every step, between the items of an evaluation, and while the trial is prepared; once it is
    true on any rank, a checkpoint is written and all raise Stopped.
    Raises TrialError for failures with an error class of their own; any other exception is a mistake in code.
    Checkpoints are removed when `outcome.json` is written. The caller removes that with `checkpoint.clear` when the
    outcome is recorded; until then another attempt returns it without training.
    """
    folder = Folder(place.folder, trial.key, place.token)
    if place.rank == 0:
        folder.claim()
    continues = trial.last_round < trial.rounds
    keep = place.keep_weights or continues
    ended = from_rank_0(place, lambda: folder.finished(keep, with_state=continues))
    if ended is not None:
        outcome, reports = ended
        _replay_reports(place, reports, emit)
        return outcome
    run = prepare(trial, place, folder, stop)
    progress = run.progress
    _replay_reports(place, progress.reports, emit)
    batches = batches_from(run.loaders, progress.step)
    summary = Summary({})
    while progress.epoch < trial.last_round:
        left = run.rounds.steps(progress.epoch) - progress.step_in_epoch
        _train_round(run, itertools.islice(batches, left), stop)
        summary = evaluate(run, stop)
        report = _close_round(run, dict(summary.figures), pictures(run))
        if place.rank == 0:
            log.info("%s", epoch_line(trial, progress.reports))
            emit(report)
        due = progress.epoch - run.saved_epoch >= trial.runtime.checkpoint_epochs
        if due and progress.epoch < trial.last_round:
            run.save()
    facts = {**throughput.facts(run), **({"shares": dict(summary.shares)} if summary.shares else {})}
    outcome = Outcome(dict(summary.figures), facts, _keep(run, continues) if keep else None)
    if place.rank == 0:
        if run.averaged_sha256:
            outcome.facts["averaged_weights"] = run.averaged_sha256
        if summary.submission is not None:
            outcome.facts["submission"] = folder.save_submission(*summary.submission)
        name, sha256 = folder.save_measurements(summary.measurements, trial.task.split) or (None, None)
        outcome = dataclasses.replace(outcome, measurements=name, measurements_sha256=sha256)
        folder.finish(outcome, progress.reports)
    return outcome


def _train_round(run: TrainingState, batches: Iterator[Batch], stop: Callable[[], bool]) -> None:
    """Makes an optimizer step with each batch. Raises Stopped, or TrialError (timeout), after writing a checkpoint."""
    progress, limit = run.progress, run.place.time_limit_s
    train_mode(run.model, run.wrapped.train)
    timed = throughput.TimedBatches(run, batches)
    batch = timed.take()
    while batch is not None:
        throughput.measure_flops(run, batch)
        set_lr(run.optimizer, run.schedule, progress.step)
        terms = gradients(run, batch)
        terms["grad_norm"] = distributed.clip(run.parameters, run.trial.optim.clip)
        run.optimizer.step()
        if run.average is not None:
            run.average.update(run.progress.step + 1)
        batch = timed.take()  # made while a GPU still computes
        requests = _close_step(run, terms, stop())
        timed.count()
        fault_point("step", f"{run.folder.key} {progress.step}")
        if requests.checkpoint or requests.stop or requests.late:
            run.save()
        if requests.stop:
            raise Stopped
        if requests.late:
            raise TrialError(ErrorClass.timeout, run.where(f"ran longer than {limit:g} s"))


def _keep(run: TrainingState, with_state: bool) -> Weights | None:
    """Writes the final weights, and the whole state where another span continues from it; of a trial that is chosen by
    its averaged weights and hands on the others, the averaged ones too. None except on rank 0."""
    state = run.state() if with_state else {}
    ema = run.trial.optim.ema
    averaged = run.average if ema and ema.hand_on else None
    weights = _whole(run, averaged)
    apart = _whole(run, run.average) if ema and ema.choose and not ema.hand_on else {}
    if run.place.rank > 0:
        return None
    if with_state:
        run.folder.keep_state(state)
    metadata = weights_metadata(run.model)
    if apart:
        run.averaged_sha256 = run.folder.save_weights(apart, metadata, AVERAGED).sha256
    return run.folder.save_weights(weights, metadata)


def _whole(run: TrainingState, averaged: Average | None) -> dict[str, torch.Tensor]:
    """The whole weights, or the averaged ones, on rank 0; every rank must call where the model is in shards."""
    needed = run.sharded or run.place.rank == 0
    with averaged.used() if averaged else nullcontext():
        weights = distributed.whole_weights(run.model, keep=run.place.rank == 0) if needed else {}
        if averaged:  # the model gets its own weights back
            weights = {name: value.clone() for name, value in weights.items()}
    return weights


@dataclass(frozen=True)
class _Requests:
    """Requests of any rank after a step; the same on every rank."""

    stop: bool
    late: bool
    checkpoint: bool


def _close_step(run: TrainingState, terms: dict[str, torch.Tensor], stop: bool) -> _Requests:
    """Counts the step. Waits for the device once: loss, gradient norm and the ranks' requests are reduced together.

    Raises TrialError (diverged) when loss or gradient norm is not finite. The weights have changed already, which does
    not matter: such a trial ends here, and no checkpoint is written.
    """
    progress, limit = run.progress, run.place.time_limit_s
    late = limit is not None and progress.seconds > limit
    due = time.monotonic() - run.saved_at > 60 * run.trial.runtime.checkpoint_minutes
    row = torch.stack([term.detach().float().reshape(()) for term in terms.values()])
    if run.place.world > 1:
        row = torch.cat([row / run.place.world, torch.tensor([stop, late, due], dtype=row.dtype, device=row.device)])
        dist.all_reduce(row)
    values = row.tolist()
    if run.place.world > 1:
        stop, late, due = [value > 0 for value in values[len(terms) :]]
    step = dict(zip(terms, values, strict=False))
    if not (math.isfinite(step["loss"]) and math.isfinite(step["grad_norm"])):
        lr = run.schedule.lr(progress.step)
        raise TrialError(
            ErrorClass.diverged,
            run.where(f"loss {step['loss']:g}, gradient norm {step['grad_norm']:g} at learning rate {lr:g}"),
        )
    for name, value in step.items():
        progress.sums[name] = progress.sums.get(name, 0.0) + value
    progress.step += 1
    progress.step_in_epoch += 1
    seconds = run.lap()
    progress.step_seconds.append(seconds)
    progress.epoch_step_seconds += seconds
    return _Requests(stop, late, due)


def _close_round(run: TrainingState, figures: dict[str, float], drawn: tuple[str, ...]) -> Report:
    """Ends the current round: its report, and the beginning of the next."""
    progress = run.progress
    progress.unreadable = sorted({*progress.unreadable, *_unreadable(run)})
    run.lap()
    means = {f"train_{name}": total / progress.step_in_epoch for name, total in progress.sums.items()}
    lr = {"lr": run.schedule.lr(progress.step - 1)} if run.trial.trains else {}
    values = {**lr, **means, **figures, **throughput.of_round(run)}
    report = Report(progress.epoch + 1, progress.step, values, progress.epoch_seconds, drawn)
    progress.reports.append(report)
    progress.epoch, progress.step_in_epoch, progress.sums = progress.epoch + 1, 0, {}
    progress.epoch_seconds = progress.epoch_step_seconds = progress.epoch_wait = 0.0
    return report


def _unreadable(run: TrainingState) -> list[str]:
    """Samples that any rank had to replace."""
    if run.place.world == 1 or not run.trial.runtime.max_unreadable:
        return list(run.loaders.unreadable)
    each: list[Any] = [None] * run.place.world
    dist.all_gather_object(each, list(run.loaders.unreadable))
    return [failure for of_rank in each for failure in of_rank]


def _replay_reports(place: RankContext, reports: list[Report], emit: Callable[[Report], None]) -> None:
    if place.rank == 0:
        for report in reports:
            emit(report)
