"""What stands around the table of the page: contents, hours, commands, the spec."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from orchestrator.report.build import build
from orchestrator.report.formats import FORMATS, Links
from orchestrator.report.formats.html_page import html
from orchestrator.report.model import Report, StageCount
from orchestrator.report.page.parts import commands, contents, hours_of, sortable, warned
from orchestrator.store.store import Store


class Ids(HTMLParser):
    """The ids of a page and the elements that have an alternative text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.told: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.ids |= {told["id"] or ""} if "id" in told else set()
        if tag == "img" or told.get("role") == "img":
            self.told.append(told.get("alt") or told.get("aria-label") or "")


def test_contents_lead_to_every_section(hurt: Report) -> None:
    page = html(hurt)
    listed = contents(hurt)
    assert {name for name, _ in listed} <= Ids(page).ids
    assert [heading for _, heading in listed] == [
        "Results", "Chosen settings", "digits", "faces", "Trials", "Settings", "Where the numbers come from",
        "Spec and commands", "Warnings",
    ]  # fmt: skip


def test_every_picture_is_told_in_words_with_numbers(whole: Report) -> None:
    told = Ids(html(whole)).told
    assert len(told) == 4 * (1 + 2 * 2), "of each group a heat map, and two charts with and without script"
    assert all(re.search(r"\d\.\d", words) for words in told), told


def test_warnings_are_one_line_under_the_results_and_whole_at_the_end(hurt: Report) -> None:
    page = html(hurt)
    line = page.index('<p class="warned"><a href="#warnings">')
    assert page.index('id="table"') < line < page.index('id="chosen"')
    assert f"<b>{len(hurt.warnings)} warnings</b>" in page
    assert page.index('id="warnings"') > page.index('id="provenance"')
    assert warned(replace(hurt, warnings=("one",))) == "1 warning"
    calm = replace(hurt, warnings=())
    assert warned(calm) == ""
    assert "warnings" not in {name for name, _ in contents(calm)}


def test_hours() -> None:
    gpu = StageCount("grid", 2, {"done": 2}, 7200.0, gpus=0.5, cpus=8.0)
    cpu = StageCount("final", 1, {"done": 1}, 1800.0, gpus=0.0, cpus=2.0)
    assert hours_of([gpu]) == "1 GPU-hours"
    assert hours_of([cpu]) == "1 CPU-hours"
    assert hours_of([gpu, cpu]) == "1 GPU-hours and 1 CPU-hours"
    assert hours_of([replace(cpu, seconds=0.0)]) == ""
    assert hours_of([replace(cpu, seconds=0.5)]) == "less than 0.001 CPU-hours"
    assert hours_of([replace(gpu, seconds=3600.0 * 25)]) == "12.5 GPU-hours"
    assert hours_of([replace(gpu, seconds=3600.0 * 1074)]) == "537 GPU-hours"


def test_a_page_says_the_hours_of_each_stage_and_in_all(whole: Report) -> None:
    page = html(whole)
    seconds = {count.name: count.seconds for count in whole.stages}
    assert f"{sum(seconds.values()) / 3600:.2g} CPU-hours in all" in page
    assert f"grid {seconds['grid'] / 3600:.2g} CPU-hours" in page


def test_commands_and_spec(whole: Report) -> None:
    page = html(whole)
    assert [command for _, command in commands(whole)] == [
        f"python -m orchestrator report {whole.job_id} -f html &gt; report.html".replace("&gt;", ">"),
        f"python -m orchestrator report {whole.job_id} --verify",
        "python -m orchestrator submit study.yaml",
    ]
    assert f"report {whole.job_id} -f html &gt; report.html" in page
    assert whole.spec_text.endswith('profiles: {"laptop": {}}\n')
    assert "profiles: {&#34;laptop&#34;: {}}" in page
    assert commands(replace(whole, spec_text="")) == []


def test_the_same_store_gives_the_same_page_to_the_byte(whole_study: tuple[Store, Report]) -> None:
    store, report = whole_study
    pages = {FORMATS["html"].render(each, Links()) for each in (report, build(store, report.job_id))}
    assert len(pages) == 1


@pytest.mark.parametrize(("value", "expected"), [(1.18e-3, "0.00118"), (3, "3"), (True, ""), ("a", ""), (None, "")])
def test_what_the_script_sorts_by(value: object, expected: str) -> None:
    assert sortable(value) == expected
