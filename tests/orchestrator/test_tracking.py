"""Every test has a real SQLite store and a real MLflow database; one of them a real tracking server."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import NotFound
from orchestrator.leases import driver_here, this_host
from orchestrator.records import (
    DriverRow,
    Failed,
    Finished,
    JobRecord,
    PlacedRow,
    Placement,
    Released,
    Reported,
    WinnerRow,
)
from orchestrator.store import Store, open_store
from orchestrator.tracking import Synced, masked, sync, ui_command, ui_environment

JOB = "study-0123456789abcdef"


class Killed(BaseException):
    """Stands for SIGKILL: nobody catches it."""


class World:
    """A store that is filled as a driver would, and the addresses of its mirror."""

    def __init__(self, folder: Path, tracking_uri: str) -> None:
        self.folder = folder
        self.uri = tracking_uri
        self.store = open_store(f"sqlite:///{folder / 'store.db'}")
        self.store.put_job(
            JobRecord(JOB, "study", "laptop", {"name": "study", "trial": {"optim": {"lr": 1e-4}}}, "name: study",
                      git_commit="c0ffee", git_dirty=True)
        )  # fmt: skip
        self.drive("driver-1")

    def drive(self, driver_id: str, gone: bool = False) -> None:
        """From now on this driver holds what is claimed."""
        self.driver = driver_id
        here = driver_here(driver_id, JOB, "local")
        dead = DriverRow(driver_id, this_host(), here.pid, 1.0, JOB, "local")  # this pid, but of another time
        self.store.register_driver(dead if gone else here)
        self.store.set_job_state(JOB, "running")

    def place(self, stage: str, group: str, n: int, epochs: int = 3, extra: Mapping[str, Any] | None = None) -> str:
        lr = 1e-4 * (n + 1)
        key = hashlib.sha256(f"{stage} {group} {n}".encode()).hexdigest()
        spec = {
            "task": {"kind": "classify", "dataset": group, **(extra or {})}, "backbone": {"model": "tiny"},
            "optim": {"lr": lr},
        }  # fmt: skip
        self.store.place(
            JOB,
            [Placement(stage, group, {"task.dataset": group}, key, spec, {"optim.lr": lr},
                       f"{stage}/{group}/lr={lr:g}", n, "top1", "max", 5, epochs)],
        )  # fmt: skip
        return key

    def start(self, key: str) -> int:
        return self.store.claim(self.driver, [key])[key]

    def report(self, key: str, token: int, epochs: Sequence[int], seconds: float = 0.5) -> None:
        writes = [Reported(key, token, n, 10 * n, {"train_loss": 1 / n, "lr": 1e-3}, seconds) for n in epochs]
        self.store.commit(self.driver, writes)

    def finish(self, key: str, token: int, **figures: float) -> None:
        facts = {"host": "node7", "device": "cpu", "data_digest": "d1", "train_seconds": 1.5}
        self.store.commit(self.driver, [Finished(key, token, figures or {"top1": 0.5}, facts)])

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
        return self.client().get_run(self.store.tracked(JOB)[stage, group, key].run_id)

    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(tracking_uri=self.uri)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database; to make one takes seconds."""
    from orchestrator.tracking_server import prepare_process

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    prepare_process()
    from mlflow import MlflowClient

    MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def new_world(tmp_path: Path, migrated: Path) -> Callable[[], World]:
    def make() -> World:
        folder = tmp_path / f"w{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        shutil.copy(migrated, folder / "mlflow.db")
        return World(folder, f"sqlite:///{folder / 'mlflow.db'}")

    return make


@pytest.fixture
def world(new_world: Callable[[], World]) -> World:
    return new_world()


def contents(world: World) -> dict[str, list[tuple[Any, ...]]]:
    """All that the MLflow database says, by the runs' names, as a user would see it."""
    queries = {
        "runs": "SELECT name, status, start_time, end_time FROM runs",
        "metrics": "SELECT r.name, m.key, m.value, m.is_nan, m.step, m.timestamp FROM metrics m JOIN runs r USING (run_uuid)",
        "params": "SELECT r.name, p.key, p.value FROM params p JOIN runs r USING (run_uuid)",
        "tags": "SELECT r.name, t.key, t.value FROM tags t JOIN runs r USING (run_uuid) WHERE t.key <> 'mlflow.parentRunId'",
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


def test_mlflow_shows_what_the_store_has(world: World) -> None:
    first = world.trial("grid", "digits", 0, top1=0.75, loss=math.inf)
    second = world.trial("grid", "digits", 1, top1=math.nan)
    waiting = world.place("grid", "faces", 0)
    world.store.decide(JOB, WinnerRow("final", "digits", first, 0.75, "top1", sources=["grid"]))

    assert world.sync(picture=draw) == Synced(runs=3, metrics=2 * 3 * 3 + 3, closed=3)

    run = world.run_of("grid", "digits", first)
    trial = world.store.trial(first)
    assert trial.started is not None
    assert trial.ended is not None
    assert run.info.run_name == f"grid/digits/lr=0.0001 {first[:8]}"
    assert (run.info.status, run.info.start_time) == ("FINISHED", round(trial.started * 1000))
    assert run.info.end_time == round(trial.ended * 1000)
    assert run.data.params == {
        "task.kind": "classify", "task.dataset": "digits", "backbone.model": "tiny", "optim.lr": "0.0001", "seed": "5",
    }  # fmt: skip
    parent = world.run_of("grid", "digits")
    expected = {
        "job": JOB, "stage": "grid", "group": "digits", "trial": first, "seed": "5", "git_commit": "c0ffee",
        "mlflow.source.git.commit": "c0ffee", "git_dirty": "true", "host": "node7", "device": "cpu",
        "data_digest": "d1", "state": "done", "profile": "laptop", "mlflow.parentRunId": parent.info.run_id,
    }  # fmt: skip
    assert expected.items() <= run.data.tags.items()
    curve = world.client().get_metric_history(run.info.run_id, "train_loss")
    assert [(m.step, m.value, m.timestamp - run.info.start_time) for m in curve] == [
        (1, 1.0, 500), (2, 0.5, 1000), (3, 1 / 3, 1500)
    ]  # fmt: skip
    assert run.data.metrics["final/top1"] == 0.75
    assert run.data.metrics["final/loss"] > 1e308  # MLflow's infinity
    assert math.isnan(world.run_of("grid", "digits", second).data.metrics["final/top1"])

    assert parent.info.run_name == "grid/digits"
    assert parent.data.params == {"task.dataset": "digits"}
    assert (parent.info.status, parent.data.tags["state"]) == ("FINISHED", f"winner {first[:8]}")
    files = world.folder / "mlartifacts" / "study" / parent.info.run_id / "artifacts"
    assert (files / "heat_map.svg").read_text() == "<svg>2 trials, 1 chosen</svg>"
    assert (files / "spec.yaml").read_text() == "name: study\ntrial:\n  optim:\n    lr: 0.0001\n"
    assert ("grid", "faces", waiting) not in world.store.tracked(JOB)  # it has not begun


def test_a_second_sync_writes_nothing(world: World) -> None:
    world.trial("grid", "digits", 0)
    key = world.place("grid", "digits", 1)
    world.report(key, world.start(key), [1])
    world.sync(picture=draw)
    before = contents(world)
    assert world.sync(picture=draw) == Synced()
    assert contents(world) == before


def test_a_job_is_followed_from_its_first_report_to_its_end(world: World) -> None:
    key = world.place("grid", "digits", 0)
    assert world.sync() == Synced()
    token = world.start(key)
    world.report(key, token, [1])
    assert world.sync() == Synced(runs=2, metrics=3)
    assert world.run_of("grid", "digits", key).info.status == "RUNNING"
    assert world.run_of("grid", "digits").info.status == "RUNNING"
    world.report(key, token, [2, 3])
    assert world.sync() == Synced(metrics=6)
    world.finish(key, token)
    assert world.sync() == Synced(metrics=1, closed=2)
    world.store.decide(JOB, WinnerRow("final", "digits", key, 0.5, "top1", sources=["grid"]))
    world.sync(picture=draw)  # the choice came later: the picture marks it
    assert world.run_of("grid", "digits").data.tags["state"] == f"winner {key[:8]}"
    assert b"1 chosen" in next((world.folder / "mlartifacts").rglob("heat_map.svg")).read_bytes()


def test_what_a_dead_driver_left_running_is_closed_and_opened_again_when_it_runs(world: World) -> None:
    world.drive("doomed", gone=False)
    key = world.place("grid", "digits", 0)
    token = world.start(key)
    world.report(key, token, [1])
    world.sync()
    world.drive("doomed", gone=True)
    assert world.sync() == Synced(closed=1)  # the group has a living driver (driver-1): it goes on
    run = world.run_of("grid", "digits", key)
    assert (run.info.status, run.data.tags["state"]) == ("KILLED", "interrupted")
    world.store.unregister_driver("driver-1")
    assert world.sync() == Synced(closed=1)
    assert world.run_of("grid", "digits").info.status == "KILLED"

    world.drive("driver-2")
    token = world.start(key)
    world.report(key, token, [1, 2], seconds=9.0)  # from the checkpoint: epoch 1 once more, in other time
    assert world.sync() == Synced(metrics=3)
    run = world.run_of("grid", "digits", key)
    assert (run.info.status, run.data.tags["state"]) == ("RUNNING", "running")
    world.report(key, token, [3])
    world.finish(key, token)
    assert world.sync() == Synced(metrics=4, closed=2)
    steps = [m.step for m in world.client().get_metric_history(run.info.run_id, "train_loss")]
    assert steps == [1, 2, 3]
    assert world.run_of("grid", "digits").info.status == "FINISHED"


def test_failures_are_shown_with_their_reason_and_forgotten_after_a_retry_that_went_well(world: World) -> None:
    failed, cancelled, released = (world.place("grid", "digits", n) for n in range(3))
    tokens = {key: world.start(key) for key in (failed, cancelled, released)}
    world.sync()
    world.store.commit(
        world.driver,
        [Failed(failed, tokens[failed], "code", "ValueError: no"), Failed(cancelled, tokens[cancelled], "cancelled", ""),
         Released(released, tokens[released], "interrupted")],
    )  # fmt: skip
    assert world.sync().closed == 3
    run = world.run_of("grid", "digits", failed)
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "code: ValueError: no")
    assert world.run_of("grid", "digits", cancelled).info.status == "KILLED"
    assert world.run_of("grid", "digits", released).info.status == "KILLED"

    world.store.retry(JOB)
    for key in tokens:
        world.finish(key, world.start(key))
    assert world.sync().closed == 4
    run = world.run_of("grid", "digits", failed)
    assert (run.info.status, run.data.tags["state"], run.data.tags["error"]) == ("FINISHED", "done", "")
    assert world.run_of("grid", "digits").info.status == "FINISHED"


WRITES = ("create_run", "log_batch", "set_terminated", "update_run", "log_text")


class Countdown:
    """Dies at the n-th event."""

    def __init__(self, left: int) -> None:
        self.left = left

    def tick(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


def dying_client(countdown: Countdown) -> type:
    """MLflow's client, of a process that dies just after one of its writes, before the store hears of it."""
    from mlflow import MlflowClient

    def method(name: str) -> Callable[..., Any]:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            answer = getattr(MlflowClient, name)(self, *args, **kwargs)
            countdown.tick()
            return answer

        return call

    return type("Dying", (MlflowClient,), {name: method(name) for name in WRITES})


def history(world: World) -> Iterator[None]:
    """What happens in a job, in steps after each of which the mirror may look: trials that report, one that fails
    and is repeated, one that loses its driver."""
    a, b = world.place("grid", "digits", 0), world.place("grid", "digits", 1)
    token_a, token_b = world.start(a), world.start(b)
    world.report(a, token_a, [1, 2])
    yield
    world.store.commit(world.driver, [Failed(b, token_b, "code", "ValueError: no")])
    world.drive("driver-1", gone=True)
    yield
    world.drive("driver-2")
    world.store.retry(JOB)
    token_a, token_b = world.start(a), world.start(b)
    world.report(a, token_a, [2, 3], seconds=7.0)
    world.report(b, token_b, [1, 2, 3])
    yield
    world.finish(a, token_a, top1=0.5)
    world.finish(b, token_b, top1=0.6)
    yield


def without_times(found: dict[str, list[tuple[Any, ...]]]) -> dict[str, list[tuple[Any, ...]]]:
    """Without what depends on when the mirror looked: other start times, which epochs took 0.5 s and which 7 s, and
    whether it saw an error that was gone later."""
    runs = sorted(row[:2] for row in found["runs"])
    metrics = sorted(row[:5] for row in found["metrics"] if row[1] != "epoch_seconds")
    seconds = sorted((row[0], row[4]) for row in found["metrics"] if row[1] == "epoch_seconds")
    tags = [row for row in found["tags"] if row[1:] != ("error", "")]
    return {**found, "runs": runs, "metrics": metrics, "seconds": seconds, "tags": tags}


def test_killed_after_any_write_the_mirror_ends_the_same(
    new_world: Callable[[], World], monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = new_world()
    for _ in history(calm):
        calm.sync(picture=draw)
    expected = without_times(contents(calm))
    deaths = 0
    for n in range(1, 100):
        countdown = Countdown(n)
        world = new_world()
        with monkeypatch.context() as patch:
            patch.setattr("mlflow.MlflowClient", dying_client(countdown))
            for _ in history(world):
                try:
                    world.sync(picture=draw)
                except Killed:
                    deaths += 1
        assert world.sync(picture=draw).problem is None
        assert without_times(contents(world)) == expected, f"killed at write {n}"
        assert world.sync(picture=draw) == Synced()
        world.store.close()
        if countdown.left > 0:
            break
    assert deaths == n - 1
    assert deaths > 10
