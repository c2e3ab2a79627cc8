"""The only place that answers `plan`: it brings a job, what is recorded and a cluster together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from orchestrator.errors import NotFound, SpecError
from orchestrator.launch.other_jobs import assume_weights, assumed_snapshots, assumptions
from orchestrator.plan.cost import Cost, cost
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.resource_fit import Node
from orchestrator.records.states import TrialSnapshot
from orchestrator.settings import Settings
from orchestrator.spec.job import JobSpec, job_id
from tasks.backbones.spec import BackboneSpec

CLASSES = 1000
"""Outputs of the head whose parameters are counted; small beside the backbone."""


def estimate(job: JobSpec, where: Settings, nodes: list[Node]) -> Cost:
    """What is left of the job on these nodes, from what the store has recorded (a store that is not there has
    recorded nothing). Writes nothing but the split manifests of data that have none yet."""
    from orchestrator.launch.data_manifests import with_manifests
    from orchestrator.launch.submit import recorded_speed
    from orchestrator.store.store import open_store

    def nothing(keys: list[str]) -> Mapping[str, TrialSnapshot]:
        return assumed_snapshots(keys)

    job = assume_weights(job, where)
    identity, job = job_id(job), with_manifests(job, where)
    try:
        store = open_store(where.database_url, create=False)
    except NotFound:
        found = cost(job, nothing, DurationModel(), nodes, _parameters)
    else:
        with contextlib.closing(store):
            speed, history = recorded_speed(store), store.search_log.events(identity)
            found = cost(
                job,
                lambda keys: {**store.trials.snapshots(keys), **assumed_snapshots(keys)},
                speed,
                nodes,
                _parameters,
                history,
            )
    return replace(found, basis=[*found.basis, *assumptions(job)])


def _parameters(backbone: BackboneSpec) -> int:
    from tasks.backbones.model import parameters

    try:
        return parameters(backbone, CLASSES)
    except ValueError as error:
        raise SpecError([f"backbone: {error}"]) from error


def machines(where: Settings, nodes: int, cpus: float | None, gpus: float | None) -> list[Node]:
    """The cluster to plan for: as described by the flags, else the one at the address, else this machine."""
    if where.address and cpus is None and gpus is None:
        from orchestrator.engine import ray_cluster
        from orchestrator.engine.ray_backend import RayBackend

        with ray_cluster.connected(where, "orchestrator-plan", ship=False):
            own = ("CPU", "GPU", "memory", "object_store_memory")
            return [
                Node(
                    node.get("CPU", 0.0),
                    node.get("GPU", 0.0),
                    {name: amount for name, amount in node.items() if name not in own and ":" not in name},
                )
                for node in RayBackend("").nodes()
            ]
    here = float(os.cpu_count() or 1)
    return [Node(here if cpus is None else cpus, _gpus_here() if gpus is None else gpus)] * nodes


def _gpus_here() -> float:
    """NVIDIA GPUs of this machine, without importing torch."""
    devices = Path("/proc/driver/nvidia/gpus")
    return float(len(list(devices.iterdir()))) if devices.is_dir() else 0.0
