"""The only place with the queries behind lineage: which trial follows from which, by weights and by choices."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from orchestrator.errors import NotFound
from orchestrator.records.rows import ChildRow, ChoiceRow, ResolvedWeightsRow
from orchestrator.records.states import TrialState
from orchestrator.store import tables
from orchestrator.store.database import Database

_origins, _winners, _trials, _placed = tables.origins, tables.winners, tables.trials, tables.placed


def put_origins(db: Database, connection: sa.Connection, job_id: str, rows: Sequence[ResolvedWeightsRow]) -> None:
    """Raises NotFound when the weights of a trial were removed since it was found; then none is recorded."""
    now = db.now(connection)
    for row in sorted(rows, key=lambda row: row.key):
        values = {**asdict(row), "grp": row.group, "job_id": job_id, "decided": now}
        values.pop("group")
        insert = db.insert(_origins).values(**values).on_conflict_do_nothing().returning(_origins.c.key)
        if connection.execute(insert).first() is None:
            continue  # as recorded before
        # Locked, as is the trial whose weights are forgotten: either its weights are gone here, or this job is seen.
        trial = sa.select(_trials.c.weights_path).where(_trials.c.key == row.key)
        if connection.execute(trial.with_for_update(read=True, key_share=True)).scalar_one() is None:
            raise NotFound(f"weights of trial {row.key[:12]} (job {row.from_job}) were removed just now: submit again")


def origins(connection: sa.Connection, written: str) -> dict[str, ResolvedWeightsRow]:
    """By what was asked: what jobs with this content, before other jobs were looked up, start from."""
    query = sa.select(_origins).where(_origins.c.written == written).order_by(_origins.c.decided)
    return {row.asked: _origin(row) for row in connection.execute(query)}


def origins_of(connection: sa.Connection, job_ids: Iterable[str]) -> list[tuple[str, ResolvedWeightsRow]]:
    """(job that asked, what it starts from) of these jobs."""
    query = (
        sa.select(_origins).where(_origins.c.job_id.in_(list(job_ids))).order_by(_origins.c.job_id, _origins.c.asked)
    )
    return [(row.job_id, _origin(row)) for row in connection.execute(query)]


def _origin(row: Any) -> ResolvedWeightsRow:
    return ResolvedWeightsRow(
        row.asked, row.written, row.from_job, row.stage, row.grp, row.key, row.metric, row.value, row.candidates
    )


def decisions(connection: sa.Connection, places: Iterable[tuple[str, str, str]]) -> list[tuple[str, ChoiceRow]]:
    """(job, decision) by which these places (job, stage, group) got their settings."""
    found = []
    for job_id, stage, group in places:
        w = _winners.c
        query = sa.select(_winners).where(w.job_id == job_id, w.stage == stage, w.grp == group)
        found += [(job_id, _winner(row)) for row in connection.execute(query)]
    return found


def chosen(connection: sa.Connection, key: str) -> list[tuple[str, ChoiceRow]]:
    """(job, decision) by which this trial was taken."""
    query = sa.select(_winners).where(_winners.c.key == key).order_by(_winners.c.decided, _winners.c.stage)
    return [(row.job_id, _winner(row)) for row in connection.execute(query)]


def _winner(row: Any) -> ChoiceRow:
    return ChoiceRow(
        row.stage, row.grp, row.key, row.value, row.metric, json.loads(row.edges_json), json.loads(row.rule_json),
        row.candidates, json.loads(row.sources_json),
    )  # fmt: skip


def children(connection: sa.Connection, key: str, limit: int) -> list[ChildRow]:
    """The first trials that start from this one's weights, each under the name of its first place."""
    name = (
        sa.select(_placed.c.name)
        .where(_placed.c.trial_id == _trials.c.id)
        .order_by(_placed.c.job_id, _placed.c.position)
        .limit(1)
        .scalar_subquery()
    )
    query = (
        sa.select(_trials.c.key, _trials.c.state, _trials.c.metric, _trials.c.value, name.label("name"))
        .where(_trials.c.parent == key)
        .order_by(_trials.c.id)
        .limit(limit)
    )
    return [
        ChildRow(row.key, row.name or row.key[:12], TrialState(row.state), row.metric, row.value)
        for row in connection.execute(query)
    ]
