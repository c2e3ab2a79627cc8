"""Serves MLflow's UI, and keeps Ray's dashboard alive, until Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import time
import webbrowser
from collections.abc import Callable

from orchestrator.cli.options import working
from orchestrator.engine import ray_cluster
from orchestrator.errors import BackendUnreachable
from orchestrator.report import ui_page
from orchestrator.settings import Settings, private_folder, shown
from orchestrator.tracking.moved import mend
from orchestrator.tracking.server import Ui, is_remote, start_ui

START_SECONDS = 60.0


def serve(
    where: Settings, port: int, say: Callable[[str], None], job: str | None = None, opens: bool = False
) -> None:  # fmt: skip
    """Prints both addresses and serves until Ctrl-C; links of reports lead here meanwhile, whatever the port. `job`:
    the name of a job, at whose runs the UI opens; `opens`: in the browser. Raises Conflict if the port is in use."""
    private_folder(where.folder)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the processes it started, as Ctrl-C does
    with contextlib.ExitStack() as stack:
        mlflow: Ui | None = None
        if is_remote(where.tracking_uri):
            say(f"MLflow UI:      {shown(where.tracking_uri)}")
        else:
            log = stack.enter_context(open(where.folder / "mlflow-ui.log", "wb"))
            mend(where.tracking_uri, where.folder)
            mlflow = start_ui(where.tracking_uri, where.folder, port, log)
            stack.callback(mlflow.end)
            with working("starting MLflow's UI"):
                _wait(mlflow, where)
            place = (mlflow.experiment(job) if job else None) or ""
            link = f"{mlflow.link}{place.removeprefix('/')}"
            say(f"MLflow UI:      {link}")
            ui_page.to_ui(where.folder, mlflow.link)
            stack.callback(ui_page.to_nobody, where.folder)
            if opens:
                webbrowser.open(link)
            say("                keep this address to yourself: its token lets in whoever has it, until Ctrl-C")
        if where.address:
            say(f"Ray dashboard:  on the head node of {where.address}, port 8265 by default")
        else:
            stack.enter_context(ray_cluster.hold(where.folder))
            say(f"Ray dashboard:  {ray_cluster.ensure_local(where.folder)}")
            say(f"                its token is in {ray_cluster.token_path()}")
        say("Ctrl-C stops both.")
        try:
            while mlflow is None or mlflow.process.poll() is None:
                time.sleep(0.5)
        except KeyboardInterrupt:
            return
        raise BackendUnreachable(f"the MLflow UI has ended; see {where.folder / 'mlflow-ui.log'}")


def _wait(mlflow: Ui, where: Settings) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and mlflow.process.poll() is None:
        if mlflow.answers():
            return
        time.sleep(0.3)
    raise BackendUnreachable(f"the MLflow UI did not start; see {where.folder / 'mlflow-ui.log'}")
