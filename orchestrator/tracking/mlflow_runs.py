"""The runs of one job at MLflow: finds, makes, writes and ends them, and records in the store how far each one is."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import BackendUnreachable
from orchestrator.paths import inside
from orchestrator.records.rows import JobRow, TrackedRun
from orchestrator.records.states import TrialState
from orchestrator.tracking import run_view
from orchestrator.tracking.moved import mend
from orchestrator.tracking.names import NAMES_TAG, Names, duration
from orchestrator.tracking.run_view import DataSet, Number, RunKey, RunStatus
from orchestrator.tracking.server import artifact_root, check_reachable, is_remote, prepare_process

if TYPE_CHECKING:
    from orchestrator.store.store import Store


@dataclass(frozen=True)
class Synced:
    """What was written: runs made, metric values, runs closed; and the problem that kept the rest from MLflow."""

    runs: int = 0
    metrics: int = 0
    closed: int = 0
    problem: str | None = None

    def __add__(self, later: Synced) -> Synced:
        return Synced(self.runs + later.runs, self.metrics + later.metrics, self.closed + later.closed, later.problem)


@dataclass
class Run:
    """A run as MLflow has it."""

    run_id: str
    start_ms: int | None
    """Milliseconds since 1970; None: the run ended long ago, and MLflow was not asked."""
    through: int = 0
    """Epochs written; of a group's run 1 when its spec is, and one more for each trial whose end its best value
    knows of."""
    status: RunStatus | None = None
    deleted: bool = False
    """A user deleted it in MLflow; nothing more is written to it."""
    settled: bool = True
    """True if `through` is certain; False if an earlier process may have died between its writes."""


class JobRuns:
    """A job's runs. MLflow is read once, by `connect`; every other method needs that, and raises what MLflow raises."""

    def __init__(self, store: Store, job_id: str, tracking_uri: str, folder: Path) -> None:
        self.written = Synced()
        self._store, self._job_id, self._uri, self._folder = store, job_id, tracking_uri, folder
        self._client: Any = None
        self._experiment = ""
        self._runs: dict[RunKey, Run] = {}
        self.names = Names.by_split
        """How the job's metrics are named: as in the runs that it has."""

    @property
    def connected(self) -> bool:
        return self._client is not None

    def connect(self, job: JobRow) -> None:
        """Opens the server (a new SQLite file takes seconds of migrations) and reads which runs it has.

        Runs are found by their tags: a run that was made just before a kill has no row in the store, and rows of the
        store may be of another server, or of one that was thrown away.
        """
        prepare_process()
        check_reachable(self._uri)
        from mlflow import MlflowClient

        mend(self._uri, self._folder)
        client = MlflowClient(tracking_uri=self._uri)
        self._experiment = _experiment(client, job.name, self._uri, self._folder)
        tracked = self._store.tracked_runs.of(self._job_id)
        groups = list(self._search(client, "tags.level = 'group'"))
        self.names = Names.by_split if all(NAMES_TAG in run.data.tags for run in groups) else Names.plain
        # MLflow takes 5 to 10 ms to list a run, and runs that finished do not change: for those the store's rows are
        # enough, unless a group's run shows that the rows are of another server.
        trials = list(self._search(client, "tags.level = 'trial' and attributes.status != 'FINISHED'"))
        recorded_groups = {row.parent_run_id or row.run_id for row in tracked.values()}
        listed = {run.info.run_id for run in [*groups, *trials]}
        unclear = (key for key, row in tracked.items() if not row.closed and row.run_id not in listed)
        self._runs = {}
        if {run.info.run_id for run in groups} == recorded_groups and not any(unclear):
            self._runs = {
                key: Run(row.run_id, None, row.reports_through, ("FINISHED", TrialState.done))
                for key, row in tracked.items()
            }
        else:
            trials = list(self._search(client, "tags.level = 'trial'"))
        self._take([*groups, *trials], tracked)
        self._client = client

    def disconnect(self) -> None:
        """The next `connect` reads MLflow again."""
        self._client = None

    def _search(self, client: Any, condition: str) -> Iterator[Any]:
        from mlflow.entities import ViewType

        page = None
        while page is None or page.token:
            page = client.search_runs(
                [self._experiment], f"tags.job = '{self._job_id}' and {condition}", ViewType.ALL,
                max_results=1000, order_by=["attributes.start_time ASC"], page_token=page.token if page else None,
            )  # fmt: skip
            yield from page

    def _take(self, listed: Sequence[Any], tracked: Mapping[RunKey, TrackedRun]) -> None:
        """Keeps MLflow's runs by their tags; of two for one trial or group that which the store names, or the older."""
        seen: set[RunKey] = set()
        for run in listed:
            tags, info = run.data.tags, run.info
            key = (tags.get("stage", ""), tags.get("group", ""), tags.get("trial", ""))
            row = tracked.get(key)
            recorded = row is not None and row.run_id == info.run_id
            if key in seen and not recorded:
                continue
            seen.add(key)
            status = (str(info.status), tags.get("state", ""))
            self._runs[key] = Run(
                info.run_id, info.start_time, row.reports_through if row and recorded else 0, status,
                info.lifecycle_stage == "deleted",
                settled=bool(row and recorded and row.closed and status[0] in run_view.ENDED),
            )  # fmt: skip

    def get(self, key: RunKey) -> Run | None:
        """The run of a trial or group; None if there is none yet."""
        return self._runs.get(key)

    def begin(self, key: RunKey, name: str, started: float | None, tags: Mapping[str, str], parent: str | None) -> Run:
        """Makes a run."""
        start_ms = round((started or time.time()) * 1000)
        made = self._client.create_run(self._experiment, start_ms, dict(tags), name)
        run = self._runs[key] = Run(made.info.run_id, start_ms, status=("RUNNING", "running"))
        self.written = replace(self.written, runs=self.written.runs + 1)
        self.record(key, run, parent)
        return run

    def record(self, key: RunKey, run: Run, parent: str | None) -> None:
        """Records in the store how far the run is."""
        closed = run.status is not None and run.status[0] in run_view.ENDED
        self._store.tracked_runs.put(self._job_id, {key: TrackedRun(run.run_id, run.through, closed, parent)})

    def start_ms(self, run: Run) -> int:
        """Start of the run, milliseconds since 1970."""
        if run.start_ms is None:
            run.start_ms = int(self._client.get_run(run.run_id).info.start_time)
        return run.start_ms

    def last_epoch(self, run: Run) -> int:
        """The last epoch in MLflow, whatever the store has recorded as written."""
        history = self._client.get_metric_history(run.run_id, duration(self.names))
        return max((metric.step for metric in history), default=0)

    def write(
        self, run: Run, numbers: Sequence[Number], params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Writes metric values, parameters and tags; nothing if all are empty."""
        from mlflow.entities import Metric, Param, RunTag

        if not (numbers or params or tags):
            return
        pairs = [Param(name, value) for name, value in (params or {}).items()]
        limit = run_view.PARAMS_PER_BATCH
        self._client.log_batch(
            run.run_id, [Metric(*number) for number in numbers], pairs[:limit],
            [RunTag(name, value) for name, value in (tags or {}).items()],
        )  # fmt: skip
        for start in range(limit, len(pairs), limit):
            self._client.log_batch(run.run_id, params=pairs[start : start + limit])
        self.written = replace(self.written, metrics=self.written.metrics + len(numbers))

    def params(self, run: Run) -> dict[str, str]:
        """The parameters that MLflow has of the run: it lets none change."""
        return dict(self._client.get_run(run.run_id).data.params)

    def write_data_set(self, run: Run, data: DataSet) -> None:
        """Lists a data set beside the run; repeating it changes nothing."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        listed = Dataset(data.name, data.digest, "code", data.source)
        self._client.log_inputs(run.run_id, [DatasetInput(listed, [InputTag("mlflow.data.context", data.context)])])

    def write_text(self, run: Run, text: str, name: str) -> None:
        """Writes a text as a file of the run."""
        self._client.log_text(run.run_id, text, name)

    def write_file(self, run: Run, file: Path, folder: str) -> None:
        """Copies a file into a folder of the run."""
        self._client.log_artifact(run.run_id, str(file), folder)

    def write_bytes(self, run: Run, content: bytes, name: str, folder: str) -> None:
        """Writes a file of this content into a folder of the run."""
        with tempfile.TemporaryDirectory() as place:
            file = inside(place, name)
            file.write_bytes(content)
            self.write_file(run, file, folder)

    def reopen(self, run: Run, status: RunStatus) -> None:
        """Sets a run that had ended to running again, if that is its new status."""
        if status[0] == "RUNNING" and run.status is not None and run.status[0] != "RUNNING":
            self._client.update_run(run.run_id, status="RUNNING")

    def end(self, run: Run, status: RunStatus, ended: float | None) -> None:
        """Ends the run, if its new status is an end and MLflow does not have it yet."""
        if status[0] in run_view.ENDED and status != run.status:
            self._client.set_terminated(run.run_id, status[0], round((ended or time.time()) * 1000))
            self.written = replace(self.written, closed=self.written.closed + 1)
        run.status = status


def _experiment(client: Any, name: str, uri: str, folder: Path) -> str:
    """The id of the job's experiment, which is made if there is none."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        # A server has its own place for artifacts; with a database the client gives it.
        location = None if is_remote(uri) else inside(artifact_root(folder), name).as_uri()
        try:
            return str(client.create_experiment(name, location, {"mlflow.experimentKind": "custom_model_development"}))
        except MlflowException:
            experiment = client.get_experiment_by_name(name)  # another job of this name was faster
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        restore = f"mlflow experiments restore -x {experiment.experiment_id}"
        raise BackendUnreachable(f"experiment {name} was deleted there; `{restore}` brings it back")
    return str(experiment.experiment_id)
