"""Prints the cost of a job as a table."""

from __future__ import annotations

from orchestrator.launch.other_jobs import assumptions
from orchestrator.plan.cost import Cost
from orchestrator.report.formatting import clock
from orchestrator.spec.job import JobSpec, job_id


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
