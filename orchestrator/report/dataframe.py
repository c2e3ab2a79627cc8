"""The trials, the table, the claims and the measurements of a job as pandas data frames."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.errors import NotFound
from orchestrator.report.build import build
from orchestrator.report.figures import metric_of, scaled
from orchestrator.report.joined import build_joined
from orchestrator.report.table_rows import table_rows

if TYPE_CHECKING:
    import pandas

    from orchestrator.records.joined import JoinedTable
    from orchestrator.records.rows import MetricRow, PlacedRow, ReportRow
    from orchestrator.store.store import Store

MEASURED = (
    "stage", "group", "row", "column", "name", "seed", "trial", "figure", "split", "item", "layer", "head", "value",
)  # fmt: skip
"""Columns of `measurements`."""
CURVES = ("stage", "group", "name", "seed", "trial", "epoch", "step", "seconds", "figure", "split", "value", "unit")
"""Columns of `curves`."""


def results(store: Store, job_id: str) -> pandas.DataFrame:
    """A row for each trial in its place (a trial of two stages has one in both), in the order of the spec.

    Columns: `stage`, `group`, `state`; its settings by dotted path; `seed`; `split`, the one it was measured on;
    `metric`, the figure that trials are chosen by, its `value`, `unit` and `better` (higher, lower, neither); every
    figure as `figure.NAME`; `epoch` of `epochs`; `seconds`; `started` and `ended` (datetime64, UTC); `host`;
    `error_class`, `error`; `name`, `key`, `run_id` (of MLflow), and `weights`, the path of its weights below the
    storage folder. All figures are in their units, as in the tables (89.2 with unit %); NaN where there is none.
    NotFound: no such job.
    """
    import pandas

    order = {stage["name"]: n for n, stage in enumerate(store.jobs.spec(job_id)["stages"])}
    placed = sorted(store.trials.placed(job_id), key=lambda trial: (order[trial.stage], trial.group, trial.position))
    figures = store.trials.figures(trial.key for trial in placed)
    files = store.weights.paths([trial.key for trial in placed])
    runs = {(stage, key): run.run_id for (stage, _, key), run in store.tracked_runs.of(job_id).items()}
    rows = [
        {
            **_row(trial, figures.get(trial.key, {})),
            "run_id": runs.get((trial.stage, trial.key)),
            "weights": files.get(trial.key),
        }
        for trial in placed
    ]
    frame = pandas.DataFrame(rows)
    for name in ("started", "ended") if rows else ():
        frame[name] = pandas.to_datetime(frame[name].astype("float64"), unit="s", utc=True)
    return frame.astype({"value": "float64", "seconds": "float64"}) if rows else frame


def _row(trial: PlacedRow, of_trial: Mapping[str, float]) -> dict[str, Any]:
    """What `results` says of a trial, except its run and its weights. `of_trial`: its figures as recorded."""
    metric, metrics = metric_of(trial), {each.name: each for each in trial.metrics}
    return {
        "stage": trial.stage,
        "group": trial.group,
        "state": str(trial.state),
        **trial.group_values,
        **trial.settings,
        "seed": trial.seed,
        "split": trial.split,
        "metric": trial.metric,
        "value": scaled(trial.value, metric),
        "unit": metric.unit,
        "better": metric.better,
        **{f"figure.{name}": _in_unit(metrics.get(name), value)[0] for name, value in of_trial.items()},
        "epoch": trial.epoch,
        "epochs": trial.epochs,
        "seconds": trial.seconds,
        "host": trial.host,
        "started": trial.started,
        "ended": trial.ended,
        "error_class": trial.error_class,
        "error": trial.error,
        "name": trial.name,
        "key": trial.key,
    }


def _in_unit(metric: MetricRow | None, value: float) -> tuple[float, str]:
    """A recorded value of a figure in its unit, and the unit; as it is where the trial's task declared none."""
    return (value, "") if metric is None else (value * metric.scale, metric.unit)


def curves(store: Store, job_id: str, stage: str | None = None) -> pandas.DataFrame:
    """A row for each value that a trial reported after a round: `stage`, `group`, `name`, `seed`, `trial` (its key),
    `epoch`, `step`, `seconds` (of the round), `figure` (train_loss, lr, top1, ..), `split` (of an evaluated figure;
    missing for others), and `value` in `unit`. NotFound: no such job or stage."""
    import pandas

    stages = [each["name"] for each in store.jobs.spec(job_id)["stages"]]
    if stage is not None and stage not in stages:
        raise NotFound(f"job {job_id} has no stage {stage}; its stages: {', '.join(stages)}")
    placed = store.trials.placed(job_id, stage)
    reports = store.trials.reports_since({trial.key: 0 for trial in placed})
    rows = [row for trial in placed for row in _curve(trial, reports.get(trial.key, ()))]
    return pandas.DataFrame(rows, columns=list(CURVES)).astype({"value": "float64"})


def _curve(trial: PlacedRow, reports: Iterable[ReportRow]) -> Iterator[tuple[Any, ...]]:
    """The rows of `curves` of one trial."""
    metrics = {each.name: each for each in trial.metrics}
    place = (trial.stage, trial.group, trial.name, trial.seed, trial.key)
    for report in reports:
        for name, value in report.values.items():
            metric = metrics.get(name)
            split = None if metric is None else trial.split
            yield (*place, report.epoch, report.step, report.seconds, name, split, *_in_unit(metric, value))


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
