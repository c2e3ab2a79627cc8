"""Checks that winners are taken only where one value of the figure that trials are chosen by is better than another."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from orchestrator.spec.check_trials import CheckedTrial
from orchestrator.spec.diagnostics import Problems, Steps
from orchestrator.spec.job import Stage
from orchestrator.spec.seeds import SEED
from orchestrator.spec.trial_fields import group_of
from orchestrator.spec.yaml_nodes import YamlNode


def undirected(built: Sequence[CheckedTrial]) -> str:
    """The figure by which one of these trials would be chosen although it has no better direction; empty: none."""
    first = (trial.spec.metrics[0] for trial in built)
    return next((metric.name for metric in first if metric.better == "neither"), "")


def undirected_sources(
    root: YamlNode, stage: Stage, at: Steps, built: Mapping[str, Sequence[CheckedTrial]], problems: Problems
) -> list[str]:
    """The sources of a stage that have no winner, each of which is reported. `built`: the trials of each stage."""
    found = []
    for k, name in enumerate(stage.from_):
        if figure := undirected(built.get(name, ())):
            what = f"has no winner to take, since no value of {figure} is better than another; remove it"
            problems.report(root.place_of([*at, "from", k]), f"stages.{stage.name}.from", name, what)
            found.append(name)
    return found


def alike(source: Sequence[CheckedTrial], per: Sequence[str], group: str | None) -> str:
    """Why no best weights can be taken from a group of a stage; empty if they can, as from a single setting.

    `source`: the stage's trials; `per`: the fields that form its groups; `group`: None if it has only one.
    """
    members = [trial for trial in source if group in (None, group_of(trial.spec, list(per))[0])]
    settings = {json.dumps({**trial.settings, SEED: None}, sort_keys=True) for trial in members}
    figure = undirected(members)
    if not figure or len(settings) < 2:
        return ""
    return f"has {len(settings)} settings, and no value of {figure} is better than another; give it one setting"
