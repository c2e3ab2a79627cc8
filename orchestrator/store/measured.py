"""Reads what trials measured for each item, layer and head."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from orchestrator.records.rows import MeasurementRow
from orchestrator.store import tables
from orchestrator.store.database import Database, chunks

_trials, _measured = tables.trials, tables.measurements
_OF_TRIALS = (
    sa.select(
        _trials.c.key, _measured.c.figure, _measured.c.split, _measured.c.item, _measured.c.layer, _measured.c.head,
        _measured.c.value,
    )
    .join(_measured, _measured.c.trial_id == _trials.c.id)
    .where(_trials.c.key.in_(sa.bindparam("keys", expanding=True)))
    .order_by(_measured.c.trial_id, _measured.c.number)
)  # fmt: skip
_OF_FIGURES = _OF_TRIALS.where(_measured.c.figure.in_(sa.bindparam("figures", expanding=True)))

_LAYER_MEANS = (
    sa.select(
        _trials.c.key, _measured.c.figure, _measured.c.layer, sa.func.avg(_measured.c.value),
        sa.func.count(), sa.func.count(_measured.c.value),
    )
    .join(_measured, _measured.c.trial_id == _trials.c.id)
    .where(_trials.c.key.in_(sa.bindparam("keys", expanding=True)))
    .where(_measured.c.figure.in_(sa.bindparam("figures", expanding=True)))
    .where(_measured.c.layer.is_not(None))
    .group_by(_trials.c.key, _measured.c.figure, _measured.c.layer)
    .order_by(_trials.c.key, _measured.c.figure, _measured.c.layer)
)  # fmt: skip
_OF_OTHER_LAYERS = _LAYER_MEANS.where(_measured.c.item != sa.cast(_measured.c.layer, sa.String(20)))

_NAMES = (
    sa.select(_measured.c.figure)
    .distinct()
    .join(_trials, _measured.c.trial_id == _trials.c.id)
    .where(_trials.c.key.in_(sa.bindparam("keys", expanding=True)))
)


class Measured:
    """The rows of the table `measurements`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def figures(self, keys: Iterable[str]) -> list[str]:
        """Names of the figures that any of these trials measured, in the order of the alphabet."""
        wanted = list(dict.fromkeys(keys))

        def read(connection: sa.Connection) -> list[str]:
            return sorted({name for some in chunks(wanted) for name in connection.scalars(_NAMES, {"keys": some})})

        return self._db.read(read)

    def of(self, keys: Iterable[str], figures: Sequence[str] | None = None) -> dict[str, list[MeasurementRow]]:
        """The rows by trial, in the order in which each trial wrote them. `figures`: of these alone; None: of all."""
        wanted = list(dict.fromkeys(keys))
        query, values = (_OF_TRIALS, {}) if figures is None else (_OF_FIGURES, {"figures": list(figures)})

        def read(connection: sa.Connection) -> dict[str, list[MeasurementRow]]:
            found: dict[str, list[MeasurementRow]] = {}
            for some in chunks(wanted):
                for key, *row in connection.execute(query, {"keys": some, **values}):
                    found.setdefault(key, []).append(MeasurementRow(*row))
            return found

        return self._db.read(read)

    def layer_means(
        self, keys: Iterable[str], figures: Sequence[str], other_layers: bool = False
    ) -> dict[str, list[MeasurementRow]]:
        """For each trial one row for each figure and layer: the mean of its values; None if one is not a number.

        `other_layers`: without values whose item is the layer itself, as on the diagonal of a matrix.
        """
        wanted = list(dict.fromkeys(keys))
        query = _OF_OTHER_LAYERS if other_layers else _LAYER_MEANS

        def read(connection: sa.Connection) -> dict[str, list[MeasurementRow]]:
            found: dict[str, list[MeasurementRow]] = {}
            for some in chunks(wanted):
                for key, figure, layer, mean, rows, numbers in connection.execute(
                    query, {"keys": some, "figures": list(figures)}
                ):
                    value = None if mean is None or numbers < rows else float(mean)
                    found.setdefault(key, []).append(MeasurementRow(figure, "", "", layer, None, value))
            return found

        return self._db.read(read)
