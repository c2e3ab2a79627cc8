"""What the numbers of a table vary over, and which of them lead their column, in every form."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from recorded_study import METRICS, Plot, Study

from orchestrator.report.build import build
from orchestrator.report.dataframe import table
from orchestrator.report.earlier_forms import in_form_of
from orchestrator.report.formats import FORMATS, Links
from orchestrator.report.formats.html_page import html
from orchestrator.report.formats.terminal import terminal
from orchestrator.report.job_results import JobResults
from orchestrator.report.json_values import to_json
from orchestrator.report.model import Cell, Report
from orchestrator.report.statistics import wilson
from orchestrator.report.uncertainty import with_leading
from orchestrator.report.verify import verify
from orchestrator.report.wording import chosen_note, grid, notes, title
from orchestrator.store.store import Store, open_store

Made = Callable[..., Report]


@pytest.fixture
def made(store: Store) -> Made:
    return lambda **fields: build(store, Study(store, Plot(**fields)).run())


@pytest.fixture(scope="module")
def replicated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Report]]:
    """Three seeds in grid and neighbourhood, of which one diverged; five others in the final stage; whole chains."""
    store = open_store(f"sqlite:///{tmp_path_factory.mktemp('replicated') / 'store.db'}")
    plot = Plot(grid_seeds=(0, 1, 2), seeds=(3, 4, 5, 6, 7), noise=0.02, diverged_seed=("digits/RAND",), initial="own")
    yield store, build(store, Study(store, plot).run())
    store.close()


def printed(report: Report, form: str) -> str:
    return FORMATS[form].render(report, Links())


def row(name: str, *values: float, seeds: tuple[int, ...] = (0, 1, 2), better: str = "higher") -> list[Cell]:
    metric = replace(METRICS[0], better=better)
    value = sum(values) / len(values) if values else None
    return [Cell(name, "x", metric, "done", value=value, values=values, seeds=seeds[: len(values)])]


def leading(*rows: list[Cell]) -> list[str]:
    return [cell.row for (cell,) in with_leading(rows) if cell.leading]


def test_a_row_is_told_apart_from_the_best_by_differences_of_each_seed() -> None:
    """Both lag by 1 point on average, far less than the spread over seeds; only one does so in every seed."""
    best = row("best", 90.0, 80.0, 70.0)
    # differences 1.0, 1.1, 0.9: half an interval is 4.303 * 0.1 / sqrt(3) = 0.25
    behind = row("behind", 89.0, 78.9, 69.1)
    # differences -1, 1, 3: mean 1, half an interval is 4.303 * 2 / sqrt(3) = 4.97
    beside = row("beside", 91.0, 79.0, 67.0)
    assert leading(best, behind, beside) == ["best", "beside"]
    assert leading(behind, best) == ["best"]
    assert leading(row("a", 1.0, 2.0, 3.0), row("b", 1.0, 2.0, 3.0)) == ["a", "b"], "equal in every seed"
    assert leading(row("a", 1.0, 2.0, 3.0, better="lower"), row("b", 2.0, 3.0, 4.1, better="lower")) == ["a"]


@pytest.mark.parametrize(
    "others",
    [
        [],
        [row("other", 1.0, 2.0)],
        [row("other", 1.0, 2.0, 3.0, seeds=(0, 1, 3))],
        [row("other", 1.0, 2.0, 3.0), row("third", 1.0, 2.0, 3.0, seeds=(5, 6, 7))],
        [row("other", 1.0, 2.0, 3.0, better="lower")],
    ],
    ids=["nothing to compare", "other number", "other seeds", "other seeds in a third", "other direction"],
)
def test_nothing_leads_where_rows_cannot_be_paired(others: list[list[Cell]]) -> None:
    assert leading(row("one", 90.0, 80.0, 70.0), *others) == []


def test_nothing_leads_over_fewer_than_three_seeds() -> None:
    assert leading(row("one", 90.0, 80.0), row("other", 1.0, 2.0)) == []
    assert leading(row("one", 90.0), row("other", 1.0)) == []


def test_a_row_without_a_number_leaves_the_others_comparable() -> None:
    assert leading(row("one", 90.0, 80.0, 70.0), row("none"), row("other", 1.0, 2.0, 3.0)) == ["one"]


def test_what_leads_is_marked_in_every_form(replicated: tuple[Store, Report]) -> None:
    store, report = replicated
    assert {(cell.row, cell.leading) for cell in report.cells} == {("RAND", False), ("SUP", True)}
    assert {(mean.row, mean.leading, mean.n) for mean in report.means} == {("RAND", False, 5), ("SUP", True, 5)}
    note = "best of its column, or its difference to that, paired by seed, has a 95 % interval that contains 0"
    assert "| SUP | **96.5 ± 1.6** | **96.4 ± 1.3** | **96.5 ± 1.4** |" in printed(report, "md")
    assert f"- **bold**: {note}" in printed(report, "md")
    assert printed(report, "tex").count(r"\textbf{96.") == 3
    assert rf"\textbf{{bold}}: {note}".replace("%", r"\%") in printed(report, "tex")
    assert printed(report, "html").count('<span class="value best"') == printed(report, "html").count("<b><a") + 1 == 3
    assert f"Bold: {note}." in printed(report, "html")
    (line,) = [line for line in printed(report, "text").splitlines() if line.startswith("SUP ")]
    assert line.split("  ")[-3:] == ["96.5 ± 1.6†", "96.4 ± 1.3†", "96.5 ± 1.4†"]
    assert f"  † {note}" in printed(report, "text")
    rows = list(csv.DictReader(io.StringIO(printed(report, "csv"))))
    assert {(each["row"], each["leading"]) for each in rows} == {("RAND", "false"), ("SUP", "true")}
    told = json.loads(printed(report, "json"))
    assert [cell["leading"] for cell in told["cells"] + told["means"]] == [False, False, True, True, False, True]
    frame = table(store, report.job_id)
    assert set(frame[frame["leading"]]["row"]) == {"SUP"}
    first = frame.iloc[0]
    assert (first["n"], first["seeds"], first["values"]) == (5, [3, 4, 5, 6, 7], list(report.cells[0].values))
    assert first["interval95"] == report.cells[0].interval


def test_the_caption_says_what_intervals_are_over(replicated: tuple[Store, Report]) -> None:
    report = replicated[1]
    words = (
        "mean over 5 seeds ± half the 95 % confidence interval over seeds (Student t), conditional on the chosen "
        "setting; SUP: each seed has its own pre-training (whole chains)"
    )
    assert title(report).endswith(f"; {words}")
    for form in ("text", "md", "html", "tex"):
        text = " ".join(printed(report, form).split())
        assert words.replace("±", r"$\pm$").replace("%", r"\%") in text if form == "tex" else words in text


def test_numbers_over_unlike_counts_of_seeds_each_say_theirs(made: Made) -> None:
    report = made()
    one, two, *others = report.cells
    cells = (
        replace(one, seeds=(0,), values=one.values[:1], interval=None),
        replace(two, seeds=(0, 1), values=two.values[:2], interval=None),
        *others,
    )
    mixed = replace(report, cells=cells)
    assert title(mixed).split("; ")[1:] == [
        "mean over 3 seeds ± half the 95 % confidence interval over seeds (Student t), "
        "conditional on the chosen setting",
        "of two seeds both values",
        "one seed (n = 1)",
    ]
    assert [line.texts[1:3] for line in grid(mixed).lines] == [
        ["89.2 (n = 1)", "89.0 / 89.2"], ["95.2 ± 0.5 (n = 3)", "95.2 ± 0.5 (n = 3)"],
    ]  # fmt: skip
    assert "89.2 (n = 1)" in printed(mixed, "html")
    assert "89.2 (n = 1)" in printed(mixed, "md")


def test_two_seeds_show_both_values(made: Made) -> None:
    report = made(seeds=(0, 1))
    cell = report.at["SUP", "digits"]
    assert (cell.value, cell.interval, cell.values) == (pytest.approx(95.1), None, pytest.approx((95.0, 95.2)))
    assert title(report).endswith("stage final; both values of two seeds")
    assert "| SUP | 95.0 / 95.2 | 95.0 / 95.2 | 95.0 / 95.2 |" in printed(report, "md")
    for form in ("text", "md", "html", "tex"):
        text = printed(report, form).partition("<script")[0]
        assert "95.0 / 95.2" in text
        assert not any(sign in text for sign in ("±", r"\pm", "†", r"\textbf", "**", 'class="value best"'))


def test_one_seed_has_an_interval_over_images_where_they_were_counted(made: Made) -> None:
    report = made(seeds=(4,), images=360)
    cell = report.at["SUP", "digits"]
    # accuracy 0.96 + 4 * 0.002, less 0.01 on test
    assert cell.value == pytest.approx(95.8)
    assert cell.images == 360
    assert cell.image_interval == pytest.approx(tuple(100 * end for end in wilson(0.958, 360)))
    assert title(report).endswith(
        "one seed (n = 1); in brackets, of top-1 accuracy, the 95 % interval over test images (Wilson), not over seeds"
    )
    assert r"| SUP | 95.8 \[93.2, 97.4\] | 95.8 \[93.2, 97.4\] | 95.8 |" in printed(report, "md")
    first = next(csv.DictReader(io.StringIO(printed(report, "csv"))))
    assert (first["n"], first["images"], first["interval95"]) == ("1", "360", "")
    assert float(first["images_low95"]) == pytest.approx(report.cells[0].image_interval[0])  # type: ignore[index]


def test_no_interval_over_images_of_other_figures_or_of_trials_that_did_not_count_them(made: Made) -> None:
    report = made(seeds=(0,), images=360, figures=("loss", "top1"))
    assert [cell.image_interval is None for cell in report.cells_of("SUP")] == [True, False] * 2
    plain = made(seeds=(0,), data_sets=("pets", "flowers"))
    assert {cell.image_interval for cell in plain.cells} == {None}
    assert title(plain).endswith("stage final; one seed (n = 1)")


def test_intervals_over_images_and_over_seeds_never_share_a_table(made: Made, store: Store) -> None:
    """Not even while the other seeds are running."""
    report = made(seeds=(0, 1), images=360, final_state={"digits/SUP": "running"})
    assert {cell.image_interval for cell in report.cells} == {None}
    assert "Wilson" not in title(report)


def test_no_interval_over_images_for_the_best_of_several_settings(store: Store) -> None:
    study = Study(store, Plot(images=360))
    study.pretrain()
    study.finished = lambda place, figures, test=False: Study.finished(study, place, figures, True)  # type: ignore[method-assign]
    for group in study.groups:
        study.grid(group)
    record = replace_stages(store, study)
    report = build(store, record)
    assert {cell.best_of for cell in report.cells} == {15}
    assert {cell.image_interval for cell in report.cells} == {None}
    assert any("best of 15 settings" in line for line in report.warnings)


def replace_stages(store: Store, study: Study) -> str:
    """The same trials as a job that ends with the grid; returns its id."""
    from orchestrator.records.rows import JobRecord

    spec = {**study.spec, "stages": study.spec["stages"][:2]}
    store.jobs.put(JobRecord(id="only-grid", name="only-grid", profile="", spec=spec, spec_text=""))
    store.trials.place("only-grid", [place for ran in study.ran.values() for place, _ in ran if place.stage == "grid"])
    return "only-grid"


def test_a_diverged_seed_leaves_no_mean_and_the_others_traceable(made: Made) -> None:
    report = made(final_state={"digits/SUP": "diverged"})
    cell = report.at["SUP", "digits"]
    assert (cell.state, cell.value, cell.diverged, cell.wanted) == ("diverged", None, 1, 3)
    assert (cell.seeds, cell.values) == ((0, 1), pytest.approx((95.0, 95.2)))
    for form in ("text", "md", "html", "tex"):
        assert "diverged in 1 of 3 seeds" in printed(report, form)
    assert "the others: 95.0 (seed 0), 95.2 (seed 1)" in " ".join(notes(report))
    first = next(each for each in csv.DictReader(io.StringIO(printed(report, "csv"))) if each["row"] == "SUP")
    assert (first["state"], first["value"], first["diverged_seeds"], first["seeds"]) == ("diverged", "", "1", "0 1")


def test_a_choice_by_one_seed_is_not_called_a_mean(made: Made, store: Store) -> None:
    """As jobs with an axis of seeds chose before there were replicates."""
    report = made(grid_seeds=(0, 1), noise=0.02)
    results = JobResults(store, report.job_id, full=True)
    choice = results.choices["final", "digits/SUP"]
    by_one = replace(choice, seeds=())
    alone, both = results.chosen_trials(by_one), results.chosen_trials(choice)
    assert alone is not None
    assert both is not None
    assert ([trial.key for trial in alone.trials], len(both.trials)) == ([choice.key], 2)
    groups = tuple(replace(group, choices=(by_one,)) for group in report.groups)
    assert "of the mean" in chosen_note(report)
    assert "of the mean" not in chosen_note(replace(report, groups=groups))


def test_a_heat_map_shows_mean_and_spread(replicated: tuple[Store, Report]) -> None:
    store, report = replicated
    drawn = report.named["digits/RAND"].heat_maps[0]
    assert drawn.replicated
    assert drawn.others == ()
    trials = [trial for trial in store.trials.placed(report.job_id, "grid") if trial.group == "digits/RAND"]
    for cell in drawn.cells:
        there = [t for t in trials if (t.settings["optim.lr"], t.settings["optim.layer_decay"]) == (cell.x, cell.y)]
        values = [100 * trial.value for trial in sorted(there, key=lambda t: t.seed) if trial.value is not None]
        assert cell.values == pytest.approx(values)
        assert (cell.settings, cell.wanted) == (1, 3)
        if len(values) == 3:
            assert cell.value == pytest.approx(sum(values) / 3)
    (lost,) = [cell for cell in drawn.cells if cell.value is None]
    assert (lost.state, lost.diverged, lost.seeds) == ("diverged", 1, (0, 1))
    page = html(report)
    best = next(cell for cell in drawn.cells if cell.chosen)
    spread = f"{min(best.values):.1f}–{max(best.values):.1f}"
    assert f": {best.value:.1f}%, chosen, mean of 3 seeds, smallest–largest {spread}" in page
    assert f">{spread}</text>" in page
    assert "diverged in 1 of 3 seeds, the others seed 0 " in page
    assert "each square: mean over 3 seeds, below it smallest–largest" in page
    lines = terminal(report).splitlines()
    assert any(line.startswith("Means over seeds (below them smallest–largest) on val") for line in lines)
    at = next(n for n, line in enumerate(lines) if f"{best.value:.1f}*" in line)
    assert spread in lines[at + 1]


def test_a_neighbour_differs_from_the_centre_by_seed(replicated: tuple[Store, Report]) -> None:
    report = replicated[1]
    group = report.named["digits/SUP"]
    centre = next(cell for cell in group.heat_maps[0].cells if cell.chosen)
    assert len(group.points) == 5
    for point in group.points:
        pairs = [a - b for a, b in zip(point.values, centre.values, strict=True)]
        assert point.difference == pytest.approx(sum(pairs) / 3)
        assert point.interval is not None
        assert len(point.keys) == 3
    page = html(report)
    assert "difference (± 95 % interval, paired by seed)" in page
    assert "5 settings around the best of the grid, means over seeds" in page


def test_curves_of_several_seeds_are_thin_with_their_mean(replicated: tuple[Store, Report]) -> None:
    page = html(replicated[1])
    # of each of 4 groups: training loss of 3 chosen and 5 final trials, the metric of the chosen ones
    assert page.count('class="line chosen seed"') == 4 * 2 * 3
    assert page.count('class="line final seed"') == 4 * 5
    assert page.count('class="line chosen"') == 4 * 2
    assert page.count('class="line final"') == 4
    assert "chosen, on val (3 seeds: thin lines, and their mean)" in page


def test_a_choice_is_called_an_optimistic_number(replicated: tuple[Store, Report]) -> None:
    report = replicated[1]
    note = "chosen at: maximum over 20 settings on val, of the mean over 3 seeds; no result, too optimistic"
    for form in ("text", "md", "html"):
        assert note in " ".join(printed(report, form).split())
    choice = report.at["SUP", "digits"].choice
    assert choice is not None
    assert (choice.candidates, choice.seeds) == (20, (0, 1, 2))
    shown = next(cell for cell in report.named["digits/SUP"].heat_maps[0].cells if cell.chosen)
    assert choice.value == pytest.approx(shown.value)
    for cell in report.cells:
        assert cell.choice is not None
        assert cell.value != cell.choice.value


def test_the_report_of_replicates_verifies_as_it_was_saved(replicated: tuple[Store, Report]) -> None:
    store, report = replicated
    saved = json.loads(json.dumps(to_json(report)))
    table_alone = [line for line in verify(store, report.job_id, saved) if line.startswith(("report", "RAND", "SUP"))]
    assert table_alone == []
    saved["cells"][0]["leading"] = True
    assert any(line.startswith("report.cells[0].leading") for line in verify(store, report.job_id, saved))


def test_a_report_from_before_replicates_is_compared_by_what_both_compute_alike(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    job = Study(store, Plot(seeds=(0, 1))).run()
    saved = dict(in_form_of({"form": 3}, {**to_json(build(store, job)), "form": 3}))
    for number in saved["cells"] + saved["means"]:
        number["interval"] = 1.27  # two seeds had one
    saved["groups"][0]["heat_maps"][0]["others"] = ["seed"]
    saved["groups"][0]["heat_maps"][0]["cells"][0]["value"] = 1.0  # that of the best seed
    assert verify(store, job, saved) == []
    saved["cells"][0]["value"] += 0.1
    assert [line.partition(":")[0] for line in verify(store, job, saved)] == ["report.cells[0].value"]
    store.close()
