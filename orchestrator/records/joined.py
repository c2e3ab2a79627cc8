"""A table that joins several jobs: what its file asks for, and which jobs were found; plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.records.recorded_spec import label
from orchestrator.records.rows import MetricRow

Where = Mapping[str, tuple[str, ...]]
"""Dotted path of a field of the trial -> the values that count there, as labels (see `recorded_spec.label`)."""


def meets(where: Where, value_at: Callable[[str], Any]) -> bool:
    """True if a trial has one of the asked values at each path. `value_at`: path -> what it has there."""
    return all(label(value_at(path)) in wanted for path, wanted in where.items())


def in_words(where: Where) -> str:
    """task.dataset nyuv2, backbone.init SUP or 1K-SUP"""
    return ", ".join(f"{path} {' or '.join(wanted)}" for path, wanted in where.items())


@dataclass(frozen=True)
class JoinedColumn:
    """A column of the table, and the job that its trials are of."""

    title: str
    figure: str
    """Name of the figure; empty: the one that trials are chosen by."""
    job: str
    """As the file names it."""
    stage: str
    where: Where
    job_id: str = ""
    """Empty: no such job was submitted."""
    remedy: str = ""
    """What to do about a job that was not submitted."""
    metrics: tuple[MetricRow, ...] = ()
    """Figures of its trials by the job's spec, so that published values can be printed before any trial ran; trials are
    chosen by the first. None: the spec is not known."""
    rows: frozenset[str] = frozenset()
    """Names of the rows that the job has a trial for, by its spec."""
    known: bool = True
    """False: the job's spec is not known, and so neither are its rows."""


@dataclass(frozen=True)
class JoinedRow:
    """A row of the table: trials by their weights, model and whatever else it asks for."""

    name: str
    where: Where


@dataclass(frozen=True)
class PublishedRow:
    """A row without trials."""

    name: str
    source: str
    values: Mapping[str, Any]
    """Title of a column or name of an average -> value in the column's unit, or figure -> value."""


@dataclass(frozen=True)
class JoinedAverage:
    """The mean over some columns, by their titles."""

    name: str
    over: tuple[str, ...]


@dataclass(frozen=True)
class JoinedTable:
    """The whole table."""

    name: str
    caption: str
    heading: str
    """Of the column of the rows' names."""
    columns: tuple[JoinedColumn, ...]
    rows: tuple[JoinedRow, ...]
    averages: tuple[JoinedAverage, ...] = ()
    source: str = ""
    """Of the published values."""
    values: Mapping[str, Mapping[str, Any]] | None = None
    """Row -> title of a column or name of an average -> published value, or figure -> value."""
    others: tuple[PublishedRow, ...] = ()
    warnings: tuple[str, ...] = ()
    """About the jobs that were found."""

    def published(self, values: Mapping[str, Any], position: int) -> float | None:
        """The published value for a column, by its position: a bare number is of the first column of a title."""
        column = self.columns[position]
        value = values.get(column.title)
        if isinstance(value, Mapping):
            return value.get(column.figure)
        first = next(n for n, each in enumerate(self.columns) if each.title == column.title)
        return value if first == position else None
