"""The K12 protocol as small jobs for tests of the planner, and figures that are made up instead of trained."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.plan.state import Decision
from orchestrator.plan.trials import PlannedTrial
from orchestrator.records.states import TrialSnapshot, TrialState
from orchestrator.spec.job import JobSpec
from workers.trial import TrialSpec

RAND = {"kind": "none", "name": "RAND"}

SUP = {"kind": "stage", "name": "SUP", "stage": "pretrain"}

LRS = [1.25e-4, 2.64e-4, 5.59e-4, 1.18e-3, 2.5e-3]

DECAYS = [0.75, 0.85, 0.95]

BASE = {
    "task": {"kind": "classify", "dataset": "digits"},
    "backbone": {"model": "vit_tiny_patch16_224", "image_size": 32},
    "optim": {"lr": 1e-3, "epochs": 4, "warmup_epochs": 1, "batch": 64},
}

PRETRAIN = {"name": "pretrain", "override": {"task.dataset": "digits-pretrain"}}

NEAR = {
    "optim.lr": {"multiply": [0.7, 1.4]},
    "optim.layer_decay": {"add": [-0.05, 0.05]},
    "backbone.drop_path": {"add": [0.1, 0.2]},
}

REFINE = {"name": "refine", "from": "grid", "neighbourhood": {"near": NEAR}}

FINAL = {
    "name": "final",
    "from": ["grid", "refine"],
    "override": {"task.train": "trainval", "task.evaluate": "test"},
}


def grid(**axes: list[Any]) -> dict[str, Any]:
    """The grid stage over digits and faces; `dataset`, `init`, `lr` and `layer_decay` replace its axes."""
    values = {"dataset": ["digits", "faces"], "init": [RAND, SUP], "lr": LRS, "layer_decay": DECAYS, **axes}
    paths = {
        "dataset": "task.dataset", "init": "backbone.init", "lr": "optim.lr", "layer_decay": "optim.layer_decay",
    }  # fmt: skip
    swept = {paths[name]: chosen for name, chosen in values.items()}
    return {"name": "grid", "per": ["task.dataset", "backbone.init"], "sweep": {"grid": swept}}


def job(*stages: dict[str, Any], **fields: Any) -> JobSpec:
    """A job of these stages; the whole protocol without any."""
    return JobSpec.model_validate(
        {"name": "k12", "trial": BASE, "stages": list(stages) or [PRETRAIN, grid(), REFINE, FINAL], **fields}
    )


def figures(spec: TrialSpec) -> dict[str, float]:
    """Made up: best at lr 6e-4, layer decay 0.87 and drop path 0.1, a little better from SUP; some seeds are lucky."""
    lost = abs(math.log(spec.optim.lr / 6e-4)) + abs(spec.optim.layer_decay - 0.87) + abs(spec.backbone.drop_path - 0.1)
    value = 90 - lost + (spec.backbone.init.name == "SUP") + 7 * spec.seed % 11 / 10
    return {spec.task.metric: value, "loss": lost}


OutcomeOf = Callable[[PlannedTrial], TrialSnapshot]


def done(planned: PlannedTrial) -> TrialSnapshot:
    """The snapshot of a trial that is done."""
    weights = (f"/runs/{planned.key}", "0" * 64) if planned.keep_weights else None
    return TrialSnapshot(TrialState.done, figures=figures(planned.spec), weights=weights)


def failed(message: str = "RuntimeError: boom\n  at line 3", error_class: str = "code") -> TrialSnapshot:
    return TrialSnapshot(TrialState.failed, error_class=error_class, error=message)


def run(planner: Planner, outcome_of: OutcomeOf = done, slots: int = 4, seed: int = 0) -> list[PlannedTrial]:
    """Runs the planner to its end, `slots` trials at once, which end in a random order; returns all, as started."""
    order = random.Random(seed)
    running: list[PlannedTrial] = []
    started: list[PlannedTrial] = []
    while True:
        while len(running) < slots and (planned := planner.next(lambda _: True)):
            running.append(planned)
            started.append(planned)
        if not running:
            return started
        ended = running.pop(order.randrange(len(running)))
        planner.update(ended.key, outcome_of(ended))


def tell(planner: Planner, known: Mapping[str, TrialSnapshot], order: random.Random | None = None) -> None:
    """Passes recorded snapshots to a new planner, also of the trials that it places because of them."""
    applied = 0
    while applied < len(planner.placed):
        keys = [planned.key for planned in planner.placed[applied:] if planned.key in known]
        applied = len(planner.placed)
        if order:
            order.shuffle(keys)
        for key in keys:
            planner.update(key, known[key])


def planner_of(*stages: dict[str, Any], **fields: Any) -> Planner:
    return Planner(job(*stages, **fields), DurationModel())


def take(planner: Planner, count: int) -> list[PlannedTrial]:
    """The next `count` trials, all of which must be ready."""
    taken = [planner.next(lambda _: True) for _ in range(count)]
    assert all(taken)
    return [planned for planned in taken if planned]


def names(planned: Iterable[PlannedTrial]) -> list[str]:
    return [each.name for each in planned]


DIVERGED = TrialSnapshot(TrialState.diverged, error_class="diverged", error="loss is nan")

CANCELLED = TrialSnapshot(TrialState.cancelled, error_class="cancelled")

PENDING = TrialSnapshot(TrialState.pending)

RUNNING = TrialSnapshot(TrialState.running)


def decision(planner: Planner, stage: str, group: str) -> Decision:
    (found,) = [each for each in planner.decisions if (each.stage, each.group) == (stage, group)]
    return found


def placed(planner: Planner, stage: str, group: str | None = None) -> list[PlannedTrial]:
    return [each for each in planner.placed if each.stage == stage and group in (None, each.group)]
