"""Draws the settings of a search's trials with Optuna's samplers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.spec.search_space import Choice, IntRange, LogUniform, Point, Range, Uniform, rounded
from orchestrator.spec.sweep import Search


class Sampler:
    """Ray Tune's OptunaSearch, with points as trials get them: numbers rounded, choices by their value."""

    def __init__(self, search: Search, metric: str, mode: str, first: list[Point]) -> None:
        """`first`: points to suggest before any is drawn."""
        import warnings

        import optuna
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._ranges, self._metric = search.search, metric
        self._own: dict[str, Point] = {}
        """Points that were not drawn by the sampler, by name, until their result is known."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ExperimentalWarning about parts that our tests cover
            self._optuna = OptunaSearch(
                {path: _distribution(values) for path, values in search.search.items()},
                metric=metric,
                mode=mode,
                points_to_evaluate=[_as_in_optuna(search.search, point) for point in first] or None,
                sampler=_sampler(search),
            )

    def suggest(self, name: str) -> Point:
        """Draws a point; `name` identifies it in later calls."""
        drawn = self._optuna.suggest(name)
        return {
            path: values.choice[drawn[path]] if isinstance(values, Choice) else rounded(values, drawn[path])
            for path, values in self._ranges.items()
        }

    def add(self, name: str, point: Point) -> None:
        """Adds a point from elsewhere, which the sampler takes into account with its result."""
        self._own[name] = point

    def drop(self, name: str) -> None:
        """Takes a point back that will not be tried."""
        if self._own.pop(name, None) is None:
            self._optuna.on_trial_complete(name, error=True)

    def report(self, name: str, epoch: int, value: float) -> None:
        """Takes an intermediate value of a point."""
        if name not in self._own:
            self._optuna.on_trial_result(name, {self._metric: value, "training_iteration": epoch})

    def end(self, name: str, value: float | None) -> None:
        """Takes the result of a point; None if its trial was stopped early or diverged.

        Optuna gets both as pruned: worse than every trial that ran in full, and the worse the earlier the last report.
        Given as errors, it would ignore them and draw there again.
        """
        if name in self._own:
            point = _as_in_optuna(self._ranges, self._own.pop(name))
            self._optuna.add_evaluated_point(point, value, pruned=value is None)
        else:
            self._optuna.on_trial_complete(name, None if value is None else {self._metric: value})


def _distribution(values: Range) -> Any:
    from optuna import distributions

    if isinstance(values, Uniform):
        return distributions.FloatDistribution(*values.uniform)
    if isinstance(values, LogUniform):
        return distributions.FloatDistribution(*values.loguniform, log=True)
    if isinstance(values, IntRange):
        return distributions.IntDistribution(*values.between, log=values.log)
    return distributions.CategoricalDistribution(range(len(values.choice)))  # Optuna takes no lists or mappings


def _as_in_optuna(ranges: Mapping[str, Range], point: Mapping[str, Any]) -> Point:
    """The point with the position of each choice in place of its value."""
    return {
        path: values.choice.index(point[path]) if isinstance(values, Choice) else point[path]
        for path, values in ranges.items()
    }


def _sampler(search: Search) -> Any:
    from optuna import samplers

    if search.sampler == "random":
        return samplers.RandomSampler(seed=search.seed)
    if search.sampler == "quasi_random":
        return samplers.QMCSampler(qmc_type="sobol", scramble=True, seed=search.seed, warn_independent_sampling=False)
    # A point without a result counts as bad, so that points suggested together do not lie together.
    return samplers.TPESampler(n_startup_trials=search.startup, seed=search.seed, constant_liar=search.at_once > 1)


def within_ranges(ranges: Mapping[str, Range], point: Point) -> Point:
    """A recorded point as a first point: inside its ranges to the last digit."""
    return {path: rounded(values, point[path]) for path, values in ranges.items()}
