"""Finds the jobs that the columns of a table file name: by their spec files, or in the store."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from orchestrator.errors import Conflict, NotFound, SpecError
from orchestrator.launch.job_plugins import with_plugins
from orchestrator.launch.other_jobs import assume_all, resolve_weights
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.plan.trials import metric_rows
from orchestrator.records.joined import (
    JoinedAverage,
    JoinedColumn,
    JoinedRow,
    JoinedTable,
    PublishedRow,
)
from orchestrator.records.rows import JobRow
from orchestrator.settings import Settings
from orchestrator.spec.check_table import StageTrials, check_table, labelled, meets_spec
from orchestrator.spec.diagnostics import Problems, shorten
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.spec.load import load, recorded
from orchestrator.spec.load_table import load_table
from orchestrator.spec.table_file import TableColumn, TableFile
from orchestrator.spec.yaml_nodes import YamlNode
from orchestrator.store.store import Store, open_to_look
from workers.trial import TrialSpec

SPEC_FILES = (".yaml", ".yml")
"""How the path of a spec file ends; any other word is the name of a job in the store, or the beginning of its id."""


@dataclass
class _Job:
    """A job as a column names it."""

    job_id: str = ""
    """Empty: it was not submitted."""
    spec: JobSpec | None = None
    """None where nothing is known of it, or where this version does not take its recorded spec any more."""
    stage_names: Sequence[str] = ()
    table_stage: str = ""
    """That fills the table of the job itself."""
    remedy: str = ""
    warning: str = ""
    planner: Planner | None = None
    trials: dict[str, list[TrialSpec]] = field(default_factory=dict)

    def in_stage(self, stage: str) -> list[TrialSpec]:
        """The trials of a stage, by the spec."""
        if self.spec is None:
            return []
        if stage not in self.trials:
            self.spec, _ = with_plugins(self.spec, self.job_id)
            self.planner = self.planner or Planner(assume_all(self.spec), DurationModel())
            self.trials[stage] = self.planner.in_stage(stage)
        return self.trials[stage]


def looked_at(where: Settings) -> Store | None:
    """The store of these settings, to read; None where nothing was ever submitted. Raises BackendUnreachable."""
    try:
        return open_to_look(where)
    except NotFound:
        return None


def joined_table(path: str | Path, store: Store | None) -> JoinedTable:
    """The table that a file describes, with the jobs that are in the store. `store`: None where there is none yet.

    Raises SpecError with every mistake in the file, also against the jobs that it names.
    """
    table, root = load_table(path)
    problems = Problems()
    jobs = _Jobs(Path(path), root, store, problems)
    found = [jobs.find(n, column) for n, column in enumerate(table.columns)]
    stages = [column.stage or job.table_stage for column, job in zip(table.columns, found, strict=True)]
    known = [
        StageTrials(job.stage_names, stage, job.in_stage(stage)) if job.spec is not None else None
        for job, stage in zip(found, stages, strict=True)
    ]
    if not len(problems):
        check_table(root, table, known, problems)
    if len(problems):
        raise SpecError(problems.lines())
    reference = table.reference
    return JoinedTable(
        name=table.name,
        caption=table.caption,
        heading=table.heading,
        columns=tuple(
            _column(table, column, job, stage) for column, job, stage in zip(table.columns, found, stages, strict=True)
        ),
        rows=tuple(JoinedRow(row.name, labelled(row.conditions())) for row in table.rows),
        averages=tuple(JoinedAverage(average.name, tuple(average.over)) for average in table.averages),
        source=reference.source,
        values=reference.values,
        others=tuple(PublishedRow(row.name, row.source, row.values) for row in reference.rows),
        warnings=tuple(dict.fromkeys(job.warning for job in found if job.warning)),
    )


def _column(table: TableFile, column: TableColumn, job: _Job, stage: str) -> JoinedColumn:
    where = labelled(column.where)
    trials = [trial for trial in job.in_stage(stage) if meets_spec(where, trial)]
    rows = [row.name for row in table.rows if any(meets_spec(labelled(row.conditions()), trial) for trial in trials)]
    metrics = [metric_rows(trial) for trial in trials]
    first = next((each for each in metrics if not column.figure or any(m.name == column.figure for m in each)), ())
    return JoinedColumn(
        title=column.title,
        figure=column.figure,
        job=column.job,
        stage=stage,
        where=where,
        job_id=job.job_id,
        remedy=job.remedy,
        metrics=first,
        rows=frozenset(rows),
        known=job.spec is not None,
    )


class _Jobs:
    """Finds each job once."""

    def __init__(self, path: Path, root: YamlNode, store: Store | None, problems: Problems) -> None:
        self.path, self.root, self.store, self.problems = path, root, store, problems
        self.rows: list[JobRow] = store.jobs.all() if store else []
        self.found: dict[tuple[str, str | None], _Job] = {}

    def find(self, n: int, column: TableColumn) -> _Job:
        """The job of column `n`."""
        named = (column.job, column.profile)
        if named not in self.found:
            by_file = column.job.endswith(SPEC_FILES)
            self.found[named] = self._of_file(n, column) if by_file else self._of_store(n, column)
        return self.found[named]

    def _of_file(self, n: int, column: TableColumn) -> _Job:
        file = self.path.parent / column.job
        if not file.is_file():
            what = f"no such file: {file}; give the path of a spec from the table's folder, or the name of a job"
            self._report(n, column, what)
            return _Job()
        spec = load(file, column.profile)  # its mistakes name the spec file itself
        found = _Job(spec=spec)
        found.stage_names = [stage.name for stage in spec.stages]
        found.table_stage = spec.report.stage or spec.stages[-1].name
        words = ["python", "-m", "orchestrator", "submit", _shown(file)]
        words += ["--profile", column.profile] if column.profile is not None else []
        found.remedy = shlex.join(words)
        try:
            identity = job_id(resolve_weights(spec, self.store)[0]) if self.store else ""
        except NotFound as error:
            found.remedy += f" (it needs another job first: {str(error).splitlines()[0]})"
            return found
        if any(row.id == identity for row in self.rows):
            found.job_id, found.remedy = identity, ""
        elif others := [row.id for row in self.rows if (row.name, row.profile) == (spec.name, spec.profile)]:
            found.remedy += (
                f" (finished trials do not run again; {others[0]} has another content: to show that, write "
                f"job: {others[0]})"
            )
        return found

    def _of_store(self, n: int, column: TableColumn) -> _Job:
        identity = ""
        named = [row.id for row in self.rows if row.name == column.job and column.profile in (None, row.profile)]
        try:
            identity = named[0] if named else self._by_id(column)
        except Conflict as error:
            self._report(n, column, f"{error}")
            return _Job()
        except NotFound as error:
            remedy = f"submit it; or write the path of its spec file ({', '.join(SPEC_FILES)}) as the column's job"
            return _Job(remedy=f"{error}; {remedy}")
        assert self.store is not None
        content = self.store.jobs.spec(identity)
        found = _Job(identity)
        found.stage_names = [stage["name"] for stage in content["stages"]]
        found.table_stage = content["report"].get("stage") or found.stage_names[-1]
        try:
            found.spec, _ = with_plugins(recorded(content, identity), identity)
            found.planner = Planner(assume_all(found.spec), DurationModel())
        except SpecError as error:
            found.spec, found.warning = None, error.problems[0]
        except ValidationError as error:
            found.spec, found.warning = None, f"{identity}: {error.errors()[0]['msg']}"
        if found.warning:
            found.warning = f"not checked against the spec of the job, which cannot be read here: {found.warning}"
        return found

    def _by_id(self, column: TableColumn) -> str:
        if self.store is None:
            raise NotFound("no job was submitted here yet")
        identity = self.store.jobs.find(column.job)
        row = next(row for row in self.rows if row.id == identity)
        if column.profile not in (None, row.profile):
            raise NotFound(f"no job {column.job} of profile {column.profile} was submitted")
        return identity

    def _report(self, n: int, column: TableColumn, what: str) -> None:
        place = self.root.place_of(["columns", n, "job"])
        self.problems.report(place, f"columns.{shorten(column.title)}.job", column.job, what)


def _shown(file: Path) -> str:
    """A path from the working directory where it is below, without steps back and forth."""
    whole = file.resolve()
    return str(whole.relative_to(Path.cwd())) if whole.is_relative_to(Path.cwd()) else str(whole)
