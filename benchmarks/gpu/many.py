"""Measures how many small trials a GPU gets done when several processes share it, against one trial after another."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import torch

from gpu.record import Row, State
from gpu.speed import GIB, Size, finetuning
from gpu.trials import Bench, DrawnTrial
from gpu.worker import Worker

IMAGES = 384
"""Of an epoch: six steps, so that eight trials take half a minute. K12's smallest sets have 1,020 to train on."""
CONTEXT_GIB = 0.7
"""Of a process with CUDA, beside what torch allocates: a guess on the safe side."""


def at_once(bench: Bench) -> Iterator[Row]:
    """Trials of the paper profile of specs/k12_grid.yaml on K12-sized data in warm processes: 1, 2, 4 and 8 at once.

    `gain`: images per second of all together, in their last epoch, over those of one alone. Where memory is short,
    trials that share the GPU have smaller micro-batches than one alone, as they would have to.
    """
    counts = (1, 2) if bench.small else (1, 2, 4, 8)
    with ExitStack() as processes, ThreadPoolExecutor(counts[-1]) as threads:
        workers = [processes.enter_context(Worker(bench, f"worker {number}")) for number in range(counts[-1])]
        list(threads.map(Worker.ready, workers))
        _together(bench, threads, workers, _trial(bench, 8, len(workers), images=64))  # and warm
        alone = need = 0.0
        for count in counts:
            micro_batch = _micro_batch(bench, count, need)
            trial = _trial(bench, micro_batch, count)
            seconds, answers = _together(bench, threads, workers[:count], trial)
            rate = sum(answer["images_per_second"] for answer in answers)
            if count == 1:
                alone, need = rate, answers[0]["facts"]["gpu_memory_bytes"] / GIB
            figures: dict[str, Any] = {
                "images/s": rate, "gain": rate / alone, "seconds": seconds,
                "micro-batch": answers[0]["facts"]["micro_batch"],
                "data wait": max(answer["data_wait"] for answer in answers),
            }  # fmt: skip
            if bench.on_cuda:
                figures["peak GiB each"] = max(answer["facts"]["gpu_memory_bytes"] for answer in answers) / GIB
            notes = {note for answer in answers for note in answer["facts"]["notes"]}
            name = "1 trial alone" if count == 1 else f"{count} trials at once"
            yield Row(name, State.measured, figures, note="; ".join(sorted(notes)))


def _together(
    bench: Bench, threads: ThreadPoolExecutor, workers: Sequence[Worker], trial: DrawnTrial
) -> tuple[float, list[dict[str, Any]]]:
    """Seconds until the last of them has carried out the trial, and their answers."""
    began = time.monotonic()
    cores = max(1, bench.threads // len(workers))
    for number, worker in enumerate(workers):
        worker.ask(trial, bench.folder / f"{began}-{number}", cores, keep_weights=False)
    answers = []
    for answer, worker in zip(threads.map(Worker.answer, workers), workers, strict=True):
        if answer is None:
            raise RuntimeError(f"the process of a trial ended: {worker.why()}")
        answers.append(answer)
    return time.monotonic() - began, answers


def _trial(bench: Bench, micro_batch: int, count: int, images: int = IMAGES) -> DrawnTrial:
    """Two epochs in batches of 64, with the trial's part of the machine's cores for its data."""
    cores = len(os.sched_getaffinity(0)) // count
    loaders = 1 if bench.small else max(1, min(7, cores - 1))
    trial = finetuning(bench, Size(64, epochs=2), "flowers", 8 if bench.small else images, loader_workers=loaders)
    optim = trial.optim.model_copy(update={"micro_batch": 4 if bench.small else micro_batch})
    return trial.model_copy(update={"optim": optim})


def _micro_batch(bench: Bench, count: int, need: float) -> int:
    """The largest with which so many trials fit. `need`: GiB of one with 64; 0: not measured yet."""
    if not bench.on_cuda or not need:
        return 64
    total = torch.cuda.get_device_properties(bench.device).total_memory / GIB
    fits = [size for size in (64, 32, 16, 8) if count * (need * size / 64 + CONTEXT_GIB) < 0.9 * total]
    return fits[0] if fits else 8
