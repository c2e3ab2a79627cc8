"""The cost of a job of which some trials have ended: a forecast never wins over what is recorded."""

from __future__ import annotations

import pytest
from k12_job import BASE, RAND, grid, job

from orchestrator.plan.cost import Cost, cost
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.plan.resource_fit import Node
from orchestrator.records.states import TrialSnapshot, TrialState
from orchestrator.spec.job import JobSpec


def cost_of(spec: JobSpec, known: dict[str, TrialSnapshot]) -> Cost:
    def snapshots(keys: list[str]) -> dict[str, TrialSnapshot]:
        return {key: known[key] for key in keys if key in known}

    return cost(spec, snapshots, DurationModel(), [Node(cpus=1)])


def lengths(*, mode: str) -> JobSpec:
    """A grid over the length of the training, the longest first, whose winner runs once more."""
    axes = grid(dataset=["digits"], init=[RAND], lr=[1e-3], layer_decay=[0.8])
    axes["sweep"]["grid"]["optim.epochs"] = [9, 2, 5]
    again = {"name": "again", "from": "grid", "override": {"seed": 1}}
    if mode == "max":
        return job(axes, again)
    task = {"kind": "pretrain", "dataset": "digits-pretrain", "mask_patch": 4, "normalize": "half",
            "augment": {"flip": 0}}  # fmt: skip
    axes["per"] = []
    for path in ("task.dataset", "backbone.init"):
        del axes["sweep"]["grid"][path]
    model = {"model": "vit_tiny_patch16_224", "image_size": 16, "args": {"patch_size": 4}}
    return job(axes, again, trial={**BASE, "task": task, "backbone": model})


@pytest.mark.parametrize(("mode", "value"), [("max", -1e6), ("max", 0.0), ("min", 1e6), ("min", 0.0)])
def test_a_forecast_never_wins_over_a_recorded_result(mode: str, value: float) -> None:
    """One trial has a result, however bad: it is the winner until another has a better one, so its length counts."""
    spec = lengths(mode=mode)
    long, short, middle = Planner(spec, DurationModel()).placed
    assert spec.stages[0].name == "grid"
    assert long.spec.task.mode == mode
    second = {each.spec.optim.epochs: each.seconds for each in (long, short, middle)}
    recorded = TrialSnapshot(TrialState.done, figures={short.spec.task.metric: value})
    found = cost_of(spec, {short.key: recorded})
    assert [row.cpu_hours * 3600 for row in found.stages] == pytest.approx([second[9] + second[5], second[2]])
    nothing_recorded = cost_of(spec, {})
    assert nothing_recorded.stages[1].cpu_hours * 3600 == pytest.approx(second[9]), "the first stands for the winner"


def test_the_forecast_of_a_diverged_group_follows_what_is_left() -> None:
    spec = lengths(mode="max")
    long, short, middle = Planner(spec, DurationModel()).placed
    known = {long.key: TrialSnapshot(TrialState.diverged)}
    found = cost_of(spec, known)
    assert found.stages[1].cpu_hours * 3600 == pytest.approx(short.seconds)
    assert found.cpu_hours * 3600 == pytest.approx(2 * short.seconds + middle.seconds)
