"""The only place where the store forgets weights: what has no reason to be kept is found and recorded as not kept in
one transaction, before any file goes."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import sqlalchemy as sa

from orchestrator.records.recorded_spec import is_part, trains_on
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
from orchestrator.store import queries, tables, weights
from orchestrator.store.database import Database, chunks

_trials, _placed, _jobs = tables.trials, tables.placed, tables.jobs


def facts(connection: sa.Connection) -> RetentionFacts:
    """Everything that the rules of `keep` look at. Names are those of each trial's first place."""
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
    columns = [_trials.c[n] for n in ("key", "parent", "state", "weights_path", "token", "ended")]
    trials = {
        row.key: Trial(
            row.key, names.get(row.key, row.key[:12]), row.parent, TrialState(row.state), row.weights_path, row.token,
            row.ended,
        )
        for row in connection.execute(sa.select(*columns))
    }  # fmt: skip
    jobs = {
        row.id: Job(row.id, row.state == JobState.done, json.loads(row.spec_json))
        for row in connection.execute(sa.select(_jobs.c.id, _jobs.c.state, _jobs.c.spec_json))
    }
    w = tables.winners
    chosen = [
        PlacedTrial(row.job_id, row.stage, row.grp, row.key)
        for row in connection.execute(sa.select(w.c.job_id, w.c.stage, w.c.grp, w.c.key))
    ]
    populations = {(job.id, stage["name"]) for job in jobs.values() for stage in job.spec["stages"] if trains_on(stage)}
    rivals = _rivals(connection, populations)
    return RetentionFacts(trials, [place for place, _ in places], jobs, chosen, weights.pins(connection), rivals)


def _rivals(
    connection: sa.Connection, populations: set[tuple[str, str]]
) -> dict[tuple[str, str, str], GroupCandidates]:
    """Of the groups in which a trial has weights, the trials that could win: figures beyond the metric, which only a
    tie rule asks for, are read where there is a tie."""
    with_weights = (
        sa.select(_placed.c.job_id, _placed.c.stage, _placed.c.grp)
        .join(_trials, _trials.c.id == _placed.c.trial_id)
        .where(_trials.c.weights_path.is_not(None))
        .distinct()
        .subquery()
    )
    found = connection.execute(
        sa.select(
            _placed.c.job_id, _placed.c.stage, _placed.c.grp, _placed.c.settings_json, _trials.c.key, _trials.c.metric,
            _trials.c.mode, _trials.c.value,
        )
        .join(_trials, _trials.c.id == _placed.c.trial_id)
        .join(
            with_weights,
            (with_weights.c.job_id == _placed.c.job_id)
            & (with_weights.c.stage == _placed.c.stage)
            & (with_weights.c.grp == _placed.c.grp),
        )
        .where(_trials.c.state == TrialState.done)
    )  # fmt: skip
    groups: dict[tuple[str, str, str], list[Any]] = defaultdict(list)
    for row in found:
        groups[row.job_id, row.stage, row.grp].append(row)
    for place in [place for place in groups if place[:2] in populations]:
        parts = _parts(connection, [row.key for row in groups[place]])
        groups[place] = [row for row in groups[place] if row.key not in parts]
    groups = {place: rows for place, rows in groups.items() if rows}
    first = {
        place: tied_for_first({row.key: row.value for row in rows}, rows[0].mode) for place, rows in groups.items()
    }
    figures = queries.figures(connection, sorted({key for keys in first.values() if len(keys) > 1 for key in keys}))
    return {
        place: GroupCandidates(
            rows[0].metric,
            rows[0].mode,
            [
                Candidate(
                    row.key, {row.metric: row.value, **figures.get(row.key, {})}, json.loads(row.settings_json)
                )
                for row in rows
                if row.value is not None
            ],
        )
        for place, rows in groups.items()
    }  # fmt: skip


def _parts(connection: sa.Connection, keys: list[str]) -> set[str]:
    """Trials that trained only the beginning of another one's schedule."""
    parts: set[str] = set()
    for some in chunks(keys):
        rows = connection.execute(sa.select(_trials.c.key, _trials.c.spec_json).where(_trials.c.key.in_(some)))
        parts.update(row.key for row in rows if is_part(json.loads(row.spec_json)))
    return parts


def forget(connection: sa.Connection, keys: Iterable[str]) -> set[str]:
    """Records the weights of these trials as not kept, of those that are done and still have no reason to be kept.

    A row that a driver holds just now is left for the next time. The rows are locked before the reasons are looked
    for, and who places a trial that starts from weights locks its parent (`lookup.place`): so either that trial is
    seen here, or its driver sees that the weights are gone.
    """
    locked: set[str] = set()
    for some in chunks(sorted(set(keys))):
        query = (
            sa.select(_trials.c.key)
            .where(_trials.c.key.in_(some), _trials.c.state == TrialState.done, _trials.c.weights_path.is_not(None))
            .order_by(_trials.c.id)
            .with_for_update(skip_locked=True)
        )
        locked.update(connection.execute(query).scalars())
    gone = locked - set(reasons(facts(connection))) if locked else set()
    for some in chunks(sorted(gone)):
        connection.execute(
            sa.update(_trials).where(_trials.c.key.in_(some)).values(weights_path=None, weights_sha256=None)
        )
    return gone


def forget_lost(connection: sa.Connection, paths: Mapping[str, str]) -> None:
    """Records weights as not kept, whoever needs them, of done trials (by key) that still have them at this path."""
    t = _trials.c
    for key, path in sorted(paths.items()):
        same = (t.key == key) & (t.weights_path == path) & (t.state == TrialState.done)
        connection.execute(sa.update(_trials).where(same).values(weights_path=None, weights_sha256=None))


def with_unclaimed(
    connection: sa.Connection, key: str, token: int, states: Collection[TrialState], work: Callable[[bool], None]
) -> bool:
    """Calls `work` while nobody can claim the trial, told whether its weights are recorded; whether it was called.

    It is not when the trial is in another state by now, was begun again since attempt `token`, or when a driver
    writes to it just now.
    """
    row = connection.execute(
        sa.select(_trials.c.state, _trials.c.token, _trials.c.weights_path)
        .where(_trials.c.key == key)
        .with_for_update(skip_locked=True)
    ).one_or_none()
    if row is None or row.token != token or TrialState(row.state) not in states:
        return False
    work(row.weights_path is not None)
    return True


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
