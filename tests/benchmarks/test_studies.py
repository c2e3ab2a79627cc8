"""benchmarks/studies.py: what README and docs/studies.md show of a report, and where."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from types import ModuleType

import pytest
from recorded_study import Plot, Study
from spec_files import SPECS

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


def test_the_pages_have_one_place_for_every_laptop_profile_and_further_ones_for_others(studies: ModuleType) -> None:
    pages = {page: page.read_text() for page in studies.PAGES}
    names = [path.stem for path in SPECS if "laptop" in profiles(path)]
    further = {f"{path.stem} {profile}" for path in SPECS for profile in profiles(path) if profile != "laptop"}
    places = [name for text in pages.values() for name in re.findall("<!-- study: (.*) -->", text)]
    assert names
    assert set(names) <= set(places) <= set(names) | further
    for place in places:
        name, _, profile = place.partition(" ")
        found = studies.place(pages, Path(f"{name}.yaml"), profile or "laptop")
        assert (found.name, found.own) == (place, True)
        assert (found.page.name == "README.md") is (place == "k12_grid")
        assert "\nnew table\n" in studies.written(pages[found.page], place, "new table")
    assert sum(text.count(studies.END) for text in pages.values()) == len(places)


def test_another_profile_is_shown_in_a_place_of_its_own_where_there_is_one(studies: ModuleType) -> None:
    both = README.replace("Between.\n", "Between.\n<!-- study: cog laptop_depth -->\nmetres\n<!-- end of study -->\n")
    first, second, cog = Path("README.md"), Path("studies.md"), Path("specs/cog.yaml")

    def place(text: str, profile: str) -> tuple[Path, str, bool]:
        found = studies.place({first: "", second: text}, cog, profile)
        return found.page, found.name, found.own

    assert place(both, "laptop") == (second, "cog", True)
    assert place(both, "laptop_depth") == (second, "cog laptop_depth", True)
    assert place(README, "laptop_depth") == (second, "cog", False)
    assert place(both, "smoke") == (second, "cog", False)
    texts = {"cog laptop_depth": "new metres", "cog": "new table"}
    wanted = both.replace("metres", "new metres").replace("old table", "new table")
    assert studies.with_all(both, texts) == wanted


def test_a_place_on_two_pages_or_none_is_an_error(studies: ModuleType) -> None:
    for pages in ({Path("a.md"): README, Path("b.md"): README}, {Path("a.md"): "", Path("b.md"): ""}):
        with pytest.raises(ValueError, match=r"one page, a.md or b.md, needs one place for cog"):
            studies.place(pages, Path("specs/cog.yaml"), "laptop")


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
