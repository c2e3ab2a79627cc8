"""Runs a trial of several workers through Ray Train."""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workers.errors import ErrorClass, Stopped, TrialError
from workers.messages import Assignment, Event, Failure, Outcome, Report, StoppedAtCheckpoint, classify_error
from workers.state import rank_context


def run_with_ray_train(assignment: Assignment, stop: Callable[[], bool]) -> Outcome:
    """Runs a trial of several workers: Ray Train places and connects them; they call this actor themselves.

    Train's own report() is not used: it costs up to 2 s a call, and our events are acknowledged already. Nor is its
    retry: a trial that lost a worker ends here as `node_lost`, and the driver dispatches it again from its last
    checkpoint as soon as there is room; that is also recorded as an attempt.
    """
    if stop():
        raise Stopped
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    ends_of_workers.clear()
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
    except Exception as error:  # the workers' own reasons count for more
        died = error
    finally:
        shutil.rmtree(records, ignore_errors=True)  # Train's own, never read again
    return outcome_of_workers(list(ends_of_workers), died)


ends_of_workers: list[Event] = []
"""How the workers of this process's current trial ended, in the order in which they reported it."""


def outcome_of_workers(events: list[Event], died: Exception | None) -> Outcome:
    """The outcome reported first. Raises the first failure (TrialError) or Stopped instead; "another worker is gone"
    counts only if nothing else was reported, because it only follows from that. A worker that could not even read what
    it was given, because its node lacks that code, reports nothing: that is an error in code, as it is in every try."""
    lost = [event for event in events if isinstance(event, Failure) and event.error_class is ErrorClass.node_lost]
    for event in [*(event for event in events if event not in lost), *lost]:
        if isinstance(event, Outcome):
            return event
        if isinstance(event, Failure):
            raise TrialError(event.error_class, event.message) from died
        raise Stopped
    lacks = r"(ModuleNotFoundError|ImportError): .*|AttributeError: Can't get attribute .*"
    missing = re.search(lacks, str(died or ""))
    if missing:
        said = f"the workers cannot be started on their nodes, which need the driver's code: {missing[0]}"
        raise TrialError(ErrorClass.code, said) from died
    reason = str(died).splitlines()[0] if died else "no worker reported how it ended"
    raise TrialError(ErrorClass.node_lost, f"a worker process died: {reason}") from died


class _ToActor(logging.Handler):
    """Passes what rank 0 logs to the actor, which has the trial's log open."""

    def __init__(self, note: Callable[[str], Any]) -> None:
        super().__init__(logging.INFO)
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        self._note(record.getMessage())


def _worker_loop(config: dict[str, Any]) -> None:
    """Runs on each of several workers: the same loop, inside the process group that Ray Train made."""
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
        ray.get(actor.report.remote(report))

    if rank == 0:
        handler = _ToActor(actor.note.remote)
        for name in ("workers", "tasks"):  # whose log the actor keeps, too
            logging.getLogger(name).setLevel(logging.INFO)
            logging.getLogger(name).addHandler(handler)
    event: Event
    try:
        event = train(assignment.trial, rank_context(assignment, rank, device), emit, stop)
    except Stopped:
        event = StoppedAtCheckpoint()
    except Exception as error:
        ray.get(actor.finish.remote(classify_error(error)))
        raise
    if rank == 0:
        ray.get(actor.finish.remote(event))
