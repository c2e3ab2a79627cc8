"""Finds the trials that a claim reads, and one value for each: a figure, or what is left of its values per layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from orchestrator.report.claim_model import ClaimSide
from orchestrator.report.figures import UNKNOWN, metric_of, scaled
from orchestrator.report.replicates import by_seed
from orchestrator.report.table import published

if TYPE_CHECKING:
    from orchestrator.records.rows import MeasurementRow, MetricRow, PlacedRow
    from orchestrator.report.job_results import JobResults


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


REDUCE: Mapping[str, Callable[[Sequence[float]], float]] = {"mean": _mean, "min": min, "max": max}


@dataclass(frozen=True)
class Reading:
    """What one side of a claim has."""

    side: ClaimSide
    figure: MetricRow
    trials: Sequence[PlacedRow] = ()
    """By seed."""
    values: Mapping[int, float] | None = None
    """Seed -> value, of the trials that are done; None for a number that no trial has."""
    reason: str = ""
    """Why it cannot be judged yet, or never."""
    diverged: str = ""
    """The diverged trials, in words."""
    images: Mapping[str, float] | None = None
    """Image -> value, the mean over the trials; only where images are asked for."""


class Missing(Exception):
    """A trial does not have what the claim asks for; the text says what."""


class ClaimValues:
    """Reads the sides of claims; every trial's figures and measurements at most once."""

    def __init__(self, results: JobResults) -> None:
        self._results = results
        self._figures: dict[str, Mapping[str, float]] = {}
        self._rows: dict[tuple[str, str], Sequence[MeasurementRow]] = {}
        self._placed: dict[str, list[tuple[str, str, PlacedRow]]] = {}

    def keys(self, claim: Mapping[str, Any]) -> list[str]:
        """The trials that a claim reads."""
        both = [claim[name] for name in ("left", "right")]
        read = [self.trials(side) for side in both if isinstance(side, Mapping) and not side.get("published")]
        return list(dict.fromkeys(trial.key for trials in read for trial in trials))

    def trials(self, side: Mapping[str, Any]) -> list[PlacedRow]:
        """The trials at the row and column of a side, by seed."""
        return by_seed(
            trial
            for row, column, trial in self._places(side.get("stage") or self._results.stage)
            if side["row"] in ("", row) and side["column"] in ("", column)
        )

    def _places(self, stage: str) -> list[tuple[str, str, PlacedRow]]:
        """The trials of a stage with their rows and columns."""
        if stage not in self._placed:
            of_stage = [trial for trial in self._results.placed if trial.stage == stage]
            self._placed[stage] = [(*self._results.place_of(trial), trial) for trial in of_stage]
        return self._placed[stage]

    def read(self, side: Any, figure: str = "", images: bool = False, row: str = "") -> Reading:
        """A side of a claim as recorded: a number, or a mapping. `figure`, `row`: in place of its own, if given."""
        if not isinstance(side, Mapping):
            return Reading(ClaimSide(f"{side:g}", float(side)), UNKNOWN)
        side = {**side, **({"figure": figure} if figure else {}), **({"row": row} if row else {})}
        if side.get("published"):
            return self._published(side)
        trials = self.trials(side)
        name = side["figure"] or self._results.figures[0] or (trials[0].metric if trials else "")
        metric = _metric(trials, name)
        read = Reading(ClaimSide(_words(side, metric), None, keys=tuple(t.key for t in trials)), metric, trials, {})
        if reason := self._unfit(side, trials):
            return replace(read, reason=reason)
        done = [trial for trial in trials if trial.state == "done"]
        self._load(done, name)
        values: dict[int, float] = {}
        reason = _unfinished(trials)
        per_image: list[Mapping[str, float]] = []
        for trial in done:
            try:
                values[trial.seed] = self._value(trial, name, side, metric)
                if images:
                    per_image.append(self._images(trial, name, side, metric))
            except Missing as missing:
                reason = reason or str(missing)
        numbers = tuple(values.values())
        mean = _mean(numbers) if numbers else None
        return replace(
            read,
            side=replace(read.side, value=mean, values=numbers, seeds=tuple(values)),
            values=values,
            reason=reason,
            diverged=_diverged(trials),
            images=_mean_of(per_image) if images else None,
        )

    def _published(self, side: Mapping[str, Any]) -> Reading:
        name = side["figure"] or self._results.figures[0]
        row = side["row"] or next(iter(self._results.rows), "")
        column = side["column"] or next((each.name for each in self._results.columns), "")
        value = published(self._results, row, name).get(column)
        return Reading(ClaimSide(f"{row} on {column}, published", value), UNKNOWN)

    def _unfit(self, side: Mapping[str, Any], trials: Sequence[PlacedRow]) -> str:
        """Why these trials are not the seeds of one setting; empty if they are."""
        if not trials:
            return "no trial yet"
        stage = side.get("stage") or self._results.stage
        keys = {trial.key for trial in trials}
        places = [(row, column) for row, column, trial in self._places(stage) if trial.key in keys]
        for what, labels in zip(("row", "column"), map(set, zip(*places, strict=True)), strict=True):
            if len(labels) > 1:
                return f"{len(labels)} {what}s; the claim must name one"
        settings = {repr(sorted((k, str(v)) for k, v in trial.settings.items() if k != "seed")) for trial in trials}
        if len(settings) > 1:
            return f"{len(settings)} settings, of which stage {stage} has not chosen one"
        if len({trial.seed for trial in trials}) < len(trials):
            return "several trials of one seed"
        return ""

    def _load(self, trials: Iterable[PlacedRow], figure: str) -> None:
        keys = [trial.key for trial in trials]
        new = [key for key in keys if key not in self._figures]
        if new:
            found = self._results.store.trials.figures(new)
            self._figures.update({key: found.get(key, {}) for key in new})
        new = [key for key in keys if (key, figure) not in self._rows]
        if new:
            rows = self._results.store.measured.of(new, [figure])
            self._rows.update({(key, figure): rows.get(key, ()) for key in new})

    def _value(self, trial: PlacedRow, figure: str, side: Mapping[str, Any], metric: MetricRow) -> float:
        """The value of one trial, in the figure's unit. Raises Missing."""
        parts = side["layer"] is not None or any(side[name] for name in ("layers", "item", "reduce"))
        if not parts and side["pairs"] == "all" and figure in self._figures[trial.key]:
            value = scaled(self._figures[trial.key][figure], metric)
            if value is None:
                raise Missing(f"{figure} of seed {trial.seed} is not a finite number")
            return value
        rows = selected(self._rows[trial.key, figure], side, figure)
        return _reduced(rows, side, figure) * metric.scale

    def _images(self, trial: PlacedRow, figure: str, side: Mapping[str, Any], metric: MetricRow) -> dict[str, float]:
        by_image: dict[str, list[MeasurementRow]] = {}
        for row in selected(self._rows[trial.key, figure], side, figure):
            if row.item:
                by_image.setdefault(row.item, []).append(row)
        if not by_image:
            raise Missing(f"{figure} has no value per image")
        return {image: _reduced(rows, side, figure) * metric.scale for image, rows in by_image.items()}


def selected(rows: Sequence[MeasurementRow], side: Mapping[str, Any], figure: str) -> list[MeasurementRow]:
    """The rows of one trial and figure that a side asks for. Raises Missing if there are none."""
    if not rows:
        raise Missing(f"no values of {figure} are recorded")
    chosen = list(rows)
    wanted = [side["layer"]] if side["layer"] is not None else side["layers"]
    if wanted:
        layers = _layers(sorted({row.layer for row in rows if row.layer is not None}), wanted, figure)
        chosen = [row for row in chosen if row.layer in layers]
    if side["item"]:
        chosen = [row for row in chosen if row.item == side["item"]]
        if not chosen:
            raise Missing(f"{figure} has no item {side['item']}")
    if side["pairs"] == "distinct":
        chosen = [row for row in chosen if row.item != str(row.layer if row.head is None else row.head)]
        if not chosen:
            raise Missing(f"{figure} has no pairs of two")
    return chosen


def _layers(present: Sequence[int], wanted: Sequence[int] | Mapping[str, int | None], figure: str) -> set[int]:
    """The layers asked for, of those that have rows; negative ones count from the last. Raises Missing."""
    has = f"no such layer of {figure}: " + (f"it has {_ranges(present)}" if present else "it has none")
    if isinstance(wanted, Mapping):
        count = wanted.get("first") or wanted.get("last") or 0
        if count > len(present):
            raise Missing(f"{len(present)} layers of {figure}, not {count}")
        return set(present[:count] if wanted.get("first") else present[-count:])
    found = set()
    for number in wanted:
        at = present[number] if -len(present) <= number < 0 else number
        if at not in present:
            raise Missing(f"{number}: {has}")
        found.add(at)
    return found


def _ranges(numbers: Sequence[int]) -> str:
    whole = list(numbers) == list(range(numbers[0], numbers[-1] + 1)) and len(numbers) > 2
    return f"{numbers[0]} to {numbers[-1]}" if whole else ", ".join(map(str, numbers))


def _reduced(rows: Sequence[MeasurementRow], side: Mapping[str, Any], figure: str) -> float:
    """One number of the rows. A mean is over layers of each layer's mean, as in figures: layers of Swin have other
    numbers of heads, and each counts alike."""
    values = [row.value for row in rows if row.value is not None]
    if len(values) < len(rows):
        raise Missing(f"{len(rows) - len(values)} of {len(rows)} values of {figure} are not finite numbers")
    reduce = REDUCE[side["reduce"] or "mean"]
    if reduce is not _mean:
        return float(reduce(values))
    of_layers: dict[int | None, list[float]] = {}
    for row, value in zip(rows, values, strict=True):
        of_layers.setdefault(row.layer, []).append(value)
    return _mean([_mean(each) for each in of_layers.values()])


def _mean_of(per_trial: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean over trials of each image that all of them have."""
    common = set.intersection(*map(set, per_trial)) if per_trial else set()
    return {
        image: _mean([values[image] for values in per_trial])
        for image in (per_trial[0] if per_trial else {})
        if image in common
    }


def _metric(trials: Sequence[PlacedRow], name: str) -> MetricRow:
    """The figure as the trials declared it; one without a unit, in three decimals, if they did not."""
    for trial in trials:
        for metric in trial.metrics or (metric_of(trial),):
            if metric.name == name:
                return metric
    return replace(UNKNOWN, name=name, title=name.replace("_", " ")) if name else UNKNOWN


def _words(side: Mapping[str, Any], metric: MetricRow) -> str:
    """MIM on food101, top-1 accuracy; SUP, KL between heads, last 3 layers, min"""
    place = " on ".join(part for part in (side["row"], side["column"]) if part)
    layers = side["layers"]
    if side["layer"] is not None:
        part = f"layer {side['layer']}"
    elif isinstance(layers, Mapping):
        part = next(f"{end} {count} layers" for end, count in layers.items() if count)
    else:
        part = f"layers {', '.join(map(str, layers))}" if layers else ""
    item = f"item {side['item']}" if side["item"] else ""
    pairs = "distinct pairs" if side["pairs"] == "distinct" else ""
    stage = f"stage {side['stage']}" if side["stage"] else ""
    return ", ".join(filter(None, (place, metric.title, part, item, pairs, side["reduce"] or "", stage)))


def _unfinished(trials: Sequence[PlacedRow]) -> str:
    ended = [trial for trial in trials if trial.state in ("done", "diverged")]
    if len(ended) == len(trials):
        return ""
    others: dict[str, int] = {}
    for trial in trials:
        if trial.state not in ("done", "diverged"):
            others[str(trial.state)] = others.get(str(trial.state), 0) + 1
    return f"{len(ended)} of {len(trials)} runs ended ({', '.join(f'{n} {state}' for state, n in others.items())})"


def _diverged(trials: Sequence[PlacedRow]) -> str:
    seeds = [str(trial.seed) for trial in trials if trial.state == "diverged"]
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)} diverged" if seeds else ""
