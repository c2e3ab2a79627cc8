"""Runs trials on Ray: warm, detached, named actors, which trials of the same resources reuse."""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayError, RaySystemError, RuntimeEnvSetupError

from orchestrator.engine.actor_handle import ActorHandle, WorkerUpdate, held_by, name_of, of_name
from orchestrator.engine.cluster_calls import ClusterCalls
from orchestrator.engine.ray_errors import first_line, last_line, plain_lines
from orchestrator.engine.watch import FROZEN_S, AnswerWatch
from orchestrator.errors import BackendUnreachable
from orchestrator.plan.resource_fit import amounts_text, fits, worker_needs, worker_slots
from orchestrator.records.writes import Attempt
from orchestrator.spec.job import Resources
from workers.actor import Execute, TrialActor
from workers.errors import ErrorClass
from workers.messages import Assignment, Failure, TrialUpdate

UNAVAILABLE_S = 90.0
"""An actor that cannot be reached for so long counts as lost (Ray notices a network partition after about 60 s)."""
ASK_S = 5.0
"""An actor that is to be ended has so long to say whose it is, and to remove its trial's checkpoints."""
NOBODY = "nobody"
"""Owner of an actor that is being ended: no driver can take it over any more."""
FREE_FOR_S = 0.5
"""Seconds for which a reading of the cluster's free resources is used."""

log = logging.getLogger(__name__)


class RayBackend:
    """The actors of one driver on the connected cluster."""

    def __init__(
        self, prefix: str, execute: Execute | None = None, orphan_s: float = 300.0, owner: str = "",
        gone: Callable[[], str | None] = lambda: None, plugins: str = "",
    ) -> None:  # fmt: skip
        """`prefix`: begins the names of one store's actors. `execute`: runs a trial in an actor; None: run_trial.
        `orphan_s`: seconds after which an idle actor that no driver asks ends. `owner`: id of the driver. `gone`: why
        the cluster is known to be gone, without asking Ray. `plugins`: their mark (`workers.plugin_code.mark`); the
        driver's trials run on actors of the same one alone."""
        self._calls = ClusterCalls(gone)
        self._silent: dict[str, AnswerWatch] = {}
        """Actors of other drivers that did not answer."""
        self._prefix = prefix
        self._owner = owner
        self._execute = execute
        self._orphan_s = orphan_s
        self._plugins = plugins
        self._class = ray.remote(TrialActor)
        self._workers: dict[str, ActorHandle] = {}
        self._free: tuple[float, list[dict[str, float]]] = (0.0, [])

    # Resources

    def nodes(self) -> list[dict[str, float]]:
        """Total resources of every living node."""
        return [dict(node["Resources"]) for node in self._calls.ask(ray.nodes) if node["Alive"]]

    def slots(self, resources: Resources) -> int:
        """How many trials of these resources the empty cluster holds."""
        workers = worker_slots(self.nodes(), worker_needs(resources))
        return workers // resources.workers or int(workers >= resources.fitting()[-1].workers)

    def running(self) -> list[ActorHandle]:
        """Handles of the actors that have a trial."""
        return [worker for worker in self._workers.values() if not worker.idle]

    def has_room(self, resources: Resources) -> bool:
        """True if a trial of these resources can start now; retires idle actors that do not suit it to make room."""
        if self._suiting(held_by(resources)) is not None:
            return True
        if self._fits(resources):
            return True
        idle = [worker for worker in self._workers.values() if worker.idle]
        if not idle:
            return False
        for worker in idle:
            self.retire(worker)
        return self._fits(resources)

    def _suiting(self, held: Resources) -> ActorHandle | None:
        """An idle actor that holds these resources and has imported what this driver's trials need, and nothing else:
        one that was taken over may have another job's plugins."""
        idle = (worker for worker in self._workers.values() if worker.idle)
        return next((each for each in idle if each.resources == held and each.plugins == self._plugins), None)

    def _fits(self, resources: Resources) -> bool:
        needs = worker_needs(resources)
        unsettled: defaultdict[str, float] = defaultdict(float)
        for worker in self._workers.values():
            if not worker.settled:
                for name, amount in worker_needs(worker.resources).items():
                    unsettled[name] += amount * worker.resources.workers
        nodes = self._free_nodes()
        for name, amount in needs.items():
            free = sum(node.get(name, 0.0) for node in nodes) - unsettled[name]
            if free < amount * resources.workers - 1e-9:
                return False
        return fits(nodes, resources)

    def _free_nodes(self) -> list[dict[str, float]]:
        read_at, nodes = self._free
        if time.monotonic() - read_at > FREE_FOR_S:
            nodes = list(self._calls.ask(ray._private.state.available_resources_per_node).values())
            self._free = (time.monotonic(), nodes)
        return nodes

    # Trials

    def start(self, assignment: Assignment, resources: Resources) -> ActorHandle:
        """Gives a trial to an idle actor that suits it, or to a new one; `poll` returns its updates."""
        held = held_by(resources)
        worker = self._suiting(held) or self._create(held)
        worker.assignment, worker.key, worker.token = assignment, assignment.trial.key, assignment.token
        worker.ended = None  # the worker learns of the recorded end from the next assignment
        worker.answers.answered(time.monotonic())
        worker.call = worker.handle.start.options(name=assignment.name).remote(assignment, owner=self._owner)
        return worker

    def poll(self, timeout_s: float) -> list[WorkerUpdate]:
        """The updates that have arrived, waiting up to `timeout_s` for the first; `acknowledge` asks for the next.

        Raises BackendUnreachable if an actor could not be made for a reason that would affect every other one too, and
        ClusterLost if the cluster is gone.
        """
        self._calls.look(lambda: len(self.nodes()))
        for worker in self._workers.values():
            self._release(worker)
        calls = {worker.call: worker for worker in self._workers.values() if worker.call is not None}
        if not calls:
            time.sleep(timeout_s)
            return []
        ready, rest = ray.wait(list(calls), num_returns=1, timeout=timeout_s)
        if ready and rest:
            more, _ = ray.wait(rest, num_returns=len(rest), timeout=0)
            ready += more
        answers = [self._answer(calls[call]) for call in ready]
        answers += [self._frozen(calls[call]) for call in calls if call not in ready]
        heard = [answer for answer in answers if answer is not None]
        if any(answer.update is None for answer in heard):
            self._calls.look(lambda: len(self.nodes()), after_death=True)
        return heard

    def _frozen(self, worker: ActorHandle) -> WorkerUpdate | None:
        """Ends an actor whose process has stopped answering; one that has never answered may wait for resources."""
        if not worker.settled:
            return None
        silence = worker.answers.verdict(time.monotonic())
        name = worker.assignment.name if worker.assignment is not None else worker.key[:8]
        if silence.say:
            log.info("%s: its process does not answer; it is ended if that lasts %.0f s", name, FROZEN_S)
        if not silence.end:
            return None
        ray.kill(worker.handle)  # a frozen process too: its node kills it after 5 s
        return self._lost(worker, f"its process has not answered for {FROZEN_S:.0f} s")

    def _answer(self, worker: ActorHandle) -> WorkerUpdate | None:
        try:
            update: TrialUpdate = ray.get(worker.call)
        except ActorUnavailableError as error:
            now = time.monotonic()
            worker.unavailable_since = worker.unavailable_since or now
            if now - worker.unavailable_since < UNAVAILABLE_S:
                time.sleep(0.2)  # the next call fails at once while the node cannot be reached
                worker.call = worker.handle.poll.remote()
                return None
            return self._lost(worker, f"not reachable for {UNAVAILABLE_S:.0f} s: {first_line(error)}")
        except RaySystemError as error:
            return self._refused(worker, error)
        except RayError as error:  # the process or its node died, an object was lost with its node, ...
            started = not (isinstance(error, RuntimeEnvSetupError) or getattr(error, "actor_init_failed", False))
            lost = self._lost(worker, first_line(error))
            if started:
                return lost
            raise BackendUnreachable(
                f"trials cannot run on this cluster: {last_line(error)}\n"
                "The nodes need this project and what it imports, at the driver's versions; nothing is lost."
            ) from error
        worker.settled, worker.unavailable_since = True, None
        worker.answers.answered(time.monotonic())
        if update.owner not in (self._owner, worker.former_owner):
            return self._lost(worker, "another driver has taken over its process")
        if worker.assignment is not None and (update.key, update.token) != (worker.key, worker.token):
            # The call that should have started the trial was lost.
            start = worker.handle.start.options(name=worker.assignment.name)
            worker.call = start.remote(worker.assignment, owner=self._owner)
            return None
        return WorkerUpdate(worker, update)

    def _refused(self, worker: ActorHandle, error: RayError) -> WorkerUpdate:
        """A message could not be read where it arrived: it names code that is missing there. The process lives.

        That is a failure in code. As if the process had died, it would be tried on one node after the other.
        """
        worker.settled = True
        cause = last_line(error)
        text = f"the trial cannot be handed to its node, which needs the driver's code: {cause}\n" + "\n".join(
            plain_lines(error)
        )
        name = worker.assignment.name if worker.assignment is not None else worker.key[:8]
        failure = Failure(ErrorClass.code, text)
        return WorkerUpdate(worker, TrialUpdate(worker.key, name, worker.token, (failure,), 0, True, self._owner))

    def acknowledge(self, update: TrialUpdate, worker: ActorHandle) -> None:
        """Lets the worker drop these events, which are recorded; after the end of its trial it is idle."""
        if update.ended:
            worker.call, worker.assignment, worker.key = None, None, ""
            worker.ended = Attempt(update.key, update.token)
        else:
            worker.call = worker.handle.poll.remote(update.acknowledgement)

    def stop(self, worker: ActorHandle) -> None:
        """Asks the worker's trial to write a checkpoint and stop; a later update says that it did."""
        worker.handle.stop.remote(self._owner, worker.former_owner)

    def retire(self, worker: ActorHandle) -> None:
        """Ends an actor that is not needed, or whose trial failed and may have left its process in any state.

        One that another driver has taken over goes on. The actor itself decides, so that nobody can take it over
        between question and end; one that does not answer is ended.
        """
        self._workers.pop(worker.name, None)
        self._free = (0.0, [])
        # Killed before its release, the actor would not remove its trial's checkpoints.
        released = self._release(worker)
        given_up = worker.handle.set_owner.remote(NOBODY, self._owner, worker.former_owner)
        calls = [call for call in (released, given_up) if call is not None]
        ready, _ = ray.wait(calls, num_returns=len(calls), timeout=ASK_S)
        with contextlib.suppress(RayError):  # it cannot be reached, or has ended
            if given_up in ready and not ray.get(given_up):
                log.info("an actor is not ended: another driver has taken it over")
                return
        ray.kill(worker.handle)

    def _release(self, worker: ActorHandle) -> Any:
        """Lets an idle worker drop its last trial and remove its checkpoints, once; returns the call if it made one."""
        if worker.ended is None:
            return None
        attempt, worker.ended = worker.ended, None
        return worker.handle.release.remote(*attempt)

    def close(self) -> None:
        """Ends the idle workers. The others keep running; the next driver takes them over."""
        for worker in list(self._workers.values()):
            if worker.idle:
                self.retire(worker)

    # Actors of other drivers

    def foreign_actors(self, wait_s: float = 10.0) -> list[WorkerUpdate]:
        """Unacknowledged updates of this store's actors that belong to other drivers; nothing is acknowledged by it.

        Leaves out actors that do not answer within `wait_s` seconds: they are busy, or have ended, or their node has.
        """
        calls = self._calls.ask(self._call_others)
        if not calls:
            self._silent.clear()
            return []
        ready, rest = ray.wait(list(calls), num_returns=len(calls), timeout=wait_s)
        self._end_silent({calls[call][0]: calls[call][1] for call in rest})
        answers = []
        for call in ready:
            name, handle = calls[call]
            with contextlib.suppress(RayError):
                update: TrialUpdate = ray.get(call)
                plugins, resources = of_name(name.removeprefix(self._prefix))
                worker = ActorHandle(
                    name, handle, resources, key=update.key, token=update.token, settled=True, call=call,
                    former_owner=update.owner, plugins=plugins,
                )  # fmt: skip
                answers.append(WorkerUpdate(worker, update))
        return answers

    def _call_others(self) -> dict[Any, tuple[str, Any]]:
        calls = {}
        for entry in ray.util.list_named_actors(all_namespaces=True):
            name = entry["name"]
            if name.startswith(self._prefix) and name not in self._workers:
                with contextlib.suppress(ValueError):  # it has ended since
                    handle = ray.get_actor(name, namespace=entry["namespace"])
                    calls[handle.poll.remote(None, 0.0)] = (name, handle)
        return calls

    def _end_silent(self, handles: Mapping[str, Any]) -> None:
        """Ends actors of other drivers that have not answered for as long as a living driver would have waited.

        They would hold their resources for ever, and keep the local cluster from ending.
        """
        now = time.monotonic()
        self._silent = {name: self._silent.get(name) or AnswerWatch(now) for name in handles}
        for name, handle in handles.items():
            if self._silent[name].verdict(now).end:
                log.info("an actor of an earlier driver has not answered for %.0f s: its process is ended", FROZEN_S)
                ray.kill(handle)

    def adopt(self, answer: WorkerUpdate) -> None:
        """Makes the worker of this update, with its running trial, this driver's."""
        assert answer.update is not None
        answer.worker.handle.set_owner.remote(self._owner, answer.update.owner)
        self._workers[answer.worker.name] = answer.worker

    def reuse_idle(self, answer: WorkerUpdate) -> None:
        """Makes the idle worker of this update this driver's. Its driver is dead, the end of its trial is recorded."""
        worker, update = answer.worker, answer.update
        assert update is not None
        with contextlib.suppress(RayError):  # it has ended since
            if ray.get(worker.handle.set_owner.remote(self._owner, update.owner), timeout=10):
                worker.handle.release.remote(update.key, update.token)
                worker.call, worker.key = None, ""
                self._workers[worker.name] = worker

    def _create(self, resources: Resources) -> ActorHandle:
        name = self._prefix + name_of(uuid.uuid4().hex[:8], self._plugins, resources)
        several = resources.workers > 1  # then Ray Train takes the resources, worker by worker
        options = self._class.options(
            name=name,
            lifetime="detached",
            max_concurrency=8,
            num_cpus=0 if several else resources.cpus,
            num_gpus=0 if several else resources.gpus,
            resources={} if several else dict(resources.custom),
            max_restarts=0,
        )
        handle = self._calls.ask(lambda: options.remote(self._execute, self._orphan_s, self._owner))
        worker = ActorHandle(name, handle, resources, plugins=self._plugins)
        self._workers[name] = worker
        return worker

    def _lost(self, worker: ActorHandle, reason: str) -> WorkerUpdate:
        self._workers.pop(worker.name, None)
        self._free = (0.0, [])
        return WorkerUpdate(replace(worker), None, reason)


def require(backend: RayBackend, stages: Mapping[str, Resources]) -> None:
    """Raises BackendUnreachable with every stage whose trials no node of this cluster can hold, even when empty."""
    nodes = backend.nodes()
    lines = []
    for stage, resources in stages.items():
        needs = worker_needs(resources)
        fewest = resources.fitting()[-1].workers
        if worker_slots(nodes, needs) < fewest:
            largest = {name: max((node.get(name, 0.0) for node in nodes), default=0.0) for name in needs}
            lines.append(
                f"stage {stage}: a trial needs {fewest} x {amounts_text(needs)}; the largest of the "
                f"{len(nodes)} nodes has {amounts_text(largest)}"
            )
    if lines:
        lines.append("Change `resources` in the spec (or --set resources.gpus=0), or use a larger cluster (--address).")
        raise BackendUnreachable("\n".join(lines))
