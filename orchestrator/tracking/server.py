"""Addresses of tracking servers: which answer, and how MLflow's UI is started for its user alone."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import socket
import sqlite3
import subprocess
import sys
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from orchestrator.errors import BackendUnreachable, Conflict
from orchestrator.settings import private_file, private_folder, sqlite_url

ENVIRONMENT = {
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
"""Environment of every process in which we run MLflow."""
LIMITS = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
"""Used unless the user has set them. MLflow's own, 120 s and 7, could delay the end of a job by 15 minutes."""
CONNECT_SECONDS = 5.0
_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


def prepare_process() -> None:
    """Sets ENVIRONMENT and LIMITS for MLflow in this process; before it is imported."""
    os.environ.update(ENVIRONMENT)
    for name, value in LIMITS.items():
        os.environ.setdefault(name, value)


def is_remote(uri: str) -> bool:
    """True if the address is a server, which keeps runs and artifacts itself."""
    return re.match(r"(?i)https?://", uri) is not None


def artifact_root(folder: Path) -> Path:
    """The folder of artifacts, where no server keeps them."""
    return Path(folder).absolute() / "mlartifacts"


def check_reachable(uri: str) -> None:
    """Raises BackendUnreachable within seconds if the address cannot be reached. Call it before MLflow, which retries a
    database that does not answer, or a file that cannot be written, for 100 s."""
    try:
        parts = urlsplit(uri)
        scheme = parts.scheme.split("+")[0]
        if scheme == "sqlite":
            from orchestrator.store.address import sqlite_file

            file = sqlite_file(uri)
            if file is not None:
                _check_file(file)
        elif scheme in _PORTS and not _through_proxy(scheme, parts.hostname or ""):
            port = parts.port or _PORTS[scheme]
            socket.create_connection((parts.hostname or "localhost", port), CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise BackendUnreachable(f"no answer ({error})") from error


def _check_file(path: Path) -> None:
    """Makes a missing file, and finds out whether it can be written."""
    try:
        private_folder(path.parent)
        if not path.exists():
            _make_file(path)
        file = sqlite3.connect(private_file(path), timeout=CONNECT_SECONDS)
        try:
            file.execute("BEGIN IMMEDIATE")
            file.rollback()
        finally:
            file.close()
    except (OSError, sqlite3.Error) as error:
        raise BackendUnreachable(f"{path} cannot be written ({error})") from error


def _make_file(path: Path) -> None:
    """Makes the file with MLflow's tables, and with a write-ahead log: so the UI's reads and our writes do not wait for
    each other. Other processes that need the same file wait for it.

    MLflow's migrations of a new SQLite file are not one transaction: it never opens a file again whose process was
    killed among them, nor one that another process migrates at the same time. So they run on a file beside it, which
    gets the name once it is whole.
    """
    prepare_process()
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

    lock, unfinished = path.with_name(f".{path.name}.lock"), path.with_name(f".{path.name}.new")
    with open(private_file(lock), "a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not path.exists():
            for suffix in ("", "-journal", "-wal", "-shm"):
                Path(f"{unfinished}{suffix}").unlink(missing_ok=True)
            private_file(unfinished)
            engine = create_sqlalchemy_engine(sqlite_url(unfinished))
            try:
                _initialize_tables(engine)
                if not _on_network(path):
                    with engine.connect() as connection:
                        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            finally:
                engine.dispose()
            unfinished.rename(path)
        lock.unlink(missing_ok=True)


def _on_network(path: Path) -> bool:
    from orchestrator.store.sqlite_files import refuse_network_folder

    try:
        refuse_network_folder(path)
    except BackendUnreachable:
        return True
    return False


def _through_proxy(scheme: str, host: str) -> bool:
    """True if requests go to a proxy, so that a direct connection would prove nothing."""
    return scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host)


@dataclass(frozen=True)
class Ui:
    """MLflow's UI, served by a process of ours."""

    process: subprocess.Popen[bytes]
    address: str
    token: str

    @property
    def link(self) -> str:
        """The address that opens the UI with one click; who has it may use the UI until this start ends."""
        return f"{self.address}/?token={self.token}"

    def answers(self) -> bool:
        """True once it serves."""
        request = urllib.request.Request(f"{self.address}/health", headers={"Authorization": f"Bearer {self.token}"})
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy is told the token
        try:
            direct.open(request, timeout=2).close()
        except OSError:
            return False
        return True

    def experiment(self, name: str) -> str | None:
        """The path, below the address, on which the UI shows an experiment; None if there is none of this name."""
        query = urllib.parse.urlencode({"experiment_name": name})
        request = urllib.request.Request(
            f"{self.address}/api/2.0/mlflow/experiments/get-by-name?{query}",
            headers={"Authorization": f"Bearer {self.token}"},
        )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy is told the token
        try:
            with direct.open(request, timeout=30) as answer:
                number = json.load(answer)["experiment"]["experiment_id"]
        except (OSError, ValueError, KeyError):  # an HTTP error is an OSError
            return None
        return f"/#/experiments/{number}/runs"

    def end(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_ui(tracking_uri: str, folder: Path, port: int, log: IO[bytes]) -> Ui:
    """Serves MLflow's UI and API on loopback, with a token that only this start has; `port` 0 takes a free one.

    The token and the address of the database reach the process by its standard input, because every user of the machine
    can read command lines. The socket is bound here, so that no other user can take the port in between. Raises
    Conflict if the port is in use.
    """
    token = secrets.token_urlsafe(32)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", port))
            listening.listen(128)
        except OSError as error:
            raise Conflict(f"port {port} is in use; choose another with --port ({error.strerror})") from error
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.tracking.ui_server"], stdin=subprocess.PIPE, stdout=log, stderr=log,
            pass_fds=[listening.fileno()], start_new_session=True,
        )  # fmt: skip
        orders = {"token": token, "tracking_uri": tracking_uri, "artifacts": str(artifact_root(folder)),
                  "socket": listening.fileno()}  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(json.dumps(orders).encode() + b"\n")
        process.stdin.flush()
        return Ui(process, f"http://127.0.0.1:{listening.getsockname()[1]}", token)
