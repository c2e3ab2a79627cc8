"""The only place with a training loop: `train`. It knows no Ray, no MLflow, no SQL, and no task by name."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from tasks.base import Batch
from tasks.errors import DataError
from workers import distributed, throughput
from workers.checkpoint import Folder
from workers.errors import ErrorClass, Stopped, TrialError
from workers.fault_injection import fault_point
from workers.initial_weights import weights_metadata
from workers.messages import Outcome, Report, Weights
from workers.optim import set_lr
from workers.prepare import from_rank_0, prepare, seed_all
from workers.state import RankContext, TrainingState
from workers.trial import TrialSpec

T = TypeVar("T")


@contextmanager
def _error_classes() -> Iterator[None]:
    """Names the class of what can be told from the exception alone."""
    try:
        yield
    except DataError as error:
        raise TrialError(ErrorClass.data, str(error)) from error
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        raise TrialError(ErrorClass.out_of_memory, f"outside the training step: {_first_line(error)}") from error


@_error_classes()
def train(trial: TrialSpec, place: RankContext, emit: Callable[[Report], None], stop: Callable[[], bool]) -> Outcome:
    """Runs a trial to its end, from its last checkpoint if there is one, and returns its figures.

    With several workers every rank calls it; what is written, emitted and returned is rank 0's.
    `emit` gets a report after every epoch, on rank 0; after a resume also those of earlier attempts, again.
    `stop` is asked after every step, and while the trial is made ready; once any rank's says yes, all write a
    checkpoint and raise Stopped.
    Raises TrialError for what has an error class of its own; any other exception is a mistake in code.
    The checkpoints go once `outcome.json` is written; the caller removes that with `checkpoint.clear` when the
    outcome is recorded, and until then a further attempt returns it without training.
    """
    folder = Folder(place.folder, trial.key, place.token)
    if place.rank == 0:
        folder.claim()
    goes_on = trial.last_epoch < trial.optim.epochs
    keep = place.keep_weights or goes_on
    ended = from_rank_0(place, lambda: folder.finished(keep, with_state=goes_on))
    if ended is not None:
        outcome, reports = ended
        _replay_reports(place, reports, emit)
        return outcome
    run = prepare(trial, place, folder, stop)
    progress = run.progress
    _replay_reports(place, progress.reports, emit)
    figures: dict[str, float] = {}
    while progress.epoch < trial.last_epoch:
        run.wrapped.train()
        for batch in throughput.timed(run, run.loaders.epoch(progress.epoch, progress.step_in_epoch)):
            throughput.measure_flops(run, batch)
            set_lr(run.optimizer, run.schedule, progress.step)
            terms = _gradients(run, batch)
            terms["grad_norm"] = distributed.clip(run.model, trial.optim.clip)
            run.optimizer.step()
            asked = _close_step(run, terms, stop())
            fault_point("step", f"{folder.key} {progress.step}")
            if asked.checkpoint or asked.stop or asked.late:
                run.save()
            if asked.stop:
                raise Stopped
            if asked.late:
                raise TrialError(ErrorClass.timeout, _where(run, f"ran longer than {place.time_limit_s:g} s"))
        figures = _evaluate(run)
        report = _close_epoch(run, figures, _pictures(run))
        if place.rank == 0:
            emit(report)
        due = progress.epoch - run.saved_epoch >= trial.runtime.checkpoint_epochs
        if due and progress.epoch < trial.last_epoch:
            run.save()
    outcome = Outcome(figures, throughput.facts(run), _keep(run, goes_on) if keep else None)
    if place.rank == 0:
        folder.finish(outcome, progress.reports)
    return outcome


def _keep(run: TrainingState, with_state: bool) -> Weights | None:
    """What stays of the trial: weights, and the whole state where another span goes on. None but on rank 0."""
    state = run.state() if with_state else {}
    asked = run.sharded or run.place.rank == 0
    weights = distributed.whole_weights(run.model, keep=run.place.rank == 0) if asked else {}
    if run.place.rank > 0:
        return None
    if with_state:
        run.folder.keep_state(state)
    return run.folder.save_weights(weights, weights_metadata(run.model))


def _gradients(run: TrainingState, batch: Batch) -> dict[str, torch.Tensor]:
    """Leaves the gradients of the mean loss over the global batch in the model; returns the means of the loss's terms.

    When memory runs out the micro-batch is halved and the step begun again: same images, same effective batch, same
    learning rate. Several ranks must agree on that, and one that runs out inside DistributedDataParallel's exchange
    leaves the others waiting: so gradients are exchanged by hand until a step went through with this micro-batch.
    Where the forward pass already needs every rank (shards, batch norm over all) the trial ends instead.
    """
    progress, ranks = run.progress, run.place.world
    while True:
        alone = ranks > 1 and not run.micro_batch_fits and not distributed.needs_all_ranks_in_forward(run.model)
        moving = [(buffer, buffer.clone()) for buffer in _statistics(run.model)]
        problem = ""
        try:
            terms = _accumulate(run, batch, alone)
        except RuntimeError as error:
            if not _is_out_of_memory(error):
                raise
            problem = _first_line(error)
        if problem and ranks > 1 and not alone:
            raise TrialError(
                ErrorClass.out_of_memory,
                _where(run, f"{problem}; set optim.micro_batch below {progress.micro_batch}, or grad_checkpointing"),
            )
        # past the `except`, where the exception no longer holds the tensors of the failed pass
        if not distributed.on_any_rank(ranks if alone else 1, bool(problem), run.numerics.device):
            if alone:
                distributed.average_gradients(run.model)
            run.micro_batch_fits = True
            return terms
        for buffer, before in moving:
            buffer.copy_(before)
        run.optimizer.zero_grad(set_to_none=True)
        if run.numerics.device.type == "cuda":
            torch.cuda.empty_cache()
        problem = problem or "on another worker"
        if progress.micro_batch == 1:
            raise TrialError(ErrorClass.out_of_memory, _where(run, f"at a micro-batch of 1 already: {problem}"))
        progress.notes.append(
            _where(run, f"out of memory: micro-batch {progress.micro_batch} -> {progress.micro_batch // 2}: {problem}")
        )
        progress.micro_batch //= 2
        run.micro_batch_fits = False


def _accumulate(run: TrainingState, batch: Batch, alone: bool) -> dict[str, torch.Tensor]:
    """Forward and backward over the rank's share, a micro-batch at a time; `alone`: without exchange between ranks."""
    run.optimizer.zero_grad(set_to_none=True)
    seed_all(run.trial.seed, "step", run.progress.step, run.place.rank)
    share, size = run.trial.optim.batch // run.place.world, run.progress.micro_batch
    # the backward pass then computes activations again, and would move batch norm's statistics a second time
    again = _statistics(run.model) if run.trial.runtime.grad_checkpointing else []
    means: dict[str, torch.Tensor] = {}
    for first in range(0, share, size):
        part = {name: value[first : first + size] for name, value in batch.items()}
        if run.numerics.channels_last:
            part = {name: _channels_last(value) for name, value in part.items()}
        weight = min(size, share - first) / share
        with distributed.exchange(run.wrapped, now=not alone and first + size >= share):
            with run.numerics.autocast():
                terms = run.trial.task.loss(run.wrapped, part)
            moved = [(buffer, buffer.clone()) for buffer in again]
            (terms["loss"] * weight).backward()  # type: ignore[no-untyped-call]
            for buffer, once in moved:
                buffer.copy_(once)
        for name, term in terms.items():
            term = term.detach().float() * weight
            means[name] = means[name] + term if name in means else term
    return means


@dataclass(frozen=True)
class _Asked:
    """What is to be done after a step, the same on every rank."""

    stop: bool
    late: bool
    checkpoint: bool


def _close_step(run: TrainingState, terms: dict[str, torch.Tensor], stop: bool) -> _Asked:
    """Counts the step. Its one wait for the device: loss, gradient norm and what any rank asks for travel together.

    Raises TrialError (diverged) when loss or gradient norm is not finite. The weights have moved by then, which does
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
            _where(run, f"loss {step['loss']:g}, gradient norm {step['grad_norm']:g} at learning rate {lr:g}"),
        )
    for name, value in step.items():
        progress.sums[name] = progress.sums.get(name, 0.0) + value
    progress.step += 1
    progress.step_in_epoch += 1
    seconds = run.lap()
    progress.step_seconds.append(seconds)
    progress.epoch_step_seconds += seconds
    return _Asked(stop, late, due)


def _evaluate(run: TrainingState) -> dict[str, float]:
    """Figures after this epoch, on every rank (rank 0 computes them); none when it is not time.

    Test data are evaluated once, after the last epoch: a curve over them would invite a choice. The last step's
    own loss and gradients were finite before it; what it made of the weights is seen here (diverged).
    """
    if not distributed.all_finite(run.model):
        raise TrialError(ErrorClass.diverged, _where(run, "weights are not finite"))
    runtime, task, epochs = run.trial.runtime, run.trial.task, run.progress.epoch + 1
    last = epochs == run.trial.last_epoch
    if not last and (task.reads_test or epochs % runtime.evaluate_every):
        return {}
    seed_all(run.trial.seed, "evaluate", run.progress.step)

    def figures() -> dict[str, float]:
        return {name: float(value) for name, value in task.measure(run.model, run.loaders.evaluation()).items()}

    return _in_eval_mode(run, figures)


def _pictures(run: TrainingState) -> tuple[str, ...]:
    """Names of the pictures that the task makes after this epoch, written; on rank 0."""
    trial, epochs = run.trial, run.progress.epoch + 1
    every = trial.runtime.pictures_every
    if epochs < trial.last_epoch and not (every and epochs % every == 0):
        return ()
    seed_all(trial.seed, "pictures", run.progress.step)
    found = _in_eval_mode(run, lambda: trial.task.pictures(run.model, run.loaders))
    if run.place.rank > 0:
        return ()
    return tuple(run.folder.save_picture(name, epochs, pixels) for name, pixels in found.items())


def _in_eval_mode(run: TrainingState, ask: Callable[[], T]) -> T:
    """What rank 0 finds with the model in eval mode, gradients off; on every rank. A model in shards needs all ranks
    for a forward pass, so there they all do the same."""
    run.model.eval()
    with torch.no_grad(), run.numerics.autocast():
        if run.sharded:
            here = ask()
            return from_rank_0(run.place, lambda: here)
        return from_rank_0(run.place, ask)


def _close_epoch(run: TrainingState, figures: dict[str, float], pictures: tuple[str, ...]) -> Report:
    progress = run.progress
    if progress.step_in_epoch != run.loaders.steps_per_epoch:
        raise RuntimeError(
            f"the loaders gave {progress.step_in_epoch} batches in an epoch of {run.loaders.steps_per_epoch} steps"
        )
    progress.unreadable = sorted({*progress.unreadable, *_unreadable(run)})
    run.lap()
    means = {f"train_{name}": total / progress.step_in_epoch for name, total in progress.sums.items()}
    values = {"lr": run.schedule.lr(progress.step - 1), **means, **figures, **throughput.of_epoch(run)}
    report = Report(progress.epoch + 1, progress.step, values, progress.epoch_seconds, pictures)
    progress.reports.append(report)
    progress.epoch, progress.step_in_epoch, progress.sums = progress.epoch + 1, 0, {}
    progress.epoch_seconds = progress.epoch_step_seconds = progress.epoch_wait = 0.0
    return report


def _unreadable(run: TrainingState) -> list[str]:
    """Images that any rank had to replace."""
    if run.place.world == 1 or not run.trial.runtime.max_unreadable:
        return list(run.loaders.unreadable)
    each: list[Any] = [None] * run.place.world
    dist.all_gather_object(each, list(run.loaders.unreadable))
    return [failure for of_rank in each for failure in of_rank]


def _replay_reports(place: RankContext, reports: list[Report], emit: Callable[[Report], None]) -> None:
    if place.rank == 0:
        for report in reports:
            emit(report)


def _channels_last(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.ndim == 4:
        return value.contiguous(memory_format=torch.channels_last)
    return value


def _statistics(model: torch.nn.Module) -> list[torch.Tensor]:
    """Buffers that a forward pass in training moves (batch norm's), which a step begun again must not move twice."""
    normed = (module for module in model.modules() if getattr(module, "track_running_stats", False))
    return [buffer for module in normed for buffer in module.buffers(recurse=False)]


def _is_out_of_memory(error: RuntimeError) -> bool:
    """On any device. The CPU allocator has no exception class of its own; nor have cuBLAS and cuDNN, which ask for
    memory of their own when other processes may have taken what was left of the GPU."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in text
        for words in ("out of memory", "can't allocate memory", "not enough memory", "_STATUS_ALLOC_FAILED")
    )


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def _where(run: TrainingState, what: str) -> str:
    progress = run.progress
    return f"epoch {progress.epoch + 1}, step {progress.step + 1}: {what}"
