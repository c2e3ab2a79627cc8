"""Draws the settings of a search's trials with Optuna's samplers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.spec.search_space import Choice, IntRange, LogUniform, Point, Range, Uniform, rounded
from orchestrator.spec.sweep import Search


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
    if isinstance(one, IntRange):
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


def _unrounded(ranges: Mapping[str, Range], point: Point) -> Point:
    """A recorded point as a first point: inside its ranges to the last digit."""
    return {path: rounded(one, point[path]) for path, one in ranges.items()}
