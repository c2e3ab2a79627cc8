"""The state of a running trial: its place, numerics, model and data, and its progress."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from tasks.backbones.spec import BackboneSpec
from tasks.base import Loaders
from workers import distributed
from workers.averaged import Average
from workers.checkpoint import Folder
from workers.draws import Draws
from workers.messages import Assignment, Report, Weights
from workers.optim import ParameterGroup, Schedule
from workers.rounds import Rounds
from workers.trial import RuntimeSpec, TrialSpec


@dataclass(frozen=True)
class RankContext:
    """Where and how one process runs a trial: everything that is not part of the trial."""

    folder: Path
    """The trial's own folder, on storage that every node can read: checkpoints, weights, outcome."""
    data_root: Path
    device: str = "cpu"
    """As torch names it: `cpu`, `cuda:0`."""
    rank: int = 0
    world: int = 1
    """Processes that share the global batch; above 1, a torch.distributed process group must exist."""
    threads: int = 1
    parents: Mapping[str, Weights] = field(default_factory=dict)
    """Weights of the trials from which this one may start, by key."""
    keep_weights: bool = False
    token: int = 0
    time_limit_s: float | None = None
    """Largest wall time of the trial, all its attempts together."""


@dataclass(frozen=True)
class Numerics:
    """The numerics that a spec asks for, with `auto` resolved for the device."""

    device: torch.device
    dtype: torch.dtype
    """bfloat16: training runs under autocast; the weights stay fp32."""
    channels_last: bool
    tf32: bool
    """Convolutions and matrix products in fp32 may use tf32; never on a CPU."""

    @classmethod
    def of(cls, runtime: RuntimeSpec, backbone: BackboneSpec, device: str) -> Numerics:
        on_cuda = torch.device(device).type == "cuda"
        native = on_cuda and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = ("bf16" if native else "fp32") if runtime.precision == "auto" else runtime.precision
        by_default = on_cuda and backbone.suits_channels_last
        channels_last = by_default if runtime.channels_last == "auto" else runtime.channels_last == "on"
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        return cls(torch.device(device), dtype, channels_last, runtime.tf32 and on_cuda)

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)


@dataclass
class Progress:
    """How far a trial is: the content of a checkpoint beside model and optimizer. Plain values only.

    Schedule, data order and random numbers have no state: all three are functions of seed and step (`Schedule.lr`,
    `Loaders.epoch`, `seed_all`).
    """

    micro_batch: int
    """Samples per forward pass of one worker; smaller than the spec's after memory ran out."""
    epoch: int = 0
    """The current round, from 0: an epoch, or a part of a length in iterations (see workers.rounds)."""
    step_in_epoch: int = 0
    """Optimizer steps of that round so far."""
    step: int = 0
    """Optimizer steps so far."""
    sums: dict[str, float] = field(default_factory=dict)
    """Terms of the loss, summed over the steps of this round."""
    epoch_step_seconds: float = 0.0
    """Time of this round's steps, data included, without evaluation and checkpoints."""
    epoch_wait: float = 0.0
    """The part of it in which the loop waited for data."""
    epoch_seconds: float = 0.0
    """Wall time of this round."""
    seconds: float = 0.0
    """Wall time of all attempts with evaluation and checkpoints, without steps that were lost by a kill."""
    step_seconds: deque[float] = field(default_factory=lambda: deque(maxlen=1000))
    """Time of each of the latest steps, data included."""
    reports: list[Report] = field(default_factory=list)
    """All reports so far. They are sent again after a resume: the process may have died before they were taken."""
    ran_on: list[dict[str, Any]] = field(default_factory=list)
    """Processor, kernels and threads of every attempt that differs in them from the one before, and the step from which
    on it trained: the last digits depend on them."""
    notes: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    """Samples that were replaced by others because they could not be read, each once, with the reason."""

    def plain(self) -> dict[str, Any]:
        return {**asdict(self), "step_seconds": list(self.step_seconds)}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Progress:
        reports = [Report.from_plain(report) for report in plain["reports"]]
        return cls(**{**plain, "step_seconds": deque(plain["step_seconds"], maxlen=1000), "reports": reports})


@dataclass
class TrainingState:
    """Everything that the training loop works with, in one process."""

    trial: TrialSpec
    place: RankContext
    folder: Folder
    numerics: Numerics
    loaders: Loaders
    model: nn.Module
    """The model itself: its parameter names are those of checkpoints and weights."""
    wrapped: nn.Module
    """The model as it is trained: with several ranks in DistributedDataParallel, or (the same object) in shards."""
    groups: list[ParameterGroup]
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    rounds: Rounds
    progress: Progress
    draws: Draws
    average: Average | None = None
    """The moving average of the weights, if one is kept (`optim.ema`)."""
    resumed_at: int | None = None
    """Step of the checkpoint from which this attempt started."""
    draws_need_whole_batch: bool = False
    """True once the model drew random numbers that could not be drawn for the global batch (see workers.gradients)."""
    micro_batch_fits: bool = False
    """True once a step of this attempt succeeded with this micro-batch."""
    flops_measured: bool = False
    """True once `flops_per_image` was measured, or found to be unknown."""
    flops_per_image: float | None = None
    """Operations of one training step per sample; None where MFU is unknown (see workers.throughput)."""
    peak_flops: float | None = None
    """FLOP/s of one worker's device."""
    saved_epoch: int = 0
    saved_step: int = -1
    saved_state: str = "initial"
    """SHA-256 of the last checkpoint that was written (on rank 0) or read; `initial` before the first."""
    saved_at: float = field(default_factory=time.monotonic)
    averaged_sha256: str | None = None
    """Of the file of averaged weights, where one was written beside the weights that are handed on."""
    _lap: float = field(default_factory=time.monotonic)

    def seconds(self) -> float:
        """Wall time of the trial until now, all its attempts together."""
        return self.progress.seconds + time.monotonic() - self._lap

    def lap(self) -> float:
        """Seconds since the last call, which are added to those of round and trial."""
        now = time.monotonic()
        seconds, self._lap = now - self._lap, now
        self.progress.seconds += seconds
        self.progress.epoch_seconds += seconds
        return seconds

    @cached_property
    def parameters(self) -> list[nn.Parameter]:
        """Of the model: to find them among its modules takes a small model half as long as the norm of its gradient."""
        return list(self.model.parameters())

    @cached_property
    def statistics(self) -> list[torch.Tensor]:
        """Buffers that a forward pass in training moves."""
        return distributed.running_statistics(self.model)

    @property
    def sharded(self) -> bool:
        """True if no rank has the whole model, so that every forward pass needs all of them."""
        return distributed.is_sharded(self.model)

    def where(self, what: str) -> str:
        """`what`, after the round and step in which it happened; for messages."""
        round_ = "epoch" if self.trial.optim.iterations is None else "round"
        return f"{round_} {self.progress.epoch + 1}, step {self.progress.step + 1}: {what}"

    def save(self) -> None:
        """Writes a checkpoint on rank 0, unless there is one of this step; the others wait until it is written."""
        if self.saved_step != self.progress.step:
            state = self.state()
            if self.place.rank == 0:
                self.saved_state = self.folder.save(state, self.progress.step)
        if self.place.world > 1:
            dist.barrier()
        self.mark_saved()
        self.lap()

    def state(self) -> dict[str, Any]:
        """Model, optimizer and progress, whole, on rank 0: the same whatever the number of workers. Where the model is
        in shards, every rank must call."""
        keep = self.place.rank == 0
        if not (keep or self.sharded):
            return {}
        assert self.average is None or not self.average.in_model, "a checkpoint holds the weights that train"
        return {
            **({"ema": self.average.whole(keep)} if self.average else {}),
            "model": distributed.whole_weights(self.model, keep),
            "optimizer": distributed.whole_optimizer(self.model, self.optimizer, keep),
            "progress": self.progress.plain(),
            "batch": self.trial.optim.batch,
            "steps_per_epoch": self.loaders.steps_per_epoch,
            "workers": self.place.world,
        }

    def mark_saved(self) -> None:
        """Notes that a checkpoint of this step exists."""
        self.saved_epoch, self.saved_step = self.progress.epoch, self.progress.step
        self.saved_at = time.monotonic()


def rank_context(assignment: Assignment, rank: int, device: str) -> RankContext:
    """The context of one of the processes that run an assigned trial."""
    return RankContext(
        folder=Path(assignment.folder),
        data_root=Path(assignment.data_root),
        device=device,
        rank=rank,
        world=assignment.workers,
        threads=max(1, int(assignment.cpus)),
        parents=assignment.parents,
        keep_weights=assignment.keep_weights,
        token=assignment.token,
        time_limit_s=assignment.time_limit_s,
    )
