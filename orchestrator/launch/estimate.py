"""The only place that answers `plan`: it brings a job, what is recorded and a cluster together."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from orchestrator.cli.progress import clock
from orchestrator.errors import NotFound, SpecError
from orchestrator.launch.other_jobs import assume, assumed, assumptions
from orchestrator.plan.cost import Cost, Node, cost
from orchestrator.plan.durations import Speed
from orchestrator.records.states import Known
from orchestrator.settings import Settings
from orchestrator.spec.job import JobSpec, job_id
from tasks.backbones.model import BackboneSpec

CLASSES = 1000
"""Outputs of the head whose parameters are counted; small beside the backbone."""


def estimate(job: JobSpec, where: Settings, nodes: list[Node]) -> Cost:
    """What is left of the job on these nodes, from what the store has recorded (a store that is not there has
    recorded nothing). Writes nothing but the split manifests of data that have none yet."""
    from orchestrator.launch.data_manifests import with_manifests
    from orchestrator.launch.submit import recorded_speed
    from orchestrator.store.store import open_store

    def nothing(keys: list[str]) -> Mapping[str, Known]:
        return assumed(keys)

    job = assume(job, where)
    identity, job = job_id(job), with_manifests(job, where)
    try:
        store = open_store(where.database_url, create=False)
    except NotFound:
        found = cost(job, nothing, Speed(), nodes, _parameters)
    else:
        with contextlib.closing(store):
            speed, history = recorded_speed(store), store.search_events(identity)
            found = cost(job, lambda keys: {**store.known(keys), **assumed(keys)}, speed, nodes, _parameters, history)
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
        from orchestrator.engine.ray_backend import Pool

        with ray_cluster.connected(where, "orchestrator-plan", ship=False):
            own = ("CPU", "GPU", "memory", "object_store_memory")
            return [
                Node(
                    node.get("CPU", 0.0),
                    node.get("GPU", 0.0),
                    {name: amount for name, amount in node.items() if name not in own and ":" not in name},
                )
                for node in Pool("").nodes()
            ]
    here = float(os.cpu_count() or 1)
    return [Node(here if cpus is None else cpus, _gpus_here() if gpus is None else gpus)] * nodes


def _gpus_here() -> float:
    """NVIDIA GPUs of this machine, without importing torch."""
    devices = Path("/proc/driver/nvidia/gpus")
    return float(len(list(devices.iterdir()))) if devices.is_dir() else 0.0


def lines(job: JobSpec, found: Cost) -> str:
    """The cost as a table for a terminal."""
    gpu = found.gpu_hours > 0
    head = ("stage", "groups", "trials", "done", "GPU-hours left" if gpu else "CPU-hours left", "")
    rows = [
        (
            stage.name, str(stage.groups), str(stage.trials), str(stage.done),
            f"{stage.gpu_hours if gpu else stage.cpu_hours:.3g}", "forecast" if stage.forecast else "",
        )
        for stage in found.stages
    ]  # fmt: skip
    total = found.gpu_hours if gpu else found.cpu_hours
    rows.append(("together", "", str(found.trials), str(found.done), f"{total:.3g}", "each trial counted once"))
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    table = [
        "  ".join(
            text.ljust(width) if i in (0, 5) else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]
    text = [job.name if assumptions(job) else job_id(job), "", *table, ""]
    if found.makespan_hours is not None:
        text.append(f"makespan on this cluster: {_hours(found.makespan_hours)}")
    if found.lower_bound_hours is not None:
        text.append(
            f"lower bound max(work / slots, longest chain): {_hours(found.lower_bound_hours)}"
            f" (longest chain {_hours(found.longest_chain_hours)})"
        )
    if found.disk_bytes is not None:
        text.append(f"disk for checkpoints and kept weights: {_size(found.disk_bytes)}")
    text += found.basis + [f"does not fit: {problem}" for problem in found.problems]
    return "\n".join(text)


def _hours(hours: float) -> str:
    return clock(hours * 3600) if hours < 100 else f"{hours:.0f} h ({hours / 24:.1f} days)"


def _size(size: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
