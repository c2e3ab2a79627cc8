"""Says what a device does in some steps of training: its kernels by kind, the longest ones, and how long it waits."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from gpu.trials import Bench, Steps

KINDS = (
    ("memcpy", r"memcpy|memset"),
    ("optimizer", r"adam|multi_tensor|foreach|lp_?norm"),
    ("attention", r"fmha|flash|softmax|scaled_dot|sdpa"),
    ("pooling", r"pool"),
    ("convolution", r"conv|wgrad|dgrad|cudnn"),
    ("matmul", r"gemm|cutlass|cublas|nvjet|matmul|xmma|wgmma|splitk|addmm|::b?mm\b|::linear"),
    ("norm", r"layer_?norm|batch_?norm|group_?norm|GammaBeta|cuCompute|RowwiseMoments"),
    ("layout copies", r"copy|transpose|roll|CatArray|::cat\b|nchw|nhwc|contiguous|clone|index|gather|scatter|fill"),
    ("reduction", r"reduce|::sum\b|::mean\b|triton_(red|per)"),
    ("elementwise", r"elementwise|triton_poi|::(add|mul|div|sub|gelu|where|clamp|exp|rsqrt|pow)"),
)
"""Kind of kernel, and what its name has in it; the first that fits. A cast between fp32 and bf16 is a copy. What
torch.compile makes is named after the shape of its loop: a reduction, or pointwise."""
OTHER = "other"


def kind_of(name: str) -> str:
    """The kind of a kernel by its name."""
    return next((kind for kind, pattern in KINDS if re.search(pattern, name, re.IGNORECASE)), OTHER)


@dataclass(frozen=True)
class Kernel:
    name: str
    start: float
    end: float
    """Microseconds."""


@dataclass(frozen=True)
class Profile:
    """Of some steps."""

    steps: int
    wall: float
    """Microseconds, from the first step's beginning until the device has ended the last one."""
    kernels: tuple[Kernel, ...]

    @property
    def total(self) -> float:
        """Microseconds of all kernels."""
        return sum(kernel.end - kernel.start for kernel in self.kernels)

    @property
    def busy(self) -> float:
        """Part of the wall time in which at least one kernel runs."""
        covered, reached = 0.0, float("-inf")
        for kernel in sorted(self.kernels, key=lambda each: each.start):
            covered += max(0.0, kernel.end - max(kernel.start, reached))
            reached = max(reached, kernel.end)
        return covered / self.wall

    def shares(self) -> dict[str, float]:
        """Of all kernels' time, by kind, the largest first."""
        time_of: Counter[str] = Counter()
        for kernel in self.kernels:
            time_of[kind_of(kernel.name)] += kernel.end - kernel.start  # type: ignore[assignment]
        return {kind: time / self.total for kind, time in time_of.most_common()}

    def longest(self, count: int) -> list[tuple[str, float, float]]:
        """Name, share of all kernels' time and calls in a step of those kernels that take most."""
        time_of, calls = Counter[str](), Counter(kernel.name for kernel in self.kernels)
        for kernel in self.kernels:
            time_of[kernel.name] += kernel.end - kernel.start  # type: ignore[assignment]
        return [(name, time / self.total, calls[name] / self.steps) for name, time in time_of.most_common(count)]

    def figures(self) -> dict[str, Any]:
        return {
            "step ms": self.wall / self.steps / 1e3, "busy": self.busy,
            "kernels a step": len(self.kernels) / self.steps,
            "mean kernel us": self.total / len(self.kernels), **self.shares(),
        }  # fmt: skip


def profiled(steps: Steps, count: int, bench: Bench) -> Profile:
    """So many steps. On a GPU its kernels alone are recorded, which hardly slows the host; on a CPU torch's operations.

    Raises RuntimeError when nothing was recorded.
    """
    activity = ProfilerActivity.CUDA if bench.on_cuda else ProfilerActivity.CPU
    with profile(activities=[activity], acc_events=True) as recorded:
        began = time.perf_counter()
        steps.seconds(count)
        wall = 1e6 * (time.perf_counter() - began)
    kernels = tuple(_kernels(recorded.events() or (), bench.on_cuda))
    if not kernels:
        raise RuntimeError("the profiler recorded no kernel")
    return Profile(count, wall, kernels)


def _kernels(events: Iterable[Any], on_cuda: bool) -> Iterable[Kernel]:
    for event in events:
        if on_cuda:  # annotations such as Optimizer.step lie on the device's line too
            annotation = getattr(event, "is_user_annotation", False) or "#" in event.name
            wanted = event.device_type == DeviceType.CUDA and not annotation
        else:  # the outermost ones
            above = event.cpu_parent.name if event.cpu_parent else ""
            wanted = event.name.startswith("aten::") and not above.startswith("aten::")
        if wanted:
            yield Kernel(event.name, event.time_range.start, event.time_range.end)
