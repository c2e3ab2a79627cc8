"""Says before a job runs what it lacks on this machine, and what its tables will be noted for: a line each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.spec.job import JobSpec
from orchestrator.spec.sweep import points
from orchestrator.spec.trial_fields import apply
from tasks import task_class
from tasks.backbones.preprocessing import differences_of_stage
from tasks.backbones.spec import BackboneSpec, FromFile, FromStage, FromTimm, Init, inits
from tasks.base import Task

_PARTS = ("task", "backbone", "optim.epochs")
"""Sections and fields of a trial that the lines depend on."""


@dataclass(frozen=True)
class _Kind:
    """A task with a backbone, which some trials of the job have."""

    task: Task
    backbone: BackboneSpec
    trains: bool


def missing(job: JobSpec, root: Path) -> list[str]:
    """Data sets and weights that trials of the job need and that are not on this machine, each with the remedy. Looks
    whether files are there; their content is looked at when the job is submitted. `root`: the data root.
    """
    kinds = _kinds(job)
    sources = [init for kind in kinds for _, init in [*inits(kind.task), *inits(kind.backbone)]]
    weights = {init.model_dump_json(): init for init in sources}.values()
    answers = [*(kind.task.missing_data(root) for kind in kinds), *(_missing_weights(init, root) for init in weights)]
    return list(dict.fromkeys(" ".join(answer.split()) for answer in answers if answer))


def _missing_weights(init: Init, root: Path) -> str | None:
    if isinstance(init, FromTimm):
        from tasks.backbones.timm_hub import uncached

        return uncached(init)
    if isinstance(init, FromFile) and (init.sha256 is None or not init.local(root).is_file()):
        return init.missing(root)
    return None


def caveats(job: JobSpec) -> list[str]:
    """What figures of the job's trials will be noted for in its tables."""
    others = [line for kind in _kinds(job) for line in kind.task.all_caveats(kind.backbone)]
    return list(dict.fromkeys([*others, *_preprocessing_caveats(job), *training_caveats(job)]))


def _preprocessing_caveats(job: JobSpec) -> list[str]:
    """Weights of a stage that were trained on images of another mean or deviation than those they are used on."""
    by_stage = _by_stage(job)
    found = []
    for kinds in by_stage.values():
        for kind in kinds:
            init = kind.backbone.init
            if isinstance(init, FromStage) and init.job is None:
                trained = [each.task.prepares for each in by_stage.get(init.stage, [])]
                found += differences_of_stage(init, trained, kind.task.prepares)
    return found


def training_caveats(job: JobSpec) -> list[str]:
    """Those of them that say that a model can hardly learn: quick, since timm is not asked about its weights."""
    trained = [kind for kind in _kinds(job) if kind.trains]
    return list(dict.fromkeys(line for kind in trained for line in kind.task.training_caveats(kind.backbone)))


def _kinds(job: JobSpec) -> list[_Kind]:
    """Each task with each backbone that trials of the job may have, once."""
    return list({id(kind): kind for kinds in _by_stage(job).values() for kind in kinds}.values())


def _by_stage(job: JobSpec) -> dict[str, list[_Kind]]:
    """Those of each stage; what several stages have is one object. A stage with `from` has those that any trial of its
    sources may become as a winner."""
    by_stage: dict[str, list[dict[str, Any]]] = {}
    kinds: dict[str, _Kind] = {}
    for stage in job.stages:
        bases = [fields for name in stage.from_ for fields in by_stage[name]] or [_parts_of(job.trial)]
        settings = _distinct(_chosen(point) for point in points(stage.sweep))
        made = (apply(apply(base, _chosen(stage.override)), setting) for base in bases for setting in settings)
        by_stage[stage.name] = _distinct(made)
        for fields in by_stage[stage.name]:
            text = json.dumps(fields, sort_keys=True)
            if text not in kinds:
                task = task_class(fields["task"]["kind"]).model_validate(fields["task"])
                trains = task.makes_steps and fields.get("optim", {}).get("epochs") != 0
                kinds[text] = _Kind(task, BackboneSpec.model_validate(fields["backbone"]), trains)
    return {name: [kinds[json.dumps(each, sort_keys=True)] for each in made] for name, made in by_stage.items()}


def _parts_of(trial: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: trial[name] for name in ("task", "backbone") if name in trial}
    epochs = trial.get("optim", {}).get("epochs")
    return kept if epochs is None else {**kept, "optim": {"epochs": epochs}}


def _chosen(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the lines depend on."""
    return {path: value for path, value in settings.items() if f"{path}.".startswith(tuple(f"{p}." for p in _PARTS))}


def _distinct(items: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return list({json.dumps(fields, sort_keys=True): fields for fields in items}.values())
