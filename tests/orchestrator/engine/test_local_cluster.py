"""The files of the local cluster: private, found again, and by paths that are short enough for sockets."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil
import pytest

from orchestrator.engine import local_cluster
from orchestrator.engine.local_cluster import LONGEST_SESSIONS, private_token, session_folder
from orchestrator.errors import BackendUnreachable


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "home").mkdir()


@pytest.fixture
def token(tmp_path: Path) -> Path:
    return tmp_path / "home" / ".ray" / "auth_token"


# The token


@pytest.mark.parametrize("umask", [0o022, 0o000, 0o077])
def test_the_token_is_private_whatever_the_umask(token: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        private_token()
    finally:
        os.umask(before)
    assert (mode(token), mode(token.parent)) == (0o600, 0o700)
    assert len(token.read_text()) == 64
    assert [path.name for path in token.parent.iterdir()] == ["auth_token"]


def test_an_open_token_is_closed_kept_and_mentioned(token: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "orchestrator")
    token.parent.mkdir(mode=0o755)
    token.write_text("secret")
    token.chmod(0o644)
    private_token()
    assert (token.read_text(), mode(token), mode(token.parent)) == ("secret", 0o600, 0o700)
    assert "could be read by other users" in caplog.text
    assert "secret" not in caplog.text
    caplog.clear()
    private_token()
    assert caplog.text == ""


def test_an_empty_token_is_replaced(token: Path) -> None:
    token.parent.mkdir(mode=0o700)
    token.touch(mode=0o644)
    private_token()
    assert len(token.read_text()) == 64
    assert mode(token) == 0o600


def test_of_two_that_make_a_token_at_once_both_have_the_same(token: Path) -> None:
    errors: list[str] = []

    def make() -> None:
        try:
            private_token()
        except BackendUnreachable as error:
            errors.append(str(error))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(token.read_text()) == 64
    assert [path.name for path in token.parent.iterdir()] == ["auth_token"]


def test_a_token_at_another_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, token: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(shared / "token"))
    private_token()
    assert mode(shared / "token") == 0o600
    assert mode(shared) == 0o755, "a folder of the user's, which may hold other things"
    assert not token.exists()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "new" / "token"))
    private_token()
    assert mode(tmp_path / "new") == 0o700
    monkeypatch.setenv("RAY_AUTH_TOKEN", "given")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none" / "token"))
    private_token()
    assert not (tmp_path / "none").exists()


def test_a_token_of_another_user_is_refused(token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private_token()
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(BackendUnreachable, match="it belongs to another user; set RAY_AUTH_TOKEN_PATH"):
        private_token()


def test_a_token_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "file" / "token"))
    with pytest.raises(BackendUnreachable, match="cannot keep Ray's token"):
        private_token()


# The session folder


def takes_a_session(path: Path) -> bool:
    """True if the longest of Ray's sockets can be made there."""
    folder = path / "session_2026-01-01_00-00-00_000000_1234567" / "sockets"
    folder.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(folder / "plasma_store"))
    return True


@pytest.mark.parametrize("length", [0, 60, 200])
def test_sockets_fit_and_nobody_else_may_look_in(tmp_path: Path, length: int, request: pytest.FixtureRequest) -> None:
    folder = tmp_path / ("x" * length) / "runs" if length else Path(tempfile.mkdtemp(dir="/tmp"))
    request.addfinalizer(lambda: shutil.rmtree(folder, ignore_errors=True))
    with session_folder(folder) as sessions:
        sessions.chmod(0o777)  # as Ray does
        assert takes_a_session(sessions)
        assert sessions.resolve() == (folder / "ray" / "s").resolve(), "below the runs folder"
        assert mode(folder / "ray") == 0o700
        if len(str(folder)) > LONGEST_SESSIONS:
            assert mode(sessions.parent) == 0o700
    assert list((folder / "ray").iterdir()) == []
    assert not sessions.exists()


def test_a_long_tmpdir_becomes_short_and_stays_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("t" * 150)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr(tempfile, "tempdir", None)
    with session_folder(tmp_path / "runs"):
        short = Path(os.environ["TMPDIR"])
        assert len(str(short)) < 40
        assert short.resolve() == long.resolve()
        assert takes_a_session(short)
    assert not os.path.lexists(short)
    assert long.is_dir()


def test_the_leftovers_of_a_cluster_that_was_killed_are_removed_by_the_next(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 60)
    lost = session_folder(folder)
    sessions = lost.__enter__()
    (sessions / "session_old").mkdir()
    with session_folder(folder) as now:
        assert list(now.iterdir()) == []
        assert not os.path.lexists(sessions)
    del lost


def test_a_note_of_a_short_path_removes_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "runs" / "ray").mkdir(parents=True)
    (tmp_path / "runs" / "ray" / "short").write_text(str(tmp_path / "mine"))
    with session_folder(tmp_path / "runs"):
        pass
    assert (tmp_path / "mine").is_dir()


def test_without_sockets_in_the_folder_the_sessions_lie_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_cluster, "_takes_sockets", lambda folder: False)
    with session_folder(tmp_path) as sessions:
        assert takes_a_session(sessions)
        assert not sessions.resolve().is_relative_to(tmp_path)
        assert mode(sessions.parent) == 0o700
    assert not sessions.exists()


def test_two_folders_below_one_ray_tmpdir_do_not_touch_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "scratch"))
    with session_folder(tmp_path / "a") as one, session_folder(tmp_path / "b") as two:
        assert one.resolve() != two.resolve()
        assert one.resolve().is_relative_to(tmp_path / "scratch")
        (one / "session_one").mkdir()
        with session_folder(tmp_path / "c"):
            assert (one / "session_one").is_dir()


def test_no_short_folder_says_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_cluster, "SHORT_ROOTS", (str(tmp_path / "no"),))
    entered = session_folder(tmp_path / ("x" * 60))
    with pytest.raises(BackendUnreachable, match="set RAY_TMPDIR to a folder whose path has at most 25"):
        entered.__enter__()


# The address and the processes


def test_a_cluster_is_known_by_its_process_and_not_by_a_file(tmp_path: Path) -> None:
    assert local_cluster.described(tmp_path) is None
    local_cluster.describe(tmp_path, "127.0.0.1:1", None)
    found = local_cluster.described(tmp_path)
    assert found is not None
    assert (found["address"], found["pid"]) == ("127.0.0.1:1", os.getpid())
    for damaged in ("{", "[]", "{}", '{"pid": "x", "pid_started": 0}', '{"pid": 4194300, "pid_started": 0}'):
        (tmp_path / "ray.json").write_text(damaged)
        assert local_cluster.described(tmp_path) is None, damaged


def test_the_process_of_a_lock_is_found_while_it_lives(tmp_path: Path) -> None:
    with open(tmp_path / "lock", "a") as lock:
        local_cluster.sign(lock)
        local_cluster.sign(lock)
    signed = local_cluster.signed_by(tmp_path / "lock")
    assert signed is not None
    assert signed["pid"] == os.getpid()
    (tmp_path / "lock").write_text('{"pid": 4194300, "pid_started": 0}')
    assert local_cluster.signed_by(tmp_path / "lock") is None
    assert local_cluster.signed_by(tmp_path / "none") is None


def test_a_process_ends_with_all_it_has_started() -> None:
    program = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    state = {"pid": parent.pid, "pid_started": psutil.Process(parent.pid).create_time()}
    local_cluster.end_process({**state, "pid_started": 0.0})
    assert parent.poll() is None, "another process, which has its id by now"
    local_cluster.end_process(state)
    assert not psutil.pid_exists(parent.pid)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    local_cluster.end_process(state)
    local_cluster.end_process({})
