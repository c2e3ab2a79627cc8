"""Checks the figures that a report names against those that the tasks of its trials measure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from orchestrator.spec.check_trials import CheckedTrial
from orchestrator.spec.diagnostics import Problems, offer
from orchestrator.spec.job import JobSpec, ReportSpec
from orchestrator.spec.yaml_nodes import YamlNode


def check_figures(
    root: YamlNode, job: JobSpec, built: Mapping[str, Sequence[CheckedTrial]], problems: Problems
) -> None:
    """The table's stage has a trial that measures each figure which the report names, and each plotted error exists."""
    report = job.report
    trials = built.get(report.stage or job.stages[-1].name, ())
    metrics = {metric.name: metric for trial in trials for metric in trial.spec.task.metrics}
    if not metrics:
        return  # the stage has problems of its own
    for name, steps, key in _named(report):
        if name not in metrics:
            what = "no such figure; " + offer(name, list(metrics), "figures")
            problems.report(root.place_of(steps, key=key), ".".join(map(str, steps[:-1])), name, what)
    for k, name in enumerate(report.figures):
        if name in report.figures[:k]:
            problems.report(root.place_of(["report", "figures", k]), "report.figures", name, "listed twice; remove one")
    shown = set(report.figures[:1]) or {trial.spec.task.metric for trial in trials}
    if any(metrics[name].complement for name in shown & set(metrics)):
        return
    others = [name for name, metric in metrics.items() if metric.complement]
    remedy = f"; or list one of these first in report.figures: {', '.join(others)}" if others else ""
    for k, plot in enumerate(report.plots):
        if plot.y == "error":
            what = f"{', '.join(sorted(shown))} has no complement to plot; write y: value{remedy}"
            problems.report(root.place_of(["report", "plots", k, "y"]), "report.plots.y", "error", what)


def _named(report: ReportSpec) -> Iterator[tuple[str, list[str | int], bool]]:
    """Figures that the report names: name, steps to where it is written, and whether it is a key there."""
    for k, name in enumerate(report.figures):
        yield name, ["report", "figures", k], False
    for row, columns in (report.reference.values if report.reference else {}).items():
        for column, values in columns.items():
            for name in values if isinstance(values, dict) else ():
                yield name, ["report", "reference", "values", row, column, name], True
