"""Samples per second of our loaders and of those written by hand, in turns."""

from __future__ import annotations

import gc
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

from tasks.base import DataContext
from tasks.depth.task import Depth
from tasks.pose import heat_maps
from tasks.pose.task import Pose

from . import made

BATCH = 16
WARM = 2
"""Batches of a turn before its time begins: workers start, and fill their queues."""
AHEAD = 6
"""Batches that an epoch holds beyond those that are timed, so that both read ahead until the last of these."""
Batches = Callable[[int], Iterator[Any]]
"""Batches of a fresh loader; its number seeds it."""


def our_pose(root: Path, workers: int) -> Batches:
    """Up to heat maps, which our loss makes."""
    task = Pose.model_validate({"dataset": {"kind": "coco", "path": made.PEOPLE}, "boxes": "ground_truth"})

    def batches(turn: int) -> Iterator[Any]:
        for batch in task.loaders(_context(root, 256, turn, workers)).epoch(0):
            heat_maps.targets(batch["joints"], batch["visible"], (256, 256), (64, 64), task.sigma)
            yield batch

    return batches


def our_depth(root: Path, workers: int) -> Batches:
    task = Depth.model_validate({"dataset": {"kind": "depth_pairs", "path": made.ROOMS}, "windows": 2})
    return lambda turn: iter(task.loaders(_context(root, made.HEIGHT, turn, workers)).epoch(0))


def _context(root: Path, side: int, seed: int, workers: int) -> DataContext:
    return DataContext(root, (side, side), "cpu", seed=seed, batch=BATCH, loader_workers=workers)


def by_hand(kind: str, root: Path, workers: int) -> Batches:
    import cv2

    from . import by_hand as other

    cv2.setNumThreads(0)  # one thread a process, as torch has here
    data: Any = {"pose": other.People, "depth": other.Rooms}[kind](root)

    def batches(turn: int) -> Iterator[Any]:
        np.random.seed(turn)
        draw = torch.Generator().manual_seed(turn)
        return iter(DataLoader(data, BATCH, shuffle=True, num_workers=workers, drop_last=True, generator=draw))

    return batches


def compare(kind: str, timed: int, rounds: int, workers: int) -> dict[str, Any]:
    """Samples/s of each side (medians over turns), and the ratio of each turn; see benchmarks/dense.py.

    `timed`: batches of a turn. Without workers it is time of this process on its processor, else of the clock.
    """
    clock = time.perf_counter if workers else time.process_time
    count = BATCH * (WARM + timed + (AHEAD if workers else 0))
    rates: dict[str, list[float]] = {"ours": [], "ours, cached": [], "by hand": []}
    with tempfile.TemporaryDirectory(prefix="dense-") as folder:
        root = Path(folder)
        made.people(root, count // 2) if kind == "pose" else made.rooms(root, count)
        ours = {"pose": our_pose, "depth": our_depth}[kind](root, workers)
        sides = {"ours": ours, "ours, cached": ours, "by hand": by_hand(kind, root, workers)}
        for turn in range(rounds):
            for name in list(sides)[:: 1 if turn % 2 else -1]:
                os.environ["ORCHESTRATOR_CACHE"] = folder if name == "ours, cached" else "off"
                rates[name].append(_rate(sides[name](turn), timed, clock))
    ratios = {
        name: [one / other for one, other in zip(rates[name], rates["by hand"], strict=True)]
        for name in ("ours", "ours, cached")
    }
    return {
        "part": kind, "what": "samples/s of the loader", "workers": workers, "timed_samples": timed * BATCH,
        "clock": "processor time" if clock is time.process_time else "wall clock",
        "ours": statistics.median(rates["ours"]), "ours_cached": statistics.median(rates["ours, cached"]),
        "by_hand": statistics.median(rates["by hand"]), "ratio": statistics.median(ratios["ours"]),
        "ratio_cached": statistics.median(ratios["ours, cached"]), "ratios": ratios["ours"],
        "ratios_cached": ratios["ours, cached"], "aim": "at least 1.0",
    }  # fmt: skip


def _rate(batches: Iterator[Any], timed: int, clock: Callable[[], float]) -> float:
    for _ in itertools.islice(batches, WARM):
        pass
    start = clock()
    read = sum(1 for _ in itertools.islice(batches, timed))
    seconds = clock() - start
    if read < timed:
        raise SystemExit(f"an epoch ended after {read} of {timed} timed batches")
    del batches
    gc.collect()  # its workers end before others are timed
    return read * BATCH / seconds
