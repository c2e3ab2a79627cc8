"""The only place that finds, starts and leaves a Ray cluster."""

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
"""How long a local cluster that we started stays after its last driver and its last trial."""
NAMESPACE = "orchestrator-"
"""Of every driver; the rest of it marks the store."""
TOKEN_PATH = Path("~/.ray/auth_token")


@dataclass(frozen=True)
class Cluster:
    """A cluster this process is connected to."""

    address: str
    dashboard: str | None
    """http://127.0.0.1:port, when it has one."""
    ours: bool
    """Whether it is the local one that we start and that leaves by itself."""


@contextlib.contextmanager
def connected(settings: Settings, namespace: str, cpus: int | None = None, ship: bool = True) -> Iterator[Cluster]:
    """Connects to `settings.address`, or to the local cluster of this folder (started when it is not there).

    The local cluster is a process of its own: it and the trials on it outlive a driver that is killed, and it
    leaves `LINGER_S` after the last driver and the last trial. `ship`: on a cluster given by address the project's
    three packages travel to the nodes (runtime_env); not needed where the image has them.
    Raises BackendUnreachable.
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
    """While held, the local cluster of this folder does not leave. Shared: several drivers may hold it."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "ray.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def ensure_local(folder: Path, cpus: int | None = None) -> str | None:
    """Starts the local cluster when it is not there; its dashboard's address. The caller holds `hold(folder)`."""
    dashboard: str | None = (_local(folder) or _start(folder, cpus))["dashboard"]
    return dashboard


def _shipped() -> dict[str, Any]:
    import orchestrator
    import tasks
    import workers

    return {"py_modules": [str(Path(str(package.__file__)).parent) for package in (orchestrator, workers, tasks)]}


def _require_answer(address: str) -> None:
    """Raises BackendUnreachable when no Ray listens there: Ray itself would go on trying for ten minutes."""
    import grpc  # type: ignore[import-untyped]
    from ray._private.services import canonicalize_bootstrap_address

    try:
        client = address.startswith("ray://")
        target = address.removeprefix("ray://") if client else canonicalize_bootstrap_address(address)
        if not target:
            return  # "auto" that finds nothing, which Ray says at once
        host, _, port = target.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        if os.environ.get("RAY_USE_TLS", "0") == "0":
            with grpc.insecure_channel(target) as channel:
                grpc.channel_ready_future(channel).result(timeout=10)
    except (OSError, ValueError) as error:
        raise _unreachable(address, getattr(error, "strerror", None) or str(error)) from error
    except grpc.FutureTimeoutError as error:
        raise _unreachable(address, "what listens there is no Ray head (whose port is 6379 by default)") from error


def _unreachable(address: str, reason: str) -> BackendUnreachable:
    return BackendUnreachable(
        f"no Ray cluster at {address}: {reason}\n"
        "Check --address / RAY_ADDRESS (and RAY_AUTH_TOKEN_PATH), or leave it out to run on this machine."
    )


@contextlib.contextmanager
def _connection(address: str, namespace: str, runtime_env: dict[str, Any] | None) -> Iterator[Any]:
    if "RAY_AUTH_MODE" not in os.environ and (os.environ.get("RAY_AUTH_TOKEN") or TOKEN_PATH.expanduser().exists()):
        _use_token()  # with an explicit address Ray does not turn it on by itself
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    try:
        with _no_metrics():
            info = ray.init(
                address=address, namespace=namespace, runtime_env=runtime_env, log_to_driver=False,
                logging_level="ERROR",
            )  # fmt: skip
    except Exception as error:  # Ray raises many kinds here; all mean that there is no cluster for us
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise _unreachable(address, reason) from error
    try:
        yield info
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _no_metrics() -> Iterator[None]:
    """This process keeps no metrics for Prometheus while Ray begins in it, unless the user says so: each task name is
    a series of its own there, and ours are the trials' names (10 KB a trial in the driver, for good)."""
    name = "RAY_enable_metrics_collection"
    given = os.environ.get(name)
    os.environ[name] = given or "0"
    try:
        yield
    finally:
        if given is None:
            del os.environ[name]  # processes that are started from here, a local cluster too, are not meant


def _use_token() -> None:
    """Turns token authentication on in this process, also when Ray was imported (and read its settings) before."""
    os.environ["RAY_AUTH_MODE"] = "token"
    from ray import _raylet

    _raylet.Config.initialize("")  # type: ignore[attr-defined]  # what Ray itself does when it turns the mode on for a local cluster


def _dashboard(info: Any) -> str | None:
    url = getattr(info, "dashboard_url", None) or (info.get("webui_url") if hasattr(info, "get") else None)
    return f"http://{url}" if url else None


def _local(folder: Path) -> dict[str, Any] | None:
    """What the running local cluster of this folder wrote of itself; none when its process is gone."""
    try:
        state: dict[str, Any] = json.loads((folder / "ray.json").read_text())
        process = psutil.Process(state["pid"])
    except (OSError, ValueError, psutil.NoSuchProcess):
        return None
    alive = abs(process.create_time() - state["pid_started"]) < 2 and process.status() != psutil.STATUS_ZOMBIE
    return state if alive else None


def _start(folder: Path, cpus: int | None) -> dict[str, Any]:
    """Starts the local cluster's process and waits until it can be reached (one starter at a time)."""
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
            root = str(Path(__file__).parents[2])  # also when run from a checkout that is not installed
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
    """The local cluster's process: starts Ray, says where, and leaves when nobody has needed it for `linger_s`.

    A folder has one: a second process waits until the first has said where it is (a driver that was interrupted had
    begun it), and ends, or until the first is gone.
    """
    with open(folder / "ray.head", "a") as lock:
        while not _taken(lock):
            if _local(folder):
                return
            time.sleep(0.2)
        _keep_head(folder, cpus, linger_s)


def _keep_head(folder: Path, cpus: int, linger_s: float) -> None:
    import ray

    for kind in (signal.SIGINT, signal.SIGHUP):
        signal.signal(kind, signal.SIG_IGN)  # Ctrl-C in the terminal is for the driver
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
    needed = time.monotonic()
    while folder.exists():
        time.sleep(1.0)
        if _held(folder) or _ours(ray.util.list_named_actors(all_namespaces=True)):
            needed = time.monotonic()
        elif time.monotonic() - needed > linger_s and _leave(folder):
            break
    ray.shutdown()


def _ours(actors: list[dict[str, str]]) -> bool:
    """Whether any of them runs trials. Ray Train leaves named actors of its own, for as long as there is a cluster."""
    return any(actor["namespace"].startswith(NAMESPACE) and "/" in actor["name"] for actor in actors)


def _leave(folder: Path) -> bool:
    """Withdraws the cluster's address; False when a driver holds the cluster, which then stays."""
    with contextlib.suppress(OSError), open(folder / "ray.lock", "a") as lock:
        if not _taken(lock):
            return False
        (folder / "ray.json").unlink(missing_ok=True)  # within the lock: who comes now finds none and starts another
    return True


def _held(folder: Path) -> bool:
    with contextlib.suppress(OSError), open(folder / "ray.lock", "a") as lock:
        return not _taken(lock)
    return False  # the folder is gone


def _taken(lock: IO[str]) -> bool:
    """Whether the file is ours alone now, without waiting."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    keep_head(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
