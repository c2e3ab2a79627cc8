"""The only place that records jobs, trials and what they showed, and answers what is known of them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from orchestrator.errors import Conflict, NotFound
from orchestrator.records.rows import (
    AttemptRow,
    ChildRow,
    ChoiceRow,
    DriverRow,
    JobRecord,
    JobRow,
    PlacedRow,
    Placement,
    ReportRow,
    ResolvedWeightsRow,
    Running,
    SearchEvent,
    TrackedRun,
    TrialRow,
)
from orchestrator.records.states import JobState, TrialSnapshot, TrialState
from orchestrator.records.writes import Write
from orchestrator.rules.retention import RetentionFacts
from orchestrator.settings import Settings
from orchestrator.store import leases, lineage, queries, search_log, tables, trial_events, weights
from orchestrator.store.database import Database, connect, to_json

LEASE_SECONDS = 30.0
"""A driver that has not been heard of for this long is dead."""


def open_store(url: str, create: bool = True) -> Store:
    """Opens the store at sqlite:///FILE or postgresql://..., making it or migrating it where needed.

    Raises NotFound (`create` False and nothing there), BackendUnreachable (no answer, read-only, disk full, a
    network file system), Conflict (written by a newer version).
    """
    return Store(connect(url, create))


class Store:
    """Every method is one transaction. Times are seconds since 1970 (UTC) by the database's clock."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def close(self) -> None:
        self._db.close()

    # Jobs

    def put_job(self, job: JobRecord) -> bool:
        """Records the job; False when it was there. Then only commit and versions of the code are renewed: they are
        those of the trials that run from now on."""

        def work(connection: sa.Connection) -> bool:
            now = self._db.now(connection)
            code = {
                "git_commit": job.git_commit,
                "git_dirty": job.git_dirty,
                "versions_json": to_json(dict(job.versions)),
            }
            made = (
                self._db.insert(tables.jobs)
                .values(
                    id=job.id, name=job.name, profile=job.profile, spec_json=to_json(job.spec),
                    spec_text=job.spec_text, priority=job.priority, state=JobState.queued, message="",
                    cancel=False, created=now, updated=now, **code,
                )
                .on_conflict_do_nothing()
                .returning(tables.jobs.c.id)
            )  # fmt: skip
            if connection.execute(made).first():
                return True
            self._update_job(connection, job.id, priority=job.priority, **code)
            return False

        return self._db.write(work)

    def _update_job(self, connection: sa.Connection, job_id: str, **values: Any) -> None:
        found = connection.execute(
            sa.update(tables.jobs).where(tables.jobs.c.id == job_id).values(updated=self._db.now(connection), **values)
        )
        if found.rowcount == 0:
            raise NotFound(f"no job {job_id} in this store")

    def set_job_state(self, job_id: str, state: JobState | str, message: str = "") -> None:
        """`running` also withdraws an earlier request to cancel: the job was submitted again."""
        withdrawn = {"cancel": False} if state == JobState.running else {}
        self._db.write(
            lambda connection: self._update_job(connection, job_id, state=JobState(state), message=message, **withdrawn)
        )

    def request_cancel(self, job_id: str) -> None:
        """Asks the job's driver to stop; it does so at its next look."""
        self._db.write(lambda connection: self._update_job(connection, job_id, cancel=True))

    def cancel_requested(self, job_id: str) -> bool:
        query = sa.select(tables.jobs.c.cancel).where(tables.jobs.c.id == job_id)
        return bool(self._db.read(lambda connection: connection.execute(query).scalar()))

    def jobs(self) -> list[JobRow]:
        """All jobs, the newest first."""
        return self._db.read(lambda connection: queries.jobs(self._db, connection))

    def job(self, job_id: str) -> JobRow:
        found = self._db.read(lambda connection: queries.jobs(self._db, connection, job_id))
        if not found:
            raise NotFound(f"no job {job_id} in this store")
        return found[0]

    def job_spec(self, job_id: str) -> dict[str, Any]:
        """The resolved spec, as it was submitted."""
        return dict(json.loads(self._job_column(job_id, tables.jobs.c.spec_json)))

    def job_text(self, job_id: str) -> str:
        """The text of the file that was submitted."""
        return self._job_column(job_id, tables.jobs.c.spec_text)

    def _job_column(self, job_id: str, column: sa.Column[str]) -> str:
        query = sa.select(column).where(tables.jobs.c.id == job_id)
        found = self._db.read(lambda connection: connection.execute(query).scalar_one_or_none())
        if found is None:
            raise NotFound(f"no job {job_id} in this store")
        return found

    def find_job(self, prefix: str) -> str:
        """The id of the job with this name (the newest one) or with an id that starts so."""
        return self._db.read(lambda connection: queries.find_job(connection, prefix))

    def find_trial(self, prefix: str) -> str:
        """The key of the trial that starts so, or that has this display name in the newest job with such a name."""
        return self._db.read(lambda connection: queries.find_trial(connection, prefix))

    # Stages, places, winners

    def put_stages(self, job_id: str, stages: Iterable[tuple[str, int, Mapping[str, Any]]]) -> None:
        rows = [
            {"job_id": job_id, "name": name, "position": position, "body_json": to_json(body)}
            for name, position, body in stages
        ]
        if rows:
            insert = self._db.insert(tables.stages).on_conflict_do_nothing()
            self._db.write(lambda connection: connection.execute(insert, rows) and None)

    def stages(self, job_id: str) -> list[tuple[str, int, dict[str, Any]]]:
        query = sa.select(tables.stages).where(tables.stages.c.job_id == job_id).order_by(tables.stages.c.position)
        rows = self._db.read(lambda connection: connection.execute(query).all())
        return [(row.name, row.position, json.loads(row.body_json)) for row in rows]

    def place(
        self, job_id: str, placements: Sequence[Placement], events: Sequence[tuple[search_log.Place, SearchEvent]] = ()
    ) -> dict[str, TrialSnapshot]:
        """Makes the trials that are new (pending) and records their places in the job; says what is known of all, in
        the order of `placements`. `events`: of the searches that led to them, recorded with them or not at all; raises
        Conflict when another driver has gone on with one of these searches."""

        def work(connection: sa.Connection) -> dict[str, TrialSnapshot]:
            known = queries.place(self._db, connection, job_id, placements)
            search_log.append(self._db, connection, job_id, events)
            return {placement.key: known[placement.key] for placement in placements}

        return self._db.write(work)

    def search_events(self, job_id: str) -> dict[search_log.Place, list[SearchEvent]]:
        """By (stage, group): what the job's searches asked for, were told and decided, in their order."""
        return self._db.read(lambda connection: search_log.events(connection, job_id))

    def mark_stopped(self, reasons: Mapping[str, str]) -> None:
        """Trials (key -> why) that a search ended are `stopped`, where nobody runs them."""
        if reasons:
            self._db.write(lambda connection: search_log.mark_stopped(self._db, connection, reasons))

    def placed(self, job_id: str, stage: str | None = None) -> list[PlacedRow]:
        """The job's trials, with how far each is: by stage (as put_stages gave them), group and position."""
        return self._db.read(lambda connection: queries.placed(connection, job_id, stage))

    def decide(self, job_id: str, winner: ChoiceRow) -> None:
        """Records a choice. The same choice again changes nothing; another one for the same group is a Conflict."""

        def work(connection: sa.Connection) -> None:
            t = tables.winners
            row = {
                "job_id": job_id, "stage": winner.stage, "grp": winner.group, "key": winner.key,
                "value": winner.value, "metric": winner.metric, "edges_json": to_json(winner.edges),
                "rule_json": to_json(winner.rule), "candidates": winner.candidates,
                "sources_json": to_json(winner.sources), "decided": self._db.now(connection),
            }  # fmt: skip
            made = self._db.insert(t).values(**row).on_conflict_do_nothing().returning(t.c.key)
            if connection.execute(made).first():
                return
            same_place = (t.c.job_id == job_id) & (t.c.stage == winner.stage) & (t.c.grp == winner.group)
            before = connection.execute(sa.select(t.c.key).where(same_place)).scalar_one()
            if before != winner.key:
                raise Conflict(
                    f"job {job_id}: stage {winner.stage} had taken trial {before[:12]} for {winner.group}, not "
                    f"{winner.key[:12]}; a recorded choice does not change: submit under another name"
                )

        self._db.write(work)

    def winners(self, job_id: str) -> list[ChoiceRow]:
        query = (
            sa.select(tables.winners)
            .where(tables.winners.c.job_id == job_id)
            .order_by(tables.winners.c.decided, tables.winners.c.stage, tables.winners.c.grp)
        )
        rows = self._db.read(lambda connection: connection.execute(query).all())
        return [
            ChoiceRow(row.stage, row.grp, row.key, row.value, row.metric, json.loads(row.edges_json),
                      json.loads(row.rule_json), row.candidates, json.loads(row.sources_json))
            for row in rows
        ]  # fmt: skip

    def retry(self, job_id: str) -> int:
        """Failed and cancelled trials of the job become pending; their attempts stay. Says how many."""

        def work(connection: sa.Connection) -> int:
            self._update_job(connection, job_id, cancel=False)
            mine = sa.select(tables.placed.c.trial_id).where(tables.placed.c.job_id == job_id)
            changed = connection.execute(
                sa.update(tables.trials)
                .where(
                    tables.trials.c.id.in_(mine),
                    tables.trials.c.state.in_([TrialState.failed, TrialState.cancelled]),
                )
                .values(state=TrialState.pending, error_class=None, error=None, ended=None)
            )
            return changed.rowcount

        return self._db.write(work)

    # Drivers and what they hold

    def register_driver(self, driver: DriverRow, ttl_s: float = LEASE_SECONDS) -> None:
        self._db.write(lambda connection: leases.register(self._db, connection, driver, ttl_s))

    def heartbeat(self, driver_id: str, demand: int, running: int, ttl_s: float = LEASE_SECONDS) -> list[DriverRow]:
        """Keeps the lease alive; says which drivers are. Raises LeaseLost when it was forgotten meanwhile."""
        return self._db.write(
            lambda connection: leases.heartbeat(self._db, connection, driver_id, demand, running, ttl_s)
        )

    def unregister_driver(self, driver_id: str) -> None:
        """What it still holds is free at once."""
        gone = sa.delete(tables.drivers).where(tables.drivers.c.id == driver_id)
        self._db.write(lambda connection: connection.execute(gone) and None)

    def drivers(self) -> list[DriverRow]:
        """Those alive."""
        return self._db.read(lambda connection: leases.live_drivers(self._db, connection))

    def claim(self, driver_id: str, keys: Iterable[str], for_weights: bool = False) -> dict[str, int]:
        """Of these trials, those that are now this driver's, each with the token of its new attempt: pending ones,
        and running ones whose driver is dead (their old attempt is closed as driver_lost). `for_weights`: done ones
        too whose weights were not kept."""
        return self._db.write(lambda connection: leases.claim(self._db, connection, driver_id, keys, for_weights))

    def adopt(self, driver_id: str, key: str, token: int) -> bool:
        """Whether the running attempt `token` goes on under this driver; its old driver must be dead."""
        return self._db.write(lambda connection: leases.adopt(self._db, connection, driver_id, key, token))

    def running(self, cluster: str | None = None) -> list[Running]:
        """Trials that are out, of all jobs (on one cluster)."""
        return self._db.read(lambda connection: leases.running(self._db, connection, cluster))

    def commit(self, driver_id: str, writes: Sequence[Write]) -> None:
        """Records what trials said: all of it, or nothing and LeaseLost when one trial is in other hands.

        To say again what is recorded already is no error, so a lost acknowledgement can be answered by a repeat.
        """
        if writes:
            self._db.write(lambda connection: trial_events.commit(self._db, connection, driver_id, writes))

    # Trials

    def snapshots(self, keys: Iterable[str]) -> dict[str, TrialSnapshot]:
        """What is known of these trials; one that is not in the store is left out."""
        return self._db.read(lambda connection: queries.snapshots(connection, keys))

    def timed_trials(self, limit: int = 200) -> list[tuple[dict[str, Any], TrialSnapshot]]:
        """(spec, known) of the newest done trials that have a step time: what estimates are made from."""
        return self._db.read(lambda connection: queries.timed_trials(connection, limit))

    def trial(self, key: str) -> TrialRow:
        return self._db.read(lambda connection: queries.trial(connection, key))

    def children(self, key: str) -> list[str]:
        """Keys of the trials that start from this one's weights."""
        query = sa.select(tables.trials.c.key).where(tables.trials.c.parent == key).order_by(tables.trials.c.id)
        return list(self._db.read(lambda connection: connection.execute(query).scalars().all()))

    def attempts(self, key: str) -> list[AttemptRow]:
        t = tables.attempts
        columns = [t.c[name] for name in AttemptRow.__dataclass_fields__]
        query = (
            sa.select(*columns)
            .join(tables.trials, tables.trials.c.id == t.c.trial_id)
            .where(tables.trials.c.key == key)
            .order_by(t.c.token)
        )
        return [AttemptRow(*row) for row in self._db.read(lambda connection: connection.execute(query).all())]

    def figures(self, keys: Iterable[str]) -> dict[str, dict[str, float]]:
        return self._db.read(lambda connection: queries.figures(connection, keys))

    def reports(self, key: str) -> list[ReportRow]:
        """By epoch."""
        return self.reports_since({key: 0}).get(key, [])

    def reports_since(self, keys: Mapping[str, int]) -> dict[str, list[ReportRow]]:
        """Of each trial, the reports after the epoch given."""
        by_epoch: dict[int, list[str]] = defaultdict(list)
        for key, epoch in keys.items():
            by_epoch[epoch].append(key)
        return self._db.read(lambda connection: queries.reports(connection, by_epoch))

    def pictures(self, keys: Iterable[str]) -> dict[str, list[tuple[int, str]]]:
        """Of each trial that made any: (epoch, file relative to the trial's folder), by epoch and name."""
        return self._db.read(lambda connection: queries.pictures(connection, keys))

    # Lineage

    def put_origins(self, job_id: str, rows: Sequence[ResolvedWeightsRow]) -> None:
        """Records which trials of other jobs a job starts from, once. Raises NotFound when weights are gone by now."""
        self._db.write(lambda connection: lineage.put_origins(self._db, connection, job_id, rows))

    def origins(self, written: str) -> dict[str, ResolvedWeightsRow]:
        """By what was asked: what a job of this content (before other jobs were looked up) started from."""
        return self._db.read(lambda connection: lineage.origins(connection, written))

    def origins_of(self, job_ids: Iterable[str]) -> list[tuple[str, ResolvedWeightsRow]]:
        """(job, what it starts from of another job)."""
        return self._db.read(lambda connection: lineage.origins_of(connection, job_ids))

    def decisions(self, places: Iterable[tuple[str, str, str]]) -> list[tuple[str, ChoiceRow]]:
        """(job, decision) by which places (job, stage, group) got their settings."""
        return self._db.read(lambda connection: lineage.decisions(connection, places))

    def chosen(self, key: str) -> list[tuple[str, ChoiceRow]]:
        """(job, decision) by which a trial was taken."""
        return self._db.read(lambda connection: lineage.chosen(connection, key))

    def first_children(self, key: str, limit: int) -> list[ChildRow]:
        """The first of those that `children` names."""
        return self._db.read(lambda connection: lineage.children(connection, key, limit))

    # What is kept

    def pin(self, target: str, why: str = "") -> bool:
        """Keeps the weights of a trial (its key) or of all trials of a job (its id); whether that is new."""
        return self._db.write(lambda connection: weights.pin(self._db, connection, target, why))

    def unpin(self, target: str) -> bool:
        """Whether it was pinned."""
        return self._db.write(lambda connection: weights.unpin(connection, target))

    def pins(self) -> dict[str, str]:
        """Key of a trial, or id of a job -> why it is pinned."""
        return self._db.read(weights.pins)

    def retention_facts(self) -> RetentionFacts:
        """What decides whose weights are kept: see `keep.reasons`."""
        return self._db.read(weights.facts)

    def forget_weights(self, keys: Iterable[str]) -> set[str]:
        """Records weights as not kept; only of trials that are done and by now have no reason to be kept. Who they
        are: their files may go. A trial whose weights are needed again runs once more."""
        return self._db.write(lambda connection: weights.forget(connection, keys))

    def forget_lost(self, paths: Mapping[str, str]) -> None:
        """Records weights as not kept that are not where the store has them (key -> that path), whoever needs them."""
        self._db.write(lambda connection: weights.forget_lost(connection, paths))

    def with_unclaimed(
        self, key: str, token: int, states: Collection[TrialState], work: Callable[[bool], None]
    ) -> bool:
        """Calls `work(whether weights are recorded)` while no driver can claim the trial, if it is still in one of
        these states and was not begun again since attempt `token`; whether so. `work` may be called twice."""
        return self._db.write(lambda connection: weights.with_unclaimed(connection, key, token, states, work))

    # The tracking mirror

    def tracked(self, job_id: str) -> dict[tuple[str, str, str], TrackedRun]:
        """By (stage, group, key); the key is empty for the group's parent run."""
        query = sa.select(tables.tracked).where(tables.tracked.c.job_id == job_id)
        rows = self._db.read(lambda connection: connection.execute(query).all())
        return {
            (row.stage, row.grp, row.key): TrackedRun(row.run_id, row.reports_through, row.closed, row.parent_run_id)
            for row in rows
        }

    def put_tracked(self, job_id: str, runs: Mapping[tuple[str, str, str], TrackedRun]) -> None:
        rows = [
            {
                "job_id": job_id, "stage": stage, "grp": group, "key": key, "run_id": run.run_id,
                "parent_run_id": run.parent_run_id, "reports_through": run.reports_through, "closed": run.closed,
            }
            for (stage, group, key), run in runs.items()
        ]  # fmt: skip
        if not rows:
            return
        insert = self._db.insert(tables.tracked)
        names = ("run_id", "parent_run_id", "reports_through", "closed")
        upsert = insert.on_conflict_do_update(
            index_elements=["job_id", "stage", "grp", "key"],
            set_={name: insert.excluded[name] for name in names},
        )
        self._db.write(lambda connection: connection.execute(upsert, rows) and None)


def open_existing(where: Settings) -> Store:
    """The store, which must be there already. Raises NotFound or BackendUnreachable."""
    try:
        return open_store(where.database_url, create=False)
    except NotFound as error:
        raise NotFound(f"{error}\nNothing was submitted here yet; --runs and DATABASE_URL name places.") from error
