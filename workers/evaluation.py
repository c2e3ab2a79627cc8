"""Evaluates the model after a round: figures, measured by all ranks together, and pictures."""

from __future__ import annotations

import itertools
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from enum import IntEnum
from typing import Any

import torch

from tasks.base import Batch, EvaluationShare, Piece
from tasks.metrics import Summary
from workers import distributed
from workers.errors import ErrorClass, Stopped, TrialError
from workers.fault_injection import fault_point
from workers.finished_items import FinishedItems, Kept, finished_items
from workers.flags import FAILED, Flags
from workers.optim_spec import EMA
from workers.prepare import from_rank_0, seed_all
from workers.state import TrainingState

Part = tuple[str, Any]
"""(item, what the task measured of it)"""


def evaluate(run: TrainingState, stop: Callable[[], bool]) -> Summary:
    """Figures after this round, on every rank; none when no evaluation is due. Rank 0 also gets the measurements.

    Test data are evaluated once, after the last round: a curve over them would invite a choice.
    Raises TrialError (diverged) for weights that are not finite: loss and gradients of the last step were finite before
    it, but its update may not be. Between items, and pieces of them, raises Stopped or TrialError (timeout) on all
    ranks once `stop` is true or the time limit is over on any; a checkpoint is then written.
    """
    if not distributed.all_finite(run.model):
        raise TrialError(ErrorClass.diverged, run.where("weights are not finite"))
    runtime, task, rounds = run.trial.runtime, run.trial.task, run.progress.epoch + 1
    last = rounds == run.trial.last_round
    if not last and (task.reads_test or rounds % runtime.evaluate_every):
        return Summary({})
    summary = _summary(run, stop)
    if run.average is None:
        return summary
    with run.average.used():
        averaged = _summary(run, stop, EMA)
    return Summary(
        {**summary.figures, **{f"{EMA}{figure}": value for figure, value in averaged.figures.items()}},
        itertools.chain(summary.measurements, (replace(row, figure=EMA + row.figure) for row in averaged.measurements)),
        {**summary.shares, **{f"{EMA}{figure}": count for figure, count in averaged.shares.items()}},
        summary.submission,
    )


def _summary(run: TrainingState, stop: Callable[[], bool], of: str = "") -> Summary:
    """Measures the items that no earlier attempt has measured; rank 0 then summarizes all, while the others wait for
    its flag. `of`: tells finished items of the averaged weights from those of the trained ones."""
    place, kept = run.place, _kept(run, of)
    name = from_rank_0(place, lambda: f"evaluation {secrets.token_hex(8)}")
    pieces = kept.pieces if run.trial.task.resumes_evaluation else None
    run.saved_state, done, begun = from_rank_0(place, lambda: (run.saved_state, frozenset(kept.parts), pieces))
    share = EvaluationShare(done=done, begun=begun)
    flags = Flags(place.world, name)
    summary = Summary({})
    with _failures_are_flagged(flags):
        parts = _in_step(run, share, stop, of) if run.sharded else _shared_out(run, flags, share, stop, of)
        if place.rank == 0:
            seed_all(run.trial.seed, "summarize", run.progress.step)
            summary = run.trial.task.summarize(_in_order([*kept.parts.items(), *parts]))
            flags.set("summary")
        flags.wait(["summary"])
    figures = from_rank_0(place, lambda: {figure: float(value) for figure, value in summary.figures.items()})
    return Summary(figures, summary.measurements, summary.shares, summary.submission)


class _End(IntEnum):
    """Why an evaluation ends between two items; the greater value counts."""

    none = 0
    late = 1
    stopped = 2

    @classmethod
    def due(cls, run: TrainingState, stop: Callable[[], bool]) -> _End:
        """The reason on this rank."""
        limit = run.place.time_limit_s
        return cls.stopped if stop() else cls.late if limit is not None and run.seconds() > limit else cls.none


def _in_step(run: TrainingState, share: EvaluationShare, stop: Callable[[], bool], of: str) -> list[Part]:
    """Every rank measures everything: a model in shards needs all of them for every forward pass."""
    parts = []
    with _eval_mode(run):
        for part in _measured(run, share, run.place.rank == 0, of):
            if part is not None:
                parts.append(part)
            end = _End(distributed.greatest(run.place.world, _End.due(run, stop), run.numerics.device))
            if end:
                _leave(run, end)
    return parts


def _shared_out(
    run: TrainingState, flags: Flags, whole: EvaluationShare, stop: Callable[[], bool], of: str
) -> list[Part]:
    """Each rank measures its share of the whole; rank 0 gets the parts of all. A rank that finishes before the others
    waits for their flags and not in a collective, however long they take."""
    place = run.place

    def look() -> _End:
        """The reason of any rank to end, as far as this one can see."""
        end = _End.due(run, stop)
        if end:
            flags.set(end.name)
        return next((each for each in (_End.stopped, _End.late) if flags.is_set(each.name)), _End.none)

    distributed.share_statistics(run.model, place.world)
    parts = []
    with _eval_mode(run):
        for part in _measured(run, replace(whole, rank=place.rank, world=place.world), True, of):
            if part is not None:
                parts.append(part)
            if look():
                break
    flags.set(f"measured {place.rank}")
    flags.wait([f"measured {rank}" for rank in range(place.world)], look)
    # rank 0 decides for all: whoever left items out saw a flag before it set its own, so rank 0 sees that flag too
    end = from_rank_0(place, look)
    if end:
        _leave(run, end)
    return [part for of_rank in distributed.gathered(place.world, place.rank, parts) for part in of_rank]


@contextmanager
def _failures_are_flagged(flags: Flags) -> Iterator[None]:
    """Sets FAILED when an exception passes, so that no other rank waits for a flag that will never be set."""
    try:
        yield
    except Stopped:
        raise
    except BaseException:
        flags.set(FAILED)
        raise


def _kept(run: TrainingState, of: str) -> Kept:
    """What earlier attempts measured with this very model; on rank 0.

    Writes a checkpoint first, so that a later attempt has the same model too: trained again from an earlier checkpoint,
    it could differ in the last bits.
    """
    if not run.trial.task.resumes_evaluation:
        return Kept()
    if run.trial.trains:
        run.save()
    return finished_items(run.folder, run.saved_state, of) if run.place.rank == 0 else Kept()


def _measured(run: TrainingState, share: EvaluationShare, keep: bool, of: str) -> Iterator[Part | None]:
    """Measures the items of the share one after the other, and writes each part to the trial's folder where the task
    resumes its evaluation (with `keep`), and each piece, for which it yields None."""
    task = run.trial.task
    seed_all(run.trial.seed, "evaluate", run.progress.step)
    with closing(FinishedItems(run.folder, run.saved_state + of, run.place.rank)) as file:
        for item, part in task.measure(run.model, _seeded(run, run.loaders.evaluation(share))):
            if isinstance(part, Piece):
                if keep:
                    file.add_piece(item, part.value)
                fault_point("piece", f"{run.folder.key} {item}")
                yield None
                continue
            kept = file.add(item, part) if task.resumes_evaluation and keep else part
            fault_point("item", f"{run.folder.key} {item}")
            yield item, kept


def _seeded(run: TrainingState, batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches; seeds each one by its item, so that random numbers do not depend on what else this rank measures."""
    parts: Counter[str] = Counter()
    for batch in batches:
        item = batch["item"]
        seed_all(run.trial.seed, f"evaluate {item} {parts[item]}", run.progress.step)
        parts[item] += 1
        yield batch


def _in_order(parts: list[Part]) -> list[Part]:
    """The parts by item, as a single rank would measure them. Raises ValueError when an item was measured twice."""
    counts = Counter(item for item, _ in parts)
    twice = [item for item, count in counts.items() if count > 1]
    if twice:
        raise ValueError(f"item {twice[0]} was measured {counts[twice[0]]} times: loaders must keep to their share")
    return sorted(parts, key=lambda part: part[0])


def _leave(run: TrainingState, end: _End) -> None:
    """Ends the attempt so that the next one continues with this evaluation."""
    if run.average is not None:
        run.average.take_out()
    if run.trial.trains:
        run.save()
    if end is _End.stopped:
        raise Stopped
    raise TrialError(ErrorClass.timeout, run.where(f"ran longer than {run.place.time_limit_s:g} s"))


def pictures(run: TrainingState) -> tuple[str, ...]:
    """Writes the task's pictures after this round, when they are due; returns their paths, on rank 0."""
    trial, rounds = run.trial, run.progress.epoch + 1
    every = trial.runtime.pictures_every
    if rounds < trial.last_round and not (every and rounds % every == 0):
        return ()
    seed_all(trial.seed, "pictures", run.progress.step)
    with _eval_mode(run):
        drawn = trial.task.pictures(run.model, run.loaders) if run.sharded or run.place.rank == 0 else {}
    if run.place.rank > 0:
        return ()
    return tuple(run.folder.save_picture(name, rounds, pixels) for name, pixels in drawn.items())


@contextmanager
def _eval_mode(run: TrainingState) -> Iterator[None]:
    """The model in eval mode, without gradients and without autocast: figures are computed in fp32."""
    run.model.eval()
    with torch.no_grad():
        yield
