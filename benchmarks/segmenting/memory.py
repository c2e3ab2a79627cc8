"""Memory that a call takes at most, in a process of its own."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch

Prepared = Callable[[str, int, int], Callable[[], Any]]
"""Side, images, classes -> what is measured."""


def _measured(prepared: Prepared, sides: Iterable[str], images: int, classes: int) -> dict[str, float]:
    from analysis import forget_peak, resident  # with timm, which the parent does not need

    torch.set_num_threads(1)
    found = {}
    for side in sides:
        call = prepared(side, images, classes)
        forget_peak("cpu")
        before = resident("VmRSS")
        call()
        found[side] = resident("VmHWM") - before
    return found


def peaks(prepared: Prepared, sides: Iterable[str], images: int, classes: int) -> dict[str, float]:
    """Side -> MiB that what `prepared(side, images, classes)` gives takes at most, beside what was there before."""
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(1 << 20)  # there, what is freed is no longer resident
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        found = process.submit(_measured, prepared, tuple(sides), images, classes)
        del os.environ["MALLOC_MMAP_THRESHOLD_"]
        return found.result()
