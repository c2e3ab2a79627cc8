"""The forms of the report."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path

import pytest
from recorded_study import Plot, Study

from orchestrator.report.build import build
from orchestrator.report.formats import FORMATS, csv_table, latex, markdown
from orchestrator.report.formats.terminal import terminal
from orchestrator.report.formatting import WIDTH, aligned, duration, short
from orchestrator.report.json_values import to_json
from orchestrator.report.model import Report
from orchestrator.report.publish import publish
from orchestrator.settings import settings
from orchestrator.store.store import Store

ROOT = Path(__file__).parents[3]


def test_every_form_is_written_and_named_in_the_readme(whole_study: tuple[Store, Report], tmp_path: Path) -> None:
    store, whole = whole_study
    written = publish(store, whole.job_id, settings(folder=tmp_path))
    with_file = {name for name, form in FORMATS.items() if form.suffix}
    assert {form: path.name for form, path in written.items()} == {
        form: f"report.{FORMATS[form].suffix}" for form in with_file
    }
    assert all(path.read_text() for path in written.values())
    listed = re.search(r"report +\[JOB\] \[-f ([a-z|]+)\]", (ROOT / "README.md").read_text())
    assert listed is not None
    assert set(listed[1].split("|")) == with_file
    files = {path.stem for path in (ROOT / "orchestrator" / "report" / "formats").glob("*.py")} - {"__init__"}
    assert len(files) == len(FORMATS)


def test_markdown_links_every_cell_and_escapes(store: Store) -> None:
    report = build(store, Study(store, Plot(data_sets=("a|b<i>", "x_y*"))).run())
    text = markdown.markdown(report, "http://127.0.0.1:5000/")
    assert "a\\|b\\<i\\>" in text
    assert "x\\_y\\*" in text
    assert "Computed on cpu, AVX512 kernels, 1 thread: another processor or number of threads may change" in text
    cell = report.at["RAND", "x_y*"]
    for key, run in zip(cell.keys, cell.run_ids, strict=True):
        assert f"`{key[:12]}`" in text
        assert f"](http://127.0.0.1:5000/#/runs/{run})" in text
    table = [line for line in text.splitlines() if line.startswith("| RAND")]
    assert len(re.findall(r"(?<!\\)\|", table[0])) == 5


def test_csv_has_full_precision_and_no_formulas(store: Store) -> None:
    report = build(store, Study(store, Plot(data_sets=("=cmd()", 'a,"b"'), reference={"SUP": {"=cmd()": 96.0}})).run())
    rows = list(csv.DictReader(io.StringIO(csv_table.csv(report))))
    assert len(rows) == 6
    first = next(row for row in rows if row["row"] == "SUP" and row["column"] == "'=cmd()")
    assert float(first["value"]) == report.at["SUP", "=cmd()"].value
    assert float(first["difference"]) == pytest.approx(-0.8)
    assert first["optim.lr"] == "0.000264"
    assert first["trials"].split() == list(report.at["SUP", "=cmd()"].keys)
    assert any(row["column"] == 'a,"b"' for row in rows)
    assert {row["state"] for row in rows} == {"done"}


def test_latex_is_escaped_and_marks_the_best(store: Store) -> None:
    text = latex.latex(build(store, Study(store, Plot(data_sets=("50%_a&b", "$x^2${\\"))).run()))
    assert r"50\%\_a\&b" in text
    assert r"\$x\textasciicircum{}2\$\{\textbackslash{}" in text
    assert r"\textbf{95.2 $\pm$ 0.5}" in text
    assert text.count(r"\textbf{") == 3 + 1, "the numbers, and the note on them"
    body = [line for line in text.splitlines() if line.startswith("    RAND")]
    assert body[0].count("&") == 3
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")


def test_latex_marks_cells_without_a_number(hurt: Report) -> None:
    text = latex.latex(hurt)
    assert r"\textit{missing}" in text
    assert r"\textit{running 2/3}" in text


def test_terminal_keeps_to_its_width(hurt: Report) -> None:
    lines = terminal(hurt).splitlines()
    assert max(len(line) for line in lines) <= WIDTH
    assert any(line.startswith("RAND") and "89.2 ± 0.5" in line and "missing" in line for line in lines)
    assert any("90.0*" in line and "div" in line for line in lines)
    assert any("fail" in line and "72.2" in line for line in lines)
    narrow = terminal(hurt, width=40)
    assert narrow.count("initial weights") > 1, "a table too wide is continued below"


def test_json_is_json(hurt: Report) -> None:
    text = json.dumps(to_json(hurt), allow_nan=False)
    told = json.loads(text)
    assert told["cells"][0]["value"] == hurt.cells[0].value
    assert to_json({"a": math.nan, "b": [math.inf]}) == {"a": "nan", "b": ["inf"]}


def test_short_numbers() -> None:
    assert [short(value) for value in (1.25e-4, 1.18e-3, 0.75, 0.0, 1.0, 12345.0, "x", 3, True)] == [
        "1.25e-4", "1.18e-3", "0.75", "0", "1", "1.234e+04", "x", "3", "True",
    ]  # fmt: skip


def test_durations() -> None:
    expected = {
        0.042: "0.042 s",
        4.25: "4.2 s",
        59.4: "59 s",
        60: "1 min",
        3599: "1 h",
        4500: "1 h 15 min",
        3 * 86400: "3.0 days",
    }
    assert {seconds: duration(seconds) for seconds in expected} == expected


def test_a_table_wider_than_its_width_goes_on_below() -> None:
    assert aligned(["name", "n", "m"], [["a", "1", "22"], ["b", "10", "3"]], 8) == [
        "name   n",
        "--------",
        "a      1",
        "b     10",
        "",
        "name   m",
        "--------",
        "a     22",
        "b      3",
    ]
