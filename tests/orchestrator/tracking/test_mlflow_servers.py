"""Servers and databases that do not answer, answer late, or have passwords; one test has a real tracking server."""

from __future__ import annotations

import math
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from mirrored_job import JOB, World, contents, draw

from orchestrator.tracking.mlflow_runs import Synced
from orchestrator.tracking.server import start_ui


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
        "http://anna:s3cr@t@127.0.0.1:abc",
        "http://[::1",
        "postgresql://anna:s3cr%40t@127.0.0.1:abc/mlflow",
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
    database, address = world.uri, f"http://127.0.0.1:{free_port()}"
    key = world.trial("grid", "digits", 0, top1=math.nan, loss=-math.inf)
    world.uri = address
    assert "Connection refused" in (world.sync().problem or "")
    with (world.folder / "server.log").open("wb") as log:
        server = start_ui(database, world.folder, int(address.rpartition(":")[2]), log)
    try:
        while not server.answers():
            assert server.process.poll() is None, (world.folder / "server.log").read_text()
            time.sleep(0.1)
        refused = world.sync().problem or ""
        assert "needs the token" in refused
        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", server.token)
        assert world.sync(picture=draw) == Synced(runs=2, metrics=11, closed=2)
        assert world.sync(picture=draw) == Synced()
        stranger = urllib.request.Request(f"{address}/api/2.0/mlflow/experiments/search?max_results=1")
        stranger.add_header("Host", "10.evil.example:80")
        stranger.add_header("Authorization", f"Bearer {server.token}")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(stranger, timeout=30)
        run = world.run_of("grid", "digits", key)
        assert run.info.status == "FINISHED"
        assert math.isnan(run.data.metrics["val/top1"])
        assert run.data.metrics["val/loss"] < -1e308
    finally:
        server.end()
    world.uri = database
    assert contents(world)["artifacts"] == [("heat_map.svg",), ("spec.yaml",)]


def test_mlflow_is_not_imported_before_it_is_needed() -> None:
    heavy = ("mlflow", "sqlalchemy", "yaml", "torch", "ray")
    code = f"import sys, orchestrator.tracking.process; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], timeout=150).returncode == 0
