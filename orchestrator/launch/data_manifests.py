"""Gives a job's trials the digests of the data they are planned for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import ValidationError

from orchestrator.errors import Conflict, NotFound, SpecError
from orchestrator.settings import Settings
from orchestrator.spec.job import JobSpec, Stage
from orchestrator.spec.sweep import Grid, points
from orchestrator.spec.trial_fields import apply
from orchestrator.store.store import Store
from tasks import task_class
from tasks.base import Task
from tasks.datasets import DATASETS
from tasks.datasets.manifest import FOLDER
from tasks.errors import DataError

Fields: TypeAlias = dict[str, Any]
"""A task as it is written."""
Entries: TypeAlias = dict[str, dict[str, Any]]
"""Field of a task that planning fills in -> name of a split -> value; `manifests` has the digests."""


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
    job's id is that of the job without. Raises NotFound for data whose lists are damaged and for described data that
    are missing; SpecError where two data sets have one name, or a part that a trial wants does not exist.
    """
    stages = _tasks(job)
    written = _distinct(fields for tasks in stages.values() for fields in (*tasks.changed, *tasks.whole))
    tasks = [task_class(fields["kind"]).model_validate(fields) for fields in written]
    _check_names(tasks)
    entries = _entries(tasks, where)
    if not entries:
        return job
    _check_with(entries, written)
    planned = [_with_entries(stage, stages[stage.name], entries) for stage in job.stages]
    return job.model_copy(update={"stages": planned})


def _tasks(job: JobSpec) -> dict[str, _StageTasks]:
    """By stage. A stage with `from` has those that any trial of its sources may become as a winner."""
    by_stage: dict[str, _StageTasks] = {}
    for stage in job.stages:
        sources = [by_stage[name] for name in stage.from_]
        bases = [fields for source in sources for fields in (*source.changed, *source.whole)]
        settings = _distinct(_of_task(point) for point in points(stage.sweep))
        changed: list[Fields] = []
        whole: list[Fields] = []
        for base in bases or [job.trial.get("task", {})]:
            start = apply({"task": base}, _of_task(stage.override))
            for setting in settings:
                (whole if "task" in setting else changed).append(apply(start, setting)["task"])
        by_stage[stage.name] = _StageTasks(_distinct(changed), _distinct(whole))
    return by_stage


def _of_task(settings: Mapping[str, Any]) -> Fields:
    return {path: value for path, value in settings.items() if path.partition(".")[0] == "task"}


def _distinct(items: Iterable[Fields]) -> list[Fields]:
    return list({json.dumps(fields, sort_keys=True): fields for fields in items}.values())


def _check_names(tasks: Iterable[Task]) -> None:
    """A table has one column for each name, so that data sets in one job need different names."""
    by_name: dict[str, Any] = {}
    for task in tasks:
        for field in task.data_fields:
            value: Any = getattr(task, field, None)
            name = value if isinstance(value, str) else getattr(value, "name", None)
            if name is None or by_name.setdefault(name, value) == value:
                continue
            described = by_name[name] if isinstance(value, str) else value
            raise SpecError([f"task.{field}: two data sets are called {name}; give {described.path} another `name`"])


def _entries(tasks: Iterable[Task], where: Settings) -> Entries:
    """Of all splits that the tasks use."""
    entries: Entries = {}
    for task in tasks:
        names = task.manifest_names
        if names and entries.get("manifests", {}).keys() >= set(names):
            continue
        try:
            fields = task.planned_fields(where.data_root, [where.folder / FOLDER])
        except DataError as error:
            raise NotFound(str(error)) from error
        for field, values in fields.items():
            entries.setdefault(field, {}).update(values)
    return entries


def _check_with(entries: Entries, tasks: Iterable[Fields]) -> None:
    """Raises SpecError for a task that the data rule out: one that evaluates on test where there are no test images."""
    for fields in tasks:
        try:
            task_class(fields["kind"]).model_validate({**fields, **_taken(fields, entries)})
        except ValidationError as error:
            problems = [each["msg"].removeprefix("Value error, ") for each in error.errors()]
            raise SpecError([f"task: {problem}" for problem in problems]) from error


def _taken(fields: Mapping[str, Any], entries: Entries) -> Entries:
    """Those that a task of this kind has fields for."""
    known = task_class(fields["kind"]).model_fields
    return {field: values for field, values in entries.items() if field in known}


def _with_entries(stage: Stage, tasks: _StageTasks, entries: Entries) -> Stage:
    """The stage with the entries in every task that takes them; each task keeps those of its own data."""
    changes: dict[str, Any] = {}
    if tasks.whole and isinstance(stage.sweep, Grid):
        grids = [{path: _in_whole_tasks(axis, entries) if path == "task" else axis for path, axis in axes.items()}
                 for axes in stage.sweep.grid]  # fmt: skip
        changes["sweep"] = stage.sweep.model_copy(update={"grid": grids})
    taken: Entries = {}
    for fields in tasks.changed:
        taken |= _taken(fields, entries)
    if taken:
        changes["override"] = {**stage.override, **{f"task.{field}": values for field, values in taken.items()}}
    return stage.model_copy(update=changes)


def _in_whole_tasks(axis: Any, entries: Entries) -> Any:
    return [{**fields, **_taken(fields, entries)} for fields in axis]


def check_unchanged(store: Store, identity: str, job: JobSpec) -> None:
    """Raises Conflict if a job that ran before would continue on other data: where a split is another one now.

    `job`: as `with_manifests` gave it. One recorded trial of each group is compared.
    """
    now: dict[str, str] = {}
    for stage in job.stages:
        now.update(stage.override.get("task.manifests", {}))
    seen: set[tuple[str, str]] = set()
    for row in store.trials.placed(identity) if now else ():
        if (row.stage, row.group) in seen:
            continue
        seen.add((row.stage, row.group))
        for split, before in store.trials.get(row.key).spec["task"].get("manifests", {}).items():
            if now.get(split, before) != before:
                name = split.partition("/")[0]
                hint = f"Look at it with `data check {name}`; to" if name in DATASETS else _OF_OWN_DATA
                raise Conflict(
                    f"{identity} ran on other data: the split {split} had SHA-256 {before}, what is here has "
                    f"{now[split]}. {hint} run on the data as they are now, give the job another name"
                )


_OF_OWN_DATA = (
    "(Manifests of your own data have held the bytes of files since 27 November 2026, and not names alone.) To"
)
