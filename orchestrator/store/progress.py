"""How far running trials are, by their last reports; fast at millions of reports."""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from orchestrator.records.rows import LastReport
from orchestrator.store import name_errors, tables
from orchestrator.store.database import Database, chunks, object_of

_jobs, _trials, _placed, _reports = tables.jobs, tables.trials, tables.placed, tables.reports
_LAST = (
    sa.select(_trials.c.key, _reports.c.epoch, _reports.c.values_json)
    .join(_reports, (_reports.c.trial_id == _trials.c.id) & (_reports.c.epoch == _trials.c.epoch))
    .where(_trials.c.key.in_(sa.bindparam("keys", expanding=True)))
)
_MEANS = (
    sa.select(_trials.c.key, sa.func.avg(_reports.c.seconds))
    .join(_reports, _reports.c.trial_id == _trials.c.id)
    .where(_trials.c.key.in_(sa.bindparam("keys", expanding=True)))
    .group_by(_trials.c.key)
)


class TrialProgress:
    """Reads what trials last reported, and finds groups by their names."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def last_reports(self, keys: Iterable[str]) -> dict[str, LastReport]:
        """The last report of each of these trials that has any."""
        wanted = list(keys)

        def work(connection: sa.Connection) -> dict[str, LastReport]:
            found: dict[str, LastReport] = {}
            for some in chunks(wanted):
                means = {row[0]: row[1] for row in connection.execute(_MEANS, {"keys": some})}
                for key, epoch, values in connection.execute(_LAST, {"keys": some}):
                    content = object_of(values, f"values_json of trial {key[:12]}")
                    found[key] = LastReport(epoch, content, float(means[key]))
            return found

        return self._db.read(work)

    def find_group(self, name: str) -> tuple[str, str, str]:
        """(job, stage, group) of a group by the name that MLflow shows, stage/group, in the newest job that has it.
        Raises NotFound, naming those most like it."""
        stage, _, group = name.partition("/")
        query = (
            sa.select(_placed.c.job_id)
            .join(_jobs, _jobs.c.id == _placed.c.job_id)
            .where(_placed.c.stage == stage, _placed.c.grp == group)
            .order_by(_jobs.c.created.desc())
            .limit(1)
        )

        def work(connection: sa.Connection) -> tuple[str, str, str]:
            job = connection.execute(query).scalar_one_or_none()
            if job is not None:
                return str(job), stage, group
            rows = connection.execute(sa.select(_placed.c.stage, _placed.c.grp).distinct().limit(2000))
            raise name_errors.unknown("group", name, [f"{row[0]}/{row[1]}" for row in rows])

        return self._db.read(work)
