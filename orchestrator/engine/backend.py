"""The only place that says what a driver drives with: whatever runs trials, and where they keep and read things."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from orchestrator.spec.job import Resources
from workers.errors import ErrorClass
from workers.messages import Assignment, Failure, TrialUpdate


class Backend(Protocol):
    """What runs trials: orchestrator.engine.ray_backend.Pool on Ray; a fake without Ray in tests."""

    def slots(self, resources: Resources) -> int: ...
    def running(self) -> Sequence[Any]: ...
    def has_room(self, resources: Resources) -> bool: ...
    def start(self, assignment: Assignment, resources: Resources) -> Any: ...
    def poll(self, timeout_s: float) -> Sequence[Any]: ...
    def acknowledge(self, news: TrialUpdate, worker: Any) -> None: ...
    def stop(self, worker: Any) -> None: ...
    def retire(self, worker: Any) -> None: ...
    def close(self) -> None: ...
    def foreign_actors(self, wait_s: float) -> Sequence[Any]: ...
    def adopt(self, heard: Any) -> None: ...
    def reuse_idle(self, heard: Any) -> None: ...


@dataclass(frozen=True)
class RunSite:
    """Where a driver's trials keep their files and read their data, and which cluster they run on."""

    storage: Path
    data_root: Path
    cluster: str


def broken(news: TrialUpdate) -> bool:
    """Whether the actor is to be replaced: nothing of a failed trial stays in the next one's process."""
    return any(isinstance(event, Failure) and event.error_class is not ErrorClass.diverged for event in news.events)
