"""The only place that keeps the events of searches in the store, and marks what a search left behind."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from orchestrator.errors import Conflict
from orchestrator.records.rows import SearchEvent
from orchestrator.records.states import TrialState
from orchestrator.store import leases, tables
from orchestrator.store.database import Database, to_json

Place = tuple[str, str]
"""(stage, group)"""

_events = tables.search_events


def append(db: Database, connection: sa.Connection, job_id: str, events: Sequence[tuple[Place, SearchEvent]]) -> None:
    """Raises Conflict, and with it undoes the transaction, when the group has an event of this number already: two
    drivers would decide for one search."""
    if not events:
        return
    now = db.now(connection)
    rows = [
        {
            "job_id": job_id, "stage": stage, "grp": group, "number": event.number, "kind": event.kind,
            "key": event.key, "body_json": to_json(dict(event.body)), "time": now,
        }
        for (stage, group), event in events
    ]  # fmt: skip
    made = db.insert(_events).on_conflict_do_nothing().returning(_events.c.number)
    if len(connection.execute(made, rows).all()) < len(rows):
        stage, group = events[0][0]
        raise Conflict(
            f"job {job_id}: another process has gone on with the search {stage} {group}; a search is driven by one "
            "process at a time: wait for it, or end it and submit again"
        )


def events(connection: sa.Connection, job_id: str) -> dict[Place, list[SearchEvent]]:
    """Of every group, in their order."""
    found: dict[Place, list[SearchEvent]] = defaultdict(list)
    query = (
        sa.select(_events)
        .where(_events.c.job_id == job_id)
        .order_by(_events.c.stage, _events.c.grp, _events.c.number)
    )  # fmt: skip
    for row in connection.execute(query):
        event = SearchEvent(row.number, row.kind, row.key, json.loads(row.body_json))
        found[row.stage, row.grp].append(event)
    return dict(found)


def mark_stopped(db: Database, connection: sa.Connection, reasons: Mapping[str, str]) -> None:
    """Trials that a search has ended, and nobody runs, are `stopped`. (A worker says so by itself; this is for those
    whose process or driver died before.)"""
    t, now = tables.trials, db.now(connection)
    alive = [driver.id for driver in leases.live_drivers(db, connection)]
    left = (t.c.state == TrialState.pending) | ((t.c.state == TrialState.running) & t.c.driver_id.not_in(alive))
    found = sa.select(t.c.id, t.c.key, t.c.token, t.c.state).where(t.c.key.in_(sorted(reasons)), left).order_by(t.c.id)
    for row in connection.execute(found.with_for_update()).all():
        ended = {"state": TrialState.stopped, "error_class": "stopped", "error": reasons[row.key], "ended": now}
        connection.execute(sa.update(t).where(t.c.id == row.id).values(**ended))
        if row.state == TrialState.running:
            leases.close_attempt(connection, row.id, row.token, now, "driver_lost", "its driver is gone")
