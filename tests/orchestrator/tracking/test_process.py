"""The mirror's process: started again when it dies, closed at the end, and no false alarm with several drivers."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from clock import Clock
from in_process_backend import messages
from mirrored_job import JOB, World

from orchestrator.settings import settings
from orchestrator.tracking import mlflow_mirror, process
from orchestrator.tracking.process import AGAIN_S, MirrorProcess

WAITS = "import sys; sys.stdin.read(); print('synced')"
FAILS = "import sys; sys.stdin.read(); print('error: MLflow does not answer'); sys.exit(7)"
DIES = "import os; os.kill(os.getpid(), 9)"


class Mirrors:
    """Runs these programs, one after the other, where the mirror would be started."""

    PIPE = subprocess.PIPE
    TimeoutExpired = subprocess.TimeoutExpired

    def __init__(self) -> None:
        self.programs = [WAITS]
        self.started: list[subprocess.Popen[bytes]] = []

    def Popen(self, command: Any, **options: Any) -> subprocess.Popen[bytes]:
        assert command[1:] == ["-m", "orchestrator", "track", "--follow", "job-1"]
        program = self.programs[min(len(self.started), len(self.programs) - 1)]
        self.started.append(subprocess.Popen([sys.executable, "-c", program], **options))
        return self.started[-1]


@pytest.fixture
def mirrors(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Mirrors]:
    caplog.set_level(logging.INFO, "orchestrator")
    made = Mirrors()
    monkeypatch.setattr(process, "subprocess", made)
    yield made
    for each in made.started:
        if each.poll() is None:
            each.kill()
        each.wait()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def mirror(mirrors: Mirrors, clock: Clock, tmp_path: Path) -> MirrorProcess:
    return MirrorProcess("job-1", settings(folder=tmp_path), clock)


def test_a_mirror_lives_as_long_as_the_block(mirror: MirrorProcess, mirrors: Mirrors, tmp_path: Path) -> None:
    with mirror.running(True):
        mirror.keep()
        assert mirrors.started[0].poll() is None
    assert [each.returncode for each in mirrors.started] == [0]
    assert mirror.problem is None
    assert (tmp_path / "tracking.log").read_text() == "synced\n"
    mirror.keep()
    assert len(mirrors.started) == 1, "after the end nothing is started"


def test_no_mirror_where_none_is_wanted(mirror: MirrorProcess, mirrors: Mirrors) -> None:
    with mirror.running(False):
        mirror.keep()
    assert (mirrors.started, mirror.problem) == ([], None)


def test_a_mirror_that_dies_is_started_again_but_not_in_every_round(
    mirror: MirrorProcess, mirrors: Mirrors, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    with mirror.running(True):
        mirrors.started[0].kill()
        mirrors.started[0].wait()
        for clock.now in (0.0, 1.0, AGAIN_S - 1):
            mirror.keep()
        assert len(mirrors.started) == 1
        clock.now = AGAIN_S
        mirror.keep()
        mirror.keep()
        assert len(mirrors.started) == 2
        mirrors.started[1].kill()
        mirrors.started[1].wait()
        mirror.keep()
        assert len(mirrors.started) == 2
        clock.now = 2 * AGAIN_S
        mirror.keep()
    assert [each.returncode for each in mirrors.started] == [-9, -9, 0]
    assert mirror.problem is None
    assert messages(caplog) == ["the mirror into MLflow has ended (code -9): starting it again"] * 2


def test_a_mirror_that_was_killed_at_the_end_is_made_up_for(mirror: MirrorProcess, mirrors: Mirrors) -> None:
    """Its runs would stay open; another process closes them, and one after it if that is killed too."""
    mirrors.programs = [DIES, DIES, DIES, WAITS]
    with mirror.running(True):
        mirrors.started[0].wait()
    assert [each.returncode for each in mirrors.started] == [-9, -9, -9, 0]
    assert mirror.problem is None


def test_a_mirror_that_is_always_killed_does_not_hold_the_driver_for_ever(
    mirror: MirrorProcess, mirrors: Mirrors
) -> None:
    mirrors.programs = [DIES]
    with mirror.running(True):
        mirrors.started[0].wait()
    assert len(mirrors.started) == 1 + process.STARTS_AT_THE_END
    assert mirror.problem is not None
    assert "`track --sync job-1` fills it in" in mirror.problem


def test_what_mlflow_lacks_in_the_end_is_said(mirror: MirrorProcess, mirrors: Mirrors) -> None:
    mirrors.programs = [FAILS]
    with mirror.running(True):
        pass
    assert len(mirrors.started) == 1, "a server that does not answer will not do so at once"
    assert mirror.problem == (
        "MLflow lacks a part of this job (error: MLflow does not answer); `track --sync job-1` fills it in"
    )


def test_the_mirror_is_closed_when_the_driver_raises(mirror: MirrorProcess, mirrors: Mirrors) -> None:
    with pytest.raises(KeyboardInterrupt, match="ctrl"), mirror.running(True):
        raise KeyboardInterrupt("ctrl-c")
    assert mirrors.started[0].returncode == 0


def test_a_closed_terminal_does_not_end_the_mirror_before_its_driver() -> None:
    program = (
        "import os, signal\n"
        "from orchestrator.tracking.process import _StopCondition\n"
        "stop = _StopCondition(os.getppid(), 1.0)\n"
        "os.kill(os.getpid(), signal.SIGHUP)\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "print(stop())\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "print(stop())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "nice", lambda more: 0)
    monkeypatch.setattr(process, "signal", SimpleNamespace(**vars(signal) | {"signal": lambda kind, handler: None}))


def test_of_two_mirrors_of_one_job_neither_says_that_something_is_missing(
    world: World, quiet: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two drivers of one job end together; the second mirror waits for the first."""
    key = world.place("grid", "digits", 0)
    world.finish(key, world.start(key))
    other = mlflow_mirror.Mirror(world.store, JOB, world.uri, world.folder)
    other.sync(lambda: False)
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            other.close()

    monkeypatch.setattr(process, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    said: list[str] = []
    gone = 2**22 - 3  # its driver has ended: one sync, the last
    done = process.follow(world.store, JOB, world.uri, world.folder, gone, say=said.append)
    assert done.problem is None
    assert len(waited) == 3
    assert len(said) == 2
    assert said[0].count("already") == 1

    third = mlflow_mirror.Mirror(world.store, JOB, world.uri, world.folder)
    third.sync(lambda: False)
    done = process.follow(world.store, JOB, world.uri, world.folder, gone, say=said.append, last_s=0.0)
    assert done.problem is None, "a process that still mirrors the job is no lack"
    third.close()
