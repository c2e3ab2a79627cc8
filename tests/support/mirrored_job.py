"""A job in a real store and its mirror in a real MLflow database, filled as a driver would."""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.records.rows import DriverRow, JobRecord, PlacedRow, Placement
from orchestrator.records.writes import Finished, Reported
from orchestrator.store.leases import driver_here, this_host
from orchestrator.store.store import open_store
from orchestrator.tracking.mlflow_mirror import sync
from orchestrator.tracking.mlflow_runs import Synced

JOB = "study-0123456789abcdef"


class World:
    """A store that is filled as a driver would, and the addresses of its mirror."""

    def __init__(self, folder: Path, tracking_uri: str) -> None:
        self.folder = folder
        self.uri = tracking_uri
        self.store = open_store(f"sqlite:///{folder / 'store.db'}")
        self.store.jobs.put(
            JobRecord(JOB, "study", "laptop", {"name": "study", "trial": {"optim": {"lr": 1e-4}}}, "name: study",
                      git_commit="c0ffee", git_dirty=True)
        )  # fmt: skip
        self.drive("driver-1")

    def drive(self, driver_id: str, gone: bool = False) -> None:
        """From now on this driver holds what is claimed."""
        self.driver = driver_id
        here = driver_here(driver_id, JOB, "local")
        dead = DriverRow(driver_id, this_host(), here.pid, 1.0, JOB, "local")  # this pid, but of another time
        self.store.leases.register(dead if gone else here)
        self.store.jobs.set_state(JOB, "running")

    def place(self, stage: str, group: str, n: int, epochs: int = 3, extra: Mapping[str, Any] | None = None) -> str:
        lr = 1e-4 * (n + 1)
        key = hashlib.sha256(f"{stage} {group} {n}".encode()).hexdigest()
        spec = {
            "task": {"kind": "classify", "dataset": group, **(extra or {})}, "backbone": {"model": "tiny"},
            "optim": {"lr": lr},
        }  # fmt: skip
        self.store.trials.place(
            JOB,
            [Placement(stage, group, {"task.dataset": group}, key, spec, {"optim.lr": lr},
                       f"{stage}/{group}/lr={lr:g}", n, "top1", "max", 5, epochs)],
        )  # fmt: skip
        return key

    def start(self, key: str) -> int:
        return self.store.leases.claim(self.driver, [key])[key]

    def report(self, key: str, token: int, epochs: Sequence[int], seconds: float = 0.5) -> None:
        writes = [Reported(key, token, n, 10 * n, {"train_loss": 1 / n, "lr": 1e-3}, seconds) for n in epochs]
        self.store.trials.commit(self.driver, writes)

    def finish(self, key: str, token: int, **figures: float) -> None:
        facts = {"host": "node7", "device": "cpu", "data_digest": "d1", "train_seconds": 1.5}
        self.store.trials.commit(self.driver, [Finished(key, token, figures or {"top1": 0.5}, facts)])
        time.sleep(0.002)  # SQLite's clock counts milliseconds: what ends next ends later

    def trial(self, stage: str, group: str, n: int, **figures: float) -> str:
        key = self.place(stage, group, n)
        token = self.start(key)
        self.report(key, token, [1, 2, 3])
        self.finish(key, token, **figures)
        return key

    def sync(self, **options: Any) -> Synced:
        return sync(self.store, JOB, self.uri, self.folder, **options)

    def run_of(self, stage: str, group: str, key: str = "") -> Any:
        """What MLflow says of the run that the store names."""
        return self.client().get_run(self.store.tracked_runs.of(JOB)[stage, group, key].run_id)

    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri)


def contents(world: World) -> dict[str, list[tuple[Any, ...]]]:
    """All that the MLflow database says, by the runs' names, as a user would see it."""
    queries = {
        "runs": "SELECT name, status, start_time, end_time FROM runs",
        "metrics": "SELECT r.name, m.key, m.value, m.is_nan, m.step, m.timestamp"
        " FROM metrics m JOIN runs r USING (run_uuid)",
        "params": "SELECT r.name, p.key, p.value FROM params p JOIN runs r USING (run_uuid)",
        "tags": "SELECT r.name, t.key, t.value FROM tags t JOIN runs r USING (run_uuid)"
        " WHERE t.key <> 'mlflow.parentRunId'",
        "parents": "SELECT r.name, p.name FROM tags t JOIN runs r USING (run_uuid) JOIN runs p ON p.run_uuid = t.value"
        " WHERE t.key = 'mlflow.parentRunId'",
    }
    file = sqlite3.connect(world.uri.removeprefix("sqlite:///"))
    try:
        found = {name: sorted(file.execute(query).fetchall()) for name, query in queries.items()}
    finally:
        file.close()
    artifacts = world.folder / "mlartifacts"
    found["artifacts"] = sorted((path.name,) for path in artifacts.rglob("*") if path.is_file())
    return found


def draw(rows: Sequence[PlacedRow], chosen: set[str]) -> str:
    return f"<svg>{len(rows)} trials, {len(chosen)} chosen</svg>"
