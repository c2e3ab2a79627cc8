"""Nothing is lost: SIGKILL of the driver, of a worker, of everything at once, then `submit` again."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from random_kills import KINDS, Killer
from small_job import (
    EPOCHS,
    JOB,
    TRIALS,
    begin,
    ended,
    head_of,
    kill_all,
    kill_cluster,
    placed,
    report_of,
    run,
    store_of,
    wait_until,
    workers_of,
)

from orchestrator.engine import ray_cluster as cluster

KILLED = -9


@pytest.fixture(scope="module")
def undisturbed(finished: Path) -> dict[str, Any]:
    """The report of the job when nothing happens to it."""
    assert set(begun(finished).values()) == {1}
    return report_of(finished)


@pytest.fixture(scope="module")
def own() -> Iterator[Path]:
    """A folder with a local cluster of its own, which may be killed."""
    folder = Path(tempfile.mkdtemp(prefix="own-", dir="/tmp"))
    yield folder
    kill_cluster(folder)
    shutil.rmtree(folder, ignore_errors=True)


def on(address: str, runs: Path) -> list[str | Path]:
    return ["--runs", runs, "--address", address, "--no-ship", "--no-tracking", "-q"]


def begun(runs: Path) -> Counter[str]:
    """How often each trial was begun, by what its own log says."""
    logs = {path.parent.name: path.read_text() for path in runs.glob("storage/trials/*/*/log.txt")}
    return Counter({key: text.count(f" key {key}") for key, text in logs.items()})


def count_done(runs: Path) -> int:
    return sum(row.state == "done" for row in placed(runs))


def step_on_disk(folder: Path) -> int | None:
    """Of the trial's newest checkpoint (0: it has none); None when it has ended."""
    if (folder / "outcome.json").exists() or not folder.exists():
        return None
    return max([int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*.pt")], default=0)


def steps_per_epoch(facts: dict[str, Any]) -> int:
    return int(facts["steps"]) // EPOCHS


def assert_same(runs: Path, undisturbed: dict[str, Any]) -> None:
    """The job is as if nothing had happened: its report, and each trial recorded once."""
    assert report_of(runs) == undisturbed
    with store_of(runs) as store:
        keys = {row.key for row in store.trials.placed(store.jobs.find(JOB))}
        recorded = {key: [attempt.cause for attempt in store.trials.attempts(key)] for key in keys}
        reported = {key: [report.epoch for report in store.trials.reports(key)] for key in keys}
        assert store.leases.running() == []
        assert store.leases.drivers() == []
    assert len(keys) == TRIALS
    assert all(causes.count("done") == 1 and causes[-1] == "done" for causes in recorded.values()), recorded
    assert set(map(tuple, reported.values())) == {tuple(range(1, EPOCHS + 1))}


def test_a_driver_killed_at_every_named_point_loses_nothing(
    ray_cluster: str, spec: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """One job whose driver dies again and again; the trials outlive it, so that none is begun twice."""
    points = ["after_claim", "after_report:2", "before_result_commit", "winner_selection", "after_result_commit"]
    for point in points:
        done = run("submit", spec, *on(ray_cluster, tmp_path), ORCHESTRATOR_CRASH_AT=point)
        assert done.returncode == KILLED, (point, done.stderr)
    done = run("submit", spec, *on(ray_cluster, tmp_path))
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path, undisturbed)
    assert set(begun(tmp_path).values()) == {1}


@pytest.mark.usefixtures("signals_as_in_a_terminal")
def test_a_start_that_was_interrupted_leaves_one_cluster(own: Path, spec: Path) -> None:
    """Ctrl-C while Ray starts: the cluster goes on starting, and the next command uses it."""
    driver = begin("submit", spec, "--runs", own, "--cpus", "2", "--no-tracking", **doomed(own))
    wait_until((own / "ray.start").exists, driver)
    time.sleep(0.5)
    driver.send_signal(signal.SIGINT)
    done = ended(driver)
    assert done.returncode == 130, done.stderr
    assert "python -m orchestrator submit" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (own / "ray.json").exists()
    with cluster.hold(own):
        cluster.ensure_local(own, cpus=2)
        wait_until(lambda: len(heads(own)) == 1)
    assert heads(own) == [head_of(own)]


def heads(folder: Path) -> list[psutil.Process]:
    command = ["-m", "orchestrator.engine.ray_head", str(folder)]
    return [process for process in psutil.process_iter(["cmdline"]) if (process.info["cmdline"] or [])[1:4] == command]


def doomed(folder: Path) -> dict[str, str]:
    """Variables of a cluster three of whose workers die, one at each point."""
    (folder / "deaths").mkdir(exist_ok=True)
    return {
        "ORCHESTRATOR_CRASH_AT": "step:7,before_checkpoint_commit:2,after_checkpoint_commit:4",
        "ORCHESTRATOR_CRASH_ONCE": str(folder / "deaths"),
    }


def test_workers_killed_at_every_named_point_repeat_at_most_one_interval(
    own: Path, spec: Path, undisturbed: dict[str, Any]
) -> None:
    """Three workers of one job die, one at each point. Its driver sees it and goes on by itself."""
    # The cluster that a command starts, and so its workers, inherit the variables.
    done = run("submit", spec, "--runs", own, "--cpus", "2", "--no-tracking", "-q", **doomed(own))
    assert done.returncode == 0, done.stderr
    assert_same(own, undisturbed)
    died = sorted((own / "deaths").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert sorted(path.name for path in died) == ["after_checkpoint_commit", "before_checkpoint_commit", "step"]
    last = {key: (path.name, int(step)) for path in died for key, step in [path.read_text().split()]}
    with store_of(own) as store:
        lost = [a for row in placed(own) for a in store.trials.attempts(row.key) if a.cause == "node_lost"]
        assert len(lost) == len(died)
        for key, (point, step) in last.items():
            facts = store.trials.get(key).facts
            interval = steps_per_epoch(facts)
            kept = {
                "step": step // interval * interval,
                "before_checkpoint_commit": step - interval,
                "after_checkpoint_commit": step,
            }
            assert (facts["resumed_at"] or 0) == kept[point], (point, step, interval)


@pytest.mark.parametrize("seed", [1, *(pytest.param(n, marks=pytest.mark.soak) for n in (2, 3, 4))])
def test_drivers_and_workers_killed_at_random_times(
    ray_cluster: str, spec: Path, undisturbed: dict[str, Any], tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)
    driver = begin("submit", spec, *on(ray_cluster, tmp_path))
    wait_until(lambda: count_done(tmp_path) >= dice.randint(0, 3), driver)
    folders = [kill_a_worker(tmp_path, driver, dice)]
    wait_until(lambda: count_done(tmp_path) >= dice.randint(3, 6), driver)
    time.sleep(dice.uniform(0, 0.3))
    driver.kill()
    assert ended(driver).returncode == KILLED
    driver = begin("submit", spec, *on(ray_cluster, tmp_path))
    folders.append(kill_a_worker(tmp_path, driver, dice))
    done = ended(driver)
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path, undisturbed)
    with store_of(tmp_path) as store:
        for folder, step in dict(folders).items():
            assert step is None or (store.trials.get(folder.name).facts["resumed_at"] or 0) >= step


def kill_a_worker(runs: Path, driver: Any, dice: random.Random) -> tuple[Path, int | None]:
    """SIGKILL to a process that trains, at some time; the folder of its trial, and what that has on disk."""
    while True:
        wait_until(lambda: workers_of(runs / "storage"), driver)
        time.sleep(dice.uniform(0, 0.2))
        running = workers_of(runs / "storage")
        if running:
            folder = dice.choice(sorted(running))
            kill_all([running[folder]])
            return folder, step_on_disk(folder)


def test_every_process_killed_at_once_at_random_times(
    own: Path, spec: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """Driver, workers and Ray itself die in the same moment; what is left is the store and the checkpoints."""
    dice = random.Random(3)
    command = ["submit", spec, "--runs", own, "--cpus", "2", "--no-tracking", "-q"]
    command += ["--storage", tmp_path / "storage", "--database-url", f"sqlite:///{tmp_path / 'store.db'}"]
    left: dict[str, int | None] = {}
    for least in (1, 5):
        driver = begin(*command)
        wait_until(lambda least=least: count_done(tmp_path) >= dice.randint(least, least + 3), driver)
        wait_until(lambda: workers_of(tmp_path / "storage"), driver)
        time.sleep(dice.uniform(0, 0.3))
        driver.kill()
        kill_cluster(own)
        assert ended(driver).returncode == KILLED
        left = {path.name: step_on_disk(path) for path in (tmp_path / "storage" / "trials").glob("*/*")}
        with store_of(tmp_path) as store:
            out = [store.trials.get(row.key) for row in placed(tmp_path) if row.state == "running"]
        assert out
        for trial in out:
            kept = left.get(trial.key, 0)
            assert trial.epoch == 0 or kept is None or trial.step - kept <= trial.step // trial.epoch
    done = run(*command)
    assert done.returncode == 0, done.stderr
    (own / "reports").rename(tmp_path / "reports")
    assert_same(tmp_path, undisturbed)
    with store_of(tmp_path) as store:
        for trial in out:
            assert (store.trials.get(trial.key).facts["resumed_at"] or 0) >= (left.get(trial.key) or 0)


# Anything, at any time

THIRTY = Counter({"trial": 13, "driver": 9, "mirror": 5, "raylet": 1, "gcs_server": 1, "head": 1})
JOBS = 4
"""So many jobs, one after the other, at most; each takes about fifteen of these kills."""


def survives(
    own: Path, spec: Path, undisturbed: dict[str, Any], place: Path, seed: int, kinds: list[str],
    pause_s: tuple[float, float] = (0.2, 2.0),
) -> Killer:  # fmt: skip
    """The job comes to its end, every number as if nothing had happened, and MLflow has all of it."""
    mlflow = place / "mlflow.db"
    command: list[str | Path] = ["submit", spec, "--runs", own, "--cpus", "2", "-q", "--storage", place / "storage"]
    command += ["--database-url", f"sqlite:///{place / 'store.db'}", "--tracking-uri", f"sqlite:///{mlflow}"]
    killer = Killer(command, own, place / "storage", seed)
    done = killer.run(kinds, pause_s)
    assert done.returncode == 0, f"seed {seed}, {killer.killed}, exit code {done.returncode}:\n{done.stderr}"
    assert "Traceback" not in done.stderr
    shutil.rmtree(place / "reports", ignore_errors=True)
    (own / "reports").rename(place / "reports")
    assert_same(place, undisturbed)
    with closing(sqlite3.connect(mlflow)) as database:
        states = database.execute("SELECT status, count(*) FROM runs GROUP BY status").fetchall()
    assert [state for state, _ in states] == ["FINISHED"], f"seed {seed}, {killer.killed}, {states}:\n{done.stderr}"
    sessions = list((own / "ray" / "s").glob("session_2*"))
    assert len(sessions) <= 1, "each cluster removes what the one before it has left"
    return killer


@pytest.mark.timeout(900)
def test_jobs_survive_thirty_random_kills_of_anything(
    own: Path, spec: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    left = Counter(THIRTY)
    for seed in range(4, 4 + JOBS):
        place = tmp_path / str(seed)
        place.mkdir()
        left -= survives(own, spec, undisturbed, place, seed, list(left.elements()), pause_s=(0.1, 1.0)).killed
        if not left:
            break
    assert (left.total(), THIRTY.total()) == (0, 30), f"not killed: {left}"


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_jobs_survive_random_kills_for_hours(
    own: Path, spec: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    """`make soak HOURS=24`. Prints what was killed; a failure names its seed, with which SEED= begins again."""
    end = time.monotonic() + 3600 * float(os.environ.get("ORCHESTRATOR_SOAK_HOURS", "1"))
    given = os.environ.get("ORCHESTRATOR_SOAK_SEED")
    seed, killed = int(given) if given else random.SystemRandom().randrange(10**6), Counter[str]()
    while time.monotonic() < end:
        place = tmp_path / str(seed)
        place.mkdir()
        kinds = random.Random(seed).choices(KINDS, weights=(8, 6, 4, 2, 2, 2), k=30)
        killed += survives(own, spec, undisturbed, place, seed, kinds).killed
        shutil.rmtree(place)
        print(f"seed {seed}: done; killed so far: {dict(killed)}", flush=True)
        seed += 1


def test_a_cluster_that_is_told_to_end_leaves_no_files(own: Path) -> None:
    with cluster.hold(own):
        cluster.ensure_local(own, cpus=1)
        head, short = head_of(own), own / "ray" / "short"
        shortened = Path(short.read_text()) if short.exists() else None
        family = [head, *head.children(recursive=True)]
        assert len(list((own / "ray" / "s").glob("session_2*"))) == 1
    head.terminate()
    assert psutil.wait_procs(family, timeout=60)[1] == []
    assert list((own / "ray").iterdir()) == []
    assert shortened is None or not shortened.exists()
    assert not (own / "ray.json").exists()
