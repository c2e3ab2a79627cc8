"""Connects to a Ray cluster, and starts the local one."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil

from orchestrator.engine import local_cluster
from orchestrator.engine.local_cluster import hold, token_path
from orchestrator.engine.ray_head import NAMESPACE
from orchestrator.errors import BackendUnreachable
from orchestrator.settings import Settings, private_folder

__all__ = ["LINGER_S", "NAMESPACE", "Cluster", "connected", "ensure_local", "hold", "token_path"]

LINGER_S = 120.0
"""Seconds for which the local cluster stays after its last driver and its last trial."""
START_S = 120.0
"""Seconds that the local cluster has to start; on a quiet machine it needs about ten."""
STARTS = 2
"""How often its start is tried."""
SAID_AFTER_S = (20.0, 60.0)
"""After so many seconds of waiting for it, the user is told."""
WAIT_SAID_S = 1.0
WITHOUT_GCS, WITHOUT_GCS_S = "RAY_gcs_rpc_server_reconnect_timeout_s", 2_000_000
"""Ray's variable: so long after a GCS was lost, a client that still waits for its answer ends this process, even if it
uses another cluster by then. A driver notices the loss itself, within a minute. These 23 days are the most that Ray can
count in milliseconds of 32 bits."""
LEAVE_S = 30.0
"""Seconds that Ray has to disconnect; with a dead GCS it needs about five."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cluster:
    """A cluster this process is connected to."""

    address: str
    dashboard: str | None
    """http://127.0.0.1:port; None without one."""
    ours: bool
    """True for the local one, which we start and which ends by itself."""
    gone: Callable[[], str | None] = field(default=lambda: None, compare=False)
    """Why the cluster is known to be gone, without asking Ray; None if that is not known."""


@contextlib.contextmanager
def connected(settings: Settings, namespace: str, cpus: int | None = None, ship: bool = True) -> Iterator[Cluster]:
    """Connects to `settings.address`, or to the local cluster of this folder, which is started if needed.

    The local cluster is a process of its own: it and its trials outlive a driver that is killed, and it ends `LINGER_S`
    seconds after the last driver and the last trial. `cpus`: of a local cluster that is started; None: all of them.
    `ship`: sends the project's three packages to the nodes of a cluster given by address (runtime_env), which is not
    needed if the image has them. Raises BackendUnreachable.
    """
    if settings.address:
        info = _join(settings.address, namespace, _shipped() if ship else None)
        with _joined():
            yield Cluster(settings.address, _dashboard(info), ours=False)
        return
    with hold(settings.folder) as lock:
        state = _join_local(settings.folder, namespace, cpus, lock)
        with _joined():
            yield Cluster(state["address"], state["dashboard"], True, lambda: _local_gone(settings.folder, state))


def _join_local(folder: Path, namespace: str, cpus: int | None, lock: IO[str]) -> dict[str, Any]:
    """Connects to the local cluster. One that cannot be used is ended, and another started, once, unless others use it.

    `lock`: of `hold`.
    """
    for last in (False, True):
        state = local_cluster.described(folder) or _start(folder, cpus)
        os.environ["RAY_AUTH_MODE"] = "token"
        try:
            _join(state["address"], namespace, None)
            return state
        except BackendUnreachable as error:
            if not last and (local_cluster.alone(lock) or not local_cluster.is_running(state)):
                log.info("the local Ray cluster does not answer: starting another")
            else:
                raise BackendUnreachable(
                    f"the local Ray cluster at {state['address']} cannot be used: {str(error).splitlines()[0]}\n"
                    f"{machine()}. Nothing is lost: submit again. Ray's log: {folder / 'ray.log'}"
                ) from error
            local_cluster.end_process(state)
            (folder / "ray.json").unlink(missing_ok=True)
    raise AssertionError("the last try returns or raises")


def _local_gone(folder: Path, state: dict[str, Any]) -> str | None:
    if local_cluster.described(folder) == state:
        return None
    lines = [line for line in _lines(folder / "ray.log") if line.startswith("the local Ray cluster ends: ")]
    return lines[-1].partition(": ")[2] if lines else "its process has ended"


def machine() -> str:
    """How busy this machine is, for messages about what took too long."""
    memory, load = psutil.virtual_memory(), psutil.getloadavg()[0]
    return (
        f"This machine: load {load:.1f} on {os.cpu_count()} CPUs, {memory.available / 2**30:.1f} of "
        f"{memory.total / 2**30:.1f} GB memory free"
    )


def ensure_local(folder: Path, cpus: int | None = None) -> str | None:
    """Starts the local cluster if needed; returns its dashboard's address. The caller holds `hold(folder)`."""
    dashboard: str | None = (local_cluster.described(folder) or _start(folder, cpus))["dashboard"]
    return dashboard


def _shipped() -> dict[str, Any]:
    import orchestrator
    import tasks
    import workers

    return {"py_modules": [str(Path(str(package.__file__)).parent) for package in (orchestrator, workers, tasks)]}


def _require_answer(address: str) -> None:
    """Raises BackendUnreachable if no Ray listens there; Ray itself would retry for ten minutes."""
    import grpc  # type: ignore[import-untyped]
    from ray._private.services import canonicalize_bootstrap_address

    try:
        client = address.startswith("ray://")
        target = address.removeprefix("ray://") if client else canonicalize_bootstrap_address(address)
        if not target:
            return  # "auto" without a cluster, which Ray reports at once
        host, _, port = target.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        if os.environ.get("RAY_USE_TLS", "0") == "0":
            with grpc.insecure_channel(target) as channel:
                grpc.channel_ready_future(channel).result(timeout=10)
    except (OSError, ValueError) as error:
        raise _unreachable(address, getattr(error, "strerror", None) or str(error)) from error
    except grpc.FutureTimeoutError as error:
        raise _unreachable(address, "another program listens there; a Ray head has port 6379 by default") from error


def _unreachable(address: str, reason: str) -> BackendUnreachable:
    return BackendUnreachable(
        f"no Ray cluster at {address}: {reason}\n"
        "Check --address / RAY_ADDRESS (and RAY_AUTH_TOKEN_PATH), or leave it out to run on this machine."
    )


def _join(address: str, namespace: str, runtime_env: dict[str, Any] | None) -> Any:
    _set_environment()
    import ray
    from ray._private import worker

    worker.print_to_stdstream = _print_nothing
    try:
        with _no_metrics(), _on_loopback(address), _nothing_before_our_packages(shipped=runtime_env is not None):
            _require_answer(address)
            return ray.init(
                address=address, namespace=namespace, runtime_env=runtime_env, log_to_driver=False,
                logging_level="ERROR",
            )  # fmt: skip
    except BackendUnreachable:
        raise
    except Exception as error:  # of many kinds; all mean that this cluster cannot be used
        with contextlib.suppress(Exception):
            ray.shutdown()  # what a failed start has left
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise _unreachable(address, reason) from error


@contextlib.contextmanager
def _nothing_before_our_packages(shipped: bool) -> Iterator[None]:
    """Changes the working directory, which Ray puts first on the path of the workers: a file workers.py where the user
    works would hide our package there. To an empty folder where the code is shipped, since a node's own copy under the
    path of ours would hide that; else to our code."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory()) if shipped else Path(__file__).parents[2]
        stack.enter_context(contextlib.chdir(folder))
        yield


def _print_nothing(data: Any, ignore_prefix: bool) -> None:
    """Replaces what prints the last lines of a dead raylet's log to our standard output, where our table goes."""


@contextlib.contextmanager
def _joined() -> Iterator[None]:
    """Disconnects after the block. Raises BackendUnreachable if Ray hangs in that: then only a new process connects."""
    try:
        yield
    finally:
        import ray

        leaving = threading.Thread(target=ray.shutdown, daemon=True)
        leaving.start()
        leaving.join(LEAVE_S)
        if leaving.is_alive():
            raise BackendUnreachable(f"Ray did not disconnect within {LEAVE_S:.0f} s. Nothing is lost: submit again.")


@contextlib.contextmanager
def _on_loopback(address: str) -> Iterator[None]:
    """Lets Ray connect to a cluster that listens on 127.0.0.1 alone, as our local one does.

    Ray replaces that address by the machine's own, where such a cluster does not answer.
    """
    host, _, port = address.rpartition(":")
    if host != "127.0.0.1" or not port.isdigit() or not _only_on_loopback(int(port)):
        yield
        return
    from ray._private import ray_constants

    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _only_on_loopback(port: int) -> bool:
    from ray._private.services import get_node_ip_address

    with contextlib.suppress(OSError):
        socket.create_connection((get_node_ip_address(), port), timeout=3).close()
        return False
    return True


@contextlib.contextmanager
def _no_metrics() -> Iterator[None]:
    """Turns off Ray's metrics for Prometheus in this process, unless the user has set them.

    Each task name is a series there, and our task names are those of trials: 10 KB a trial in the driver, never freed.
    """
    name = "RAY_enable_metrics_collection"
    given = os.environ.get(name)
    os.environ[name] = given or "0"
    try:
        yield
    finally:
        if given is None:
            del os.environ[name]  # so that processes started from here, such as a local cluster, keep theirs


def _set_environment() -> None:
    """Sets Ray's variables for this process, and has Ray read them, even if it was imported before."""
    if "RAY_AUTH_MODE" not in os.environ and (os.environ.get("RAY_AUTH_TOKEN") or local_cluster.token_path().exists()):
        os.environ["RAY_AUTH_MODE"] = "token"  # given an address, Ray does not turn it on by itself
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault(WITHOUT_GCS, str(WITHOUT_GCS_S))
    from ray import _raylet

    _raylet.Config.initialize("")  # type: ignore[attr-defined]  # what Ray itself does when it turns the mode on for a local cluster


def _dashboard(info: Any) -> str | None:
    url = getattr(info, "dashboard_url", None) or (info.get("webui_url") if hasattr(info, "get") else None)
    return f"http://{url}" if url else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _start(folder: Path, cpus: int | None) -> dict[str, Any]:
    """Starts the local cluster's process and waits until it can be reached; one process at a time."""
    private_folder(folder)
    with _only_starter(folder):
        if state := local_cluster.described(folder):
            return state
        local_cluster.private_token()
        (folder / "ray.json").unlink(missing_ok=True)
        why = ""
        for started in range(1, STARTS + 1):
            state, why = _try_start(folder, cpus)
            if state is not None:
                return state
            if started < STARTS:
                log.info("Ray did not start (%s): trying once more. %s", why, machine())
        raise BackendUnreachable(
            f"the local Ray cluster did not start: {STARTS} times it {why}. {machine()}.\n"
            "Nothing is lost, and it is safe to submit again, best when the machine is less busy. "
            f"{_last_words(folder)}"
        )


@contextlib.contextmanager
def _only_starter(folder: Path) -> Iterator[None]:
    """Waits while another process starts the cluster of this folder, but no longer than that may take."""
    with open(folder / "ray.start", "a") as lock:
        begun, said = time.monotonic(), False
        while not local_cluster.locked(lock):
            other = (local_cluster.signed_by(folder / "ray.start") or {}).get("pid", "?")
            if not said and time.monotonic() - begun > WAIT_SAID_S:
                said = True
                log.info("process %s is starting Ray for this folder: waiting for it", other)
            if time.monotonic() - begun > STARTS * (START_S + 10):
                raise BackendUnreachable(
                    f"process {other} has been starting Ray for this folder for {STARTS * START_S:.0f} s. {machine()}. "
                    "Nothing is lost: submit again when that process has ended"
                )
            time.sleep(0.2)
        local_cluster.sign(lock)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)


def _try_start(folder: Path, cpus: int | None) -> tuple[dict[str, Any] | None, str]:
    """Starts the cluster's process, once; returns what it wrote of itself, or None and why there is nothing."""
    log_path = folder / "ray.log"
    if log_path.exists():
        log_path.replace(folder / "ray.previous.log")
    with open(log_path, "w") as output:
        command = [sys.executable, "-m", "orchestrator.engine.ray_head", str(folder), str(cpus or 0), str(LINGER_S)]
        environment = {**os.environ, "RAY_AUTH_MODE": "token"}
        for name in ("RAY_ADDRESS", WITHOUT_GCS):
            environment.pop(name, None)
        root = str(Path(__file__).parents[2])  # for a checkout that is not installed
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, env=environment
        )
    begun, said = time.monotonic(), 0
    while (waited := time.monotonic() - begun) < START_S:
        ended = process.poll() is not None
        if state := local_cluster.described(folder):
            return state, ""
        if ended:
            return None, f"ended by itself (code {process.returncode}) after {waited:.0f} s"
        if said < len(SAID_AFTER_S) and waited > SAID_AFTER_S[said]:
            said += 1
            log.info("Ray is still starting after %.0f s. %s", waited, machine())
        time.sleep(0.1)
    with contextlib.suppress(psutil.NoSuchProcess):
        local_cluster.end_family(psutil.Process(process.pid))
    process.wait()
    local_cluster.end_process(local_cluster.signed_by(folder / "ray.head") or {})  # one that an earlier driver started
    return None, f"gave no address within {START_S:.0f} s"


def _last_words(folder: Path) -> str:
    """The error in the log of a start that failed, as one line, and where the log is."""
    lines = [line.strip() for line in _lines(folder / "ray.log") if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b: *\S", line)]
    last = (errors or lines or ["it is empty"])[-1]
    return f"The end of {folder / 'ray.log'}: {last[:300]}"
