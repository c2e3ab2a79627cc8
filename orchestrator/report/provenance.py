"""Records which code, packages, data and hardware a report's numbers come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.report.formatting import moment
from orchestrator.report.model import Cell, Provenance, StageCount

if TYPE_CHECKING:
    from orchestrator.records.rows import JobRow, PlacedRow, TrialRow


def provenance(
    job: JobRow,
    cells: Iterable[Cell],
    behind: Mapping[str, TrialRow],
    placed: Iterable[PlacedRow],
    counts: Iterable[StageCount],
) -> Provenance:
    digests: dict[str, set[str]] = {}
    for cell in cells:
        digests.setdefault(cell.column, set()).update(
            behind[key].data_digest or "" for key in cell.keys if key in behind
        )
    used = list(behind.values())
    started = [trial.started for trial in placed if trial.started is not None]
    ended = [trial.ended for trial in placed if trial.ended is not None]
    commits = {f"{t.git_commit}{' (dirty)' if t.git_dirty else ''}" for t in used if t.git_commit}
    return Provenance(
        git_commit=job.git_commit or "",
        git_dirty=bool(job.git_dirty),
        versions=dict(job.versions),
        commits=tuple(sorted(commits)),
        hosts=tuple(sorted({trial.host for trial in used if trial.host})),
        devices=tuple(sorted({trial.device for trial in used if trial.device})),
        processors=tuple(sorted({text for trial in used for text in processors(trial)})),
        seeds=tuple(sorted({trial.seed for trial in placed})),
        data={name: tuple(sorted(values - {""})) for name, values in digests.items()},
        first=moment(min(started, default=None)),
        last=moment(max(ended, default=None)),
        seconds=sum(count.seconds for count in counts),
    )


def processors(trial: TrialRow) -> list[str]:
    """Device, CPU kernels and threads of each attempt of a trial, in words; none where they are not recorded."""
    return [_processor(attempt) for attempt in trial.facts.get("ran_on") or ()]


def _processor(attempt: Mapping[str, Any]) -> str:
    threads, workers = attempt["threads"], attempt["workers"]
    each = f" on each of {workers} workers" if workers > 1 else ""
    return (
        f"{attempt['device']}, {attempt['instruction_set']} kernels, {threads} thread{'s' if threads > 1 else ''}{each}"
    )
