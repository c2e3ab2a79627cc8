"""Rows of published values below a job's own table."""

from __future__ import annotations

from pathlib import Path

import pytest
from planned_jobs import run
from two_specs import SEMANTIC, measured

from orchestrator.errors import SpecError
from orchestrator.report.build import build
from orchestrator.report.formats import FORMATS, Links
from orchestrator.report.verify import verify
from orchestrator.spec import load
from orchestrator.spec.job import job_id
from orchestrator.store.store import Store

REPORT = """\
report:
  figures: [top1, loss]
  reference:
    source: Table 9
    values: {SUP: {digits: 80}}
    rows:
      - {name: HRFormer, source: its own paper, values: {digits: 90, textures: {loss: 0.25}, Average: 91}}
profiles:
"""


def spec(folder: Path, report: str = REPORT) -> Path:
    path = folder / "spec.yaml"
    path.write_text(SEMANTIC.replace("profiles:\n", report))
    return path


def test_they_stand_below_ours_by_column_and_figure(tmp_path: Path, store: Store) -> None:
    report = build(store, run(store, load(spec(tmp_path)), measured))
    (other,) = report.others
    assert [(column.name, column.figure) for column in report.columns] == [
        ("digits", "top1"), ("digits", "loss"), ("textures", "top1"), ("textures", "loss"),
    ]  # fmt: skip
    assert other.columns == (90, None, None, 0.25)
    assert other.means == (91, None)
    assert "| HRFormer | 90.0 | – | – | 0.250 | 91.0 | – |" in FORMATS["md"].render(report, Links())
    for form in FORMATS:
        assert "its own paper" in FORMATS[form].render(report, Links())
    assert verify(store, report.job_id) == []


def test_a_job_without_them_keeps_its_id(tmp_path: Path) -> None:
    without = REPORT[: REPORT.index("    rows:")] + "profiles:\n"
    same = REPORT[: REPORT.index("    rows:")] + "    rows: []\nprofiles:\n"
    ids = [job_id(load(spec(tmp_path, text))) for text in (without, same, REPORT)]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("digits: 90", "digts: 90", r"24:58: report\.reference\.rows\.HRFormer: digts: no trial has this column; task"
         r"\.dataset: digits, textures; nearest: digits"),
        ("name: HRFormer", "name: RAND", r"24:16: report\.reference\.rows\.name: RAND: another row has this name"),
        ("{loss: 0.25}", "{lss: 0.25}", r"report\.reference\.rows\.0\.values\.textures: lss: no such figure; .*loss$"),
        ("{SUP: {digits: 80}}", "{SUP: {digts: 80}}", r"values\.SUP: digts: no trial has this column; .*: digits$"),
        ("{SUP: {digits: 80}}", "{SPU: {digits: 80}}", r"values: SPU: no trial has this row; .*nearest: SUP$"),
    ],
)  # fmt: skip
def test_a_misspelt_name_is_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message) as refused:
        load(spec(tmp_path, REPORT.replace(old, new)))
    assert len(refused.value.problems) == 1


def test_the_stated_average_is_a_published_value_too(tmp_path: Path, store: Store) -> None:
    path = spec(tmp_path, REPORT.replace("{SUP: {digits: 80}}", "{SUP: {digits: 80, Average: 70}}"))
    report = build(store, run(store, load(path), measured))
    assert [mean.reference for mean in report.means_of("SUP")] == [70, None]
