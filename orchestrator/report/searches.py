"""Turns the trials of a search into what is drawn of it: values against fields, the best so far, importance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from orchestrator.records.recorded_spec import is_search, label
from orchestrator.report import figures
from orchestrator.report.drawings import SearchField, SearchReport, SearchSetting
from orchestrator.report.figures import metric_of, scaled
from orchestrator.report.formatting import finite
from orchestrator.report.importance import importance
from orchestrator.report.replicates import Replicates, by_setting
from orchestrator.rules.selection import barred_trials

if TYPE_CHECKING:
    from orchestrator.records.rows import MetricRow, PlacedRow, SearchEvent
    from orchestrator.report.job_results import JobResults

TEST = "test"
"""The split of which no search shows a value: a spec that searches on it is refused, and a report must not do what a
spec may not."""


def search_reports(results: JobResults) -> tuple[SearchReport, ...]:
    """A report of every group of every stage that searches, in the order of the spec."""
    searching = [name for name, stage in results.stages.items() if is_search(stage)]
    if not searching:
        return ()
    events = results.store.search_log.events(results.job.id)
    chosen = {choice.key for choice in results.choices.values()}
    barred = barred_trials(events)
    return tuple(
        _search_report(results, stage, group, trials, events.get((stage, group), ()), chosen, barred)
        for name in searching
        for (stage, group), trials in results.members.items()
        if stage == name and trials[0].split != TEST
    )


def _search_report(
    results: JobResults,
    stage: str,
    group: str,
    trials: Sequence[PlacedRow],
    events: Iterable[SearchEvent],
    chosen: set[str],
    barred: set[tuple[str, str, str]],
) -> SearchReport:
    metric = metric_of(trials[0])
    ranges = results.stages[stage]["sweep"]["search"]
    fields = tuple(_field(path, tried) for path, tried in ranges.items())
    stopped = {event.key: event for event in events if event.kind == "stopped"}
    tried = by_setting(sorted(trials, key=lambda trial: trial.position))
    settings = _with_best(
        [
            replace(
                _setting(each, metric, stopped, _may_win(each, stage, group, barred)),
                number=number,
                at=tuple(_at(tried_at, each.trials[0].settings.get(path)) for path, tried_at in ranges.items()),
                chosen=any(trial.key in chosen for trial in each.trials),
            )
            for number, each in enumerate(tried, start=1)
        ],
        metric,
    )
    shares, by = importance(fields, [each for each in settings if each.in_full], metric.better)
    row, column = results.place_of(trials[0])
    return SearchReport(stage, group, row, column, metric, trials[0].split, fields, settings, shares, by)


def _may_win(tried: Replicates, stage: str, group: str, barred: set[tuple[str, str, str]]) -> bool:
    return not any((stage, group, trial.key) in barred for trial in tried.trials)


def _field(path: str, tried: Mapping[str, Any]) -> SearchField:
    """A field from the recorded form of its range: uniform, loguniform, int (with log) or choice."""
    if "choice" in tried:
        return SearchField(path, "choice", tuple(map(label, tried["choice"])))
    logarithmic = "loguniform" in tried or bool(tried.get("log"))
    return SearchField(path, "log" if logarithmic else "linear")


def _setting(tried: Replicates, metric: MetricRow, stopped: Mapping[str, SearchEvent], may_win: bool) -> SearchSetting:
    """A setting with its value; number and place are not filled in."""
    in_full = may_win and tried.value is not None
    value, epoch = (tried.value, None) if in_full else _last_reported(tried, metric, stopped)
    state = "stopped" if any(trial.key in stopped for trial in tried.trials) else tried.state
    return SearchSetting(0, tried.trials[0].key, state, (), value, in_full, epoch)


def _last_reported(
    tried: Replicates, metric: MetricRow, stopped: Mapping[str, SearchEvent]
) -> tuple[float | None, int | None]:
    """What a single trial had when its search stopped it, and after which epoch. Of a part of a population's member:
    its value after its last epoch."""
    event = stopped.get(tried.trials[0].key) if len(tried.trials) == 1 else None
    if event is not None:
        return scaled(event.body.get("value"), metric), int(event.body["epoch"])
    return (None, None) if tried.value is None else (tried.value, tried.trials[0].epochs)


def _at(tried: Mapping[str, Any], value: Any) -> float | None:
    """A setting as a number; of a choice its position. `tried`: the range of its field as recorded."""
    if "choice" in tried:
        alike = (
            float(place)
            for place, each in enumerate(tried["choice"])
            if each == value and isinstance(each, bool) == isinstance(value, bool)
        )
        return next(alike, None)
    return finite(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _with_best(settings: Iterable[SearchSetting], metric: MetricRow) -> tuple[SearchSetting, ...]:
    """The settings, each with the best value in full so far; without one where no value is better than another."""
    best: float | None = None
    followed = []
    for each in settings:
        if each.in_full and each.value is not None and metric.better != "neither":
            best = each.value if best is None else figures.best((best, each.value), metric)
        followed.append(replace(each, best=best))
    return tuple(followed)
