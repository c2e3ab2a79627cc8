"""Gives a job's trials the digests of the data they are planned for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from orchestrator.errors import Conflict, NotFound
from orchestrator.settings import Settings
from orchestrator.spec.job import JobSpec, Stage
from orchestrator.spec.sweep import Grid, points
from orchestrator.spec.trial_fields import apply
from orchestrator.store.store import Store
from tasks import task_class
from tasks.datasets.manifest import FOLDER
from tasks.errors import DataError

Fields: TypeAlias = dict[str, Any]
"""A task as it is written."""
FIELD = "manifests"
"""Field of a task that takes digests by the name of the split."""


@dataclass(frozen=True)
class _StageTasks:
    """The tasks of a stage's trials, each once."""

    changed: list[Fields]
    """Made from the stage's base by setting single fields."""
    whole: list[Fields]
    """Values of an axis that sets the whole task."""


def with_manifests(job: JobSpec, where: Settings) -> JobSpec:
    """The job as it is planned: its trials name the digest of their data's split manifest, which so enters their keys.

    Data that are not here have no digest. A manifest that is not written yet is made from the data set's lists and
    written below the data root, or else below our own folder: a minute for ImageNet, seconds for all others, once. The
    job's id is that of the job without. Raises NotFound for data whose lists are damaged.
    """
    stages = _tasks(job)
    digests = _digests((fields for tasks in stages.values() for fields in (*tasks.changed, *tasks.whole)), where)
    if not digests:
        return job
    planned = [_with_digests(stage, stages[stage.name], digests) for stage in job.stages]
    return job.model_copy(update={"stages": planned})


def _tasks(job: JobSpec) -> dict[str, _StageTasks]:
    """By stage. A stage with `from` has those that any trial of its sources may become as a winner."""
    found: dict[str, _StageTasks] = {}
    for stage in job.stages:
        sources = [found[name] for name in stage.from_]
        bases = [fields for source in sources for fields in (*source.changed, *source.whole)]
        changed: list[Fields] = []
        whole: list[Fields] = []
        for base in bases or [job.trial.get("task", {})]:
            for point in points(stage.sweep):
                fields = apply(apply({"task": base}, _of_task(stage.override)), _of_task(point))["task"]
                (whole if "task" in point else changed).append(fields)
        found[stage.name] = _StageTasks(_distinct(changed), _distinct(whole))
    return found


def _of_task(settings: Mapping[str, Any]) -> Fields:
    return {path: value for path, value in settings.items() if path.partition(".")[0] == "task"}


def _distinct(tasks: Iterable[Fields]) -> list[Fields]:
    return list({json.dumps(fields, sort_keys=True): fields for fields in tasks}.values())


def _digests(tasks: Iterable[Fields], where: Settings) -> dict[str, str]:
    """Of all splits that the tasks use, by the name of the split."""
    digests: dict[str, str] = {}
    for fields in tasks:
        task = task_class(fields["kind"]).model_validate(fields)
        names = task.manifest_names
        if names and digests.keys() >= set(names):
            continue
        try:
            digests.update(task.data_manifests(where.data_root, [where.folder / FOLDER]))
        except DataError as error:
            raise NotFound(str(error)) from error
    return digests


def _with_digests(stage: Stage, tasks: _StageTasks, digests: dict[str, str]) -> Stage:
    """The stage with the digests in every task that takes them; each keeps its own data's (see `Task.manifests`)."""
    changes: dict[str, Any] = {}
    if tasks.whole and isinstance(stage.sweep, Grid):
        grids = [{path: _in_whole_tasks(axis, digests) if path == "task" else axis for path, axis in axes.items()}
                 for axes in stage.sweep.grid]  # fmt: skip
        changes["sweep"] = stage.sweep.model_copy(update={"grid": grids})
    if any(map(_takes_digests, tasks.changed)):
        changes["override"] = {**stage.override, f"task.{FIELD}": digests}
    return stage.model_copy(update=changes)


def _takes_digests(fields: Mapping[str, Any]) -> bool:
    return FIELD in task_class(fields["kind"]).model_fields


def _in_whole_tasks(axis: Any, digests: dict[str, str]) -> Any:
    return [{**fields, FIELD: digests} if _takes_digests(fields) else fields for fields in axis]


def check_unchanged(store: Store, identity: str, job: JobSpec) -> None:
    """Raises Conflict if a job that ran before would continue on other data: where a split is another one now.

    `job`: as `with_manifests` gave it. One recorded trial of each group is compared.
    """
    now: dict[str, str] = {}
    for stage in job.stages:
        now.update(stage.override.get(f"task.{FIELD}", {}))
    seen: set[tuple[str, str]] = set()
    for row in store.trials.placed(identity) if now else ():
        if (row.stage, row.group) in seen:
            continue
        seen.add((row.stage, row.group))
        for cut, was in store.trials.get(row.key).spec["task"].get(FIELD, {}).items():
            if now.get(cut, was) != was:
                raise Conflict(
                    f"{identity} ran on other data: the split {cut} had SHA-256 {was}, what is here has {now[cut]}. "
                    f"Look at it with `data check {cut.partition('/')[0]}`; to run on the data as they are now, give "
                    "the job another name"
                )
