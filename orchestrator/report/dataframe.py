"""The trials, the table, the claims and the measurements of a job as pandas data frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.errors import NotFound
from orchestrator.report.build import build
from orchestrator.report.formatting import moment
from orchestrator.report.joined import build_joined
from orchestrator.report.table_rows import table_rows

if TYPE_CHECKING:
    import pandas

    from orchestrator.records.joined import JoinedTable
    from orchestrator.store.store import Store

MEASURED = (
    "stage", "group", "row", "column", "name", "seed", "trial", "figure", "split", "item", "layer", "head", "value",
)  # fmt: skip
"""Columns of `measurements`."""


def results(store: Store, job_id: str) -> pandas.DataFrame:
    """A row for each placed trial, in the order of the spec: stage, group, state, its settings by dotted path, its
    figures as `figure.NAME` (raw: fractions are not percent; NaN where there is none), seconds, start and end
    (UTC), the error, the trial's key and its MLflow run. NotFound: no such job."""
    import pandas

    order = {stage["name"]: n for n, stage in enumerate(store.jobs.spec(job_id)["stages"])}
    placed = sorted(store.trials.placed(job_id), key=lambda trial: (order[trial.stage], trial.group, trial.position))
    figures = store.trials.figures(trial.key for trial in placed)
    runs = {(stage, key): run.run_id for (stage, _, key), run in store.tracked_runs.of(job_id).items()}
    rows: list[dict[str, Any]] = []
    for trial in placed:
        rows.append(
            {
                "stage": trial.stage,
                "group": trial.group,
                "state": str(trial.state),
                **trial.group_values,
                **trial.settings,
                "seed": trial.seed,
                **{f"figure.{name}": value for name, value in figures.get(trial.key, {}).items()},
                "metric": trial.metric,
                "value": trial.value,
                "epoch": trial.epoch,
                "seconds": trial.seconds,
                "host": trial.host,
                "started": moment(trial.started),
                "ended": moment(trial.ended),
                "error_class": trial.error_class,
                "error": trial.error,
                "name": trial.name,
                "key": trial.key,
                "run_id": runs.get((trial.stage, trial.key)),
            }
        )
    return pandas.DataFrame(rows)


def table(store: Store, job_id: str) -> pandas.DataFrame:
    """A row for each cell and each average of the report's table, as in CSV: `value` (mean over `n` seeds),
    `interval95` (half its width, over seeds), `seeds` and `values` (lists), `leading` (best, or not told apart from
    it), the published value, the chosen settings. NotFound: no such job."""
    import pandas

    return pandas.DataFrame(table_rows(build(store, job_id)))


def joined(store: Store | None, table: JoinedTable) -> pandas.DataFrame:
    """As `table`, of a table that joins several jobs: with `job` and `stage` of each cell, and the rows of published
    values without trials. `store`: None where nothing was ever submitted."""
    import pandas

    return pandas.DataFrame(table_rows(build_joined(store, table)))


def claims(store: Store, job_id: str) -> pandas.DataFrame:
    """A row for each claim, in the order of the spec: what it says, both values (in the figure's unit), their mean
    difference with its 95 % interval (`low`, `high`; not adjusted), the pairs `n`, p and Holm's adjusted p, the verdict
    and its reason, and how many of the trials that it reads had ended when it was first submitted. NotFound: no such
    job."""
    import pandas

    from orchestrator.report.claims import claims as judged
    from orchestrator.report.job_results import JobResults

    rows: list[dict[str, Any]] = []
    for claim in judged(JobResults(store, job_id, full=False)):
        low, high = claim.interval or (None, None)
        rows.append(
            {
                "name": claim.name,
                "text": claim.text,
                "left": claim.left.value,
                "relation": claim.relation,
                "right": claim.right.value,
                "margin": claim.margin,
                "figure": claim.figure.name,
                "unit": claim.figure.unit,
                "over": claim.over,
                "difference": claim.difference,
                "low": low,
                "high": high,
                "n": claim.n,
                "p": claim.p,
                "adjusted_p": claim.adjusted_p,
                "verdict": claim.verdict,
                "reason": claim.reason,
                "scope": claim.scope,
                "submitted": claim.submitted,
                "ended_before": claim.ended_before,
                "reads": claim.reads,
            }
        )
    return pandas.DataFrame(rows)


def measurements(
    store: Store, job_id: str, figures: str | Sequence[str] | None = None, stage: str | None = None
) -> pandas.DataFrame:
    """A row for each value that a trial measured, as in the view `measured`, in the order of the spec.

    `figures`: one name or several; None: all. `stage`: its trials alone. Columns: `stage`, `group` (the view's grp),
    `row` and `column` (what the report's table calls them), `name`, `seed`, `trial` (its key), `figure`, `split`,
    `item`, `layer` and `head` (from 0; missing where the value is of no single one), `value` (as recorded: fractions
    are not percent; NaN: not a finite number). A trial that stands in two places has its rows in both. Empty as long
    as nothing was measured. NotFound: no such job or stage, or a figure that is not among those measured.
    """
    import pandas

    from orchestrator.report.job_results import JobResults

    job = JobResults(store, job_id, full=False)
    if stage is not None and stage not in job.stages:
        raise NotFound(f"job {job_id} has no stage {stage}; its stages: {', '.join(job.stages)}")
    order = {name: n for n, name in enumerate(job.stages)}
    placed = sorted(
        (trial for trial in job.placed if stage in (None, trial.stage)),
        key=lambda trial: (order[trial.stage], trial.group, trial.position),
    )
    keys = [trial.key for trial in placed]
    known = store.measured.figures(keys)
    wanted = known if figures is None else [figures] if isinstance(figures, str) else list(figures)
    unknown = [name for name in wanted if name not in known]
    if known and unknown:
        raise NotFound(f"job {job_id} measured no {', '.join(unknown)}; measured: {', '.join(known)}")
    found = store.measured.of(keys, wanted)
    rows = [
        (
            trial.stage, trial.group, *job.place_of(trial), trial.name, trial.seed, trial.key,
            each.figure, each.split, each.item, each.layer, each.head, each.value,
        )
        for trial in placed
        for each in found.get(trial.key, ())
    ]  # fmt: skip
    frame = pandas.DataFrame(rows, columns=list(MEASURED))
    return frame.astype({"seed": "int64", "layer": "Int64", "head": "Int64", "value": "float64"})
