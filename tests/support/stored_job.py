"""A job with trials as the tests of the store record it."""

from __future__ import annotations

from typing import Any

from orchestrator.records.rows import DriverRow, JobRecord, Placement

JOB = JobRecord(
    "a1b2c3", "k12-grid", "laptop", {"name": "k12-grid"}, "name: k12-grid\n", 3, "c0ffee", True, {"torch": "2"}
)


def key_of(number: int) -> str:
    return f"{number:02x}" * 32


def placement(number: int, stage: str = "grid", parent: str | None = None) -> Placement:
    init: dict[str, Any] = {"kind": "random"} if parent is None else {"kind": "trial", "trial": parent}
    return Placement(
        stage=stage, group="digits/RAND", group_values={"task.dataset": "digits"}, key=key_of(number),
        spec={"backbone": {"init": init}, "seed": 7}, settings={"optim.lr": 1e-4 * number},
        name=f"{stage}/digits/RAND/lr={number}", position=number, metric="top1", mode="max", seed=7, epochs=10,
    )  # fmt: skip


def elsewhere(driver_id: str, job_id: str = JOB.id) -> DriverRow:
    """A driver on another host, which is alive until its lease runs out."""
    return DriverRow(driver_id, "another-host", 1, 0.0, job_id, "cluster")
