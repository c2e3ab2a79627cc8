"""Memory that a call takes at most, in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

Prepared = Callable[[str, int, int], Callable[[], Any]]
"""Side, images, classes -> what is measured."""


def resident(field: str) -> float:
    """MiB of this process: VmRSS now, VmHWM at most."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def _measure(prepared: Prepared, sides: Iterable[str], size: tuple[int, int], answer: Any) -> None:
    torch.set_num_threads(1)
    found = {}
    for side in sides:
        call = prepared(side, *size)
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
        before = resident("VmRSS")
        call()
        found[side] = resident("VmHWM") - before
    answer.put(found)


def peaks(prepared: Prepared, sides: Iterable[str], images: int, classes: int) -> dict[str, float]:
    """Side -> MiB that what `prepared(side, images, classes)` gives takes at most, beside what was there before."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(1 << 16)  # there, what is freed is no longer resident
    process = context.Process(target=_measure, args=(prepared, tuple(sides), (images, classes), answer))
    process.start()
    del os.environ["MALLOC_MMAP_THRESHOLD_"]
    found: dict[str, float] = answer.get()
    process.join()
    return found
