"""Computes the gradient of one optimizer step, a micro-batch at a time; halves the micro-batch when memory runs out."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from tasks.base import Batch
from workers import distributed
from workers.draws import Watch
from workers.errors import ErrorClass, TrialError
from workers.prepare import seed_all, seed_of
from workers.state import TrainingState


def gradients(run: TrainingState, batch: Batch) -> dict[str, torch.Tensor]:
    """Leaves the gradient of the loss over the global batch in the model. Returns the terms of the loss: averaged over
    the ranks they are those of the global batch. `batch` is this rank's share.

    When memory runs out the micro-batch is halved and the step repeated: same samples, same effective batch, same
    learning rate. Several ranks must agree on that, and one that runs out inside DistributedDataParallel's exchange
    would keep the others waiting: so gradients are exchanged by hand until a step succeeded with this micro-batch.
    Where that cannot be (a forward pass needs every rank, a loss or draws need the whole share) the trial ends instead.
    """
    progress, ranks = run.progress, run.place.world
    totals = _denominators(run, batch)
    while True:
        alone = ranks > 1 and not run.micro_batch_fits and not distributed.needs_all_ranks_in_forward(run.model)
        before = [(buffer, buffer.clone()) for buffer in run.statistics]
        problem = ""
        try:
            terms = _accumulate(run, batch, totals, alone)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            problem = first_line(error)
        if problem and ranks > 1 and not alone:
            raise _out_of_memory(run, f"{problem}; {_less_memory(run)}")
        # past the `except`, where the exception no longer holds the tensors of the failed pass
        if not distributed.on_any_rank(ranks if alone else 1, bool(problem), run.numerics.device):
            if alone:
                distributed.average_gradients(run.model)
            run.micro_batch_fits = True
            return terms
        problem = problem or "on another worker"
        if run.trial.task.loss_over == "batch" or run.draws_need_whole_batch:
            raise _out_of_memory(run, f"{problem}; {_less_memory(run)}")
        if progress.micro_batch == 1:
            raise _out_of_memory(run, f"at a micro-batch of 1 already: {problem}")
        for buffer, value in before:
            buffer.copy_(value)
        run.optimizer.zero_grad(set_to_none=True)
        if run.numerics.device.type == "cuda":
            torch.cuda.empty_cache()
        half = progress.micro_batch // 2
        normed = f"; batch norm now has the statistics of {half} samples at a time" if before else ""
        progress.notes.append(
            run.where(f"out of memory: micro-batch {progress.micro_batch} -> {half}: {problem}{normed}")
        )
        progress.micro_batch //= 2
        run.micro_batch_fits = False


def _out_of_memory(run: TrainingState, what: str) -> TrialError:
    return TrialError(ErrorClass.out_of_memory, run.where(what))


def _less_memory(run: TrainingState) -> str:
    """Advice to the user where the micro-batch cannot be halved by the loop."""
    if run.trial.task.loss_over == "batch":
        return (
            "the loss needs a worker's whole share at once, so it cannot be cut: use more workers or a smaller "
            "optim.batch (both are another trial), or runtime.grad_checkpointing"
        )
    if run.draws_need_whole_batch:
        return f"the batch cannot be cut, since {OTHER_DRAWS}; turn these off, or set runtime.grad_checkpointing"
    return f"set optim.micro_batch below {run.progress.micro_batch}, or grad_checkpointing"


def _denominators(run: TrainingState, batch: Batch) -> dict[str, torch.Tensor] | None:
    """The denominator of each term of the loss over the global batch; None where the terms are means over samples."""
    own = run.trial.task.denominators(batch)
    if own is None:
        return None
    device = run.numerics.device
    names = sorted(own)
    totals = torch.stack([torch.as_tensor(own[name], dtype=torch.float64, device=device).reshape(()) for name in names])
    if run.place.world > 1:
        dist.all_reduce(totals)
    totals[totals == 0] = 1
    return dict(zip(names, totals.float(), strict=True))


def _accumulate(
    run: TrainingState, batch: Batch, totals: dict[str, torch.Tensor] | None, alone: bool
) -> dict[str, torch.Tensor]:
    """Forward and backward over the rank's share, a micro-batch at a time; `alone`: without exchange between ranks.

    Gradients and terms of the ranks are averaged afterwards, so a sum over all ranks enters times their number.
    """
    run.optimizer.zero_grad(set_to_none=True)
    run.draws.begin_step(seed_of(run.trial.seed, "draws", run.progress.step))
    share, size = run.trial.optim.batch // run.place.world, run.progress.micro_batch
    # the backward pass then computes activations again, and would move batch norm's statistics a second time
    again = run.statistics if run.trial.runtime.grad_checkpointing else []
    sums: dict[str, torch.Tensor] = {}
    for first in range(0, share, size):
        part = {name: value[first : first + size] for name, value in batch.items()}
        if run.numerics.channels_last:
            part = {name: _channels_last(value) for name, value in part.items()}
        weight = min(size, share - first) / share if totals is None else run.place.world
        seed_all(run.trial.seed, "step", run.progress.step)  # alike for every rank and part
        watch = Watch(run.numerics.device)
        exchange = distributed.exchange(run.wrapped, now=not alone and first + size >= share)
        with exchange, run.draws.samples(slice(first, first + size)):
            with run.numerics.autocast():
                terms = run.trial.task.loss(run.wrapped, part)
            if totals is not None:
                terms = _divided(terms, totals)
            moved = [(buffer, buffer.clone()) for buffer in again]
            run.draws.check_backward((terms["loss"] * weight if weight != 1 else terms["loss"]).backward)
            for buffer, once in moved:
                buffer.copy_(once)
        if watch.unexplained(run.draws):
            _other_draws(run, divided=run.place.world > 1 or size < share)
        for name, term in terms.items():
            term = term.detach().float() * weight
            sums[name] = sums[name] + term if name in sums else term
    return sums


OTHER_DRAWS = (
    "the model or the loss draws random numbers in training that belong to no DropPath, Dropout or Dropout2d layer "
    "(patch dropout, DropBlock, functional dropout such as a ResNet's drop_rate), and so depend on how it is divided"
)


def _other_draws(run: TrainingState, divided: bool) -> None:
    """Draws that cannot be made for the global batch are allowed where one pass has all of it. Raises ValueError
    elsewhere, since the result would depend on the number of workers or the micro-batch; TrialError (out_of_memory)
    where the whole batch did not fit."""
    optim, first_seen = run.trial.optim, not run.draws_need_whole_batch
    run.draws_need_whole_batch = True
    if divided and run.place.world == 1 and (optim.micro_batch or optim.batch) >= optim.batch:
        raise _out_of_memory(run, _less_memory(run))
    if divided:
        raise ValueError(
            f"a batch of {optim.batch} in parts of {run.progress.micro_batch} on {run.place.world} worker(s): "
            f"{OTHER_DRAWS}. Turn these off (see backbone.args), or use one worker without optim.micro_batch"
        )
    if first_seen:
        run.progress.notes.append(f"one worker with the whole batch at once: {OTHER_DRAWS}")


def _divided(terms: dict[str, torch.Tensor], totals: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The terms over their denominators, and `loss`, the sum of all. Raises ValueError for a task's mistake."""
    if set(terms) != set(totals) or "loss" in terms:
        raise ValueError(
            f"the task's loss has the terms {', '.join(sorted(terms))} and denominators for "
            f"{', '.join(sorted(totals))}: each term needs one, and `loss`, their total, is none of them"
        )
    divided = {name: term.float() / totals[name] for name, term in terms.items()}
    return {"loss": torch.stack(list(divided.values())).sum(), **divided}


def _channels_last(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.ndim == 4:
        return value.contiguous(memory_format=torch.channels_last)
    return value


def is_out_of_memory(error: RuntimeError) -> bool:
    """True on any device. The CPU allocator has no exception class of its own; nor have cuBLAS and cuDNN, which ask for
    memory of their own when other processes may have taken the rest of the GPU's."""
    words = ("out of memory", "can't allocate memory", "not enough memory", "_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(each in str(error) for each in words)


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
