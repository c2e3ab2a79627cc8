"""Seconds of our own per trial that does nothing, against Ray Tune as it comes and as an expert sets it, in one run.

    python benchmarks/overhead.py                        100 and 300 trials on 2 slots; about ten minutes on 2 cores
    python benchmarks/overhead.py --trials 30 --repeats 1 --default-repeats 1

One Ray with 2 CPUs for all; they take turns. Per trial: the clock runs from the end of the first trial to the end of
the last, over the trials between, so the start of Ray and of the first actor is excluded for all. Our planning and
recording of all trials before the first one is added to ours; Tune does that in between. (Tuned Tune keeps one actor
busy where trials are this short, ours both.) Whole call: from the call to its return, start and end of actors
included, start of Ray not. Reach, by either: ours at most 0.5 of tuned Tune, default Tune at least 20 times ours.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import noop
from noop import Ends

NAMES = {
    "ours": "ours: planner, SQLite (FULL), reports; tracking off",
    "mirrored": "ours, MLflow mirror process running",
    "tuned": "Tune tuned: class, reuse_actors, no loggers, no snapshots",
    "default": "Tune default: function, all loggers, fresh actors",
}


def measured(run: Callable[[int, Path], Ends], count: int, root: Path) -> Ends:
    """One run in a fresh folder; what it prints goes to a file there."""
    folder = Path(tempfile.mkdtemp(dir=root))
    try:
        with open(folder / "printed.txt", "w") as printed, contextlib.redirect_stdout(printed):
            return run(count, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def compare(count: int, repeats: int, default_repeats: int, root: Path) -> None:
    runs: dict[str, Callable[[int, Path], Ends]] = {
        "ours": noop.ours,
        "tuned": noop.tuned_tune,
        "mirrored": partial(noop.ours, mirrored=True),
        "default": noop.default_tune,
    }
    each: dict[str, list[float]] = {name: [] for name in NAMES}  # milliseconds
    whole: dict[str, list[float]] = {name: [] for name in NAMES}
    for turn in range(max(repeats, default_repeats)):
        order = list(runs) if turn % 2 == 0 else list(reversed(runs))
        for name in order:
            if turn < (default_repeats if name == "default" else repeats):
                ends = measured(runs[name], count, root)
                each[name].append(ends.per_trial() * 1e3)
                whole[name].append(ends.whole / count * 1e3)
    print(f"\n{count} trials, {noop.SLOTS} slots; ms per trial: median (lowest to highest)")
    print(f"  {'':58} {'per trial':28}  {'whole call / trials':28}  runs")
    for name, title in NAMES.items():
        if not each[name]:
            continue
        print(f"  {title:58} {noop.spread(each[name]):28}  {noop.spread(whole[name]):28}  {len(each[name])}")
    for name in ("ours", "mirrored"):
        for kind, values in (("per trial", each), ("whole call", whole)):
            middle = {other: statistics.median(found) for other, found in values.items() if found}
            line = f"  {kind}: {name} / tuned {middle[name] / middle['tuned']:.2f}"
            if "default" in middle:
                line += f", default / {name} {middle['default'] / middle[name]:.0f}"
            print(line + ("; to reach: 0.5 and 20" if name == "ours" else ""), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 300])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--default-repeats", type=int, default=1, help="over a second per trial (0: left out)")
    parser.add_argument("--folder", type=Path, help="on which disk (default: the temporary folder)")
    given = parser.parse_args()
    print(noop.machine())
    root = Path(tempfile.mkdtemp(prefix="overhead-", dir=given.folder))
    try:
        with noop.small_ray():
            for count in given.trials:
                compare(count, given.repeats, given.default_repeats, root)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(f"load at the end {noop.os.getloadavg()[0]:.1f}; {time.strftime('%H:%M')}")


if __name__ == "__main__":
    main()
