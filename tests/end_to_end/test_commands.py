"""The commands as a user types them: what they print, their exit codes, and mistakes said without a traceback."""

from __future__ import annotations

import csv
import io
import json
import os
import shlex
import shutil
import signal
import socket
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from small_job import (
    EPOCHS,
    JOB,
    NOBODY,
    SPEC,
    TRIALS,
    begin,
    ended,
    environment,
    placed,
    run,
    store_of,
    wait_until,
    write_spec,
)

from orchestrator.cli.main import main

ROOT = Path(__file__).parents[2]
ONE = SPEC.partition("stages:")[0].replace("name: small", "name: one") + (
    "stages:\n  - {name: only, override: {task.dataset: faces}}\n"
)
"""A job of one trial."""


@dataclass(frozen=True)
class Said:
    out: str
    err: str


Command = Callable[..., Said]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """python -m orchestrator ARGUMENTS in this process: for commands that start none of their own."""
    for name in set(os.environ) - set(environment()):
        monkeypatch.delenv(name)

    def call(*arguments: str | Path, code: int = 0) -> Said:
        monkeypatch.setattr(sys, "argv", ["orchestrator", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        said = Said(*capsys.readouterr())
        assert (end.value.code or 0) == code, said
        assert "Traceback" not in said.err
        return said

    return call


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of that folder, to be damaged."""
    return Path(shutil.copytree(finished, tmp_path / "copied"))


def job_of(runs: Path) -> str:
    with store_of(runs) as store:
        return store.jobs.find(JOB)


# Before anything runs


def test_validate(command: Command, spec: Path) -> None:
    assert "valid; job small-" in command("validate", spec).out
    assert "valid; job k12-grid-" in command("validate", ROOT / "specs" / "k12_grid.yaml", "--profile", "paper").out


def test_mistakes_in_a_spec_are_named_and_nothing_is_started(command: Command, tmp_path: Path) -> None:
    path = write_spec(tmp_path, SPEC.replace("epochs: 4", "epoches: 4").replace("near:", "nearby:"))
    for name, *flags in (["validate"], ["plan"], ["submit", "--runs", tmp_path / "runs"]):
        err = command(name, path, *flags, code=3).err
        assert f"{path}:14:" in err
        assert "optim.epoches" in err
        assert "epochs" in err
        assert "nearby" in err
    assert not (tmp_path / "runs").exists()
    assert "optim.epoch" in command("validate", write_spec(tmp_path), "--set", "optim.epoch=5", code=3).err
    assert "nothere" in command("validate", write_spec(tmp_path), "--profile", "nothere", code=3).err


def test_plan_starts_and_records_nothing(command: Command, spec: Path, finished: Path, tmp_path: Path) -> None:
    said = command("plan", spec, "--runs", tmp_path / "runs").out
    assert "lower bound max(work / slots, longest chain)" in said
    planned = json.loads(command("plan", spec, "--runs", tmp_path / "runs", "-o", "json", "--cpus", "2").out)
    assert [(stage["name"], stage["trials"]) for stage in planned["stages"]] == [
        ("pretrain", 1), ("grid", 6), ("refine", 4), ("final", 2),
    ]  # fmt: skip
    assert planned["done"] == 0
    assert planned["cpu_hours"] > 0
    assert planned["makespan_hours"] >= planned["lower_bound_hours"] > 0
    assert not (tmp_path / "runs").exists()
    again = json.loads(command("plan", spec, "--runs", finished, "-o", "json").out)
    assert (again["done"], again["cpu_hours"]) == (TRIALS, 0)


def test_schema(command: Command) -> None:
    schema = json.loads(command("schema").out)
    assert schema["properties"].keys() >= {"name", "trial", "stages", "profiles"}


def test_the_papers_profile_stops_with_the_list_of_what_is_missing(command: Command, tmp_path: Path) -> None:
    where = ["--runs", tmp_path / "runs", "--data-root", tmp_path / "data"]
    err = command("submit", ROOT / "specs" / "k12_grid.yaml", "--profile", "paper", *where, code=4).err
    for dataset in ("food101", "birdsnap", "cars", "aircraft", "pets", "caltech101", "flowers", "dtd", "sun397"):
        assert f"\n{dataset}: not found under {tmp_path / 'data'}" in err
    assert "weights MIM: no file" in err
    assert "Nothing was started." in err
    assert "no job was submitted here yet" in command("status", "--runs", tmp_path / "runs", code=4).err


# Where nothing answers


def test_what_does_not_answer_is_named_at_once(command: Command, spec: Path, tmp_path: Path) -> None:
    said = command(
        "submit", spec, "--runs", tmp_path / "a", "--database-url", f"postgresql://me:pass@{NOBODY}/x", code=7
    )
    assert NOBODY in said.err.replace(":***", "")
    assert "pass" not in said.err.replace("password", "")
    assert not (tmp_path / "a" / "ray.log").exists()

    where = ["--runs", tmp_path / "b", "--address", NOBODY]
    said = command("submit", spec, *where, "--no-tracking", code=7)
    assert f"no Ray cluster at {NOBODY}: Connection refused" in said.err
    assert len(said.err.splitlines()) < 5
    assert f"no Ray cluster at {NOBODY}" in command("plan", spec, *where, code=7).err
    with store_of(tmp_path / "b") as store:
        assert store.leases.running() == store.leases.drivers() == []

    (tmp_path / "file").touch()
    said = command("submit", spec, "--runs", tmp_path / "file" / "runs", code=7)
    assert f"cannot write to {tmp_path / 'file' / 'runs'}" in said.err
    assert "--runs" in said.err


def test_what_is_not_there(command: Command, finished: Path, tmp_path: Path) -> None:
    for name in (["ls"], ["status"], ["describe", "x"], ["logs", "x"], ["cancel", "x"], ["retry", "x"], ["report"]):
        assert "nothing was submitted" in command(*name, "--runs", tmp_path / "none", code=4).err.lower()
    assert not (tmp_path / "none").exists()
    for name in ("status", "cancel", "retry", "report"):
        assert "no job has the name 'smal'" in command(name, "smal_", "--runs", finished, code=4).err.replace("_", "")
    assert "did you mean" in command("status", "smalll", "--runs", finished, code=4).err
    assert "no trial" in command("logs", "zzzz", "--runs", finished, code=4).err
    assert "no trial" in command("describe", "zzzz", "--runs", finished, code=4).err


def test_wrong_use(command: Command) -> None:
    assert "No such command" in command("sumbit", code=2).err
    assert "Missing argument" in command("submit", code=2).err
    assert "Invalid value" in command("report", "x", "-f", "pdf", code=2).err
    assert "track --sync" in command("track", code=2).err
    assert "Usage" in command("--help").out


# A finished job


def test_the_same_again_starts_nothing_and_no_ray(spec: Path, finished: Path) -> None:
    done = run("submit", spec, "--runs", finished, "--address", NOBODY, "--no-tracking")  # it would need the cluster
    assert done.returncode == 0, done.stderr
    assert f"0 trials started, {TRIALS} already done" in done.stderr
    assert not list(finished.glob("ray.*"))


def test_ls_status_describe(command: Command, finished: Path) -> None:
    job = job_of(finished)
    assert job in command("ls", "--runs", finished).out
    (listed,) = json.loads(command("ls", "--runs", finished, "-o", "json").out)
    assert (listed["id"], listed["state"], listed["trials"]) == (job, "done", TRIALS)
    for name in ([], [JOB], [job], [job[:8]]):
        status = json.loads(command("status", *name, "--runs", finished, "-o", "json").out)
        assert (status["id"], status["states"]["done"]) == (job, TRIALS)
    assert "faces" in command("status", "--runs", finished).out
    described = json.loads(command("describe", JOB, "--runs", finished, "-o", "json").out)
    assert len(described["winners"]) == 4
    assert "Choices" in command("describe", JOB, "--runs", finished).out
    row = placed(finished)[-1]
    for name in (row.key, row.key[:8], row.name, f"{row.name} {row.key[:8]}"):
        trial = json.loads(command("describe", name, "--runs", finished, "-o", "json").out)
        assert trial["key"] == row.key
    assert row.key in command("describe", row.key[:8], "--runs", finished).out


def test_a_prefix_of_two_trials_is_ambiguous(command: Command, finished: Path) -> None:
    keys = [row.key for row in placed(finished)]
    first = next(key[0] for key in keys if sum(other[0] == key[0] for other in keys) > 1)
    for name in ("describe", "logs"):
        assert "is ambiguous" in command(name, first, "--runs", finished, code=5).err


def test_logs(command: Command, finished: Path) -> None:
    row = placed(finished)[-1]
    out = command("logs", row.key[:8], "--runs", finished).out
    assert f"begin {row.name} {row.key[:8]} attempt 1" in out
    assert "done: " in out
    assert command("logs", row.name, "--runs", finished, "--follow").out == out  # ends, as the trial has


def test_report_in_every_form(command: Command, finished: Path) -> None:
    told = {form: command("report", JOB, "-f", form, "--runs", finished).out for form in
            ("text", "html", "md", "csv", "tex", "json")}  # fmt: skip
    value = json.loads(told["json"])["cells"][0]["value"]
    assert "RAND" in told["text"]
    assert "<svg" in told["html"]
    assert "| --- |" in told["md"]
    assert any(str(value) in row for row in csv.reader(io.StringIO(told["csv"])))
    assert "\\begin{tabular}" in told["tex"]
    for form in ("html", "md", "csv", "tex", "json"):  # as submit has written it
        written = (finished / "reports" / job_of(finished) / f"report.{form}").read_bytes()
        assert written.decode() == told[form], form
    assert command("report", "--runs", finished).out == told["text"]


def test_verify_finds_a_changed_figure(command: Command, copied: Path) -> None:
    assert "follows from the recorded figures" in command("report", JOB, "--verify", "--runs", copied).out
    row = next(row for row in placed(copied) if row.stage == "final")
    with closing(sqlite3.connect(copied / "store.db")) as database, database:
        changed = database.execute(
            "UPDATE figures SET value = value - 0.01 "
            "WHERE name = ? AND trial_id = (SELECT id FROM trials WHERE key = ?)",
            (row.metric, row.key),
        )
        assert changed.rowcount == 1
    out = command("report", JOB, "--verify", "--runs", copied, code=1).out
    assert row.name in out
    assert f"its figure is {row.value - 0.01:g}" in out


def test_cancel_of_what_is_done_changes_nothing(command: Command, finished: Path) -> None:
    assert "is already done" in command("cancel", JOB, "--runs", finished).err
    assert json.loads(command("status", "--runs", finished, "-o", "json").out)["state"] == "done"


def test_retry_without_failures_starts_nothing(command: Command, finished: Path) -> None:
    said = command("retry", JOB, "--runs", finished, "--address", NOBODY, "--no-tracking")
    assert "0 failed or cancelled trials" in said.err
    assert "0 trials started" in said.err


def test_track_fills_in_what_the_server_missed(copied: Path, tmp_path: Path) -> None:
    down = run("track", "--sync", JOB, "--runs", copied, "--tracking-uri", f"http://{NOBODY}")
    assert down.returncode == 7
    assert "the next sync fills it in" in down.stderr
    up = ["--runs", copied, "--tracking-uri", f"sqlite:///{tmp_path / 'mlflow.db'}"]
    done = run("track", "--sync", JOB, *up)
    assert done.returncode == 0, done.stderr
    groups = 7  # pretrain, and grid, refine, final of two initial weights each
    assert f"{TRIALS + groups} runs made" in done.stderr
    again = run("track", "--sync", JOB, *up)
    assert "0 runs made, 0 metric values written, 0 runs closed" in again.stderr
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as database:
        states = database.execute("SELECT status, count(*) FROM runs GROUP BY status").fetchall()
        epochs = database.execute("SELECT count(*) FROM metrics WHERE key = 'train/loss'").fetchone()[0]
    assert states == [("FINISHED", TRIALS + groups)]
    assert epochs == TRIALS * EPOCHS
    for text in (down.stderr, done.stderr, again.stderr):
        assert "Traceback" not in text


def test_the_ui_says_that_its_port_is_taken(command: Command, finished: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert f"port {port} is in use" in command("ui", "--port", port, "--runs", finished, code=5).err


def test_a_reader_that_leaves_gets_no_traceback() -> None:
    process = begin("schema")  # | head -0
    assert process.stdout is not None
    process.stdout.close()
    process.wait(60)
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.returncode == 1


# Stopping and going on


@pytest.mark.usefixtures("signals_as_in_a_terminal")
def test_cancel_and_ctrl_c_stop_at_a_checkpoint_and_the_printed_line_goes_on(
    ray_cluster: str, command: Command, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    path = write_spec(tmp_path, ONE)
    submit = ["submit", path, "--set", "optim.epochs=250", "--runs", runs, "--address", ray_cluster, "--no-ship"]
    submit += ["--no-tracking"]

    driver = begin(*submit)
    wait_until(lambda: any(row.state == "running" for row in placed(runs, "one")), driver)
    assert "asked its driver to stop" in command("cancel", "one", "--runs", runs).err
    done = ended(driver)
    assert done.returncode == 130, "not 1: no trial has failed"
    assert "resume with:" in done.stderr
    assert json.loads(command("status", "--runs", runs, "-o", "json").out)["state"] == "cancelled"

    driver = begin(*submit)
    (row,) = placed(runs, "one")
    wait_until(lambda: placed(runs, "one")[0].epoch >= row.epoch + 2, driver)
    driver.send_signal(signal.SIGINT)
    done = ended(driver)
    assert done.returncode == 130, done.stderr
    assert "running trials write a checkpoint" in done.stderr
    assert "Traceback" not in done.stderr
    (row,) = placed(runs, "one")
    assert str(row.state) == "pending"
    (folder,) = (runs / "storage" / "trials").glob("*/*")
    kept = max(int(file.name.split("-")[1]) for file in folder.glob("checkpoint-*.pt"))
    line = done.stderr.splitlines()[done.stderr.splitlines().index("resume with:") + 1]

    words = shlex.split(line)
    assert words[:3] == ["python", "-m", "orchestrator"]
    done = run(*words[3:])
    assert done.returncode == 0, done.stderr
    with store_of(runs) as store:
        assert [attempt.cause for attempt in store.trials.attempts(row.key)] == ["cancelled", "interrupted", "done"]
        assert store.trials.get(row.key).facts["resumed_at"] == kept > 0
        assert store.leases.drivers() == []
    assert not list(folder.glob("checkpoint-*"))


def test_retry_runs_what_failed_and_submit_does_not(ray_cluster: str, command: Command, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    path = write_spec(tmp_path, ONE)
    where: list[Any] = ["--runs", runs, "--address", ray_cluster, "--no-ship", "--no-tracking"]
    hurried = run("submit", path, "--set", "resources.time_limit_hours=1e-9", *where)
    assert hurried.returncode == 1, hurried.stderr
    assert (hurried.stdout + hurried.stderr).count("ran longer than") == 1, "a fault is said once"
    assert "failed" in hurried.stdout
    line = hurried.stderr.splitlines()[hurried.stderr.splitlines().index("to run what failed again:") + 1]
    assert f"--runs {runs}" in line
    status = json.loads(command("status", "--runs", runs, "-o", "json").out)
    assert (status["state"], status["states"]["failed"]) == ("incomplete", 1)
    assert "timeout" in command("describe", status["failed"][0]["key"][:8], "--runs", runs).out

    unhurried = command("submit", path, *where[:3], NOBODY, "--no-tracking", code=1)
    assert "0 trials started, 1 already done" in unhurried.err
    job = json.loads(command("status", "--runs", runs, "-o", "json").out)["id"]
    done = run("retry", job[:7], *where)
    assert done.returncode == 0, done.stderr
    assert "1 failed or cancelled trials are pending again" in done.stderr
    assert "1 trials started" in done.stderr
    with store_of(runs) as store:
        (row,) = store.trials.placed(job)
        assert [attempt.cause for attempt in store.trials.attempts(row.key)] == ["timeout", "done"]
