"""The only place that turns a group's trials into what is drawn of it: heat maps, neighbourhoods, learning curves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from orchestrator.records.recorded_spec import label
from orchestrator.report.cells import best_first, mark_of
from orchestrator.report.formatting import finite
from orchestrator.report.model import Choice, Curve, HeatCell, HeatMap, Mark, Point, unit_of

if TYPE_CHECKING:
    from orchestrator.records.rows import PlacedRow, ReportRow

AXES_FIRST = ("optim.lr", "optim.layer_decay")
"""The heat map's axes when both were varied; else those with the most values."""


def heat_map(stage: str, trials: Sequence[PlacedRow], chosen: set[str]) -> HeatMap | None:
    """Values over the two settings that were varied; None when no numeric setting was, or when the trials lie on no
    grid, as those of a search. `chosen`: keys to mark."""
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
    return HeatMap(
        stage=stage,
        x_path=x_path,
        y_path=y_path,
        xs=xs,
        ys=ys,
        cells=tuple(_heat_cell(x, y, at.get((x, y), []), chosen) for y in ys for x in xs),
        others=tuple(varied[2:]) + (("seed",) if len({trial.seed for trial in trials}) > 1 else ()),
    )


def _axis(trial: PlacedRow, path: str) -> float:
    return float(trial.settings[path]) if path else 0.0


def _heat_cell(x: float, y: float, trials: list[PlacedRow], chosen: set[str]) -> HeatCell:
    ranked = best_first(trials)
    value = finite(ranked[0].value) if ranked and ranked[0].state == "done" else None
    state: Mark = "absent" if not trials else mark_of(trial.state for trial in trials)
    if value is not None:
        state = "done"
    elif state == "done":  # ended with a figure that is no number
        state = "diverged"
    return HeatCell(
        x=x,
        y=y,
        state=state,
        value=None if value is None else value * unit_of(ranked[0].metric).scale,
        keys=tuple(trial.key for trial in ranked),
        chosen=any(trial.key in chosen for trial in trials),
        diverged=sum(trial.state == "diverged" for trial in trials),
        failed=sum(trial.state in ("failed", "cancelled") for trial in trials),
    )


def points(stage: str, trials: Iterable[PlacedRow], centre: Choice, chosen: set[str]) -> tuple[Point, ...]:
    """What each trial of a neighbourhood moved away from the `centre` (the trial its stage took), best first."""
    told = []
    for trial in best_first(trials):
        value = finite(trial.value) if trial.state == "done" else None
        if value is not None:
            value *= unit_of(trial.metric).scale
        moved = {
            path: (centre.settings.get(path), here)
            for path, here in trial.settings.items()
            if path != "seed" and label(centre.settings.get(path)) != label(here)
        }
        told.append(
            Point(
                stage=stage,
                key=trial.key,
                state=mark_of([trial.state]),
                moved=moved,
                value=value,
                difference=None if value is None or centre.value is None else value - centre.value,
                chosen=trial.key in chosen,
            )
        )
    return tuple(told)


def curve(role: Literal["chosen", "final"], trial: PlacedRow, reports: Sequence[ReportRow]) -> Curve:
    """A trial's learning curve: training loss, and its metric where it was evaluated."""
    scale = unit_of(trial.metric).scale
    metric = [finite(report.values.get(trial.metric)) for report in reports]
    return Curve(
        role=role,
        stage=trial.stage,
        key=trial.key,
        seed=trial.seed,
        epochs=tuple(report.epoch for report in reports),
        train_loss=tuple(finite(report.values.get("train_loss")) for report in reports),
        metric=tuple(None if value is None else value * scale for value in metric),
        end=None if finite(trial.value) is None or trial.value is None else trial.value * scale,
    )
