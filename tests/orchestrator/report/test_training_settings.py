"""The settings that a page lists are those that the command `settings` reads from the spec."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from search_job import FROM_SEARCH, RANGES, job, run, search

from orchestrator.cli.settings_table import settings_of
from orchestrator.engine import membership
from orchestrator.report.build import build
from orchestrator.report.model import Report
from orchestrator.report.training_settings import FIELDS, setting_text, tried, with_rise
from orchestrator.spec.job import job_id
from orchestrator.spec.load import load
from orchestrator.store.store import open_store
from workers.optim_spec import OptimSpec

STUDY = job(search(search={"optim.lr": RANGES["optim.lr"]}, trials=4, stopping="none"), FROM_SEARCH)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Report]:
    folder = tmp_path_factory.mktemp("settings")
    store = open_store(f"sqlite:///{folder / 'store.db'}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(membership, "BEAT_S", 0.02)
        run(store, STUDY, folder)
    yield build(store, job_id(STUDY))
    store.close()


def test_they_are_those_of_the_command(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(report.spec_text)
    (column,) = settings_of(path, None)
    told = {row.path: row.values for row in report.settings}
    assert report.rows == (column.row,)
    shared = set(told) & set(FIELDS) - {"optim.lr"}
    assert {"backbone.model", "optim.epochs", "optim.betas", "optim.schedule"} <= shared
    for name in shared:
        assert told[name] == (column.values[name],), name
    for name in (path for path in column.titles if path.startswith("task.augment.")):
        assert told[name] == (column.values[name],), name
    assert {column.values[path] for path in FIELDS if path not in told} == {"–"}, "what nobody sets is left out"


def test_what_was_searched_is_told_from_the_smallest_to_the_largest(report: Report) -> None:
    tried_lrs = sorted(trial.settings["optim.lr"] for trial in report.trials if trial.stage == "search")
    (row,) = (row for row in report.settings if row.path == "optim.lr")
    assert row.title == "Base learning rate"
    assert row.values == (f"{tried_lrs[0]:.4g} to {tried_lrs[-1]:.4g} (4 values)",)


def test_what_the_last_stage_changes_stands_beside_it(report: Report) -> None:
    told = {row.path: row.values for row in report.settings}
    assert told["task.train"] == ("train; final: trainval",)
    assert told["task.evaluate"] == ("val; final: test",)


def test_the_spec_on_the_page_is_the_same_job(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "again.yaml"
    path.write_text(report.spec_text)
    assert job_id(load(path, None, [])) == report.job_id


@pytest.mark.parametrize(
    "fields",
    [
        {"epochs": 25, "schedule": "up_down"},
        {"epochs": 25, "schedule": "up_down", "up_epochs": 2.5},
        {"iterations": 11, "schedule": "up_down"},
        {"iterations": 11, "schedule": "up_down", "up_iterations": 3},
    ],
)
def test_the_rise_is_that_of_the_optimizer(fields: dict[str, object]) -> None:
    spec = OptimSpec.model_validate({"lr": 1e-3, "batch": 40, "warmup_epochs": 0, **fields})
    name = "up_epochs" if spec.iterations is None else "up_iterations"
    assert with_rise(spec.model_dump(mode="json"))[name] == spec.up_length
    assert with_rise({**spec.model_dump(mode="json"), "schedule": "cosine"})[name] is None


def test_values_as_text() -> None:
    assert tried([0.9, 0.8, 0.7, 1.0]) == "0.7 to 1 (4 values)"
    assert tried(["b", "a", "c", "d"]) == "b to d (4 values)"
    assert tried([0.1, 0.1, None]) == "0.1, –"
    assert tried([]) == ""
    assert setting_text({"kind": "file", "name": "MIM"}) == "MIM"
    assert setting_text([0.9, 0.999]) == "(0.9, 0.999)"
