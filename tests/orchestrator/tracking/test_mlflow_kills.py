"""The mirror is killed after any of its writes, and ends with the same runs; the process beside a driver."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mirrored_job import JOB, World, contents, draw

from orchestrator.records.writes import Failed
from orchestrator.tracking.mlflow_runs import Synced
from orchestrator.tracking.server import check_reachable


class Killed(BaseException):
    """Stands for SIGKILL: nobody catches it."""


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
    world.store.trials.commit(world.driver, [Failed(b, token_b, "code", "ValueError: no")])
    world.drive("driver-1", gone=True)
    yield
    world.drive("driver-2")
    world.store.jobs.retry(JOB)
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
    metrics = sorted(row[:5] for row in found["metrics"] if row[1] != "system/epoch_seconds")
    seconds = sorted((row[0], row[4]) for row in found["metrics"] if row[1] == "system/epoch_seconds")
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
            looks = True
            for _ in history(world):
                try:
                    if looks:
                        world.sync(picture=draw)
                    looks = True
                except Killed:
                    deaths += 1
                    looks = False  # everything was killed: the next look comes after the trials went on
        assert world.sync(picture=draw).problem is None
        assert without_times(contents(world)) == expected, f"killed at write {n}"
        assert world.sync(picture=draw) == Synced()
        world.store.close()
        if countdown.left > 0:
            break
    assert deaths == n - 1
    assert deaths > 10


FOLLOWER = """
import sys
from pathlib import Path
from orchestrator.tracking.process import follow
from orchestrator.store import open_store
database, job, uri, folder, parent = sys.argv[1:]
done = follow(open_store(database), job, uri, Path(folder), int(parent), every_s=0.2)
sys.exit(7 if done.problem else 0)
"""


@pytest.mark.parametrize("end", ["pipe", "parent", "sigterm"])
def test_the_process_beside_the_driver_writes_the_rest_when_it_ends(world: World, end: str) -> None:
    parent = subprocess.Popen(["sleep", "600"])
    key = world.place("grid", "digits", 0)
    token = world.start(key)
    world.report(key, token, [1])
    arguments = [f"sqlite:///{world.folder / 'store.db'}", JOB, world.uri, str(world.folder), str(parent.pid)]
    beside = subprocess.Popen([sys.executable, "-c", FOLLOWER, *arguments], stdin=subprocess.PIPE)
    try:
        for _ in range(2400):
            if ("grid", "digits", key) in world.store.tracked_runs.of(JOB):
                break
            assert beside.poll() is None
            time.sleep(0.05)
        beside.send_signal(signal.SIGINT)  # Ctrl-C reaches it too, and is not for it
        world.report(key, token, [2, 3])
        world.finish(key, token)
        assert beside.stdin is not None
        if end == "pipe":
            beside.stdin.close()
        elif end == "parent":
            parent.kill()
        else:
            beside.terminate()
        assert beside.wait(timeout=150) == 0
    finally:
        beside.kill()
        parent.kill()
        parent.wait()
    run = world.run_of("grid", "digits", key)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["val/top1"] == 0.5


DIES = """
import os, sys
from orchestrator.tracking.server import check_reachable, prepare_process
prepare_process()
import mlflow.store.db.utils as database
database._upgrade_db = lambda engine: os.kill(os.getpid(), 9)
check_reachable(sys.argv[1])
"""
"""Dies after MLflow has made its first tables and before it migrates them."""


def test_a_database_whose_maker_was_killed_is_made_anew(tmp_path: Path) -> None:
    """MLflow alone fails for ever with "duplicate column name" or "table already exists" then."""
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    died = subprocess.run([sys.executable, "-c", DIES, address], capture_output=True, text=True, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert ".mlflow.db.new" in {path.name for path in tmp_path.iterdir()}
    check_reachable(address)
    from mlflow import MlflowClient

    assert [one.name for one in MlflowClient(tracking_uri=address).search_experiments()] == ["Default"]
    assert not list(tmp_path.glob(".*"))
