"""Estimates the cost of a job from its spec, the store and a cluster; the answer of `plan`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from orchestrator.errors import NotFound, SpecError
from orchestrator.launch.data_manifests import with_manifests
from orchestrator.launch.job_plugins import with_plugins
from orchestrator.launch.notes import caveats
from orchestrator.launch.other_jobs import assumed_snapshots, assumptions
from orchestrator.launch.submit import recorded_durations
from orchestrator.plan.cost import Cost, cost
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.resource_fit import Node
from orchestrator.records.states import TrialSnapshot
from orchestrator.settings import Settings
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.store.store import open_to_look
from tasks.errors import DataError
from workers.trial import TrialSpec


def estimate(job: JobSpec, where: Settings, nodes: list[Node]) -> Cost:
    """What is left of the job, and what that costs on these nodes, by what the store has recorded (if there is one).

    `job`: as `assume_weights` returns it. Writes nothing but the split manifests of data that have none yet.
    """
    job, _ = with_plugins(job)
    planned_job = with_manifests(job, where)
    try:
        store = open_to_look(where)
    except NotFound:
        result = cost(planned_job, assumed_snapshots, DurationModel(), nodes, parameters)
    else:
        with contextlib.closing(store):

            def snapshots(keys: list[str]) -> Mapping[str, TrialSnapshot]:
                return {**store.trials.snapshots(keys), **assumed_snapshots(keys)}

            durations, history = recorded_durations(store), store.search_log.events(job_id(job))
            result = cost(planned_job, snapshots, durations, nodes, parameters, history)
    return replace(result, basis=[*result.basis, *assumptions(job), *caveats(planned_job)])


def parameters(spec: TrialSpec) -> int | None:
    """Number of parameters of the trial's model, head included; None if only its content could tell.

    The model is built on torch's meta device, without memory. Raises SpecError if it cannot be built.
    """
    import torch

    try:
        with torch.device("meta"):
            model = spec.task.build(spec.backbone, None)
    except (ValueError, DataError) as error:
        raise SpecError([f"backbone: {error}"]) from error
    except RuntimeError:  # NotImplementedError is one: something reads the values of a tensor
        return None
    return sum(parameter.numel() for parameter in model.parameters())


def machines(where: Settings, nodes: int, cpus: float | None, gpus: float | None) -> list[Node]:
    """The cluster to plan for: as described by the arguments, else the one at the address, else this machine.

    `nodes`: how many like the one described, or like this machine.
    """
    if where.address and cpus is None and gpus is None:
        from orchestrator.engine import ray_cluster
        from orchestrator.engine.ray_backend import RayBackend

        with ray_cluster.connected(where, "orchestrator-plan", ship=False):
            return [_node(resources) for resources in RayBackend("").nodes()]
    own_cpus = float(os.cpu_count() or 1)
    return [Node(own_cpus if cpus is None else cpus, own_gpus() if gpus is None else gpus)] * nodes


def _node(resources: Mapping[str, float]) -> Node:
    """A node by Ray's names of its resources, without those that Ray adds itself."""
    known = ("CPU", "GPU", "memory", "object_store_memory")
    custom = {name: amount for name, amount in resources.items() if name not in known and ":" not in name}
    return Node(resources.get("CPU", 0.0), resources.get("GPU", 0.0), custom)


def own_gpus() -> float:
    """Number of this machine's NVIDIA GPUs, without importing torch."""
    devices = Path("/proc/driver/nvidia/gpus")
    return float(len(list(devices.iterdir()))) if devices.is_dir() else 0.0
