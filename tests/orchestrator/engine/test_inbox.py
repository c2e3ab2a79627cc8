"""Measurements that trials leave in files: recorded with the figures, which count even if the file is damaged."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from in_process_backend import Machine, drive_to_end, made_up, messages
from k12_job import RAND, figures, grid, job

from orchestrator.engine.inbox import read_measurements
from orchestrator.records.rows import MeasurementRow
from orchestrator.records.states import JobState, TrialState
from orchestrator.report import describe
from orchestrator.spec.job import job_id
from orchestrator.store.store import Store, open_store
from workers.trial import TrialSpec

NAME = "measurements.jsonl"
ONE = job(grid(dataset=["digits"], init=[RAND], lr=[6e-4], layer_decay=[0.85]))
ROW = {"figure": "entropy", "split": "val", "item": "", "layer": 3, "head": 0, "value": 1.5}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    yield opened
    opened.close()


def leaving(content: str | None, sha256: str | None = None) -> Any:
    """A trial that leaves this file of measurements; None: it says so, but there is no file."""

    def execute(assignment: Any, emit: Any, stop: Any) -> Any:
        outcome = made_up(assignment, emit, stop)
        folder = Path(assignment.folder)
        folder.mkdir(parents=True, exist_ok=True)
        if content is not None:
            (folder / NAME).write_text(content)
        facts = {**outcome.facts, "notes": ["an earlier note"]}
        return replace(outcome, measurements=NAME, measurements_sha256=sha256, facts=facts)

    return execute


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_measurements_are_recorded_with_the_figures(store: Store, tmp_path: Path) -> None:
    other = {**ROW, "item": "class 7", "layer": None, "head": None, "value": float("nan")}
    state, _ = drive_to_end(store, ONE, Machine(execute=leaving(lines(ROW, other))), tmp_path)
    assert state is JobState.done
    (row,) = store.trials.placed(job_id(ONE))
    assert store.measured.of([row.key])[row.key] == [
        MeasurementRow("entropy", "val", "", 3, 0, 1.5),
        MeasurementRow("entropy", "val", "class 7", None, None, None),
    ]
    assert store.trials.get(row.key).facts["notes"] == ["an earlier note"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file"),
        (lines(ROW) + lines(ROW)[:40], "line 2: Invalid JSON"),
        (lines({**ROW, "value": "much"}), "line 1: value: Input should be a valid number"),
        (lines({**ROW, "layer": 1.5}), "line 1: layer: Input should be a valid integer"),
        (lines({name: value for name, value in ROW.items() if name != "split"}), "line 1: split: Field required"),
        ("[1, 2]\n", "line 1: "),
        ("\n", "line 1: Invalid JSON"),
    ],
)
def test_figures_count_even_if_the_file_is_lost_or_damaged(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str | None, problem: str
) -> None:
    caplog.set_level(logging.INFO, "orchestrator")
    machine = Machine(execute=leaving(content))
    assert drive_to_end(store, ONE, machine, tmp_path)[0] is JobState.done
    (row,) = store.trials.placed(job_id(ONE))
    trial = store.trials.get(row.key)
    assert trial.state is TrialState.done
    assert trial.figures == figures(TrialSpec.model_validate(trial.spec))
    assert store.measured.of([row.key]) == {}
    earlier, note = trial.facts["notes"]
    assert earlier == "an earlier note"
    assert note.startswith("measurements are not recorded: ")
    assert problem in note
    assert messages(caplog) == [f"{row.name}: {note}"]
    assert note in describe.trial(store, row.key, tmp_path / "storage").text()
    assert drive_to_end(store, ONE, machine, tmp_path)[0] is JobState.done
    assert machine.ran[row.key] == 1


def test_the_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(lines(ROW).encode() + b"\xff\xfe\n")
    with pytest.raises(ValueError, match=f"{NAME}, line 2: "):
        read_measurements(tmp_path / NAME, None)


def test_a_file_that_lost_whole_lines_is_noticed(tmp_path: Path) -> None:
    path, content = tmp_path / NAME, lines(ROW, {**ROW, "layer": 4}).encode()
    path.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    assert [row.layer for row in read_measurements(path, digest)] == [3, 4]
    path.write_bytes(lines(ROW).encode())
    with pytest.raises(ValueError, match=f"{NAME} has SHA-256 [0-9a-f]{{64}}, not {digest}"):
        read_measurements(path, digest)


def test_a_death_is_told_only_where_this_driver_still_had_the_trial(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A driver that slept past its lease (a closed laptop) finds its actor in the hands of another."""
    from types import SimpleNamespace

    from in_process_backend import prepared_driver

    from orchestrator.store import leases

    caplog.set_level(logging.INFO, "orchestrator")
    driver = prepared_driver(store, ONE, tmp_path)
    (key,) = driver.planned_trials
    site = driver.job_id, "machine"
    store.leases.register(replace(leases.driver_here("asleep", *site), pid=2**22 - 3))
    store.leases.register(leases.driver_here(driver.id, *site))
    store.leases.register(leases.driver_here("other", *site))
    token = store.leases.claim(driver.id, [key])[key]
    driver.backend = SimpleNamespace(running=list, retire=print, stop=print)  # type: ignore[assignment]
    died = SimpleNamespace(worker=SimpleNamespace(key=key, token=token), update=None, reason="killed")

    driver.apply_updates([died])
    assert messages(caplog) == [f"{driver.name(key)}: its process died (killed); restarting"]
    caplog.clear()

    token = store.leases.claim("other", [key])[key]
    driver.apply_updates([died])
    (line,) = messages(caplog)
    assert line == f"{driver.name(key)}: taken over by another driver, which records its results"
    assert store.leases.running()[0].token == token
