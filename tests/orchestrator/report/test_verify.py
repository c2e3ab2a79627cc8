"""`report --verify`: every difference between a report, the recorded choices and the figures is found."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.records.rows import ChoiceRow
from orchestrator.report.earlier_forms import in_form_of
from orchestrator.report.json_values import to_json
from orchestrator.report.model import Report
from orchestrator.report.verify import _ranges, _same, differences, verify
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


WINNER = "UPDATE winners SET {} WHERE stage = 'refine' AND grp = 'digits/SUP'"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("value = value + 0.0001", "recorded with top1 0.9601, its figure is 0.96"),
        ("value = 1e-9", "recorded with top1 1e-09, its figure is 0.96"),
        ("candidates = candidates + 1", "recorded with 16 candidates, it has 15"),
        ("candidates = 0", "recorded with 0 candidates, it has 15"),
        ("edges_json = '[]'", "recorded edges none, the grid says layer decay low (0.75)"),
        ("edges_json = json_insert(edges_json, '$[1]', json(replace(json_extract(edges_json, '$[0]'), 'low', 'high')))",
         "recorded edges layer decay high (0.75); layer decay low (0.75), the grid says layer decay low (0.75)"),
        ("edges_json = replace(edges_json, 'low', 'high')", "recorded edges layer decay high (0.75), the grid says "
                                                            "layer decay low (0.75)"),
    ],
)  # fmt: skip
def test_verify_finds_what_a_choice_does_not_follow_from(
    tampered: tuple[Store, sqlite3.Connection], whole: Report, change: str, line: str
) -> None:
    store, connection = tampered
    assert connection.execute(WINNER.format(change)).rowcount == 1
    assert verify(store, whole.job_id) == [f"refine of digits/SUP: {line}"]


def test_verify_finds_a_winner_that_was_no_candidate(tampered: tuple[Store, sqlite3.Connection], whole: Report) -> None:
    store, connection = tampered
    other = whole.named["digits/RAND"].heat_maps[0].cells[0].keys[0]
    connection.execute(WINNER.format("key = ?"), (other,))
    found = verify(store, whole.job_id)
    assert f"refine of digits/SUP: recorded winner {other[:12]} is none of its 15 candidates" in found
    assert any(f"recorded winner {other[:12]} (top1 0.96), the figures choose " in line for line in found)


@pytest.mark.parametrize("stage", ["refine", "final"])
def test_verify_finds_trials_that_follow_from_no_decision(
    tampered: tuple[Store, sqlite3.Connection], whole: Report, stage: str
) -> None:
    store, connection = tampered
    connection.execute("DELETE FROM winners WHERE stage = ? AND grp = 'faces/SUP'", (stage,))
    assert verify(store, whole.job_id) == [f"{stage} of faces/SUP: has trials, but no decision is recorded"]


def test_verify_chooses_by_the_recorded_tie_rule(tampered: tuple[Store, sqlite3.Connection], whole: Report) -> None:
    """A trial equal to the winner in every figure, of a larger learning rate: the rule prefers the winner, the order of
    keys would not. One of a smaller rate wins by the same rule."""
    store, connection = tampered
    (winner,) = (
        choice for choice in store.choices.of(whole.job_id) if (choice.stage, choice.group) == ("refine", "digits/SUP")
    )
    grid = [t for t in store.trials.placed(whole.job_id, "grid") if t.group == "digits/SUP" and t.key != winner.key]
    lr = next(t.settings["optim.lr"] for t in store.trials.placed(whole.job_id, "grid") if t.key == winner.key)
    figures = dict(connection.execute("SELECT name, value FROM figures WHERE trial_id = " + ID, (winner.key,)))

    def equal(key: str) -> None:
        for name, value in figures.items():
            connection.execute(f"UPDATE figures SET value = ? WHERE name = ? AND trial_id = {ID}", (value, name, key))
        connection.execute("UPDATE trials SET value = ? WHERE key = ?", (figures["top1"], key))

    equal(next(t.key for t in grid if t.settings["optim.lr"] > lr and t.key < winner.key))
    assert verify(store, whole.job_id) == []
    smaller = next(t.key for t in grid if t.settings["optim.lr"] < lr)
    equal(smaller)
    found = verify(store, whole.job_id)
    assert len(found) == 2, "refine and final took the other one"
    assert all(f"the figures choose {smaller[:12]} (0.96)" in line for line in found)


ID = "(SELECT id FROM trials WHERE key = ?)"


@pytest.mark.parametrize("off", [1e-3, 1e-6, 1e-12])
def test_verify_finds_a_figure_that_is_a_little_off(
    tampered: tuple[Store, sqlite3.Connection], whole: Report, off: float
) -> None:
    store, connection = tampered
    key = whole.at["SUP", "digits"].keys[0]
    assert connection.execute(FIGURE, (0.95 + off, key)).rowcount == 1
    listed, tabled = verify(store, whole.job_id)
    assert f"listed with top1 0.95, its figure is {0.95 + off}" in listed
    assert "shown from [95.0, " in tabled


def test_verify_takes_two_figures_that_are_no_number_for_equal_and_not_one(
    tampered: tuple[Store, sqlite3.Connection], whole: Report
) -> None:
    store, connection = tampered
    key = whole.named["digits/SUP"].heat_maps[0].cells[-1].keys[0]
    connection.execute("UPDATE trials SET value = ? WHERE key = ?", (math.inf, key))
    (line,) = verify(store, whole.job_id)
    assert key[:12] in line
    assert connection.execute(FIGURE, (math.inf, key)).rowcount == 1
    assert not any("the figures choose" in line or "its figure is" in line for line in verify(store, whole.job_id))


@pytest.mark.parametrize(
    ("name", "change"),
    [("value", lambda value: value + 1e-9), ("reason", lambda text: text + " "), ("seeds", lambda seeds: seeds[::-1]),
     ("best_of", lambda count: str(count)), ("values", lambda values: [*values, 1.0])],
)  # fmt: skip
def test_verify_finds_the_smallest_change_of_a_saved_report(
    whole_study: tuple[Store, Report], name: str, change: Any
) -> None:
    store, whole = whole_study
    saved = json.loads(json.dumps(to_json(whole)))
    assert verify(store, whole.job_id, saved) == []
    saved["cells"][0][name] = change(saved["cells"][0][name])
    found = verify(store, whole.job_id, saved)
    assert found, name
    assert all(line.startswith(f"report.cells[0].{name}") for line in found)


def test_verify_finds_a_done_trial_without_its_figure(
    tampered: tuple[Store, sqlite3.Connection], whole: Report
) -> None:
    store, connection = tampered
    key = whole.at["SUP", "digits"].keys[0]
    assert connection.execute(f"DELETE FROM figures WHERE name = 'top1' AND trial_id = {ID}", (key,)).rowcount == 1
    listed, tabled = verify(store, whole.job_id)
    assert f"({key[:12]}): listed with top1 0.95, its figure is None" in listed
    assert tabled.startswith("SUP on digits, top1: shown from [")


def test_a_chosen_trial_whose_reports_were_not_recorded_is_no_difference(
    tampered: tuple[Store, sqlite3.Connection], whole: Report
) -> None:
    store, connection = tampered
    choice = whole.at["SUP", "digits"].choice
    assert choice is not None
    assert connection.execute(f"DELETE FROM reports WHERE trial_id = {ID}", (choice.key,)).rowcount == 8
    assert verify(store, whole.job_id) == []


def test_verify_finds_a_chosen_trial_without_any_figure(
    tampered: tuple[Store, sqlite3.Connection], whole: Report
) -> None:
    store, connection = tampered
    choice = whole.at["SUP", "digits"].choice
    assert choice is not None
    connection.execute("UPDATE trials SET state = 'failed', value = NULL WHERE key = ?", (choice.key,))
    found = verify(store, whole.job_id)
    assert f"({choice.key[:12]}): last reported top1 0.96, its figure is None" in "; ".join(found)


def test_verify_finds_a_winner_at_the_end_of_a_searched_range(
    tampered: tuple[Store, sqlite3.Connection], whole: Report
) -> None:
    store, connection = tampered
    spec = json.loads(json.dumps(store.jobs.spec(whole.job_id)))
    (grid,) = (stage for stage in spec["stages"] if stage["name"] == "grid")
    grid["sweep"]["search"] = {"optim.lr": {"loguniform": [2.64e-4, 1e-2]}}
    connection.execute("UPDATE jobs SET spec_json = ? WHERE id = ?", (json.dumps(spec), whole.job_id))
    found = verify(store, whole.job_id)
    low = "layer decay low (0.75)"
    assert f"refine of digits/SUP: recorded edges {low}, the grid says {low}; lr low (0.000264)" in found


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [(0.5, 0.5, True), (0.5, 0.25, False), (math.nan, math.nan, True), (math.nan, 0.5, False), (0.5, math.nan, False),
     (math.inf, math.inf, True), (math.inf, -math.inf, False), (None, None, True), (None, 0.0, False),
     (0.0, None, False)],
)  # fmt: skip
def test_two_figures_are_the_same(one: float | None, other: float | None, same: bool) -> None:
    assert _same(one, other) is same


def test_a_source_of_a_decision_may_have_no_trial(tampered: tuple[Store, sqlite3.Connection], whole: Report) -> None:
    """A neighbourhood of which every value was left out has none."""
    store, connection = tampered
    refined = connection.execute("DELETE FROM placed WHERE stage = 'refine' AND grp = 'digits/SUP'").rowcount
    assert refined > 0
    (winner,) = (c for c in store.choices.of(whole.job_id) if (c.stage, c.group) == ("final", "digits/SUP"))
    assert winner.sources == ["grid", "refine"]
    found = verify(store, whole.job_id)
    assert f"final of digits/SUP: recorded with {15 + refined} candidates, it has 15" in found


def test_of_a_report_of_another_version_only_shared_numbers_are_compared(whole_study: tuple[Store, Report]) -> None:
    store, whole = whole_study
    saved = json.loads(json.dumps(to_json(whole)))
    saved.update(form=-1, warnings=["worded otherwise"], no_longer="there")
    saved = dict(in_form_of(saved, saved))
    del saved["stage"]
    assert verify(store, whole.job_id, saved) == []
    saved["cells"][0]["value"] += 1
    assert any(line.startswith("report.cells[0].value: ") for line in verify(store, whole.job_id, saved))


def test_a_report_from_before_the_curves_of_other_trials_is_no_different(whole_study: tuple[Store, Report]) -> None:
    """Form 5 had the curves of the chosen and the final trials alone: those are still compared."""
    store, whole = whole_study
    saved = json.loads(json.dumps(to_json(whole)))
    saved["form"] = 5
    for group in saved["groups"]:
        group["curves"] = [curve for curve in group["curves"] if curve["role"] != "other"]
    assert len(saved["groups"][0]["curves"]) < len(whole.groups[0].curves)
    assert verify(store, whole.job_id, saved) == []
    saved["groups"][0]["curves"][0]["metric"][-1] += 1
    assert [line.split(":")[0] for line in verify(store, whole.job_id, saved)] == [
        f"report.groups[0].curves[0].metric[{len(saved['groups'][0]['curves'][0]['metric']) - 1}]"
    ]
    del saved["groups"][0]["curves"][0]
    assert verify(store, whole.job_id, saved)[0].startswith("report.groups[0].curves: ")


@pytest.mark.parametrize(
    ("saved", "fresh", "found"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1}, [1], ["x: {'a': 1} in the saved report, [1] now"]),
        ([1], {"a": 1}, ["x: [1] in the saved report, {'a': 1} now"]),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, ["x.a.b: 1 in the saved report, 2 now"]),
        ({"a": 1}, {}, ["x.a: only in the saved report"]),
        ({}, {"a": 1}, ["x.a: not in the saved report"]),
        ([1, [2]], [1, [3]], ["x[1][0]: 2 in the saved report, 3 now"]),
        ([1], [1, 2], ["x: 1 in the saved report, 2 now"]),
        ({"run_id": 1, "run_ids": []}, {"run_id": 2}, []),
        ({"warnings": ["a"]}, {"warnings": ["b"]}, ["x.warnings[0]: 'a' in the saved report, 'b' now"]),
        ([{"reason": "a", "edges": 1}], [{"edges": 2}], ["x[0].reason: only in the saved report",
                                                         "x[0].edges: 1 in the saved report, 2 now"]),
    ],
)  # fmt: skip
def test_each_difference_of_two_values_is_a_line_with_its_path(saved: Any, fresh: Any, found: list[str]) -> None:
    assert differences(saved, fresh, "x") == found


@pytest.mark.parametrize(
    "wrap",
    [lambda value: value, lambda value: {"a": value}, lambda value: [value], lambda value: {"a": [{"b": value}]}],
)
def test_of_another_version_texts_and_fields_of_one_side_do_not_count_at_any_depth(wrap: Any) -> None:
    saved, fresh = {"reason": "a", "gone": 1, "value": 1}, {"reason": "b", "new": 2, "value": 1}
    assert differences(wrap(saved), wrap(fresh), "x", shared_only=True) == []
    (line,) = differences(wrap(saved), wrap({**fresh, "value": 2}), "x", shared_only=True)
    assert line.endswith(".value: 1 in the saved report, 2 now")


def test_differences_of_a_saved_report_come_after_those_of_the_store(
    tampered: tuple[Store, sqlite3.Connection], whole: Report
) -> None:
    store, connection = tampered
    connection.execute(WINNER.format("candidates = 0"))
    saved = {**json.loads(json.dumps(to_json(whole))), "caption": "another"}
    found = verify(store, whole.job_id, saved)
    assert found[0].startswith("refine of digits/SUP: recorded with 0 candidates")
    assert any(line.startswith("report.caption: 'another' in the saved report") for line in found)


def test_the_edges_of_a_decision_are_those_of_the_searches_behind_it() -> None:
    stages = {
        "grid": {"sweep": {"grid": [{"optim.lr": [1e-3]}]}},
        "search": {"sweep": {"search": {"optim.lr": {"loguniform": [1e-4, 1e-2]}, "seed": {"choice": [0, 1]}}}},
        "refine": {"from": ["search"], "sweep": {}},
        "other": {"sweep": {"search": {"optim.clip": {"uniform": [0, 1]}}}},
    }

    def decided(*names: str) -> ChoiceRow:
        return ChoiceRow("test", "", "k", 0.5, "top1", [], {}, 2, list(names))

    searched = ({"optim.lr": (1e-4, 1e-2, True)}, {"seed": [0, 1]})
    assert _ranges(stages, decided("search")) == _ranges(stages, decided("refine")) == searched
    assert _ranges(stages, decided("grid")) == ({}, {})
