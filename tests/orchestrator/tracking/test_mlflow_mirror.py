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
from orchestrator.records.rows import ChoiceRow, DriverRow, JobRecord, PlacedRow, Placement
from orchestrator.records.writes import Failed, Finished, Released, Reported
from orchestrator.store.leases import driver_here, this_host
from orchestrator.store.store import open_store
from orchestrator.tracking.mlflow_mirror import sync
from orchestrator.tracking.mlflow_runs import Synced
from orchestrator.tracking.server import masked, ui_command, ui_environment

JOB = "study-0123456789abcdef"


class Killed(BaseException):
    """Stands for SIGKILL: nobody catches it."""


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


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database; to make one takes seconds."""
    from orchestrator.tracking.server import check_reachable, prepare_process

    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    prepare_process()
    check_reachable(f"sqlite:///{file}")
    from mlflow import MlflowClient

    MlflowClient(tracking_uri=f"sqlite:///{file}").search_experiments()
    connection = sqlite3.connect(file)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the file alone is copied
    connection.close()
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


def test_mlflow_shows_what_the_store_has(world: World) -> None:
    first = world.trial("grid", "digits", 0, top1=0.75, loss=math.inf)
    second = world.trial("grid", "digits", 1, top1=math.nan)
    waiting = world.place("grid", "faces", 0)
    world.store.choices.record(JOB, ChoiceRow("final", "digits", first, 0.75, "top1", sources=["grid"]))

    assert world.sync(picture=draw) == Synced(runs=3, metrics=2 * 3 * 3 + 3, closed=3)

    run = world.run_of("grid", "digits", first)
    trial = world.store.trials.get(first)
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
    assert ("grid", "faces", waiting) not in world.store.tracked_runs.of(JOB)  # it has not begun


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
    world.store.choices.record(JOB, ChoiceRow("final", "digits", key, 0.5, "top1", sources=["grid"]))
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
    world.store.leases.unregister("driver-1")
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
    world.store.trials.commit(
        world.driver,
        [Failed(failed, tokens[failed], "code", "ValueError: no"),
         Failed(cancelled, tokens[cancelled], "cancelled", ""),
         Released(released, tokens[released], "interrupted")],
    )  # fmt: skip
    assert world.sync().closed == 3
    run = world.run_of("grid", "digits", failed)
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "code: ValueError: no")
    assert world.run_of("grid", "digits", cancelled).info.status == "KILLED"
    assert world.run_of("grid", "digits", released).info.status == "KILLED"

    world.store.jobs.retry(JOB)
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


def test_many_epochs_and_parameters_go_in_few_calls(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    sizes: list[tuple[int, int]] = []

    class Watched(MlflowClient):
        def log_batch(
            self, run_id: str, metrics: Sequence[Any] = (), params: Sequence[Any] = (), tags: Sequence[Any] = (),
            synchronous: bool | None = None,
        ) -> Any:  # fmt: skip
            sizes.append((len(metrics), len(params)))
            assert len(metrics) + len(params) + len(tags) <= 1000
            return super().log_batch(run_id, metrics, params, tags, synchronous)

    key = world.place("grid", "digits", 0, epochs=900, extra={f"field{n}": "x" * 9000 for n in range(230)})
    token = world.start(key)
    world.report(key, token, range(1, 901))
    world.finish(key, token)
    with monkeypatch.context() as patch:
        patch.setattr("mlflow.MlflowClient", Watched)
        assert world.sync() == Synced(runs=2, metrics=2701, closed=2)
    # 4 for 2,701 metrics, 2 more for 235 params; 2 for the group
    assert len(sizes) == 8
    assert max(sizes) > (700, 0)
    run = world.run_of("grid", "digits", key)
    assert len(run.data.params) == 235
    assert set(map(len, run.data.params.values())) >= {6000}
    steps = [m.step for m in world.client().get_metric_history(run.info.run_id, "train_loss")]
    assert sorted(steps) == list(range(1, 901))


def test_a_trial_mlflow_refuses_does_not_hold_up_the_others(world: World) -> None:
    first, second = (world.place("grid", "digits", n) for n in range(2))
    tokens = {key: world.start(key) for key in (first, second)}
    world.sync()
    file = sqlite3.connect(world.uri.removeprefix("sqlite:///"))
    run_id = world.store.tracked_runs.of(JOB)["grid", "digits", first].run_id
    file.execute("UPDATE params SET value = '3' WHERE key = 'optim.lr' AND run_uuid = ?", (run_id,))
    file.commit()
    file.close()
    for key, token in tokens.items():
        world.report(key, token, [1])
        world.finish(key, token)
    problem = world.sync().problem or ""
    assert problem.count("\n") == 0
    assert "1 trials were refused, the first: grid/digits/lr=0.0001" in problem
    assert world.run_of("grid", "digits", second).info.status == "FINISHED"
    assert world.run_of("grid", "digits", second).data.metrics["train_loss"] == 1.0


def test_what_a_user_deleted_stays_deleted_and_another_database_gets_everything(world: World, migrated: Path) -> None:
    keys = [world.trial("grid", "digits", n) for n in range(2)]
    world.sync()
    old = world.uri
    world.client().delete_run(world.store.tracked_runs.of(JOB)["grid", "digits", keys[0]].run_id)
    assert world.sync() == Synced()

    shutil.copy(migrated, world.folder / "other.db")
    world.uri = f"sqlite:///{world.folder / 'other.db'}"
    assert world.sync() == Synced(runs=3, metrics=20, closed=3)
    assert world.run_of("grid", "digits", keys[0]).info.status == "FINISHED"
    assert world.sync() == Synced()

    third = world.trial("grid", "digits", 2)
    world.uri = old  # and back: its runs are found again by their tags
    assert world.sync().runs == 1
    assert world.run_of("grid", "digits", third).info.status == "FINISHED"
    assert len(world.client().search_runs([world.run_of("grid", "digits").info.experiment_id])) == 3


def test_a_deleted_experiment_is_a_problem_that_says_the_remedy(world: World) -> None:
    world.trial("grid", "digits", 0)
    world.sync()
    experiment = world.run_of("grid", "digits").info.experiment_id
    world.client().delete_experiment(experiment)
    world.trial("grid", "digits", 1)
    assert f"mlflow experiments restore -x {experiment}" in (world.sync().problem or "")


def test_one_process_mirrors_a_job_at_a_time(world: World) -> None:
    import fcntl

    world.trial("grid", "digits", 0)
    with (world.folder / f"mirror-{JOB}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "another process is mirroring" in (world.sync().problem or "")
    assert world.sync().runs == 2


def test_out_of_time_the_rest_is_left_to_the_next_sync(world: World) -> None:
    world.trial("grid", "digits", 0)
    assert "1 of 1 trials" in (world.sync(limit_s=-1.0).problem or "")
    assert world.sync() == Synced(runs=2, metrics=10, closed=2)


def test_a_job_that_is_not_there_is_an_error(world: World) -> None:
    with pytest.raises(NotFound):
        sync(world.store, "no-such-job", world.uri, world.folder)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_unreachable_databases_are_a_problem_of_one_line_without_secrets(world: World, tmp_path: Path) -> None:
    world.trial("grid", "digits", 0)
    (tmp_path / "folder.db").mkdir()
    (tmp_path / "text.db").write_text("this is not a database, it is a text " * 50)
    for uri in (
        f"sqlite:///{tmp_path / 'folder.db'}",
        f"sqlite:///{tmp_path / 'text.db'}",
        f"sqlite:///{tmp_path / 'text.db' / 'below.db'}",
        f"postgresql://anna:s3cr%40t@127.0.0.1:{free_port()}/mlflow",
        f"http://anna:s3cr%40t@127.0.0.1:{free_port()}",
        "http://no-such-host.invalid:5000",
    ):
        world.uri = uri
        done = world.sync()
        assert done.problem
        assert "\n" not in done.problem
        assert "s3cr" not in done.problem
        assert "anna" not in done.problem
        assert (done.runs, done.metrics) == (0, 0)
    assert world.store.tracked_runs.of(JOB) == {}


def test_what_a_trial_drew_is_with_its_run_whenever_the_server_takes_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = world.place("grid", "digits", 0)
    token = world.start(key)
    folder = world.folder / "trials" / key[:2] / key
    (folder / "pictures").mkdir(parents=True)
    for epoch in (1, 2):
        name = f"pictures/masked-{epoch:04d}.png"
        if epoch == 1:
            (folder / name).write_bytes(b"png")  # that of epoch 2 was removed
        values = {"train_loss": 1.0, "system_data_wait": 0.25}
        world.store.trials.commit(world.driver, [Reported(key, token, epoch, epoch, values, 1.0, (name,))])

    from mlflow import MlflowClient

    log = MlflowClient.log_artifact

    def full(self: Any, run_id: str, path: str, *args: Any) -> None:
        if path.endswith(".png"):
            raise OSError("no space left")
        log(self, run_id, path, *args)

    with monkeypatch.context() as patch:
        patch.setattr("mlflow.MlflowClient.log_artifact", full)
        assert "no space left" in (world.sync(storage=world.folder).problem or "")
    assert world.sync(storage=world.folder) == Synced(metrics=6)
    run = world.run_of("grid", "digits", key)
    assert [file.path for file in world.client().list_artifacts(run.info.run_id, "pictures")] == [
        "pictures/masked-0001.png"
    ]
    assert run.data.metrics["system/data_wait"] == 0.25
    assert world.sync(storage=world.folder) == Synced()


def test_a_server_that_never_answers_takes_bounded_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.trial("grid", "digits", 0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        world.uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert "the next sync fills it in" in (world.sync().problem or "")


def test_a_server_that_was_down_gets_everything_once_it_is_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    database, address = world.uri, f"http://127.0.0.1:{port}"
    key = world.trial("grid", "digits", 0, top1=math.nan, loss=-math.inf)
    world.uri = address
    assert "Connection refused" in (world.sync().problem or "")
    environment = {**os.environ, **ui_environment(database)}
    with (world.folder / "server.log").open("w") as log:
        server = subprocess.Popen(ui_command(database, world.folder, port), env=environment, stdout=log, stderr=log)
    try:
        for _ in range(1800):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=1)
                break
            except OSError:
                assert server.poll() is None, (world.folder / "server.log").read_text()
                time.sleep(0.1)
        assert world.sync(picture=draw) == Synced(runs=2, metrics=11, closed=2)
        assert world.sync(picture=draw) == Synced()
        stranger = urllib.request.Request(f"{address}/api/2.0/mlflow/experiments/search?max_results=1")
        stranger.add_header("Host", "10.evil.example:80")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(stranger, timeout=5)
        assert refused.value.code == 403
        run = world.run_of("grid", "digits", key)
        assert run.info.status == "FINISHED"
        assert math.isnan(run.data.metrics["final/top1"])
        assert run.data.metrics["final/loss"] < -1e308
    finally:
        server.terminate()
        server.wait(timeout=20)
    world.uri = database
    assert contents(world)["artifacts"] == [("heat_map.svg",), ("spec.yaml",)]


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
        assert beside.wait(timeout=60) == 0
    finally:
        beside.kill()
        parent.kill()
        parent.wait()
    run = world.run_of("grid", "digits", key)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["final/top1"] == 0.5


def test_passwords_do_not_leave_the_process() -> None:
    uri = "postgresql://anna:p%40ss@db:5432/mlflow"
    assert masked(f"cannot open {uri} (p@ss)", uri) == "cannot open postgresql://***@db:5432/mlflow (***)"
    assert masked("host=db password=hunter2 user=x") == "host=db password=*** user=x"
    command = ui_command(uri, Path("runs"), 5000)
    assert not any("p%40ss" in part for part in command)
    assert ui_environment(uri)["MLFLOW_BACKEND_STORE_URI"] == uri
    assert ui_command("http://127.0.0.1:5000", Path("runs"), 5001) == []


def test_mlflow_is_not_imported_before_it_is_needed() -> None:
    heavy = ("mlflow", "sqlalchemy", "yaml", "torch", "ray")
    code = f"import sys, orchestrator.tracking.process; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
