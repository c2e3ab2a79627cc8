"""`report --table`, `schema --table` and the same from Python."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from two_specs import TABLE, ran, write

from orchestrator import api
from orchestrator.cli.main import main
from orchestrator.errors import SpecError
from orchestrator.settings import settings
from orchestrator.store.store import open_store


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with two specs, a table file, and a store in which the first job ran."""
    write(tmp_path)
    with closing(open_store(settings(folder=tmp_path).database_url)) as store:
        ran(tmp_path, store, "semantic")
    return tmp_path


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit code, output and messages of a command."""
    monkeypatch.setattr("sys.argv", ["orchestrator", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        main()
    return (int(ended.value.code or 0), *capsys.readouterr())


@pytest.mark.parametrize("form", ["text", "html", "md", "csv", "tex", "json"])
def test_every_form_is_printed(
    form: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text, messages = said(
        monkeypatch, capsys, "report", "--table", place / "both.yaml", "--runs", place, "-f", form
    )
    assert (code, messages) == (0, "")
    for word in ("not run", "HRFormer", "61"):
        assert word in text
    assert "Traceback" not in text


def test_verify_says_that_all_is_well_or_what_is_not(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ("report", "--table", place / "both.yaml", "--runs", place, "--verify")
    code, text, _ = said(monkeypatch, capsys, *command)
    assert (code, text) == (
        0, "both: every cell follows from the recorded figures of the trials that the file asks for\n"
    )  # fmt: skip
    with sa.create_engine(settings(folder=place).database_url).begin() as connection:
        connection.execute(sa.text("UPDATE figures SET value = value / 2 WHERE name = 'top1'"))
    code, text, _ = said(monkeypatch, capsys, *command)
    assert code == 1
    assert text.count("shown from") == 4  # two rows on two columns


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("report", "--table", "gone.yaml"), 3, "error: gone.yaml: no such file; give the path of a YAML file"),
        (("report", "semantic", "--table", "both.yaml"), 2, "give a JOB or --table FILE, not both"),
        (("report", "--table", "semantic.yaml"), 3, "semantic.yaml:1:1: this is the spec of a job, not a table"),
        (("report", "--table", "wrong.yaml"), 3, "wrong.yaml:13:21: reference.values.random: Digts: the table has no"),
    ],
)
def test_wrong_use_is_one_message(
    words: tuple[str, ...], code: int, message: str, place: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (place / "wrong.yaml").write_text(TABLE.replace("Digits: 70", "Digts: 70"))
    monkeypatch.chdir(place)
    ended, text, messages = said(monkeypatch, capsys, *words, "--runs", place)
    assert (ended, text) == (code, "")
    assert message in messages
    assert "Traceback" not in messages


def test_the_schema_of_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, text, _ = said(monkeypatch, capsys, "schema", "--table")
    assert code == 0
    assert json.loads(text)["required"] == ["name", "columns", "rows"]


def test_from_python_a_row_for_each_cell(place: Path) -> None:
    frame = api.joined_table(place / "both.yaml", settings(folder=place)).set_index(["row", "column"])
    cell = frame.loc["supervised", "Digits"]
    assert (cell["value"], cell["n"], bool(cell["leading"]), cell["published"]) == (pytest.approx(61), 3, True, 80.04)
    assert (cell["job"][:9], cell["stage"], len(cell["trials"])) == ("semantic-", "final", 3)
    assert frame.loc["random", "Masked"]["state"] == "not run"
    assert frame.loc["HRFormer", "Mean"]["published"] == 91
    fresh = api.joined_table(place / "both.yaml", settings(folder=place / "fresh"))
    assert set(fresh[fresh.column.isin(["Digits", "Masked"])].state) == {"not run", "published"}
    with pytest.raises(SpecError, match="no such file"):
        api.joined_table(place / "gone.yaml", settings(folder=place))
