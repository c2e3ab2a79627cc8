"""`report --verify`: every difference between a report, the recorded choices and the figures is found."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.report.json_values import to_json
from orchestrator.report.model import Report
from orchestrator.report.verify import verify
from orchestrator.store.store import Store, open_store


def test_verify_finds_nothing_in_an_honest_store(hurt_study: tuple[Store, Report]) -> None:
    store, hurt = hurt_study
    assert verify(store, hurt.job_id) == []
    assert verify(store, hurt.job_id, json.loads(json.dumps(to_json(hurt)))) == []


@pytest.fixture
def tampered(
    whole_study: tuple[Store, Report], tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> Iterator[tuple[Store, sqlite3.Connection]]:
    """A copy of the whole study, and a way into it past the store."""
    for file in tmp_path_factory.getbasetemp().glob("whole*/store.db*"):
        shutil.copy(file, tmp_path)
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}", create=False)
    connection = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    yield opened, connection
    connection.close()
    opened.close()


FIGURE = "UPDATE figures SET value = ? WHERE name = 'top1' AND trial_id = (SELECT id FROM trials WHERE key = ?)"


def test_verify_finds_a_tampered_figure(tampered: tuple[Store, sqlite3.Connection], whole: Report) -> None:
    store, connection = tampered
    key = whole.at["SUP", "digits"].keys[0]
    assert connection.execute(FIGURE, (0.999, key)).rowcount == 1
    listed, tabled = verify(store, whole.job_id)
    assert key[:12] in listed
    assert "its figure is 0.999" in listed
    assert tabled.startswith("SUP on digits, top1: shown from [95.0, ")
    assert "its trials have [99.9, " in tabled


def test_verify_finds_a_choice_that_the_figures_do_not_make(
    tampered: tuple[Store, sqlite3.Connection], whole: Report
) -> None:
    store, connection = tampered
    other = next(cell.keys[0] for cell in whole.named["digits/SUP"].heat_maps[0].cells if not cell.chosen)
    connection.execute(FIGURE, (0.98, other))
    connection.execute("UPDATE trials SET value = 0.98 WHERE key = ?", (other,))
    found = verify(store, whole.job_id)
    assert sum("the figures choose " + other[:12] in line for line in found) == 2, "refine and final took the other one"


def test_verify_finds_a_report_that_is_not_its_figure(
    tampered: tuple[Store, sqlite3.Connection], whole: Report
) -> None:
    store, connection = tampered
    choice = whole.at["SUP", "digits"].choice
    assert choice is not None
    connection.execute(
        "UPDATE reports SET values_json = '{\"top1\": 0.5}' WHERE epoch = 8 "
        "AND trial_id = (SELECT id FROM trials WHERE key = ?)", (choice.key,),
    )  # fmt: skip
    found = verify(store, whole.job_id)
    assert len(found) == 1
    assert "last reported top1 0.5, its figure is 0.96" in found[0]


def test_verify_finds_a_choice_made_too_early(tampered: tuple[Store, sqlite3.Connection], whole: Report) -> None:
    store, connection = tampered
    key = whole.named["faces/RAND"].heat_maps[0].cells[0].keys[0]
    connection.execute("UPDATE trials SET state = 'failed', value = NULL WHERE key = ?", (key,))
    found = verify(store, whole.job_id)
    assert "refine of faces/RAND: chosen although 1 of 15 candidates have no result" in found


def test_verify_finds_a_changed_report(whole_study: tuple[Store, Report]) -> None:
    store, whole = whole_study
    saved = to_json(whole)
    saved["cells"][0]["value"] += 1
    saved["warnings"].append("made up")
    del saved["stage"]
    saved["cells"][0]["run_ids"] = []
    found = verify(store, whole.job_id, saved)
    assert len(found) == 3, "where MLflow has a run is no result"
    assert any(line.startswith("report.cells[0].value: 90.2 in the saved report") for line in found)
    assert "report.stage: not in the saved report" in found
