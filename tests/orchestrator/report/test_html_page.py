"""The page of a report: well-formed, safe with any names, self-contained, with links that lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from recorded_study import DEPTH, METRICS, Plot, Study

from orchestrator.report.build import build
from orchestrator.report.drawings import Scale
from orchestrator.report.formats.html_page import html
from orchestrator.report.model import Report
from orchestrator.report.svg.elements import nice
from orchestrator.report.svg.heat_map import VIRIDIS, colour, part_of, picture
from orchestrator.store.store import Store, open_store

NASTY = ("<script>alert(1)</script>", "a\"b'&c")
VOID = {"meta", "br", "link", "img", "input", "hr"}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Report]]:
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('page') / 'store.db'}")
    plot = Plot(
        data_sets=NASTY,
        failed_grid=(f"{NASTY[1]}/RAND",),
        diverged_grid=(f"{NASTY[0]}/RAND",),
        reference={"RAND": {NASTY[0]: 80.0}},
    )
    yield store, build(store, Study(store, plot).run())
    store.close()


@pytest.fixture(scope="module")
def text(study: tuple[Store, Report]) -> str:
    return html(study[1], "http://127.0.0.1:5000")


class Page(HTMLParser):
    """Collects what the tests ask for, and whether every tag that was opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.sources: list[str] = []
        self.scripts = 0
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.ids += [told["id"] or ""] if "id" in told else []
        self.links += [told["href"] or ""] if "href" in told else []
        self.sources += [told[name] or "" for name in ("src", "srcset", "data", "action") if name in told]
        self.scripts += tag == "script" and told.get("type") != "application/json"
        assert not any(name.startswith("on") for name in told), "no handlers in attributes"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_is_one_file(text: str) -> None:
    page = Page(text)
    assert page.open == []
    assert page.sources == []
    assert "url(http" not in text
    assert "@import" not in text
    outside = [link for link in page.links if not link.startswith("#")]
    assert outside
    assert all(re.fullmatch(r"http://127\.0\.0\.1:5000/#/runs/run[0-9a-f]{12}", link) for link in outside)
    assert page.scripts == 1
    assert "default-src 'none'" in text


def test_every_inner_link_has_its_target(text: str) -> None:
    page = Page(text)
    assert len(set(page.ids)) == len(page.ids)
    inner = {link[1:] for link in page.links if link.startswith("#")}
    assert inner <= set(page.ids)
    assert len([name for name in inner if name.startswith("trial-final-")]) == 9, "every cell links to its trials"


def test_nothing_from_a_spec_becomes_markup(text: str) -> None:
    assert "<script>alert" not in text
    assert "<img>" not in text
    words = "".join(Page(text).words)
    assert NASTY[0] in words
    assert NASTY[1] in words
    assert "ValueError: <img> & co" in words


def test_the_page_says_everything(text: str, study: tuple[Store, Report]) -> None:
    words = " ".join("".join(Page(text).words).split())
    assert "89.2 ± 0.5" in words
    assert "80.0 +9.2" in words, "published value and difference"
    assert "incomplete: 1 of 15 grid trials failed or were cancelled" in words
    assert "chosen at the edge: layer decay high (0.95)" in words
    assert words.count("diverged") >= 2
    assert "60 trials: 2 diverged, 57 done, 1 failed" in words
    assert "0123456789abcdef" in words
    assert f"{len(study[1].warnings)} warnings" in words
    for trial in study[1].trials:
        assert trial.key[:12] in words


def test_runs_are_links_only_to_a_web_address(study: tuple[Store, Report]) -> None:
    for address in ("", "sqlite:///runs/mlflow.db", "javascript:alert(1)"):
        assert all(link.startswith("#") for link in Page(html(study[1], address)).links)


def test_links_to_runs_survive_another_port(study: tuple[Store, Report]) -> None:
    """They lead to a page beside the reports, which knows where the UI is."""
    links = [link for link in Page(html(study[1], "../../mlflow.html")).links if not link.startswith("#")]
    assert links
    assert all(re.fullmatch(r"\.\./\.\./mlflow\.html#/runs/run[0-9a-f]{12}", link) for link in links)


def test_a_heat_map_alone_is_an_svg_file(study: tuple[Store, Report]) -> None:
    store, report = study

    def drawn(stage: str, data_set: str) -> str | None:
        trials = [t for t in store.trials.placed(report.job_id, stage) if t.group == f"{data_set}/RAND"]
        return picture(trials, set())

    alone = drawn("grid", NASTY[0])
    assert alone is not None
    root = ElementTree.fromstring(alone)
    said = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert said.count("diverged") == 2
    assert "90.0" in said
    assert "learning rate" in said
    assert any(NASTY[0] in line for line in said)
    assert "best 90.0 %" in said, "the scale is the group's"
    page = html(report)
    assert "worst 34.8<" in page, "the scale is the data set's, over both rows"
    assert "best 96.0 %<" in page
    other = drawn("grid", NASTY[1])
    assert other is not None
    assert "✕ failed" in "".join(ElementTree.fromstring(other).itertext())
    assert drawn("final", NASTY[0]) is None
    assert picture(store.trials.placed(report.job_id, "pretrain"), set()) is None


def test_the_scale_is_bright_for_better_and_text_can_be_read_on_it() -> None:
    assert colour(0.0) == ("#440154", "#ffffff")
    assert colour(1.0) == ("#fde725", "#000000")
    for n in range(101):
        fill, ink = colour(n / 100)
        assert contrast(fill, ink) >= 4.5, (n, fill, ink)
    lightness = [luminance(f"#{stop}") for stop in VIRIDIS]
    assert lightness == sorted(lightness)
    error = Scale("depth", DEPTH[0], low=0.3, high=0.5)
    assert part_of(0.3, error) == 1.0
    assert part_of(0.5, error) == pytest.approx(0.0)
    assert part_of(7.0, Scale("flat", METRICS[0], low=7.0, high=7.0)) == 1.0


def luminance(fill: str) -> float:
    """Relative luminance of WCAG 2."""
    parts = [int(fill[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (34.8, 96.0), (5.0, 5.0), (0.0, 0.0), (-3.0, 2.0), (1e-6, 3e-6)])
def test_axis_ticks_cover_the_values(low: float, high: float) -> None:
    ticks = nice(low, high)
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert 2 <= len(ticks) <= 7
    assert ticks == sorted(set(ticks))


def test_a_job_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    study = Study(store, Plot())
    page = Page(html(build(store, study.job_id)))
    assert page.open == []
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    words = " ".join("".join(page.words).split())
    assert "waits for grid" in words
    store.close()
