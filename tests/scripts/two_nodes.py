"""Run by tests/test_ray.py in a process of its own: a cluster of two nodes, to which the project's code is sent.

Prints one line of JSON: where each trial ran, where it imported the project from, and how the job ended.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["RAY_AUTH_MODE"] = "token"

import ray
from ray.cluster_utils import Cluster

from orchestrator import launch, spec
from orchestrator.pool import Pool
from orchestrator.schedule import Drive
from orchestrator.settings import settings


def main(folder: Path, spec_file: Path) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        seen: dict[str, dict[str, str]] = {}

        def watch(drive: Drive) -> None:
            assert isinstance(drive.hands, Pool)
            for worker in drive.hands.busy():
                if worker.name not in seen and worker.settled:
                    place = ray.get(worker.handle.place.remote())
                    place["node"] = ray.get(worker.handle.node.remote())
                    seen[worker.name] = place

        where = settings(folder=folder, address=cluster.address)
        done = launch.submit(spec.load(spec_file), where, launch.Options(tracking=False, watch=watch))
        print(json.dumps({"state": done.state, "started": done.tally.started, "places": list(seen.values())}))
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
