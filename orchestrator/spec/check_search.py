"""Checks a search against the trials it would run: rungs, warm-up, generations of a population."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.spec.check_trials import CheckedTrial
from orchestrator.spec.check_winners import undirected
from orchestrator.spec.diagnostics import Problems, Steps, show
from orchestrator.spec.job import Stage
from orchestrator.spec.search_space import Asha, Median, Population, contains, rungs
from orchestrator.spec.sweep import LENGTH, Search, SingleSetting
from orchestrator.spec.trial_fields import split_path, steps_per_epoch
from orchestrator.spec.yaml_nodes import YamlNode
from workers.trial import TrialSpec


def check_search(root: YamlNode, stage: Stage, at: Steps, built: list[CheckedTrial], problems: Problems) -> None:
    """Reports fields of a search that do not fit its trials' rounds, evaluations and warm-up."""
    search = stage.sweep
    assert isinstance(search, Search)
    if figure := undirected(built):
        what = f"no value of {figure} is better than another, so there is none to search for; use a grid"
        problems.report(root.place_of([*at, "sweep", "search"], key=True), f"stages.{stage.name}.sweep.search", what)
        return
    _first(root, stage.name, search, [*at, "sweep", "first"], problems)
    mistakes = dict.fromkeys(mistake for trial in built for mistake in _of_trial(search, trial))
    for key, what in mistakes:
        section, _, path = key.partition(": ")
        place = root.place_of([*at, "sweep", *section.split("."), *([path] if path else [])], key=True)
        problems.report(place, f"stages.{stage.name}.sweep.{key}", what)


def _first(root: YamlNode, stage: str, search: Search, at: Steps, problems: Problems) -> None:
    """Reports first points that lack a field of the search or lie outside its ranges."""
    name, known = f"stages.{stage}.sweep.first", ", ".join(search.search)
    for number, point in enumerate(search.first):
        if lacking := [path for path in search.search if path not in point]:
            problems.report(root.place_of([*at, number]), name, f"lacks {lacking[0]}; a point names each of: {known}")
        for path, value in point.items():
            place = root.place_of([*at, number, path], key=path not in search.search)
            if path not in search.search:
                problems.report(place, name, path, f"is not searched; fields of search: {known}")
            elif not contains(search.search[path], value):
                problems.report(place, name, f"{path} {show(value)}", "outside its range")


def _of_trial(search: Search, trial: CheckedTrial) -> list[tuple[str, str]]:
    """(field of the search, mistake) for one of the trials that stand for it; `search: PATH` is one of its ranges."""
    if search.population is not None:
        return _of_population(search, search.population, trial)
    if search.stopping == "none":
        return []
    if {*LENGTH, "runtime.evaluate_every"} & set(search.search):
        what = f"trials with different {_unit(trial.spec)}s or evaluations cannot be compared before they end; set none"
        return [("stopping", what)]
    if isinstance(search.stopping, Asha):
        rule = search.stopping.asha
        rounds = trial.spec.rounds
        decided = [number for bracket in range(rule.brackets) for number in rungs(rule, rounds, bracket)]
        return _of_rounds("stopping.asha", sorted(set(decided)), rule.grace_epochs, rule.inside_warmup, trial.spec)
    assert isinstance(search.stopping, Median)
    median = search.stopping.median
    return _of_rounds("stopping.median", [median.grace_epochs], median.grace_epochs, median.inside_warmup, trial.spec)


def _of_rounds(
    key: str, decided: list[int], grace: int, inside_warmup: bool, spec: TrialSpec
) -> list[tuple[str, str]]:  # fmt: skip
    """Mistakes of a rule that stops trials after the rounds `decided`, the first of them `grace`."""
    rounds, every, unit, mistakes = spec.rounds, spec.runtime.evaluate_every, _unit(spec), []
    if grace >= rounds:
        mistakes.append((f"{key}.grace_epochs", f"{grace} of {_length(spec)} leave nothing to stop; lower it"))
    unseen = [number for number in decided if number % every]
    if unseen and grace < rounds:
        listed = ", ".join(map(str, decided))
        mistakes.append((
            f"{key}.grace_epochs",
            f"trials may stop at {unit}s {listed}, but {unit} {unseen[0]} is not evaluated (runtime.evaluate_every "
            f"{every}); make grace_epochs a multiple of {every}",
        ))  # fmt: skip
    if not inside_warmup and grace <= _warmup_rounds(spec):
        mistakes.append((
            f"{key}.grace_epochs",
            f"{grace} lies inside the warm-up of {_warmup(spec)}, where the order of trials is "
            "noise; raise it, or set inside_warmup: true",
        ))  # fmt: skip
    return mistakes


def _unit(spec: TrialSpec) -> str:
    """The name of a round: an epoch is one, unless the length is in iterations."""
    return "epoch" if spec.optim.iterations is None else "round"


def _length(spec: TrialSpec) -> str:
    if spec.optim.iterations is None:
        return f"{spec.rounds} epochs"
    return f"{spec.rounds} rounds ({spec.optim.iterations} iterations by {spec.runtime.report_iterations})"


def _warmup_rounds(spec: TrialSpec) -> float:
    """Length of the warm-up in rounds. Of one in iterations beside a length in epochs it is an estimate."""
    optim = spec.optim
    if optim.warmup_iterations is None:
        return optim.warmup_epochs
    per_round = steps_per_epoch(spec) if optim.iterations is None else spec.runtime.report_iterations
    return optim.warmup_iterations / per_round


def _warmup(spec: TrialSpec) -> str:
    text = f"{_warmup_rounds(spec):.3g} {_unit(spec)}s"
    iterations = spec.optim.warmup_iterations
    return text if iterations is None else f"{iterations} iterations ({text})"


def _of_population(search: Search, population: Population, trial: CheckedTrial) -> list[tuple[str, str]]:
    spec, mistakes = trial.spec, []
    rounds, part, unit = spec.rounds, population.every_epochs, _unit(spec)
    if rounds % part or part >= rounds:
        what = f"{part} does not divide the {_length(spec)} of a trial into generations"
        mistakes.append(("population.every_epochs", what))
    elif part % spec.runtime.evaluate_every:
        every = spec.runtime.evaluate_every
        what = f"after {part} {unit}s nothing is evaluated (runtime.evaluate_every {every}); use a multiple of {every}"
        mistakes.append(("population.every_epochs", what))
    if spec.span is not None:
        mistakes.append(("population", "sets span itself; remove it from the trial"))
    changeable = (*_MAY_CHANGE, *(f"task.{path}" for path in spec.task.changeable))
    possible = ", ".join(["optim.lr and similar", *(each.rstrip(".") for each in changeable[1:])])
    for path in search.search:
        if path in _FIXED or not any(path == each or _is_below(path, each) for each in changeable):
            what = "members change their settings during training, and this one cannot change; possible: "
            mistakes.append((f"search: {path}", what + possible))
    return mistakes


_MAY_CHANGE = ("optim.", "backbone.drop_path")
"""Paths of a trial (a trailing dot: all below) that a population may change; its task names more."""
_FIXED = ("optim.batch", "optim.schedule", "optim.lr_convention", *LENGTH)
"""A schedule is one sequence of steps over all its spans."""


def _is_below(path: str, allowed: str) -> bool:
    return allowed.endswith(".") and path.startswith(allowed)


def check_after_population(
    root: YamlNode, stage: Stage, at: Steps, source: str, trials: Sequence[CheckedTrial], problems: Problems
) -> None:
    """Reports a stage that would train the winner of a population anew: that winner is the last part of a trial that
    was trained in parts, so it can only be measured again (on test).

    `trials`: those of the population, stage `source`.
    """
    split_fields = list(dict.fromkeys(path for trial in trials if (path := split_path(trial.spec.task))))
    why = f"{source} is a population, whose winner was trained in parts with settings that changed; "
    fields = {
        "neighbourhood": stage.neighbourhood,
        "sweep": None if isinstance(stage.sweep, SingleSetting) else stage.sweep,
        "replicates": stage.replicates,
    }
    for key, value in fields.items():
        if value is not None:
            what = why + "it cannot have a neighbourhood, a sweep or replicates"
            problems.report(root.place_of([*at, key], key=True), f"stages.{stage.name}.{key}", what)
    for path in stage.override if trials else ():
        if path not in split_fields:
            allowed = f"only {' or '.join(split_fields)} may be set" if split_fields else "remove the override"
            what = f"{why}its last part cannot be trained in another way: {allowed}"
            problems.report(
                root.place_of([*at, "override", path], key=True), f"stages.{stage.name}.override", path, what
            )
