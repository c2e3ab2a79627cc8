"""Prints the cost of a job as a table."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from orchestrator.launch.other_jobs import assumptions
from orchestrator.plan.cost import Cost, StageCost
from orchestrator.report.formatting import WIDTH, aligned, duration
from orchestrator.spec.job import JobSpec, Reference, job_id


def lines(job: JobSpec, cost: Cost) -> str:
    """The cost as text for a terminal: a table of stages, then totals and what they are based on."""
    gpu = cost.gpu_hours > 0
    header = ["stage", "groups", "trials", "done", "GPU-hours left" if gpu else "CPU-hours left", ""]
    rows = [
        [
            stage.name, str(stage.groups), str(stage.trials), str(stage.done),
            _hours(stage.gpu_hours if gpu else stage.cpu_hours), _remarks(stage),
        ]
        for stage in cost.stages
    ]  # fmt: skip
    total = cost.gpu_hours if gpu else cost.cpu_hours
    rows.append(["together", "", str(cost.trials), str(cost.done), _hours(total), "each trial counted once"])
    text = [job.name if assumptions(job) else job_id(job), "", *aligned(header, rows, WIDTH), ""]
    if cost.makespan_hours is not None:
        text.append(f"makespan on this cluster: {duration(3600 * cost.makespan_hours)}")
    if cost.lower_bound_hours is not None:
        text.append(
            f"lower bound max(work / slots, longest chain): {duration(3600 * cost.lower_bound_hours)}"
            f" (longest chain {duration(3600 * cost.longest_chain_hours)})"
        )
    if cost.disk_bytes is not None:
        text.append(f"disk for checkpoints and kept weights: {_size(cost.disk_bytes)}")
    text += cost.basis + [f"does not fit: {problem}" for problem in cost.problems]
    if job.claims:
        text += ["", "Claims that the report will judge"]
    for claim in job.claims:
        words = f"{claim.name}: {claim.text}" if claim.text else claim.name
        text += textwrap.wrap(words, WIDTH, initial_indent="  ", subsequent_indent="    ")
    return "\n".join([*text, *_published(job.report.reference)])


def _published(reference: Reference | None) -> list[str]:
    """A line for each row of published values, rows without trials last."""
    if reference is None:
        return []
    rows = list(reference.values.items())
    rows += [(f"{row.name} ({row.source})", row.values) for row in reference.rows]
    text = ["", *textwrap.wrap(f"Published values that the report will set beside ours: {reference.source}", WIDTH)]
    digits = _digits([values for _, values in rows])
    for row, values in rows:
        words = ", ".join(f"{column} {_figures(value, digits)}" for column, value in values.items())
        text += textwrap.wrap(f"{row}: {words}", WIDTH, initial_indent="  ", subsequent_indent="    ")
    return text


Values: TypeAlias = Mapping[str, float | dict[str, float]]
"""Column -> its number, or its figures by name."""


def _named(value: float | dict[str, float]) -> dict[str, float]:
    return value if isinstance(value, dict) else {"": value}


def _digits(rows: Sequence[Values]) -> dict[str, int]:
    """Decimals of each figure, in all columns: beside 69.4 stands 70.0, and not 70."""
    most: dict[str, int] = {}
    for values in rows:
        for value in values.values():
            for figure, number in _named(value).items():
                decimals = 0 if "e" in f"{number:g}" else len(f"{number:g}".partition(".")[2])
                most[figure] = max(most.get(figure, 0), decimals)
    return most


def _figures(value: float | dict[str, float], digits: Mapping[str, int]) -> str:
    """One number, or the figures of a column with their names."""
    words = {
        figure: f"{number:g}" if "e" in f"{number:g}" else f"{number:.{digits[figure]}f}"
        for figure, number in _named(value).items()
    }
    return "; ".join(f"{figure} {number}".lstrip() for figure, number in words.items())


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"


def _remarks(stage: StageCost) -> str:
    seeds = f"settings x {stage.seeds} seeds" if stage.seeds > 1 else ""
    return ", ".join(part for part in (seeds, "forecast" if stage.forecast else "") if part)


def _size(size: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
