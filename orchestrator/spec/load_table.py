"""Loads a table file, and checks all that it says of itself: its titles, its rows and the published values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.errors import SpecError
from orchestrator.spec.check_paths import check_path
from orchestrator.spec.diagnostics import Problems, Steps, causes, offer, problem_from_pydantic, shorten
from orchestrator.spec.table_file import MODEL, WEIGHTS, TableFile
from orchestrator.spec.yaml_nodes import YamlNode, read


def load_table(path: str | Path) -> tuple[TableFile, YamlNode]:
    """The table that a file describes, and its nodes, which have the places of its fields.

    Raises SpecError with every mistake, each as `file:line:column: field: value: what is wrong; what is allowed`.
    """
    document, problems = read(path), Problems()
    root = document.root
    problems.add(*document.problems)
    if not isinstance(root.value, dict):
        if not len(problems) or any("empty file" in problem.message for problem in problems):
            problems.report_instead(root.place, "a table is a mapping with name, columns and rows")
        raise SpecError(problems.lines())
    if "columns" not in root.value and {"trial", "stages"} & root.value.keys():
        problems.report(root.place, "this is the spec of a job, not a table; print its table with: report JOB")
        raise SpecError(problems.lines())
    table: TableFile | None = None
    try:
        table = TableFile.model_validate(root.plain())
    except ValidationError as error:
        unreadable = problems.places()
        worded = [problem_from_pydantic(TableFile, each, root) for each in causes(error.errors())]
        problems.add(*(problem for problem in worded if problem.place not in unreadable))
    if table is not None:
        _Check(root, table, problems).all()
    if table is None or len(problems):
        raise SpecError(problems.lines())
    return table, root


class _Check:
    """The names in a table file against each other."""

    def __init__(self, root: YamlNode, table: TableFile, problems: Problems) -> None:
        self.root, self.table, self.problems = root, table, problems
        self.figures: dict[str, list[str]] = {}
        """Title -> the figures of its columns."""
        for column in table.columns:
            self.figures.setdefault(column.title, []).append(column.figure)
        self.averages = [average.name for average in table.averages]

    def all(self) -> None:
        self._titles()
        self._names()
        if len(self.problems):
            return  # what refers to a name that stands twice would be reported too
        self._paths()
        self._averages()
        self._values()

    def _titles(self) -> None:
        seen: dict[tuple[str, str], int] = {}
        for n, column in enumerate(self.table.columns):
            if (column.title, column.figure) in seen:
                what = "another column has this title and figure; give it another title"
                self._report(["columns", n, "title"], "columns.title", column.title, what)
            seen[column.title, column.figure] = n
        for n, name in enumerate(self.averages):
            if name in self.figures or name in self.averages[:n]:
                what = "another column has this title; give it another name"
                self._report(["averages", n, "name"], "averages.name", name, what)

    def _names(self) -> None:
        seen: set[str] = set()
        others = self.table.reference.rows
        listed: list[tuple[str, Steps]] = [(row.name, ["rows", n, "name"]) for n, row in enumerate(self.table.rows)]
        listed += [(row.name, ["reference", "rows", n, "name"]) for n, row in enumerate(others)]
        for name, steps in listed:
            if name in seen:
                self._report(steps, "rows.name", name, "another row has this name; give it another one")
            seen.add(name)
        for n, row in enumerate(self.table.rows):
            if not row.conditions():
                what = "would take every trial; write its weights, its model, or other fields under where"
                self._report(["rows", n], "rows", row.name, what)
            for path, field in ((WEIGHTS, "weights"), (MODEL, "model")):
                if path in row.where and getattr(row, field):
                    what = f"also written as {field}; keep one of them"
                    self.problems.report(
                        self.root.place_of(["rows", n, "where", path], key=True), f"rows.{row.name}.where", path, what
                    )

    def _paths(self) -> None:
        named: list[tuple[str, int, str, Iterable[str]]] = [
            ("columns", n, column.title, column.where) for n, column in enumerate(self.table.columns)
        ]
        named += [("rows", n, row.name, row.where) for n, row in enumerate(self.table.rows)]
        for key, n, name, paths in named:
            for path in paths:
                place = self.root.place_of([key, n, "where", path], key=True)
                check_path(path, place, f"{key}.{shorten(name)}.where", self.problems)

    def _averages(self) -> None:
        for n, average in enumerate(self.table.averages):
            for k, title in enumerate(average.over):
                steps: Steps = ["averages", n, "over", k]
                if title not in self.figures:
                    what = "no column has this title; " + offer(title, list(self.figures), "columns")
                    self._report(steps, "averages.over", title, what)
                elif len(self.figures[title]) > 1:
                    what = f"has {len(self.figures[title])} columns; give the one that is meant a title of its own"
                    self._report(steps, "averages.over", title, what)

    def _values(self) -> None:
        reference = self.table.reference
        if reference.values and not reference.source:
            what = "missing; say where the values are from"
            self.problems.report(self.root.place_of(["reference"]), "reference.source", what)
        rows = [row.name for row in self.table.rows]
        for row, values in reference.values.items():
            if row not in rows:
                what = "the table has no such row; " + offer(row, rows, "rows")
                place = self.root.place_of(["reference", "values", row], key=True)
                self.problems.report(place, "reference.values", row, what)
            self._titles_of(values, ["reference", "values", row], f"reference.values.{shorten(row)}")
        for n, other in enumerate(reference.rows):
            steps: Steps = ["reference", "rows", n, "values"]
            self._titles_of(other.values, steps, f"reference.rows.{shorten(other.name)}.values")

    def _titles_of(self, values: Mapping[str, Any], steps: Steps, name: str) -> None:
        """Each value is of a column or an average, and names figures that the column shows."""
        for title, value in values.items():
            place = self.root.place_of([*steps, title], key=True)
            if title not in self.figures and title not in self.averages:
                offered = [*self.figures, *self.averages]
                what = "the table has no such column; " + offer(title, offered, "columns")
                self.problems.report(place, name, title, what)
                continue
            for figure in value if isinstance(value, dict) else ():
                shown: Iterable[str] = self.figures.get(title, ())
                if figure not in shown:
                    named = [each for each in shown if each]
                    what = "no column of this title shows this figure; " + offer(figure, named, "its figures")
                    at = self.root.place_of([*steps, title, figure], key=True)
                    self.problems.report(at, f"{name}.{shorten(title)}", figure, what)

    def _report(self, steps: Steps, name: str, value: str, what: str) -> None:
        self.problems.report(self.root.place_of(steps), name, value, what)
