"""What a driver knows of an actor: its name, what it holds and has imported, its trial, the call that it answers."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from orchestrator.engine.watch import AnswerWatch
from orchestrator.records.writes import Attempt
from orchestrator.spec.job import Resources
from workers.messages import Assignment, TrialUpdate


@dataclass
class ActorHandle:
    """An actor and the trial it runs, if any."""

    name: str
    handle: Any
    resources: Resources
    assignment: Assignment | None = None
    """None while idle, and for an actor that got its trial from an earlier driver."""
    key: str = ""
    token: int = 0
    settled: bool = False
    """True once it has answered; until then the cluster may still count its resources as free."""
    call: Any = None
    """The call whose answer is awaited; None while idle."""
    ended: Attempt | None = None
    """Its last one, whose end is recorded; None once the worker knows that, or has another trial."""
    unavailable_since: float | None = None
    former_owner: str = ""
    """Id of the driver from which it was, or is to be, taken over; an answer that was on its way names that one."""
    plugins: str = ""
    """Mark of the plugins that its process serves."""
    answers: AnswerWatch = field(default_factory=lambda: AnswerWatch(time.monotonic()), compare=False)

    @property
    def idle(self) -> bool:
        return self.call is None


@dataclass(frozen=True)
class WorkerUpdate:
    """The answer of a worker: an update of its trial, or None and the reason if its process died."""

    worker: ActorHandle
    update: TrialUpdate | None
    reason: str = ""


def held_by(resources: Resources) -> Resources:
    """What an actor holds: resources without speed and time limit, so that trials that differ in these share actors."""
    default = Resources()
    return resources.model_copy(
        update={"images_per_second": default.images_per_second, "time_limit_hours": default.time_limit_hours}
    )


def name_of(identity: str, plugins: str, resources: Resources) -> str:
    """The name of an actor, which says what it holds and has imported, so that the next driver knows."""
    return "|".join([identity, *([plugins] if plugins else []), resources.model_dump_json(exclude_defaults=True)])


def of_name(name: str) -> tuple[str, Resources]:
    """Plugins and resources of an actor by such a name: ID|PLUGINS|{resources}, or ID|{resources}."""
    before, _, resources = name.partition("|{")
    return before.partition("|")[2], Resources.model_validate_json("{" + resources)
