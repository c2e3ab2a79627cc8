"""The trials, the table and the claims of a job as pandas data frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestrator.report.build import build
from orchestrator.report.formatting import moment
from orchestrator.report.table_rows import table_rows

if TYPE_CHECKING:
    import pandas

    from orchestrator.store.store import Store


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
