"""Checks what a report names: rows and columns against the trials, figures against what their tasks measure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from orchestrator.records.recorded_spec import label
from orchestrator.spec.check_trials import CheckedTrial
from orchestrator.spec.diagnostics import Problems, Steps, offer, shorten
from orchestrator.spec.job import JobSpec, ReportSpec
from orchestrator.spec.yaml_nodes import YamlNode
from workers.trial import TrialSpec


def check_figures(
    root: YamlNode, job: JobSpec, built: Mapping[str, Sequence[CheckedTrial]], problems: Problems
) -> None:
    """The table's stage has a trial that measures each figure which the report names, and each plotted error exists."""
    report = job.report
    trials = built.get(report.stage or job.stages[-1].name, ())
    metrics = {metric.name: metric for trial in trials for metric in trial.spec.metrics}
    if not metrics:
        return  # the stage has problems of its own
    for name, steps, key in _named(report):
        if name not in metrics:
            what = "no such figure; " + offer(name, list(metrics), "figures")
            problems.report(root.place_of(steps, key=key), ".".join(map(str, steps[:-1])), name, what)
    for k, name in enumerate(report.figures):
        if name in report.figures[:k]:
            problems.report(root.place_of(["report", "figures", k]), "report.figures", name, "listed twice; remove one")
    shown = set(report.figures[:1]) or {trial.spec.metric for trial in trials}
    if any(metrics[name].complement for name in shown & set(metrics)):
        return
    others = [name for name, metric in metrics.items() if metric.complement]
    remedy = f"; or list one of these first in report.figures: {', '.join(others)}" if others else ""
    for k, plot in enumerate(report.plots):
        if plot.y == "error":
            what = f"{', '.join(sorted(shown))} has no complement to plot; write y: value{remedy}"
            problems.report(root.place_of(["report", "plots", k, "y"]), "report.plots.y", "error", what)


def check_stage(root: YamlNode, job: JobSpec, problems: Problems) -> bool:
    """True if the table's stage exists; reports it otherwise."""
    stage, names = job.report.stage, [stage.name for stage in job.stages]
    if not stage or stage in names:
        return True
    what = "no such stage; " + offer(stage, names, "stages")
    problems.report(root.place_of(["report", "stage"]), "report.stage", shorten(stage), what)
    return False


def check_names(root: YamlNode, job: JobSpec, built: Mapping[str, Sequence[CheckedTrial]], problems: Problems) -> None:
    """Every row and column that the report names is that of some trial."""
    report = job.report
    shown = [trial for name in leading(job, report.stage or job.stages[-1].name) for trial in built.get(name, ())]
    rows, columns = (labels_of(shown, path) for path in (report.rows, report.columns))
    for k, average in enumerate(report.averages):
        for n, name in enumerate(average.over):
            if name not in columns:
                place = root.place_of(["report", "averages", k, "over", n])
                what = "no trial has this column; " + offer(name, columns, report.columns)
                problems.report(place, "report.averages.over", shorten(name), what)
    values, averages = ["report", "reference", "values"], [average.name for average in report.averages]
    for row, row_values in (report.reference.values if report.reference else {}).items():
        if row not in rows:
            what = "no trial has this row; " + offer(row, rows, report.rows)
            problems.report(root.place_of([*values, row], key=True), "report.reference.values", shorten(row), what)
        for name in row_values:
            if name not in columns and name not in averages:
                what = "no trial has this column; " + offer(name, columns, report.columns)
                place = root.place_of([*values, row, name], key=True)
                problems.report(place, f"report.reference.values.{shorten(row)}", shorten(name), what)
    named = list(rows)
    for k, other in enumerate(report.reference.rows if report.reference else ()):
        steps: Steps = ["report", "reference", "rows", k]
        if other.name in named:
            what = "another row has this name; give it another one"
            problems.report(root.place_of([*steps, "name"]), "report.reference.rows.name", shorten(other.name), what)
        named.append(other.name)
        for name in other.values:
            if name not in columns and name not in averages:
                what = "no trial has this column; " + offer(name, columns, report.columns)
                place = root.place_of([*steps, "values", name], key=True)
                problems.report(place, f"report.reference.rows.{shorten(other.name)}", shorten(name), what)


def leading(job: JobSpec, last: str) -> list[str]:
    """A stage and those whose winners it takes, whose groups are its own."""
    names = {last}
    for stage in reversed(job.stages):
        names.update(stage.from_ if stage.name in names else ())
    return [stage.name for stage in job.stages if stage.name in names]


def labels_of(trials: Sequence[CheckedTrial], path: str) -> list[str]:
    """What the trials have at a path, as rows and columns name it, in the order of the trials."""
    found: dict[str, None] = {}
    cheap: dict[str, str] = {}  # many trials share few values
    for trial in trials:
        value = value_at(trial.spec, path)
        text = repr(value)
        if text not in cheap:
            cheap[text] = _label(value)
        found[cheap[text]] = None
    return list(found)


def label_of(trial: TrialSpec, path: str) -> str:
    """What one trial has at a path, as rows and columns name it."""
    return _label(value_at(trial, path))


def _label(value: Any) -> str:
    return label(value.model_dump(mode="json") if isinstance(value, BaseModel) else value)


def value_at(trial: TrialSpec, path: str) -> Any:
    """The value of a trial at a path, with defaults; None where it has no such field."""
    value: Any = trial
    for step in path.split("."):
        value = value.get(step) if isinstance(value, Mapping) else getattr(value, step, None)
    return value


def _named(report: ReportSpec) -> Iterator[tuple[str, list[str | int], bool]]:
    """Figures that the report names: name, steps to where it is written, and whether it is a key there."""
    for k, name in enumerate(report.figures):
        yield name, ["report", "figures", k], False
    for row, columns in (report.reference.values if report.reference else {}).items():
        for column, values in columns.items():
            for name in values if isinstance(values, dict) else ():
                yield name, ["report", "reference", "values", row, column, name], True
    for k, other in enumerate(report.reference.rows if report.reference else ()):
        for column, value in other.values.items():
            for name in value if isinstance(value, dict) else ():
                yield name, ["report", "reference", "rows", k, "values", column, name], True
