"""Recorded choices in the store: which trial a stage took for a group, decided once."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any, Literal

import sqlalchemy as sa

from orchestrator.errors import Conflict
from orchestrator.records.rows import ChoiceRow, Edge
from orchestrator.store import tables
from orchestrator.store.column_types import damaged
from orchestrator.store.database import Database, list_of, object_of, to_json

_winners = tables.winners


class Choices:
    """The rows of choices."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def record(self, job_id: str, choice: ChoiceRow) -> None:
        """Records the choice; recording it again changes nothing.

        Raises Conflict if the stage has already taken another trial for this group.
        """

        def work(connection: sa.Connection) -> None:
            row = {
                "job_id": job_id, "stage": choice.stage, "grp": choice.group, "key": choice.key,
                "value": choice.value, "metric": choice.metric,
                "edges_json": to_json([asdict(edge) for edge in choice.edges]), "rule_json": to_json(choice.rule),
                "candidates": choice.candidates, "sources_json": to_json(choice.sources),
                "decided": self._db.now(connection),
            }  # fmt: skip
            insert = self._db.insert(_winners).values(**row).on_conflict_do_nothing().returning(_winners.c.key)
            if connection.execute(insert).first():
                return
            w = _winners.c
            same_place = (w.job_id == job_id) & (w.stage == choice.stage) & (w.grp == choice.group)
            recorded = connection.execute(sa.select(w.key).where(same_place)).scalar_one()
            if recorded != choice.key:
                raise Conflict(
                    f"job {job_id}: stage {choice.stage} has already taken trial {recorded[:12]} for {choice.group}, "
                    f"not {choice.key[:12]}; a recorded choice does not change: submit under another name"
                )

        self._db.write(work)

    def of(self, job_id: str) -> list[ChoiceRow]:
        """The job's choices, the oldest first."""
        query = (
            sa.select(_winners)
            .where(_winners.c.job_id == job_id)
            .order_by(_winners.c.decided, _winners.c.stage, _winners.c.grp)
        )
        return [as_choice(row) for row in self._db.read(lambda connection: connection.execute(query).all())]


def as_choice(row: Any) -> ChoiceRow:
    """A row of the table `winners` as a ChoiceRow."""
    edges = [_as_edge(edge) for edge in list_of(row.edges_json, "edges_json of a winner")]
    sources = list_of(row.sources_json, "sources_json of a winner")
    if not all(isinstance(source, str) for source in sources):
        raise damaged("sources_json of a winner", row.sources_json)
    return ChoiceRow(
        row.stage, row.grp, row.key, row.value, row.metric, edges,
        object_of(row.rule_json, "rule_json of a winner"), row.candidates,
        sources,
    )  # fmt: skip


_EDGE_SENTENCE = re.compile(
    r"(?P<path>\S+) (?P<where>at|beyond) the (?P<side>low|high) edge "
    r"\((?P<value>[^ ,)]+)(?:,? (?:below|above|its range ends at) (?P<bound>[^ )]+))?\)"
)


def _as_edge(recorded: dict[str, Any] | str) -> Edge:
    """An edge as this version records it, or a sentence of an earlier version, whose numbers have six digits."""
    if isinstance(recorded, dict):
        try:
            return Edge(**recorded)
        except TypeError:
            raise damaged("an edge in edges_json of a winner", recorded) from None
    parts = _EDGE_SENTENCE.fullmatch(recorded) if isinstance(recorded, str) else None
    if parts is None:
        raise damaged("an edge in edges_json of a winner", recorded)
    side: Literal["low", "high"] = "low" if parts["side"] == "low" else "high"
    value = float(parts["value"])
    bound = value if parts["bound"] is None else float(parts["bound"])
    return Edge(parts["path"], side, parts["where"] == "beyond", value, bound)
