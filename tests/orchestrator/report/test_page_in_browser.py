"""The page in a browser: charts show values, tables sort and filter, nothing is cut on a phone or on paper."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium, opened
from recorded_study import Plot, Study
from search_job import FROM_SEARCH, RANGES, job, run, search

from orchestrator.engine import membership
from orchestrator.report.build import build
from orchestrator.report.formats.html_page import html
from orchestrator.report.model import Report
from orchestrator.spec.job import job_id
from orchestrator.store.store import open_store

NAMES = ("food101", "birdsnap", "cars", "aircraft", "pets", "caltech101", "flowers", "dtd", "sun397", "cifar10",
         "cifar100", "voc2007")  # fmt: skip
SEARCH = job(search(search={**RANGES, "backbone.drop_path": {"choice": [0, 0.1]}}, trials=9), FROM_SEARCH)
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
OVERFLOW = "document.documentElement.scrollWidth - innerWidth"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def grid_page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    """A table of twelve data sets, of which one group failed."""
    folder = tmp_path_factory.mktemp("grid")
    store = open_store(f"sqlite:///{folder / 'store.db'}")
    study = Study(store, Plot(data_sets=NAMES, failed_grid=("pets/SUP",), lrs=(1e-4, 1e-3, 1e-2), decays=(0.75, 0.95)))
    report = build(store, study.run())
    store.close()
    (folder / "report.html").write_text(html(report))
    return report, folder / "report.html"


@pytest.fixture(scope="module")
def search_page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    folder = tmp_path_factory.mktemp("search")
    store = open_store(f"sqlite:///{folder / 'store.db'}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(membership, "BEAT_S", 0.02)
        run(store, SEARCH, folder)
    report = build(store, job_id(SEARCH))
    store.close()
    (folder / "report.html").write_text(html(report))
    return report, folder / "report.html"


def _pointed(page: Any, chart: str, right: float, down: float) -> str:
    """What the page shows when the mouse is at this part of a chart's width and height."""
    page.locator(chart).scroll_into_view_if_needed()
    page.locator(f"{chart} canvas").wait_for()
    box = page.locator(f"{chart} .u-over").bounding_box()
    page.mouse.move(box["x"] + right * box["width"], box["y"] + down * box["height"])
    return str(page.locator("#tip").text_content()) if page.locator("#tip").is_visible() else ""


def test_curves_show_their_values(browser: Any, grid_page: tuple[Report, Path]) -> None:
    report, file = grid_page
    chosen = next(curve for curve in report.groups[0].curves if curve.role == "chosen")
    with opened(browser, file, viewport={"width": 1440, "height": 900}) as page:
        told = next(
            text for n in range(20) if "chosen on val" in (text := _pointed(page, "#group-0-metric", 0.99, n / 20))
        )
        assert told.startswith(f"epoch {chosen.epochs[-1]}\n")
        assert f"chosen on val: {chosen.metric[-1]:.1f}" in told
        ends = [curve.end for curve in report.groups[0].curves if curve.role == "final" and curve.end is not None]
        assert f"final, figure on test: {min(ends):.1f} to {max(ends):.1f} (3 seeds)" in told
        page.mouse.move(2, 2)
        assert page.locator("#tip").is_hidden()
        assert page.locator("article .still").first.is_hidden(), "the picture for readers without script"


def test_the_pictures_of_a_search_show_its_settings(browser: Any, search_page: tuple[Report, Path]) -> None:
    report, file = search_page
    (found,) = report.searches
    assert found.best is not None
    with opened(browser, file, viewport={"width": 1440, "height": 900}) as page:
        charts = page.locator(".search .plotted")
        assert charts.count() == 1 + 3 + 1
        for chart in charts.all():
            chart.scroll_into_view_if_needed()
            chart.locator("canvas").wait_for()
            assert chart.get_attribute("aria-label")
        number, count = found.best.number, len(found.settings)
        right = (number - 1 + 0.03 * (count - 1)) / (1.06 * (count - 1))  # the axis has 3 % of room at each end
        told = (_pointed(page, "#search-0-so-far", right, down / 20) for down in range(20))
        best = next(text for text in told if text.startswith(f"{number}: "))
        assert best.startswith(f"{number}: {found.best.value:.1f} % on val, chosen\nlr ")
        beside = {_pointed(page, "#search-0-parallel", 0.16, down / 20) for down in range(20)} - {""}
        assert len(beside) > 1
        assert all(re.match(r"\d+: \d+\.\d % on val", text) for text in beside)
        assert page.locator(".bars tr").count() == len(found.importance)


def test_trials_sort_and_filter(browser: Any, grid_page: tuple[Report, Path]) -> None:
    report, file = grid_page
    with opened(browser, file) as page:
        page.locator("#trials summary", has_text="grid").click()
        table = page.locator("#trials details[open] table")
        values = sorted(trial.value for trial in report.trials if trial.stage == "grid" and trial.value is not None)
        head = table.locator("th", has_text=re.compile("^value$"))
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        column = [line.strip() for line in table.locator("tbody tr[id] td[data-label=value]").all_inner_texts()]
        assert column[: len(values)] == [f"{value:.1f}" for value in values]
        assert column[-1] == "", "without a value: last"
        assert table.locator("tr.error").count() == 1
        error = table.locator("tr.error").evaluate("row => row.previousElementSibling.textContent")
        assert "pets/SUP" in error, "an error stays below its trial"
        head.locator("button").click()
        column = [line.strip() for line in table.locator("tbody tr[id] td[data-label=value]").all_inner_texts()]
        assert column[: len(values)] == [f"{value:.1f}" for value in reversed(values)]
        page.locator("#trials details[open] input").fill("birdsnap 0.95")
        wanted = [trial for trial in report.trials if trial.stage == "grid" and trial.group.startswith("birdsnap")]
        shown = [trial for trial in wanted if trial.settings["optim.layer_decay"] == 0.95]
        assert table.locator("tbody tr:visible").count() == len(shown) == 6
        assert page.locator("#trials details[open] .filter").inner_text().strip() == f"6 of {12 * 2 * 6}"


def test_a_link_to_a_trial_opens_its_list(browser: Any, grid_page: tuple[Report, Path]) -> None:
    with opened(browser, grid_page[1]) as page:
        link = page.locator(".headline .links a").first
        target = (link.get_attribute("href") or "")[1:]
        assert page.locator(f"#{target}").is_hidden()
        link.click()
        page.locator(f"#{target}").wait_for(state="visible")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_on_a_phone(browser: Any, grid_page: tuple[Report, Path], scheme: str) -> None:
    with opened(browser, grid_page[1], color_scheme=scheme, **PHONE) as page:
        page.locator("#trials summary").nth(1).click()
        assert page.evaluate(OVERFLOW) == 0
        cut = "parts => parts.filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.innerText)"
        assert page.locator(".scroll").evaluate_all(cut) == []
        label = "td => getComputedStyle(td, '::before').content"
        assert page.locator(".headline td").first.evaluate(label) == '"food101"'


def test_three_cards_a_row_and_no_cut_column_on_a_desktop(browser: Any, grid_page: tuple[Report, Path]) -> None:
    with opened(browser, grid_page[1], viewport={"width": 1440, "height": 900}) as page:
        columns = page.locator(".cards").first.evaluate(
            "e => getComputedStyle(e).gridTemplateColumns.split(' ').length"
        )
        assert columns == 3
        table = page.locator("#table .scroll")
        assert table.evaluate("e => e.scrollWidth - e.clientWidth") == 0


def test_paper_has_light_colours_open_lists_and_every_chart(
    browser: Any, search_page: tuple[Report, Path], tmp_path: Path
) -> None:
    with opened(browser, search_page[1], color_scheme="dark", viewport={"width": 1440, "height": 900}) as page:
        page.evaluate(
            """addEventListener("beforeprint", () => {
              window.printed = {
                charts: document.querySelectorAll(".plotted canvas").length,
                places: document.querySelectorAll(".plotted").length,
                ink: getComputedStyle(document.documentElement).getPropertyValue("--ink").trim(),
                shut: document.querySelectorAll("details:not([open])").length,
              };
            })"""
        )
        page.pdf(path=tmp_path / "page.pdf", format="A4")
        printed = page.evaluate("window.printed")
        assert printed["charts"] == printed["places"] > 5
        assert printed["ink"] == "#14171f"
        assert printed["shut"] == 0
        assert page.locator("#trials details[open]").count() == 0, "shut again after printing"


def test_without_script_the_page_still_says_everything(browser: Any, search_page: tuple[Report, Path]) -> None:
    report, file = search_page
    with opened(browser, file, java_script_enabled=False) as page:
        assert page.locator("article .still svg").first.is_visible()
        assert page.locator(".plotted").first.is_hidden()
        assert f"Highest top-1 accuracy on val: {report.searches[0].best.value:.1f} %" in page.inner_text(".search")
