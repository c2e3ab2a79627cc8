"""Checks what a table file names against the jobs that were found: stages, figures, and trials for each row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.records.joined import Where, in_words, meets
from orchestrator.records.recorded_spec import label
from orchestrator.spec.check_report import label_of
from orchestrator.spec.diagnostics import Problems, Steps, offer, shorten
from orchestrator.spec.table_file import MODEL, WEIGHTS, TableFile
from orchestrator.spec.yaml_nodes import YamlNode
from workers.trial import TrialSpec


@dataclass(frozen=True)
class StageTrials:
    """The stage of a job that fills a column, by the job's spec."""

    stages: Sequence[str]
    """Names of the stages of the job."""
    stage: str
    trials: Sequence[TrialSpec]
    """Those of the stage; of one that follows from winners, with the first candidate for its winner."""


def meets_spec(where: Where, trial: TrialSpec) -> bool:
    """True if a trial of a spec has what is asked."""
    return meets(where, lambda path: label_of(trial, path))


def labelled(conditions: Mapping[str, Sequence[Any]]) -> dict[str, tuple[str, ...]]:
    """The conditions of a column or row, with the labels of their values."""
    return {path: tuple(map(label, values)) for path, values in conditions.items()}


def check_table(root: YamlNode, table: TableFile, found: Sequence[StageTrials | None], problems: Problems) -> None:
    """`found`: for each column; None where nothing is known of its job, of which then nothing is said."""
    for n, of_job in enumerate(found):
        if of_job is not None:
            _check_column(root, table, n, of_job, problems)
    known = [
        (labelled(column.where), of_job.trials)
        for column, of_job in zip(table.columns, found, strict=True)
        if of_job is not None
    ]
    if len(known) == len(table.columns) and not len(problems):
        trials = [trial for where, trials in known for trial in trials if meets_spec(where, trial)]
        for n, row in enumerate(table.rows):
            _check_row(root, n, row.name, labelled(row.conditions()), trials, problems)


def _check_column(root: YamlNode, table: TableFile, n: int, of_job: StageTrials, problems: Problems) -> None:
    column = table.columns[n]
    name = f"columns.{shorten(column.title)}"
    if of_job.stage not in of_job.stages:
        what = f"the job has no such stage; {offer(of_job.stage, of_job.stages, 'stages')}"
        problems.report(root.place_of(["columns", n, "stage"]), f"{name}.stage", shorten(of_job.stage), what)
        return
    where = labelled(column.where)
    _check_values(root, ["columns", n], name, where, of_job.trials, f"stage {of_job.stage}", problems)
    trials = [trial for trial in of_job.trials if meets_spec(where, trial)]
    figures = list(dict.fromkeys(metric.name for trial in trials for metric in trial.metrics))
    if column.figure and trials and column.figure not in figures:
        what = "its trials have no such figure; " + offer(column.figure, figures, "figures")
        problems.report(root.place_of(["columns", n, "figure"]), f"{name}.figure", column.figure, what)


def _check_row(
    root: YamlNode, n: int, name: str, where: Where, trials: Sequence[TrialSpec], problems: Problems
) -> None:
    _check_values(root, ["rows", n], f"rows.{shorten(name)}", where, trials, "any column", problems)


def _check_values(
    root: YamlNode, steps: Steps, name: str, where: Where, trials: Sequence[TrialSpec], of: str, problems: Problems
) -> None:
    """Each value that is asked for is that of some trial, and some trial has all of them together."""
    before = len(problems)
    for path, wanted in where.items():
        labels = _labels(trials, path)
        for k, value in enumerate(wanted):
            if value not in labels:
                field = {WEIGHTS: "weights", MODEL: "model"}.get(path, "")
                written = [field] if root.find([*steps, field]) and field else ["where", path]
                what = f"no trial of {of} has this; {offer(value, labels, path)}"
                place = root.place_of([*steps, *written, k])
                problems.report(place, f"{name}.{'.'.join(written)}", shorten(value), what)
    if len(problems) == before and where and not any(meets_spec(where, trial) for trial in trials):
        what = f"no trial of {of} has all of this together: {in_words(where)}; remove a part of it"
        problems.report(root.place_of(steps), name, what)


def _labels(trials: Iterable[TrialSpec], path: str) -> list[str]:
    return list(dict.fromkeys(label_of(trial, path) for trial in trials))
