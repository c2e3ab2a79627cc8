"""Records how much of each trial the tracking server has, so that mirroring can resume."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from orchestrator.records.rows import TrackedRun
from orchestrator.store import tables
from orchestrator.store.database import Database

_tracked = tables.tracked


class TrackedRuns:
    """The rows of tracked runs, by (stage, group, key); an empty key stands for the group's parent run."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def of(self, job_id: str) -> dict[tuple[str, str, str], TrackedRun]:
        """The job's runs by (stage, group, key)."""
        query = sa.select(_tracked).where(_tracked.c.job_id == job_id)
        rows = self._db.read(lambda connection: connection.execute(query).all())
        return {
            (row.stage, row.grp, row.key): TrackedRun(row.run_id, row.reports_through, row.closed, row.parent_run_id)
            for row in rows
        }

    def put(self, job_id: str, runs: Mapping[tuple[str, str, str], TrackedRun]) -> None:
        """Records runs by (stage, group, key); a recorded run is replaced."""
        rows = [
            {
                "job_id": job_id, "stage": stage, "grp": group, "key": key, "run_id": run.run_id,
                "parent_run_id": run.parent_run_id, "reports_through": run.reports_through, "closed": run.closed,
            }
            for (stage, group, key), run in runs.items()
        ]  # fmt: skip
        if not rows:
            return
        insert = self._db.insert(_tracked)
        names = ("run_id", "parent_run_id", "reports_through", "closed")
        upsert = insert.on_conflict_do_update(
            index_elements=["job_id", "stage", "grp", "key"],
            set_={name: insert.excluded[name] for name in names},
        )
        self._db.write(lambda connection: connection.execute(upsert, rows) and None)
