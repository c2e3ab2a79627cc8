"""What a report is built from: cells, chosen settings, curves, and why a cell has no value."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from recorded_study import DEPTH, METRICS, Plot, Study

from orchestrator.errors import NotFound
from orchestrator.records.rows import Edge, JobRecord, MetricRow
from orchestrator.report import wording
from orchestrator.report.build import build
from orchestrator.report.cells import average
from orchestrator.report.dataframe import results
from orchestrator.report.formats import latex, markdown
from orchestrator.report.formats.terminal import terminal
from orchestrator.report.model import Cell, Report
from orchestrator.store.store import Store


def test_cells_are_means_over_seeds_with_an_interval(whole: Report) -> None:
    cell = whole.at["RAND", "digits"]
    # accuracy 0.9 + 0.002 seed, less 0.01 on test
    assert cell.values == pytest.approx((89.0, 89.2, 89.4))
    assert cell.seeds == (0, 1, 2)
    assert cell.value == pytest.approx(89.2)
    # sample deviation 0.2, t(0.975, 2) = 4.302653
    assert cell.interval == pytest.approx(4.302653 * 0.2 / math.sqrt(3), rel=1e-6)
    assert whole.at["SUP", "faces"].value == pytest.approx(95.2)
    assert whole.rows == ("RAND", "SUP")
    assert [column.name for column in whole.columns] == ["digits", "faces"]


def test_averages_are_over_the_columns_asked_for(store: Store) -> None:
    averages = ({"name": "Average"}, {"name": "Average (1)", "over": ["faces"]})
    report = build(store, Study(store, Plot(averages=averages)).run())
    means = {(mean.row, mean.name): mean for mean in report.means}
    assert means["RAND", "Average"].value == pytest.approx(89.2)
    assert means["RAND", "Average"].n == 3
    assert means["RAND", "Average"].interval == pytest.approx(report.at["RAND", "digits"].interval)
    assert means["SUP", "Average (1)"].value == pytest.approx(95.2)


def test_an_average_with_a_missing_cell_says_so(hurt: Report) -> None:
    mean = next(mean for mean in hurt.means if mean.row == "RAND")
    assert mean.value is None
    assert mean.missing == ("faces",)
    assert wording.mean_text(mean) == "1 missing"
    assert "Average of RAND needs faces" in wording.notes(hurt)


LOSS = METRICS[1]


@pytest.mark.parametrize(
    ("other", "alike"),
    [
        (MetricRow("per_class", "mean per-class accuracy", "higher", "%", 100.0, 1), True),
        (MetricRow("error", "error rate", "lower", "%", 100.0, 1), False),
        (DEPTH[0], False),
        (LOSS, False),
    ],
)
def test_averages_are_over_one_unit_and_direction(other: MetricRow, alike: bool) -> None:
    cells = {
        column: Cell("a", column, metric, "done", value=value, seeds=(0,), values=(value,))
        for column, metric, value in (("x", METRICS[0], 1.0), ("y", other, 2.0))
    }
    mean = average("a", "Average", ("x", "y"), cells, {})
    assert (mean.value, mean.unlike) == ((1.5, False) if alike else (None, True))
    assert wording.mean_text(mean) == ("1.5" if alike else "not comparable")
    assert wording.mean_reason(mean) == ("" if alike else "its columns have different units")


def test_no_average_over_figures_without_a_unit() -> None:
    """A loss and another number without a unit have nothing in common; two losses have."""
    other = MetricRow("abs_rel", "AbsRel", "lower")
    for metric, unlike in ((LOSS, False), (other, True)):
        cells = {
            c: Cell("a", c, m, "done", value=1.0, seeds=(0,), values=(1.0,)) for c, m in (("x", LOSS), ("y", metric))
        }
        assert average("a", "Average", ("x", "y"), cells, {}).unlike == unlike


def test_the_published_values_stand_beside_ours(whole: Report) -> None:
    cell = whole.at["SUP", "digits"]
    assert cell.reference == 96.0
    assert cell.difference == pytest.approx(-0.8)
    means = {mean.row: mean for mean in whole.means}
    assert means["SUP"].reference == 97.0
    assert not means["SUP"].reference_computed
    assert means["RAND"].reference == pytest.approx(75.0)
    assert means["RAND"].reference_computed
    table = wording.grid(whole)
    assert table.header == ["initial weights", "digits", "faces", "Average"]
    assert [line.texts for line in table.lines] == [
        ["RAND", "89.2 ± 0.5", "89.2 ± 0.5", "89.2 ± 0.5"],
        ["RAND, published", "80.0", "70.0", "75.0"],
        ["difference", "+9.2", "+19.2", "+14.2"],
        ["SUP", "95.2 ± 0.5", "95.2 ± 0.5", "95.2 ± 0.5"],
        ["SUP, published", "96.0", "99.0", "97.0"],
        ["difference", "−0.8", "−3.8", "−1.8"],
    ]


def test_the_papers_average_is_the_mean_of_its_seven_columns() -> None:
    """Table 1's "Average (7)" from Table 4 of the paper: 89.7 for 1K-SUP, 86.1 for 1K-MIM."""
    names = ("pets", "caltech101", "flowers", "dtd", "sun397", "cifar10", "cifar100")
    table = {"1K-SUP": (95.9, 91.9, 97.7, 80.3, 72.3, 99.1, 91.0), "1K-MIM": (90.9, 85.5, 91.4, 73.4, 70.8, 99.2, 91.4)}
    for (row, values), printed in zip(table.items(), (89.7, 86.1), strict=True):
        mean = average(row, "Average (7)", names, {}, dict(zip(names, values, strict=True)))
        assert mean.reference is not None
        assert round(mean.reference, 1) == printed
        assert mean.value is None


@pytest.mark.parametrize(
    ("state", "word", "reason"),
    [
        ("running", "running 2/3", "2 done, 1 running; epoch 3 of 8"),
        ("pending", "pending", "2 done, 1 pending"),
        ("failed", "failed", "2 done, 1 failed; data: no <such> folder"),
        (
            "diverged",
            "diverged in 1 of 3 seeds",
            "1 diverged, 2 done; diverged: loss is nan in epoch 3; the others: 95.0 (seed 0), 95.2 (seed 1)",
        ),
    ],
)
def test_a_cell_without_all_its_seeds_has_no_number(store: Store, state: str, word: str, reason: str) -> None:
    report = build(store, Study(store, Plot(final_state={"digits/SUP": state})).run())
    cell = report.at["SUP", "digits"]
    assert (cell.state, cell.value, cell.interval) == (state, None, None)
    assert len(cell.values) == 2
    assert wording.cell_text(cell) == word
    assert cell.reason == reason
    assert next(mean for mean in report.means if mean.row == "SUP").value is None


def test_a_group_with_a_failed_trial_has_no_winner_and_says_why(hurt: Report) -> None:
    cell = hurt.at["RAND", "faces"]
    assert (cell.state, cell.value, cell.choice) == ("missing", None, None)
    assert cell.reason == "incomplete: 1 of 15 grid trials failed or were cancelled"
    assert sum("ValueError: <img> & co" in warning for warning in hurt.warnings) == 1, "a fault is said once"
    assert hurt.at["RAND", "digits"].value == pytest.approx(89.2), "the other groups go on"


def test_what_waits_says_for_what(store: Store) -> None:
    study = Study(store, Plot())
    study.pretrain()
    study.grid("digits/RAND")
    report = build(store, study.job_id)
    assert report.at["RAND", "digits"].reason == "waits for refine"
    assert report.at["SUP", "faces"].reason == "waits for grid"
    assert {cell.state for cell in report.cells} == {"missing"}
    for text in (terminal(report), markdown.markdown(report), latex.latex(report)):
        assert "missing" in text
        assert "nan" not in text.lower()


def test_choices_with_settings_edges_and_candidates(hurt: Report) -> None:
    choice = hurt.at["RAND", "digits"].choice
    assert choice is not None
    assert choice.value == pytest.approx(90.0)
    assert choice.settings["optim.lr"] == 1.18e-3
    assert choice.edges == (Edge("optim.layer_decay", "high", False, 0.95, 0.95),)
    assert (choice.candidates, choice.diverged, choice.failed) == (20, 2, 0)
    assert choice.sources == ("grid", "refine")
    assert "RAND on digits: chosen at the edge of the grid: layer decay high (0.95); a wider grid may do better" in (
        hurt.warnings
    )
    assert "2 of 60 grid trials diverged (they count as the worst)" in hurt.warnings
    assert "the job was submitted from a working tree with uncommitted changes" in hurt.warnings
    assert "1 of 4 cells are not finished: this table is not final" in hurt.warnings


def test_heat_maps_mark_what_was_chosen_and_what_was_lost(hurt: Report) -> None:
    drawn = hurt.named["digits/RAND"].heat_maps[0]
    assert (drawn.x_path, drawn.y_path) == ("optim.lr", "optim.layer_decay")
    at = {(cell.x, cell.y): cell for cell in drawn.cells}
    assert len(at) == 15
    assert [place for place, cell in at.items() if cell.chosen] == [(1.18e-3, 0.95)]
    assert (at[2.5e-3, 0.95].state, at[2.5e-3, 0.95].value) == ("diverged", None)
    assert at[1.18e-3, 0.75].value == pytest.approx(60.0)
    lost = hurt.named["faces/RAND"].heat_maps[0]
    assert [cell.state for cell in lost.cells].count("failed") == 1
    scale = hurt.scale_of(hurt.named["digits/RAND"], drawn)
    assert scale.high == pytest.approx(96.0), "one scale for both rows of a data set"
    assert (drawn.figure, drawn.split) == (METRICS[0], "val")


def test_neighbours_say_what_they_moved(whole: Report) -> None:
    points = whole.named["digits/SUP"].points
    assert len(points) == 5
    moved = {tuple(point.moved) for point in points}
    assert moved == {("optim.lr",), ("optim.layer_decay",), ("backbone.drop_path",)}
    drop = next(point for point in points if "backbone.drop_path" in point.moved)
    assert drop.moved["backbone.drop_path"] == (0.0, 0.1)
    assert drop.difference == pytest.approx(-2.0)


def test_curves_are_of_the_winner_and_of_the_table(whole: Report, whole_study: tuple[Store, Report]) -> None:
    curves = whole.named["digits/SUP"].curves
    assert [curve.role for curve in curves[:4]] == ["chosen", "final", "final", "final"]
    others = curves[4:]
    assert {curve.role for curve in others} == {"other"}
    assert len(others) == 15 + 5 - 1, "every other trial of grid and refine"
    assert {curve.split for curve in others} == {"val"}, "none that is evaluated on test"
    assert not {curve.key for curve in others} & {curve.key for curve in curves[:4]}
    assert curves[0].epochs == tuple(range(1, 9))
    assert curves[0].metric[-1] == pytest.approx(96.0)
    assert curves[1].metric == (None,) * 8, "nothing is evaluated on test before the end"
    assert curves[1].end == pytest.approx(95.0)
    short_one = build(whole_study[0], whole.job_id, full=False)
    assert all(not group.curves for group in short_one.groups)
    assert short_one.cells[0].value == whole.cells[0].value
    assert short_one.warnings == whole.warnings


def test_provenance(whole: Report) -> None:
    source = whole.provenance
    assert source.processors == ("cpu, AVX512 kernels, 1 thread",)
    assert source.git_commit == "0123456789abcdef"
    assert source.hosts == ("laptop",)
    assert source.data == {"digits": ("digest-of-digits",), "faces": ("digest-of-faces",)}
    assert source.seeds == (0, 1, 2)
    assert source.seconds == pytest.approx(4.0 * (1 + 60 + 20 + 12))
    assert whole.measured_on == "test"


def test_a_job_without_a_choice_shows_the_best_and_says_so(store: Store) -> None:
    study = Study(store, Plot())
    study.pretrain()
    study.grid("digits/SUP")
    spec = {**study.spec, "stages": study.spec["stages"][:2]}
    store.jobs.put(JobRecord(id="only-grid", name="only-grid", profile="", spec=spec, spec_text=""))
    store.trials.place("only-grid", [place for place, _ in study.ran["digits/SUP"]])
    report = build(store, "only-grid")
    cell = report.at["SUP", "digits"]
    assert cell.value == pytest.approx(96.0)
    assert cell.best_of == 15
    assert any("best of 15 settings" in warning for warning in report.warnings)
    assert report.measured_on == "val"
    curves = report.named["digits/SUP"].curves
    assert [curve.key for curve in curves if curve.role == "final"] == list(cell.keys)
    assert sum(curve.role == "other" for curve in curves) == 14


def test_unknown_job(store: Store) -> None:
    with pytest.raises(NotFound, match="no job nothing in this store"):
        build(store, "nothing")


def test_results_as_a_data_frame(hurt_study: tuple[Store, Report]) -> None:
    store, hurt = hurt_study
    frame = results(store, hurt.job_id)
    assert len(frame) == 1 + 60 + 15 + 9
    grid = frame[(frame["stage"] == "grid") & (frame["group"] == "digits/SUP")]
    best = grid.loc[grid["figure.top1"].idxmax()]
    assert (best["figure.top1"], best["value"], best["unit"]) == (pytest.approx(96.0), pytest.approx(96.0), "%")
    assert best["optim.lr"] == 2.64e-4
    assert best["run_id"] == "run" + best["key"][:12]
    assert frame["state"].value_counts().to_dict() == {"done": 81, "diverged": 2, "failed": 1, "running": 1}
    assert list(frame["stage"].unique()) == ["pretrain", "grid", "refine", "final"]


def test_reports_need_no_heavy_package() -> None:
    """`status` and `report` must answer at once: no torch, timm, ray, mlflow, pandas, jinja2, pydantic."""
    program = (
        "import sys\n"
        "from orchestrator.report import build, dataframe, describe, status, verify, wording\n"
        "from orchestrator.report.formats import html_page, terminal\n"
        "heavy = {'torch', 'timm', 'ray', 'mlflow', 'pandas', 'jinja2', 'pydantic', 'numpy', 'tasks', 'workers'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
