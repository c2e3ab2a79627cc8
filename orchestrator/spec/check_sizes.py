"""Checks that a job has no more trials than can be planned, by arithmetic, before any of them is built."""

from __future__ import annotations

import math

from orchestrator.spec.diagnostics import Problems
from orchestrator.spec.job import JobSpec, Near, Stage
from orchestrator.spec.seeds import given_count
from orchestrator.spec.sweep import MAX_TRIALS, Grid, Search, axis_length
from orchestrator.spec.yaml_nodes import YamlNode


def check_sizes(root: YamlNode, job: JobSpec, problems: Problems) -> set[str]:
    """Reports the first stage with which the job has more than `MAX_TRIALS` trials. Returns the stages that are then
    not built: that one and all after it."""
    total = 0
    groups: dict[str, int] = {}
    for i, stage in enumerate(job.stages):
        sources = [groups.get(name, 1) for name in stage.from_]
        groups[stage.name] = max(sources, default=1) if stage.from_ else _groups(stage)
        count = _trials(stage, groups[stage.name]) * (given_count(stage) or 1)
        total += count
        if total > MAX_TRIALS:
            key = "sweep" if stage.neighbourhood is None else "neighbourhood"
            key = "replicates" if key not in stage.model_fields_set and stage.replicates is not None else key
            inclusive = f" ({total:,} with the stages before)" if total > count else ""
            what = f"{count:,} trials{inclusive}; a job has at most {MAX_TRIALS:,}"
            problems.report(root.place_of(["stages", i, key], key=True), f"stages.{stage.name}.{key}", what)
            return {each.name for each in job.stages[i:]}
    return set()


def _groups(stage: Stage) -> int:
    """Groups of a stage of its own, at most."""
    if isinstance(stage.sweep, Search):
        return math.prod(axis_length(axis) for axis in stage.sweep.each.values())
    if isinstance(stage.sweep, Grid):
        return sum(
            math.prod(axis_length(axis) for path, axis in axes.items() if path in stage.per)
            for axes in stage.sweep.grid
        )
    return 1


def _trials(stage: Stage, groups: int) -> int:
    """Trials of a stage, at most: of a stage with `from` in each of its groups."""
    if isinstance(stage.sweep, Search):
        return groups * stage.sweep.trials
    settings = 1
    if isinstance(stage.sweep, Grid):
        settings = sum(math.prod(axis_length(axis) for axis in axes.values()) for axes in stage.sweep.grid)
    if not stage.from_:
        return settings
    if stage.neighbourhood is not None:
        moves = [_moves(near) for near in stage.neighbourhood.near.values()]
        star = stage.neighbourhood.shape == "star"
        settings *= sum(moves) if star else math.prod(number + 1 for number in moves)
    return groups * settings


def _moves(near: Near) -> int:
    return len(near.multiply) + len(near.add)
