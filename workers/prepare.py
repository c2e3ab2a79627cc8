"""Prepares a trial to run: numerics, data, model, initial weights or the last checkpoint, optimizer."""

from __future__ import annotations

import hashlib
import logging
import os
import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from tasks.backbones.compiled_blocks import compile_blocks, repeated_blocks
from tasks.backbones.loading import load, load_notes
from tasks.backbones.spec import FromTrial, Init
from tasks.backbones.swin_windows import check_same_windows
from tasks.base import DataContext, Loaders
from tasks.errors import DataError
from workers import distributed, host_memory
from workers.averaged import Average
from workers.checkpoint import Folder, digest_in_name, load_state
from workers.draws import Draws, around_block, draw_for_the_global_batch
from workers.errors import Stopped
from workers.initial_weights import check_finite, initial_weights
from workers.optim import Schedule, optimizer_of, parameter_groups
from workers.rounds import Rounds
from workers.state import Numerics, Progress, RankContext, TrainingState
from workers.trial import TrialSpec

T = TypeVar("T")
log = logging.getLogger(__name__)


def prepare(
    trial: TrialSpec, place: RankContext, folder: Folder, stop: Callable[[], bool] = lambda: False
) -> TrainingState:
    """Opens the data, builds the model, loads initial weights or the newest undamaged checkpoint.

    Each may take minutes, so `stop` is asked in between: then Stopped is raised, and nothing was changed.
    Raises DataError or TrialError (data); ValueError where the spec asks for something impossible.
    """
    _check_workers(trial, place)
    numerics = _set_up(trial, place)
    _raise_if_stopped(place, stop, numerics.device)
    loaders = _open_data(trial, place)
    _raise_if_stopped(place, stop, numerics.device)
    path, damaged = from_rank_0(place, folder.newest)
    state = folder.load(path) if path is not None else _parent_state(trial, place, loaders)
    model, notes = _model(trial, place, numerics, None if state is None else state["model"])
    _raise_if_stopped(place, stop, numerics.device)
    schedule = _schedule(trial, loaders)
    groups = parameter_groups(model, trial.optim) if trial.trains else []
    for group in groups:
        log.info("lr x %.4g, weight decay %g: %s", group.lr_scale, group.weight_decay, " ".join(group.names))
    draws = _draws(trial, place, loaders, model, numerics.device)
    draw_for_the_global_batch(model, draws)
    if trial.runtime.compile:
        _compile(trial, place, model, draws)
    wrapped = model
    if place.world > 1 and (trial.trains or trial.runtime.parallel == "fsdp"):  # DDP only exchanges gradients
        wrapped = distributed.wrap_distributed(model, trial.runtime.parallel, numerics.device)
    optimizer = optimizer_of(model, groups, trial.optim)
    if state is not None:
        distributed.load_optimizer(model, optimizer, state["optimizer"])
    average = Average(model, trial.optim.ema) if trial.trains and trial.optim.ema else None
    if average is not None and state is not None:
        average.load(state.get("ema"))
    rounds = Rounds.of(trial, loaders.steps_per_epoch)
    progress = Progress(_micro_batch(trial, place.world), trial.first_round, step=rounds.first_step(trial.first_round))
    if path is not None and state is not None:
        from_spec, progress = progress.micro_batch, Progress.from_plain(state["progress"])
        halved = progress.micro_batch < _micro_batch(trial, state["workers"])  # memory ran out before
        progress.micro_batch = min(progress.micro_batch, from_spec) if halved else from_spec
    progress.notes += notes + damaged
    _record_processor(progress, place, numerics.device)
    run = TrainingState(
        trial=trial, place=place, folder=folder, numerics=numerics, loaders=loaders, model=model, wrapped=wrapped,
        groups=groups, optimizer=optimizer, schedule=schedule, draws=draws, average=average,
        rounds=rounds, progress=progress, resumed_at=progress.step if path else None, saved_epoch=progress.epoch,
    )  # fmt: skip
    if path is not None:
        run.mark_saved()
        run.saved_state = digest_in_name(path)
    return run


def _schedule(trial: TrialSpec, loaders: Loaders) -> Schedule:
    """Raises ValueError when a warm-up in iterations does not end before the trial; only the data tell its steps."""
    schedule = Schedule(trial.optim, loaders.steps_per_epoch)
    if trial.trains and schedule.warmup_steps >= schedule.total_steps:
        raise ValueError(
            f"optim.warmup_iterations {schedule.warmup_steps} must be below the {schedule.total_steps} steps of the "
            "trial: lower it"
        )
    return schedule


def _compile(trial: TrialSpec, place: RankContext, model: nn.Module, draws: Draws) -> None:
    """Compiles the model's repeated blocks, or all of it where it has none; before it is distributed."""
    sizes = trial.task.input_size(trial.backbone), _micro_batch(trial, place.world)
    if not compile_blocks(model, partial(around_block, draws), sizes):
        model.compile()


def _draws(trial: TrialSpec, place: RankContext, loaders: Loaders, model: nn.Module, device: torch.device) -> Draws:
    """The draws of this rank's samples."""
    share = trial.optim.batch // place.world
    positions = loaders.positions
    if positions is None:
        positions = torch.arange(place.rank * share, (place.rank + 1) * share)
    # of blocks that are compiled, and in layers that are computed again, a call is known by a mark
    whole = trial.runtime.compile and not trial.runtime.grad_checkpointing and not any(repeated_blocks(model))
    return Draws(trial.optim.batch, positions, device, counts_calls=whole)


def _micro_batch(trial: TrialSpec, workers: int) -> int:
    """The micro-batch of the spec, at most a worker's share; 0 in a trial that does not train."""
    if not trial.trains:
        return 0
    share = trial.optim.batch // workers
    return min(trial.optim.micro_batch or share, share)


def _check_workers(trial: TrialSpec, place: RankContext) -> None:
    if trial.trains and trial.optim.batch % place.world:
        raise ValueError(
            f"optim.batch {trial.optim.batch} does not divide among {place.world} workers: choose a multiple, or "
            "other resources.workers"
        )
    if trial.trains and trial.task.loss_over == "batch" and place.world != trial.batch_workers:
        raise ValueError(
            f"batch_workers {trial.batch_workers}: this task's loss is computed over each worker's share, so the trial "
            f"cannot run on {place.world} workers: plan it again for resources.workers {place.world}"
        )
    if place.world > 1 and (dist.get_world_size(), dist.get_rank()) != (place.world, place.rank):
        raise ValueError(f"the process group does not have rank {place.rank} of {place.world} in this process")


def _set_up(trial: TrialSpec, place: RankContext) -> Numerics:
    """Sets threads, determinism and precision of the process; returns the numerics."""
    torch.set_num_threads(place.threads)
    # For every trial: torch reads this once, at the first matrix product of a process on CUDA, and in a warm process a
    # deterministic trial may come after another one.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(trial.runtime.deterministic)  # False too: the process may have run another trial
    numerics = Numerics.of(trial.runtime, trial.backbone, place.device)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = numerics.tf32
    if numerics.device.type == "cpu":
        host_memory.keep_freed()
    if numerics.device.type == "cuda":
        torch.cuda.set_device(numerics.device)
        torch.cuda.reset_peak_memory_stats(numerics.device)
    return numerics


def _record_processor(progress: Progress, place: RankContext, device: torch.device) -> None:
    """Adds this attempt's processor to `progress.ran_on`, unless it is as the last one's."""
    own = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "threads": place.threads,
        "workers": place.world,
    }
    if not progress.ran_on or {**progress.ran_on[-1], **own} != progress.ran_on[-1]:
        progress.ran_on.append({"from_step": progress.step, **own})


def _raise_if_stopped(place: RankContext, stop: Callable[[], bool], device: torch.device) -> None:
    if distributed.on_any_rank(place.world, stop(), device):
        raise Stopped


def _model(
    trial: TrialSpec, place: RankContext, numerics: Numerics, weights: Mapping[str, torch.Tensor] | None
) -> tuple[nn.Module, list[str]]:
    """The model on its device, not distributed yet, and notes about its initial weights.

    `weights`: whole weights of a checkpoint, in place of the initial ones.
    """
    initial = initial_weights(trial.backbone.init, place.data_root, place.parents) if weights is None else None
    seed_all(trial.seed, "model", 0)  # the same weights on every rank
    model = trial.task.build(trial.backbone, initial.tensors if initial else None)
    check_same_windows(model, initial.windows if initial else None)
    notes = initial.notes + load_notes(model) if initial else []
    trial.task.load_others(model, lambda part, init: notes.extend(_load_other(part, init, place)))
    if trial.runtime.grad_checkpointing:
        enable_grad_checkpointing(model, trial.backbone.model)
    if trial.trains:
        model = distributed.convert_batch_norm(model, trial.runtime, place.world, numerics.device)
    if weights is not None:
        model.load_state_dict(weights)
    model = model.to(numerics.device)
    sharded = place.world > 1 and trial.runtime.parallel == "fsdp"
    if numerics.channels_last and not sharded:  # FSDP refuses parameters in any other order than their own
        _weights_channels_last(model)
    return model, notes


def _weights_channels_last(model: nn.Module) -> None:
    """Lays out the weights of convolutions. Not buffers, as `model.to` would: SwinV2's table of coordinates has four
    dimensions too, and goes through linear layers, which then take twice the operations."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)


def _load_other(model: nn.Module, init: Init, place: RankContext) -> list[str]:
    """Copies weights of another source than the trial's own into a model that its task built; returns notes. Raises
    TrialError (data) where they are not finite: `workers.evaluation` looks at the trial's own model alone."""
    initial = initial_weights(init, place.data_root, place.parents)
    if initial is None:
        return []
    check_finite(initial.tensors, init.name)
    notes = load(model, initial.tensors)
    check_same_windows(model, initial.windows)
    return initial.notes + notes


def enable_grad_checkpointing(model: nn.Module, name: str) -> None:
    """Turns on timm's gradient checkpointing, of the backbone inside the model. Raises ValueError if it has none."""
    for module in model.modules():
        switch = getattr(module, "set_grad_checkpointing", None)
        if switch is None:
            continue
        try:
            switch(True)
            return
        except AssertionError:  # timm's answer for a model without it
            break
    raise ValueError(f"runtime.grad_checkpointing: {name} has none in timm; set it to false")


def _parent_state(trial: TrialSpec, place: RankContext, loaders: Loaders) -> dict[str, Any] | None:
    """The final state of the trial that this span continues; None where the schedule begins here.

    Raises ValueError when that trial did not end at the step at which this one begins.
    """
    init = trial.backbone.init
    if trial.first_round == 0 or not isinstance(init, FromTrial):
        return None
    if init.trial not in place.parents:
        raise ValueError(f"continues trial {init.trial[:8]}, whose state was not handed over")
    state = load_state(place.parents[init.trial], init.trial)
    first_step = Rounds.of(trial, loaders.steps_per_epoch).first_step(trial.first_round)
    for what, before, own in (
        ("ended after epoch", state["progress"]["epoch"], trial.first_round),
        ("has optim.batch", state["batch"], trial.optim.batch),
        ("has steps per epoch", state["steps_per_epoch"], loaders.steps_per_epoch),
        ("ended after step", state["progress"]["step"], first_step),
    ):
        if before != own:
            raise ValueError(
                f"trial {init.trial[:8]} {what} {before}, and this one would continue it with {own}: a schedule is one "
                "sequence of steps over all its spans"
            )
    return state


def seed_of(seed: int, purpose: str, step: int) -> int:
    """64 bits that are a function of the arguments."""
    text = f"{seed}/{purpose}/{step}/0".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def seed_all(seed: int, purpose: str, step: int) -> None:
    """Makes the random numbers that follow (torch on every device in use, NumPy, Python) a function of the arguments.

    Called before every pass of a step, with the same arguments for all of them: so random numbers need no state in a
    checkpoint, a step that ran out of memory is repeated with the same ones, and other threads of the process cannot
    shift them. Takes about 8 us on a CPU; torch.manual_seed, which visits every backend, takes 100.
    """
    number = seed_of(seed, purpose, step)
    torch.default_generator.manual_seed(number)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed(number)
    np.random.seed(number & 0xFFFFFFFF)
    random.seed(number)


def from_rank_0(place: RankContext, ask: Callable[[], T]) -> T:
    """Calls `ask` on rank 0 alone, and returns its result on every rank."""
    return distributed.from_rank_0(place.world, place.rank, ask)


def _open_data(trial: TrialSpec, place: RankContext) -> Loaders:
    loaders = trial.task.loaders(
        DataContext(
            root=place.data_root,
            input_size=trial.task.input_size(trial.backbone),
            device=place.device,
            seed=trial.seed,
            batch=trial.optim.batch if trial.trains else trial.task.batch_multiple(place.world)[0],
            rank=place.rank,
            world=place.world,
            loader_workers=trial.runtime.loader_workers,
            may_test=trial.may_test,
            max_unreadable=trial.runtime.max_unreadable,
            init=trial.backbone.init,
        )
    )
    if trial.trains and loaders.steps_per_epoch < 1:
        raise DataError(
            f"optim.batch {trial.optim.batch} is more than the {loaders.train_samples} training samples, so an epoch "
            "has no step: use a smaller batch"
        )
    return loaders
