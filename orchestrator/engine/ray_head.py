"""The process of a folder's local Ray cluster: starts Ray, watches it, and ends with it or when nobody needs it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from orchestrator import processes
from orchestrator.engine import local_cluster
from orchestrator.engine.watch import AnswerWatch, HeadWatch

NAMESPACE = "orchestrator-"
"""Begins the Ray namespace of every driver; the rest identifies the store."""
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Ray's variable that, set to 0, binds every port of a cluster to 127.0.0.1."""
WATCH_S = 0.5
SHUTDOWN_S = 20.0
"""Seconds that Ray has to end in order; then its processes are killed."""


def keep_head(folder: Path, cpus: int, linger_s: float) -> None:
    """Starts Ray, writes its address, ends when it was not needed for `linger_s` seconds, on SIGTERM, or when broken.

    A folder has one such process. A second one, started because a driver was interrupted while it started the first,
    ends once the first has written its address, or takes its place if the first is gone.
    """
    with open(folder / "ray.head", "a") as lock:
        while not local_cluster.locked(lock):
            if local_cluster.described(folder):
                return
            time.sleep(0.2)
        local_cluster.sign(lock)
        for kind in (signal.SIGINT, signal.SIGHUP):
            signal.signal(kind, signal.SIG_IGN)  # Ctrl-C in the terminal is meant for the driver
        with local_cluster.session_folder(folder) as sessions:
            _keep_head(folder, sessions, cpus, linger_s)


def _keep_head(folder: Path, sessions: Path, cpus: int, linger_s: float) -> None:
    os.environ[LOOPBACK] = "0"
    import ray

    info = ray.init(
        address="local",
        num_cpus=cpus or None,
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        log_to_driver=False,
        namespace="orchestrator-head",
        _temp_dir=str(sessions),
    )
    asked_to_end = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked_to_end.set())  # Ray's own would leave the session's files
    guard = _Guard(folder)
    dashboard = f"http://{info.dashboard_url}" if info.dashboard_url else None
    local_cluster.describe(folder, info.address_info["gcs_address"], dashboard)
    last_needed, pings = time.monotonic(), _Pings()
    while folder.exists() and not asked_to_end.is_set():
        time.sleep(1.0)
        actors = ray.util.list_named_actors(all_namespaces=True)
        guard.watch.answered(sum(node["Alive"] for node in ray.nodes()), time.monotonic())
        held = local_cluster.held(folder)
        if not held:  # else a driver watches them
            pings.end_frozen([actor for actor in actors if runs_trials([actor])])
        if held or runs_trials(actors):
            last_needed = time.monotonic()
        elif time.monotonic() - last_needed > linger_s and local_cluster.withdraw(folder):
            break
    (folder / "ray.json").unlink(missing_ok=True)
    guard.leaves_within(SHUTDOWN_S)
    ray.shutdown()
    guard.stop()


def runs_trials(actors: Sequence[Mapping[str, str]]) -> bool:
    """True if any of these actors runs trials. Ray Train's own named actors stay as long as the cluster."""
    return any(actor["namespace"].startswith(NAMESPACE) and "/" in actor["name"] for actor in actors)


class _Pings:
    """Ends actors that answer nobody while there is no driver; the cluster would stay for them for ever."""

    def __init__(self) -> None:
        self._actors: dict[str, tuple[Any, Any, AnswerWatch]] = {}
        """By name: the actor, the call whose answer is awaited, and when it last answered."""

    def end_frozen(self, actors: Sequence[Mapping[str, str]]) -> None:
        """Calls each of these actors; ends those that have not answered for too long."""
        import ray

        now = time.monotonic()
        self._actors = {name: self._actors[name] for actor in actors if (name := actor["name"]) in self._actors}
        for actor in actors:
            name = actor["name"]
            if name not in self._actors:
                with contextlib.suppress(ValueError):  # it has ended since
                    handle = ray.get_actor(name, namespace=actor["namespace"])
                    self._actors[name] = (handle, handle.should_stop.remote(), AnswerWatch(now))
                continue
            handle, call, watch = self._actors[name]
            if ray.wait([call], timeout=0)[0]:
                watch.answered(now)
                self._actors[name] = (handle, handle.should_stop.remote(), watch)
            elif watch.verdict(now).end:
                ray.kill(handle)
                del self._actors[name]


class _Guard:
    """A thread that ends this process, and all it has started, once the cluster is of no use to anybody.

    The main thread cannot do that: its calls to Ray wait for a dead GCS for minutes.
    """

    def __init__(self, folder: Path) -> None:
        from ray._private.worker import _global_node

        self.watch = HeadWatch(time.monotonic())
        self._folder = folder
        self._processes = [
            (name, each.process.pid, processes.began(each.process.pid))
            for name in ("gcs_server", "raylet")
            for each in _global_node.all_processes.get(name, [])
        ]
        self._stopped = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def leaves_within(self, seconds: float) -> None:
        """From now on the end of Ray's processes is wanted, and all must be over after so many seconds."""
        self.watch.leaving(time.monotonic() + seconds)

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(WATCH_S):
            ended = [name for name, pid, began in self._processes if not processes.is_running(pid, began)]
            if reason := self.watch.verdict(ended, time.monotonic()):
                self._give_up(reason)

    def _give_up(self, reason: str) -> None:
        (self._folder / "ray.json").unlink(missing_ok=True)  # first: the next driver starts another cluster
        print(f"the local Ray cluster ends: {reason}", file=sys.stderr, flush=True)
        local_cluster.end_family(psutil.Process(), itself=False)
        os._exit(1)


if __name__ == "__main__":
    keep_head(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
