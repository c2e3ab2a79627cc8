"""Estimates how long a trial takes: from recorded step times, else from the spec's guess."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.records.states import TrialSnapshot
from orchestrator.spec.job import Resources
from orchestrator.spec.trial_fields import steps_per_epoch
from tasks.backbones.spec import BackboneSpec
from workers.rounds import Rounds
from workers.trial import TrialSpec

EVALUATION_SHARE = 1 / 3
"""Cost of evaluating an image relative to training on it: a forward pass alone, if a backward pass costs two forward
passes (a guess; recorded step times cover training only)."""


@dataclass(frozen=True)
class Estimate:
    """Seconds of a trial; `measured` is True if they come from recorded step times."""

    seconds: float
    measured: bool


class DurationModel:
    """Step times of earlier trials by task, backbone, image size, batch, workers and kind of device."""

    def __init__(self, recorded: Iterable[tuple[TrialSpec, TrialSnapshot]] = ()) -> None:
        self._steps: dict[tuple[object, ...], list[float]] = {}
        self._parameters: dict[str, int] = {}
        self._medians: dict[tuple[object, ...], float] = {}
        for spec, snapshot in recorded:
            self.record(spec, snapshot)

    def record(self, spec: TrialSpec, snapshot: TrialSnapshot) -> None:
        """Adds the recorded parameter count and seconds per optimizer step (data loading included) of a trial."""
        parameters = snapshot.facts.get("parameters")
        if isinstance(parameters, int):
            self._parameters[model_id(spec)] = parameters
        if snapshot.step_seconds is None or snapshot.step_seconds <= 0:
            return
        on_gpu = not str(snapshot.facts.get("device", "cpu")).startswith("cpu")
        kind = _kind(spec, int(snapshot.facts.get("workers", 1)), on_gpu)
        self._steps.setdefault(kind, []).append(snapshot.step_seconds)
        self._medians.pop(kind, None)

    def estimate(self, spec: TrialSpec, resources: Resources) -> Estimate:
        """Seconds that `spec` takes in whole on `resources`: training and its evaluations, start-up not counted.

        Measured: the median step time of trials of the same kind. Else `resources.images_per_second` of each worker.
        """
        batch = spec.optim.batch
        forward_only = spec.task.trains_head_alone
        models = 2 if spec.trains and spec.optim.ema else 1
        evaluated = models * (spec.task.evaluation_samples + spec.task.reference_samples) * _evaluations(spec)
        step = self._median(_kind(spec, resources.workers, resources.gpus > 0))
        if step is not None:
            return Estimate(step * (_steps(spec) + evaluated * (1 if forward_only else EVALUATION_SHARE) / batch), True)
        samples = _trained_samples(spec) * (EVALUATION_SHARE if forward_only else 1) + evaluated * EVALUATION_SHARE
        return Estimate(samples / (resources.images_per_second * resources.workers), False)

    def parameters(self, spec: TrialSpec) -> int | None:
        """The number of parameters that trials with this model recorded; None if none has built it."""
        return self._parameters.get(model_id(spec))

    def _median(self, kind: tuple[object, ...]) -> float | None:
        if kind not in self._steps:
            return None
        if kind not in self._medians:
            self._medians[kind] = statistics.median(self._steps[kind])
        return self._medians[kind]


def _steps(spec: TrialSpec) -> int:
    """Optimizer steps of a trial: those of its own span."""
    rounds = Rounds.of(spec, steps_per_epoch(spec))
    return rounds.first_step(spec.last_round) - rounds.first_step(spec.first_round)


def _trained_samples(spec: TrialSpec) -> float:
    """Samples that a trial trains on; where its length is in epochs, whole ones, with their last partial batch."""
    if not spec.trains:
        return 0
    if spec.optim.iterations is not None:
        return _steps(spec) * spec.optim.batch
    return (spec.last_round - spec.first_round) * spec.task.train_samples


def _evaluations(spec: TrialSpec) -> int:
    """How many times a trial evaluates: every `evaluate_every` rounds and after the last; on test once."""
    if spec.task.reads_test:
        return 1
    return -(-(spec.last_round - spec.first_round) // spec.runtime.evaluate_every)


def model_id(spec: TrialSpec) -> str:
    """The fields that decide the size of a trial's model, as text: those of its backbone, and the task's options."""
    return json.dumps([spec.task.kind, spec.task.model_options, architecture(spec.backbone)], sort_keys=True)


def architecture(backbone: BackboneSpec) -> str:
    """The fields that decide a backbone's size and speed, as text: model, arguments, image size, blocks dropped."""
    return json.dumps([backbone.model, backbone.args, backbone.image_size, backbone.drop_last], sort_keys=True)


def _kind(spec: TrialSpec, workers: int, on_gpu: bool) -> tuple[object, ...]:
    trained = (spec.task.trains_head_alone, spec.backbone.freeze.model_dump_json())
    return (type(spec.task).__name__, architecture(spec.backbone), *trained, spec.optim.batch, workers, on_gpu)
