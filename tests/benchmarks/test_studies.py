"""benchmarks/studies.py: what README and docs/studies.md show of a report, and where."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import ModuleType

import pytest
from recorded_study import Plot, Study

from orchestrator.report.build import build
from orchestrator.report.formats.markdown import markdown
from orchestrator.spec.load import profiles
from orchestrator.store.store import open_store

ROOT = Path(__file__).parents[2]

REPORT = """\
## cog

A caption. top-1 accuracy (%) on test, stage apply; one seed

| initial weights | L1 |
| --- | ---: |
| RAND | 41.0 |

- a note

### Warnings

- SUP on L1: chosen on the edge of the grid

### Chosen on val

| data set | lr |
| --- | ---: |
| L1 | 1e-3 |

### Trials behind each cell

| initial weights | value | trials |
| --- | --- | --- |
| RAND | 41.0 | `62efc945713c` |

Job `cog-laptop-928e21cb`, code 1234567, seeds 0.
"""

README = """\
Before.
<!-- study: cog -->
old table
<!-- end of study -->
Between.
<!-- study: search -->
another table
<!-- end of study -->
After.
"""


@pytest.fixture
def studies(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import studies

    return studies


def test_the_pages_have_one_place_for_every_laptop_profile(studies: ModuleType) -> None:
    pages = {path: path.read_text() for path in studies.PAGES}
    names = [path.stem for path in sorted((ROOT / "specs").glob("*.yaml")) if "laptop" in profiles(path)]
    assert names
    places = {name: studies.page_of(pages, name).name for name in names}
    assert [name for name, page in places.items() if page == "README.md"] == ["k12_grid"]
    for name in names:
        assert "\nnew table\n" in studies.written(pages[studies.page_of(pages, name)], name, "new table")
    text = "".join(pages.values())
    assert text.count("<!-- study: ") == text.count(studies.END) == len(names)


def test_a_place_on_two_pages_or_none_is_an_error(studies: ModuleType) -> None:
    for pages in ({Path("a.md"): README, Path("b.md"): README}, {Path("a.md"): "", Path("b.md"): ""}):
        with pytest.raises(ValueError, match=r"one page, a.md or b.md, needs one place for cog"):
            studies.page_of(pages, "cog")


def test_only_the_studys_own_place_is_written(studies: ModuleType) -> None:
    assert studies.written(README, "cog", "new table") == README.replace("old table", "new table")
    assert studies.written(README, "search", "x") == README.replace("another table", "x")


@pytest.mark.parametrize(
    ("readme", "name"),
    [
        (README, "inat18"),
        (README + README, "cog"),
        (README.rpartition("<!-- end")[0], "search"),
        (README.replace("<!-- end of study -->", "", 1), "cog"),
    ],
    ids=["no place", "two places", "last place without an end", "end of another place"],
)
def test_a_missing_or_second_place_is_an_error(studies: ModuleType, readme: str, name: str) -> None:
    with pytest.raises(ValueError, match=f"needs one place for {name}"):
        studies.written(readme, name, "new table")


def test_results_are_the_table_and_the_choices(studies: ModuleType) -> None:
    text = studies.results(REPORT)
    assert text.startswith("A caption. top-1 accuracy (%) on test")
    assert "| RAND | 41.0 |\n\n- a note\n\n**Chosen on val**\n\n| data set | lr |" in text
    assert text.endswith("| L1 | 1e-3 |")


def test_of_a_figure_the_picture_and_its_caption_are_shown(studies: ModuleType) -> None:
    section = (
        "### Figure 1\n\n![Figure 1](figure-1.svg)\n\nA caption.\n\n| layer | 0 |\n| --- | ---: |\n| SUP | 3.5 |\n\n"
    )
    report = REPORT.replace("### Trials behind", f"{section}### Trials behind")
    text = studies.results(report, "benchmarks/results/cog-")
    assert text.endswith("**Figure 1**\n\n![Figure 1](benchmarks/results/cog-figure-1.png)\n\nA caption.")


def test_machine_names_all_that_digits_depend_on(studies: ModuleType) -> None:
    versions = dict.fromkeys((*studies.VERSIONS, "mlflow"), "1.2.3")
    provenance = {"versions": versions, "git_commit": "1234567890", "git_dirty": True}
    line = studies.machine(provenance, {"threads": 1}, cpus=2)
    for part in ("2 of ", studies.processor(), "kernels, 1 thread a trial", "torch 1.2.3", "1234567 with uncommitted"):
        assert part in line
    assert "mlflow" not in line


@pytest.mark.parametrize(
    ("seeds", "words", "row"),
    [
        ((0, 1, 2), "mean over 3 seeds ± half the 95 % confidence interval over seeds", "| SUP | **95.2 ± 0.5** |"),
        ((0, 1), "both values of two seeds", "| SUP | 95.0 / 95.2 |"),
        ((0,), "one seed (n = 1)", "| SUP | 95.0 |"),
    ],
)
def test_readme_says_over_how_many_seeds(
    studies: ModuleType, tmp_path: Path, seeds: tuple[int, ...], words: str, row: str
) -> None:
    with contextlib.closing(open_store(f"sqlite:///{tmp_path / 'store.db'}")) as store:
        report = build(store, Study(store, Plot(seeds=seeds)).run())
    text = studies.results(markdown(report))
    assert words in text.splitlines()[0]
    assert row in text
    assert "- chosen at: maximum over 20 settings on val; no result, too optimistic" in text
