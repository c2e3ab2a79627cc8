"""The only place with the queries behind pins: trials and jobs whose weights a user wants to keep."""

from __future__ import annotations

import sqlalchemy as sa

from orchestrator.store import tables
from orchestrator.store.database import Database

_pins = tables.pins


def pin(db: Database, connection: sa.Connection, target: str, why: str) -> bool:
    """Whether it is new; a new reason replaces the old one.

    The trials are locked, so that weights which are being forgotten just now are gone before the pin is there.
    """
    t, placed = tables.trials, tables.placed
    mine = sa.select(placed.c.trial_id).where(placed.c.job_id == target)
    locked = sa.select(t.c.id).where((t.c.key == target) | t.c.id.in_(mine)).order_by(t.c.id)
    connection.execute(locked.with_for_update(read=True, key_share=True)).all()
    there = connection.execute(sa.select(_pins.c.key).where(_pins.c.key == target)).first()
    statement = db.insert(_pins).values(key=target, why=why, time=db.now(connection))
    if there is None:
        connection.execute(statement.on_conflict_do_nothing())
    elif why:
        connection.execute(sa.update(_pins).where(_pins.c.key == target).values(why=why))
    return there is None


def unpin(connection: sa.Connection, target: str) -> bool:
    """Whether it was pinned."""
    return connection.execute(sa.delete(_pins).where(_pins.c.key == target)).rowcount > 0


def pins(connection: sa.Connection) -> dict[str, str]:
    """Key of a trial, or id of a job -> why, oldest first."""
    rows = connection.execute(sa.select(_pins.c.key, _pins.c.why).order_by(_pins.c.time, _pins.c.key))
    return {row.key: row.why for row in rows}
