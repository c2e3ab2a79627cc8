"""`specs`: lists and copies the specs that come with the package; and the version and completion of the command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orchestrator.cli.main import cli
from orchestrator.cli.shipped_specs import about, folder, names
from orchestrator.spec.job import job_id
from orchestrator.spec.load import load

SPECS = Path(__file__).parents[3] / "specs"
RUN = "import sys; sys.argv = ['orchestrator']; from orchestrator.__main__ import run; run()"


def specs(*arguments: str | Path, code: int = 0) -> Result:
    result = CliRunner().invoke(cli, ["specs", *map(str, arguments)])
    assert (getattr(result.exception, "exit_code", result.exit_code) or 0) == code, (result.output, result.exception)
    return result


def test_all_are_listed_with_what_they_reproduce() -> None:
    listed = json.loads(specs("--json").stdout)
    paths = [*SPECS.glob("*.yaml"), *SPECS.glob("tables/*.yaml")]
    assert {each["name"] for each in listed} == {path.relative_to(SPECS).with_suffix("").as_posix() for path in paths}
    said = {each["name"]: each for each in listed}
    assert said["k12_grid"]["about"].startswith("Tables 1 and 4 of the paper: fine-tuning on Kornblith's twelve")
    assert said["k12_grid"]["profiles"] == ["laptop", "smoke", "paper"]
    assert all(each["about"].endswith(".") and len(each["about"]) > 40 for each in listed)
    assert "Tables 1 and 4 of the paper" in " ".join(specs().stdout.split())


def test_a_copy_is_the_same_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specs("first", "--output", tmp_path / "mine.yaml")
    assert job_id(load(tmp_path / "mine.yaml")) == job_id(load(SPECS / "first.yaml"))
    assert "schema.json" not in (tmp_path / "mine.yaml").read_text()
    monkeypatch.chdir(tmp_path)
    specs("first")
    assert (tmp_path / "first.yaml").read_text() == (tmp_path / "mine.yaml").read_text() == specs(
        "first", "--output", "-"
    ).stdout  # fmt: skip


def test_all_are_copied_with_the_tables_beside_them(tmp_path: Path) -> None:
    specs("--all", tmp_path / "copies")
    assert {path.name for path in (tmp_path / "copies").glob("**/*.yaml")} == {
        f"{name.rpartition('/')[2]}.yaml" for name in names()
    }  # fmt: skip
    assert (tmp_path / "copies" / "tables" / "schema.json").is_file()
    specs("--all", tmp_path / "copies", code=5)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["k12grid"], 4, "no spec 'k12grid' comes with this package; nearest: k12_grid"),
        (["first", "--output", "there.yaml"], 5, "there.yaml exists already"),
        (["--output", "x.yaml"], 2, "--output is for a NAME"),
        (["first", "--all", "x"], 2, "give neither NAME nor --output"),
    ],
)
def test_one_mistake_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there.yaml").write_text("mine")
    result = specs(*arguments, code=code)
    assert message in (result.output if code == 2 else str(result.exception))
    assert Path("there.yaml").read_text() == "mine"


def test_the_first_sentence_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("# Figure 5 of x, et al. and more: one.\n# Two.\n#\n# Three.\nname: a\nprofiles:\n  b:\n    c: 1\n")
    assert about(path) == {"about": "Figure 5 of x, et al. and more: one.", "profiles": ["b"]}
    assert folder().resolve() == SPECS


def test_the_version_is_printed() -> None:
    assert CliRunner().invoke(cli, ["--version"]).stdout.startswith("orchestrator 0.")


@pytest.mark.parametrize(("words", "completed"), [("orchestrator va", "validate"), ("orchestrator data ch", "check")])
def test_shells_complete_commands(words: str, completed: str) -> None:
    asked = {"_ORCHESTRATOR_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", RUN], env={**os.environ, **asked}, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == [f"plain,{completed}"]
