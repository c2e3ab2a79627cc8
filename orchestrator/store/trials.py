"""Trials in the store: places them in jobs, records what they report, and reads them back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from orchestrator.errors import NotFound
from orchestrator.records.recorded_spec import parents
from orchestrator.records.rows import AttemptRow, PlacedRow, Placement, ReportRow, SearchEvent, TrialRow
from orchestrator.records.states import TrialSnapshot, TrialState
from orchestrator.records.writes import Write
from orchestrator.store import metrics, name_errors, search_log, tables, trial_events
from orchestrator.store.column_types import Words, refuse_what_does_not_fit
from orchestrator.store.database import Database, chunks, fields_of, object_of, state_of, to_json

_jobs, _trials, _placed = tables.jobs, tables.trials, tables.placed


_PLACED_COLUMNS = (
    _placed.c.stage, _placed.c.grp, _trials.c.key, _placed.c.name, _placed.c.position, _trials.c.state,
    _trials.c.metric, _trials.c.mode, _trials.c.value, _trials.c.epoch, _trials.c.epochs, _trials.c.seed,
    _trials.c.started, _trials.c.ended, _trials.c.train_seconds, _trials.c.error_class, _trials.c.error,
    _placed.c.group_values_json, _placed.c.settings_json, _trials.c.host, _trials.c.metric_set, _trials.c.split,
)  # fmt: skip
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


class Trials:
    """The rows of trials, of their places in jobs, and of what they reported; fast at millions of reports."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def place(
        self,
        job_id: str,
        placements: Sequence[Placement],
        events: Sequence[tuple[search_log.SearchedGroup, SearchEvent]] = (),
    ) -> dict[str, TrialSnapshot]:
        """Records new trials as pending, and every trial's place in the job; returns a snapshot of each, in order.

        `events` of the searches that asked for these trials are recorded in the same transaction. Raises NotFound for
        an unknown job, and Conflict, recording nothing, if another driver has advanced one of these searches. Raises
        SpecError, recording nothing, for a name or number that the databases cannot keep.
        """
        for placement in placements:
            named = {"stage": placement.stage, "group": placement.group, "name": placement.name}
            refuse_what_does_not_fit({**named, "seed": placement.seed, "epochs": placement.epochs}, "trial")

        def work(connection: sa.Connection) -> dict[str, TrialSnapshot]:
            snapshots = self._place(connection, job_id, placements)
            search_log.append(self._db, connection, job_id, events)
            return {placement.key: snapshots[placement.key] for placement in placements}

        return self._db.write(work)

    def _place(
        self, connection: sa.Connection, job_id: str, placements: Sequence[Placement]
    ) -> dict[str, TrialSnapshot]:
        if connection.execute(sa.select(_jobs.c.id).where(_jobs.c.id == job_id)).first() is None:
            raise NotFound(f"no job {job_id} in this store: record it before its trials")
        if not placements:
            return {}
        now = self._db.now(connection)
        by_key = {placement.key: placement for placement in placements}
        # All drivers insert in the same order, so that two that place the same trials do not deadlock.
        new = [_new_trial(by_key[key], now) for key in sorted(by_key)]
        needs = {key: parents(placement.spec) for key, placement in by_key.items()}
        metrics.put(self._db, connection, {placement.metrics for placement in placements})
        connection.execute(self._db.insert(_trials).on_conflict_do_nothing(index_elements=["key"]), new)
        _lock(connection, {parent for each in needs.values() for parent in each})
        ids: dict[str, int] = {}
        for keys in chunks(by_key):
            query = sa.select(_trials.c.key, _trials.c.id).where(_trials.c.key.in_(keys))
            ids.update({row.key: row.id for row in connection.execute(query)})
        others = [
            {"trial_id": ids[trial["key"]], "parent": parent}
            for trial in new for parent in needs[trial["key"]] if parent != trial["parent"]
        ]  # fmt: skip
        if others:
            connection.execute(self._db.insert(tables.other_parents).on_conflict_do_nothing(), others)
        connection.execute(
            self._db.insert(_placed).on_conflict_do_nothing(),
            [
                {
                    "job_id": job_id, "stage": p.stage, "grp": p.group, "trial_id": ids[p.key], "name": p.name,
                    "position": p.position, "group_values_json": to_json(dict(p.group_values)),
                    "settings_json": to_json(dict(p.settings)),
                }
                for p in placements
            ],
        )  # fmt: skip
        return _read_snapshots(connection, by_key)

    def placed(self, job_id: str, stage: str | None = None) -> list[PlacedRow]:
        """The trials of the job, or of one stage, by stage (in the order of `put_stages`), group and position."""
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
        decoded: dict[str, dict[str, Any]] = {}  # all trials of a group have the same text
        rows = []
        sets = self._db.read(metrics.read)
        for row in self._db.read(lambda connection: connection.execute(query).all()):
            group_values = decoded.get(row[17]) or decoded.setdefault(row[17], object_of(row[17], "group_values_json"))
            # A trial that runs once more for its weights has a value although it is not done.
            value = row[8] if row[5] == "done" else None
            settings = object_of(row[18], f"settings_json of trial {row[2][:12]}")
            state = state_of(TrialState, row[5])
            values = (*row[:5], state, *row[6:8], value, *row[9:17], group_values, settings, row[19])
            rows.append(PlacedRow(*(*values, sets.get(row[20], ()), row[21])))
        return rows

    def snapshots(self, keys: Iterable[str]) -> dict[str, TrialSnapshot]:
        """Snapshots of these trials by key; unknown keys are left out."""
        wanted = list(dict.fromkeys(keys))
        return self._db.read(lambda connection: _read_snapshots(connection, wanted))

    def timed(self, limit: int = 200) -> list[tuple[dict[str, Any], TrialSnapshot]]:
        """(spec, snapshot) of the newest done trials with a measured step time, from which durations are estimated.

        These snapshots hold only state, times and facts.
        """
        query = (
            sa.select(_trials.c.spec_json, _trials.c.step_seconds, _trials.c.train_seconds, _trials.c.facts_json)
            .where(_trials.c.state == TrialState.done, _trials.c.step_seconds.is_not(None))
            .order_by(_trials.c.ended.desc())
            .limit(limit)
        )
        return [
            (
                fields_of(row.spec_json, "spec_json of a trial"),
                TrialSnapshot(
                    TrialState.done,
                    step_seconds=row.step_seconds,
                    train_seconds=row.train_seconds,
                    facts=object_of(row.facts_json, "facts_json of a trial"),
                ),
            )
            for row in self._db.read(lambda connection: connection.execute(query).all())
        ]

    def get(self, key: str) -> TrialRow:
        """Everything recorded of one trial except its reports and attempts. Raises NotFound for an unknown key."""
        return self._db.read(lambda connection: _read_trial(connection, key))

    def find(self, prefix: str) -> str:
        """The key of the trial with this display name (in the newest such job), or whose key starts with `prefix`.

        Raises NotFound if there is none, Conflict if several keys start so.
        """
        return self._db.read(lambda connection: _find(connection, prefix))

    def attempts(self, key: str) -> list[AttemptRow]:
        """The trial's attempts, the oldest first."""
        t = tables.attempts
        columns = [t.c[name] for name in AttemptRow.__dataclass_fields__]
        query = (
            sa.select(*columns)
            .join(_trials, _trials.c.id == t.c.trial_id)
            .where(_trials.c.key == key)
            .order_by(t.c.token)
        )
        return [AttemptRow(*row) for row in self._db.read(lambda connection: connection.execute(query).all())]

    def figures(self, keys: Iterable[str]) -> dict[str, dict[str, float]]:
        """The figures (name -> value) of each of these trials that has any."""
        wanted = list(keys)
        return self._db.read(lambda connection: read_figures(connection, wanted))

    def reports(self, key: str) -> list[ReportRow]:
        """The trial's reports, by epoch."""
        return self.reports_since({key: 0}).get(key, [])

    def reports_since(self, keys: Mapping[str, int]) -> dict[str, list[ReportRow]]:
        """The reports of these trials after the epoch given for each, by epoch; trials without any are left out."""
        by_epoch: dict[int, list[str]] = defaultdict(list)
        for key, epoch in keys.items():
            by_epoch[epoch].append(key)
        return self._db.read(lambda connection: _read_reports(connection, by_epoch))

    def pictures(self, keys: Iterable[str]) -> dict[str, list[tuple[int, str]]]:
        """(epoch, file relative to the trial's folder) of each of these trials that has any, by epoch and name."""
        wanted = list(keys)

        def work(connection: sa.Connection) -> dict[str, list[tuple[int, str]]]:
            t = tables.pictures
            pictures: dict[str, list[tuple[int, str]]] = defaultdict(list)
            for some_keys in chunks(wanted):
                query = (
                    sa.select(_trials.c.key, t.c.epoch, t.c.path)
                    .join(t, t.c.trial_id == _trials.c.id)
                    .where(_trials.c.key.in_(some_keys))
                    .order_by(t.c.trial_id, t.c.epoch, t.c.path)
                )
                for key, epoch, path in connection.execute(query):
                    pictures[key].append((epoch, path))
            return dict(pictures)

        return self._db.read(work)

    def commit(self, driver_id: str, writes: Sequence[Write]) -> None:
        """Records what happened to trials that this driver holds: all writes or, with LeaseLost, none.

        Raises LeaseLost if another driver holds one of the trials. Writes that are recorded already are skipped, so a
        driver that missed the acknowledgement may commit the same writes again.
        """

        def work(connection: sa.Connection) -> None:
            held = trial_events.lock(connection, {write.key for write in writes})
            new = [write for write in writes if not trial_events.is_repeat(driver_id, held.get(write.key), write)]
            trial_events.record_reports(self._db, connection, held, new)
            trial_events.record_ends(connection, held, new, self._db.now(connection))

        if writes:
            self._db.write(work)


def _lock(connection: sa.Connection, parents: set[str]) -> None:
    """Locks the trials whose weights new ones need: a concurrent removal of these weights either sees the new trials or
    is seen by them."""
    for keys in chunks(sorted(parents)):
        query = sa.select(_trials.c.id).where(_trials.c.key.in_(keys)).order_by(_trials.c.id)
        connection.execute(query.with_for_update(read=True, key_share=True)).all()


def _new_trial(placement: Placement, now: float) -> dict[str, Any]:
    init = placement.spec.get("backbone", {}).get("init", {})
    return {
        "key": placement.key, "spec_json": to_json(dict(placement.spec)), "parent": init.get("trial"),
        "state": TrialState.pending, "metric": placement.metric, "mode": placement.mode, "seed": placement.seed,
        "epochs": placement.epochs, "epoch": 0, "step": 0, "token": 0, "facts_json": "{}",
        "versions_json": "{}", "created": now, "metric_set": metrics.name_of(placement.metrics),
        "split": placement.split,
    }  # fmt: skip


def _find(connection: sa.Connection, prefix: str) -> str:
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
    matches = []
    start = prefix.rpartition(" ")[2]  # Ray and MLflow show "name 01234567"
    if start:
        starts_so = sa.func.substr(_trials.c.key, 1, len(start), type_=Words()) == start
        matches = list(connection.execute(sa.select(_trials.c.key).where(starts_so).limit(6)).scalars())
    if len(matches) == 1:
        return str(matches[0])
    if matches:
        raise name_errors.ambiguous("trial", prefix, [key[: max(12, len(start) + 4)] for key in matches])
    names = connection.execute(sa.select(_placed.c.name).distinct().limit(2000)).scalars()
    raise name_errors.unknown("trial", prefix, list(names))


def _read_snapshots(connection: sa.Connection, keys: Iterable[str]) -> dict[str, TrialSnapshot]:
    wanted = list(keys)
    figures = read_figures(connection, wanted)
    snapshots: dict[str, TrialSnapshot] = {}
    for some_keys in chunks(wanted):
        for row in connection.execute(_KNOWN, {"keys": some_keys}):
            snapshots[row.key] = TrialSnapshot(
                state=state_of(TrialState, row.state),
                figures=figures.get(row.key, {}),
                error_class=row.error_class,
                error=row.error,
                weights=_weights(row),
                step_seconds=row.step_seconds,
                train_seconds=row.train_seconds,
                epoch=row.epoch,
                epochs=row.epochs,
                facts=object_of(row.facts_json, f"facts_json of trial {row.key[:12]}"),
                pinned=row.pinned,
            )
    return snapshots


def _weights(row: Any) -> tuple[str, str] | None:
    return (row.weights_path, row.weights_sha256) if row.weights_path is not None else None


def read_figures(connection: sa.Connection, keys: Iterable[str]) -> dict[str, dict[str, float]]:
    """The figures of these trials, as the caller's transaction sees them."""
    figures: dict[str, dict[str, float]] = {}
    for some_keys in chunks(keys):
        for key, name, value in connection.execute(_FIGURES, {"keys": some_keys}):
            figures.setdefault(key, {})[name] = value
    return figures


def _read_reports(connection: sa.Connection, by_epoch: Mapping[int, Sequence[str]]) -> dict[str, list[ReportRow]]:
    reports: dict[str, list[ReportRow]] = defaultdict(list)
    t = tables.reports
    for epoch, keys in by_epoch.items():
        for some_keys in chunks(keys):
            query = (
                sa.select(_trials.c.key, t.c.epoch, t.c.step, t.c.values_json, t.c.seconds)
                .join(t, t.c.trial_id == _trials.c.id)
                .where(_trials.c.key.in_(some_keys), t.c.epoch > epoch)
                .order_by(t.c.trial_id, t.c.epoch)
            )
            for key, at, step, values, seconds in connection.execute(query):
                reports[key].append(ReportRow(at, step, object_of(values, f"values_json of trial {key[:12]}"), seconds))
    return dict(reports)


def _read_trial(connection: sa.Connection, key: str) -> TrialRow:
    row = connection.execute(sa.select(_trials).where(_trials.c.key == key)).one_or_none()
    if row is None:
        raise NotFound(f"no trial {key[:12]} in this store")
    places = connection.execute(
        sa.select(_placed.c.job_id, _placed.c.stage, _placed.c.grp, _placed.c.name)
        .where(_placed.c.trial_id == row.id)
        .order_by(_placed.c.job_id, _placed.c.position)
    )
    decoded: dict[str, Any] = {
        "spec": fields_of(row.spec_json, f"spec_json of trial {key[:12]}"),
        "state": state_of(TrialState, row.state),
        "figures": read_figures(connection, [key]).get(key, {}),
        "weights": _weights(row),
        "facts": object_of(row.facts_json, f"facts_json of trial {key[:12]}"),
        "versions": object_of(row.versions_json, f"versions_json of trial {key[:12]}"),
        "placed": [(place.job_id, place.stage, place.grp, place.name) for place in places],
        "metrics": metrics.read(connection).get(row.metric_set, ()),
    }
    plain = {name: getattr(row, name) for name in TrialRow.__dataclass_fields__ if name not in decoded}
    return TrialRow(**plain, **decoded)
