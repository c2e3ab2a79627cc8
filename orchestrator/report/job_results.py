"""Reads a job's rows once and indexes them by stage and group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.records.recorded_spec import (
    along,
    axis_of,
    base_value,
    expected,
    label,
    lookup,
    setting_at,
    sources,
    unwritten,
)
from orchestrator.records.states import TrialState
from orchestrator.report.figures import metric_of, scaled, unrecorded
from orchestrator.report.model import Choice, Column
from orchestrator.report.replicates import Replicates, by_setting, replicates

if TYPE_CHECKING:
    from orchestrator.records.rows import ChoiceRow, JobRow, PlacedRow
    from orchestrator.store.store import Store


_MISSING = object()

LOST = (TrialState.failed, TrialState.cancelled)


@dataclass(frozen=True)
class GroupCell:
    """A group's position in the table."""

    group: str
    row: str
    column: str


class JobResults:
    """A job's rows. `full` False: without addresses of tracking runs. `stage`: whose trials fill the table, where that
    is not for the job's own spec to say."""

    def __init__(self, store: Store, job_id: str, full: bool, stage: str = "") -> None:
        self.store = store
        self.full = full
        self.job: JobRow = store.jobs.get(job_id)
        self.spec: Mapping[str, Any] = store.jobs.spec(job_id)
        self.table: Mapping[str, Any] = self.spec["report"]
        self.stages = {stage["name"]: stage for stage in self.spec["stages"]}
        self.stage: str = stage or self.table.get("stage") or list(self.stages)[-1]
        """Whose trials fill the table."""
        self.row_path: str = self.table["rows"]
        self.column_path: str = self.table["columns"]
        self.chain = sources(self.stages, self.stage)
        """The stages that lead to it, itself last."""
        self.placed = store.trials.placed(job_id)
        tracked = store.tracked_runs.of(job_id) if full else {}
        self.runs = {key: run.run_id for (_, _, key), run in tracked.items() if key}
        self.members: dict[tuple[str, str], list[PlacedRow]] = {}
        """(stage, group) -> its trials."""
        for trial in self.placed:
            self.members.setdefault((trial.stage, trial.group), []).append(trial)
        self._fixed_values: dict[tuple[str, str], Any] = {}
        self._within: dict[str, list[tuple[str | None, str | None]]] = {}
        """Group of the table's stage -> row and column of each of its trials, as `_named` has them."""
        self.choices = {(row.stage, row.group): self._choice(row) for row in store.choices.of(job_id)}
        self.groups = self._groups()
        self.cell_groups = self._cell_groups()
        self.rows = tuple(dict.fromkeys(place.row for place in self.cell_groups))
        names = tuple(dict.fromkeys(place.column for place in self.cell_groups))
        self.figures: tuple[str, ...] = tuple(self.table.get("figures") or ("",))
        """Names of the figures shown; empty for the one that trials are chosen by."""
        self.columns = tuple(Column(name, figure) for name in names for figure in self.figures)
        self.x_paths = {plot["x"] for plot in self.table.get("plots", []) if "." in plot["x"]}
        """Fields over which a plot draws curves."""

    def _choice(self, row: ChoiceRow) -> Choice:
        candidates = [trial for source in row.sources for trial in self.members.get((source, row.group), [])]
        winner = next((trial for trial in candidates if trial.key == row.key), None)
        settings = by_setting(candidates)
        states = [{trial.state for trial in setting.trials} for setting in settings]
        metric = metric_of(winner) if winner else unrecorded(row.metric, str(row.rule.get("mode", "max")))
        return Choice(
            stage=row.stage,
            group=row.group,
            sources=tuple(row.sources),
            key=row.key,
            value=scaled(row.value, metric),
            figure=metric,
            split=winner.split if winner else "",
            settings=winner.settings if winner else {},
            edges=tuple(row.edges),
            rule=row.rule,
            candidates=row.candidates,
            diverged=sum(TrialState.diverged in each for each in states),
            failed=sum(not each.isdisjoint(LOST) for each in states),
            run_id=self.runs.get(row.key),
            seeds=tuple(row.rule.get("seeds", ())),
        )

    def _groups(self) -> list[GroupCell]:
        """The groups of the table's stage, the spec's first, in its order."""
        groups: dict[str, GroupCell] = {}
        for values in expected(self.spec, self.chain):
            group = "/".join(values.values())
            own = self.members.get((self.stage, group))
            row, column = (
                self.place_of(own[0])
                if own
                else (
                    values.get(path) or label(self._fixed(self.stage, path))
                    for path in (self.row_path, self.column_path)
                )
            )
            groups[group] = GroupCell(group, row, column)
        for (stage, group), trials in self.members.items():
            if stage in self.chain and group not in groups:
                values = {**trials[0].settings, **trials[0].group_values}
                row, column = (
                    label(setting_at(values, path, self._fixed(self.stage, path)))
                    for path in (self.row_path, self.column_path)
                )
                groups[group] = GroupCell(group, row, column)
        return list(groups.values())

    def _cell_groups(self) -> list[GroupCell]:
        """The cells of each group: one, or several if the table's own stage varies rows or columns within it (a chosen
        setting that is applied to several data sets)."""
        if not self._varied():
            return self.groups
        return list(dict.fromkeys(cell for place in self.groups for cell in self._cells_within(place)))

    def _cells_within(self, place: GroupCell) -> Iterator[GroupCell]:
        """The cells of a group: those that the grids of the table's own stage ask for, and those that trials have."""
        stage, varied = self.stages[self.stage], self._varied()
        own = {self.row_path: place.row, self.column_path: place.column}
        fixed = {path: label(base_value(self.spec["trial"], path)) for path in varied}  # no axis of a grid
        for axes in stage["sweep"].get("grid") or []:
            spaced = any((axis := axis_of(axes, path)) and not isinstance(axes[axis], list) for path in varied)
            for point in [] if spaced else along(axes, own):
                if all(point.get(path, name) == name for path, name in own.items() if path not in varied):
                    cell = {**own, **fixed, **point}
                    yield GroupCell(place.group, cell[self.row_path], cell[self.column_path])
        for trial in self.members.get((self.stage, place.group), []):
            yield GroupCell(place.group, *self.place_of(trial))

    def trials_in(self, place: GroupCell) -> list[PlacedRow]:
        """The trials of the table's stage that belong to a cell."""
        trials = self.members.get((self.stage, place.group), [])
        if self.cell_groups is self.groups:
            return trials
        if place.group not in self._within:
            self._within[place.group] = self._named(trials)
        return [
            trial
            for trial, (row, column) in zip(trials, self._within[place.group], strict=True)
            if row in (None, place.row) and column in (None, place.column)
        ]

    def _named(self, trials: Iterable[PlacedRow]) -> list[tuple[str | None, str | None]]:
        """Row and column of each trial within its group; None: that of the group."""
        missing = {path: base_value(self.spec["trial"], path) for path in self._varied()}
        paths = [(path, missing.get(path, _MISSING)) for path in (self.row_path, self.column_path)]
        found = ([setting_at(trial.settings, path, otherwise) for path, otherwise in paths] for trial in trials)
        return [
            (None if row is _MISSING else label(row), None if column is _MISSING else label(column))
            for row, column in found
        ]

    def _varied(self) -> list[str]:
        """The paths of rows and columns that the table's own stage varies within a group."""
        stage = self.stages[self.stage]
        grids = stage["sweep"].get("grid") or []
        grouped = () if stage.get("from") else stage.get("per") or ()
        return [
            path
            for path in dict.fromkeys((self.row_path, self.column_path))
            if path not in grouped and any(axis_of(axes, path) is not None for axes in grids)
        ]

    def place_of(self, trial: PlacedRow) -> tuple[str, str]:
        """What the table calls the row and the column of any trial of the job."""
        values = {**trial.settings, **trial.group_values}
        row, column = (
            label(
                self._fixed(trial.stage, path) if (value := setting_at(values, path, _MISSING)) is _MISSING else value
            )
            for path in (self.row_path, self.column_path)
        )
        return row, column

    def _fixed(self, stage: str, path: str) -> Any:
        """What all trials of a stage have at a path that none of them varies: by overrides, or of the base trial."""
        if (stage, path) not in self._fixed_values:
            self._fixed_values[stage, path] = self._look_up(stage, path)
        return self._fixed_values[stage, path]

    def _look_up(self, stage: str, path: str) -> Any:
        for name in reversed(sources(self.stages, stage)):
            for at, value in (self.stages[name].get("override") or {}).items():
                if at == path:
                    return value
                if path.startswith(f"{at}.") and isinstance(value, Mapping):
                    return lookup(value, path.removeprefix(f"{at}."), unwritten(path))
        return base_value(self.spec["trial"], path)

    def chosen_trials(self, choice: Choice) -> Replicates | None:
        """The trial that was chosen, with those of its other seeds if it was chosen by their mean; None if it is not
        placed."""
        candidates = [trial for source in choice.sources for trial in self.members.get((source, choice.group), [])]
        winner = next((trial for trial in candidates if trial.key == choice.key), None)
        if winner is None:
            return None
        if len(choice.seeds) < 2:
            return replicates([winner])
        return next(each for each in by_setting(candidates) if winner in each.trials)

    def first_trial(self, group: str) -> PlacedRow | None:
        """A trial of a group from the latest stage that has one; it tells the group's metric."""
        stages = (self.members.get((stage, group)) for stage in reversed(self.chain))
        return next((trials[0] for trials in stages if trials), None)
