"""The only place that reads a job out of the store as a table: cells, choices, heat maps, curves, warnings, sources."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from orchestrator.records.recorded_spec import expected, label, lookup, sources
from orchestrator.report.caveats import warnings
from orchestrator.report.cells import average, make_cell
from orchestrator.report.early_stopping import agreement, saved
from orchestrator.report.formatting import finite, moment
from orchestrator.report.groups import curve, heat_map, points
from orchestrator.report.model import (
    MAPS,
    Cell,
    Choice,
    Column,
    Curve,
    EpochsSaved,
    GroupReport,
    Mean,
    Point,
    RankAgreement,
    Report,
    Scatter,
    ScatterPoint,
    StageCount,
    TrialLine,
    unit_of,
)
from orchestrator.report.pictures import chosen
from orchestrator.report.provenance import _provenance
from orchestrator.report.wording import metric_title

if TYPE_CHECKING:
    from orchestrator.records.rows import JobRow, PlacedRow, TrialRow
    from orchestrator.store.store import Store

RANKED = 5000
"""Trials of a job that searches up to which their curves are compared with their ends."""

LOOKED_AT = 80
"""Trials in the table up to which everything known of them is read for a terminal too."""


def build(store: Store, job_id: str, *, full: bool = True) -> Report:
    """The report of a job, from SQL rows and the job's own spec alone.

    `full` False leaves out what a terminal does not show (learning curves, the list of all trials, addresses of
    tracking runs, heat maps of more than `MAPS` groups) and, of large tables, hosts, devices and data digests, so
    that a job of 20,000 trials takes well under a second. NotFound: no such job.
    """
    study = _JobResults(store, job_id, full)
    cells = study.cells()
    groups = study.groups(cells)
    columns = study.with_scale(groups)
    behind = study.behind(cells)
    counts = study.counts()
    stopping, order = study.early_stopping()
    return Report(
        job_id=study.job.id,
        name=study.job.name,
        profile=study.job.profile,
        state=str(study.job.state),
        message=study.job.message,
        created=moment(study.job.created),
        caption=study.table.get("caption", ""),
        stage=study.stage,
        measured_on=study.measured_on(),
        row_path=study.row_path,
        column_path=study.column_path,
        rows=study.rows,
        columns=columns,
        cells=cells,
        means=study.means(cells, columns),
        source=(study.table.get("reference") or {}).get("source", ""),
        groups=groups,
        stages=counts,
        warnings=warnings(study.job, cells, groups, counts, study.placed, behind),
        provenance=_provenance(study.job, cells, behind, study.placed, counts),
        trials=study.trials() if full else (),
        plots=study.plots(cells, columns) if full else (),
        pictures=chosen(study.placed, store.trials.pictures(row.key for row in study.placed)) if full else (),
        saved=stopping,
        agreement=order,
    )


@dataclass(frozen=True)
class GroupCell:
    """Where a group stands in the table."""

    group: str
    row: str
    column: str


class _JobResults:
    """A job's rows, read once, and indexed by stage and group."""

    def __init__(self, store: Store, job_id: str, full: bool) -> None:
        self.store = store
        self.full = full
        self.job: JobRow = store.jobs.get(job_id)
        self.spec: Mapping[str, Any] = store.jobs.spec(job_id)
        self.table: Mapping[str, Any] = self.spec["report"]
        self.stages = {stage["name"]: stage for stage in self.spec["stages"]}
        self.stage: str = self.table.get("stage") or list(self.stages)[-1]
        self.row_path: str = self.table["rows"]
        self.column_path: str = self.table["columns"]
        self.chain = sources(self.stages, self.stage)
        self.placed = store.trials.placed(job_id)
        tracked = store.tracked_runs.of(job_id) if full else {}
        self.runs = {key: run.run_id for (_, _, key), run in tracked.items() if key}
        self.members: dict[tuple[str, str], list[PlacedRow]] = {}
        for trial in self.placed:
            self.members.setdefault((trial.stage, trial.group), []).append(trial)
        self.choices = self._choices()
        self.places = self._places()
        self.cell_places = self._cell_places()
        self.rows = tuple(dict.fromkeys(place.row for place in self.cell_places))
        self.column_names = tuple(dict.fromkeys(place.column for place in self.cell_places))

    def _choices(self) -> dict[tuple[str, str], Choice]:
        found = {}
        for winner in self.store.choices.of(self.job.id):
            trials = [t for source in winner.sources for t in self.members.get((source, winner.group), [])]
            settings = next((trial.settings for trial in trials if trial.key == winner.key), {})
            states = Counter(trial.state for trial in trials)
            value = finite(winner.value)
            found[winner.stage, winner.group] = Choice(
                stage=winner.stage,
                group=winner.group,
                sources=tuple(winner.sources),
                key=winner.key,
                value=None if value is None else value * unit_of(winner.metric).scale,
                metric=winner.metric,
                settings=settings,
                edges=tuple(winner.edges),
                rule=winner.rule,
                candidates=winner.candidates,
                diverged=sum(n for state, n in states.items() if state == "diverged"),
                failed=sum(n for state, n in states.items() if state in ("failed", "cancelled")),
                run_id=self.runs.get(winner.key),
            )
        return found

    def _places(self) -> list[GroupCell]:
        """The groups of the table's stage, the spec's first, in its order."""
        base = self.spec["trial"]
        found: dict[str, GroupCell] = {}
        for values in expected(self.spec, self.chain):
            group = "/".join(values.values())
            row = values.get(self.row_path) or label(lookup(base, self.row_path))
            column = values.get(self.column_path) or label(lookup(base, self.column_path))
            found[group] = GroupCell(group, row, column)
        for (stage, group), trials in self.members.items():
            if stage in self.chain and group not in found:
                values = {**trials[0].settings, **trials[0].group_values}
                row = values.get(self.row_path, lookup(base, self.row_path))
                column = values.get(self.column_path, lookup(base, self.column_path))
                found[group] = GroupCell(group, label(row), label(column))
        return list(found.values())

    def _cell_places(self) -> list[GroupCell]:
        """Where the cells of each group stand: in one place, or in several when the table's stage itself goes over
        rows or columns (a chosen setting that is applied to several data sets)."""
        grids = self.stages[self.stage]["sweep"].get("grid") or []
        over = [path for path in (self.row_path, self.column_path) if any(path in axes for axes in grids)]
        if not over or not self.stages[self.stage].get("from"):
            return self.places
        points = [
            dict(zip(over, map(label, values), strict=True))
            for axes in grids
            for values in itertools.product(*(axes.get(path, [lookup(self.spec["trial"], path)]) for path in over))
        ]
        return [
            GroupCell(place.group, point.get(self.row_path, place.row), point.get(self.column_path, place.column))
            for place in self.places
            for point in points
        ]

    def _in_cell(self, place: GroupCell) -> list[PlacedRow]:
        trials = self.members.get((self.stage, place.group), [])
        if self.cell_places is self.places:
            return trials
        wanted = {self.row_path: place.row, self.column_path: place.column}
        return [t for t in trials if all(label(t.settings.get(path, value)) == value for path, value in wanted.items())]

    def cells(self) -> tuple[Cell, ...]:
        published = (self.table.get("reference") or {}).get("values", {})
        at: dict[tuple[str, str], list[PlacedRow]] = {}
        where: dict[tuple[str, str], GroupCell] = {}
        for place in self.cell_places:
            where.setdefault((place.row, place.column), place)
            at.setdefault((place.row, place.column), []).extend(self._in_cell(place))
        made = []
        for row in self.rows:
            for column in self.column_names:
                reference = published.get(row, {}).get(column)
                if (row, column) not in where:
                    made.append(Cell(row, column, "absent", "not part of this study", reference=reference))
                    continue
                group = where[row, column].group
                choice = self.choices.get((self.stage, group))
                trials = at[row, column]
                why = "" if trials else self._waits(group)
                made.append(make_cell(row, column, trials, choice, self.runs, why, reference))
        return tuple(made)

    def _waits(self, group: str) -> str:
        """Why the table's stage has no trial of a group."""
        for stage in self.chain[:-1]:
            trials = self.members.get((stage, group), [])
            states = Counter(str(trial.state) for trial in trials)
            lost = states["failed"] + states["cancelled"]
            open_ = states["pending"] + states["running"]
            if lost:
                return f"incomplete: {lost} of {len(trials)} {stage} trials failed or were cancelled"
            if trials and states["diverged"] == len(trials):
                return f"incomplete: all {len(trials)} {stage} trials diverged"
            if open_ or not trials:
                return f"waits for {stage}" + (f" ({len(trials) - open_} of {len(trials)} ended)" if trials else "")
        return "not placed yet"

    def means(self, cells: Sequence[Cell], columns: Sequence[Column]) -> tuple[Mean, ...]:
        published = (self.table.get("reference") or {}).get("values", {})
        at = {(cell.row, cell.column): cell for cell in cells}
        units = {column.name: column.unit for column in columns}
        return tuple(
            average(row, wanted["name"], wanted.get("over") or self.column_names, at, units, published.get(row, {}))
            for row in self.rows
            for wanted in self.table.get("averages", [])
        )

    def groups(self, cells: Iterable[Cell]) -> tuple[GroupReport, ...]:
        tabled = {key for cell in cells for key in cell.keys}
        drawn = self._drawn(tabled) if self.full else {}
        return tuple(self._group(place, drawn.get(place.group, ())) for place in self.places)

    def _group(self, place: GroupCell, curves: tuple[Curve, ...]) -> GroupReport:
        mine = [self.choices[stage, place.group] for stage in self.chain if (stage, place.group) in self.choices]
        chosen = {choice.key for choice in mine}
        maps = []
        near: list[Point] = []
        for stage in self.chain:
            trials = self.members.get((stage, place.group), [])
            if not self.stages[stage].get("from"):
                if not self.full and len(self.places) > MAPS:
                    continue
                maps.append(heat_map(stage, trials, chosen))
            elif self.stages[stage].get("neighbourhood") and (stage, place.group) in self.choices:
                near += points(stage, trials, self.choices[stage, place.group], chosen)
        return GroupReport(
            name=place.group,
            row=place.row,
            column=place.column,
            choices=tuple(mine),
            heat_maps=tuple(one for one in maps if one is not None),
            points=tuple(near),
            curves=curves,
        )

    def _drawn(self, tabled: set[str]) -> dict[str, tuple[Curve, ...]]:
        """group -> the curves of the trial it was chosen by and of those in the table; one reading for all groups."""
        roles: dict[str, list[tuple[Literal["chosen", "final"], PlacedRow]]] = {}
        for place in self.places:
            here = roles.setdefault(place.group, [])
            if choice := self.choices.get((self.stage, place.group)):
                trials = [t for source in choice.sources for t in self.members.get((source, place.group), [])]
                here += [("chosen", trial) for trial in trials if trial.key == choice.key][:1]
            finals = self._in_cell(place)
            here += [("final", trial) for trial in finals if trial.key in tabled]
        reports = self.store.trials.reports_since({trial.key: 0 for here in roles.values() for _, trial in here})
        return {
            group: tuple(curve(role, trial, reports[trial.key]) for role, trial in here if reports.get(trial.key))
            for group, here in roles.items()
        }

    def with_scale(self, groups: Iterable[GroupReport]) -> tuple[Column, ...]:
        """The columns, each with the range of its heat maps: one scale for all groups of a data set."""
        values: dict[str, list[float]] = {}
        for group in groups:
            values.setdefault(group.column, []).extend(
                cell.value for drawn in group.heat_maps for cell in drawn.cells if cell.value is not None
            )
        metrics: dict[str, tuple[str, str]] = {}
        for place in self.cell_places:
            for stage in self.chain:
                if trials := self.members.get((stage, place.group)):
                    metrics[place.column] = trials[0].metric, trials[0].mode
            if trials := self._in_cell(place):
                metrics[place.column] = trials[0].metric, trials[0].mode
        return tuple(
            Column(
                name,
                *metrics.get(name, ("", "max")),
                low=min(values.get(name, ()), default=None),
                high=max(values.get(name, ()), default=None),
            )
            for name in self.column_names
        )

    def plots(self, cells: Sequence[Cell], columns: Sequence[Column]) -> tuple[Scatter, ...]:
        units = {column.name: column for column in columns}
        drawn = []
        for plot in self.table.get("plots", []):
            dots, left_out = [], []
            for cell in cells:
                if cell.value is None:
                    continue
                name = cell.row if len(columns) == 1 else f"{cell.row}, {cell.column}"
                found = [self._figure(key, plot["x"], plot["of"] == "parent") for key in cell.keys]
                numbers = [number for number in found if number is not None]
                if not numbers:
                    left_out.append(name)
                    continue
                y = 100 - cell.value if plot["y"] == "error" else cell.value
                dots.append(ScatterPoint(name, cell.keys, sum(numbers) / len(numbers), y))
            shown = units[cells[0].column] if cells else None
            y_name = metric_title(shown.metric) if shown else ""
            if plot["y"] == "error":
                y_name = f"100 - {y_name}"
            suffix = f" ({shown.unit.suffix})" if shown and shown.unit.suffix else ""
            whose = " of the weights" if plot["of"] == "parent" else ""
            drawn.append(
                Scatter(
                    plot["title"], plot["x"] + whose, y_name + suffix,
                    tuple(sorted(dots, key=lambda dot: (dot.x, dot.name))), tuple(left_out),
                )
            )  # fmt: skip
        return tuple(drawn)

    def _figure(self, key: str, name: str, inherited: bool) -> float | None:
        """A figure of a trial, or of the nearest one up its lineage of weights that has it."""
        at: str | None = self.store.trials.get(key).parent if inherited else key
        while at is not None:
            row = self.store.trials.get(at)
            if name in row.figures:
                return finite(row.figures[name])
            at = row.parent if inherited else None
        return None

    def measured_on(self) -> str:
        override = self.stages[self.stage].get("override", {})
        split = override.get("task.evaluate", lookup(self.spec["trial"], "task.evaluate"))
        return split if isinstance(split, str) else ""

    def behind(self, cells: Iterable[Cell]) -> dict[str, TrialRow]:
        """The trials whose figures are in the table, with everything known of them."""
        keys = [key for cell in cells for key in cell.keys if cell.values]
        if not self.full and len(keys) > LOOKED_AT:
            return {}
        return {key: self.store.trials.get(key) for key in keys}

    def counts(self) -> tuple[StageCount, ...]:
        by_stage: dict[str, list[PlacedRow]] = {name: [] for name in self.stages}
        for trial in self.placed:
            by_stage[trial.stage].append(trial)
        return tuple(
            StageCount(
                name,
                len(trials),
                dict(sorted(Counter(str(trial.state) for trial in trials).items())),
                sum(trial.seconds or 0.0 for trial in trials),
            )
            for name, trials in by_stage.items()
        )

    def early_stopping(self) -> tuple[tuple[EpochsSaved, ...], tuple[RankAgreement, ...]]:
        """What searches saved, and how far the order on the way can be trusted. Only of jobs that search."""
        if not any("search" in stage["sweep"] for stage in self.stages.values()):
            return (), ()
        events = self.store.search_log.events(self.job.id)
        rules = [stage["sweep"].get("stopping", "none") for stage in self.stages.values()]
        rule = next((rule["asha"] for rule in rules if "asha" in rule), None)
        own = {place: trials for place, trials in self.members.items() if not self.stages[place[0]].get("from")}
        keys = [trial.key for trials in own.values() for trial in trials]
        reports = self.store.trials.reports_since(dict.fromkeys(keys, 0)) if len(keys) <= RANKED else {}
        return saved(self.members, events), agreement(own, events, reports, rule)

    def trials(self) -> tuple[TrialLine, ...]:
        order = {name: position for position, name in enumerate(self.stages)}
        return tuple(
            TrialLine(
                stage=trial.stage,
                group=trial.group,
                key=trial.key,
                state=str(trial.state),
                settings=trial.settings,
                seed=trial.seed,
                metric=trial.metric,
                value=None if finite(trial.value) is None or trial.value is None
                else trial.value * unit_of(trial.metric).scale,
                seconds=trial.seconds,
                host=trial.host or "",
                error=(trial.error or "").split("\n", 1)[0],
                run_id=self.runs.get(trial.key),
            )
            for trial in sorted(self.placed, key=lambda t: (order[t.stage], t.group, t.position))
        )  # fmt: skip
