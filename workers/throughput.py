"""Measures how fast a trial runs: values of each round's report, and the facts of the outcome."""

from __future__ import annotations

import importlib.metadata
import math
import platform
import socket
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from tasks.backbones.dropped_layers import cut_facts
from tasks.backbones.frozen import train_mode
from tasks.base import Batch
from workers.plugin_code import plugin_versions
from workers.state import TrainingState
from workers.trial import TrialSpec

PREFIX = "system_"
"""Prefix of those values of a report that are about the run and not its result; they differ from run to run."""

PEAK_TFLOPS = (
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H100", 989.4),
    ("H200 NVL", 835.0),
    ("H200", 989.4),
    ("GH200", 989.4),
    ("B200", 2250.0),
    ("A100", 311.8),
    ("A800", 311.8),
    ("A30", 165.0),
    ("A40", 149.7),
    ("L40S", 362.0),
    ("L4", 121.0),
    ("RTX A6000", 154.8),
)
"""Peak of each device in TFLOP/s: dense bfloat16 (fp32 accumulation) at the boost clock, from NVIDIA's data sheets
(which often print twice that, for sparse matrices). The first entry whose words are in the device's name counts; a
device without an entry has no MFU."""


class TimedBatches:
    """Batches of a round, and the time that the device waits for them.

    On a GPU that is the time on its own clock between the work before a batch and the batch's arrival, with the
    augmentation that runs there: what the host does while the GPU still computes costs nothing.
    """

    def __init__(self, run: TrainingState, batches: Iterator[Batch]) -> None:
        self._run, self._batches = run, batches
        self._on_cuda = run.numerics.device.type == "cuda"
        self._waits: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def take(self) -> Batch | None:
        """The next batch; None after the last."""
        if self._on_cuda:
            before, after = _event(), _event()
            before.record()
            batch = next(self._batches, None)
            after.record()
            self._waits.append((before, after))
            return batch
        began = time.monotonic()
        batch = next(self._batches, None)
        self._run.progress.epoch_wait += time.monotonic() - began
        return batch

    def count(self) -> None:
        """Adds the waits so far to the round's. On a GPU all its work up to here must be done."""
        self._run.progress.epoch_wait += sum(before.elapsed_time(after) for before, after in self._waits) / 1e3
        self._waits.clear()


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def of_round(run: TrainingState) -> dict[str, float]:
    """Speed of this round's training steps, to four digits: samples per second over all workers, the share of their
    time that rank 0 waited for data, memory of rank 0 in MiB, and MFU where it is known. Without steps, memory alone.

    Memory: on a GPU the most that this trial had allocated; else what this process has resident now, with whatever
    earlier trials of the same actor did not free. Does not wait for the device.
    """
    progress, device = run.progress, run.numerics.device
    on_cuda = device.type == "cuda"
    memory = torch.cuda.max_memory_allocated(device) if on_cuda else _resident()
    values = {"memory_mb": memory / 2**20}
    if progress.step_in_epoch:
        seconds = max(progress.epoch_step_seconds, 1e-9)
        speed = run.trial.optim.batch * progress.step_in_epoch / seconds
        values = {"images_per_second": speed, "data_wait": min(1.0, progress.epoch_wait / seconds), **values}
        if (share := _mfu(run, speed)) is not None:
            values["mfu"] = share
    return {f"{PREFIX}{name}": float(f"{value:.4g}") for name, value in values.items()}


def _resident() -> int:
    """Bytes that this process has in memory."""
    import psutil  # here: on a GPU nothing needs it

    return int(psutil.Process().memory_info().rss)


def _mfu(run: TrainingState, images_per_second: float | None) -> float | None:
    """Model FLOPs utilisation: operations the model needs (recomputation not counted) over the devices' peak."""
    if run.flops_per_image is None or run.peak_flops is None or images_per_second is None:
        return None
    return run.flops_per_image * images_per_second / (run.peak_flops * run.place.world)


def measure_flops(run: TrainingState, batch: Batch) -> None:
    """Counts operations for MFU, once, on a GPU whose peak is known and in bfloat16; else notes why there is no MFU."""
    if run.numerics.device.type != "cuda" or run.flops_measured:
        return
    run.flops_measured = True
    name = torch.cuda.get_device_name(run.numerics.device)
    run.peak_flops = peak_flops(name)
    problem = "" if run.peak_flops else f"the peak of {name} is not in workers/throughput.py"
    if run.numerics.dtype != torch.bfloat16:
        problem = "the table of peaks is of bfloat16"
    if not problem:
        try:
            run.flops_per_image = flops_per_image(run.trial, batch)
        except Exception as error:  # a task may need numbers where there are only shapes
            problem = f"its operations could not be counted: {type(error).__name__}: {error}".splitlines()[0]
    if problem and not any(note.startswith("no MFU") for note in run.progress.notes):
        run.progress.notes.append(f"no MFU: {problem}")


def peak_flops(device: str) -> float | None:
    """Peak FLOP/s of a device by its name; None for an unknown one, or for a slice of one (MIG)."""
    name = f" {device.replace('-', ' ')} "
    peak = next((tflops for words, tflops in PEAK_TFLOPS if f" {words} " in name), None)
    return None if peak is None or " MIG " in name else peak * 1e12


def flops_per_image(trial: TrialSpec, batch: Batch) -> float:
    """Floating-point operations of one training step per sample, forward and backward, a multiply-add as two.

    Counted on a copy of the model that has shapes but no numbers (meta device): nothing is computed, and the trial's
    own weights, random numbers and memory do not change. Counts matrix products, convolutions and attention.
    """
    from torch.utils.flop_counter import FlopCounterMode

    shapes = {name: _without_content(value[:2]) for name, value in batch.items()}
    samples = len(next(iter(shapes.values())))
    counts = {torch.ops.aten.convolution_backward: _conv_backward_flops}
    with torch.device("meta"):
        twin = trial.task.build(trial.backbone, None)
        train_mode(twin)
        with FlopCounterMode(display=False, custom_mapping=counts) as counter:
            terms = trial.task.loss(twin, shapes)
            total = terms["loss"] if "loss" in terms else torch.stack(list(terms.values())).sum()
            total.backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops()) / samples


def _without_content(value: Any) -> Any:
    """Tensors on the meta device, also those inside of lists and dictionaries."""
    if isinstance(value, torch.Tensor):
        return value.to("meta")
    if isinstance(value, dict):
        return {name: _without_content(part) for name, part in value.items()}
    return [_without_content(part) for part in value] if isinstance(value, list | tuple) else value


def _conv_backward_flops(
    output_gradient: Sequence[int], x: Sequence[int], weight: Sequence[int], bias: Any, stride: Any, padding: Any,
    dilation: Any, transposed: bool, output_padding: Any, groups: int, wanted: Sequence[bool], **_: Any,
) -> int:  # fmt: skip
    """Of a convolution with these shapes: the gradients of input and weights take as much as the forward pass each.

    (torch's own count has that of the weights `groups` times too large: RepLKNet-31B came out at 18 times its number.)
    """
    positions = x if transposed else output_gradient
    forward = 2 * positions[0] * math.prod(positions[2:]) * math.prod(weight)
    return forward * (wanted[0] + wanted[1])


def facts(run: TrainingState) -> dict[str, Any]:
    """How the trial was run, as JSON values; see `Outcome.facts`."""
    progress, place, numerics = run.progress, run.place, run.numerics
    step_seconds = statistics.median(progress.step_seconds) if progress.step_seconds else None
    images_per_second = run.trial.optim.batch / step_seconds if step_seconds else None
    on_cuda = numerics.device.type == "cuda"
    return {
        **run.trial.task.facts(run.model),
        **cut_facts(run.model),
        "caveats": list(run.trial.caveats),
        **({"preprocessing": dict(run.loaders.preprocessing)} if run.loaders.preprocessing else {}),
        "device": torch.cuda.get_device_name(numerics.device) if on_cuda else "cpu",
        "precision": "bf16" if numerics.dtype == torch.bfloat16 else "fp32",
        "tf32": numerics.tf32,
        "channels_last": numerics.channels_last,
        "compiled": run.trial.runtime.compile,
        "grad_checkpointing": run.trial.runtime.grad_checkpointing,
        "micro_batch": progress.micro_batch,
        "workers": place.world,
        "parallel": run.trial.runtime.parallel if place.world > 1 else "none",
        "threads": place.threads,
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "ran_on": [dict(attempt) for attempt in progress.ran_on],
        **({"weights": "averaged" if run.trial.optim.ema.hand_on else "trained"} if run.trial.optim.ema else {}),
        "steps": progress.step,
        "train_images": run.loaders.train_samples,
        "train_seconds": progress.seconds,
        "step_seconds": step_seconds,
        "images_per_second": images_per_second,
        "flops_per_image": run.flops_per_image,
        "mfu": _mfu(run, images_per_second),
        "gpu_memory_bytes": torch.cuda.max_memory_allocated(numerics.device) if on_cuda else 0,
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "data_digest": run.loaders.digest,
        "unreadable_images": list(progress.unreadable),
        "image_cache": run.loaders.image_cache,
        "resumed_at": run.resumed_at,
        "notes": list(progress.notes),
        "host": socket.gethostname(),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("torch", "torchvision", "timm", "numpy")},
            **plugin_versions(run.trial.plugins),
        },
    }
