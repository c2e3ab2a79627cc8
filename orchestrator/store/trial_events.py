"""The only place that records what trials said: each write is checked against the lease it comes with."""

from __future__ import annotations

from collections.abc import Sequence
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


# Statements of the engine's every trial are built once: to build one takes SQLAlchemy longer than to run it.
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
_TRIAL = sa.update(_trials).where(_trials.c.id == sa.bindparam("row_id"))
"""With the columns to set as parameters."""
_upserts: dict[bool, Any] = {}
"""Of a report; for SQLite, and for PostgreSQL."""


def commit(db: Database, connection: sa.Connection, driver_id: str, writes: Sequence[Write]) -> None:
    """All writes, or none when one of them comes with a lease that is lost."""
    held: dict[str, Row[Any]] = {}
    for some in chunks(sorted({write.key for write in writes})):
        held.update({row.key: row for row in connection.execute(_HELD, {"keys": some})})
    fresh = [write for write in writes if not _already_said(driver_id, held.get(write.key), write)]
    _write_reports(db, connection, held, [write for write in fresh if isinstance(write, Reported)])
    now = db.now(connection)
    ended: set[str] = set()
    for write in fresh:
        row = held[write.key]
        if isinstance(write, Reported) or (write.key in ended and not isinstance(write, Finished)):
            continue  # the latter: its end is in this batch already
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


def _already_said(driver_id: str, row: Row[Any] | None, write: Write) -> bool:
    """False when the write is new, True when it repeats what is recorded (its acknowledgement was lost).

    Raises LeaseLost when the trial is in other hands.
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
    # Given back: pending, or done where it had run once more for its weights.
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


def _write_reports(
    db: Database, connection: sa.Connection, held: dict[str, Row[Any]], reported: list[Reported]
) -> None:
    if not reported:
        return
    # Last one wins: PostgreSQL refuses the same row twice in one statement.
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
    said = {
        "value": write.figures.get(row.metric, float("nan")),
        "facts_json": to_json(facts),
        "step_seconds": facts.get("step_seconds"),
        "train_seconds": facts.get("train_seconds"),
        "host": facts.get("host"),
        "device": facts.get("device"),
        "data_digest": facts.get("data_digest"),
        "versions_json": to_json(facts.get("versions") or {}),
    }
    # A trial that ran once more for its weights keeps the figures it was judged by.
    first = row.value is None
    ended = {"state": TrialState.done, "ended": now, **weights, **(said if first else {})}
    connection.execute(_TRIAL, {"row_id": row.id, **ended})
    if first and write.figures:
        rows = [{"trial_id": row.id, "name": name, "value": float(value)} for name, value in write.figures.items()]
        connection.execute(_FIGURES, rows)
    close_attempt(connection, row.id, row.token, now, "done", "")


def _end(connection: sa.Connection, row: Row[Any], state: TrialState, cause: str, message: str, now: float) -> None:
    if state in (TrialState.pending, TrialState.stopped) and row.value is not None:
        state = TrialState.done  # it ran once more for its weights; its figures stand
    ended = state.ended and state != TrialState.done
    connection.execute(
        _TRIAL,
        {
            "row_id": row.id, "state": state, "error_class": cause if ended else None,
            "error": message if ended else None, "ended": None if state == TrialState.pending else now,
        },
    )  # fmt: skip
    close_attempt(connection, row.id, row.token, now, cause, message)
