"""Mirrors a job of the store into MLflow. No trial waits for it; a server that is down is filled in later."""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from orchestrator.errors import BackendUnreachable
from orchestrator.paths import inside
from orchestrator.records.rows import JobRow, PlacedRow, ReportRow, TrialRow
from orchestrator.records.states import JobState, TrialState
from orchestrator.records.trial_files import stored_file, trial_folder
from orchestrator.settings import masked, private_folder
from orchestrator.tracking import group_view, run_view
from orchestrator.tracking.mlflow_runs import JobRuns, Run, Synced
from orchestrator.tracking.run_view import RunStatus

if TYPE_CHECKING:
    from orchestrator.store.store import Store


Picture = Callable[[Sequence[PlacedRow], set[str]], str | None]
"""(trials of one stage and group, keys of those that a later stage took) -> an SVG; None if there is nothing to draw.
Passed in, because the report draws it and the report is not imported here."""

Figures = Callable[[str], Mapping[str, bytes]]
"""Name of a stage -> the figures drawn from its trials, by the names of their files; also passed in."""

MIRRORED_ELSEWHERE = "another process is mirroring this job already"
"""The problem of a mirror whose job another driver's process mirrors."""
AT_ONCE = 200
"""Trials whose reports are in memory together."""


class _OutOfTime(BackendUnreachable):
    """The sync was asked to end before everything was written."""


def sync(
    store: Store, job_id: str, tracking_uri: str, folder: Path, picture: Picture | None = None,
    limit_s: float | None = None, storage: Path | None = None, figures: Figures | None = None,
) -> Synced:  # fmt: skip
    """Writes to MLflow what the store has and MLflow lacks. Repeating it, after a kill at any point too, writes nothing
    twice. A server or database that does not answer is no error: `Synced.problem` is one line about it. `storage`: the
    folder of the trials' files, to write their pictures too.

    Raises NotFound for a job that is not in the store.
    """
    until = time.monotonic() + limit_s if limit_s is not None else float("inf")
    with contextlib.closing(Mirror(store, job_id, tracking_uri, folder, picture, storage, figures)) as mirror:
        return mirror.sync(lambda: time.monotonic() > until)


class Mirror:
    """Keeps one job's runs in MLflow equal to the store. One process at a time mirrors a job (a lock file in `folder`).
    MLflow is read once, at the first write, and again after every problem."""

    def __init__(
        self, store: Store, job_id: str, tracking_uri: str, folder: Path, picture: Picture | None = None,
        storage: Path | None = None, figures: Figures | None = None,
    ) -> None:  # fmt: skip
        self._figures = figures
        self.job_id, self.uri, self.folder = job_id, tracking_uri, Path(folder)
        self._store, self._picture, self._storage = store, picture, storage
        self._runs = JobRuns(store, job_id, tracking_uri, self.folder)
        self._lock: IO[str] | None = None

    def close(self) -> None:
        """Lets another process mirror the job."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def sync(self, leave: Callable[[], bool] = lambda: False) -> Synced:
        """One pass. `leave` is called before each run; once it returns True, the rest waits for the next pass."""
        self._runs.written = Synced()
        try:
            self._take_lock()
            self._pass(leave)
        except Exception as error:
            if not _from_outside(error):
                raise
            self._runs.disconnect()
            return replace(self._runs.written, problem=self._explained(error))
        return self._runs.written

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        private_folder(self.folder)
        lock = inside(self.folder, f"mirror-{self.job_id}.lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise BackendUnreachable(MIRRORED_ELSEWHERE) from None
        self._lock = lock

    def _explained(self, error: Exception) -> str:
        reason = masked(str(error).strip() or type(error).__name__, self.uri).splitlines()[0][:300]
        if isinstance(error, _OutOfTime):
            return f"{reason}; the next sync writes them"
        return f"MLflow at {masked(self.uri, self.uri)}: {reason}; the job does not need it, the next sync fills it in"

    def _pass(self, leave: Callable[[], bool]) -> None:
        job = self._store.jobs.get(self.job_id)
        rows = self._store.trials.placed(self.job_id)
        alive = {running.key for running in self._store.leases.running() if running.alive}
        if not self._runs.connected:
            self._runs.connect(job)
        due = [(row, status) for row in rows if (status := self._due(row, alive)) is not None]
        groups: dict[tuple[str, str], list[PlacedRow]] = defaultdict(list)
        for row in rows:
            groups[row.stage, row.group].append(row)
        refused: list[str] = []
        for start in range(0, len(due), AT_ONCE):
            batch = due[start : start + AT_ONCE]
            reports = self._store.trials.reports_since({row.key: 0 for row, _ in batch})
            pictures = self._store.trials.pictures(row.key for row, _ in batch) if self._storage else {}
            for done, (row, status) in enumerate(batch, start):
                if leave():
                    raise _OutOfTime(f"out of time with {len(due) - done} of {len(due)} trials to write to MLflow")
                try:
                    parent = self._group(job, groups[row.stage, row.group])
                    if not parent.deleted:
                        epochs, drawn = reports.get(row.key, []), pictures.get(row.key, [])
                        self._trial(job, row, status, parent, epochs, drawn)
                except Exception as error:
                    if getattr(error, "error_code", None) != "INVALID_PARAMETER_VALUE":
                        raise
                    refused.append(f"{row.name}: {error}")  # MLflow refuses this trial's values; others may be fine
        self._close_groups(job, groups, alive, leave)
        if refused:
            raise BackendUnreachable(f"{len(refused)} trials were refused, the first: {refused[0]}")

    def _due(self, row: PlacedRow, alive: set[str]) -> RunStatus | None:
        """The status that the trial's run should show, if MLflow lacks that or a report."""
        run = self._runs.get((row.stage, row.group, row.key))
        if run is None:
            return run_view.trial_status(row, row.key in alive, None)
        status = run_view.trial_status(row, row.key in alive, run.status)
        if status is None or run.deleted:
            return None
        missing = status != run.status or row.epoch > run.through or not (run.settled or status[0] == "RUNNING")
        return status if missing else None

    def _trial(
        self, job: JobRow, row: PlacedRow, status: RunStatus, parent: Run, reports: Sequence[ReportRow],
        drawn: Sequence[tuple[int, str]],
    ) -> None:  # fmt: skip
        """Brings a trial's run up to date; it is made if need be. `drawn`: (epoch, path) of the trial's pictures."""
        key, names = (row.stage, row.group, row.key), self._runs.names
        trial = self._store.trials.get(row.key)
        run = self._runs.get(key)
        params: Mapping[str, str] = {}
        if run is None:
            tags = run_view.trial_tags(job, row, trial, parent.run_id, "running", names)
            run = self._runs.begin(key, f"{row.name} {row.key[:8]}", row.started, tags, parent.run_id)
            params = run_view.params(trial, row.settings)
        elif not run.settled:
            run.through = max(run.through, self._runs.last_epoch(run))
            params = run_view.params(trial, row.settings)
            run.settled = True
        # First: if this process is killed after this line, the next one sees an open run and checks what it has.
        self._runs.reopen(run, status)
        tags = {} if status == run.status else run_view.end_tags(trial, status[1], run.status, self._weights(trial))
        final = run_view.final_numbers(row, trial, reports, names) if status[0] == "FINISHED" else []
        start_ms = self._runs.start_ms(run)
        self._write_pictures(run, row.key, drawn)
        if status[0] == "FINISHED" and status != run.status and (data := run_view.data_set(trial)) is not None:
            self._runs.write_data_set(run, data)
        for batch in run_view.batches(run_view.numbers(row, reports, run.through, start_ms, names), final):
            self._runs.write(run, batch, params, tags)
            params = tags = {}
        run.through = max([run.through, *(report.epoch for report in reports)])
        self._runs.end(run, status, row.ended)
        self._runs.record(key, run, parent.run_id)

    def _weights(self, trial: TrialRow) -> str | None:
        """Where the file of a trial's weights lies, if they are kept."""
        if trial.weights is None:
            return None
        return str(stored_file(self._storage, trial.weights[0])) if self._storage else trial.weights[0]

    def _write_pictures(self, run: Run, key: str, drawn: Sequence[tuple[int, str]]) -> None:
        """Pictures of epochs that are not written yet: before their numbers, so that a kill in between costs a repeat
        and no picture. A file that no longer exists is left out."""
        for epoch, path in drawn:
            file = inside(trial_folder(self._storage or "", key), *Path(path).parts)
            if epoch > run.through and file.is_file():
                self._runs.write_file(run, file, str(Path(path).parent))

    def _group(self, job: JobRow, rows: Sequence[PlacedRow]) -> Run:
        """The run of the trials' group; made, with the job's spec, when its first trial needs one."""
        key = (rows[0].stage, rows[0].group, "")
        run = self._runs.get(key)
        if run is None:
            tags = run_view.group_tags(job, rows[0].stage, rows[0].group, "running", self._runs.names)
            started = min((row.started for row in rows if row.started), default=None)
            run = self._runs.begin(key, f"{rows[0].stage}/{rows[0].group}", started, tags, None)
        if run.through == 0 and not run.deleted:
            import yaml

            self._runs.write(run, [], run_view.cut_params(rows[0].group_values))
            spec = json.loads(json.dumps(self._store.jobs.spec(job.id)))  # plain dicts, which are all YAML takes
            text = yaml.safe_dump(spec, sort_keys=False, allow_unicode=True)
            self._runs.write_text(run, text, "spec.yaml")
            run.through = 1
            self._runs.record(key, run, None)
        return run

    def _close_groups(
        self, job: JobRow, groups: Mapping[tuple[str, str], Sequence[PlacedRow]], alive: set[str],
        leave: Callable[[], bool],
    ) -> None:  # fmt: skip
        """Brings the groups' runs to the status of their trials; a complete group gets its heat map."""
        winners = self._store.choices.of(self.job_id)
        driven = job.state in (JobState.running, JobState.queued)
        for (stage, group), rows in groups.items():
            run = self._runs.get((stage, group, ""))
            if run is None or run.deleted:
                continue
            taken = run_view.chosen(rows, winners)
            status = run_view.group_status(rows, alive, driven, taken)
            if leave():
                raise _OutOfTime("out of time before the groups' runs in MLflow were closed")
            self._write_best(run, rows, taken, status != run.status and status[0] == "FINISHED")
            if status == run.status:
                continue
            self._group(job, rows)
            self._runs.reopen(run, status)
            drawn = self._picture(rows, taken) if self._picture and status[0] == "FINISHED" else None
            if drawn is not None:
                self._runs.write_text(run, drawn, "heat_map.svg")
            if self._figures and status[0] == "FINISHED" and _stage_done(stage, groups):
                for name, content in self._figures(stage).items():
                    self._runs.write_bytes(run, content, name, "figures")
            self._runs.write(run, [], tags={"state": status[1]})
            self._runs.end(run, status, max((row.ended for row in rows if row.ended), default=None))
            self._runs.record((stage, group, ""), run, None)

    def _write_best(self, run: Run, rows: Sequence[PlacedRow], taken: set[str], closes: bool) -> None:
        """Writes the group's best value after each trial that is done by now; and when the group `closes` every figure
        of its best setting, and the setting. `taken`: keys of the trials that a later stage took."""
        through, done = max(0, run.through - 1), sum(row.state is TrialState.done for row in rows)
        if not closes and done <= through:
            return
        found = group_view.best(rows, taken)
        figures: Mapping[str, float] = {}
        params: Mapping[str, str] = {}
        if closes and found is not None:
            recorded = self._store.trials.figures(row.key for row in found.rows)
            figures = {**found.figures(recorded), rows[0].metric: found.value}
            had = self._runs.params(run)
            params = {name: value for name, value in run_view.cut_params(found.chosen).items() if name not in had}
        numbers = run_view.group_numbers(rows, through, found if closes else None, figures, self._runs.names)
        tags = {} if found is None else {run_view.NOTE_TAG: run_view.group_note(found, closes)}
        for batch in run_view.batches([], numbers):
            self._runs.write(run, batch, params, tags)
            params = tags = {}
        run.through = done + 1
        self._runs.record((rows[0].stage, rows[0].group, ""), run, None)


def _stage_done(stage: str, groups: Mapping[tuple[str, str], Sequence[PlacedRow]]) -> bool:
    """True if all trials of the stage have ended, so that its figures are complete."""
    return all(row.state.ended for (name, _), rows in groups.items() if name == stage for row in rows)


def _from_outside(error: Exception) -> bool:
    """True if the server, the database, the network or the disk failed, and not our own code."""
    sources = {kind.__module__.split(".")[0] for kind in type(error).__mro__}
    return isinstance(error, (OSError, BackendUnreachable)) or bool(
        sources & {"mlflow", "sqlalchemy", "alembic", "sqlite3", "urllib3", "requests", "psycopg"}
    )
