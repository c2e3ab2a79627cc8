"""The only place with the queries behind lists of jobs and trials: written to stay fast at millions of reports."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

import sqlalchemy as sa

from orchestrator.errors import Conflict, NotFound
from orchestrator.records.rows import JobRow, PlacedRow, Placement, ReportRow, TrialRow
from orchestrator.records.states import JobState, TrialSnapshot, TrialState
from orchestrator.store import leases, tables
from orchestrator.store.database import Database, chunks, to_json

_jobs, _trials, _placed = tables.jobs, tables.trials, tables.placed


def jobs(db: Database, connection: sa.Connection, job_id: str | None = None) -> list[JobRow]:
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
        counts[job][TrialState(state)] = count
    driven: set[str] = set()
    if any(row.state == JobState.running for row in rows):
        driven = {driver.job_id for driver in leases.live_drivers(db, connection)}
    return [
        JobRow(
            id=row.id,
            name=row.name,
            profile=row.profile,
            state=JobState.interrupted
            if row.state == JobState.running and row.id not in driven
            else JobState(row.state),
            message=row.message,
            priority=row.priority,
            cancel=row.cancel,
            git_commit=row.git_commit,
            git_dirty=row.git_dirty,
            versions=json.loads(row.versions_json),
            created=row.created,
            updated=row.updated,
            counts=counts[row.id],
        )
        for row in rows
    ]


def find_job(connection: sa.Connection, prefix: str) -> str:
    newest = sa.select(_jobs.c.id, _jobs.c.name).order_by(_jobs.c.created.desc(), _jobs.c.id)
    rows = connection.execute(newest).all()
    named = [row.id for row in rows if row.name == prefix]
    if named:
        return str(named[0])
    starting = [row for row in rows if row.id.startswith(prefix)] if prefix else []
    if len(starting) == 1:
        return str(starting[0].id)
    if starting:
        raise Conflict(_ambiguous("job", prefix, [f"{row.id[:12]} ({row.name})" for row in starting]))
    raise NotFound(_missing("job", prefix, [row.name for row in rows] + [row.id for row in rows]))


def find_trial(connection: sa.Connection, prefix: str) -> str:
    named = connection.execute(
        sa.select(_trials.c.key)
        .join(_placed, _placed.c.trial_id == _trials.c.id)
        .join(_jobs, _jobs.c.id == _placed.c.job_id)
        .where(_placed.c.name == prefix)
        .order_by(_jobs.c.created.desc())
        .limit(1)
    ).scalar_one_or_none()
    if named is not None:
        return str(named)
    starting = []
    start = prefix.rpartition(" ")[2]  # Ray and MLflow show "name 01234567"
    if start:
        starts_so = sa.func.substr(_trials.c.key, 1, len(start)) == start
        starting = list(connection.execute(sa.select(_trials.c.key).where(starts_so).limit(6)).scalars())
    if len(starting) == 1:
        return str(starting[0])
    if starting:
        raise Conflict(_ambiguous("trial", prefix, [key[: max(12, len(start) + 4)] for key in starting]))
    names = connection.execute(sa.select(_placed.c.name).distinct().limit(2000)).scalars()
    raise NotFound(_missing("trial", prefix, list(names)))


def _ambiguous(what: str, prefix: str, candidates: list[str]) -> str:
    shown = ", ".join(candidates[:5]) + (", ..." if len(candidates) > 5 else "")
    return f"{what} {prefix!r} is ambiguous: {shown}; write more letters"


def _missing(what: str, prefix: str, names: list[str]) -> str:
    near = get_close_matches(prefix, dict.fromkeys(names), n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"no {what} has the name {prefix!r} or an id that starts so{hint}"


def place(
    db: Database, connection: sa.Connection, job_id: str, placements: Sequence[Placement]
) -> dict[str, TrialSnapshot]:
    if connection.execute(sa.select(_jobs.c.id).where(_jobs.c.id == job_id)).first() is None:
        raise NotFound(f"no job {job_id} in this store: put_job comes first")
    if not placements:
        return {}
    now = db.now(connection)
    by_key = {placement.key: placement for placement in placements}
    # In one order for all drivers, so that two that place the same trials do not wait for each other.
    new = [_new_trial(by_key[key], now) for key in sorted(by_key)]
    connection.execute(db.insert(_trials).on_conflict_do_nothing(index_elements=["key"]), new)
    # Who forgets weights has locked their trial: its children are either seen there, or see here that they are gone.
    for some in chunks(sorted({trial["parent"] for trial in new if trial["parent"]})):
        parents = sa.select(_trials.c.id).where(_trials.c.key.in_(some)).order_by(_trials.c.id)
        connection.execute(parents.with_for_update(read=True, key_share=True)).all()
    ids: dict[str, int] = {}
    for some in chunks(by_key):
        rows = connection.execute(sa.select(_trials.c.key, _trials.c.id).where(_trials.c.key.in_(some)))
        ids.update({row.key: row.id for row in rows})
    connection.execute(
        db.insert(_placed).on_conflict_do_nothing(),
        [
            {
                "job_id": job_id, "stage": p.stage, "grp": p.group, "trial_id": ids[p.key], "name": p.name,
                "position": p.position, "group_values_json": to_json(dict(p.group_values)),
                "settings_json": to_json(dict(p.settings)),
            }
            for p in placements
        ],
    )  # fmt: skip
    return snapshots(connection, by_key)


def _new_trial(placement: Placement, now: float) -> dict[str, Any]:
    init = placement.spec.get("backbone", {}).get("init", {})
    return {
        "key": placement.key, "spec_json": to_json(dict(placement.spec)), "parent": init.get("trial"),
        "state": TrialState.pending, "metric": placement.metric, "mode": placement.mode, "seed": placement.seed,
        "epochs": placement.epochs, "epoch": 0, "step": 0, "token": 0, "facts_json": "{}",
        "versions_json": "{}", "created": now,
    }  # fmt: skip


_PLACED_COLUMNS = (
    _placed.c.stage, _placed.c.grp, _trials.c.key, _placed.c.name, _placed.c.position, _trials.c.state,
    _trials.c.metric, _trials.c.mode, _trials.c.value, _trials.c.epoch, _trials.c.epochs, _trials.c.seed,
    _trials.c.started, _trials.c.ended, _trials.c.train_seconds, _trials.c.error_class, _trials.c.error,
    _placed.c.group_values_json, _placed.c.settings_json, _trials.c.host,
)  # fmt: skip


def placed(connection: sa.Connection, job_id: str, stage: str | None) -> list[PlacedRow]:
    t = tables.stages
    query = (
        sa.select(*_PLACED_COLUMNS)
        .join(_trials, _trials.c.id == _placed.c.trial_id)
        .outerjoin(t, (t.c.job_id == _placed.c.job_id) & (t.c.name == _placed.c.stage))
        .where(_placed.c.job_id == job_id)
        .order_by(sa.func.coalesce(t.c.position, 0), _placed.c.grp, _placed.c.position, _trials.c.key)
    )
    if stage is not None:
        query = query.where(_placed.c.stage == stage)
    decode = json.JSONDecoder().decode
    shared: dict[str, dict[str, Any]] = {}  # a group's values are written once for each of its trials
    rows = []
    for row in connection.execute(query).all():
        group_values = shared.get(row[17]) or shared.setdefault(row[17], decode(row[17]))
        value = row[8] if row[5] == "done" else None  # one that runs once more for its weights has a figure already
        values = (*row[:5], _STATES[row[5]], *row[6:8], value, *row[9:17], group_values, decode(row[18]), row[19])
        rows.append(PlacedRow(*values))
    return rows


_STATES = {state.value: state for state in TrialState}


_KNOWN = sa.select(
    _trials.c.key, _trials.c.state, _trials.c.error_class, _trials.c.error, _trials.c.weights_path,
    _trials.c.weights_sha256, _trials.c.step_seconds, _trials.c.train_seconds, _trials.c.epoch, _trials.c.epochs,
    _trials.c.facts_json, tables.pins.c.key.is_not(None).label("pinned"),
).outerjoin(tables.pins, tables.pins.c.key == _trials.c.key).where(
    _trials.c.key.in_(sa.bindparam("keys", expanding=True))
)  # fmt: skip
_FIGURES = (
    sa.select(_trials.c.key, tables.figures.c.name, tables.figures.c.value)
    .join(tables.figures, tables.figures.c.trial_id == _trials.c.id)
    .where(_trials.c.key.in_(sa.bindparam("keys", expanding=True)))
    .order_by(tables.figures.c.trial_id, tables.figures.c.name)
)


def snapshots(connection: sa.Connection, keys: Iterable[str]) -> dict[str, TrialSnapshot]:
    wanted = list(dict.fromkeys(keys))
    shown = figures(connection, wanted)
    found: dict[str, TrialSnapshot] = {}
    for some in chunks(wanted):
        for row in connection.execute(_KNOWN, {"keys": some}):
            found[row.key] = TrialSnapshot(
                state=_STATES[row.state],
                figures=shown.get(row.key, {}),
                error_class=row.error_class,
                error=row.error,
                weights=_weights(row),
                step_seconds=row.step_seconds,
                train_seconds=row.train_seconds,
                epoch=row.epoch,
                epochs=row.epochs,
                facts=json.loads(row.facts_json),
                pinned=row.pinned,
            )
    return found


def timed_trials(connection: sa.Connection, limit: int) -> list[tuple[dict[str, Any], TrialSnapshot]]:
    """Specs of the trials that ended last with a known step time, newest first, and what is known of them."""
    query = (
        sa.select(_trials.c.spec_json, _trials.c.step_seconds, _trials.c.train_seconds, _trials.c.facts_json)
        .where(_trials.c.state == TrialState.done, _trials.c.step_seconds.is_not(None))
        .order_by(_trials.c.ended.desc())
        .limit(limit)
    )
    return [
        (
            json.loads(row.spec_json),
            TrialSnapshot(
                TrialState.done,
                step_seconds=row.step_seconds,
                train_seconds=row.train_seconds,
                facts=json.loads(row.facts_json),
            ),
        )
        for row in connection.execute(query)
    ]


def _weights(row: Any) -> tuple[str, str] | None:
    return (row.weights_path, row.weights_sha256) if row.weights_path is not None else None


def figures(connection: sa.Connection, keys: Iterable[str]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for some in chunks(keys):
        for key, name, value in connection.execute(_FIGURES, {"keys": some}):
            found.setdefault(key, {})[name] = value
    return found


def reports(connection: sa.Connection, by_epoch: Mapping[int, Sequence[str]]) -> dict[str, list[ReportRow]]:
    found: dict[str, list[ReportRow]] = defaultdict(list)
    t = tables.reports
    for epoch, keys in by_epoch.items():
        for some in chunks(keys):
            query = (
                sa.select(_trials.c.key, t.c.epoch, t.c.step, t.c.values_json, t.c.seconds)
                .join(t, t.c.trial_id == _trials.c.id)
                .where(_trials.c.key.in_(some), t.c.epoch > epoch)
                .order_by(t.c.trial_id, t.c.epoch)
            )
            for key, at, step, values, seconds in connection.execute(query):
                found[key].append(ReportRow(at, step, json.loads(values), seconds))
    return dict(found)


def pictures(connection: sa.Connection, keys: Iterable[str]) -> dict[str, list[tuple[int, str]]]:
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    t = tables.pictures
    for some in chunks(list(keys)):
        query = (
            sa.select(_trials.c.key, t.c.epoch, t.c.path)
            .join(t, t.c.trial_id == _trials.c.id)
            .where(_trials.c.key.in_(some))
            .order_by(t.c.trial_id, t.c.epoch, t.c.path)
        )
        for key, epoch, path in connection.execute(query):
            found[key].append((epoch, path))
    return dict(found)


def trial(connection: sa.Connection, key: str) -> TrialRow:
    row = connection.execute(sa.select(_trials).where(_trials.c.key == key)).one_or_none()
    if row is None:
        raise NotFound(f"no trial {key[:12]} in this store")
    places = connection.execute(
        sa.select(_placed.c.job_id, _placed.c.stage, _placed.c.grp, _placed.c.name)
        .where(_placed.c.trial_id == row.id)
        .order_by(_placed.c.job_id, _placed.c.position)
    )
    made = {
        "spec": json.loads(row.spec_json),
        "state": TrialState(row.state),
        "figures": figures(connection, [key]).get(key, {}),
        "weights": _weights(row),
        "facts": json.loads(row.facts_json),
        "versions": json.loads(row.versions_json),
        "placed": [(place.job_id, place.stage, place.grp, place.name) for place in places],
    }
    plain = {name: getattr(row, name) for name in TrialRow.__dataclass_fields__ if name not in made}
    return TrialRow(**plain, **made)
