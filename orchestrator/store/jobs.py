"""Jobs and their stages in the store: records them, changes their state, lists and finds them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from orchestrator.errors import NotFound
from orchestrator.records.rows import JobRecord, JobRow
from orchestrator.records.states import JobState, TrialState
from orchestrator.store import leases, name_errors, tables
from orchestrator.store.column_types import refuse_what_does_not_fit
from orchestrator.store.database import Database, fields_of, object_of, state_of, to_json

_jobs, _stages, _trials, _placed = tables.jobs, tables.stages, tables.trials, tables.placed


class Jobs:
    """The rows of jobs and of their stages. Methods that take a job id raise NotFound for an unknown one."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def put(self, job: JobRecord) -> bool:
        """Records the job and returns True, or returns False if it is recorded already.

        For a recorded job only the priority and the versions of the code are updated: the code is what the trials
        that start from now on run with. An earlier request to cancel it is withdrawn. Raises SpecError for a job that
        the databases cannot keep.
        """
        refuse_what_does_not_fit(dict(job.spec), "spec")
        refuse_what_does_not_fit({"name": job.name, "profile": job.profile, "priority": job.priority}, "job")

        def work(connection: sa.Connection) -> bool:
            now = self._db.now(connection)
            code = {
                "git_commit": job.git_commit,
                "git_dirty": job.git_dirty,
                "versions_json": to_json(dict(job.versions)),
            }
            insert = (
                self._db.insert(_jobs)
                .values(
                    id=job.id, name=job.name, profile=job.profile, spec_json=to_json(job.spec),
                    spec_text=job.spec_text, priority=job.priority, state=JobState.queued, message="",
                    cancel=False, created=now, updated=now, **code,
                )
                .on_conflict_do_nothing()
                .returning(_jobs.c.id)
            )  # fmt: skip
            if connection.execute(insert).first():
                return True
            self._update(connection, job.id, priority=job.priority, cancel=False, **code)
            return False

        return self._db.write(work)

    def set_state(self, job_id: str, state: JobState | str, message: str = "") -> None:
        """Sets state and message."""
        self._db.write(lambda connection: self._update(connection, job_id, state=JobState(state), message=message))

    def request_cancel(self, job_id: str) -> None:
        """Asks the job's driver to stop; the driver polls `cancel_requested`."""
        self._db.write(lambda connection: self._update(connection, job_id, cancel=True))

    def put_seconds_left(self, job_id: str, seconds: float) -> None:
        """Records when the job will end, as its driver estimates it now."""

        def work(connection: sa.Connection) -> None:
            values = {"seconds_left": seconds, "written": self._db.now(connection)}
            insert = self._db.insert(tables.estimates).values(job_id=job_id, **values)
            connection.execute(insert.on_conflict_do_update(index_elements=["job_id"], set_=values))

        self._db.write(work)

    def forget_seconds_left(self, job_id: str) -> None:
        """Removes the estimate of an earlier driver, which knew nothing of the one that begins now."""
        old = sa.delete(tables.estimates).where(tables.estimates.c.job_id == job_id)
        self._db.write(lambda connection: connection.execute(old))

    def seconds_left(self, job_id: str) -> tuple[float, float] | None:
        """What the job's driver last estimated, and how many seconds ago; None if it never did."""
        t = tables.estimates

        def work(connection: sa.Connection) -> tuple[float, float] | None:
            if not sa.inspect(connection).has_table(t.name):  # a store of an earlier version, only looked at
                return None
            row = connection.execute(sa.select(t.c.seconds_left, t.c.written).where(t.c.job_id == job_id)).first()
            return None if row is None else (row[0], max(0.0, self._db.now(connection) - row[1]))

        return self._db.read(work)

    def cancel_requested(self, job_id: str) -> bool:
        """True if somebody asked for the job to stop; False for an unknown job too."""
        query = sa.select(_jobs.c.cancel).where(_jobs.c.id == job_id)
        return bool(self._db.read(lambda connection: connection.execute(query).scalar()))

    def all(self) -> list[JobRow]:
        """All jobs, the newest first."""
        return self._db.read(self._rows)

    def get(self, job_id: str) -> JobRow:
        """One job with the number of its trials in each state."""
        rows = self._db.read(lambda connection: self._rows(connection, job_id))
        if not rows:
            raise NotFound(f"no job {job_id} in this store")
        return rows[0]

    def spec(self, job_id: str) -> dict[str, Any]:
        """The job's spec as JSON, after the profile and overrides were applied."""
        return fields_of(self._column(job_id, _jobs.c.spec_json), f"spec_json of job {job_id}")

    def text(self, job_id: str) -> str:
        """The text of the submitted file."""
        return self._column(job_id, _jobs.c.spec_text)

    def find(self, prefix: str) -> str:
        """The id of the newest job with this name, or else of the one job whose id starts with `prefix`.

        Raises NotFound if there is none, Conflict if several ids start so.
        """
        return self._db.read(lambda connection: _find(connection, prefix))

    def put_stages(self, job_id: str, stages: Iterable[tuple[str, int, Mapping[str, Any]]]) -> None:
        """Records the job's stages, each as (name, position, body); a recorded stage does not change."""
        rows = [
            {"job_id": job_id, "name": name, "position": position, "body_json": to_json(body)}
            for name, position, body in stages
        ]
        if rows:
            insert = self._db.insert(_stages).on_conflict_do_nothing()
            self._db.write(lambda connection: connection.execute(insert, rows) and None)

    def stages(self, job_id: str) -> list[tuple[str, int, dict[str, Any]]]:
        """The job's stages as (name, position, body), by position."""
        query = sa.select(_stages).where(_stages.c.job_id == job_id).order_by(_stages.c.position)
        rows = self._db.read(lambda connection: connection.execute(query).all())
        return [(row.name, row.position, fields_of(row.body_json, f"body_json of stage {row.name}")) for row in rows]

    def retry(self, job_id: str) -> int:
        """Makes the job's failed and cancelled trials pending again and returns how many; their attempts are kept."""

        def work(connection: sa.Connection) -> int:
            self._update(connection, job_id, cancel=False)
            trial_ids = sa.select(_placed.c.trial_id).where(_placed.c.job_id == job_id)
            changed = connection.execute(
                sa.update(_trials)
                .where(_trials.c.id.in_(trial_ids), _trials.c.state.in_([TrialState.failed, TrialState.cancelled]))
                .values(state=TrialState.pending, error_class=None, error=None, ended=None)
            )
            return changed.rowcount

        return self._db.write(work)

    def _update(self, connection: sa.Connection, job_id: str, **values: Any) -> None:
        updated = connection.execute(
            sa.update(_jobs).where(_jobs.c.id == job_id).values(updated=self._db.now(connection), **values)
        )
        if updated.rowcount == 0:
            raise NotFound(f"no job {job_id} in this store")

    def _column(self, job_id: str, column: sa.Column[str]) -> str:
        query = sa.select(column).where(_jobs.c.id == job_id)
        value = self._db.read(lambda connection: connection.execute(query).scalar_one_or_none())
        if value is None:
            raise NotFound(f"no job {job_id} in this store")
        return value

    def _rows(self, connection: sa.Connection, job_id: str | None = None) -> list[JobRow]:
        query = sa.select(*[c for c in _jobs.c if c.name not in ("spec_json", "spec_text")])
        counting = (
            sa.select(_placed.c.job_id, _trials.c.state, sa.func.count())
            .join(_trials, _trials.c.id == _placed.c.trial_id)
            .group_by(_placed.c.job_id, _trials.c.state)
        )
        if job_id is not None:
            query, counting = query.where(_jobs.c.id == job_id), counting.where(_placed.c.job_id == job_id)
        rows = connection.execute(query.order_by(_jobs.c.created.desc(), _jobs.c.id)).all()
        counts: dict[str, dict[TrialState, int]] = defaultdict(lambda: dict.fromkeys(TrialState, 0))
        for job, state, count in connection.execute(counting):
            counts[job][state_of(TrialState, state)] = count
        driven: set[str] = set()
        if any(row.state == JobState.running for row in rows):
            driven = {driver.job_id for driver in leases.live_drivers(self._db, connection)}
        return [
            JobRow(
                id=row.id,
                name=row.name,
                profile=row.profile,
                state=JobState.interrupted
                if row.state == JobState.running and row.id not in driven
                else state_of(JobState, row.state),
                message=row.message,
                priority=row.priority,
                cancel=row.cancel,
                git_commit=row.git_commit,
                git_dirty=row.git_dirty,
                versions=object_of(row.versions_json, f"versions_json of job {row.id}"),
                created=row.created,
                updated=row.updated,
                counts=counts[row.id],
            )
            for row in rows
        ]


def _find(connection: sa.Connection, prefix: str) -> str:
    newest = sa.select(_jobs.c.id, _jobs.c.name).order_by(_jobs.c.created.desc(), _jobs.c.id)
    rows = connection.execute(newest).all()
    named = [row.id for row in rows if row.name == prefix]
    if named:
        return str(named[0])
    matches = [row for row in rows if row.id.startswith(prefix)] if prefix else []
    if len(matches) == 1:
        return str(matches[0].id)
    if matches:
        raise name_errors.ambiguous("job", prefix, [f"{row.id[:12]} ({row.name})" for row in matches])
    raise name_errors.unknown("job", prefix, [row.name for row in rows] + [row.id for row in rows])
