"""The table files in specs/tables name jobs, stages, weights and figures that exist, and print before anything ran."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from orchestrator.launch.joined_jobs import joined_table
from orchestrator.report.formats import FORMATS, Links
from orchestrator.report.joined import build_joined
from orchestrator.report.model import Report
from orchestrator.spec.json_schema import table_schema

TABLES = sorted((Path(__file__).parents[2] / "specs" / "tables").glob("*.yaml"))
every_table = pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)


def content(path: Path) -> dict[str, list[dict[str, object]]]:
    loaded: dict[str, list[dict[str, object]]] = yaml.safe_load(path.read_text())
    return loaded


def report_of(path: Path) -> Report:
    """Of the table before anything ran."""
    return build_joined(None, joined_table(path, None))


@every_table
def test_every_name_is_right_and_every_row_has_a_cell(path: Path) -> None:
    report = report_of(path)
    assert report.name == path.stem
    assert {cell.state for cell in report.cells} <= {"not run", "absent"}
    for row in report.rows:
        assert any(cell.state == "not run" for cell in report.cells_of(row))
    for source in report.joined:
        assert source.figure.name
        assert f"--profile {'laptop' if path.stem.endswith('laptop') else ''}" in source.remedy
    for form in FORMATS:
        assert "not run" in FORMATS[form].render(report, Links())


@every_table
def test_the_first_lines_say_what_how_and_at_what_cost(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0] == "# yaml-language-server: $schema=schema.json"
    comment = "\n".join(line for line in lines if line.startswith("#"))
    assert f"python -m orchestrator report --table specs/tables/{path.name}" in comment
    for part in ("# Cost: ", "# Expected: "):
        assert part in comment


def test_published_values_of_table_1_are_the_papers() -> None:
    report = report_of(next(path for path in TABLES if path.stem == "table1"))
    for row, stated in (("1K-SUP", 89.7), ("1K-MIM", 86.1)):
        values = {cell.column: cell.reference for cell in report.cells_of(row)}
        seven = [
            values[name] or 0 for name in ("Pets", "Caltech101", "Flowers", "DTD", "SUN397", "CIFAR10", "CIFAR100")
        ]
        assert round(sum(seven) / 7, 1) == stated == report.means_of(row)[0].reference


def test_the_schema_of_tables_is_current_and_knows_their_fields() -> None:
    stored = (TABLES[0].parent / "schema.json").read_text()
    schema = table_schema()
    assert stored == json.dumps(schema, indent=1) + "\n", "run: schema --table > specs/tables/schema.json"
    definitions = schema["$defs"]
    for path in TABLES:
        table = content(path)
        assert table.keys() <= schema["properties"].keys()
        for column in table["columns"]:
            assert column.keys() <= definitions["TableColumn"]["properties"].keys()
        for row in table["rows"]:
            assert row.keys() <= definitions["TableRow"]["properties"].keys()
    weights = definitions["TableRow"]["properties"]["weights"]
    assert [option.get("type") for option in weights["anyOf"]] == ["string", "array"]
    assert definitions["TableColumn"]["properties"]["profile"]["description"].startswith("Of a spec file: the profile")
