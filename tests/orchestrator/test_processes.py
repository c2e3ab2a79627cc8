"""Whether a process still runs: another one of the same id is not it, and a zombie has ended."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from orchestrator import processes


@pytest.mark.parametrize("itself", [True, False])
def test_a_process_is_known_by_its_id_and_its_start(itself: bool) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    pid = os.getpid() if itself else child.pid
    began = processes.this_began() if itself else processes.began(pid)
    assert processes.is_running(pid, began)
    assert processes.is_running(pid, began + 0.5), "the clock was set"
    assert not processes.is_running(pid, began + 10)
    assert not processes.is_running(pid, began - 10)
    child.communicate()


def test_a_zombie_has_ended_and_so_has_what_is_gone() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    began = processes.began(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE
    assert not processes.is_running(child.pid, began)
    child.wait()
    assert not processes.is_running(child.pid, began)


def test_what_nobody_may_look_at_counts_as_running(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(pid: int) -> psutil.Process:
        raise psutil.AccessDenied(pid)

    monkeypatch.setattr(psutil, "Process", denied)
    assert processes.is_running(1, 0.0)
