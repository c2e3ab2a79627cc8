"""Asks Optuna how much each field of a search matters for its result."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from orchestrator.report.drawings import Importance, SearchField, SearchSetting

FEWEST = 4
"""Settings in full below which no importance is computed: of three, any order of the fields fits."""

FEW = 30
"""Settings in full below which readers are told that the shares may change with the next trials."""


def importance(
    fields: Sequence[SearchField], settings: Sequence[SearchSetting], better: str
) -> tuple[tuple[Importance, ...], str]:
    """The share of each field, largest first, and what computed it: Optuna's default, PED-ANOVA (Watanabe et al.,
    IJCAI 2023), which compares where the best tenth of the settings lies with where all of them lie.

    `settings`: those that ran in full; `better`: higher, lower. Nothing for fewer than `FEWEST` of them, where all have
    one value, or where no value is better than another. The method draws nothing at random.
    """
    known = [each for each in settings if each.value is not None and None not in each.at]
    if better == "neither" or len(known) < FEWEST or len({each.value for each in known}) < 2:
        return (), ""
    import optuna

    distributions = {field.path: _distribution(field, known, place) for place, field in enumerate(fields)}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize" if better == "higher" else "minimize")
    for each in known:
        params = {field.path: _param(field, each.at[place]) for place, field in enumerate(fields)}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=each.value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a few trials give equal shares: the page says how many there are
        shares = optuna.importance.get_param_importances(study)
    order = sorted(shares, key=lambda path: (-shares[path], path))
    by = f"Optuna {optuna.__version__}, PED-ANOVA"
    return tuple(Importance(path, round(float(shares[path]), 3)) for path in order), by


def _param(field: SearchField, value: float | None) -> float | int:
    assert value is not None
    return int(value) if field.form == "choice" else value


def _distribution(field: SearchField, settings: Sequence[SearchSetting], place: int) -> Any:
    """Between the smallest and the largest value that was tried."""
    from optuna import distributions

    if field.form == "choice":
        return distributions.CategoricalDistribution(range(len(field.choices)))
    values = [value for each in settings if (value := each.at[place]) is not None]
    return distributions.FloatDistribution(min(values), max(values), log=field.form == "log")
