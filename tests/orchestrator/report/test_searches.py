"""What the report draws of a search follows from the recorded figures, settings and decisions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from search_job import FROM_SEARCH, RANGES, job, run, search

from orchestrator.engine import membership
from orchestrator.records.rows import MetricRow
from orchestrator.report.build import build
from orchestrator.report.drawings import Importance, SearchField, SearchReport, SearchSetting
from orchestrator.report.earlier_forms import with_method_of
from orchestrator.report.formats.html_page import html
from orchestrator.report.importance import FEWEST, importance
from orchestrator.report.json_values import to_json
from orchestrator.report.model import Report
from orchestrator.report.page import words
from orchestrator.report.replicates import replicates
from orchestrator.report.searches import _setting as _setting_of
from orchestrator.report.searches import _with_best
from orchestrator.report.verify import verify
from orchestrator.spec.job import job_id
from orchestrator.store.store import Store, open_store

CHOICE = {**RANGES, "backbone.drop_path": {"choice": [0, 0.1]}}
STUDY = job(search(search=CHOICE, trials=9), FROM_SEARCH)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Report]]:
    folder = tmp_path_factory.mktemp("search")
    store = open_store(f"sqlite:///{folder / 'store.db'}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(membership, "BEAT_S", 0.02)
        run(store, STUDY, folder)
    yield store, build(store, job_id(STUDY))
    store.close()


@pytest.fixture
def found(ran: tuple[Store, Report]) -> SearchReport:
    (shown,) = ran[1].searches
    return shown


def test_every_setting_is_there_with_its_recorded_values(ran: tuple[Store, Report], found: SearchReport) -> None:
    rows = sorted(ran[0].trials.placed(job_id(STUDY), "search"), key=lambda row: row.position)
    assert [each.key for each in found.settings] == [row.key for row in rows]
    assert [each.number for each in found.settings] == list(range(1, 10))
    assert found.fields == (
        SearchField("optim.lr", "log"),
        SearchField("optim.layer_decay", "linear"),
        SearchField("backbone.drop_path", "choice", ("0", "0.1")),
    )
    for each, row in zip(found.settings, rows, strict=True):
        lr, decay, drop = (row.settings[path] for path in CHOICE)
        assert each.at == (lr, decay, [0, 0.1].index(drop))
        if row.value is not None:
            assert (each.in_full, each.value) == (True, pytest.approx(100 * row.value))


def test_a_stopped_setting_has_what_it_had_reported_and_is_never_the_best(
    ran: tuple[Store, Report], found: SearchReport
) -> None:
    (events,) = ran[0].search_log.events(job_id(STUDY)).values()
    stops = {event.key: event.body for event in events if event.kind == "stopped"}
    assert {each.key for each in found.not_in_full} == set(stops) != set()
    for each in found.not_in_full:
        assert each.state == "stopped"
        assert each.epoch == stops[each.key]["epoch"]
        assert each.value == pytest.approx(100 * stops[each.key]["value"])
    (choice,) = ran[0].choices.of(job_id(STUDY))
    assert found.best is not None
    assert found.best.key == choice.key
    assert found.best.chosen
    assert found.best.value == pytest.approx(100 * choice.value)


def test_the_best_so_far_only_rises_and_ends_at_the_best(found: SearchReport) -> None:
    so_far = [each.best for each in found.settings if each.best is not None]
    assert so_far == sorted(so_far)
    assert so_far[-1] == max(each.value for each in found.in_full if each.value is not None)


def _setting(number: int, value: float | None, *at: float, in_full: bool = True) -> SearchSetting:
    return SearchSetting(number, f"key{number}", "done" if in_full else "stopped", at, value, in_full)


def test_of_an_error_the_best_so_far_falls_and_where_nothing_is_better_there_is_none() -> None:
    tried = [_setting(1, 0.5), _setting(2, 0.1, in_full=False), _setting(3, 0.4), _setting(4, 0.6), _setting(5, None)]
    error = MetricRow("rmse", "RMSE", "lower", "m", 1.0, 3)
    assert [each.best for each in _with_best(tried, error)] == [0.5, 0.5, 0.4, 0.4, 0.4]
    assert {each.best for each in _with_best(tried, replace(error, better="neither"))} == {None}


def test_importance_is_of_the_field_that_matters() -> None:
    fields = (SearchField("optim.lr", "log"), SearchField("optim.layer_decay", "linear"))
    tried = [
        _setting(n, 90.0 - abs(n % 10 - 5), 10 ** (-4 + n % 10 / 5), ((7 * n) % 20) / 40 + 0.5) for n in range(1, 41)
    ]
    shares, by = importance(fields, tried, "higher")
    assert [each.path for each in shares] == ["optim.lr", "optim.layer_decay"]
    assert sum(each.share for each in shares) == pytest.approx(1, abs=0.002)
    assert shares[0].share > 0.8
    assert by.startswith("Optuna ")
    assert importance(fields, tried, "higher")[0] == shares, "nothing is drawn at random"
    mirrored = [replace(each, value=-(each.value or 0.0)) for each in tried]
    assert importance(fields, mirrored, "lower")[0] == shares


@pytest.mark.parametrize(
    ("tried", "better"),
    [
        ([_setting(n, float(n), n / 10) for n in range(1, FEWEST)], "higher"),
        ([_setting(n, 7.0, n / 10) for n in range(1, 9)], "higher"),
        ([_setting(n, float(n), n / 10) for n in range(1, 9)], "neither"),
        ([], "higher"),
    ],
)
def test_no_importance_from_nothing(tried: list[SearchSetting], better: str) -> None:
    assert importance((SearchField("optim.lr", "linear"),), tried, better) == ((), "")


def test_no_search_shows_test(ran: tuple[Store, Report], monkeypatch: pytest.MonkeyPatch) -> None:
    store, report = ran
    assert {each.split for each in report.searches} == {"val"}
    read = store.trials.placed

    def on_test(job: str, stage: str | None = None) -> list[object]:
        return [replace(row, split="test") for row in read(job, stage)]

    monkeypatch.setattr(store.trials, "placed", on_test)
    altered = build(store, job_id(STUDY))
    assert altered.searches == ()
    assert all(curve.role != "other" for group in altered.groups for curve in group.curves)


def test_verify_covers_the_search_and_another_version_of_optuna_is_no_difference(ran: tuple[Store, Report]) -> None:
    store, report = ran
    saved = to_json(report)
    assert verify(store, report.job_id, saved) == []
    saved["searches"][0]["settings"][2]["value"] = 1.0
    (line,) = verify(store, report.job_id, saved)
    assert line.startswith("report.searches[0].settings[2].value: 1.0 in the saved report")
    earlier = to_json(report)
    earlier["searches"][0] |= {"importance_by": "Optuna 4.0", "importance": [{"path": "optim.lr", "share": 1.0}]}
    assert verify(store, report.job_id, earlier) == []
    assert with_method_of({"searches": []}, to_json(report)) == {"searches": []}


def test_a_search_without_a_value_has_words_and_no_charts(ran: tuple[Store, Report], found: SearchReport) -> None:
    begun = tuple(replace(each, value=None, best=None, in_full=False, state="running") for each in found.settings)
    page = html(replace(ran[1], searches=(replace(found, settings=begun, importance=()),)))
    assert "0 of 9 settings ran in full, 9 have no value (running)." in page
    assert 'id="search-0-so-far"' not in page
    assert '"searches":{}' in page
    assert '"searches":{"search-0":' in html(ran[1])


def test_a_terminal_reads_no_search(ran: tuple[Store, Report]) -> None:
    short = build(ran[0], job_id(STUDY), full=False)
    assert (short.searches, short.settings, short.spec_text) == ((), (), "")


def test_words_say_the_numbers(found: SearchReport) -> None:
    best = found.best
    assert best is not None
    assert best.value is not None
    told = words.search_words(found)
    assert f"{len(found.in_full)} of 9 settings ran in full, {len(found.not_in_full)} were stopped early" in told
    assert f"Highest top-1 accuracy on val: {best.value:.1f} %, setting {best.number} (lr " in told
    assert f"setting {best.number} {best.value:.1f}" in words.so_far_words(found)
    assert words.field_words(found, 2).startswith("top-1 accuracy (%) on val against drop path, tried 0")
    assert f"setting {best.number} (" in words.parallel_words(found)
    few = replace(found, settings=found.settings[:1], importance=())
    assert words.importance_note(few) == f"Not computed: it needs 4 settings in full, there are {len(few.in_full)}."
    shares = replace(found, importance=(Importance("optim.lr", 1.0),), importance_by="Optuna 5, PED-ANOVA")
    full = len(found.in_full)
    hint = "of fewer than 30 settings a hint, no more"
    assert words.importance_note(shares) == f"Optuna 5, PED-ANOVA, from {full} settings in full; {hint}."


def test_a_part_of_a_populations_member_has_its_value_and_cannot_win(
    ran: tuple[Store, Report], found: SearchReport
) -> None:
    row = next(row for row in ran[0].trials.placed(job_id(STUDY), "search") if row.value is not None)
    part = _setting_of(replicates([replace(row, epochs=3)]), found.figure, {}, False)
    assert (part.in_full, part.state, part.epoch) == (False, "done", 3)
    assert part.value == pytest.approx(100 * (row.value or 0.0))
    whole = _setting_of(replicates([row]), found.figure, {}, True)
    assert (whole.in_full, whole.epoch) == (True, None)
    parts = replace(found, settings=(*found.in_full, replace(part, at=found.in_full[0].at)))
    count = len(found.in_full)
    told = words.search_words(parts)
    assert told.startswith(f"{count} of {count + 1} settings ran in full, 1 are parts of members of a population. ")


def test_a_search_is_ranked_once_for_its_words(found: SearchReport, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once for each setting would take minutes for thousands of them."""
    ranked: list[SearchReport] = []

    def counts(search: SearchReport) -> set[int]:
        ranked.append(search)
        return {1, 2}

    monkeypatch.setattr(words, "leading_settings", counts)
    assert words.parallel_words(found).count("setting ") == 3, "the sentence, and two settings"
    assert len(ranked) == 1
