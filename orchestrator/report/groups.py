"""Turns a group's trials into what is drawn of it: heat maps, neighbourhoods, learning curves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from orchestrator.records.recorded_spec import label
from orchestrator.report.drawings import Curve, HeatCell, HeatMap, Point, Scale
from orchestrator.report.figures import UNKNOWN, has_direction, metric_of, scaled
from orchestrator.report.formatting import finite
from orchestrator.report.job_results import GroupCell, JobResults
from orchestrator.report.marks import Mark, mark_of
from orchestrator.report.model import MAPS, Cell, Choice, GroupReport
from orchestrator.report.replicates import Replicates, best_first, by_setting
from orchestrator.report.statistics import paired_interval

if TYPE_CHECKING:
    from orchestrator.records.rows import MetricRow, PlacedRow, ReportRow

Role = Literal["chosen", "final", "other"]

OTHERS = 60
"""Largest number of other trials of a group whose curves are drawn behind that of the chosen one: more cannot be told
apart, and each makes the page a kilobyte larger."""

POINTS = 40
"""Largest number of epochs that the curve of such a trial keeps."""

AXES_FIRST = ("optim.lr", "optim.layer_decay")
"""The heat map's axes when both were varied; else those with the most values."""


def heat_map(stage: str, trials: Sequence[PlacedRow], chosen: set[str]) -> HeatMap | None:
    """Values over the two settings that were varied; None when no numeric setting was, when the trials lie on no grid,
    as those of a search, or when several settings share a square and no value is better than another. `chosen`: keys
    to mark."""
    numbers: dict[str, set[float]] = {}
    for trial in trials:
        for path, value in trial.settings.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                numbers.setdefault(path, set()).add(float(value))
    varied = [path for path, values in numbers.items() if len(values) > 1 and path != "seed"]
    if not varied:
        return None
    varied.sort(key=lambda path: (path not in AXES_FIRST, AXES_FIRST.index(path) if path in AXES_FIRST else 0,
                                  -len(numbers[path]), path))  # fmt: skip
    x_path, y_path = varied[0], varied[1] if len(varied) > 1 else ""
    at: dict[tuple[float, float], list[PlacedRow]] = {}
    for trial in trials:
        if x_path in trial.settings and (not y_path or y_path in trial.settings):
            at.setdefault((_axis(trial, x_path), _axis(trial, y_path)), []).append(trial)
    xs = tuple(sorted({x for x, _ in at}))
    ys = tuple(sorted({y for _, y in at}))
    if len(xs) * len(ys) > 2 * len(at):
        return None
    if not has_direction(trials[0]) and any(len(by_setting(members)) > 1 for members in at.values()):
        return None
    return HeatMap(
        stage=stage,
        figure=metric_of(trials[0]),
        split=trials[0].split,
        x_path=x_path,
        y_path=y_path,
        xs=xs,
        ys=ys,
        cells=tuple(_heat_cell(x, y, at.get((x, y), []), chosen) for y in ys for x in xs),
        others=tuple(varied[2:]),
    )


def _axis(trial: PlacedRow, path: str) -> float:
    return float(trial.settings[path]) if path else 0.0


def _heat_cell(x: float, y: float, trials: list[PlacedRow], chosen: set[str]) -> HeatCell:
    ranked = best_first(trials)
    shown = ranked[0] if ranked else None
    value = shown.value if shown else None
    state: Mark = "absent" if not trials else mark_of(trial.state for trial in trials)
    if value is not None:
        state = "done"
    elif state == "done":  # ended with a figure that is no number
        state = "diverged"
    return HeatCell(
        x=x,
        y=y,
        state=state,
        value=value,
        keys=tuple(trial.key for setting in ranked for trial in setting.trials),
        chosen=any(trial.key in chosen for trial in trials),
        diverged=sum(trial.state == "diverged" for trial in trials),
        failed=sum(trial.state in ("failed", "cancelled") for trial in trials),
        settings=max(1, len(ranked)),
        values=shown.values if shown else (),
        seeds=shown.seeds if shown else (),
        wanted=len(shown.trials) if shown else 0,
    )


def points(
    stage: str, trials: Iterable[PlacedRow], centre: Choice, chosen: set[str], around: Replicates | None = None
) -> tuple[Point, ...]:
    """The settings of a neighbourhood, best first: which each moved away from the `centre` (the choice that its stage
    took). `around`: the trials of the centre, for differences seed by seed."""
    return tuple(_point(stage, setting, centre, chosen, around) for setting in best_first(trials))


def _point(stage: str, setting: Replicates, centre: Choice, chosen: set[str], around: Replicates | None) -> Point:
    first, value = setting.trials[0], setting.value
    moved = {
        path: (centre.settings.get(path), moved_to)
        for path, moved_to in first.settings.items()
        if path != "seed" and label(centre.settings.get(path)) != label(moved_to)
    }
    difference = None if value is None or centre.value is None else value - centre.value
    interval = None
    if value is not None and len(setting.seeds) > 1 and around is not None and around.value is not None:
        if around.seeds == setting.seeds:
            difference, interval = paired_interval(setting.values, around.values)
        else:
            difference = value - around.value
    return Point(
        stage=stage,
        key=first.key,
        state=setting.state,
        moved=moved,
        value=value,
        difference=difference,
        chosen=any(trial.key in chosen for trial in setting.trials),
        interval=interval,
        keys=tuple(trial.key for trial in setting.trials),
        values=setting.values,
        seeds=setting.seeds,
    )


def curve(role: Role, trial: PlacedRow, reports: Sequence[ReportRow]) -> Curve:
    """A trial's learning curve: training loss, and its metric where it was evaluated."""
    metric = metric_of(trial)
    return Curve(
        role=role,
        stage=trial.stage,
        key=trial.key,
        seed=trial.seed,
        figure=metric,
        split=trial.split,
        epochs=tuple(report.epoch for report in reports),
        train_loss=tuple(finite(report.values.get("train_loss")) for report in reports),
        metric=tuple(scaled(report.values.get(trial.metric), metric) for report in reports),
        end=scaled(trial.value, metric),
        broken=tuple(report.epoch for report in reports if _broken(report.values.get(trial.metric))),
    )


def _broken(value: float | None) -> bool:
    return value is not None and finite(value) is None


def thinned(role: Role, trial: PlacedRow, reports: Sequence[ReportRow]) -> Sequence[ReportRow]:
    """Of another trial than the chosen one, at most `POINTS` reports at even distances, the last among them; those in
    which it was evaluated, if there are more."""
    if role != "other" or len(reports) <= POINTS:
        return reports
    evaluated = [report for report in reports if trial.metric in report.values]
    kept = evaluated if len(evaluated) > 1 else reports
    step = -(-len(kept) // POINTS)
    return kept[::-1][::step][::-1]


def group_reports(results: JobResults, cells: Iterable[Cell]) -> tuple[GroupReport, ...]:
    """Every group of the table's stage, in the order of the spec."""
    drawn = _curves(results, {key for cell in cells for key in cell.keys}) if results.full else {}
    return tuple(_group_report(results, place, drawn.get(place.group, ())) for place in results.groups)


def _group_report(results: JobResults, place: GroupCell, curves: tuple[Curve, ...]) -> GroupReport:
    choices = [
        results.choices[stage, place.group] for stage in results.chain if (stage, place.group) in results.choices
    ]
    chosen = {choice.key for choice in choices}
    maps: list[HeatMap | None] = []
    near: list[Point] = []
    for stage in results.chain:
        trials = results.members.get((stage, place.group), [])
        if not results.stages[stage].get("from"):
            if results.full or len(results.groups) <= MAPS:
                maps.append(heat_map(stage, trials, chosen))
        elif results.stages[stage].get("neighbourhood") and (stage, place.group) in results.choices:
            centre = results.choices[stage, place.group]
            near += points(stage, trials, centre, chosen, results.chosen_trials(centre))
    known = results.first_trial(place.group)
    return GroupReport(
        name=place.group,
        row=place.row,
        column=place.column,
        figure=metric_of(known) if known else UNKNOWN,
        choices=tuple(choices),
        heat_maps=tuple(drawn for drawn in maps if drawn is not None),
        points=tuple(near),
        curves=curves,
    )


def _curves(results: JobResults, tabled: set[str]) -> dict[str, tuple[Curve, ...]]:
    """group -> curves of its chosen trial, of those in the table and of those that were compared with the chosen one;
    the reports of all groups are read at once."""
    roles: dict[str, list[tuple[Role, PlacedRow]]] = {}
    for place in results.groups:
        members = roles.setdefault(place.group, [])
        if choice := results.choices.get((results.stage, place.group)):
            winner = results.chosen_trials(choice)
            members += [("chosen", trial) for trial in winner.trials] if winner else []
        members += [("final", trial) for trial in results.trials_in(place) if trial.key in tabled]
        members += [("other", trial) for trial in _others(results, place, {trial.key for _, trial in members})]
    keys = {trial.key: 0 for members in roles.values() for _, trial in members}
    reports = results.store.trials.reports_since(keys)
    return {
        group: tuple(
            curve(role, trial, thinned(role, trial, reports[trial.key]))
            for role, trial in members
            if reports.get(trial.key)
        )
        for group, members in roles.items()
    }


def _others(results: JobResults, place: GroupCell, shown: set[str]) -> list[PlacedRow]:
    """The other trials of a group, at even distances where there are too many. None that is evaluated on test: nobody
    has looked at that before the choice."""
    trials = {
        trial.key: trial
        for stage in results.chain
        for trial in results.members.get((stage, place.group), ())
        if trial.key not in shown and trial.split != "test"
    }
    return list(trials.values())[:: max(1, -(-len(trials) // OTHERS))]


def scales(groups: Iterable[GroupReport]) -> tuple[Scale, ...]:
    """One for each column and metric that heat maps show: all groups of a data set share it."""
    values: dict[tuple[str, MetricRow], list[float]] = {}
    for group in groups:
        for drawn in group.heat_maps:
            known = [cell.value for cell in drawn.cells if cell.value is not None]
            values.setdefault((group.column, drawn.figure), []).extend(known)
    return tuple(
        Scale(column, figure, min(known, default=None), max(known, default=None))
        for (column, figure), known in values.items()
    )
