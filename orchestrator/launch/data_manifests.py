"""The only place that gives a job's trials the digests of the data they are planned for."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.errors import Conflict, NotFound
from orchestrator.settings import Settings
from orchestrator.spec.job import JobSpec, Stage
from orchestrator.spec.sweep import Grid
from orchestrator.store.store import Store
from tasks.datasets.labelled.card import SplitSpec
from tasks.datasets.labelled.catalog import CARDS
from tasks.datasets.labelled.partition import digest
from tasks.datasets.manifest import FOLDER
from tasks.errors import DataError

VAL_FRACTION = {"classify": 0.2, "pretrain": 0.02}
"""Kinds of tasks whose data have manifests, with the part that they hold out by default."""
_CUT: dict[str, Any] = {"val_fraction": None, "split_seed": 0, "caltech_background": True, "official_val": "val"}
"""Fields of the task that say which images are in which part, with their defaults."""


def with_manifests(job: JobSpec, where: Settings) -> JobSpec:
    """The job as it is planned: its trials name the digest of their data's split manifest, which so enters their keys.

    Of data that are not here nothing is named. A manifest that is not written yet is made from the data set's lists, of
    every data set that the job names, and written below the data root, or else below our own folder: a minute for
    ImageNet, seconds for all others, once. The job's id is that of the job without. Raises NotFound for data whose
    lists are damaged.
    """
    kinds = [_kind(stage, job) for stage in job.stages]
    digests = _digests(job, where, [VAL_FRACTION[kind] for kind in kinds if kind in VAL_FRACTION])
    if not digests:
        return job
    stages = [_told(stage, kind, digests) for stage, kind in zip(job.stages, kinds, strict=True)]
    return job.model_copy(update={"stages": stages})


def _digests(job: JobSpec, where: Settings, held_out: list[float]) -> dict[str, str]:
    """Of every data set and every cut of it that the job may ask for. `held_out`: what its tasks hold out by default
    (none: no task of it has manifests)."""
    content = job.model_dump(mode="json", by_alias=True)
    wanted = [name for name in _values(content, "dataset") if isinstance(name, str) and name in CARDS]
    fields = {name: dict.fromkeys([default, *_values(content, name)]) for name, default in _CUT.items()}
    fields["val_fraction"] = dict.fromkeys([*held_out, *_values(content, "val_fraction")] if held_out else [])
    found: dict[str, str] = {}
    for name in dict.fromkeys(wanted):
        for values in itertools.product(*fields.values()):
            cut = SplitSpec(name, **dict(zip(fields, values, strict=True)))
            if not _possible(cut) or cut.name(CARDS[name]) in found:
                continue
            try:
                known = digest(CARDS[name], where.data_root, cut, [where.folder / FOLDER])
            except DataError as error:
                raise NotFound(str(error)) from error
            if known:
                found[cut.name(CARDS[name])] = known
    return found


def _possible(cut: SplitSpec) -> bool:
    """Whether the task takes these together, so that one option of one data set asks nothing of the others."""
    card = CARDS[cut.dataset]
    fits = cut.official_val == "val" or (card.source == "folder" and not card.test)
    return fits and (cut.caltech_background or bool(card.background))


def _values(content: Any, field: str) -> Iterator[Any]:
    """Whatever a task's field is set to anywhere in the job: in the base trial, by overrides, by sweeps."""
    if isinstance(content, list):
        for inner in content:
            yield from _values(inner, field)
    elif isinstance(content, dict):
        for name, value in content.items():
            if name == field or name.endswith(f".{field}"):
                yield from value if isinstance(value, list) else [value]
            else:
                yield from _values(value, field)


def _kind(stage: Stage, job: JobSpec) -> str:
    """The kind of the stage's task: its own, that of the stage it takes winners from, or the base trial's."""
    whole = stage.override.get("task")
    if isinstance(whole, Mapping) and "kind" in whole:
        return str(whole["kind"])
    if "task.kind" in stage.override:
        return str(stage.override["task.kind"])
    for source in job.stages:
        if source.name in stage.from_ and source is not stage:
            return _kind(source, job)
    return str(job.trial.get("task", {}).get("kind", ""))


def _told(stage: Stage, kind: str, digests: dict[str, str]) -> Stage:
    changes: dict[str, Any] = {}
    if isinstance(stage.sweep, Grid) and any("task" in axes for axes in stage.sweep.grid):
        grids = [{path: _whole(values, digests) if path == "task" else values for path, values in axes.items()}
                 for axes in stage.sweep.grid]  # fmt: skip
        changes["sweep"] = stage.sweep.model_copy(update={"grid": grids})
    if kind in VAL_FRACTION:
        changes["override"] = {**stage.override, "task.manifests": digests}
    return stage.model_copy(update=changes)


def _whole(values: Any, digests: dict[str, str]) -> Any:
    """The values of an axis that sets the whole task."""
    if not isinstance(values, list):
        return values
    return [
        {**value, "manifests": digests} if isinstance(value, Mapping) and value.get("kind") in VAL_FRACTION else value
        for value in values
    ]


def check_unchanged(store: Store, identity: str, job: JobSpec) -> None:
    """A job that ran before goes on with the same data: raises Conflict where a split is another one now.

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
        for cut, was in store.trials.get(row.key).spec["task"].get("manifests", {}).items():
            if now.get(cut, was) != was:
                raise Conflict(
                    f"{identity} ran on other data: the split {cut} had SHA-256 {was}, what is here has {now[cut]}. "
                    f"Look at it with `data check {cut.partition('/')[0]}`; to run on the data as they are now, give "
                    "the job another name"
                )
