"""Figures of which no value is better than another: no form of the report, nor status, shows one as the best."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from measured_layers import DISTANCE, record
from recorded_study import METRICS, Plot, Study

from orchestrator.records.rows import MetricRow
from orchestrator.report import figures, status, wording
from orchestrator.report.build import build
from orchestrator.report.drawings import Scale
from orchestrator.report.formats import FORMATS, Links
from orchestrator.report.formats.terminal import terminal
from orchestrator.report.groups import heat_map
from orchestrator.report.model import Report
from orchestrator.report.svg.heat_map import part_of, scale_bar
from orchestrator.report.verify import verify
from orchestrator.store.store import Store, open_store

LOSS = MetricRow("loss", "loss", "lower", "px")
"""In the unit of the distance, so that a title may name it once."""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Report]]:
    """Trials are chosen by accuracy; the table shows a distance beside it, over three seeds."""
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('both') / 'store.db'}")
    plot = Plot(metrics=(*METRICS, DISTANCE), figures=("top1", "attention_distance"))
    yield store, build(store, Study(store, plot).run())
    store.close()


def test_nothing_leads_in_a_column_of_such_a_figure(both: tuple[Store, Report]) -> None:
    store, report = both
    shown = [*report.cells, *report.means]
    assert {each.figure.name for each in shown if each.leading} == {"top1"}
    assert all(each.value is not None and len(each.values) == 3 for each in shown), "the distances could be compared"
    assert verify(store, report.job_id) == []


@pytest.mark.parametrize("form", FORMATS)
def test_no_form_gives_it_a_direction(both: tuple[Store, Report], form: str) -> None:
    report = both[1]
    text = FORMATS[form].render(report, Links())
    assert not re.search(r"attention distance \(px[^)]*\) *(↑|↓|\$\\(up|down)arrow)", text)
    assert "better" not in text.replace("a wider grid may do better", "").replace('"better"', "")
    if form == "json":
        assert {cell["figure"]["better"] for cell in json.loads(text)["cells"]} == {"higher", "neither"}
    elif form != "csv":
        assert "attention distance (px)" in text
        assert re.search(r"top-1 accuracy \(\\?%\) *(↑|\$\\uparrow)", text)


def test_the_title_names_no_direction() -> None:
    assert wording.directed_title(DISTANCE) == "attention distance (px)"
    assert wording.directed_title(LOSS) == "loss (px, lower is better)"


def test_the_best_of_several_values_is_known_only_if_all_are_equal() -> None:
    assert figures.best([3.0, 5.0], DISTANCE) is None
    assert figures.best([3.0, 3.0], DISTANCE) == 3.0
    assert figures.best([], DISTANCE) is None
    assert figures.best([3.0, 5.0], LOSS) == 3.0


def test_a_heat_map_goes_from_the_lowest_to_the_highest() -> None:
    scale = Scale("x", DISTANCE, low=30.0, high=50.0)
    assert [part_of(value, scale) for value in (30.0, 40.0, 50.0)] == [0.0, 0.5, 1.0]
    assert "lowest 30.0" in scale_bar(scale)
    assert "highest 50.0 px" in scale_bar(scale)
    assert "worst 0.500" in scale_bar(Scale("x", LOSS, low=0.3, high=0.5))


def test_a_cell_of_several_settings_says_that_none_stands_for_it(store: Store) -> None:
    job_id = record(store, sizes=(16, 32))
    report = build(store, job_id)
    why = "2 settings, and no attention distance is better than another; make backbone.image_size a row or column"
    for cell in report.cells:
        assert (cell.state, cell.value, cell.values, cell.keys, cell.best_of) == ("undecided", None, (), (), 1)
        assert cell.reason == why
    text = terminal(report, 200)
    assert f"SUP on digits: undecided ({why})" in text
    assert f"SUP on digits has no value: {why}" in report.warnings
    assert "best of" not in " ".join(report.warnings)
    assert "not final" not in " ".join(report.warnings)
    assert verify(store, job_id) == []
    for form in FORMATS:
        assert "undecided" in FORMATS[form].render(report, Links())


def test_a_cell_of_one_setting_has_its_number(store: Store) -> None:
    report = build(store, record(store, sizes=(16,)))
    assert [(cell.state, cell.value, cell.seeds) for cell in report.cells] == [("done", 30.0, (0, 1, 2))] * 2


def test_status_names_a_value_only_where_there_is_one_setting(store: Store, tmp_path: Path) -> None:
    assert "analyse 30.0" in status.status(store, record(store, sizes=(16,))).text()
    with_two = open_store(f"sqlite:///{tmp_path / 'two' / 'store.db'}")
    shown = status.status(with_two, record(with_two, sizes=(16, 32)))
    with_two.close()
    assert "analyse 30.0" not in shown.text()
    assert "6/6" in shown.text()
    assert [group["table"] for group in shown.to_json()["groups"]] == [None, None]


def test_a_square_of_several_settings_is_not_drawn(store: Store) -> None:
    """Of one setting each it is."""
    job_id = record(store, rows=("SUP",), sizes=(16, 32))
    placed = store.trials.placed(job_id)
    drawn = heat_map("analyse", placed, set())
    assert drawn is not None
    assert [(cell.x, cell.settings, len(cell.values)) for cell in drawn.cells] == [(16.0, 1, 3), (32.0, 1, 3)]
    (group,) = build(store, job_id).groups
    assert [each.x_path for each in group.heat_maps] == ["backbone.image_size"]
    for trial in placed[::2]:
        trial.settings["task.dataset"] = "faces"
    assert heat_map("analyse", placed, set()) is None
    assert "from the column's lowest to its highest" in terminal(build(store, job_id), 200)
