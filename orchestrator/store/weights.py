"""Which trials have weights in the store, which are pinned, and which weights nothing needs any more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from orchestrator.records.recorded_spec import is_part, replicates, trains_on
from orchestrator.records.states import JobState, TrialState
from orchestrator.rules.retention import (
    GroupCandidates,
    Job,
    PlacedTrial,
    RetentionFacts,
    Trial,
    reasons,
    tied_for_first,
)
from orchestrator.rules.selection import Candidate
from orchestrator.store import tables
from orchestrator.store.database import Database, chunks, fields_of, object_of, state_of
from orchestrator.store.trials import read_figures

_trials, _placed, _jobs, _pins = tables.trials, tables.placed, tables.jobs, tables.pins


class Weights:
    """The recorded weights of trials, and the pins that keep them."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def pin(self, target: str, why: str = "") -> bool:
        """Keeps the weights of a trial (its key) or of all trials of a job (its id); returns True if that is new.

        A new reason replaces the old one.
        """

        def work(connection: sa.Connection) -> bool:
            # Lock the trials: a removal of weights that has begun ends before the pin is recorded.
            of_job = sa.select(_placed.c.trial_id).where(_placed.c.job_id == target)
            trials = sa.select(_trials.c.id).where((_trials.c.key == target) | _trials.c.id.in_(of_job))
            connection.execute(trials.order_by(_trials.c.id).with_for_update(read=True, key_share=True)).all()
            pinned = connection.execute(sa.select(_pins.c.key).where(_pins.c.key == target)).first()
            insert = self._db.insert(_pins).values(key=target, why=why, time=self._db.now(connection))
            if pinned is None:
                connection.execute(insert.on_conflict_do_nothing())
            elif why:
                connection.execute(sa.update(_pins).where(_pins.c.key == target).values(why=why))
            return pinned is None

        return self._db.write(work)

    def unpin(self, target: str) -> bool:
        """Removes a pin; returns True if there was one."""
        delete = sa.delete(_pins).where(_pins.c.key == target)
        return self._db.write(lambda connection: connection.execute(delete).rowcount > 0)

    def pins(self) -> dict[str, str]:
        """Key of a trial, or id of a job -> why it is pinned, the oldest first."""
        return self._db.read(_read_pins)

    def paths(self, keys: Iterable[str]) -> dict[str, str]:
        """The recorded path of the weights (see records.trial_files) of each of these trials that kept them."""
        wanted = list(keys)

        def work(connection: sa.Connection) -> dict[str, str]:
            found: dict[str, str] = {}
            for some in chunks(wanted):
                query = sa.select(_trials.c.key, _trials.c.weights_path)
                kept = query.where(_trials.c.key.in_(some), _trials.c.weights_path.is_not(None))
                found.update({row[0]: row[1] for row in connection.execute(kept)})
            return found

        return self._db.read(work)

    def retention_facts(self) -> RetentionFacts:
        """Everything that `rules.retention.reasons` needs, as of one moment."""
        return self._db.read(_read_facts)

    def forget(self, keys: Iterable[str]) -> set[str]:
        """Records as not kept the weights of those of these trials that are done and have no reason to keep them.

        Returns the keys of those trials: the files may then be deleted. A trial whose weights are needed again runs
        once more. Trials that a driver writes to at this moment are skipped. The rows are locked before the reasons
        are read, and `Trials.place` locks the parents of the trials it places: so either the new trial is seen here,
        or its driver sees that the weights are gone.
        """
        wanted = sorted(set(keys))

        def work(connection: sa.Connection) -> set[str]:
            locked: set[str] = set()
            t = _trials.c
            for some_keys in chunks(wanted):
                query = (
                    sa.select(t.key)
                    .where(t.key.in_(some_keys), t.state == TrialState.done, t.weights_path.is_not(None))
                    .order_by(t.id)
                    .with_for_update(skip_locked=True)
                )
                locked.update(connection.execute(query).scalars())
            unneeded = locked - set(reasons(_read_facts(connection))) if locked else set()
            for some_keys in chunks(sorted(unneeded)):
                connection.execute(
                    sa.update(_trials).where(t.key.in_(some_keys)).values(weights_path=None, weights_sha256=None)
                )
            return unneeded

        return self._db.write(work)

    def forget_lost(self, paths: Mapping[str, str]) -> None:
        """Records as not kept, even if needed, the weights of done trials (key -> path) that still have this path."""

        def work(connection: sa.Connection) -> None:
            t = _trials.c
            for key, path in sorted(paths.items()):
                same = (t.key == key) & (t.weights_path == path) & (t.state == TrialState.done)
                connection.execute(sa.update(_trials).where(same).values(weights_path=None, weights_sha256=None))

        self._db.write(work)

    def with_unclaimed(
        self, key: str, token: int, states: Collection[TrialState], work: Callable[[bool], None]
    ) -> bool:
        """Calls `work(has_weights)` while no driver can claim the trial; returns True if it did.

        `has_weights`: whether weights are recorded. `work` is not called if the trial is in none of `states`, was
        started again since attempt `token`, or is being written to by a driver; it may be called twice.
        """
        query = (
            sa.select(_trials.c.state, _trials.c.token, _trials.c.weights_path)
            .where(_trials.c.key == key)
            .with_for_update(skip_locked=True)
        )

        def locked(connection: sa.Connection) -> bool:
            row = connection.execute(query).one_or_none()
            if row is None or row.token != token or TrialState(row.state) not in states:
                return False
            work(row.weights_path is not None)
            return True

        return self._db.write(locked)


def _read_pins(connection: sa.Connection) -> dict[str, str]:
    rows = connection.execute(sa.select(_pins.c.key, _pins.c.why).order_by(_pins.c.time, _pins.c.key))
    return {row.key: row.why for row in rows}


def _read_facts(connection: sa.Connection) -> RetentionFacts:
    """Reads everything at one moment; a trial is named after its first place."""
    places = [
        (PlacedTrial(row.job_id, row.stage, row.grp, row.key), row.name)
        for row in connection.execute(
            sa.select(_placed.c.job_id, _placed.c.stage, _placed.c.grp, _placed.c.name, _trials.c.key)
            .join(_trials, _trials.c.id == _placed.c.trial_id)
            .order_by(_placed.c.trial_id, _placed.c.job_id)
        )
    ]
    names: dict[str, str] = {}
    for place, name in places:
        names.setdefault(place.key, name)
    columns = [_trials.c[n] for n in ("id", "key", "parent", "state", "weights_path", "token", "ended")]
    others: dict[int, list[str]] = defaultdict(list)
    for trial_id, parent in connection.execute(sa.select(tables.other_parents)):
        others[trial_id].append(parent)
    trials = {
        row.key: Trial(
            row.key, names.get(row.key, row.key[:12]),
            (*((row.parent,) if row.parent else ()), *others.get(row.id, ())),
            state_of(TrialState, row.state), row.weights_path, row.token, row.ended,
        )
        for row in connection.execute(sa.select(*columns))
    }  # fmt: skip
    jobs = {
        row.id: Job(row.id, row.state == JobState.done, fields_of(row.spec_json, f"spec_json of job {row.id}"))
        for row in connection.execute(sa.select(_jobs.c.id, _jobs.c.state, _jobs.c.spec_json))
    }
    w = tables.winners
    chosen = [
        PlacedTrial(row.job_id, row.stage, row.grp, row.key)
        for row in connection.execute(sa.select(w.c.job_id, w.c.stage, w.c.grp, w.c.key))
    ]
    populations = {(job.id, stage["name"]) for job in jobs.values() for stage in job.spec["stages"] if trains_on(stage)}
    replicated = {(job.id, stage["name"]) for job in jobs.values() for stage in job.spec["stages"] if replicates(stage)}
    candidates = _read_candidates(connection, populations, replicated)
    return RetentionFacts(trials, [place for place, _ in places], jobs, chosen, _read_pins(connection), candidates)


def _read_candidates(
    connection: sa.Connection, populations: set[tuple[str, str]], replicated: set[tuple[str, str]]
) -> dict[tuple[str, str, str], GroupCandidates]:
    """The trials that could win in each group (job, stage, group) in which a trial has weights.

    Only a tie rule needs figures other than the metric, so those are read only where several trials share the best, or
    where it may be that means do.
    """
    groups: dict[tuple[str, str, str], list[Any]] = defaultdict(list)
    for row in connection.execute(_done_trials_of_groups_with_weights()):
        groups[row.job_id, row.stage, row.grp].append(row)
    for group in [group for group in groups if group[:2] in populations]:
        parts = _parts(connection, [row.key for row in groups[group]])
        groups[group] = [row for row in groups[group] if row.key not in parts]
    groups = {group: rows for group, rows in groups.items() if rows}
    best = [
        [row.key for row in rows]
        if group[:2] in replicated
        else tied_for_first({row.key: row.value for row in rows}, rows[0].mode)
        for group, rows in groups.items()
    ]
    figures = read_figures(connection, sorted({key for keys in best if len(keys) > 1 for key in keys}))
    return {
        group: GroupCandidates(
            rows[0].metric,
            rows[0].mode,
            [
                Candidate(
                    row.key,
                    {row.metric: row.value, **figures.get(row.key, {})},
                    object_of(row.settings_json, f"settings_json of trial {row.key[:12]}"),
                    row.seed,
                )
                for row in rows
                if row.value is not None
            ],
        )
        for group, rows in groups.items()
    }


def _done_trials_of_groups_with_weights() -> sa.Select[Any]:
    with_weights = (
        sa.select(_placed.c.job_id, _placed.c.stage, _placed.c.grp)
        .join(_trials, _trials.c.id == _placed.c.trial_id)
        .where(_trials.c.weights_path.is_not(None))
        .distinct()
        .subquery()
    )
    same_group = (
        (with_weights.c.job_id == _placed.c.job_id)
        & (with_weights.c.stage == _placed.c.stage)
        & (with_weights.c.grp == _placed.c.grp)
    )
    return (
        sa.select(
            _placed.c.job_id, _placed.c.stage, _placed.c.grp, _placed.c.settings_json, _trials.c.key, _trials.c.metric,
            _trials.c.mode, _trials.c.value, _trials.c.seed,
        )
        .join(_trials, _trials.c.id == _placed.c.trial_id)
        .join(with_weights, same_group)
        .where(_trials.c.state == TrialState.done)
    )  # fmt: skip


def _parts(connection: sa.Connection, keys: list[str]) -> set[str]:
    """The keys, among these, of trials that trained only a part of their schedule."""
    parts: set[str] = set()
    for some_keys in chunks(keys):
        rows = connection.execute(sa.select(_trials.c.key, _trials.c.spec_json).where(_trials.c.key.in_(some_keys)))
        parts.update(row.key for row in rows if is_part(fields_of(row.spec_json, f"spec_json of trial {row.key[:12]}")))
    return parts
