"""The only place that decides what a search tries next and which trial ends early, with Ray Tune's searchers and
schedulers as libraries."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from orchestrator.records.rows import SearchEvent
from orchestrator.spec.search_space import (
    Asha,
    Choice,
    LogUniform,
    Median,
    Point,
    Range,
    Uniform,
    Whole,
    drawn,
    rounded,
    rungs,
)
from orchestrator.spec.sweep import Search

TRIES = 20
"""Times that the sampler is asked for a point that was not tried yet; after that points are drawn evenly."""
DRAWS = 500
"""Points that are drawn evenly before the space is called exhausted."""

KeyOf = Callable[[Mapping[str, Any]], str | None]
"""What a search's event says of a point -> key of its trial; None where the fields' values do not go together."""


class Decider(Protocol):
    """A group's search as its driver sees it. Made again from its events, it goes on as it would have."""

    def replay(self, events: Iterable[SearchEvent]) -> list[str]:
        """Takes over what was recorded; lines on what could not be repeated exactly."""

    def wants(self) -> bool:
        """Whether there is a point to ask for now."""

    def over(self) -> bool:
        """Whether no point will be asked for any more."""

    def ask(self) -> SearchEvent:
        """The next point: `asked`; or `exhausted`."""

    def hear(self, key: str, epoch: int, value: float | None, ended: bool = False) -> SearchEvent | None:
        """A trial's report: `continued` or `stopped`; None: nothing depends on it. `ended`: its result is known."""

    def tell(self, key: str, value: float | None) -> SearchEvent | None:
        """A trial's result (None: diverged): `told`; None when it is known already."""


class PointSearch:
    """A search whose every point is a trial of its own."""

    def __init__(self, search: Search, metric: str, mode: str, epochs: int, key_of: KeyOf) -> None:
        """`epochs`: of a trial in full. `metric`, `mode`: what is searched for, "max" or "min" of it."""
        self._search, self._metric, self._mode, self._epochs, self._key_of = search, metric, mode, epochs, key_of
        self._begin([])

    def _begin(self, first: list[Point]) -> None:
        self._sampler = Sampler(self._search, self._metric, self._mode, first or self._search.first)
        self._rule = _rule(self._search, self._metric, self._mode, self._epochs)
        self._number = 0
        self._suggested: dict[str, str] = {}
        """Key -> the sampler's name of the point."""
        self._open: set[str] = set()
        self._heard: dict[str, int] = {}
        self._exhausted = False

    def replay(self, events: Iterable[SearchEvent]) -> list[str]:
        recorded = list(events)
        if self._follow(recorded):
            return []
        # Another version of the sampler draws other points: the history stands, what follows from it may differ.
        asked = [dict(event.body["point"]) for event in recorded if event.kind == "asked"]
        self._begin([_unrounded(self._search.search, point) for point in asked])
        self._follow(recorded, as_recorded=True)
        return ["its points are not those that this version of optuna draws: it goes on from their results"]

    def _follow(self, recorded: list[SearchEvent], as_recorded: bool = False) -> bool:
        """Lives through the events; False as soon as a point comes out otherwise than it did."""
        for event in recorded:
            if event.kind == "exhausted" and as_recorded:
                self._exhausted, self._number = True, self._number + 1
            elif event.kind in ("asked", "exhausted"):
                again = self.ask(event if as_recorded else None)
                if (again.kind, again.key) != (event.kind, event.key):
                    return False
            elif event.kind == "told":
                self.tell(event.key, event.body["value"])
            else:
                self.hear(event.key, event.body["epoch"], event.body["value"], recorded=event.kind)
        return True

    def wants(self) -> bool:
        return not self.over() and len(self._open) < self._search.at_once

    def over(self) -> bool:
        return self._exhausted or len(self._suggested) >= self._search.trials

    def ask(self, recorded: SearchEvent | None = None) -> SearchEvent:
        """`recorded`: takes this one, whatever the sampler says."""
        for attempt in range(TRIES + DRAWS):
            name = f"{len(self._suggested)}-{attempt}"
            if attempt < TRIES:
                point = self._sampler.suggest(name)
            else:
                point = drawn(self._search.search, f"{self._search.seed} {name}")
                self._sampler.add(name, point)
            key = self._key_of({"point": point}) if recorded is None else recorded.key
            if key is not None and key not in self._suggested:
                self._suggested[key] = name
                self._open.add(key)
                self._rule.begin(key, len(self._suggested))
                return self._event("asked", key, {"point": point})
            self._sampler.drop(name)
        self._exhausted = True
        tried = len(self._suggested)
        reason = f"exhausted after {tried} points: {DRAWS} more draws gave none that is new and allowed"
        return self._event("exhausted", "", {"reason": reason})

    def hear(
        self, key: str, epoch: int, value: float | None, ended: bool = False, recorded: str | None = None
    ) -> SearchEvent | None:
        if key not in self._open or epoch <= self._heard.get(key, 0) or not self._rule.listens(epoch):
            return None
        if value is None or not math.isfinite(value):
            return None
        self._heard[key] = epoch
        self._sampler.report(self._suggested[key], epoch, value)
        said = self._rule.stops(key, epoch, value)
        stop = (recorded == "stopped") if recorded is not None else said and not ended
        if said and not stop:
            self._rule.spare(key)
        if stop:
            self._open.discard(key)
            self._sampler.end(self._suggested[key], None)
        return self._event("stopped" if stop else "continued", key, {"epoch": epoch, "value": value})

    def tell(self, key: str, value: float | None) -> SearchEvent | None:
        if key not in self._open:
            return None
        self._open.discard(key)
        if value is not None and not math.isfinite(value):
            value = None
        self._sampler.end(self._suggested[key], value)
        if value is not None:
            self._rule.end(key, self._epochs, value)
        return self._event("told", key, {"value": value})

    def _event(self, kind: Any, key: str, body: dict[str, Any]) -> SearchEvent:
        self._number += 1
        return SearchEvent(self._number - 1, kind, key, body)


class Sampler:
    """Ray Tune's OptunaSearch, with points as trials get them: rounded, and choices by their value."""

    def __init__(self, search: Search, metric: str, mode: str, first: list[Point]) -> None:
        import warnings

        import optuna
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._ranges, self._metric = search.search, metric
        self._own: dict[str, Point] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ExperimentalWarning of what we test ourselves
            self._optuna = OptunaSearch(
                {path: _distribution(one) for path, one in search.search.items()},
                metric=metric,
                mode=mode,
                points_to_evaluate=[_inside(search.search, point) for point in first] or None,
                sampler=_sampler(search),
            )

    def suggest(self, name: str) -> Point:
        inside = self._optuna.suggest(name)
        return {
            path: one.choice[inside[path]] if isinstance(one, Choice) else rounded(one, inside[path])
            for path, one in self._ranges.items()
        }

    def add(self, name: str, point: Point) -> None:
        """A point that does not come from the sampler; told to it with its result."""
        self._own[name] = point

    def drop(self, name: str) -> None:
        """The point will not be tried."""
        if self._own.pop(name, None) is None:
            self._optuna.on_trial_complete(name, error=True)

    def report(self, name: str, epoch: int, value: float) -> None:
        if name not in self._own:
            self._optuna.on_trial_result(name, {self._metric: value, "training_iteration": epoch})

    def end(self, name: str, value: float | None) -> None:
        """None: stopped early or diverged. To Optuna both are pruned: worse than every trial that ran in full, and
        the worse the earlier its last report; with `error` it would forget them, and come there again."""
        if name in self._own:
            point = _inside(self._ranges, self._own.pop(name))
            self._optuna.add_evaluated_point(point, value, pruned=value is None)
        else:
            self._optuna.on_trial_complete(name, None if value is None else {self._metric: value})


def _distribution(one: Range) -> Any:
    from optuna import distributions as of

    if isinstance(one, Uniform):
        return of.FloatDistribution(*one.uniform)
    if isinstance(one, LogUniform):
        return of.FloatDistribution(*one.loguniform, log=True)
    if isinstance(one, Whole):
        return of.IntDistribution(*one.between, log=one.log)
    return of.CategoricalDistribution(range(len(one.choice)))  # by number: Optuna takes no lists or mappings


def _inside(ranges: Mapping[str, Range], point: Mapping[str, Any]) -> Point:
    """A point as Optuna has it."""
    return {
        path: one.choice.index(point[path]) if isinstance(one, Choice) else point[path] for path, one in ranges.items()
    }


def _sampler(search: Search) -> Any:
    from optuna import samplers

    if search.sampler == "random":
        return samplers.RandomSampler(seed=search.seed)
    if search.sampler == "quasi_random":
        return samplers.QMCSampler(qmc_type="sobol", scramble=True, seed=search.seed, warn_independent_sampling=False)
    # What is out counts as bad until it is known, so that points asked for together do not lie together.
    return samplers.TPESampler(n_startup_trials=search.startup, seed=search.seed, constant_liar=search.at_once > 1)


class _Rule:
    """No early stopping."""

    def listens(self, epoch: int) -> bool:
        """Whether a report after this epoch can matter."""
        return False

    def begin(self, key: str, number: int) -> None:
        """The group's trial of this number, from 1, begins."""

    def stops(self, key: str, epoch: int, value: float) -> bool:
        return False

    def spare(self, key: str) -> None:
        """The trial goes on, although `stops` said otherwise."""

    def end(self, key: str, epoch: int, value: float) -> None:
        """A trial ran in full."""


@dataclass(frozen=True)
class _Named:
    """What Tune's schedulers want to know of a trial, and of the controller."""

    trial_id: str = ""

    def get_live_trials(self) -> list[Any]:
        """None to yield to: a trial is never paused."""
        return []


class _TuneRule(_Rule):
    """One of Tune's schedulers, without Tune's controller."""

    def __init__(self, search: Search, metric: str, mode: str, epochs: int) -> None:
        from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule

        self._metric, self._epochs, self._seed = metric, epochs, search.seed
        self._refused: set[Any] = set()
        """Trials that the rule wanted to stop, of which it takes no further report."""
        common = {"time_attr": "epoch", "metric": metric, "mode": mode}
        stopping = search.stopping
        if isinstance(stopping, Asha):
            rule = stopping.asha
            self.tune: Any = AsyncHyperBandScheduler(
                max_t=epochs,
                grace_period=rule.grace_epochs,
                reduction_factor=rule.reduction_factor,
                brackets=rule.brackets,
                stop_last_trials=False,
                **common,
            )
            self._rungs = {epoch for bracket in range(rule.brackets) for epoch in rungs(rule, epochs, bracket)}
        else:
            assert isinstance(stopping, Median)
            self.tune = MedianStoppingRule(
                grace_period=stopping.median.grace_epochs,
                min_samples_required=stopping.median.min_trials,
                **common,
            )
            self._refused = self.tune._stopped_trials
            self._rungs = set(range(1, epochs))

    def listens(self, epoch: int) -> bool:
        return epoch in self._rungs

    def begin(self, key: str, number: int) -> None:
        import numpy as np

        before = np.random.get_state()
        np.random.seed([self._seed, number])  # Tune draws the bracket from numpy's global generator
        self.tune.on_trial_add(_Named(), _Named(key))
        np.random.set_state(before)

    def stops(self, key: str, epoch: int, value: float) -> bool:
        said = self.tune.on_trial_result(_Named(), _Named(key), {"epoch": epoch, self._metric: value})
        return bool(said == "STOP")

    def spare(self, key: str) -> None:
        self._refused.discard(_Named(key))

    def end(self, key: str, epoch: int, value: float) -> None:
        self.tune.on_trial_complete(_Named(), _Named(key), {"epoch": epoch, self._metric: value})


def _rule(search: Search, metric: str, mode: str, epochs: int) -> _Rule:
    return _Rule() if search.stopping == "none" else _TuneRule(search, metric, mode, epochs)


def _unrounded(ranges: Mapping[str, Range], point: Point) -> Point:
    """A recorded point as a first point: inside its ranges to the last digit."""
    return {path: rounded(one, point[path]) for path, one in ranges.items()}
