"""Memory of the driver per finished trial, at 3,000 trials that do nothing, in the engine as `submit` runs it.

    python benchmarks/memory.py                  about two minutes on 2 cores
    python benchmarks/memory.py --trials 500 --no-tune
    python benchmarks/memory.py --trials 1000 --no-tune --where     what holds it (tracemalloc, slow)

Resident memory of the driver's process, garbage collected, at every 250th trial that ended. All trials are placed
before the first one runs, so the figure to reach (at most 10 KB) is the slope against finished trials, by least
squares over all samples after the first one; what placing them takes, and the whole, is said too. Tuned Tune (no
loggers, actors reused) in a process of its own after ours.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import shutil
import statistics
import tempfile
import tracemalloc
from pathlib import Path

import noop
from noop import resident_kb

from orchestrator.engine.driver import Driver

EVERY = 250
Samples = list[tuple[int, float]]
"""(trials that ended, KB)"""


def slope(samples: Samples) -> float:
    """KB per finished trial."""
    later = samples[1:] if len(samples) > 2 else samples
    return statistics.linear_regression([count for count, _ in later], [kb for _, kb in later]).slope


def show(title: str, samples: Samples, before: float) -> None:
    print(f"\n{title}")
    print("  finished " + "".join(f"{count:8}" for count, _ in samples))
    print("  MB       " + "".join(f"{kb / 1024:8.1f}" for _, kb in samples))
    count, last = samples[-1]
    whole = (last - before) / count
    print(f"  {slope(samples):.1f} KB per finished trial; the whole, planning and start included: {whole:.1f} a trial")


def sample_ours(count: int, every: int, folder: Path, where: bool) -> None:
    samples: Samples = []
    placed: list[float] = []
    snapshots: list[tracemalloc.Snapshot] = []

    def watch(drive: Driver) -> None:
        done = drive.tally.finished
        if done >= every * (len(samples) + 1) or done == count:
            samples.append((done, resident_kb()))
            if where:
                snapshots.append(tracemalloc.take_snapshot())

    noop.ours(10, folder / "warm")  # imports, connections, Ray's own buffers
    if where:
        tracemalloc.start(8)
    before = resident_kb()
    noop.ours(count, folder / "measured", watch=watch, planned=lambda: placed.append(resident_kb()))
    show(f"ours, {count} trials", samples, before)
    print(f"  of it {(placed[0] - before) / count:.1f} KB per placed trial before the first one ran")
    verdict = "reached" if slope(samples) <= 10 else "NOT reached"
    print(f"  to reach: at most 10 KB per finished trial: {verdict}", flush=True)
    if where:
        for change in snapshots[-1].compare_to(snapshots[0], "traceback")[:12]:
            each = change.size_diff / 1024 / (samples[-1][0] - samples[0][0])
            print(f"  {each:8.2f} KB a trial, {change.count_diff} objects")
            print("    " + "\n    ".join(change.traceback.format(4)))


def sample_tuned(count: int, every: int, folder: Path) -> None:
    samples: Samples = []

    def after(done: int) -> None:
        if done % every == 0:
            samples.append((done, resident_kb()))

    printed = io.StringIO()
    with noop.small_ray(), contextlib.redirect_stdout(printed):
        noop.tuned_tune(10, folder / "warm")
        before = resident_kb()
        noop.tuned_tune(count, folder / "measured", after)
    show(f"Ray Tune tuned, {count} trials", samples, before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=3000)
    parser.add_argument("--every", type=int, default=EVERY)
    parser.add_argument("--no-tune", action="store_true", help="leave Ray Tune out")
    parser.add_argument("--where", action="store_true", help="trace allocations; figures are then not comparable")
    given = parser.parse_args()
    print(noop.machine())
    root = Path(tempfile.mkdtemp(prefix="memory-"))
    try:
        with noop.small_ray():
            sample_ours(given.trials, given.every, root / "ours", given.where)
        if not given.no_tune:
            other = multiprocessing.get_context("spawn").Process(
                target=sample_tuned, args=(given.trials, given.every, root / "tune")
            )
            other.start()
            other.join()
            if other.exitcode:
                raise SystemExit(f"the process for Ray Tune ended with {other.exitcode}")
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
