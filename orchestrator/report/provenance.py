"""Records which code, packages, data and hardware a report's numbers come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.report.formatting import moment
from orchestrator.report.model import Cell, Provenance, StageCount, TrialLine

if TYPE_CHECKING:
    from orchestrator.records.rows import JobRow, PlacedRow, TrialRow


def provenance(
    job: JobRow,
    cells: Iterable[Cell],
    behind: Mapping[str, TrialRow],
    placed: Iterable[PlacedRow],
    counts: Iterable[StageCount],
) -> Provenance:
    return _provenance(
        job.git_commit or "", bool(job.git_dirty), dict(job.versions), cells, behind, list(placed),
        sum(count.seconds for count in counts),
    )  # fmt: skip


def joined_provenance(
    jobs: Sequence[JobRow], cells: Iterable[Cell], behind: Mapping[str, TrialRow], lines: Iterable[TrialLine]
) -> Provenance:
    """Of a table that joins several jobs: of versions and times, those of its trials. `lines`: its trials."""
    versions: dict[str, dict[str, None]] = {}
    for job in jobs:
        for name, version in job.versions.items():
            versions.setdefault(name, {})[version] = None
    return _provenance(
        ", ".join(dict.fromkeys(job.git_commit for job in jobs if job.git_commit)),
        any(job.git_dirty for job in jobs),
        {name: " / ".join(each) for name, each in versions.items()},
        cells, behind, list(behind.values()), sum(line.seconds or 0.0 for line in lines),
    )  # fmt: skip


def _provenance(
    git_commit: str,
    git_dirty: bool,
    versions: Mapping[str, str],
    cells: Iterable[Cell],
    behind: Mapping[str, TrialRow],
    trials: Sequence[PlacedRow | TrialRow],
    seconds: float,
) -> Provenance:
    """`trials`: whose seeds and times are told; `seconds`: what they took."""
    used = list(behind.values())
    return Provenance(
        git_commit=git_commit,
        git_dirty=git_dirty,
        versions=versions,
        commits=_commits(used),
        hosts=tuple(sorted({trial.host for trial in used if trial.host})),
        devices=tuple(sorted({trial.device for trial in used if trial.device})),
        processors=tuple(sorted({text for trial in used for text in processors(trial)})),
        seeds=tuple(sorted({trial.seed for trial in trials})),
        data=_data(cells, behind),
        first=moment(min((trial.started for trial in trials if trial.started is not None), default=None)),
        last=moment(max((trial.ended for trial in trials if trial.ended is not None), default=None)),
        seconds=seconds,
    )


def _commits(used: Iterable[TrialRow]) -> tuple[str, ...]:
    return tuple(sorted({f"{t.git_commit}{' (dirty)' if t.git_dirty else ''}" for t in used if t.git_commit}))


def _data(cells: Iterable[Cell], behind: Mapping[str, TrialRow]) -> dict[str, tuple[str, ...]]:
    """Column -> digests of the data that its trials were trained and evaluated on."""
    digests: dict[str, set[str]] = {}
    for cell in cells:
        digests.setdefault(cell.column, set()).update(
            behind[key].data_digest or "" for key in cell.keys if key in behind
        )
    return {name: tuple(sorted(values - {""})) for name, values in digests.items()}


def processors(trial: TrialRow) -> list[str]:
    """Device, CPU kernels and threads of each attempt of a trial, in words; none where they are not recorded."""
    return [_processor(attempt) for attempt in trial.facts.get("ran_on") or ()]


def _processor(attempt: Mapping[str, Any]) -> str:
    threads, workers = attempt["threads"], attempt["workers"]
    each = f" on each of {workers} workers" if workers > 1 else ""
    return (
        f"{attempt['device']}, {attempt['instruction_set']} kernels, {threads} thread{'s' if threads > 1 else ''}{each}"
    )
