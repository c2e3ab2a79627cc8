"""The only place where a node meets Ray: an actor that runs trial after trial and keeps its news until it is heard."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.base import DataError
from workers.trial import Assignment, ErrorClass, Outcome, Report, Stopped, TrialError

LINGER_S = 0.02
"""A trial's end that follows its last report so soon comes in the same answer: one commit less."""

Emit = Callable[[Report], None]
Execute = Callable[[Assignment, Emit, Callable[[], bool]], Outcome]


@dataclass(frozen=True)
class Failure:
    """A trial that ended without figures."""

    error_class: ErrorClass
    message: str
    """First line: what happened; the rest, if any, a traceback."""


@dataclass(frozen=True)
class Left:
    """A trial that was asked to stop and wrote a checkpoint."""


Event = Report | Outcome | Failure | Left


@dataclass(frozen=True)
class News:
    """What an actor has to say of its trial: events not acknowledged so far, oldest first."""

    key: str
    name: str
    token: int
    events: tuple[Event, ...]
    heard: int
    """Events before these; acknowledge with heard + len(events)."""
    ended: bool
    owner: str = ""
    """Id of the driver whose actor this is: the one that made it, or that took it over."""


class TrialActor:
    """Runs trials, one at a time, in a thread of its own, so that questions are answered while it trains.

    Events are kept until the driver acknowledges them (it does so after its commit): a driver that dies in
    between costs nothing, the next one asks again. An actor that nobody has asked for `orphan_s` after its trial
    ended leaves by itself. Made by orchestrator.engine.driver as a detached, named Ray actor with several call slots.
    """

    def __init__(self, execute: Execute | None = None, orphan_s: float = 300.0, owner: str = "") -> None:
        self._execute = execute or run_trial
        self._orphan_s = orphan_s
        self._owner = owner
        self._changed = threading.Condition()
        self._assignment: Assignment | None = None
        self._key = ""
        self._events: list[Event] = []
        self._heard = 0
        self._ended = True
        self._stop = threading.Event()
        self._asked = time.monotonic()
        threading.Thread(target=self._leave_when_orphaned, daemon=True).start()

    def work(self, assignment: Assignment, wait_s: float = 10.0) -> News:
        """Begins a trial and returns its first news. What the previous trial said counts as acknowledged."""
        with self._changed:
            if not self._ended:
                raise RuntimeError(f"busy with {self._assignment.name if self._assignment else '?'}")
            self._tidy()
            self._assignment, self._events, self._heard, self._ended = assignment, [], 0, False
            self._key = assignment.trial.key
            self._stop.clear()
            threading.Thread(target=self._run, args=(assignment,), daemon=True, name=assignment.name).start()
        return self.news(0, wait_s)

    def news(self, acknowledged: int, wait_s: float = 10.0) -> News:
        """Forgets the first `acknowledged` events; returns the others, waiting up to `wait_s` for the first."""
        with self._changed:
            self._asked = time.monotonic()
            forget = max(0, acknowledged - self._heard)
            del self._events[:forget]
            self._heard += forget
            self._changed.wait_for(lambda: self._events or self._ended, timeout=wait_s)
            self._changed.wait_for(lambda: self._ended, timeout=min(wait_s, LINGER_S))
            self._asked = time.monotonic()
            assignment = self._assignment
            if assignment is None:
                return News("", "", 0, (), 0, True, self._owner)
            return News(
                self._key, assignment.name, assignment.token, tuple(self._events), self._heard, self._ended, self._owner
            )

    def rest(self, token: int) -> None:
        """Everything that attempt `token` said was recorded: its checkpoints can go. Late calls change nothing."""
        with self._changed:
            self._asked = time.monotonic()
            if self._ended and self._assignment is not None and self._assignment.token == token:
                self._tidy()
                self._events = []

    def belong(self, owner: str, before: str) -> bool:
        """Another driver takes this actor over; whether it was still `before`'s, so that of two drivers one gets it."""
        with self._changed:
            mine = self._owner == before
            if mine:
                self._owner = owner
            return mine

    def stop(self) -> None:
        """Asks the running trial to write a checkpoint and leave."""
        self._stop.set()

    def push(self, event: Event) -> None:
        """For the processes of a trial with several workers: says something in the trial's name."""
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def conclude(self, event: Event) -> None:
        """For the processes of a trial with several workers: says how it ended."""
        _conclusions.append(event)

    def should_stop(self) -> bool:
        return self._stop.is_set()

    def place(self) -> dict[str, str]:
        """Where this actor runs and where it imports the project from."""
        import socket

        return {"host": socket.gethostname(), "pid": str(os.getpid()), "code": str(Path(__file__).parent)}

    def node(self) -> str:
        """Id of the Ray node this actor runs on."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def _run(self, assignment: Assignment) -> None:
        event: Event
        with _log_to(assignment):
            log = logging.getLogger("workers")
            log.info("begin %s attempt %d key %s", assignment.name, assignment.token, self._key)
            try:
                event = self._execute(assignment, self.push, self._stop.is_set)
                log.info("done: %s", " ".join(f"{k}={v:.6g}" for k, v in event.figures.items()))
            except Stopped:
                event = Left()
                log.info("stopped: a checkpoint is written")
            except BaseException as error:  # the thread's end: whatever it is becomes news
                event = classify(error)
                log.error("%s: %s", event.error_class, event.message)
        with self._changed:
            self._events.append(event)
            self._ended = True
            self._changed.notify_all()

    def _tidy(self) -> None:
        """Removes the checkpoints of a trial whose end was acknowledged (the lock is held)."""
        if self._assignment is not None and self._events and isinstance(self._events[-1], Outcome):
            from workers import checkpoint

            checkpoint.clear(Path(self._assignment.folder))
        self._assignment = None

    def _leave_when_orphaned(self) -> None:
        while True:
            time.sleep(min(5.0, self._orphan_s / 4))
            with self._changed:
                if self._ended and time.monotonic() - self._asked > self._orphan_s:
                    os._exit(0)


def run_trial(assignment: Assignment, emit: Emit, stop: Callable[[], bool]) -> Outcome:
    """Runs a trial on this node: in this process, or through Ray Train when it has several workers."""
    if assignment.workers > 1:
        return _run_with_ray_train(assignment, stop)
    from workers.train import train

    return train(assignment.trial, place_of(assignment, 0, _device(assignment)), emit, stop)


def classify(error: BaseException) -> Failure:
    """The error class of an exception; see `ErrorClass` for what each means and schedule.RETRY for what follows."""
    if isinstance(error, TrialError):
        return Failure(error.error_class, error.message)
    first = f"{type(error).__name__}: {error}".splitlines()[0]
    if isinstance(error, DataError):
        return Failure(ErrorClass.data, str(error))
    if isinstance(error, MemoryError):
        return Failure(ErrorClass.out_of_memory, first)
    if _from_another_worker(error):
        return Failure(ErrorClass.node_lost, f"another worker of the trial is gone: {first}")
    text = "".join(traceback.format_exception(error))
    return Failure(ErrorClass.code, f"{first}\n{text}")


def _from_another_worker(error: BaseException) -> bool:
    """Whether the network to the trial's other workers failed, as it does when one of their processes dies."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return "DistError" in names or (isinstance(error, RuntimeError) and "gloo/transport" in str(error))


def place_of(assignment: Assignment, rank: int, device: str) -> Any:
    from workers.state import Place

    return Place(
        folder=Path(assignment.folder),
        data_root=Path(assignment.data_root),
        device=device,
        rank=rank,
        world=assignment.workers,
        threads=max(1, int(assignment.cpus)),
        parents=assignment.parents,
        keep_weights=assignment.keep_weights,
        token=assignment.token,
        time_limit_s=assignment.time_limit_s,
    )


def _device(assignment: Assignment) -> str:
    """`cuda:0` of the GPUs that Ray made visible to this process, when the trial was given any."""
    if assignment.gpus == 0:
        return "cpu"
    import torch

    if not torch.cuda.is_available():
        raise TrialError(ErrorClass.data, f"given {assignment.gpus:g} GPUs, but torch sees no CUDA device on this node")
    return "cuda:0"


def _run_with_ray_train(assignment: Assignment, stop: Callable[[], bool]) -> Outcome:
    """A trial of several workers: Ray Train places and connects them; they speak to this actor themselves.

    Train's own report() is not used: it costs up to 2 s a call, and our events have an acknowledged road already. Nor
    is its retry: a trial that lost a worker ends here as `node_lost`, and the driver hands it out again, from its last
    checkpoint, as soon as there is room for it; that is also recorded as an attempt.
    """
    if stop():
        raise Stopped
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    _conclusions.clear()
    resources = {"CPU": assignment.cpus}
    if assignment.gpus:
        resources["GPU"] = assignment.gpus
    records = Path(assignment.folder) / "train"
    trainer = TorchTrainer(
        _worker_loop,
        train_loop_config={"assignment": assignment, "actor": ray.get_runtime_context().current_actor},
        torch_config=TorchConfig(backend="nccl" if assignment.gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=assignment.workers, use_gpu=assignment.gpus > 0, resources_per_worker=resources
        ),
        run_config=RunConfig(name=f"attempt-{assignment.token}", storage_path=str(records)),
    )
    died: Exception | None = None
    try:
        trainer.fit()
    except Exception as error:  # what the workers themselves said counts for more
        died = error
    finally:
        shutil.rmtree(records, ignore_errors=True)  # Train's own, of which nothing is read again
    return _concluded(list(_conclusions), died)


_conclusions: list[Event] = []
"""How the several workers of this process's current trial say it ended."""


def _concluded(events: list[Event], died: Exception | None) -> Outcome:
    """What several workers' words come to: the first counts, but that another worker is gone is only a consequence."""
    lost = [event for event in events if isinstance(event, Failure) and event.error_class is ErrorClass.node_lost]
    for event in [*(event for event in events if event not in lost), *lost]:
        if isinstance(event, Outcome):
            return event
        if isinstance(event, Failure):
            raise TrialError(event.error_class, event.message) from died
        raise Stopped
    reason = str(died).splitlines()[0] if died else "no worker said how it ended"
    raise TrialError(ErrorClass.node_lost, f"a worker process died: {reason}") from died


def _worker_loop(config: dict[str, Any]) -> None:
    """What each of several workers runs: the same loop, inside the process group that Ray Train made."""
    import ray
    import ray.train

    from workers.train import train

    assignment, actor = config["assignment"], config["actor"]
    context = ray.train.get_context()
    rank = context.get_world_rank()
    device = f"cuda:{context.get_local_rank()}" if assignment.gpus else "cpu"
    asked = 0.0
    stopping = False

    def stop() -> bool:
        """Rank 0 asks the actor at most once a second; the loop makes the answer common to all ranks."""
        nonlocal asked, stopping
        if rank == 0 and not stopping and time.monotonic() - asked > 1.0:
            asked = time.monotonic()
            stopping = ray.get(actor.should_stop.remote())
        return stopping

    def emit(report: Report) -> None:
        ray.get(actor.push.remote(report))

    event: Event
    try:
        event = train(assignment.trial, place_of(assignment, rank, device), emit, stop)
    except Stopped:
        event = Left()
    except Exception as error:
        ray.get(actor.conclude.remote(classify(error)))
        raise
    if rank == 0:
        ray.get(actor.conclude.remote(event))


class _log_to:
    """Sends the log of `workers` and `tasks`, and warnings, to log.txt in the trial's folder while the trial runs."""

    def __init__(self, assignment: Assignment) -> None:
        self._path = Path(assignment.folder) / "log.txt"

    def __enter__(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._handler = logging.FileHandler(self._path)
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logging.captureWarnings(True)
        for name in ("workers", "tasks", "py.warnings"):
            logging.getLogger(name).addHandler(self._handler)
            logging.getLogger(name).setLevel(logging.INFO)

    def __exit__(self, *_: object) -> None:
        for name in ("workers", "tasks", "py.warnings"):
            logging.getLogger(name).removeHandler(self._handler)
        self._handler.close()
