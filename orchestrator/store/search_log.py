"""The events of searches in the store, and the trials that a search ended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from orchestrator.errors import Conflict
from orchestrator.records.rows import SearchEvent
from orchestrator.records.states import TrialState
from orchestrator.store import leases, tables
from orchestrator.store.database import Database, fields_of, to_json

SearchedGroup = tuple[str, str]
"""(stage, group)"""

_events, _trials = tables.search_events, tables.trials


class SearchLog:
    """The events of a job's searches. `Trials.place` writes them (see `append`)."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def events(self, job_id: str) -> dict[SearchedGroup, list[SearchEvent]]:
        """By (stage, group), the events of the group's search in their order."""
        query = (
            sa.select(_events)
            .where(_events.c.job_id == job_id)
            .order_by(_events.c.stage, _events.c.grp, _events.c.number)
        )
        by_group: dict[SearchedGroup, list[SearchEvent]] = defaultdict(list)
        for row in self._db.read(lambda connection: connection.execute(query).all()):
            event = SearchEvent(
                row.number, row.kind, row.key, fields_of(row.body_json, f"body_json of event {row.number} of a search")
            )
            by_group[row.stage, row.grp].append(event)
        return dict(by_group)

    def mark_stopped(self, reasons: Mapping[str, str]) -> None:
        """Sets trials that a search ended (key -> reason) to `stopped`, except those that a live driver runs.

        A worker reports such an end itself; this is for trials whose process or driver died before.
        """

        def work(connection: sa.Connection) -> None:
            now = self._db.now(connection)
            alive = [driver.id for driver in leases.live_drivers(self._db, connection)]
            t = _trials.c
            unheld = (t.state == TrialState.pending) | ((t.state == TrialState.running) & t.driver_id.not_in(alive))
            query = sa.select(t.id, t.key, t.token, t.state).where(t.key.in_(sorted(reasons)), unheld).order_by(t.id)
            for row in connection.execute(query.with_for_update()).all():
                ended = {"state": TrialState.stopped, "error_class": "stopped", "error": reasons[row.key], "ended": now}
                connection.execute(sa.update(_trials).where(t.id == row.id).values(**ended))
                if row.state == TrialState.running:
                    leases.close_attempt(connection, row.id, row.token, now, "driver_lost", "its driver is gone")

        if reasons:
            self._db.write(work)


def append(
    db: Database, connection: sa.Connection, job_id: str, events: Sequence[tuple[SearchedGroup, SearchEvent]]
) -> None:
    """Records events in the caller's transaction, so that they are stored together with the trials they led to.

    Raises Conflict, which undoes that transaction, if the group already has an event of this number: then two drivers
    decide for one search.
    """
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
    insert = db.insert(_events).on_conflict_do_nothing().returning(_events.c.number)
    if len(connection.execute(insert, rows).all()) < len(rows):
        stage, group = events[0][0]
        raise Conflict(
            f"job {job_id}: another process has advanced the search {stage} {group}; only one process at a time may "
            "drive a search: wait for that one, or end it and submit again"
        )
