"""Serves MLflow's UI, and keeps Ray's dashboard alive, until Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from orchestrator.engine import ray_cluster
from orchestrator.errors import BackendUnreachable, Conflict
from orchestrator.settings import Settings
from orchestrator.tracking.server import ui_command, ui_environment


def serve(where: Settings, port: int, say: Callable[[str], None]) -> None:
    """Prints both addresses and serves until Ctrl-C. Raises Conflict if the port is in use."""
    where.folder.mkdir(parents=True, exist_ok=True)
    command = ui_command(where.tracking_uri, where.folder, port)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the processes it started, as Ctrl-C does
    with contextlib.ExitStack() as stack:
        process: subprocess.Popen[bytes] | None = None
        if command:
            _require_free(port)
            log = stack.enter_context(open(where.folder / "mlflow-ui.log", "w"))
            environment = {**os.environ, **ui_environment(where.tracking_uri)}
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
            stack.callback(_end, process)
            _wait(process, port, where)
        say(f"MLflow UI:      {f'http://127.0.0.1:{port}' if command else where.tracking_uri}")
        if where.address:
            say(f"Ray dashboard:  on the head node of {where.address}, port 8265 by default")
        else:
            stack.enter_context(ray_cluster.hold(where.folder))
            say(f"Ray dashboard:  {ray_cluster.ensure_local(where.folder)}")
            say(f"                its token is in {ray_cluster.TOKEN_PATH}")
        say("Ctrl-C stops both.")
        try:
            while process is None or process.poll() is None:
                time.sleep(0.5)
        except KeyboardInterrupt:
            return
        raise BackendUnreachable(f"the MLflow UI has ended; see {where.folder / 'mlflow-ui.log'}")


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise Conflict(f"port {port} is in use; choose another with --port") from error


def _wait(process: subprocess.Popen[bytes], port: int, where: Settings) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with (
            contextlib.suppress(urllib.error.URLError, OSError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2),
        ):
            return
        time.sleep(0.3)
    raise BackendUnreachable(f"the MLflow UI did not start; see {where.folder / 'mlflow-ui.log'}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    if process.poll() is None:
        process.kill()
