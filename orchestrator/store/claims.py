"""When claims were first submitted, in the store, and what of a trial tells how far its result was known then."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from orchestrator.records.claims import ClaimRow
from orchestrator.records.recorded_spec import lookup, parents
from orchestrator.store import tables
from orchestrator.store.database import Database, chunks, object_of

_claims, _trials, _attempts = tables.claims, tables.trials, tables.attempts

_ENDED = ("done", "diverged")
"""States with a result."""


class Claims:
    """The rows of claims."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def submit(self, job_id: str, claims: Mapping[str, Iterable[str]]) -> None:
        """Records claims of a job, each (its digest) with the keys of the trials that it reads. A claim that a job of
        this name and profile had before keeps its first time."""

        def work(connection: sa.Connection) -> None:
            name, profile = connection.execute(
                sa.select(tables.jobs.c.name, tables.jobs.c.profile).where(tables.jobs.c.id == job_id)
            ).one()
            now = self._db.now(connection)
            for digest, keys in sorted(claims.items()):
                read = list(dict.fromkeys(keys))
                ended = sum(
                    connection.execute(
                        sa.select(sa.func.count()).where(_trials.c.key.in_(some), _trials.c.state.in_(_ENDED))
                    ).scalar_one()
                    for some in chunks(read)
                )
                row = {
                    "job_name": name, "profile": profile, "digest": digest, "job_id": job_id, "submitted": now,
                    "ended": ended, "total": len(read),
                }  # fmt: skip
                connection.execute(self._db.insert(_claims).values(**row).on_conflict_do_nothing())

        if claims:
            self._db.write(work)

    def of(self, name: str, profile: str) -> dict[str, ClaimRow]:
        """The claims about a study (a job's name and profile), by digest."""
        columns = [_claims.c[field] for field in ClaimRow.__dataclass_fields__]
        query = sa.select(*columns).where(_claims.c.job_name == name, _claims.c.profile == profile)
        rows = self._db.read(lambda connection: connection.execute(query).all())
        return {row.digest: ClaimRow(*row) for row in rows}

    def first_results(self, keys: Iterable[str]) -> dict[str, float]:
        """When each of these trials first ended with a result (seconds since 1970); a trial that ran again for its
        weights keeps the first time. Trials without a result are left out."""
        found: dict[str, float] = {}

        def work(connection: sa.Connection) -> dict[str, float]:
            found.clear()
            for some in chunks(dict.fromkeys(keys)):
                query = (
                    sa.select(_trials.c.key, sa.func.min(_attempts.c.ended))
                    .join(_attempts, _attempts.c.trial_id == _trials.c.id)
                    .where(_trials.c.key.in_(some), _attempts.c.cause.in_(_ENDED), _attempts.c.ended.is_not(None))
                    .group_by(_trials.c.key)
                )
                found.update({row[0]: row[1] for row in connection.execute(query)})
            return found

        return dict(self._db.read(work))

    def initial_weights(self, keys: Iterable[str]) -> dict[str, str]:
        """The weights that each of these trials starts from or reads: keys of trials, or files; left out: none."""
        wanted = list(dict.fromkeys(keys))

        def work(connection: sa.Connection) -> dict[str, str]:
            found: dict[str, str] = {}
            for some in chunks(wanted):
                query = sa.select(_trials.c.key, _trials.c.spec_json).where(_trials.c.key.in_(some))
                for key, text in connection.execute(query):
                    spec = object_of(text, f"spec_json of trial {key[:12]}")
                    if weights := _weights(spec):
                        found[key] = weights
            return found

        return self._db.read(work)


def _weights(spec: Mapping[str, Any]) -> str:
    init = lookup(spec, "backbone.init", {})
    if from_trials := parents(spec):
        return " ".join(sorted(from_trials))
    kind = init.get("kind", "none")
    return "" if kind == "none" else ":".join(str(init.get(field, "")) for field in ("kind", "path", "sha256", "tag"))
