"""docs/fields.md: current, with every field that a spec may have, its default and its description."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from orchestrator.cli.main import cli
from orchestrator.spec.check_paths import trial_schema_paths
from orchestrator.spec.field_reference import markdown

PAGE = Path(__file__).parents[3] / "docs" / "fields.md"


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == markdown(), (
        "a field has changed: python -m orchestrator schema --markdown > docs/fields.md"
    )


def test_every_field_of_a_trial_is_on_it() -> None:
    listed = set(re.findall(r"^\| `([^`]+)` \|", markdown(), re.MULTILINE))
    assert {path.rpartition(".")[2] for path in trial_schema_paths()} - listed == set()


def test_rows_have_four_cells_and_links_lead_somewhere() -> None:
    text = markdown()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {5}
    sections = {name.lower() for name in re.findall(r"^## (\w+)$", text, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= sections


def test_a_default_a_bound_and_a_description_are_those_of_the_model() -> None:
    text = markdown()
    assert "| `epochs` | whole number ≥ 0 ≤ 1,000,000 | `100` | Length of the training." in text
    assert "| `flip` | number ≥ 0 ≤ 1 | `0.5` | Probability of a left-right flip. |" in text
    assert "| `augment` | `none`, `light`, `table7` or [Augment](#augment) | `its own` | Also `none`," in text


def test_the_command_prints_it() -> None:
    result = CliRunner().invoke(cli, ["schema", "--markdown"])
    assert result.stdout == markdown()
    assert CliRunner().invoke(cli, ["schema", "--markdown", "--table"]).exit_code == 2
