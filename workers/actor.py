"""The Ray actor that runs one trial at a time and keeps its updates until they are acknowledged."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from workers import host_memory
from workers.errors import LIMIT_GRACE_S, Stopped
from workers.messages import (
    Acknowledgement,
    Assignment,
    Event,
    Outcome,
    StoppedAtCheckpoint,
    TrialUpdate,
    classify_error,
)
from workers.ray_train import ends_of_workers
from workers.run import Emit, run_trial

LINGER_S = 0.02
"""Seconds that an update waits for the end of the trial after its last report: both in one update save a commit."""

Execute = Callable[[Assignment, Emit, Callable[[], bool]], Outcome]


class TrialActor:
    """Runs trials, one at a time, in a thread of its own, so that calls are answered during training.

    Events are kept until the driver acknowledges them, which it does after its commit: when a driver dies in between,
    the next one gets them again. With `orphan_s`, the process of an actor that nobody has called for so many seconds
    exits if its trial has ended, or hangs past its time limit; without, it stays: the process may be somebody else's.
    Created by orchestrator.engine as a detached, named Ray actor with several call slots.
    """

    def __init__(self, execute: Execute | None = None, orphan_s: float | None = None, owner: str = "") -> None:
        self._execute = execute or run_trial
        self._owner = owner
        self._changed = threading.Condition()
        self._assignment: Assignment | None = None
        self._key = ""
        self._events: list[Event] = []
        self._dropped = 0
        self._ended = True
        self._stop = threading.Event()
        self._asked = self._begun = time.monotonic()
        if orphan_s is not None:
            threading.Thread(target=self._exit_when_orphaned, args=(orphan_s,), daemon=True).start()

    def start(self, assignment: Assignment, wait_s: float = 10.0, owner: str | None = None) -> TrialUpdate:
        """Starts a trial and returns its first update. All events of the previous trial count as acknowledged.

        Raises RuntimeError while another trial runs, and if the driver `owner` asks, to which the actor does not belong
        any more: it slept past its lease, and the events are those of the driver that took the actor over.
        """
        with self._changed:
            if owner not in (None, self._owner):
                raise RuntimeError(f"it belongs to driver {self._owner} now")
            if not self._ended:
                raise RuntimeError(f"busy with {self._assignment.name if self._assignment else '?'}")
            self._tidy()
            self._assignment, self._events, self._dropped, self._ended = assignment, [], 0, False
            self._key, self._begun = assignment.key, time.monotonic()
            self._stop.clear()
            threading.Thread(target=self._run, args=(assignment,), daemon=True, name=assignment.name).start()
        return self.poll(None, wait_s)

    def poll(self, acknowledged: Acknowledgement | None = None, wait_s: float = 10.0) -> TrialUpdate:
        """Drops the `acknowledged` events of the trial; returns the others, waiting up to `wait_s` for one.

        What is acknowledged of another attempt changes nothing: a driver that slept past its lease may still speak of
        the trial that the actor had then.
        """
        with self._changed:
            self._asked = time.monotonic()
            if acknowledged is not None and self._has(acknowledged.key, acknowledged.token):
                dropped = max(0, acknowledged.events - self._dropped)
                del self._events[:dropped]
                self._dropped += dropped
            self._changed.wait_for(lambda: self._events or self._ended, timeout=wait_s)
            self._changed.wait_for(lambda: self._ended, timeout=min(wait_s, LINGER_S))
            self._asked = time.monotonic()
            assignment = self._assignment
            if assignment is None:
                return TrialUpdate("", "", 0, (), 0, True, self._owner)
            return TrialUpdate(
                key=self._key,
                name=assignment.name,
                token=assignment.token,
                events=tuple(self._events),
                heard=self._dropped,
                ended=self._ended,
                owner=self._owner,
            )

    def release(self, key: str, token: int) -> None:
        """Removes the checkpoints of this attempt, whose events are all recorded. Late calls change nothing."""
        with self._changed:
            self._asked = time.monotonic()
            if self._ended and self._has(key, token):
                self._tidy()
                self._events = []

    def _has(self, key: str, token: int) -> bool:
        """True if this is its attempt (the lock is held). Most attempts have token 1, so the trial counts too."""
        return self._assignment is not None and (self._key, self._assignment.token) == (key, token)

    def set_owner(self, owner: str, *before: str) -> bool:
        """Gives the actor to another driver. False when it no longer belonged to one of `before`: of two drivers that
        try, one succeeds."""
        with self._changed:
            unchanged = self._owner in before
            if unchanged:
                self._owner = owner
            return unchanged

    def stop(self, *owners: str) -> None:
        """Asks the running trial to write a checkpoint and end; does nothing if the actor belongs to none of `owners`:
        another driver has taken it over, and wants its trial. Without any, whoever asks may."""
        with self._changed:
            if not owners or self._owner in owners:
                self._stop.set()

    def report(self, event: Event) -> None:
        """Adds an event of the trial; called by the processes of a trial with several workers."""
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def note(self, line: str) -> None:
        """Writes a line to the trial's log; called by the processes of a trial with several workers."""
        logging.getLogger("workers").info("%s", line)

    def finish(self, event: Event) -> None:
        """Takes how one process of a trial with several workers ended."""
        ends_of_workers.append(event)

    def should_stop(self) -> bool:
        return self._stop.is_set()

    def place(self) -> dict[str, str]:
        """Host and process of this actor, and the folder it imports the project from."""
        import socket

        return {"host": socket.gethostname(), "pid": str(os.getpid()), "code": str(Path(__file__).parent)}

    def node(self) -> str:
        """Id of the Ray node on which this actor runs."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def _run(self, assignment: Assignment) -> None:
        event: Event
        try:
            event = self._logged_run(assignment)
        except BaseException as error:  # not even its log can be written
            event = classify_error(error)
        host_memory.give_back()
        with self._changed:
            self._events.append(event)
            self._ended = True
            self._changed.notify_all()

    def _logged_run(self, assignment: Assignment) -> Event:
        with _log_to(assignment):
            log = logging.getLogger("workers")
            log.info("begin %s attempt %d key %s", assignment.name, assignment.token, self._key)
            try:
                outcome = self._execute(assignment, self.report, self._stop.is_set)
                log.info("done: %s", " ".join(f"{k}={v:.6g}" for k, v in outcome.figures.items()))
                return outcome
            except Stopped:
                log.info("stopped: a checkpoint is written")
                return StoppedAtCheckpoint()
            except BaseException as error:  # the end of the thread: whatever it is must become an event
                failure = classify_error(error)
                log.error("%s: %s", failure.error_class, failure.message)
                return failure

    def _tidy(self) -> None:
        """Removes the checkpoints of a trial whose outcome was acknowledged (the lock is held)."""
        if self._assignment is not None and self._events and isinstance(self._events[-1], Outcome):
            from workers import checkpoint

            checkpoint.clear(Path(self._assignment.folder))
        self._assignment = None

    def _exit_when_orphaned(self, orphan_s: float) -> None:
        while True:
            time.sleep(min(5.0, orphan_s / 4))
            with self._changed:
                now = time.monotonic()
                limit = self._assignment.time_limit_s if self._assignment is not None else None
                hangs = not self._ended and limit is not None and now - self._begun > limit + LIMIT_GRACE_S
                if (self._ended or hangs) and now - self._asked > orphan_s:
                    os._exit(0)


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
        with contextlib.suppress(OSError):  # a full disk: what the trial came to counts, even if its log does not
            self._handler.close()
