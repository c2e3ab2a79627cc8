"""Computes the gradient of one optimizer step, a micro-batch at a time; halves the micro-batch when memory runs out."""

from __future__ import annotations

from typing import Any

import torch

from tasks.base import Batch
from workers import distributed
from workers.errors import ErrorClass, TrialError
from workers.prepare import seed_all
from workers.state import TrainingState


def gradients(run: TrainingState, batch: Batch) -> dict[str, torch.Tensor]:
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
            if not is_out_of_memory(error):
                raise
            problem = first_line(error)
        if problem and ranks > 1 and not alone:
            raise TrialError(
                ErrorClass.out_of_memory,
                run.where(f"{problem}; set optim.micro_batch below {progress.micro_batch}, or grad_checkpointing"),
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
            raise TrialError(ErrorClass.out_of_memory, run.where(f"at a micro-batch of 1 already: {problem}"))
        progress.notes.append(
            run.where(f"out of memory: micro-batch {progress.micro_batch} -> {progress.micro_batch // 2}: {problem}")
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


def _channels_last(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.ndim == 4:
        return value.contiguous(memory_format=torch.channels_last)
    return value


def _statistics(model: torch.nn.Module) -> list[torch.Tensor]:
    """Buffers that a forward pass in training moves (batch norm's), which a step begun again must not move twice."""
    normed = (module for module in model.modules() if getattr(module, "track_running_stats", False))
    return [buffer for module in normed for buffer in module.buffers(recurse=False)]


def is_out_of_memory(error: RuntimeError) -> bool:
    """On any device; the CPU allocator has no exception class of its own."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in text for words in ("out of memory", "can't allocate memory", "not enough memory")
    )


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
