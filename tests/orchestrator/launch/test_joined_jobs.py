"""Tables that join several jobs: every form, what did not run, mistakes in the file, the check against the store."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from planned_jobs import run
from two_specs import MASKED, SEMANTIC, TABLE, measured, ran, write

from orchestrator.errors import SpecError
from orchestrator.launch.joined_jobs import joined_table
from orchestrator.report.formats import FORMATS, Links
from orchestrator.report.joined import build_joined
from orchestrator.report.model import Report
from orchestrator.report.verify_joined import verify_joined
from orchestrator.spec import load
from orchestrator.store.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Store, Path, list[str]]]:
    """Both jobs ran: the store, the table's file, the ids of the jobs."""
    folder = tmp_path_factory.mktemp("both")
    path, opened = write(folder), open_store(f"sqlite:///{folder / 'store.db'}")
    yield opened, path, ran(folder, opened)
    opened.close()


def report_of(path: Path, store: Store | None) -> Report:
    return build_joined(store, joined_table(path, store))


def shown(report: Report, form: str) -> str:
    return FORMATS[form].render(report, Links())


def test_means_intervals_differences_and_the_best_by_each_figures_direction(
    both: tuple[Store, Path, list[str]],
) -> None:
    report = report_of(both[1], both[0])
    cells = {(cell.row, cell.column): cell for cell in report.cells}
    digits, masked = cells["supervised", "Digits"], cells["supervised", "Masked"]
    assert (digits.values, digits.seeds) == (pytest.approx([61.0, 62.0, 60.0]), (1, 2, 3))
    assert digits.value == pytest.approx(61.0)
    assert digits.interval == pytest.approx(4.302653 / 3**0.5, rel=1e-6)  # t(0.975, 2) x deviation 1 / root 3
    assert (digits.reference, digits.difference) == (80.04, pytest.approx(-19.04))
    assert (masked.value, masked.figure.better) == (pytest.approx(0.235), "lower")
    leading = {place for place, cell in cells.items() if cell.leading}
    assert leading == {("supervised", "Digits"), ("random", "Masked"), ("supervised", "Textures")}
    (mean,) = report.means_of("supervised")
    assert (mean.value, mean.leading) == (pytest.approx((61 + 36) / 2), True)
    assert (report.state, report.warnings) == ("done", ())
    assert [(source.job_id, source.stage, source.split) for source in report.joined] == [
        (both[2][0], "final", "test"), (both[2][1], "train", "val"), (both[2][0], "final", "test"),
    ]  # fmt: skip


@pytest.mark.parametrize("form", FORMATS)
def test_every_form_has_ours_the_published_values_and_where_they_are_from(
    form: str, both: tuple[Store, Path, list[str]]
) -> None:
    text = shown(report_of(both[1], both[0]), form)
    numbers = {"csv": ("61.", "0.135", "91"), "json": ("61.", "0.135", "91.0")}.get(form, ("61.0", "0.135", "91.0"))
    for word in (*numbers, "HRFormer", "its own paper", "80.0", "0.25", *both[2]):
        assert word in text
    if form in ("html", "md", "csv", "json"):  # every cell leads to its trials
        keys = {key for cell in report_of(both[1], both[0]).cells for key in cell.keys}
        assert len(keys) == 18
        assert all(key[:12] in text for key in keys)


def test_latex_and_markdown_mark_the_best_alone(both: tuple[Store, Path, list[str]]) -> None:
    report = report_of(both[1], both[0])
    assert r"random & 51.0 $\pm$ 2.5 & \textbf{0.135 $\pm$ 0.025} & 26.0 $\pm$ 2.5 & 38.5 $\pm$ 2.5 \\" in shown(
        report, "tex"
    )
    assert r"HRFormer & 90.0 & 0.250 & -- & 91.0 \\" in shown(report, "tex")
    assert "| random | 51.0 ± 2.5 | **0.135 ± 0.025** | 26.0 ± 2.5 | 38.5 ± 2.5 |" in shown(report, "md")
    assert "| pre-training | Digits top-1 accuracy (%) ↑ | Masked loss ↓ |" in shown(report, "md")


def test_csv_names_job_and_stage_of_each_cell(both: tuple[Store, Path, list[str]]) -> None:
    rows = list(csv.DictReader(io.StringIO(shown(report_of(both[1], both[0]), "csv"), newline="")))
    of = {(row["row"], row["column"]): row for row in rows}
    assert (of["random", "Masked"]["job"], of["random", "Masked"]["stage"]) == (both[2][1], "train")
    assert (of["HRFormer", "Masked"]["state"], of["HRFormer", "Masked"]["published"]) == ("published", "0.25")
    assert ("HRFormer", "Textures") not in of


@pytest.mark.parametrize("form", FORMATS)
def test_what_did_not_run_is_said_with_the_command(form: str, tmp_path: Path) -> None:
    text = " ".join(shown(report_of(write(tmp_path), None), form).split())
    assert text.count("not run") >= 6
    assert (
        f"python -m orchestrator submit {tmp_path / 'masked.yaml'}".replace(
            "_", r"\_" if form in ("md", "tex") else "_"
        )
        in text
    )
    assert "70" in text
    assert "HRFormer" in text
    if form not in ("csv", "json"):
        assert "0.500" in text  # in the digits of a figure that nothing was measured of yet
        assert "↓" in text or r"\downarrow" in text


def test_a_job_of_another_content_is_not_shown_in_its_place(tmp_path: Path, store: Store) -> None:
    path = write(tmp_path)
    (masked,) = ran(tmp_path, store, "masked")
    (tmp_path / "masked.yaml").write_text(MASKED.replace("epochs: 4", "epochs: 5"))
    report = report_of(path, store)
    assert {cell.state for cell in report.cells} == {"not run"}
    text = " ".join(shown(report, "text").split())
    assert f"{masked} has another content: to show that, write job: {masked}" in text


def test_by_name_the_newest_of_the_profile_and_by_id(tmp_path: Path, store: Store) -> None:
    table = TABLE.replace("job: semantic.yaml", "job: semantic, profile: long").replace("masked.yaml", "masked")
    path = write(tmp_path, table)
    (short,) = ran(tmp_path, store, "semantic")
    long = run(store, load(tmp_path / "semantic.yaml", "long"), measured)
    (masked,) = ran(tmp_path, store, "masked")
    assert [source.job_id for source in report_of(path, store).joined] == [long, masked, long]
    write(tmp_path, TABLE.replace("semantic.yaml", short).replace("masked.yaml", "gone"))
    report = report_of(path, store)
    assert [source.job_id for source in report.joined] == [short, "", short]
    assert "no job has the name 'gone'" in shown(report, "text")
    write(tmp_path, TABLE.replace("semantic.yaml", f"{short}, profile: long").replace("masked.yaml", "masked"))
    assert report_of(path, store).joined[0].job_id == ""


def test_a_cell_that_waits_says_for_what(tmp_path: Path, store: Store) -> None:
    path = write(tmp_path)
    job = load(tmp_path / "semantic.yaml")
    run(store, job, measured, lambda trial: trial.stage == "tune" and trial.position == 0)
    text = " ".join(shown(report_of(path, store), "text").split())
    assert "random on Digits: not run (waits for tune (1 of 2 ended); to go on, submit job semantic-" in text


def test_a_combination_that_the_study_does_not_have_is_told(tmp_path: Path, store: Store) -> None:
    table = TABLE.replace("[SUP, 1K-SUP]", "SUP").replace("supervised: {Digits: 80.04}", "supervised: {Masked: 1}")
    path = write(tmp_path, table)
    ran(tmp_path, store)
    report = report_of(path, store)
    cell = next(cell for cell in report.cells if (cell.row, cell.column) == ("supervised", "Masked"))
    assert (cell.state, cell.reference) == ("absent", 1)
    assert "Masked: no trial of supervised by its spec" in shown(report, "text")
    assert report.state == "done"


def test_trials_of_several_data_sets_are_no_cell(tmp_path: Path, store: Store) -> None:
    path = write(tmp_path, TABLE.replace("where: {task.dataset: digits}, figure: top1", "figure: top1", 1))
    ran(tmp_path, store)
    report = report_of(path, store)
    cell = next(cell for cell in report.cells if (cell.row, cell.column) == ("random", "Digits"))
    assert (cell.state, cell.value) == ("undecided", None)
    assert "RAND on digits; RAND on textures; ask for one of them under where" in cell.reason


def test_verify_computes_every_cell_again(tmp_path: Path, store: Store) -> None:
    path = write(tmp_path)
    ran(tmp_path, store)
    table = joined_table(path, store)
    assert verify_joined(store, table) == []
    cell = next(cell for cell in build_joined(store, table).cells if (cell.row, cell.column) == ("random", "Masked"))
    with sa.create_engine(f"sqlite:///{tmp_path / 'store.db'}").begin() as connection:  # the list says another value
        connection.execute(sa.text("UPDATE trials SET value = 0.9 WHERE key = :key"), {"key": cell.keys[0]})
    lines = verify_joined(store, table)
    assert len(lines) == 1
    assert lines[0].startswith("random on Masked, loss: shown from [0.9, 0.135, 0.145], its trials have [0.125, ")


MISTAKES: dict[str, tuple[Callable[[str], str], str]] = {
    "stage": (
        lambda text: text.replace("stage: train", "stage: trian"),
        "5:46: columns.Masked.stage: trian: the job has no such stage; stages: train; nearest: train",
    ),
    "figure": (
        lambda text: text.replace("figure: loss", "figure: lss").replace("{loss: 0.25}", "0.25"),
        "5:61: columns.Masked.figure: lss: its trials have no such figure; figures: loss, ",
    ),
    "data set": (
        lambda text: text.replace("dataset: textures", "dataset: texture"),
        "6:65: columns.Textures.where.task.dataset: texture: no trial of stage final has this; task.dataset: digits, "
        "textures; nearest: textures",
    ),
    "field": (
        lambda text: text.replace("task.dataset: textures", "task.datset: textures"),
        "6:51: columns.Textures.where: task.datset: no such field of a trial; fields of task: ",
    ),
    "weights": (
        lambda text: text.replace("weights: RAND", "weights: RND"),
        "8:29: rows.random.weights: RND: no trial of any column has this; backbone.init: RAND, SUP, 1K-SUP; nearest: "
        "RAND",
    ),
    "one of two weights": (
        lambda text: text.replace("1K-SUP]", "1K-SP]"),
        "9:39: rows.supervised.weights: 1K-SP: no trial of any column has this; backbone.init: RAND, SUP, 1K-SUP; "
        "nearest: 1K-SUP",
    ),
    "row of no trial": (
        lambda text: text.replace("weights: RAND}", "weights: RAND, model: [swinv2_tiny_window8_256], "
                                  "where: {task.dataset: digits}}"),
        "8:5: rows.random: no trial of any column has all of this together: backbone.init RAND, backbone.model "
        "swinv2_tiny_window8_256, task.dataset digits; remove a part of it",
    ),
    "job": (
        lambda text: text.replace("masked.yaml", "maskd.yaml"),
        "5:26: columns.Masked.job: maskd.yaml: no such file: ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_with_place_value_and_remedy(name: str, tmp_path: Path) -> None:
    change, expected = MISTAKES[name]
    path = write(tmp_path, change(TABLE))
    with pytest.raises(SpecError, match=r"both\.yaml") as refused:
        joined_table(path, None)
    (line,) = refused.value.problems
    assert line.startswith(f"{path}:{expected}")


def test_mistakes_of_a_spec_name_the_spec(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "semantic.yaml").write_text(SEMANTIC.replace("lr: 1e-3,", "lr: fast,", 1))
    with pytest.raises(SpecError, match=r"semantic\.yaml:5:15: trial\.optim\.lr: fast: must be a number"):
        joined_table(path, None)


def test_an_ambiguous_beginning_of_an_id_is_refused(tmp_path: Path, store: Store) -> None:
    path = write(tmp_path, TABLE.replace("semantic.yaml", "semantic-").replace("masked.yaml", "masked"))
    ran(tmp_path, store)
    run(store, load(tmp_path / "semantic.yaml", "long"), measured)
    with pytest.raises(SpecError, match=r"columns\.Digits\.job: semantic-: job 'semantic-' is ambiguous: .*write more"):
        joined_table(path, store)


def test_json_is_the_whole_table(both: tuple[Store, Path, list[str]]) -> None:
    content = json.loads(shown(report_of(both[1], both[0]), "json"))
    assert content["others"][0] == {
        "name": "HRFormer", "source": "its own paper", "columns": [90, 0.25, None], "means": [91],
    }  # fmt: skip
    assert [each["column"] for each in content["joined"]] == ["Digits", "Masked", "Textures"]
    assert {trial["key"] for trial in content["trials"]} >= {key for cell in content["cells"] for key in cell["keys"]}
