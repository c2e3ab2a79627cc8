"""What reaches a terminal: text of others without its escapes, in any encoding, from any working directory."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from recorded_study import Plot, Study

from orchestrator.cli.jobs import again
from orchestrator.cli.main import main
from orchestrator.report.formats import FORMATS
from orchestrator.settings import settings
from orchestrator.store.store import open_store

ROOT = Path(__file__).parents[3]
ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\x08\u202e"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study in whose rows somebody, or something, put terminal escapes."""
    folder = tmp_path_factory.mktemp("runs")
    with closing(open_store(settings(folder=folder).database_url)) as store:
        job = Study(store, Plot(failed_grid=("faces/RAND",), seeds=(0,))).run()
        store.jobs.set_state(job, "incomplete", f"message {ESCAPES}")
        key = store.trials.placed(job)[0].key
    with closing(sqlite3.connect(folder / "store.db")) as connection:
        connection.execute("UPDATE trials SET error = 'ValueError: ' || ? WHERE error IS NOT NULL", (ESCAPES,))
        connection.execute("UPDATE trials SET host = ?, device = ?, data_digest = ?", (ESCAPES, ESCAPES, ESCAPES))
        connection.execute("UPDATE jobs SET name = name || ?, git_commit = ?", (ESCAPES, ESCAPES))
        connection.execute("UPDATE placed SET name = name || ?", (ESCAPES,))
        connection.execute("UPDATE metrics SET title = title || ?, unit = ?", (ESCAPES, ESCAPES))
        connection.execute("UPDATE attempts SET message = ?, host = ?", (ESCAPES, ESCAPES))
        connection.commit()
    from orchestrator.records.trial_files import trial_folder

    log = trial_folder(folder / "storage", key)
    log.mkdir(parents=True)
    (log / "log.txt").write_text(f"epoch 1\r\n10 %\r20 %\r{ESCAPES}\nend\n", encoding="utf-8", newline="")
    (folder / "job").write_text(job)
    (folder / "key").write_text(key)
    return folder


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """(exit code, standard output, standard error) of a command in this process."""
    for name in [name for name in os.environ if name.startswith(("ORCHESTRATOR_", "DATABASE_", "MLFLOW_", "DATA_"))]:
        monkeypatch.delenv(name)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["orchestrator", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return int(end.value.code or 0), out, err

    return run


def test_no_escape_of_a_row_reaches_the_terminal(runs: Path, call: Call) -> None:
    job, key = (runs / "job").read_text(), (runs / "key").read_text()
    shown = ""
    for command in (
        ["ls"], ["status", job], ["describe", job], ["describe", key], ["logs", key], ["logs", job],
        ["gc", "--plan"], ["trials", job], ["trials", job, "-o", "csv"], ["trials", job, "-o", "json"],
        *(["report", job, "-f", form] for form in FORMATS), ["ls", "-o", "json"], ["status", job, "-o", "json"],
        ["describe", key, "-o", "json"], ["report", job, "--verify"],
    ):  # fmt: skip
        code, out, err = call(*command, "--runs", runs)
        assert code in (0, 1), (command, err)
        found = CONTROL.search(out.replace("\r\n", "\n"))  # of CSV
        assert not found, (command, found)
        assert not CONTROL.search(err), command
        shown += out
    assert r"\x1b]0;owned\x07" in shown


def test_progress_bars_of_a_log_become_lines(runs: Path, call: Call) -> None:
    out = call("logs", (runs / "key").read_text(), "--runs", runs)[1]
    assert out.splitlines()[:3] == ["epoch 1", "10 %", "20 %"]
    assert out.endswith("end\n")


def test_no_escape_of_an_argument_or_a_file_reaches_the_terminal(runs: Path, call: Call, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    file = tmp_path / f"w{ESCAPES}.safetensors"
    save_file({f"blocks{ESCAPES}.weight": np.zeros((2, 2), np.float32)}, file, {"note": ESCAPES})
    spec = tmp_path / f"spec{ESCAPES}.yaml"
    spec.write_text("name: x\n")
    for command, wanted in (
        (["status", f"none{ESCAPES}", "--runs", runs], 4),
        (["describe", f"none{ESCAPES}", "--runs", runs], 4),
        (["ls", "--runs", tmp_path / f"x{ESCAPES}"], 4),
        (["ls", "--database-url", f"mysql://x/{ESCAPES}"], 7),
        ([f"command{ESCAPES}"], 2),
        (["ls", f"--option{ESCAPES}"], 2),
        (["report", "-f", ESCAPES, "--runs", runs], 2),
        (["data", "check", f"set{ESCAPES}"], 4),
        (["validate", spec, "--profile", f"p{ESCAPES}"], 3),
        (["validate", spec, "--set", f"a{ESCAPES}=1"], 3),
        (["weights", "show", file, "--names"], 0),
    ):
        code, out, err = call(*command)
        assert code == wanted, (command, err)
        assert not CONTROL.search(out + err), (command, CONTROL.search(out + err))


def test_a_password_is_not_in_the_command_to_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://me:p@ss/w@host/db"
    for given in (["--database-url", url], [f"--database-url={url}"], ["--tracking-uri", "http://me:p@ss/w@h:5000"]):
        monkeypatch.setattr(sys, "argv", ["orchestrator", "submit", "spec.yaml", *given])
        assert "p@ss" not in again()
        assert "ss/w" not in again()
        assert "set DATABASE_URL instead" in again()
    monkeypatch.setattr(sys, "argv", ["orchestrator", "submit", "spec.yaml", "--runs", "a b"])
    assert again() == "python -m orchestrator submit spec.yaml --runs 'a b'"


def process(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> tuple[int, bytes, bytes]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", *map(str, arguments)],
        capture_output=True, cwd=cwd or ROOT, env={**kept, "PYTHONPATH": str(ROOT), **environment},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "latin-1"},
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["latin-1", "ascii", "C"],
)
def test_any_encoding_is_printed_with_replacements(runs: Path, environment: dict[str, str]) -> None:
    for command in (["report"], ["describe", (runs / "key").read_text()]):
        code, out, err = process(*command, "--runs", runs, **environment)
        assert (code, err) == (0, b""), err
        assert len(out.splitlines()) > 5
    code, out, err = process("status", "für 深度", "--runs", runs, **environment)
    assert code == 4
    assert err.startswith(b"error: no job has the name")


def test_a_deleted_working_directory_is_one_line(tmp_path: Path, runs: Path) -> None:
    gone = tmp_path / "gone"
    script = 'mkdir "$1" && cd "$1" && rmdir "$1" && shift && exec "$@"'
    for command in (["ls", "--runs", str(runs)], ["validate", "spec.yaml"], ["data", "ls"]):
        done = subprocess.run(
            ["sh", "-c", script, "sh", str(gone), sys.executable, "-m", "orchestrator", *command],
            capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 4
        assert done.stderr == "error: the working directory no longer exists: change to another one\n"


@pytest.mark.parametrize("kind", ["folder", "module", "package"])
def test_a_folder_or_file_named_like_our_packages_hides_nothing(tmp_path: Path, kind: str) -> None:
    for name in ("tasks", "workers"):
        if kind == "module":
            (tmp_path / f"{name}.py").write_text("raise SystemExit('theirs')\n")
        else:
            (tmp_path / name).mkdir()
            if kind == "package":
                (tmp_path / name / "__init__.py").write_text("raise SystemExit('theirs')\n")
    find = "import importlib.util as u, orchestrator; print(*(u.find_spec(n).origin for n in ('workers', 'tasks')))"
    done = subprocess.run(
        [sys.executable, "-c", find], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout.split() == [str(ROOT / "workers" / "__init__.py"), str(ROOT / "tasks" / "__init__.py")]
    if kind == "package":
        code, out, err = process("validate", ROOT / "specs" / "k12_grid.yaml", cwd=tmp_path)
        assert (code, err) == (0, b"")
        assert b"valid; job k12-grid" in out


def test_another_module_of_the_name_that_is_loaded_first_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", "import tasks, orchestrator.api"], capture_output=True, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: another module named 'tasks' is loaded")
    assert "import orchestrator first, or rename the other one" in last
