"""Warnings for the reader of a table: missing values, grid edges, unlike cells, uncommitted code."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.records.recorded_spec import label
from orchestrator.report.formatting import duration
from orchestrator.report.model import Cell, GroupReport, StageCount
from orchestrator.report.provenance import processors
from orchestrator.report.wording import edge_text, reason_without_error

if TYPE_CHECKING:
    from orchestrator.records.rows import JobRow, PlacedRow, TrialRow

SHOWN = 12
"""Failed trials named one by one; the rest is counted."""


def warnings(
    job: JobRow,
    cells: Sequence[Cell],
    groups: Sequence[GroupReport],
    counts: Sequence[StageCount],
    placed: Sequence[PlacedRow],
    behind: Mapping[str, TrialRow],
    left: float | None = None,
) -> tuple[str, ...]:
    """A line each, the gravest first. `behind`: the trials whose figures are in the table (none: not looked at).
    `left`: seconds until the job ends, if it goes on and that is known."""
    return (
        *_failed(placed),
        *_without_value(cells, left),
        *_edges(groups),
        *_diverged(counts),
        *_unlike(cells, behind),
        *_code(job, behind),
    )


def joined_warnings(
    jobs: Sequence[JobRow], cells: Sequence[Cell], behind: Mapping[str, TrialRow], others: Sequence[str]
) -> tuple[str, ...]:
    """Of a table that joins several jobs; `others`: what was found out about these. The choices of each job have
    their own warnings in its own report."""
    unfinished = [job.id for job in jobs if job.state not in ("done", "incomplete")]
    incomplete = [job.id for job in jobs if job.state == "incomplete"]
    return (
        *others,
        *_without_value(cells),
        *(f"job {name} has not ended" for name in unfinished),
        *(f"job {name} is incomplete; see: python -m orchestrator report {name}" for name in incomplete),
        *_unlike(cells, behind),
        *dict.fromkeys(line for job in jobs for line in _code(job, {})),
        *_commits(behind),
    )


def _failed(placed: Sequence[PlacedRow]) -> Iterable[str]:
    lost = [trial for trial in placed if trial.state in ("failed", "cancelled")]
    for trial in lost[:SHOWN]:
        cause = f" ({trial.error_class}: {trial.error.splitlines()[0]})" if trial.error else ""
        yield f"{trial.name}: {trial.state}{cause}"
    if len(lost) > SHOWN:
        yield f"and {len(lost) - SHOWN} more failed or cancelled trials"


def _without_value(cells: Sequence[Cell], left: float | None = None) -> Iterable[str]:
    empty = [cell for cell in cells if cell.state in ("failed", "cancelled", "diverged", "missing", "undecided")]
    incomplete = [cell for cell in empty if cell.state != "missing" or cell.reason.startswith("incomplete")]
    yield from dict.fromkeys(
        f"{cell.row} on {cell.column} has no value: {reason_without_error(cell) or cell.state}" for cell in incomplete
    )
    unfinished = [cell for cell in cells if cell.state in ("running", "pending", "not run")]
    waiting = {(cell.row, cell.column) for cell in (*empty, *unfinished)}
    waiting -= {(cell.row, cell.column) for cell in incomplete}
    if waiting:
        of = len({(cell.row, cell.column) for cell in cells})
        when = "" if left is None else f" (about {duration(left)} left)"
        yield f"{len(waiting)} of {of} cells are not finished: this table is not final{when}"


def _edges(groups: Sequence[GroupReport]) -> Iterable[str]:
    for group in groups:
        if group.choices and group.choices[-1].edges:
            edges = "; ".join(map(edge_text, group.choices[-1].edges))
            yield f"{group.row} on {group.column}: chosen at the edge of the grid: {edges}; a wider grid may do better"


def _diverged(counts: Sequence[StageCount]) -> Iterable[str]:
    for count in counts:
        if count.states.get("diverged"):
            yield f"{count.states['diverged']} of {count.placed} {count.name} trials diverged (they count as the worst)"


def _unlike(cells: Sequence[Cell], behind: Mapping[str, TrialRow]) -> Iterable[str]:
    """Cells of one column that were not measured on the same samples, or not in the same precision; and what the tasks
    of their trials say against comparing them with others."""
    digests: dict[str, set[str]] = {}
    seeds: dict[str, set[tuple[int, ...]]] = {}
    optimistic: dict[str, None] = {}
    caveats: dict[str, dict[str, None]] = {}
    for cell in cells:
        if cell.value is not None:
            seeds.setdefault(cell.column, set()).add(cell.seeds)
            if cell.best_of > 1:
                what = f"{cell.row} on {cell.column} is the best of {cell.best_of} settings on the same samples"
                optimistic[f"{what}: an optimistic number"] = None
        for trial in (behind[key] for key in cell.keys if key in behind):
            digests.setdefault(cell.column, set()).update({trial.data_digest} if trial.data_digest else ())
            for caveat in _caveats_of(trial):
                caveats.setdefault(caveat, {})[cell.column] = None
    yield from optimistic
    columns = {cell.column for cell in cells}
    for caveat, of in sorted(caveats.items(), key=lambda each: (*each[1], each[0])):
        yield f"{'all columns' if len(of) > 1 and columns == set(of) else ', '.join(of)}: {caveat}"
    for column, different in digests.items():
        if len(different) > 1:
            yield f"{column}: its cells were not measured on the same data ({len(different)} digests)"
    for column, numbers in seeds.items():
        if len({len(each) for each in numbers}) > 1:
            yield f"{column}: its cells have different numbers of seeds"
    precisions = {label(trial.facts["precision"]) for trial in behind.values() if "precision" in trial.facts}
    if len(precisions) > 1:
        yield f"trials of the table ran in different precisions: {', '.join(sorted(precisions))}"
    kinds = sorted({kind for trial in behind.values() for kind in processors(trial)})
    if len(kinds) > 1:
        yield (
            "trials of the table ran on different processors or numbers of threads, on which digits depend beside the "
            f"seed: {'; '.join(kinds)}"
        )


ANY_COUNT = "fewer or more images than published may have been used (task.counts any): not comparable"
"""The caveat of a trial that recorded none itself, because it ran before tasks stated theirs."""


def _caveats_of(trial: TrialRow) -> Sequence[str]:
    recorded = trial.facts.get("caveats")
    if isinstance(recorded, list | tuple):
        return [str(caveat) for caveat in recorded]
    return [ANY_COUNT] if trial.spec.get("task", {}).get("counts") == "any" else []


def _code(job: JobRow, behind: Mapping[str, TrialRow]) -> Iterable[str]:
    if job.git_dirty:
        yield "the job was submitted from a working tree with uncommitted changes"
    dirty = sum(bool(trial.git_dirty) for trial in behind.values())
    if dirty and not job.git_dirty:
        yield f"{dirty} trials of the table ran from a working tree with uncommitted changes"
    yield from _commits(behind)


def _commits(behind: Mapping[str, TrialRow]) -> Iterable[str]:
    commits = {trial.git_commit for trial in behind.values() if trial.git_commit}
    if len(commits) > 1:
        short = ", ".join(sorted(commit[:10] for commit in commits))
        yield f"trials of the table come from {len(commits)} versions of the code: {short}"
