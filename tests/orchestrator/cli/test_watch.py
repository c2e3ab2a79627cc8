"""Commands that watch a job: status, trials, logs; and lines that work as printed."""

from __future__ import annotations

import csv
import io
import json
import os
import pty
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from recorded_study import Plot, Study

from orchestrator.cli import watch
from orchestrator.cli.jobs import finish
from orchestrator.cli.main import main
from orchestrator.cli.options import flags
from orchestrator.cli.trial_logs import Log
from orchestrator.engine.tally import Tally
from orchestrator.launch.submit import Submitted
from orchestrator.records.states import JobState
from orchestrator.records.trial_files import trial_folder
from orchestrator.report import trial_list
from orchestrator.settings import settings
from orchestrator.store.store import open_store

Run = Callable[..., str]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a study in which a trial failed and another still runs."""
    folder = tmp_path_factory.mktemp("watched")
    with closing(open_store(settings(folder=folder).database_url)) as store:
        study = Study(store, Plot(failed_grid=("faces/RAND",), final_state={"faces/SUP": "running"}))
        study.run()
        store.leases.register(study.driver)
        store.jobs.set_state(study.job_id, "running")
        for trial in store.trials.placed(study.job_id):
            log = trial_folder(folder / "storage", trial.key) / "log.txt"
            log.parent.mkdir(parents=True)
            log.write_text(f"begin {trial.name}\nepoch 1/8\r 50%\r100%\n")
    return folder


@pytest.fixture
def run(runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command on that folder and returns what it prints."""

    def command(*arguments: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["orchestrator", *arguments, "--runs", str(runs)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        told = capsys.readouterr()
        assert left.value.code == code, told.err
        return told.out if code == 0 else told.err

    return command


def test_status_lists_the_running_trials(run: Run) -> None:
    (row,) = json.loads(run("status", "-o", "json"))["running"]
    assert row["name"].startswith("final/faces/SUP")
    assert (row["epoch"], row["epochs"]) == (3, 8)
    assert row["seconds_left"] == pytest.approx(5 * 0.5)
    assert row["loss"] == 0.5
    text = run("status")
    assert row["key"][:8] in text
    assert "3 of 8" in text
    assert text.count("KeyError") == 0
    assert text.count("ValueError: <img> & co") == 1, "a fault is said once"


def test_the_line_that_retries_works_as_printed(run: Run, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = next(line for line in run("status").splitlines() if "retry" in line)
    words = shlex.split(line.partition(": ")[2])
    assert words[:4] == ["python", "-m", "orchestrator", "retry"]
    assert words[5:] == ["--runs", str(runs)]
    where = settings(folder=runs)
    assert flags(where) == f" --runs {runs}"
    monkeypatch.setenv("ORCHESTRATOR_RUNS", str(runs))
    assert flags(where) == "", "the environment says so already"
    odd = settings(folder="/a b", data_root="/data", address="head:6379", database_url="postgresql://me:secret@h/db")
    assert flags(odd, "address") == " --runs '/a b' --database-url 'postgresql://***@h/db' --address head:6379"
    assert shlex.split(flags(odd))[-4:] == ["--data-root", "/data", "--address", "head:6379"]


def test_status_is_drawn_until_the_job_has_ended(runs: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            with closing(open_store(settings(folder=runs).database_url)) as store:
                store.jobs.set_state(store.jobs.find("k12-grid"), "incomplete")

    monkeypatch.setattr(watch, "sleep", sleep)
    text = run("status", "k12-grid", "--watch")
    assert looks == [watch.WATCH_S] * 3
    assert text.count("initial weights") == 2, "only what is new, where there is no terminal"
    with closing(open_store(settings(folder=runs).database_url)) as store:
        store.jobs.set_state(store.jobs.find("k12-grid"), "running")
    assert "leave out --output json" in run("status", "--watch", "-o", "json", code=2)


def test_trials_are_listed_sorted_and_chosen(run: Run) -> None:
    rows = json.loads(run("trials", "k12-grid", "-o", "json"))
    assert len(rows) == 85
    assert [row["stage"] for row in rows] == sorted(
        (row["stage"] for row in rows), key=["pretrain", "grid", "refine", "final"].index
    )
    best = json.loads(run("trials", "--sort", "value", "-o", "json"))
    values = [row["value"] for row in best if row["value"] is not None]
    assert values == sorted(values, reverse=True)
    assert (best[0]["value"], best[0]["unit"], best[0]["split"]) == (pytest.approx(96.0), "%", "val")
    assert best[-1]["value"] is None, "those without a value come last"
    rates = [row["settings"]["optim.lr"] for row in json.loads(run("trials", "--sort", "-optim.lr", "-o", "json"))
             if "optim.lr" in row["settings"]]  # fmt: skip
    assert rates == sorted(rates, reverse=True)
    (failed,) = json.loads(run("trials", "--state", "failed", "-o", "json"))
    assert failed["error_class"] == "code"
    text = run("trials", "--state", "failed", "--state", "running")
    assert len(text.splitlines()) == 4
    assert "code: ValueError: <img> & co" in text
    assert "final/faces/SUP" in text
    assert "no such trials" in run("trials", "--state", "cancelled")
    assert "did you mean optim.lr" in run("trials", "--sort", "optim.l", code=6)


def test_a_trial_of_two_stages_is_listed_in_both_however_sorted(runs: Path) -> None:
    """In one of them it has the setting that is sorted by, in the other not."""
    with closing(open_store(settings(folder=runs).database_url)) as store:
        both = [trial for trial in store.trials.placed(store.jobs.find("k12-grid")) if trial.stage == "grid"][:2]
    plain = [replace(trial, stage="again", settings={}) for trial in both]
    for sort in ("optim.lr", "-optim.lr"):
        listed = trial_list._sorted([*both, *plain], sort)
        assert [trial.stage for trial in listed] == ["grid", "grid", "again", "again"]


def test_csv_has_a_column_for_each_setting(run: Run) -> None:
    rows = list(csv.DictReader(io.StringIO(run("trials", "--sort", "value", "-o", "csv"))))
    assert len(rows) == 85
    assert (rows[0]["optim.lr"], rows[0]["task.dataset"], rows[0]["unit"]) == ("0.000264", "digits", "%")


@pytest.mark.parametrize(
    ("name", "count"),
    [("grid/faces/RAND", 15), ("faces/RAND", 15), ("RAND faces", 15), ("faces RAND", 15), ("RAND/faces", 15),
     ("final/digits/SUP", 3), ("SUP", 20 + 20 + 3 + 3), ("digits", 2 * 20 + 6), ("refine", 15)],
)  # fmt: skip
def test_groups_are_found_by_the_names_that_tables_and_mlflow_show(run: Run, name: str, count: int) -> None:
    assert len(json.loads(run("trials", "k12-grid", "--group", name, "-o", "json"))) == count


def test_a_group_needs_no_job(run: Run) -> None:
    assert len(json.loads(run("trials", "grid/faces/RAND", "-o", "json"))) == 15
    assert len(json.loads(run("describe", "grid/faces/RAND", "-o", "json"))) == 15
    assert run("logs", "final/digits/SUP").count("| begin") == 3
    told = run("trials", "--group", "grid/faces/RANT", code=4)
    assert "has no group 'grid/faces/RANT'; did you mean 'grid/faces/RAND'" in told
    assert "did you mean grid/faces/RAND" in run("logs", "grid/faces/RANT", code=4)
    assert "no job has the name 'k13'" in run("trials", "k13", code=4)


def test_logs_of_a_job_name_the_trial_on_each_line(run: Run) -> None:
    lines = run("logs", "k12-grid").splitlines()
    assert len(lines) == 85 * 4, "progress bars become lines of their own"
    key, _, rest = lines[0].partition(" ")
    assert len(key) == 8
    assert rest == "pretrain/all | begin pretrain/all"
    failed = run("logs", "k12-grid", "--failed").splitlines()
    assert len(failed) == 4
    one = run("logs", failed[0].partition(" ")[0])
    assert one.startswith("begin grid/faces/RAND"), "of one trial there is no prefix"


def test_a_log_that_grows_is_printed_in_whole_lines(tmp_path: Path) -> None:
    file = tmp_path / "log.txt"
    log = Log(file, "a | ")
    assert log.news(False) == "", "nothing is written yet"
    file.write_bytes(b"one\nt")
    assert log.news(False) == "a | one"
    file.write_bytes("one\ntwö\nthr".encode()[:-4])
    assert log.news(False) == ""
    file.write_bytes("one\ntwö\nthree".encode())
    assert log.news(False) == "a | twö"
    assert log.news(True) == "a | three"
    assert log.news(True) == ""


WORKS = "from orchestrator.cli.options import working\nwith working('reading the spec'): pass"


def test_commands_say_what_they_do_on_a_terminal_alone() -> None:
    plain = subprocess.run([sys.executable, "-c", WORKS], capture_output=True, text=True, check=True)
    assert plain.stdout + plain.stderr == ""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm"}
    subprocess.run([sys.executable, "-c", WORKS], stdout=subprocess.DEVNULL, stderr=theirs, check=True, env=environment)
    os.close(theirs)
    assert b"reading the spec" in os.read(ours, 4096)
    os.close(ours)


def test_the_end_of_a_submit_says_a_fault_once_and_the_remedy(
    runs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORCHESTRATOR_RUNS", raising=False)
    where = settings(folder=runs)
    with closing(open_store(where.database_url)) as store:
        identity = store.jobs.find("k12-grid")
    done = Submitted(identity, JobState.incomplete, Tally(), "grid faces/RAND: trial x failed", files={"html": runs})
    assert finish(done, where) == 1
    told = capsys.readouterr()
    assert (told.out + told.err).count("ValueError: <img> & co") == 1
    assert (told.out + told.err).count("retry") == 1
    assert f"to run what failed again:\n  python -m orchestrator retry {identity} --runs {runs}\n" in told.err
    assert f"in a browser:  python -m orchestrator ui --runs {runs}\n" in told.err
