"""Records what happened to trials in the caller's transaction, after each write was checked against its lease."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Row

from orchestrator.errors import LeaseLost
from orchestrator.records.states import TrialState
from orchestrator.records.writes import Failed, Finished, Released, Reported, StoppedEarly, Write
from orchestrator.store import tables
from orchestrator.store.database import Database, chunks, to_json
from orchestrator.store.leases import close_attempt

_trials = tables.trials


# Statements that run for every trial are built once: building one takes SQLAlchemy longer than running it.
_HELD = (
    sa.select(
        _trials.c.id, _trials.c.key, _trials.c.token, _trials.c.driver_id, _trials.c.state,
        _trials.c.metric, _trials.c.value,
    )
    .where(_trials.c.key.in_(sa.bindparam("keys", expanding=True)))
    .order_by(_trials.c.id)
    .with_for_update()
)  # fmt: skip
_REACHED = (
    sa.update(_trials)
    .where(_trials.c.id == sa.bindparam("row_id"))
    .values(epoch=sa.bindparam("at_epoch"), step=sa.bindparam("at_step"))
)
_FIGURES = sa.insert(tables.figures)
_MEASUREMENTS = sa.insert(tables.measurements)
_TRIAL = sa.update(_trials).where(_trials.c.id == sa.bindparam("row_id"))
"""The columns to set are its parameters."""
_upserts: dict[bool, Any] = {}
"""The upsert of a report: for PostgreSQL (False) and SQLite (True)."""


def lock(connection: sa.Connection, keys: Iterable[str]) -> dict[str, Row[Any]]:
    """Locks the rows of these trials, in one order for all drivers, and returns them by key."""
    held: dict[str, Row[Any]] = {}
    for some_keys in chunks(sorted(keys)):
        held.update({row.key: row for row in connection.execute(_HELD, {"keys": some_keys})})
    return held


def record_ends(connection: sa.Connection, held: Mapping[str, Row[Any]], writes: Sequence[Write], now: float) -> None:
    """Records the writes that end an attempt. The first end of a trial counts; a later Finished adds its weights."""
    ended: set[str] = set()
    for write in writes:
        row = held[write.key]
        if isinstance(write, Reported) or (write.key in ended and not isinstance(write, Finished)):
            continue
        if isinstance(write, Finished):
            _finish(connection, row, write, now, again=write.key in ended)
        elif isinstance(write, Failed):
            state = _STATES.get(write.error_class, TrialState.failed)
            _end(connection, row, TrialState.pending if write.retry else state, write.error_class, write.message, now)
        elif isinstance(write, Released):
            _end(connection, row, TrialState.pending, write.cause, "", now)
        elif isinstance(write, StoppedEarly):
            _end(connection, row, TrialState.stopped, "stopped", write.reason, now)
        ended.add(write.key)


_STATES = {"diverged": TrialState.diverged, "cancelled": TrialState.cancelled}
"""By the class of the error; any other one is `failed`."""


def is_repeat(driver_id: str, row: Row[Any] | None, write: Write) -> bool:
    """True if the write is recorded already (its acknowledgement was lost), False if it is new.

    Raises LeaseLost if the driver does not hold the trial.
    """
    short = write.key[:12]
    if row is None:
        raise LeaseLost(f"trial {short} is not in this store")
    if write.token != row.token:
        raise LeaseLost(f"trial {short} was taken over: token {write.token} is stale, {row.token} is current")
    if row.state == TrialState.running:
        if row.driver_id != driver_id:
            raise LeaseLost(f"trial {short} was taken over by driver {row.driver_id}")
        return False
    ends = isinstance(write, (Failed, Released, StoppedEarly))
    # Given back: pending, or done if it ran once more for its weights.
    if row.state in (TrialState.pending, TrialState.done) and ends and getattr(write, "retry", True):
        return True
    if row.state == TrialState.done and not ends:
        return isinstance(write, Reported)
    if row.state in (TrialState.failed, TrialState.diverged, TrialState.cancelled) and not isinstance(
        write, (Finished, Released, StoppedEarly)
    ):
        return True
    if row.state == TrialState.stopped and not isinstance(write, Finished):
        return True
    raise LeaseLost(f"trial {short} is {row.state} already; a late {type(write).__name__} is refused")


def record_reports(
    db: Database, connection: sa.Connection, held: Mapping[str, Row[Any]], writes: Sequence[Write]
) -> None:
    """Records the epochs reported among these writes, and their pictures."""
    reported = [write for write in writes if isinstance(write, Reported)]
    if not reported:
        return
    # Of two reports of an epoch the last counts: PostgreSQL refuses the same row twice in one statement.
    rows = {
        (held[report.key].id, report.epoch): {
            "trial_id": held[report.key].id,
            "epoch": report.epoch,
            "step": report.step,
            "values_json": to_json(dict(report.values)),
            "seconds": report.seconds,
        }
        for report in reported
    }
    if db.sqlite not in _upserts:
        statement = db.insert(tables.reports)
        _upserts[db.sqlite] = statement.on_conflict_do_update(
            index_elements=["trial_id", "epoch"],
            set_={name: statement.excluded[name] for name in ("step", "values_json", "seconds")},
        )
    connection.execute(_upserts[db.sqlite], list(rows.values()))
    pictures = [
        {"trial_id": held[report.key].id, "epoch": report.epoch, "path": path}
        for report in reported
        for path in report.pictures
    ]
    if pictures:
        connection.execute(db.insert(tables.pictures).on_conflict_do_nothing(), pictures)
    newest = {held[report.key].id: report for report in reported}
    connection.execute(
        _REACHED,
        [{"row_id": row_id, "at_epoch": report.epoch, "at_step": report.step} for row_id, report in newest.items()],
    )


def _finish(connection: sa.Connection, row: Row[Any], write: Finished, now: float, again: bool) -> None:
    weights = {"weights_path": write.weights[0], "weights_sha256": write.weights[1]} if write.weights else {}
    if again or row.state == TrialState.done:
        if weights:
            connection.execute(_TRIAL, {"row_id": row.id, **weights})
        return
    facts = dict(write.facts)
    results = {
        "value": write.figures.get(row.metric, float("nan")),
        "facts_json": to_json(facts),
        "step_seconds": facts.get("step_seconds"),
        "train_seconds": facts.get("train_seconds"),
        "host": facts.get("host"),
        "device": facts.get("device"),
        "data_digest": facts.get("data_digest"),
        "versions_json": to_json(facts.get("versions") or {}),
    }
    # A trial that ran once more for its weights keeps its first figures: the choices were made by them.
    first = row.value is None
    ended = {"state": TrialState.done, "ended": now, **weights, **(results if first else {})}
    connection.execute(_TRIAL, {"row_id": row.id, **ended})
    if first and write.figures:
        rows = [{"trial_id": row.id, "name": name, "value": float(value)} for name, value in write.figures.items()]
        connection.execute(_FIGURES, rows)
    if first and write.measurements:
        measured = [
            {"trial_id": row.id, "number": number, **asdict(measurement)}
            for number, measurement in enumerate(write.measurements)
        ]
        connection.execute(_MEASUREMENTS, measured)
    close_attempt(connection, row.id, row.token, now, "done", "")


def _end(connection: sa.Connection, row: Row[Any], state: TrialState, cause: str, message: str, now: float) -> None:
    if row.value is not None:
        state = TrialState.done  # it ran once more for its weights and keeps its figures; the attempt says how it ended
    ended = state.ended and state != TrialState.done
    connection.execute(
        _TRIAL,
        {
            "row_id": row.id, "state": state, "error_class": cause if ended else None,
            "error": message if ended else None, "ended": None if state == TrialState.pending else now,
        },
    )  # fmt: skip
    close_attempt(connection, row.id, row.token, now, cause, message)
