"""The only place that speaks to MLflow: it mirrors the store beside the job, and no trial ever waits for it."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from orchestrator.errors import BackendUnreachable
from orchestrator.records.rows import JobRow, PlacedRow, ReportRow, TrackedRun
from orchestrator.records.states import JobState, TrialState
from orchestrator.tracking import run_view
from orchestrator.tracking.run_view import Number, RunKey, RunStatus
from orchestrator.tracking.server import (
    artifact_root,
    check_reachable,
    is_remote,
    masked,
    prepare_process,
)

if TYPE_CHECKING:
    from orchestrator.store.store import Store


Picture = Callable[[Sequence[PlacedRow], set[str]], str | None]
"""(trials of one stage and group, keys of those a later stage took) -> an SVG, None where there is nothing to draw.
Handed in: drawing belongs to the report, which is above us."""

AT_ONCE = 200
"""Trials whose reports are in memory together."""


@dataclass(frozen=True)
class Synced:
    """What one sync, or several, wrote: runs made, metric values, runs closed; and what kept it from the rest."""

    runs: int = 0
    metrics: int = 0
    closed: int = 0
    problem: str | None = None

    def __add__(self, later: Synced) -> Synced:
        return Synced(self.runs + later.runs, self.metrics + later.metrics, self.closed + later.closed, later.problem)


@dataclass
class _Run:
    """A run as the tracking server has it."""

    run_id: str
    start_ms: int | None
    """Milliseconds since 1970; None: finished long ago, not asked for."""
    through: int = 0
    """Epochs written; of a group's run, 1 when its spec is."""
    look: RunStatus | None = None
    deleted: bool = False
    """By a user, in MLflow: it is left alone."""
    settled: bool = True
    """Whether `through` is certain. It is not when an earlier process may have died between its writes."""


class _OutOfTime(BackendUnreachable):
    """The sync was asked to end before it was through."""


def sync(
    store: Store, job_id: str, tracking_uri: str, folder: Path, picture: Picture | None = None,
    limit_s: float | None = None, storage: Path | None = None,
) -> Synced:  # fmt: skip
    """Writes to MLflow what the store has and MLflow lacks. Repeating it, after a kill at any point too, writes
    nothing twice. A server or database that does not answer is no error but `Synced.problem`, one line. `storage`:
    where trials keep their files, if what they drew is wanted.

    Raises NotFound for a job that is not in the store.
    """
    until = time.monotonic() + limit_s if limit_s is not None else float("inf")
    with contextlib.closing(Mirror(store, job_id, tracking_uri, folder, picture, storage)) as one:
        return one.sync(lambda: time.monotonic() > until)


class Mirror:
    """Keeps one job's runs in MLflow as the store says. One process at a time mirrors a job (a lock file in
    `folder`). What MLflow has is read once, at the first write, and again after every problem."""

    def __init__(
        self, store: Store, job_id: str, tracking_uri: str, folder: Path, picture: Picture | None = None,
        storage: Path | None = None,
    ) -> None:  # fmt: skip
        self.job_id, self.uri, self.folder = job_id, tracking_uri, Path(folder)
        self._store, self._picture, self._storage = store, picture, storage
        self._client: Any = None
        self._experiment = ""
        self._runs: dict[RunKey, _Run] = {}
        self._lock: IO[str] | None = None
        self._count = Synced()

    def close(self) -> None:
        """Lets another process mirror the job."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def sync(self, leave: Callable[[], bool] = lambda: False) -> Synced:
        """One pass. `leave` is asked before each run: when it says True the rest is left to the next pass."""
        self._count = Synced()
        try:
            self._hold()
            self._pass(leave)
        except Exception as error:
            if not _from_outside(error):
                raise
            self._client = None
            return replace(self._count, problem=self._explained(error))
        return self._count

    def _hold(self) -> None:
        if self._lock is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = (self.folder / f"mirror-{self.job_id}.lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise BackendUnreachable("another process is mirroring this job already") from None
        self._lock = lock

    def _explained(self, error: Exception) -> str:
        reason = masked(str(error).strip() or type(error).__name__, self.uri).splitlines()[0][:300]
        if isinstance(error, _OutOfTime):
            return f"{reason}; the next sync writes them"
        return f"MLflow at {masked(self.uri, self.uri)}: {reason}; the job does not need it, the next sync fills it in"

    # One pass

    def _pass(self, leave: Callable[[], bool]) -> None:
        job = self._store.jobs.get(self.job_id)
        rows = self._store.trials.placed(self.job_id)
        alive = {out.key for out in self._store.leases.running() if out.alive}
        if self._client is None:
            self._connect(job)
        due = [(row, look) for row in rows if (look := self._due(row, alive)) is not None]
        groups: dict[tuple[str, str], list[PlacedRow]] = defaultdict(list)
        for row in rows:
            groups[row.stage, row.group].append(row)
        refused: list[str] = []
        for start in range(0, len(due), AT_ONCE):
            some = due[start : start + AT_ONCE]
            reports = self._store.trials.reports_since({row.key: 0 for row, _ in some})
            drawn = self._store.trials.pictures(row.key for row, _ in some) if self._storage else {}
            for done, (row, look) in enumerate(some, start):
                if leave():
                    raise _OutOfTime(f"out of time with {len(due) - done} of {len(due)} trials to write to MLflow")
                try:
                    group = groups[row.stage, row.group]
                    self._trial(job, row, look, group, reports.get(row.key, []), drawn.get(row.key, []))
                except Exception as error:
                    if getattr(error, "error_code", None) != "INVALID_PARAMETER_VALUE":
                        raise
                    refused.append(f"{row.name}: {error}")  # its content, not the server: the others go on
        self._close_groups(job, groups, alive, job.state in (JobState.running, JobState.queued), leave)
        if refused:
            raise BackendUnreachable(f"{len(refused)} trials were refused, the first: {refused[0]}")

    def _due(self, row: PlacedRow, alive: set[str]) -> RunStatus | None:
        """What the trial's run should show, if that or a report is missing there."""
        run = self._runs.get((row.stage, row.group, row.key))
        if run is None:
            return run_view.trial_look(row, row.key in alive, None)
        look = run_view.trial_look(row, row.key in alive, run.look)
        if look is None or run.deleted:
            return None
        missing = look != run.look or row.epoch > run.through or not (run.settled or look[0] == "RUNNING")
        return look if missing else None

    def _trial(
        self, job: JobRow, row: PlacedRow, look: RunStatus, group: Sequence[PlacedRow], reports: Sequence[ReportRow],
        drawn: Sequence[tuple[int, str]],
    ) -> None:  # fmt: skip
        parent = self._group(job, group)
        if parent.deleted:
            return
        place = (row.stage, row.group, row.key)
        trial = self._store.trials.get(row.key)
        run = self._runs.get(place)
        params: Mapping[str, str] = {}
        if run is None:
            tags = run_view.trial_tags(job, row, trial, parent.run_id, "running")
            run = self._begin(place, f"{row.name} {row.key[:8]}", row.started, tags, parent.run_id)
            params = run_view.params(trial, row.settings)
        elif not run.settled:
            run.through = max(run.through, self._last_epoch(run))
            params = run_view.params(trial, row.settings)
            run.settled = True
        # First of all: after a kill from here on, the run is seen to be open and nothing of it is taken for granted.
        self._open(run, look)
        tags = {} if look == run.look else run_view.end_tags(trial, look[1], run.look)
        final = run_view.final_numbers(trial) if look[0] == "FINISHED" else []
        if run.start_ms is None:
            run.start_ms = int(self._client.get_run(run.run_id).info.start_time)
        self._drawn(run, row.key, drawn)
        for batch in run_view.batches(run_view.numbers(reports, run.through, run.start_ms), final):
            self._log(run.run_id, batch, params, tags)
            params = tags = {}
        run.through = max([run.through, *(report.epoch for report in reports)])
        self._end(run, look, row.ended)
        self._keep(place, run, parent.run_id)

    def _drawn(self, run: _Run, key: str, drawn: Sequence[tuple[int, str]]) -> None:
        """The trial's pictures of epochs that are not written yet: before their numbers, so that a kill in between
        costs a repeat and no picture. One that is no longer there is left out."""
        for epoch, path in drawn:
            file = Path(self._storage or "") / "trials" / key[:2] / key / path
            if epoch > run.through and file.is_file():
                self._client.log_artifact(run.run_id, str(file), str(Path(path).parent))

    def _group(self, job: JobRow, rows: Sequence[PlacedRow]) -> _Run:
        """The run of the trials' group; made, with the job's spec, when its first trial needs one."""
        place = (rows[0].stage, rows[0].group, "")
        run = self._runs.get(place)
        if run is None:
            tags = run_view.group_tags(job, rows[0].stage, rows[0].group, "running")
            started = min((row.started for row in rows if row.started), default=None)
            run = self._begin(place, f"{rows[0].stage}/{rows[0].group}", started, tags, None)
        if run.through == 0 and not run.deleted:
            import yaml

            self._log(run.run_id, [], run_view.cut_params(rows[0].group_values), {})
            text = yaml.safe_dump(self._store.jobs.spec(job.id), sort_keys=False, allow_unicode=True)
            self._client.log_text(run.run_id, text, "spec.yaml")
            run.through = 1
            self._keep(place, run, None)
        return run

    def _close_groups(
        self, job: JobRow, groups: Mapping[tuple[str, str], Sequence[PlacedRow]], alive: set[str], driven: bool,
        leave: Callable[[], bool],
    ) -> None:  # fmt: skip
        """Brings the groups' runs to what their trials now say; a complete one gets its picture."""
        winners = self._store.choices.of(self.job_id)
        for (stage, group), rows in groups.items():
            run = self._runs.get((stage, group, ""))
            if run is None or run.deleted:
                continue
            taken = run_view.chosen(rows, winners)
            look = run_view.group_look(rows, alive, driven, taken)
            if look == run.look:
                continue
            if leave():
                raise _OutOfTime("out of time before the groups' runs in MLflow were closed")
            self._group(job, rows)
            self._open(run, look)
            drawn = self._picture(rows, taken) if self._picture and look[0] == "FINISHED" else None
            if drawn is not None:
                self._client.log_text(run.run_id, drawn, "heat_map.svg")
            self._log(run.run_id, [], {}, {"state": look[1]})
            self._end(run, look, max((row.ended for row in rows if row.ended), default=None))
            self._keep((stage, group, ""), run, None)

    # What MLflow is asked

    def _connect(self, job: JobRow) -> None:
        """Opens the server (a new SQLite file takes seconds of migrations) and reads which runs it has.

        Runs are found by their tags: one that was made just before a kill has no row in the store, and rows of the
        store may be of another server, or of one that was thrown away.
        """
        prepare_process()
        check_reachable(self.uri)
        from mlflow import MlflowClient
        from mlflow.entities import ViewType

        client = MlflowClient(tracking_uri=self.uri)
        self._experiment = _experiment(client, job.name, self.uri, self.folder)

        def search(condition: str) -> Iterator[Any]:
            page = None
            while page is None or page.token:
                page = client.search_runs(
                    [self._experiment], f"tags.job = '{self.job_id}' and {condition}", ViewType.ALL,
                    max_results=1000, order_by=["attributes.start_time ASC"], page_token=page.token if page else None,
                )  # fmt: skip
                yield from page

        tracked = self._store.tracked_runs.of(self.job_id)
        groups = list(search("tags.level = 'group'"))
        # MLflow takes 5 to 10 ms to list a run, and those that finished do not change: of them the store's word is
        # taken, unless a group's run shows that the store speaks of another server.
        some = list(search("tags.level = 'trial' and attributes.status != 'FINISHED'"))
        here = {run.info.run_id for run in groups}
        there = {place: row.parent_run_id or row.run_id for place, row in tracked.items()}
        listed = {run.info.run_id for run in [*groups, *some]}
        unclear = (place for place, row in tracked.items() if not row.closed and row.run_id not in listed)
        self._runs = {}
        if here == set(there.values()) and not any(unclear):
            self._runs = {
                place: _Run(row.run_id, None, row.reports_through, ("FINISHED", TrialState.done))
                for place, row in tracked.items()
            }
        else:
            some = list(search("tags.level = 'trial'"))
        self._take([*groups, *some], tracked)
        self._client = client

    def _take(self, found: Sequence[Any], tracked: Mapping[RunKey, TrackedRun]) -> None:
        """Of MLflow's runs those that are the trials' and groups'; of two for the same the one the store names, or
        the older."""
        seen: set[RunKey] = set()
        for run in found:
            tags, info = run.data.tags, run.info
            place = (tags.get("stage", ""), tags.get("group", ""), tags.get("trial", ""))
            row = tracked.get(place)
            mine = row is not None and row.run_id == info.run_id
            if place in seen and not mine:
                continue
            seen.add(place)
            look = (str(info.status), tags.get("state", ""))
            self._runs[place] = _Run(
                info.run_id, info.start_time, row.reports_through if row and mine else 0, look,
                info.lifecycle_stage == "deleted",
                settled=bool(row and mine and row.closed and look[0] in run_view.ENDED),
            )  # fmt: skip

    def _begin(
        self, place: RunKey, name: str, started: float | None, tags: Mapping[str, str], parent: str | None
    ) -> _Run:
        start_ms = round((started or time.time()) * 1000)
        made = self._client.create_run(self._experiment, start_ms, dict(tags), name)
        run = self._runs[place] = _Run(made.info.run_id, start_ms, look=("RUNNING", "running"))
        self._count = replace(self._count, runs=self._count.runs + 1)
        self._keep(place, run, parent)
        return run

    def _keep(self, place: RunKey, run: _Run, parent: str | None) -> None:
        closed = run.look is not None and run.look[0] in run_view.ENDED
        self._store.tracked_runs.put(self.job_id, {place: TrackedRun(run.run_id, run.through, closed, parent)})

    def _last_epoch(self, run: _Run) -> int:
        """The last epoch that is in MLflow, whatever the store says was written."""
        history = self._client.get_metric_history(run.run_id, run_view.DURATION)
        return max((metric.step for metric in history), default=0)

    def _log(self, run_id: str, numbers: Sequence[Number], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        if not (numbers or params or tags):
            return
        pairs = [Param(name, value) for name, value in params.items()]
        limit = run_view.PARAMS_PER_BATCH
        self._client.log_batch(
            run_id, [Metric(*number) for number in numbers], pairs[:limit],
            [RunTag(name, value) for name, value in tags.items()],
        )  # fmt: skip
        for start in range(limit, len(pairs), limit):
            self._client.log_batch(run_id, params=pairs[start : start + limit])
        self._count = replace(self._count, metrics=self._count.metrics + len(numbers))

    def _open(self, run: _Run, look: RunStatus) -> None:
        """A run that had ended and goes on."""
        if look[0] == "RUNNING" and run.look is not None and run.look[0] != "RUNNING":
            self._client.update_run(run.run_id, status="RUNNING")

    def _end(self, run: _Run, look: RunStatus, ended: float | None) -> None:
        """Ends the run, unless it goes on or has ended so."""
        if look[0] in run_view.ENDED and look != run.look:
            self._client.set_terminated(run.run_id, look[0], round((ended or time.time()) * 1000))
            self._count = replace(self._count, closed=self._count.closed + 1)
        run.look = look


def _experiment(client: Any, name: str, uri: str, folder: Path) -> str:
    """The id of the job's experiment, which is made if need be."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        # A server keeps artifacts where it says; of a database we must say it.
        place = None if is_remote(uri) else (artifact_root(folder) / name).as_uri()
        try:
            return str(client.create_experiment(name, place, {"mlflow.experimentKind": "custom_model_development"}))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another job of this name was faster
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        raise BackendUnreachable(
            f"experiment {name} was deleted there; `mlflow experiments restore -x {found.experiment_id}` brings it back"
        )
    return str(found.experiment_id)


def _from_outside(error: Exception) -> bool:
    """Whether the server, the database, the network or the disk failed, and not our own code."""
    sources = {kind.__module__.split(".")[0] for kind in type(error).__mro__}
    return isinstance(error, (OSError, BackendUnreachable)) or bool(
        sources & {"mlflow", "sqlalchemy", "alembic", "sqlite3", "urllib3", "requests", "psycopg"}
    )
