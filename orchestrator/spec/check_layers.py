"""Checks the figures over layers that a report asks for against the trials that are to measure them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.paths import file_name
from orchestrator.spec.check_report import labels_of
from orchestrator.spec.check_trials import CheckedTrial
from orchestrator.spec.diagnostics import Problems, offer, shorten
from orchestrator.spec.job import JobSpec
from orchestrator.spec.layer_figure import LayerFigure
from orchestrator.spec.yaml_nodes import YamlNode


def check_layers(root: YamlNode, job: JobSpec, built: Mapping[str, Sequence[CheckedTrial]], problems: Problems) -> None:
    """Each figure names a stage, rows, a column and measured figures that its trials have; no two share their files."""
    report, names = job.report, [stage.name for stage in job.stages]
    files: dict[str, str] = {}
    for k, figure in enumerate(report.layers):
        steps: list[str | int] = ["report", "layers", k]
        earlier = files.setdefault(file_name(figure.title), figure.title)
        if earlier is not figure.title:
            what = f"its files would have the name of those of {shorten(earlier)}; give it another title"
            problems.report(root.place_of([*steps, "title"]), "report.layers.title", shorten(figure.title), what)
        stage = figure.stage or report.stage or names[-1]
        if stage not in names:
            what = "no such stage; " + offer(stage, names, "stages")
            problems.report(root.place_of([*steps, "stage"]), "report.layers.stage", shorten(stage), what)
        elif built.get(stage):
            _check_figure(root, steps, figure, job, built[stage], problems)


def check_second_axes(
    root: YamlNode, job: JobSpec, built: Mapping[str, Sequence[CheckedTrial]], problems: Problems
) -> None:
    """The second axis of each plot names a stage and one of its figures, and the plot has dots to add to."""
    for k, plot in enumerate(job.report.plots):
        if plot.second is None:
            continue
        steps: list[str | int] = ["report", "plots", k, "second"]
        stage, figure, names = plot.second.stage, plot.second.figure, [stage.name for stage in job.stages]
        if stage not in names:
            what = "no such stage; " + offer(stage, names, "stages")
            problems.report(root.place_of([*steps, "stage"]), "report.plots.second.stage", shorten(stage), what)
            continue
        metrics = list(dict.fromkeys(m.name for trial in built.get(stage, ()) for m in trial.spec.metrics))
        if metrics and figure not in metrics:
            what = "no such figure; " + offer(figure, metrics, "figures")
            problems.report(root.place_of([*steps, "figure"]), "report.plots.second.figure", shorten(figure), what)


LAYERED = ("", "head", "layer")
"""What the items of a figure with values per layer name (see Task.measured_figures)."""


def _check_figure(
    root: YamlNode,
    steps: Sequence[str | int],
    figure: LayerFigure,
    job: JobSpec,
    trials: Sequence[CheckedTrial],
    problems: Problems,
) -> None:
    """One figure against the trials of its stage."""
    measured = list(
        dict.fromkeys(name for trial in trials for name, item in trial.spec.measured_figures.items() if item in LAYERED)
    )
    if figure.form == "epochs":
        _check_reported(root, steps, figure, trials, problems)
    elif figure.beside:
        what = "are panels of form epochs alone; leave it out, or set form: epochs"
        problems.report(root.place_of([*steps, "beside"]), "report.layers.beside", "further figures", what)
    for field in ("figure", "anchor") if figure.form != "epochs" else ():
        name = getattr(figure, field)
        if name and name not in measured:
            place = root.place_of([*steps, field])
            what = "its trials measure nothing for each layer; name a stage of analyses in `stage`"
            if measured:
                what = "not measured by its trials; " + offer(name, measured, "measured figures")
            problems.report(place, f"report.layers.{field}", shorten(name), what)
    rows, columns = (labels_of(trials, path) for path in (job.report.rows, job.report.columns))
    for n, name in enumerate(figure.rows):
        if name not in rows:
            what = "no trial of its stage has this row; " + offer(name, rows, job.report.rows)
            problems.report(root.place_of([*steps, "rows", n]), "report.layers.rows", shorten(name), what)
    for n, name in enumerate(figure.columns):
        if name not in columns:
            what = "no trial of its stage has this column; " + offer(name, columns, job.report.columns)
            problems.report(root.place_of([*steps, "columns", n]), "report.layers.columns", shorten(name), what)
    if not figure.columns and len(columns) > 1:
        what = f"its trials have several ({', '.join(columns)}); name one or more"
        problems.report(root.place_of(steps), "report.layers", figure.title, f"has no columns, and {what}")


def _check_reported(
    root: YamlNode, steps: Sequence[str | int], figure: LayerFigure, trials: Sequence[CheckedTrial], problems: Problems
) -> None:
    """A figure over epochs against what the trials of its stage report: losses, and the figures that are evaluated."""
    reported = list(
        dict.fromkeys(
            name
            for trial in trials
            for name in (
                "train_loss",
                *(f"train_{term}" for term in trial.spec.task.loss_terms),
                *(metric.name for metric in trial.spec.metrics),
            )
        )
    )
    places = [(figure.figure, "figure", [*steps, "figure"])]
    places += [(name, "beside", [*steps, "beside", n]) for n, name in enumerate(figure.beside)]
    for name, field, place in places:
        if name not in reported:
            what = "not reported by its trials after an epoch; " + offer(name, reported, "reported figures")
            problems.report(root.place_of(place), f"report.layers.{field}", shorten(name), what)
