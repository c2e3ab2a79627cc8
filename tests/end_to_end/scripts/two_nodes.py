"""Run by test_two_nodes.py in a process of its own: a cluster of two nodes, to which the project's code is sent.

A job of small trials, then one of a single trial over both nodes, of which one dies and is replaced. Prints one line of
JSON: where each small trial ran, where it imported the project from, how the jobs ended, and what the death cost.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ["RAY_AUTH_MODE"] = "token"
# Of its own: Cluster leaves a file behind there by which other programs would take this cluster for theirs.
os.environ["RAY_TMPDIR"] = tempfile.mkdtemp(prefix="ray-", dir="/tmp")

import ray
from ray.cluster_utils import Cluster

from orchestrator import launch, spec
from orchestrator.engine.driver import Driver
from orchestrator.engine.ray_backend import RayBackend
from orchestrator.settings import Settings, settings

KILL_AFTER = 2
"""Reported epochs of the trial over both nodes."""
LIMIT_S = 500
"""Then it ends by itself: killed, it would leave the cluster's processes."""


def small_trials(where: Settings, spec_file: Path) -> dict[str, Any]:
    seen: dict[str, dict[str, str]] = {}

    def watch(driver: Driver) -> None:
        assert isinstance(driver.backend, RayBackend)
        for worker in driver.backend.running():
            if worker.name not in seen and worker.settled:
                place = ray.get(worker.handle.place.remote())
                place["node"] = ray.get(worker.handle.node.remote())
                seen[worker.name] = place

    done = launch.submit(spec.load(spec_file), where, launch.Options(tracking=False, watch=watch))
    return {"state": done.state, "started": done.tally.started, "places": list(seen.values())}


def over_both(where: Settings, spec_file: Path, cluster: Cluster, node: Any) -> dict[str, Any]:
    said: dict[str, Any] = {}

    def watch(driver: Driver) -> None:
        (row,) = driver.store.trials.placed(driver.job_id)
        if "killed_at" not in said and row.epoch >= KILL_AFTER:
            said["killed_at"] = row.epoch
            cluster.remove_node(node, allow_graceful=False)
            cluster.add_node(num_cpus=1)

    done = launch.submit(spec.load(spec_file), where, launch.Options(tracking=False, watch=watch))
    return {"state": done.state, "message": done.message, "job": done.job_id, **said}


def late(*_: object) -> None:
    raise TimeoutError(f"not done after {LIMIT_S} s")


def main(folder: Path, small: Path, large: Path) -> None:
    signal.signal(signal.SIGALRM, late)
    signal.alarm(LIMIT_S)
    # With a dashboard, on a port of its own: Ray Train's cleaner asks it who died before it frees a dead trial's place.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    head = {"num_cpus": 1, "include_dashboard": True, "dashboard_port": port}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        node = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        where = settings(folder=folder, address=cluster.address)
        said = {"small": small_trials(where, small), "large": over_both(where, large, cluster, node)}
        print(json.dumps(said))
    finally:
        cluster.shutdown()
        shutil.rmtree(os.environ["RAY_TMPDIR"], ignore_errors=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
