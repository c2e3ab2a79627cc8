"""Recorded choices in the store."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import sqlalchemy as sa
from stored_job import JOB, key_of

from orchestrator.errors import Conflict
from orchestrator.records.rows import ChoiceRow, Edge
from orchestrator.store.store import Store


def test_a_winner_is_decided_once(three: Store) -> None:
    edges, rule = [Edge("optim.lr", "low", False, 1.25e-4, 1.25e-4)], {"mode": "max", "ties": []}
    winner = ChoiceRow("final", "digits/RAND", key_of(1), 0.5, "top1", edges, rule, 15, ["grid"])
    three.choices.record(JOB.id, winner)
    three.choices.record(JOB.id, winner)
    assert three.choices.of(JOB.id) == [winner]
    with pytest.raises(Conflict, match=f"{key_of(1)[:12]} for digits/RAND, not {key_of(2)[:12]}"):
        three.choices.record(JOB.id, replace(winner, key=key_of(2)))
    assert three.choices.of(JOB.id) == [winner]


@pytest.mark.parametrize(
    ("sentence", "edge"),
    [
        ("optim.lr at the high edge (0.0025)", Edge("optim.lr", "high", False, 2.5e-3, 2.5e-3)),
        ("optim.lr beyond the low edge (7e-05 below 0.0001)", Edge("optim.lr", "low", True, 7e-5, 1e-4)),
        ("optim.lr beyond the high edge (0.0035 above 0.0025)", Edge("optim.lr", "high", True, 3.5e-3, 2.5e-3)),
        ("optim.lr at the high edge (0.009, its range ends at 0.01)", Edge("optim.lr", "high", False, 9e-3, 1e-2)),
        ("optim.batch beyond the high edge (80, its range ends at 64)", Edge("optim.batch", "high", True, 80, 64)),
        ("optim.shift beyond the low edge (-2, its range ends at -1)", Edge("optim.shift", "low", True, -2, -1)),
    ],
)
def test_edges_that_earlier_versions_recorded_as_sentences_are_read(
    three: Store, database_url: str, sentence: str, edge: Edge
) -> None:
    three.choices.record(JOB.id, ChoiceRow("final", "digits/RAND", key_of(1), 0.5, "top1"))
    driver = "postgresql+psycopg" if database_url.startswith("postgresql") else "sqlite"
    engine = sa.create_engine(sa.make_url(database_url).set(drivername=driver))
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE winners SET edges_json = :text"), {"text": json.dumps([sentence])})
    engine.dispose()
    assert [choice.edges for choice in three.choices.of(JOB.id)] == [[edge]]
    assert three.lineage.chosen(key_of(1))[0][1].edges == [edge]
