"""The only place that estimates how long a trial takes: from recorded step times, else from a stated guess."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.records.states import TrialSnapshot
from orchestrator.spec.job import Resources
from tasks.backbones.spec import BackboneSpec
from workers.trial import TrialSpec

EVALUATION_SHARE = 1 / 3
"""Cost of evaluating an image against training on it: the forward pass of one forward and one backward, where the
backward pass is taken as twice the forward (a guess; the recorded step time covers training only)."""


@dataclass(frozen=True)
class Estimate:
    """Seconds of a trial, and whether they come from recorded step times."""

    seconds: float
    measured: bool


class DurationModel:
    """Step times of earlier trials by what sets them: task, backbone, image size, batch, workers and kind of device."""

    def __init__(self, recorded: Iterable[tuple[TrialSpec, TrialSnapshot]] = ()) -> None:
        self._steps: dict[tuple[object, ...], list[float]] = {}
        self._parameters: dict[str, int] = {}
        self._built: set[tuple[str, str]] = set()
        self._medians: dict[tuple[object, ...], float] = {}
        for spec, known in recorded:
            self.record(spec, known)

    def record(self, spec: TrialSpec, known: TrialSnapshot) -> None:
        """Takes the step time (seconds per optimizer step, data included) of a trial that ran; no-op without one."""
        parameters = known.facts.get("parameters")
        if isinstance(parameters, int):
            self._parameters[architecture(spec.backbone)] = parameters
            self._built.add((spec.task.kind, architecture(spec.backbone)))
        if known.step_seconds is None or known.step_seconds <= 0:
            return
        on_gpu = not str(known.facts.get("device", "cpu")).startswith("cpu")
        kind = _kind(spec, int(known.facts.get("workers", 1)), on_gpu)
        self._steps.setdefault(kind, []).append(known.step_seconds)
        self._medians.pop(kind, None)

    def estimate(self, spec: TrialSpec, resources: Resources) -> Estimate:
        """Seconds that `spec` takes in whole on `resources`: training and its evaluations, start-up not counted.

        Measured: the median step time of trials of the same kind. Else `resources.images_per_second` of each worker.
        """
        optim, task, epochs = spec.optim, spec.task, spec.last_epoch - spec.first_epoch
        evaluated = task.evaluation_samples * _evaluations(spec) * EVALUATION_SHARE
        step = self._median(_kind(spec, resources.workers, resources.gpus > 0))
        if step is not None:
            steps = epochs * max(1, task.train_samples // optim.batch)
            return Estimate(step * (steps + evaluated / optim.batch), True)
        images = epochs * task.train_samples + evaluated
        return Estimate(images / (resources.images_per_second * resources.workers), False)

    def parameters(self, spec: TrialSpec) -> int | None:
        """Parameters of a trial with this backbone, where one was recorded."""
        return self._parameters.get(architecture(spec.backbone))

    def built(self, spec: TrialSpec) -> bool:
        """Whether a trial of this kind of task with this backbone came so far as to have a model."""
        return (spec.task.kind, architecture(spec.backbone)) in self._built

    def _median(self, kind: tuple[object, ...]) -> float | None:
        if kind not in self._steps:
            return None
        if kind not in self._medians:
            self._medians[kind] = statistics.median(self._steps[kind])
        return self._medians[kind]


def _evaluations(spec: TrialSpec) -> int:
    """How often a trial evaluates: every `evaluate_every` epochs and after the last; on test once."""
    if spec.task.reads_test:
        return 1
    return -(-(spec.last_epoch - spec.first_epoch) // spec.runtime.evaluate_every)


def architecture(backbone: BackboneSpec) -> str:
    """What decides a backbone's size and speed, as text: model, arguments, image size."""
    return json.dumps([backbone.model, backbone.args, backbone.image_size], sort_keys=True)


def _kind(spec: TrialSpec, workers: int, on_gpu: bool) -> tuple[object, ...]:
    return (type(spec.task).__name__, architecture(spec.backbone), spec.optim.batch, workers, on_gpu)
