"""Every exit code that README names, each provoked by the command line: one message, no traceback."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from recorded_study import Plot, Study

from orchestrator.cli.main import main
from orchestrator.records.trial_files import trial_folder
from orchestrator.settings import settings
from orchestrator.store.store import open_store

ROOT = Path(__file__).parents[3]
K12 = ROOT / "specs" / "k12_grid.yaml"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of which one trial is running, and has written a log."""
    folder = tmp_path_factory.mktemp("runs")
    with closing(open_store(settings(folder=folder).database_url)) as store:
        job = Study(store, Plot(final_state={"faces/SUP": "running"}, seeds=(0,))).run()
        (key,) = [row.key for row in store.trials.placed(job) if row.state == "running"]
    log = trial_folder(folder / "storage", key)
    log.mkdir(parents=True)
    (log / "log.txt").write_text("epoch 1\n", encoding="utf-8")
    (folder / "key").write_text(key)
    return folder


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield int(other.getsockname()[1])


Prepare = Callable[[Path, Path, int], list[str]]


def verified(runs: Path, folder: Path, port: int) -> list[str]:
    copy = folder / "store.db"
    copy.write_bytes((runs / "store.db").read_bytes())
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute(
            "UPDATE winners SET candidates = candidates + 1 WHERE stage = 'final' AND grp = 'digits/SUP'"
        )
        connection.commit()
    return ["report", "--verify", "--runs", str(folder)]


def newer(runs: Path, folder: Path, port: int) -> list[str]:
    copy = folder / "store.db"
    copy.write_bytes((runs / "store.db").read_bytes())
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute("UPDATE orchestrator_version SET version_num = '9999'")
        connection.commit()
    return ["status", "--runs", str(folder)]


def ambiguous(runs: Path, folder: Path, port: int) -> list[str]:
    with closing(sqlite3.connect(runs / "store.db")) as connection:
        query = "SELECT substr(key, 1, 1) FROM trials GROUP BY 1 HAVING count(*) > 1 LIMIT 1"
        (start,) = connection.execute(query).fetchone()
    return ["logs", start, "--runs", str(runs)]


def damaged(runs: Path, folder: Path, port: int) -> list[str]:
    (folder / "w.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    return ["weights", "show", str(folder / "w.safetensors")]


PROVOKED: list[tuple[int, str, Prepare]] = [
    (0, "", lambda runs, folder, port: ["ls", "--runs", str(runs)]),
    (1, "", verified),
    (2, "No such option", lambda runs, folder, port: ["ls", "--rusn", str(runs)]),
    (2, "No such command", lambda runs, folder, port: ["lst"]),
    (2, "is not in the range", lambda runs, folder, port: ["ui", "--port", "70000"]),
    (3, "optim.epochz", lambda runs, folder, port: ["validate", str(K12), "--set", "optim.epochz=5"]),
    (4, "no store at", lambda runs, folder, port: ["ls", "--runs", str(folder)]),
    (4, "no job has the name", lambda runs, folder, port: ["status", "nothing", "--runs", str(runs)]),
    (4, "no trial has the name", lambda runs, folder, port: ["logs", "nothing", "--runs", str(runs)]),
    (5, "newer version", newer),
    (5, "is ambiguous", ambiguous),
    (5, "is in use", lambda runs, folder, port: ["ui", "--port", str(port), "--runs", str(folder / "new")]),
    (6, "w.safetensors", damaged),
    (6, "home folder", lambda runs, folder, port: ["ls", "--runs", "~nobody-of-this-name"]),
    (7, "does not answer", lambda runs, folder, port: ["ls", "--database-url", "postgresql://127.0.0.1:1/x"]),
    (7, "its port is not a number", lambda runs, folder, port: ["ls", "--database-url", "postgresql://h:abc/x"]),
    (7, "cannot be opened", lambda runs, folder, port: ["ls", "--database-url", f"sqlite:///{folder}"]),
    (130, "", lambda runs, folder, port: ["logs", "-f", (runs / "key").read_text(), "--runs", str(runs)]),
]  # fmt: skip


def test_every_code_of_the_readme_is_provoked_here() -> None:
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    sentence = text.partition("Exit codes: ")[2].partition(". ")[0]
    documented = {int(number) for number in re.findall(r"(?:^|, )(\d+) ", sentence)}
    assert len(documented) > 7
    assert {code for code, _, _ in PROVOKED} == documented


@pytest.mark.parametrize(("code", "wanted", "prepare"), [one for one in PROVOKED if one[0] != 130])
def test_a_code_comes_with_one_message(
    code: int, wanted: str, prepare: Prepare, runs: Path, tmp_path: Path, taken: int,
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name in [name for name in os.environ if name.startswith(("ORCHESTRATOR_", "DATABASE_", "MLFLOW_", "DATA_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "argv", ["orchestrator", *prepare(runs, tmp_path, taken)])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    assert end.value.code == code, err
    assert wanted in err
    assert "Traceback" not in out + err
    if code == 1:
        assert len(out.splitlines()) == 1, out
    elif code == 2:
        assert len([line for line in err.splitlines() if line.startswith("Error: ")]) == 1
    elif code:
        assert err.startswith("error: ")
        assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1
        assert len(err.splitlines()) <= 2
        assert out == ""


@pytest.mark.usefixtures("signals_as_in_a_terminal")
def test_ctrl_c_ends_with_130_and_no_word(runs: Path, tmp_path: Path) -> None:
    (arguments,) = [prepare(runs, tmp_path, 0) for code, _, prepare in PROVOKED if code == 130]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("DATABASE_", "ORCH"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**environment, "PYTHONUNBUFFERED": "1"}, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == b"epoch 1\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=120) == (b"", b"\n")
    assert process.returncode == 130
