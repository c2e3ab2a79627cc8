"""Builds the report of a job from its rows in the store and its recorded spec."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from orchestrator.report.caveats import warnings
from orchestrator.report.claims import claims
from orchestrator.report.early_stopping import EpochsSaved, RankAgreement, agreement, saved
from orchestrator.report.figures import metric_of, scaled
from orchestrator.report.formatting import moment
from orchestrator.report.groups import group_reports, scales
from orchestrator.report.job_results import JobResults
from orchestrator.report.layer_figures import layer_figures
from orchestrator.report.model import FORM, Cell, Report, StageCount, TrialLine
from orchestrator.report.pictures import chosen
from orchestrator.report.plots import plots
from orchestrator.report.provenance import provenance
from orchestrator.report.searches import search_reports
from orchestrator.report.submissions import with_submissions
from orchestrator.report.table import other_rows, table_cells, table_means
from orchestrator.report.time_left import seconds_left
from orchestrator.report.training_settings import training_settings
from orchestrator.report.uncertainty import marked, with_uncertainty

if TYPE_CHECKING:
    from orchestrator.records.rows import PlacedRow, TrialRow
    from orchestrator.store.store import Store

RANKED = 5000
"""Largest number of trials of a search whose early rankings are compared with the final one."""

LOOKED_AT = 80
"""Largest number of trials in the table of which everything recorded is read for a terminal too."""


def build(store: Store, job_id: str, *, full: bool = True) -> Report:
    """The report of a job, from SQL rows and the job's own spec alone.

    `full` False leaves out what a terminal does not show (learning curves, searches, settings, the spec, the list of
    all trials, addresses of tracking runs, heat maps of more than `MAPS` groups) and, of large tables, hosts, devices
    and data digests, so that a job of 20,000 trials takes well under a second. NotFound: no such job.
    """
    results = JobResults(store, job_id, full)
    cells = marked(
        results.rows, with_uncertainty(store, with_submissions(store, table_cells(results))), len(results.columns)
    )
    means = table_means(results, cells)
    groups = group_reports(results, cells)
    behind = _behind(results, cells)
    counts = _counts(results)
    stopping, order = _early_stopping(results)
    job, placed = results.job, results.placed
    return Report(
        form=FORM,
        job_id=job.id,
        name=job.name,
        profile=job.profile,
        state=str(job.state),
        message=job.message,
        created=moment(job.created),
        caption=results.table.get("caption", ""),
        stage=results.stage,
        measured_on=_measured_on(results),
        row_path=results.row_path,
        column_path=results.column_path,
        rows=results.rows,
        columns=results.columns,
        cells=cells,
        means=marked(results.rows, means, len(means) // max(1, len(results.rows))),
        scales=scales(groups),
        source=(results.table.get("reference") or {}).get("source", ""),
        groups=groups,
        stages=counts,
        warnings=warnings(job, cells, groups, counts, placed, behind, seconds_left(store, job)),
        provenance=provenance(job, cells, behind, placed, counts),
        trials=_trial_lines(results) if full else (),
        plots=plots(results, cells) if full else (),
        layers=layer_figures(results),
        pictures=chosen(placed, store.trials.pictures(row.key for row in placed)) if full else (),
        saved=stopping,
        agreement=order,
        claims=claims(results),
        others=other_rows(results),
        searches=search_reports(results) if full else (),
        settings=training_settings(results) if full else (),
        spec_text=_spec_text(results) if full else "",
    )


def _spec_text(results: JobResults) -> str:
    """The recorded spec as a file. Its profile is part of it already; its name stays, since it is in the job's id."""
    text = results.store.jobs.text(results.job.id).rstrip("\n")
    if not text:
        return ""
    return f"{text}\nprofiles: {{{json.dumps(results.job.profile)}: {{}}}}\n" if results.job.profile else f"{text}\n"


def _measured_on(results: JobResults) -> str:
    """The split of the table's trials, as recorded; several with a stroke between them."""
    trials = [trial for (stage, _), members in results.members.items() if stage == results.stage for trial in members]
    return " / ".join(dict.fromkeys(trial.split for trial in trials if trial.split))


def _behind(results: JobResults, cells: Iterable[Cell]) -> dict[str, TrialRow]:
    """The trials whose figures are in the table, with everything recorded of them."""
    keys = dict.fromkeys(key for cell in cells for key in cell.keys if cell.values)
    if not results.full and len(keys) > LOOKED_AT:
        return {}
    return {key: results.store.trials.get(key) for key in keys}


def _counts(results: JobResults) -> tuple[StageCount, ...]:
    by_stage: dict[str, list[PlacedRow]] = {name: [] for name in results.stages}
    for trial in results.placed:
        by_stage[trial.stage].append(trial)
    return tuple(
        StageCount(
            name,
            len(trials),
            dict(sorted(Counter(str(trial.state) for trial in trials).items())),
            sum(trial.seconds or 0.0 for trial in trials),
            *_held(results, name),
        )
        for name, trials in by_stage.items()
    )


def _held(results: JobResults, stage: str) -> tuple[float, float]:
    """GPUs and CPUs that each trial of a stage holds, as the spec asks for them."""
    resources = results.stages[stage].get("resources") or results.spec.get("resources") or {}
    workers = resources.get("workers", 1)
    return resources.get("gpus", 0.0) * workers, resources.get("cpus", 1.0) * workers


def _early_stopping(results: JobResults) -> tuple[tuple[EpochsSaved, ...], tuple[RankAgreement, ...]]:
    """Epochs saved by early stopping, and the agreement of early rankings with the final one; for jobs that search."""
    if not any("search" in stage["sweep"] for stage in results.stages.values()):
        return (), ()
    events = results.store.search_log.events(results.job.id)
    rules = [stage["sweep"].get("stopping", "none") for stage in results.stages.values()]
    rule = next((rule["asha"] for rule in rules if "asha" in rule), None)
    own = {place: trials for place, trials in results.members.items() if not results.stages[place[0]].get("from")}
    keys = [trial.key for trials in own.values() for trial in trials]
    reports = results.store.trials.reports_since(dict.fromkeys(keys, 0)) if len(keys) <= RANKED else {}
    return saved(results.members, events), agreement(own, events, reports, rule)


def _trial_lines(results: JobResults) -> tuple[TrialLine, ...]:
    order = {name: position for position, name in enumerate(results.stages)}
    placed = sorted(results.placed, key=lambda trial: (order[trial.stage], trial.group, trial.position))
    return tuple(trial_line(trial, results.runs.get(trial.key)) for trial in placed)


def trial_line(trial: PlacedRow, run_id: str | None) -> TrialLine:
    """The line of a trial; `run_id`: of its MLflow run."""
    metric = metric_of(trial)
    return TrialLine(
        stage=trial.stage,
        group=trial.group,
        key=trial.key,
        state=str(trial.state),
        settings=trial.settings,
        seed=trial.seed,
        metric=trial.metric,
        unit=metric.unit,
        digits=metric.digits,
        value=scaled(trial.value, metric),
        seconds=trial.seconds,
        host=trial.host or "",
        error=(trial.error or "").split("\n", 1)[0],
        run_id=run_id,
        split=trial.split,
    )
