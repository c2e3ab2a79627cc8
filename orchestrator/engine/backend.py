"""The interface between the driver and the backend that runs its trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from orchestrator.plan.trials import PlannedTrial
from orchestrator.records.states import TrialSnapshot
from orchestrator.records.trial_files import stored_file, trial_folder
from orchestrator.spec.job import Resources
from workers.errors import ErrorClass
from workers.messages import Assignment, Failure, TrialUpdate, Weights
from workers.plugin_code import PluginCode


class Backend(Protocol):
    """Runs trials: orchestrator.engine.ray_backend.RayBackend on Ray; in tests a backend without Ray.

    A worker handle has `key` and `token` of its trial (empty when idle). A worker update has the `worker`, its
    `update` (TrialUpdate, None if the process died), and the `reason` of a death.
    """

    def slots(self, resources: Resources) -> int:
        """How many trials of these resources the empty cluster holds."""

    def running(self) -> Sequence[Any]:
        """Handles of this driver's workers that have a trial."""

    def has_room(self, resources: Resources) -> bool:
        """True if a trial of these resources can start now."""

    def start(self, assignment: Assignment, resources: Resources) -> Any:
        """Starts a trial on an idle or a new worker; returns the worker's handle."""

    def poll(self, timeout_s: float) -> Sequence[Any]:
        """Waits for updates of this driver's workers and returns them."""

    def acknowledge(self, update: TrialUpdate, worker: Any) -> None:
        """Lets the worker drop these events; after the end of its trial it is idle."""

    def stop(self, worker: Any) -> None:
        """Asks the worker's trial to write a checkpoint and stop, unless another driver has taken the worker over."""

    def retire(self, worker: Any) -> None:
        """Ends the worker's process, unless another driver has taken it over."""

    def close(self) -> None:
        """Ends the idle workers."""

    def foreign_actors(self, wait_s: float) -> Sequence[Any]:
        """Updates of the cluster's workers that belong to other drivers; those that answer within `wait_s` seconds."""

    def adopt(self, answer: Any) -> None:
        """Makes the worker of this update, with its running trial, this driver's."""

    def reuse_idle(self, answer: Any) -> None:
        """Makes the idle worker of this update this driver's."""


@dataclass(frozen=True)
class RunSite:
    """Where a driver's trials keep their files and read their data, and which cluster they run on."""

    storage: Path
    """Folder of the trials' files."""
    data_root: Path
    cluster: str
    """Address of the cluster, or `local:FOLDER`; drivers with the same one share its slots."""
    plugins: tuple[PluginCode, ...] = ()
    """Of the job; they are sent with every trial."""


def assignment_of(
    planned: PlannedTrial, token: int, resources: Resources, parents: Mapping[str, TrialSnapshot], site: RunSite
) -> Assignment:
    """What a worker is told of a trial. `parents`: by their keys, the trials whose weights it starts from."""
    hours = resources.time_limit_hours
    return Assignment(
        trial=planned.spec,
        name=f"{planned.name} {planned.key[:8]}",
        token=token,
        folder=str(trial_folder(site.storage, planned.key)),
        data_root=str(site.data_root),
        parents={
            key: Weights(str(stored_file(site.storage, parent.weights[0])), parent.weights[1])
            for key, parent in parents.items()
            if parent.weights
        },
        cpus=resources.cpus,
        gpus=resources.gpus,
        workers=resources.workers,
        keep_weights=planned.keep_weights,
        time_limit_s=hours * 3600 if hours else None,
        plugins=site.plugins,
    )


def is_broken(update: TrialUpdate) -> bool:
    """True if the worker's process must be replaced: a failed trial may have left it in any state."""
    return any(isinstance(event, Failure) and event.error_class is not ErrorClass.diverged for event in update.events)
