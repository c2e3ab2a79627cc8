"""A local cluster that does not start: tried once more, waited for within bounds, and said in one message."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from in_process_backend import messages
from small_job import NOBODY

from orchestrator.engine import local_cluster, ray_cluster
from orchestrator.errors import BackendUnreachable


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "orchestrator")
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)


class Starts:
    """Runs these programs, one after the other, where the head's process would be started."""

    def __init__(self, *programs: str) -> None:
        self.programs = list(programs)
        self.processes: list[subprocess.Popen[bytes]] = []

    def __call__(self, command: Any, **options: Any) -> subprocess.Popen[bytes]:
        program = self.programs[min(len(self.processes), len(self.programs) - 1)]
        process = subprocess.Popen([sys.executable, "-c", program, *command[3:]], **options)
        self.processes.append(process)
        return process


FAILS = "import sys; print('Traceback:'); print('ValueError: no room for you'); print('  at exit'); sys.exit(3)"
HANGS = "import time; time.sleep(60)"
WORKS = (
    "import sys, time; from pathlib import Path; from orchestrator.engine import local_cluster\n"
    "local_cluster.describe(Path(sys.argv[1]), '127.0.0.1:1', None); time.sleep(60)"
)


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    made: list[Starts] = []

    def use(*programs: str) -> Starts:
        made.append(Starts(*programs))
        monkeypatch.setattr(ray_cluster, "subprocess", FakeSubprocess(made[-1]))
        return made[-1]

    yield use
    for each in made:
        for process in each.processes:
            if process.poll() is None:
                process.kill()
            process.wait()


class FakeSubprocess:
    DEVNULL = subprocess.DEVNULL

    def __init__(self, popen: Starts) -> None:
        self.Popen = popen


def test_a_start_that_fails_twice_is_one_message(starts: Any, tmp_path: Path, caplog: Any) -> None:
    made = starts(FAILS)
    with pytest.raises(BackendUnreachable, match="did not start: 2 times it ended by itself") as error:
        ray_cluster.ensure_local(tmp_path)
    assert len(made.processes) == 2
    text = str(error.value)
    assert "(code 3)" in text
    assert f"load {psutil.getloadavg()[0]:.0f}"[:5] in text
    assert "GB memory free" in text
    assert "Nothing is lost, and it is safe to submit again" in text
    assert text.endswith("ray.log: ValueError: no room for you")
    assert "Traceback" not in text
    assert len(text.splitlines()) == 2
    assert len(messages(caplog)) == 1
    assert "trying once more" in messages(caplog)[0]


def test_the_second_try_may_succeed(starts: Any, tmp_path: Path) -> None:
    made = starts(FAILS, WORKS)
    assert ray_cluster.ensure_local(tmp_path) is None
    assert len(made.processes) == 2
    assert ray_cluster.ensure_local(tmp_path) is None, "it runs"
    assert len(made.processes) == 2
    token = tmp_path / "home" / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o777 == 0o600, "before the head, which would make it readable for all"


def test_a_start_that_hangs_is_ended_before_the_next_and_said_meanwhile(
    starts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr(ray_cluster, "START_S", 0.6)
    monkeypatch.setattr(ray_cluster, "SAID_AFTER_S", (0.2,))
    made = starts(HANGS)
    with pytest.raises(BackendUnreachable, match="2 times it gave no address within 1 s"):
        ray_cluster.ensure_local(tmp_path)
    assert not any(psutil.pid_exists(process.pid) for process in made.processes), "no starters pile up"
    assert len(made.processes) == 2
    assert sum("Ray is still starting" in line for line in messages(caplog)) == 2


def test_a_head_that_an_earlier_driver_started_and_that_hangs_is_ended_too(
    starts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "START_S", 0.3)
    with subprocess.Popen([sys.executable, "-c", HANGS]) as earlier:
        state = {"pid": earlier.pid, "pid_started": psutil.Process(earlier.pid).create_time()}
        (tmp_path / "ray.head").write_text(str(state).replace("'", '"'))
        starts(HANGS)
        with pytest.raises(BackendUnreachable, match="gave no address"):
            ray_cluster.ensure_local(tmp_path)
        assert not psutil.pid_exists(earlier.pid)


def test_several_drivers_start_one_cluster(starts: Any, tmp_path: Path, caplog: Any) -> None:
    made = starts("import time; time.sleep(1.5)\n" + WORKS)
    threads = [threading.Thread(target=ray_cluster.ensure_local, args=(tmp_path,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made.processes) == 1
    said = messages(caplog)
    assert said.count(f"process {os.getpid()} is starting Ray for this folder: waiting for it") >= 2


def test_waiting_for_another_starter_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "START_S", -9.9)
    with open(tmp_path / "ray.start", "a") as lock:
        assert local_cluster.locked(lock)
        local_cluster.sign(lock)
        with pytest.raises(BackendUnreachable, match=f"process {os.getpid()} has been starting Ray for this folder"):
            ray_cluster.ensure_local(tmp_path)


def test_a_local_cluster_that_does_not_answer_is_replaced_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    joined: list[str] = []
    ended: list[dict[str, Any]] = []
    addresses = iter(["127.0.0.1:1", "127.0.0.1:2"])
    monkeypatch.setattr(local_cluster, "described", lambda folder: None)
    monkeypatch.setattr(local_cluster, "is_running", lambda state: True)
    monkeypatch.setattr(local_cluster, "end_process", ended.append)
    monkeypatch.setenv("RAY_AUTH_MODE", "")
    monkeypatch.setattr(ray_cluster, "_start", lambda folder, cpus: {"address": next(addresses)})

    def join(address: str, namespace: str, runtime_env: Any) -> None:
        joined.append(address)
        if refused(address):
            raise BackendUnreachable(f"no Ray cluster at {address}: refused\nCheck --address, or leave it out")

    monkeypatch.setattr(ray_cluster, "_join", join)

    def refused(address: str) -> bool:
        return address.endswith(":1")

    with ray_cluster.hold(tmp_path) as lock:
        assert ray_cluster._join_local(tmp_path, "n", None, lock) == {"address": "127.0.0.1:2"}
    assert ended == [{"address": "127.0.0.1:1"}]
    assert messages(caplog) == ["the local Ray cluster does not answer: starting another"]

    addresses = iter(["127.0.0.1:1", "127.0.0.1:1"])
    with (
        ray_cluster.hold(tmp_path) as lock,
        pytest.raises(
            BackendUnreachable, match=r"cannot be used: no Ray cluster at .*: refused\n.*submit again"
        ) as end,
    ):
        ray_cluster._join_local(tmp_path, "n", None, lock)
    assert "leave it out" not in str(end.value), "it was left out"

    addresses, before = iter(["127.0.0.1:1"]), len(ended)
    with (
        ray_cluster.hold(tmp_path),
        ray_cluster.hold(tmp_path) as lock,
        pytest.raises(BackendUnreachable, match="cannot be used"),
    ):
        ray_cluster._join_local(tmp_path, "n", None, lock)
    assert len(ended) == before, "another driver uses it: what is wrong is here"
    assert not local_cluster.held(tmp_path)


def test_ray_reads_its_variables_before_it_joins_any_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what asks a lost GCS ends the driver a minute later, when that has gone on with another cluster."""
    from ray import _raylet

    read: list[dict[str, str]] = []
    config = SimpleNamespace(initialize=lambda _: read.append(dict(os.environ)))
    monkeypatch.setattr(_raylet, "Config", config)
    for name in ("RAY_AUTH_MODE", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", ray_cluster.WITHOUT_GCS):
        monkeypatch.setenv(name, "")  # so that it is as before after this test
        monkeypatch.delenv(name)
    monkeypatch.setattr(ray_cluster, "_start", lambda folder, cpus: {"address": NOBODY})
    monkeypatch.setattr(local_cluster, "described", lambda folder: None)
    monkeypatch.setattr(local_cluster, "end_process", lambda state: None)
    with ray_cluster.hold(tmp_path) as lock, pytest.raises(BackendUnreachable, match="no Ray cluster at"):
        ray_cluster._join_local(tmp_path, "n", None, lock)
    with pytest.raises(BackendUnreachable, match="no Ray cluster at"):
        ray_cluster._join(NOBODY, "n", None)
    assert len(read) >= 2
    assert {each["RAY_AUTH_MODE"] for each in read} == {"token"}
    assert {int(each[ray_cluster.WITHOUT_GCS]) for each in read} == {ray_cluster.WITHOUT_GCS_S}


def test_why_a_local_cluster_is_gone(tmp_path: Path) -> None:
    local_cluster.describe(tmp_path, "127.0.0.1:1", None)
    state = local_cluster.described(tmp_path)
    assert state is not None
    assert ray_cluster._local_gone(tmp_path, state) is None
    dead = {**state, "pid": 4194300}
    assert ray_cluster._local_gone(tmp_path, dead) == "its process has ended"
    (tmp_path / "ray.json").unlink()
    assert ray_cluster._local_gone(tmp_path, state) == "its process has ended", "its head has given it up"
    (tmp_path / "ray.log").write_text("noise\nthe local Ray cluster ends: its process raylet has ended\n")
    assert ray_cluster._local_gone(tmp_path, dead) == "its process raylet has ended"
