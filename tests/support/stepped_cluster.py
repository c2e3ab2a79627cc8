"""A cluster without Ray and without threads: the real TrialActor, whose trial goes on only when the test says so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from k12_job import figures
from stepped_processes import Process

from orchestrator.records.writes import Attempt
from orchestrator.spec.job import Resources
from workers import actor as actor_module
from workers.actor import TrialActor
from workers.checkpoint import Folder
from workers.errors import ErrorClass, Stopped, TrialError
from workers.messages import Acknowledgement, Assignment, Outcome, Report, TrialUpdate, Weights
from workers.trial import TrialSpec

EPOCHS = 2
"""Reports of each trial."""


def without_threads(patch: pytest.MonkeyPatch) -> None:
    """Actors made from now on start no thread: the test runs their trials (see `Node.advance`)."""
    still = SimpleNamespace(start=lambda: None)
    parts = {"Condition": threading.Condition, "Event": threading.Event, "Thread": lambda **options: still}
    patch.setattr(actor_module, "threading", SimpleNamespace(**parts))


def diverges(trial: TrialSpec) -> bool:
    """A result as any other: always the same for the same trial."""
    return trial.optim.lr == 1e-4 and trial.backbone.init.name == "SUP"


def values_of(trial: TrialSpec, epoch: int) -> dict[str, float]:
    """What the trial reports after this epoch."""
    return {"train_loss": 1 / epoch, **figures(trial)}


@dataclass(eq=False)
class Node:
    """An actor with the trial on it."""

    actor: TrialActor
    alive: bool = True
    silent: bool = False
    """True while it answers nobody."""
    trial: Assignment | None = None
    epoch: int = 0
    """Epochs that this attempt has reported, those of earlier attempts included."""

    @property
    def running(self) -> bool:
        return self.alive and not self.actor._ended

    def advance(self, fate: str) -> None:
        """Lets the trial on it go on: to its next `report`, or to its end (`finish`, or the class of an error)."""
        assignment = self.actor._assignment
        assert assignment is not None
        if self.trial is not assignment:
            self.trial, self.epoch = assignment, 0
        folder = TrialFolder(assignment)
        try:
            folder.files.claim()
        except TrialError as error:  # a newer attempt has the folder
            self._end(error)
            return
        ended = folder.files.finished(assignment.keep_weights)
        if ended is not None:
            for report in ended[1]:
                self.actor.report(report)
            self._end(ended[0])
            return
        folder.check_parents()
        if fate == "report" and self.actor.should_stop():
            self._end(Stopped())
        elif fate == "report" and self.epoch < EPOCHS and not diverges(assignment.trial):
            self._report(folder, max(folder.epoch, self.epoch + 1))
        elif fate not in ("report", "finish"):
            self._end(TrialError(ErrorClass(fate), "made up by the test"))
        elif diverges(assignment.trial):
            self._end(TrialError(ErrorClass.diverged, "loss is nan in epoch 1"))
        else:
            self._report(folder, EPOCHS)
            self._end(folder.finish())

    def _report(self, folder: TrialFolder, epoch: int) -> None:
        """Reports all epochs up to this one; those of earlier attempts come from the checkpoint."""
        for each in range(self.epoch + 1, epoch + 1):
            self.actor.report(Report(each, each * 10, values_of(folder.assignment.trial, each), 0.01))
        self.epoch = epoch
        folder.save(epoch)

    def _end(self, how: Outcome | Exception) -> None:
        """Ends the trial as the actor itself does, with this outcome or error."""

        def execute(assignment: Assignment, emit: Any, stop: Any) -> Outcome:
            if isinstance(how, Exception):
                raise how
            return how

        assert self.trial is not None
        self.actor._execute = execute
        self.actor._run(self.trial)


@dataclass
class TrialFolder:
    """The files of a trial, as its attempt writes them: with the real rules on who may write."""

    assignment: Assignment
    files: Folder = field(init=False)

    def __post_init__(self) -> None:
        path = Path(self.assignment.folder)
        path.mkdir(parents=True, exist_ok=True)
        self.files = Folder(path, self.assignment.trial.key, self.assignment.token)

    @property
    def epoch(self) -> int:
        """Of the newest checkpoint; 0 without one."""
        return max((int(path.name.split("-")[1]) for path in self.files.path.glob("checkpoint-*.pt")), default=0)

    def save(self, epoch: int) -> None:
        (self.files.path / f"checkpoint-{epoch:09d}-made-up.pt").touch()

    def check_parents(self) -> None:
        """Asserts that the weights of every parent are there, with the content that they had when they were made."""
        trial = self.assignment.trial
        for parent in trial.parents:
            weights = self.assignment.parents.get(parent)
            assert weights is not None, f"trial {trial.key[:8]} was started without the weights of {parent[:8]}"
            assert weights_are_there(weights, parent), f"the weights of {parent[:8]} are gone, and a trial needs them"

    def finish(self) -> Outcome:
        trial, weights = self.assignment.trial, None
        if self.assignment.keep_weights:
            weights = self.files.save_weights({"w": torch.zeros(1)}, {"key": trial.key})
        facts = {"train_seconds": 0.02, "step_seconds": 0.001, "device": "cpu"}
        outcome = Outcome(figures(trial), facts, weights)
        reports = [Report(epoch, epoch * 10, values_of(trial, epoch), 0.01) for epoch in range(1, EPOCHS + 1)]
        self.files.finish(outcome, reports)
        return outcome


def weights_are_there(weights: Weights, key: str) -> bool:
    path = Path(weights.path)
    return path.exists() and key.encode() in path.read_bytes()


class Cluster:
    """Slots, and the actors on them."""

    def __init__(self, slots: int, started: Callable[[Assignment], None] = lambda assignment: None) -> None:
        """`started` is called with every assignment that an actor begins."""
        self.slots, self.started = slots, started
        self.nodes: list[Node] = []

    def add(self, owner: str) -> Node:
        node = Node(TrialActor(lambda *_: None, owner=owner))  # type: ignore[arg-type, return-value]
        self.nodes.append(node)
        return node

    def remove(self, node: Node) -> None:
        node.alive = False
        if node in self.nodes:
            self.nodes.remove(node)


@dataclass(eq=False)
class Handle:
    """An actor as one driver knows it (see `ray_backend.ActorHandle`)."""

    node: Node
    key: str = ""
    token: int = 0
    acknowledged: Acknowledgement | None = None
    assignment: Assignment | None = None
    broken: str = ""
    """Why a call failed; the next poll says so."""
    ended: Attempt | None = None
    """Its last one, whose end is recorded; the actor learns of it at the next poll."""
    former_owner: str = ""
    """The driver from which it was, or is to be, taken over."""


class SteppedBackend:
    """One driver's backend, as `ray_backend.RayBackend` is on Ray: with a pause before each call that has an effect."""

    def __init__(self, cluster: Cluster, process: Process, owner: str) -> None:
        self._cluster, self._process, self._owner = cluster, process, owner
        self._handles: list[Handle] = []

    def slots(self, resources: Resources) -> int:
        return self._cluster.slots

    def running(self) -> Sequence[Handle]:
        return [handle for handle in self._handles if handle.key]

    def has_room(self, resources: Resources) -> bool:
        return any(not handle.key for handle in self._handles) or len(self._cluster.nodes) < self._cluster.slots

    def start(self, assignment: Assignment, resources: Resources) -> Handle:
        self._process.pause("before a start")
        handle = next((handle for handle in self._handles if not handle.key), None)
        if handle is None:
            handle = Handle(self._cluster.add(self._owner))
            self._handles.append(handle)
        handle.key, handle.token, handle.acknowledged = assignment.trial.key, assignment.token, None
        handle.assignment, handle.ended = assignment, None
        self._start_on(handle)
        return handle

    def _start_on(self, handle: Handle) -> None:
        assert handle.assignment is not None
        if not handle.node.alive:
            return
        try:
            handle.node.actor.start(handle.assignment, wait_s=0, owner=self._owner)
        except RuntimeError as error:  # another driver has taken it over
            handle.broken = str(error)
        else:
            self._cluster.started(handle.assignment)

    def poll(self, timeout_s: float) -> Sequence[Any]:
        self._process.pause("poll")
        for handle in self._handles:
            self._release(handle)
        answers = [self._answer(handle) for handle in self.running()]
        return [answer for answer in answers if answer is not None]

    def _answer(self, handle: Handle) -> Any:
        if not handle.node.alive or handle.broken:
            self._handles.remove(handle)
            return SimpleNamespace(worker=replace(handle), update=None, reason=handle.broken or "killed by the test")
        if handle.node.silent:
            return None
        update = handle.node.actor.poll(handle.acknowledged, 0.0)
        if update.owner != self._owner:
            self._handles.remove(handle)
            return SimpleNamespace(worker=replace(handle), update=None, reason="another driver has taken it over")
        if handle.assignment is not None and (update.key, update.token) != (handle.key, handle.token):
            self._start_on(handle)
            return None
        return SimpleNamespace(worker=handle, update=update, reason="") if update.events or update.ended else None

    def acknowledge(self, update: TrialUpdate, worker: Handle) -> None:
        self._process.pause("before an acknowledgement")
        if update.ended:
            worker.key, worker.assignment, worker.ended = "", None, Attempt(update.key, update.token)
        else:
            worker.acknowledged = update.acknowledgement
            worker.node.actor.poll(worker.acknowledged, 0.0)

    def stop(self, worker: Handle) -> None:
        if worker.node.alive:
            worker.node.actor.stop(self._owner)

    def retire(self, worker: Handle) -> None:
        self._process.pause("before an actor is ended")
        if worker in self._handles:
            self._handles.remove(worker)
        self._release(worker)
        if not worker.node.alive or worker.node.actor.set_owner("nobody", self._owner, worker.former_owner):
            self._cluster.remove(worker.node)

    def _release(self, handle: Handle) -> None:
        if handle.ended is not None and handle.node.alive:
            handle.node.actor.release(*handle.ended)
        handle.ended = None

    def close(self) -> None:
        for handle in [handle for handle in self._handles if not handle.key]:
            self.retire(handle)

    def foreign_actors(self, wait_s: float) -> Sequence[Any]:
        self._process.pause("before a look at the other actors")
        own = [handle.node for handle in self._handles]
        found = []
        for node in self._cluster.nodes:
            if node not in own and not node.silent:
                update = node.actor.poll(None, 0.0)
                handle = Handle(node, update.key, update.token, former_owner=update.owner)
                found.append(SimpleNamespace(worker=handle, update=update, reason=""))
        return found

    def adopt(self, answer: Any) -> None:
        self._process.pause("before it adopts an actor")
        answer.worker.node.actor.set_owner(self._owner, answer.update.owner)
        self._handles.append(answer.worker)

    def reuse_idle(self, answer: Any) -> None:
        self._process.pause("before it reuses an actor")
        handle = answer.worker
        if handle.node.alive and handle.node.actor.set_owner(self._owner, answer.update.owner):
            handle.node.actor.release(answer.update.key, answer.update.token)
            handle.key = ""
            self._handles.append(handle)
