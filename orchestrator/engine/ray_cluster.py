"""Connects to a Ray cluster, and starts and ends the local one."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from orchestrator.errors import BackendUnreachable
from orchestrator.settings import Settings

LINGER_S = 120.0
"""Seconds for which the local cluster stays after its last driver and its last trial."""
NAMESPACE = "orchestrator-"
"""Begins the Ray namespace of every driver; the rest identifies the store."""
TOKEN_PATH = Path("~/.ray/auth_token")
"""Where Ray keeps the token of the local cluster."""


@dataclass(frozen=True)
class Cluster:
    """A cluster this process is connected to."""

    address: str
    dashboard: str | None
    """http://127.0.0.1:port; None without one."""
    ours: bool
    """True for the local one, which we start and which ends by itself."""


@contextlib.contextmanager
def connected(settings: Settings, namespace: str, cpus: int | None = None, ship: bool = True) -> Iterator[Cluster]:
    """Connects to `settings.address`, or to the local cluster of this folder, which is started if needed.

    The local cluster is a process of its own: it and its trials outlive a driver that is killed, and it ends `LINGER_S`
    seconds after the last driver and the last trial. `cpus`: of a local cluster that is started; None: all of them.
    `ship`: sends the project's three packages to the nodes of a cluster given by address (runtime_env), which is not
    needed if the image has them. Raises BackendUnreachable.
    """
    if settings.address:
        _require_answer(settings.address)
        with _connection(settings.address, namespace, _shipped() if ship else None) as info:
            yield Cluster(settings.address, _dashboard(info), ours=False)
        return
    with hold(settings.folder):
        state = _local(settings.folder) or _start(settings.folder, cpus)
        _use_token()
        with _connection(state["address"], namespace, None):
            yield Cluster(state["address"], state["dashboard"], ours=True)


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keeps the local cluster of this folder from ending; several drivers may hold it."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "ray.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def ensure_local(folder: Path, cpus: int | None = None) -> str | None:
    """Starts the local cluster if needed; returns its dashboard's address. The caller holds `hold(folder)`."""
    dashboard: str | None = (_local(folder) or _start(folder, cpus))["dashboard"]
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


@contextlib.contextmanager
def _connection(address: str, namespace: str, runtime_env: dict[str, Any] | None) -> Iterator[Any]:
    if "RAY_AUTH_MODE" not in os.environ and (os.environ.get("RAY_AUTH_TOKEN") or TOKEN_PATH.expanduser().exists()):
        _use_token()  # given an address, Ray does not turn it on by itself
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    try:
        # Ray puts the working directory first on the path of workers: a file workers.py there would hide our package.
        with _no_metrics(), contextlib.chdir(Path(__file__).parents[2]):
            info = ray.init(
                address=address, namespace=namespace, runtime_env=runtime_env, log_to_driver=False,
                logging_level="ERROR",
            )  # fmt: skip
    except Exception as error:  # of many kinds; all mean that this cluster cannot be used
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise _unreachable(address, reason) from error
    try:
        yield info
    finally:
        ray.shutdown()


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


def _use_token() -> None:
    """Turns token authentication on in this process, even if Ray has been imported and has read its settings."""
    os.environ["RAY_AUTH_MODE"] = "token"
    from ray import _raylet

    _raylet.Config.initialize("")  # type: ignore[attr-defined]  # what Ray itself does when it turns the mode on for a local cluster


def _dashboard(info: Any) -> str | None:
    url = getattr(info, "dashboard_url", None) or (info.get("webui_url") if hasattr(info, "get") else None)
    return f"http://{url}" if url else None


def _local(folder: Path) -> dict[str, Any] | None:
    """The running local cluster of this folder, as it described itself; None if its process is gone."""
    try:
        state: dict[str, Any] = json.loads((folder / "ray.json").read_text())
        process = psutil.Process(state["pid"])
    except (OSError, ValueError, psutil.NoSuchProcess):
        return None
    alive = abs(process.create_time() - state["pid_started"]) < 2 and process.status() != psutil.STATUS_ZOMBIE
    return state if alive else None


def _start(folder: Path, cpus: int | None) -> dict[str, Any]:
    """Starts the local cluster's process and waits until it can be reached; one process at a time."""
    with open(folder / "ray.start", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if state := _local(folder):
            return state
        (folder / "ray.json").unlink(missing_ok=True)
        log = folder / "ray.log"
        with open(log, "w") as output:
            command = [sys.executable, "-m", "orchestrator.engine.ray_cluster"]
            command += [str(folder), str(cpus or 0), str(LINGER_S)]
            environment = {**os.environ, "RAY_AUTH_MODE": "token"}
            environment.pop("RAY_ADDRESS", None)
            root = str(Path(__file__).parents[2])  # for a checkout that is not installed
            environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True, env=environment
            )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            ended = process.poll() is not None
            if state := _local(folder):
                return state
            if ended:
                break
            time.sleep(0.1)
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-5:])
        raise BackendUnreachable(f"the local Ray cluster did not start; the end of {log}:\n{tail}")


def keep_head(folder: Path, cpus: int, linger_s: float) -> None:
    """The local cluster's process: starts Ray, writes its address, ends when it was not needed for `linger_s` seconds.

    A folder has one. A second process, started because a driver was interrupted while it started the first, ends once
    the first has written its address, or takes its place if the first is gone.
    """
    with open(folder / "ray.head", "a") as lock:
        while not _locked(lock):
            if _local(folder):
                return
            time.sleep(0.2)
        _keep_head(folder, cpus, linger_s)


def _keep_head(folder: Path, cpus: int, linger_s: float) -> None:
    import ray

    for kind in (signal.SIGINT, signal.SIGHUP):
        signal.signal(kind, signal.SIG_IGN)  # Ctrl-C in the terminal is meant for the driver
    info = ray.init(
        address="local",
        num_cpus=cpus or None,
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        log_to_driver=False,
        namespace="orchestrator-head",
    )
    me = psutil.Process()
    state = {
        "address": info.address_info["gcs_address"],
        "dashboard": f"http://{info.dashboard_url}" if info.dashboard_url else None,
        "pid": me.pid,
        "pid_started": me.create_time(),
    }
    written = folder / "ray.json.new"
    written.write_text(json.dumps(state))
    written.rename(folder / "ray.json")
    last_needed = time.monotonic()
    while folder.exists():
        time.sleep(1.0)
        if _held(folder) or _runs_trials(ray.util.list_named_actors(all_namespaces=True)):
            last_needed = time.monotonic()
        elif time.monotonic() - last_needed > linger_s and _withdraw(folder):
            break
    ray.shutdown()


def _runs_trials(actors: list[dict[str, str]]) -> bool:
    """True if any of these actors runs trials. Ray Train's own named actors stay as long as the cluster."""
    return any(actor["namespace"].startswith(NAMESPACE) and "/" in actor["name"] for actor in actors)


def _withdraw(folder: Path) -> bool:
    """Removes the cluster's address; False if a driver holds the cluster, which then stays."""
    with contextlib.suppress(OSError), open(folder / "ray.lock", "a") as lock:
        if not _locked(lock):
            return False
        (folder / "ray.json").unlink(missing_ok=True)  # under the lock: the next driver finds none and starts another
    return True


def _held(folder: Path) -> bool:
    with contextlib.suppress(OSError), open(folder / "ray.lock", "a") as lock:
        return not _locked(lock)
    return False  # the folder is gone


def _locked(lock: IO[str]) -> bool:
    """Tries, without waiting, to lock the file for this process alone; True if it succeeded."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    keep_head(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
