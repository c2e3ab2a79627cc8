"""Finds what a user names: a job, a trial, or a group, by the names that tables, MLflow and logs show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from orchestrator.errors import NotFound

if TYPE_CHECKING:
    from orchestrator.store.store import Store


@dataclass(frozen=True)
class Named:
    """What a name stands for."""

    kind: Literal["job", "trial", "group"]
    job: str = ""
    """Id of the job, or of that of the group."""
    key: str = ""
    """Of the trial."""
    group: str = ""
    """stage/group"""


def named(store: Store, name: str) -> Named:
    """A job (its name, or the start of its id), else a trial (its name, or the start of its key), else a group
    (stage/group, as MLflow shows it, in the newest job that has it). Raises NotFound, Conflict."""
    try:
        return Named("job", job=store.jobs.find(name))
    except NotFound:
        pass
    try:
        return Named("trial", key=store.trials.find(name))
    except NotFound:
        if "/" not in name:
            raise
    job, stage, group = store.progress.find_group(name)
    return Named("group", job=job, group=f"{stage}/{group}")
