"""Sets of metrics in the store: what each figure of a trial is called, its unit, and which direction is better."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict

import sqlalchemy as sa

from orchestrator.records.rows import MetricRow
from orchestrator.store import tables
from orchestrator.store.database import Database

MetricSet = tuple[MetricRow, ...]


def name_of(metrics: MetricSet) -> str:
    """The digest under which a set is recorded."""
    text = json.dumps([asdict(metric) for metric in metrics], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def put(db: Database, connection: sa.Connection, sets: Iterable[MetricSet]) -> None:
    """Records the sets that are new."""
    rows = [
        {"metric_set": name_of(metrics), "position": position, **asdict(metric)}
        for metrics in sorted(sets, key=name_of)
        for position, metric in enumerate(metrics)
    ]
    if rows:
        connection.execute(db.insert(tables.metrics).on_conflict_do_nothing(), rows)


def read(connection: sa.Connection) -> dict[str, MetricSet]:
    """All recorded sets by name: a handful, one for each kind of task and metric."""
    t = tables.metrics
    columns = [t.c[name] for name in MetricRow.__dataclass_fields__]
    sets: dict[str, list[MetricRow]] = {}
    for name, *values in connection.execute(sa.select(t.c.metric_set, *columns).order_by(t.c.metric_set, t.c.position)):
        sets.setdefault(name, []).append(MetricRow(*values))
    return {name: tuple(metrics) for name, metrics in sets.items()}
