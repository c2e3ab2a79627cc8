"""Carries out checks of one part in this process, and writes what they find to a file, a JSON line each."""

from __future__ import annotations

import gc
import importlib
import json
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from gpu import record
from gpu.record import Row, State
from gpu.trials import Bench

BROKEN_DEVICE = 3
"""Exit code after an error that no later call to CUDA survives; the checks that wait need another process."""


def main(part: str, checks: Sequence[str], file: Path, device: str, small: bool) -> int:
    """`checks`: names of functions in the part's module, each of which takes a Bench and yields rows."""
    with file.open("a", buffering=1) as lines, tempfile.TemporaryDirectory(prefix="gpu-") as folder:

        def say(**what: Any) -> None:
            lines.write(json.dumps(what) + "\n")

        # as the project does before a process computes; here models are also called without it
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        on_cuda = device.startswith("cuda")
        if on_cuda and not torch.cuda.is_available():
            say(refused=f"torch {torch.__version__} sees no CUDA device; --small runs on the CPU")
            return 0
        if on_cuda:
            torch.cuda.set_device(torch.device(device))
        say(machine=record.machine(device))
        threads = 1 if small else min(8, len(os.sched_getaffinity(0)))  # tiny tensors only wait for threads
        bench = Bench(device, small, Path(folder), threads)
        torch.set_num_threads(bench.threads)
        module = importlib.import_module(f"gpu.{part}")
        for name in checks:
            say(begin=name)
            for row in _rows(getattr(module, name), bench, name):
                say(row=row.plain())
            say(end=name)
            gc.collect()
            if on_cuda and not _usable():
                return BROKEN_DEVICE
    return 0


def _rows(check: Callable[[Bench], Iterator[Row]], bench: Bench, name: str) -> Iterator[Row]:
    """What a check gives; an exception is its last row."""
    began = time.monotonic()
    try:
        for row in check(bench):
            row.seconds = time.monotonic() - began
            yield row
    except Exception as error:  # whatever it is: other checks are worth running
        note = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        yield Row(name, State.broke, note=note, seconds=time.monotonic() - began, traceback=traceback.format_exc())


def _usable() -> bool:
    """Frees what the last check left on the device; False when the device takes no more calls from this process."""
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    except RuntimeError:
        return False
    return True
