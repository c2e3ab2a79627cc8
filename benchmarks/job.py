"""The whole laptop job of specs/k12_grid.yaml against its work / slots: how long the command takes, and where it goes.

    python benchmarks/job.py                     a fresh folder, a fresh local Ray, tracking on; minutes on 2 cores
    python benchmarks/job.py --set optim.epochs=3 --set optim.warmup_epochs=1

Work: the sum of the trials' own train_seconds (training and evaluation in them, as they took beside the driver, Ray
and the mirror), from the store. Reach: the command, from its start to its end, at most 1.25 x work / slots. Slots: CPUs
of the local cluster. The parts are in seconds of the command's time (a slot that waits for a second counts 1 / slots)
and add up to it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import noop

from orchestrator.records.rows import AttemptRow
from orchestrator.records.trial_files import trial_folder
from orchestrator.settings import sqlite_url
from orchestrator.store.store import open_store

ROOT = Path(__file__).resolve().parents[1]
NEW_ACTOR_S = 0.3
"""A trial that begins so long after it was claimed had to wait for a new actor."""


@dataclass(frozen=True)
class Ran:
    """A trial's attempt; times in seconds since 1970."""

    claimed: float
    begun: float
    ended: float
    trained: float
    """Seconds."""

    @property
    def beside(self) -> float:
        """Seconds in which it had its slot and did not train."""
        return self.ended - self.claimed - self.trained


def environment() -> dict[str, str]:
    """This process's variables, without those that would send a command elsewhere."""
    others = ("DATABASE_URL", "DATA_ROOT", "MLFLOW_TRACKING_URI")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ORCHESTRATOR_", "RAY_")) and name not in others
    }


def submit(spec: Path, folder: Path, cpus: int, arguments: list[str]) -> tuple[float, float]:
    """Submits a spec with the command that a user types; returns when it began and ended."""
    command = [sys.executable, "-m", "orchestrator", "submit", str(spec)]
    command += ["--runs", str(folder), "--cpus", str(cpus), "--quiet", *arguments]
    begun = time.time()
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    ended = time.time()
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return begun, ended


def ran(folder: Path) -> list[Ran]:
    """The job's attempts, each of which must have ended well."""
    found = []
    with closing(open_store(sqlite_url(folder / "store.db"), create=False)) as store:
        (job,) = store.jobs.all()
        for key in {row.key for row in store.trials.placed(job.id)}:
            trained = store.trials.get(key).facts["train_seconds"]
            attempts: list[AttemptRow] = store.trials.attempts(key)
            if [attempt.cause for attempt in attempts] != ["done"]:
                raise SystemExit(f"trial {key[:8]} did not go through at once: {attempts}")
            (attempt,) = attempts
            assert attempt.ended is not None
            found.append(Ran(attempt.started, begun(trial_folder(folder / "storage", key)), attempt.ended, trained))
    return sorted(found, key=lambda one: one.claimed)


def begun(folder: Path) -> float:
    """When the trial's log begins: "2026-01-31 09:30:00,123 INFO begin ..."."""
    day, clock = (folder / "log.txt").read_text().split(maxsplit=2)[:2]
    seconds, milliseconds = clock.split(",")
    return time.mktime(time.strptime(f"{day} {seconds}", "%Y-%m-%d %H:%M:%S")) + int(milliseconds) / 1000


def parts(folder: Path, trials: list[Ran], start: float, end: float, slots: int) -> dict[str, float]:
    """Where the command's time went, in seconds of it."""
    starting, up = (folder / "ray.start").stat().st_mtime, (folder / "ray.json").stat().st_mtime
    (report,) = (folder / "reports").glob("*/report.html")
    written = report.stat().st_mtime
    first, last_claim, last = trials[0].claimed, trials[-1].claimed, max(one.ended for one in trials)
    new = [one for one in trials if one.begun - one.claimed > NEW_ACTOR_S]
    reused = [one for one in trials if one.begun - one.claimed <= NEW_ACTOR_S]

    def beside(ones: list[Ran]) -> float:
        return sum(one.beside for one in ones) / slots

    def idle(low: float, high: float) -> float:
        """Seconds of slots without a trial between two moments."""
        busy = sum(max(0.0, min(one.ended, high) - max(one.claimed, low)) for one in trials)
        return slots * (high - low) - busy

    return {
        "work / slots": sum(one.trained for one in trials) / slots,
        "start of the command: imports, spec, store, plan": starting - start,
        "start of Ray": up - starting,
        "connecting, until the first trial is claimed": first - up,
        f"start of {len(new)} actors: process, import of torch and timm, first data": beside(new),
        f"in {len(reused)} trials on warm actors: model, data, checkpoints, commit": beside(reused),
        "slots without a trial, before the last one is claimed": idle(first, last_claim) / slots,
        "slots without a trial, after that (the tail)": idle(last_claim, last) / slots,
        "leaving Ray, last sync of MLflow, report begun": written - last,
        "rest of the report, table, exit": end - written,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpus", type=int, default=noop.SLOTS)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="override a field of the spec")
    given = parser.parse_args()
    print(noop.machine())
    overrides = [word for override in given.set for word in ("--set", override)]
    for _ in range(given.repeats):
        folder = Path(tempfile.mkdtemp(prefix="job-"))
        try:
            start, end = submit(ROOT / "specs" / "k12_grid.yaml", folder, given.cpus, overrides)
            trials = ran(folder)
            table = parts(folder, trials, start, end, given.cpus)
        finally:
            noop.end_cluster(folder)
            shutil.rmtree(folder, ignore_errors=True)
        wall, least = end - start, table["work / slots"]
        print(f"\n{len(trials)} trials, {given.cpus} slots, {wall:.1f} s; of it")
        for title, seconds in table.items():
            print(f"  {seconds:7.1f} s {seconds / wall:6.1%}  {title}")
        print(f"  ratio {wall / least:.2f} (to reach: 1.25); load at the end {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()
