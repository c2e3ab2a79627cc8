"""The only place that hands trials to Ray: warm, detached, named actors, reused by trials of the same resources."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError, RuntimeEnvSetupError

from orchestrator.errors import BackendUnreachable
from orchestrator.plan.resource_fit import amounts_text, fits, worker_needs, worker_slots
from orchestrator.spec.job import Resources
from workers.actor import Execute, TrialActor
from workers.messages import Assignment, TrialUpdate

UNAVAILABLE_S = 90.0
"""How long an actor may be out of reach (a network partition is noticed after about 60 s) before it counts as lost."""
FREE_FOR_S = 0.5
"""How long a look at the cluster's free resources is believed."""


@dataclass
class ActorHandle:
    """An actor and the trial it runs, if any."""

    name: str
    handle: Any
    resources: Resources
    assignment: Assignment | None = None
    """None while idle, or of a survivor that an earlier driver gave its trial."""
    key: str = ""
    token: int = 0
    settled: bool = False
    """Whether it answered once: until then the cluster may still count its resources as free."""
    call: Any = None
    ended: int | None = None
    """Token of its last trial, whose end is recorded; None once the worker was told so, or has a next trial."""
    calls_since: float = 0.0
    unavailable_since: float | None = None

    @property
    def idle(self) -> bool:
        return self.call is None


@dataclass(frozen=True)
class WorkerUpdate:
    """An answer of a worker: news of its trial, or that its process is gone."""

    worker: ActorHandle
    update: TrialUpdate | None
    reason: str = ""


def _held(resources: Resources) -> Resources:
    """Less what an actor does not hold, so that trials with another guess of their speed share actors."""
    plain = Resources()
    return resources.model_copy(
        update={"images_per_second": plain.images_per_second, "time_limit_hours": plain.time_limit_hours}
    )


class RayBackend:
    """Actors of one driver (`owner`) on the connected cluster. `prefix` marks the actors of one store."""

    def __init__(self, prefix: str, execute: Execute | None = None, orphan_s: float = 300.0, owner: str = "") -> None:
        self._prefix = prefix
        self._owner = owner
        self._execute = execute
        self._orphan_s = orphan_s
        self._class = ray.remote(TrialActor)
        self._workers: dict[str, ActorHandle] = {}
        self._free: tuple[float, list[dict[str, float]]] = (0.0, [])

    # What there is

    def nodes(self) -> list[dict[str, float]]:
        """Total resources of every living node."""
        return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]

    def slots(self, resources: Resources) -> int:
        """How many trials of these resources an empty cluster runs at once."""
        there = worker_slots(self.nodes(), worker_needs(resources))
        return there // resources.workers or int(there >= resources.fitting()[-1].workers)

    def running(self) -> list[ActorHandle]:
        return [worker for worker in self._workers.values() if not worker.idle]

    def has_room(self, resources: Resources) -> bool:
        """Whether a trial of these resources could start now; makes room by retiring idle actors of other shapes."""
        held = _held(resources)
        if any(worker.idle and worker.resources == held for worker in self._workers.values()):
            return True
        if self._fits(resources):
            return True
        others = [worker for worker in self._workers.values() if worker.idle]
        if not others:
            return False
        for worker in others:
            self.retire(worker)
        self._free = (0.0, [])
        return self._fits(resources)

    def _fits(self, resources: Resources) -> bool:
        wanted = worker_needs(resources)
        unsettled: defaultdict[str, float] = defaultdict(float)
        for worker in self._workers.values():
            if not worker.settled:
                for name, amount in worker_needs(worker.resources).items():
                    unsettled[name] += amount * worker.resources.workers
        nodes = self._free_nodes()
        for name in wanted:
            if sum(node.get(name, 0.0) for node in nodes) - unsettled[name] < wanted[name] * resources.workers - 1e-9:
                return False
        return fits(nodes, resources)

    def _free_nodes(self) -> list[dict[str, float]]:
        seen, nodes = self._free
        if time.monotonic() - seen > FREE_FOR_S:
            nodes = list(ray._private.state.available_resources_per_node().values())
            self._free = (time.monotonic(), nodes)
        return nodes

    # Trials

    def start(self, assignment: Assignment, resources: Resources) -> ActorHandle:
        """Gives a trial to an idle actor of its resources, or to a new one. `poll` brings its news."""
        held = _held(resources)
        worker = next((w for w in self._workers.values() if w.idle and w.resources == held), None)
        if worker is None:
            worker = self._create(held)
        worker.assignment, worker.key, worker.token = assignment, assignment.trial.key, assignment.token
        worker.ended = None  # the next trial says so too
        self._call(worker, worker.handle.start.options(name=assignment.name).remote(assignment))
        return worker

    def poll(self, timeout_s: float) -> list[WorkerUpdate]:
        """Answers that have come, waiting up to `timeout_s` for the first. A worker is asked again by `heard`.

        Raises BackendUnreachable when an actor could not be made for a reason that every other one would meet too.
        """
        for worker in self._workers.values():
            self._tell_end(worker)
        calls = {worker.call: worker for worker in self._workers.values() if worker.call is not None}
        if not calls:
            time.sleep(timeout_s)
            return []
        ready, rest = ray.wait(list(calls), num_returns=1, timeout=timeout_s)
        if ready and rest:
            more, _ = ray.wait(rest, num_returns=len(rest), timeout=0)
            ready += more
        answers = [self._answer(calls[call]) for call in ready]
        return [answer for answer in answers if answer is not None]

    def _answer(self, worker: ActorHandle) -> WorkerUpdate | None:
        try:
            news: TrialUpdate = ray.get(worker.call)
        except ActorUnavailableError as error:
            now = time.monotonic()
            worker.unavailable_since = worker.unavailable_since or now
            if now - worker.unavailable_since < UNAVAILABLE_S:
                time.sleep(0.2)  # the next call fails at once while the node is out of reach
                self._call(worker, worker.handle.poll.remote(0))
                return None
            return self._lost(worker, f"out of reach for {UNAVAILABLE_S:.0f} s: {_first_line(error)}")
        except RayError as error:  # the process or its node died, an object was lost with its node, ...
            made = not (isinstance(error, RuntimeEnvSetupError) or getattr(error, "actor_init_failed", False))
            lost = self._lost(worker, _first_line(error))
            if made:
                return lost
            raise BackendUnreachable(
                f"trials cannot run on this cluster: {_last_line(error)}\n"
                "The nodes need this project and what it imports, at the driver's versions; nothing is lost."
            ) from error
        worker.settled, worker.unavailable_since = True, None
        if worker.assignment is not None and (news.key, news.token) != (worker.key, worker.token):
            # The call that should have begun the trial was lost on the way.
            self._call(worker, worker.handle.start.options(name=worker.assignment.name).remote(worker.assignment))
            return None
        return WorkerUpdate(worker, news)

    def acknowledge(self, news: TrialUpdate, worker: ActorHandle) -> None:
        """Everything in `news` is recorded: the worker may forget it and goes on, or is idle when its trial ended."""
        if news.ended:
            worker.call, worker.assignment, worker.key = None, None, ""
            worker.ended = news.token
        else:
            self._call(worker, worker.handle.poll.remote(news.heard + len(news.events)))

    def stop(self, worker: ActorHandle) -> None:
        """Asks the worker's trial to write a checkpoint and leave; its news will say so."""
        worker.handle.stop.remote()

    def retire(self, worker: ActorHandle) -> None:
        """Ends an actor: an idle one that is not needed, or one whose trial failed (nothing of it stays in memory)."""
        self._workers.pop(worker.name, None)
        if (told := self._tell_end(worker)) is not None:
            ray.wait([told], timeout=5)  # killed before that, it would leave its trial's checkpoints
        ray.kill(worker.handle)
        self._free = (0.0, [])

    def _tell_end(self, worker: ActorHandle) -> Any:
        """Lets an idle worker forget its last trial and remove its checkpoints, once; the call, if one was made."""
        if worker.ended is None:
            return None
        token, worker.ended = worker.ended, None
        return worker.handle.release.remote(token)

    def close(self) -> None:
        """Ends the idle actors. Busy ones go on: the next driver finds them."""
        for worker in list(self._workers.values()):
            if worker.idle:
                self.retire(worker)

    # Actors of other drivers

    def foreign_actors(self, wait_s: float = 10.0) -> list[WorkerUpdate]:
        """Every actor of this store that is not ours, with its unacknowledged news (of which it forgets nothing).

        One that does not answer within `wait_s` is left out: it is busy, or it left, or its node did.
        """
        asked = {}
        for entry in ray.util.list_named_actors(all_namespaces=True):
            name = entry["name"]
            if name.startswith(self._prefix) and name not in self._workers:
                with contextlib.suppress(ValueError):  # it left just now
                    handle = ray.get_actor(name, namespace=entry["namespace"])
                    asked[handle.poll.remote(0, 0.0)] = (name, handle)
        if not asked:
            return []
        ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=wait_s)
        found = []
        for call in ready:
            name, handle = asked[call]
            with contextlib.suppress(RayError):
                news: TrialUpdate = ray.get(call)
                resources = Resources.model_validate_json(name.rsplit("|", 1)[1])
                worker = ActorHandle(name, handle, resources, key=news.key, token=news.token, settled=True, call=handle)
                found.append(WorkerUpdate(worker, news))
        return found

    def adopt(self, heard: WorkerUpdate) -> None:
        """The worker's trial is this driver's from now on."""
        assert heard.update is not None
        heard.worker.handle.set_owner.remote(self._owner, heard.update.owner)
        self._workers[heard.worker.name] = heard.worker

    def reuse_idle(self, heard: WorkerUpdate) -> None:
        """The worker, whose driver is dead and whose trial's end is recorded, is an idle one of this driver."""
        worker, news = heard.worker, heard.update
        assert news is not None
        with contextlib.suppress(RayError):  # it left just now
            if ray.get(worker.handle.set_owner.remote(self._owner, news.owner), timeout=10):
                worker.handle.release.remote(news.token)
                worker.call, worker.key = None, ""
                self._workers[worker.name] = worker

    def _create(self, resources: Resources) -> ActorHandle:
        # The name carries the resources, so that the next driver knows what the actor holds.
        name = f"{self._prefix}{uuid.uuid4().hex[:8]}|{resources.model_dump_json(exclude_defaults=True)}"
        several = resources.workers > 1  # then Ray Train takes the resources, worker by worker
        handle = self._class.options(
            name=name,
            lifetime="detached",
            max_concurrency=8,
            num_cpus=0 if several else resources.cpus,
            num_gpus=0 if several else resources.gpus,
            resources={} if several else dict(resources.custom),
            max_restarts=0,
        ).remote(self._execute, self._orphan_s, self._owner)
        worker = ActorHandle(name, handle, resources)
        self._workers[name] = worker
        return worker

    def _call(self, worker: ActorHandle, call: Any) -> None:
        worker.call, worker.calls_since = call, time.monotonic()

    def _lost(self, worker: ActorHandle, reason: str) -> WorkerUpdate:
        self._workers.pop(worker.name, None)
        self._free = (0.0, [])
        return WorkerUpdate(replace(worker), None, reason)


def require(pool: RayBackend, stages: Mapping[str, Resources]) -> None:
    """Raises BackendUnreachable naming every stage whose trials no node of this cluster can ever hold."""
    nodes = pool.nodes()
    lines = []
    for stage, resources in stages.items():
        wanted = worker_needs(resources)
        fewest = resources.fitting()[-1].workers
        if worker_slots(nodes, wanted) < fewest:
            largest = {name: max((node.get(name, 0.0) for node in nodes), default=0.0) for name in wanted}
            lines.append(
                f"stage {stage}: a trial needs {fewest} x {amounts_text(wanted)}; the largest of the "
                f"{len(nodes)} nodes has {amounts_text(largest)}"
            )
    if lines:
        lines.append("Change `resources` in the spec (or --set resources.gpus=0), or use a larger cluster (--address).")
        raise BackendUnreachable("\n".join(lines))


def _last_line(error: BaseException) -> str:
    """Of a traceback that came from another process: the exception itself."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
