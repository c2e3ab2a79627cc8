"""The only place that checks a search against the trials it would run: rungs, warm-up, spans of a population."""

from __future__ import annotations

from orchestrator.spec.check_trials import CheckedTrial
from orchestrator.spec.diagnostics import Problems, Steps, show
from orchestrator.spec.job import Stage
from orchestrator.spec.search_space import Asha, Median, Population, contains, rungs
from orchestrator.spec.sweep import Search, SingleSetting
from orchestrator.spec.yaml_nodes import YamlNode


def check_search(root: YamlNode, stage: Stage, at: Steps, built: list[CheckedTrial], problems: Problems) -> None:
    """What the fields of a search say must go together with its trials' epochs, evaluations and warm-up."""
    search = stage.sweep
    assert isinstance(search, Search)
    _first(root, stage.name, search, [*at, "sweep", "first"], problems)
    found: dict[tuple[str, str], None] = {}
    for trial in built:
        found.update(dict.fromkeys(_of_trial(search, trial)))
    for key, what in found:
        place = root.place_of([*at, "sweep", *key.split(".")], key=True)
        problems.report(place, f"stages.{stage.name}.sweep.{key}", what)


def _first(root: YamlNode, stage: str, search: Search, at: Steps, problems: Problems) -> None:
    """The points to begin with name every field of the search, and lie inside its ranges."""
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
    """(field, what is wrong) for one of the trials that stand for the search."""
    if search.population is not None:
        return _of_population(search, search.population, trial)
    if search.stopping == "none":
        return []
    if "optim.epochs" in search.search or "runtime.evaluate_every" in search.search:
        return [("stopping", "trials of unequal epochs or evaluations cannot be compared on the way; set none")]
    if isinstance(search.stopping, Asha):
        rule = search.stopping.asha
        epochs = trial.spec.optim.epochs
        decided = [epoch for bracket in range(rule.brackets) for epoch in rungs(rule, epochs, bracket)]
        return _of_epochs("stopping.asha", sorted(set(decided)), rule.grace_epochs, rule.inside_warmup, trial)
    assert isinstance(search.stopping, Median)
    median = search.stopping.median
    return _of_epochs("stopping.median", [median.grace_epochs], median.grace_epochs, median.inside_warmup, trial)


def _of_epochs(
    key: str, decided: list[int], grace: int, inside_warmup: bool, trial: CheckedTrial
) -> list[tuple[str, str]]:  # fmt: skip
    spec, found = trial.spec, []
    epochs, every = spec.optim.epochs, spec.runtime.evaluate_every
    if grace >= epochs:
        found.append((f"{key}.grace_epochs", f"{grace} of {epochs} epochs leave nothing to stop; lower it"))
    unseen = [epoch for epoch in decided if epoch % every]
    if unseen and grace < epochs:
        said = ", ".join(map(str, decided))
        found.append((
            f"{key}.grace_epochs",
            f"epochs {said} are decided at, but epoch {unseen[0]} is not evaluated (runtime.evaluate_every {every}); "
            f"make grace_epochs a multiple of {every}",
        ))  # fmt: skip
    if not inside_warmup and grace <= spec.optim.warmup_epochs:
        found.append((
            f"{key}.grace_epochs",
            f"{grace} lies inside the warm-up of {spec.optim.warmup_epochs:g} epochs, where the order of trials is "
            "noise; begin later, or say inside_warmup: true",
        ))  # fmt: skip
    return found


def _of_population(search: Search, population: Population, trial: CheckedTrial) -> list[tuple[str, str]]:
    spec, found = trial.spec, []
    epochs, part = spec.optim.epochs, population.every_epochs
    if epochs % part or part >= epochs:
        what = f"{part} does not divide the {epochs} epochs of a trial into generations"
        found.append(("population.every_epochs", what))
    elif part % spec.runtime.evaluate_every:
        what = f"after {part} epochs nothing is evaluated (runtime.evaluate_every {spec.runtime.evaluate_every})"
        found.append(("population.every_epochs", what))
    if spec.span is not None:
        found.append(("population", "sets span itself; remove it from the trial"))
    for path in search.search:
        if path in _FIXED or not path.startswith(_MAY_CHANGE):
            what = (
                f"{path}: a member's settings change on the way, and this one cannot; what can: optim.lr and the like, "
            )
            found.append(("search", what + "backbone.drop_path, task.augment"))
    return found


_MAY_CHANGE = ("optim.", "backbone.drop_path", "task.augment.")
_FIXED = ("optim.batch", "optim.epochs", "optim.schedule", "optim.lr_convention")
"""A schedule is one sequence of steps over all its spans."""


def check_after_population(root: YamlNode, stage: Stage, at: Steps, source: str, problems: Problems) -> None:
    """A stage that takes the winner of a population gets the last part of a trial that was trained in parts: it can be
    measured once more (on test), but not trained otherwise."""
    why = f"{source} is a population, whose winner was trained in parts with settings that changed; "
    said = {
        "neighbourhood": stage.neighbourhood,
        "sweep": None if isinstance(stage.sweep, SingleSetting) else stage.sweep,
    }
    for key, value in said.items():
        if value is not None:
            what = why + "it has no neighbourhood and no sweep"
            problems.report(root.place_of([*at, key], key=True), f"stages.{stage.name}.{key}", what)
    for path in stage.override:
        if path != "task.evaluate":
            what = why + "its last part cannot be trained otherwise: only task.evaluate may be set"
            problems.report(
                root.place_of([*at, "override", path], key=True), f"stages.{stage.name}.override", path, what
            )
