"""Addresses of tracking servers: which answer, how they are shown without passwords, and how MLflow's UI is started."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import sys
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.errors import BackendUnreachable

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
    parts = urlsplit(uri)
    scheme = parts.scheme.split("+")[0]
    if scheme == "sqlite":
        if parts.path.strip("/"):
            _check_file(Path(parts.path[1:]))
    elif scheme in _PORTS and not _through_proxy(scheme, parts.hostname or ""):
        try:
            port = parts.port or _PORTS[scheme]
            socket.create_connection((parts.hostname or "localhost", port), CONNECT_SECONDS).close()
        except (OSError, ValueError) as error:
            raise BackendUnreachable(f"no answer ({error})") from error


def _check_file(path: Path) -> None:
    """Makes a missing file, with a write-ahead log: so the UI's reads and our writes do not wait for each other."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = not path.exists()
        file = sqlite3.connect(path, timeout=CONNECT_SECONDS)
        try:
            if new and not _on_network(path):
                file.execute("PRAGMA journal_mode=WAL")
            file.execute("BEGIN IMMEDIATE")
            file.rollback()
        finally:
            file.close()
    except (OSError, sqlite3.Error) as error:
        raise BackendUnreachable(f"{path} cannot be written ({error})") from error


def _on_network(path: Path) -> bool:
    from orchestrator.store.database import refuse_network_folder

    try:
        refuse_network_folder(path)
    except BackendUnreachable:
        return True
    return False


def _through_proxy(scheme: str, host: str) -> bool:
    """True if requests go to a proxy, so that a direct connection would prove nothing."""
    return scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(host)


def ui_command(tracking_uri: str, folder: Path, port: int) -> list[str]:
    """The command that serves MLflow's UI and API on loopback; run it with `ui_environment` added to its environment.
    Empty if the address is a server, which has its own UI.

    An address with a password is left out of the command, because every user of the machine can read that.
    """
    if is_remote(tracking_uri):
        return []
    store = [] if urlsplit(tracking_uri).password else ["--backend-store-uri", tracking_uri]
    return [
        sys.executable, "-m", "mlflow", "server", *store, "--artifacts-destination", str(artifact_root(folder)),
        "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--allowed-hosts", "localhost,localhost:*,127.0.0.1,127.0.0.1:*",
    ]  # fmt: skip


def ui_environment(tracking_uri: str) -> dict[str, str]:
    """The environment variables of `ui_command`."""
    return {**ENVIRONMENT, "MLFLOW_BACKEND_STORE_URI": tracking_uri}
