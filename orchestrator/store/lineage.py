"""Lineage in the store: which trial follows from which, through weights and through choices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from orchestrator.errors import NotFound
from orchestrator.records.recorded_spec import has_given_weights, parents
from orchestrator.records.rows import ChildRow, ChoiceRow, ResolvedWeightsRow, StartRow
from orchestrator.records.states import TrialState
from orchestrator.store import tables
from orchestrator.store.choices import as_choice
from orchestrator.store.database import Database, chunks, object_of

_origins, _winners, _trials, _placed = tables.origins, tables.winners, tables.trials, tables.placed


class Lineage:
    """Where the weights and settings of trials come from, and which trials start from them."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def put_origins(self, job_id: str, rows: Sequence[ResolvedWeightsRow]) -> None:
        """Records, once, which trials of other jobs this job starts from.

        Raises NotFound, and records none of them, if the weights of one were removed since it was looked up.
        """

        def work(connection: sa.Connection) -> None:
            now = self._db.now(connection)
            for row in sorted(rows, key=lambda row: row.key):
                values = {**asdict(row), "grp": row.group, "job_id": job_id, "decided": now}
                values.pop("group")
                insert = self._db.insert(_origins).values(**values).on_conflict_do_nothing()
                if connection.execute(insert.returning(_origins.c.key)).first() is None:
                    continue  # recorded before
                # Lock the trial: a concurrent removal of its weights either sees this row or is seen here.
                trial = sa.select(_trials.c.weights_path).where(_trials.c.key == row.key)
                if connection.execute(trial.with_for_update(read=True, key_share=True)).scalar_one() is None:
                    raise NotFound(
                        f"weights of trial {row.key[:12]} (job {row.from_job}) were removed just now: submit again"
                    )

        self._db.write(work)

    def origins(self, written: str) -> dict[str, ResolvedWeightsRow]:
        """Which trials of other jobs were recorded for jobs with this content, by what was asked for.

        `written`: the hash of the job before other jobs were looked up.
        """
        query = sa.select(_origins).where(_origins.c.written == written).order_by(_origins.c.decided)
        rows = self._db.read(lambda connection: connection.execute(query).all())
        return {row.asked: _as_origin(row) for row in rows}

    def origins_of(self, job_ids: Iterable[str]) -> list[tuple[str, ResolvedWeightsRow]]:
        """(job, trial of another job that it starts from) for each of these jobs."""
        query = (
            sa.select(_origins)
            .where(_origins.c.job_id.in_(list(job_ids)))
            .order_by(_origins.c.job_id, _origins.c.asked)
        )
        rows = self._db.read(lambda connection: connection.execute(query).all())
        return [(row.job_id, _as_origin(row)) for row in rows]

    def decisions(self, places: Iterable[tuple[str, str, str]]) -> list[tuple[str, ChoiceRow]]:
        """(job, choice) that determined the settings at each of these places (job, stage, group)."""

        def work(connection: sa.Connection) -> list[tuple[str, ChoiceRow]]:
            choices = []
            for job_id, stage, group in places:
                w = _winners.c
                query = sa.select(_winners).where(w.job_id == job_id, w.stage == stage, w.grp == group)
                choices += [(job_id, as_choice(row)) for row in connection.execute(query)]
            return choices

        return self._db.read(work)

    def chosen(self, key: str) -> list[tuple[str, ChoiceRow]]:
        """(job, choice) for every choice that took this trial, the oldest first."""
        query = sa.select(_winners).where(_winners.c.key == key).order_by(_winners.c.decided, _winners.c.stage)
        rows = self._db.read(lambda connection: connection.execute(query).all())
        return [(row.job_id, as_choice(row)) for row in rows]

    def starts(self, keys: Iterable[str]) -> dict[str, StartRow]:
        """The weights that each of these trials starts from; unknown keys are left out."""

        def work(connection: sa.Connection) -> dict[str, StartRow]:
            found = {}
            for some_keys in chunks(keys):
                query = sa.select(_trials.c.key, _trials.c.spec_json).where(_trials.c.key.in_(some_keys))
                for key, text in connection.execute(query):
                    spec = object_of(text, f"spec_json of trial {key[:12]}")
                    found[key] = StartRow(tuple(parents(spec)), has_given_weights(spec))
            return found

        return self._db.read(work)

    def children(self, key: str) -> list[str]:
        """Keys of the trials that start from or read this trial's weights."""
        query = sa.select(_trials.c.key).where(_needs(key)).order_by(_trials.c.id)
        return list(self._db.read(lambda connection: connection.execute(query).scalars().all()))

    def first_children(self, key: str, limit: int) -> list[ChildRow]:
        """The first `limit` of `children`, each under the name of its first place."""
        name = (
            sa.select(_placed.c.name)
            .where(_placed.c.trial_id == _trials.c.id)
            .order_by(_placed.c.job_id, _placed.c.position)
            .limit(1)
            .scalar_subquery()
        )
        query = (
            sa.select(_trials.c.key, _trials.c.state, _trials.c.metric, _trials.c.value, name.label("name"))
            .where(_needs(key))
            .order_by(_trials.c.id)
            .limit(limit)
        )
        return [
            ChildRow(row.key, row.name or row.key[:12], TrialState(row.state), row.metric, row.value)
            for row in self._db.read(lambda connection: connection.execute(query).all())
        ]


def _needs(key: str) -> sa.ColumnElement[bool]:
    """The condition that a trial needs the weights of trial `key`."""
    t = tables.other_parents.c
    return sa.or_(_trials.c.parent == key, _trials.c.id.in_(sa.select(t.trial_id).where(t.parent == key)))


def _as_origin(row: Any) -> ResolvedWeightsRow:
    return ResolvedWeightsRow(
        row.asked, row.written, row.from_job, row.stage, row.grp, row.key, row.metric, row.value, row.candidates
    )
