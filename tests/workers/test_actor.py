"""The actor without Ray: news is kept until it is acknowledged, whatever happens to who asks."""

from __future__ import annotations

import dataclasses
import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import DataError
from workers.actor import TrialActor
from workers.errors import ErrorClass, Stopped, TrialError
from workers.messages import (
    Acknowledgement,
    Assignment,
    Failure,
    Outcome,
    Report,
    StoppedAtCheckpoint,
    TrialUpdate,
    classify_error,
)
from workers.ray_train import outcome_of_workers
from workers.trial import TrialSpec

TRIAL = TrialSpec.model_validate(
    {
        "task": {"kind": "classify", "dataset": "digits"},
        "backbone": {"model": "vit_tiny_patch16_224", "image_size": 16},
        "optim": {"lr": 1e-3, "batch": 32, "epochs": 3, "warmup_epochs": 1},
    }
)


def assignment(folder: Path, token: int = 1, **fields: Any) -> Assignment:
    return Assignment(TRIAL, f"only/all {TRIAL.key[:8]}", token, str(folder), str(folder / "data"), **fields)


def three_epochs(given: Assignment, emit: Any, stop: Any) -> Outcome:
    for epoch in (1, 2, 3):
        emit(Report(epoch, epoch * 10, {"train_loss": 1.0 / epoch}, 0.1))
    return Outcome({"top1": 0.5}, {})


def all_of(actor: TrialActor, first: TrialUpdate) -> TrialUpdate:
    """The news when the trial has ended, nothing acknowledged."""
    news = first
    while not news.ended:
        news = actor.poll(None, 1.0)
        time.sleep(0.001)
    return news


def test_events_are_kept_until_acknowledged(tmp_path: Path) -> None:
    actor = TrialActor(three_epochs)
    news = all_of(actor, actor.start(assignment(tmp_path)))
    assert [type(event) for event in news.events] == [Report, Report, Report, Outcome]
    assert (news.key, news.token, news.heard) == (TRIAL.key, 1, 0)
    one, two, all_four = (Acknowledgement(TRIAL.key, 1, events) for events in (1, 2, 4))
    assert news.acknowledgement == all_four
    assert actor.poll(None, 0).events == news.events  # asked again: another driver, the same news
    assert actor.poll(two, 0).events == news.events[2:]
    assert actor.poll(two, 0).heard == 2
    assert actor.poll(two, 0).acknowledgement == all_four
    assert actor.poll(one, 0).events == news.events[2:]  # an old acknowledgement takes nothing back


def test_an_actor_runs_one_trial_after_another(tmp_path: Path) -> None:
    actor = TrialActor(three_epochs)
    all_of(actor, actor.start(assignment(tmp_path / "a", 1)))
    actor.release(TRIAL.key, 1)
    second = all_of(actor, actor.start(assignment(tmp_path / "b", 2)))
    actor.release(TRIAL.key, 1)  # a late word about the first attempt
    assert len(second.events) == len(actor.poll(None, 0).events) == 4


def test_an_actor_whose_trial_ended_gives_its_memory_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []

    def fails(*_: Any) -> Outcome:
        given.append("failed")
        raise ValueError("no")

    monkeypatch.setattr("workers.host_memory.give_back", lambda: given.append("back"))
    for execute in (three_epochs, fails):
        all_of(actor := TrialActor(execute), actor.start(assignment(tmp_path)))
    assert given == ["back", "failed", "back"]


@pytest.mark.parametrize(("seed", "token"), [(1, 1), (0, 2)])
def test_what_a_sleeper_says_of_the_trial_before_drops_no_news_of_the_next_one(
    tmp_path: Path, seed: int, token: int
) -> None:
    """Two drivers had the actor. Of the next trial, or of this one's next attempt, they both count from the first
    event."""
    actor = TrialActor(three_epochs)
    before = all_of(actor, actor.start(assignment(tmp_path)))
    given = assignment(tmp_path / "next", token)
    given = dataclasses.replace(given, trial=TRIAL.model_copy(update={"seed": seed}))
    news = all_of(actor, actor.start(given))
    assert actor.poll(before.acknowledgement, 0) == news
    actor.release(before.key, before.token)
    assert actor.poll(None, 0) == news
    assert actor.poll(news.acknowledgement, 0).events == ()


def test_a_busy_actor_takes_no_second_trial(tmp_path: Path) -> None:
    done = threading.Event()

    def waits(given: Assignment, emit: Any, stop: Any) -> Outcome:
        done.wait(60)
        return Outcome({}, {})

    actor = TrialActor(waits)
    actor.start(assignment(tmp_path), wait_s=0)
    with pytest.raises(RuntimeError, match="busy with only/all"):
        actor.start(assignment(tmp_path, 2), wait_s=0)
    done.set()


def test_a_driver_that_lost_the_actor_starts_nothing_on_it_and_drops_no_news_of_the_one_that_has_it(
    tmp_path: Path,
) -> None:
    """A driver slept past its lease, another one took its idle actor over, and the sleeper still counts it as idle."""
    actor = TrialActor(three_epochs, owner="sleeper")
    assert actor.set_owner("next", "sleeper")
    news = all_of(actor, actor.start(assignment(tmp_path), owner="next"))
    with pytest.raises(RuntimeError, match="it belongs to driver next now"):
        actor.start(assignment(tmp_path / "other", token=7), owner="sleeper")
    assert actor.poll(None, 0) == news
    actor.release(TRIAL.key, 1)
    all_of(actor, actor.start(assignment(tmp_path, token=2), owner="next"))


def test_a_stopped_trial_says_that_it_left(tmp_path: Path) -> None:
    def until_stopped(given: Assignment, emit: Any, stop: Any) -> Outcome:
        while not stop():
            time.sleep(0.001)
        raise Stopped

    actor = TrialActor(until_stopped)
    first = actor.start(assignment(tmp_path), wait_s=0)
    actor.stop()
    assert all_of(actor, first).events == (StoppedAtCheckpoint(),)


def test_only_the_driver_to_which_an_actor_belongs_stops_its_trial(tmp_path: Path) -> None:
    actor = TrialActor(three_epochs, owner="sleeper")
    assert actor.set_owner("next", "sleeper")
    actor.stop("sleeper", "")
    assert not actor.should_stop()
    actor.stop("next", "sleeper")
    assert actor.should_stop()


def test_an_actor_that_is_given_up_cannot_be_taken_over(tmp_path: Path) -> None:
    actor = TrialActor(three_epochs, owner="dead")
    assert actor.set_owner("nobody", "next", "dead"), "the next driver ends it, before or after it has taken it over"
    assert not actor.set_owner("third", "dead")
    with pytest.raises(RuntimeError, match="it belongs to driver nobody now"):
        actor.start(assignment(tmp_path), owner="dead")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TrialError(ErrorClass.diverged, "loss is nan"), (ErrorClass.diverged, "loss is nan")),
        (TrialError(ErrorClass.timeout, "1 h is over"), (ErrorClass.timeout, "1 h is over")),
        (DataError("cars: no folder"), (ErrorClass.data, "cars: no folder")),
        (MemoryError("too much"), (ErrorClass.out_of_memory, "MemoryError: too much")),
        (KeyError("x"), (ErrorClass.code, "KeyError: 'x'")),
        (
            RuntimeError("[/src/gloo/transport/tcp/pair.cc:545] Read error [::1]:14522: Connection reset by peer."),
            (
                ErrorClass.node_lost,
                "another worker of the trial is gone: RuntimeError: [/src/gloo/transport/tcp/pair.cc:545] Read error "
                "[::1]:14522: Connection reset by peer.",
            ),
        ),
    ],
)
def test_what_ends_a_trial_has_a_class(error: Exception, expected: tuple[ErrorClass, str], tmp_path: Path) -> None:
    def breaks(given: Assignment, emit: Any, stop: Any) -> Outcome:
        raise error

    actor = TrialActor(breaks)
    (failure,) = all_of(actor, actor.start(assignment(tmp_path))).events
    assert isinstance(failure, Failure)
    assert (failure.error_class, failure.message.splitlines()[0]) == expected
    log = (tmp_path / "log.txt").read_text()
    assert expected[1] in log
    assert "begin only/all" in log


def test_of_several_workers_the_one_that_failed_is_believed() -> None:
    """The others only saw it go, and may say so first."""
    gone = Failure(ErrorClass.node_lost, "another worker of the trial is gone")
    died = RuntimeError("worker group")
    with pytest.raises(TrialError, match="code: ValueError: no") as caught:
        outcome_of_workers([gone, Failure(ErrorClass.code, "ValueError: no")], died)
    assert caught.value.__cause__ is died
    with pytest.raises(TrialError, match="node_lost: another worker"):
        outcome_of_workers([gone], died)
    with pytest.raises(TrialError, match="node_lost: a worker process died: worker group"):
        outcome_of_workers([], died)
    with pytest.raises(Stopped):
        outcome_of_workers([StoppedAtCheckpoint()], None)
    assert outcome_of_workers([Outcome({"top1": 1.0}, {})], None).figures == {"top1": 1.0}


def test_a_code_error_carries_its_traceback() -> None:
    try:
        [][1]
    except IndexError as error:
        failure = classify_error(error)
    assert "list index out of range" in failure.message.splitlines()[0]
    assert "test_actor.py" in failure.message


def test_checkpoints_go_when_the_end_is_acknowledged_and_not_before(tmp_path: Path) -> None:
    def leaves_files(given: Assignment, emit: Any, stop: Any) -> Outcome:
        for name in ("outcome.json", "weights.safetensors"):
            (Path(given.folder) / name).write_text("x")
        return Outcome({}, {})

    actor = TrialActor(leaves_files)
    all_of(actor, actor.start(assignment(tmp_path)))
    assert (tmp_path / "outcome.json").exists()
    actor.release(TRIAL.key, 1)
    assert not (tmp_path / "outcome.json").exists()
    assert (tmp_path / "weights.safetensors").exists()


ORPHAN = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_actor import assignment, three_epochs
from workers.actor import TrialActor
actor = TrialActor(three_epochs, orphan_s=0.4)
actor.start(assignment(Path({folder!r})))
time.sleep(100)
sys.exit(3)
"""


def test_an_actor_that_nobody_asks_for_leaves(tmp_path: Path) -> None:
    code = ORPHAN.format(tests=str(Path(__file__).parent), folder=str(tmp_path))
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0


def _hidden(inner: Exception) -> Exception:
    """As torch does: its own error, raised while that of the file was handled."""
    try:
        try:
            raise inner
        except Exception:
            raise RuntimeError("[enforce fail at inline_container.cc:664] unexpected pos 64 vs 0")  # noqa: B904
    except RuntimeError as outer:
        return outer


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
@pytest.mark.parametrize("hide", [False, True])
def test_a_full_disk_is_no_fault_of_the_trial(number: int, hide: bool) -> None:
    error: Exception = OSError(number, os.strerror(number))
    failure = classify_error(_hidden(error) if hide else error)
    assert failure.error_class is ErrorClass.storage


def test_another_error_of_a_file_is_one_of_the_trial() -> None:
    assert classify_error(OSError(errno.ENOENT, "no such file")).error_class is ErrorClass.code
    assert classify_error(DataError("cars: not found")).error_class is ErrorClass.data


def test_a_trial_whose_log_cannot_be_written_ends_instead_of_hanging(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    actor = TrialActor(lambda *_: pytest.fail("it must not run"))
    update = actor.start(assignment(tmp_path / "file" / "trial"), wait_s=10)
    assert update.ended
    (failure,) = update.events
    assert isinstance(failure, Failure)
    assert "Not a directory" in failure.message


HANGS = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_actor import assignment
from workers import actor as module
module.LIMIT_GRACE_S = 0.1
actor = module.TrialActor(lambda *_: time.sleep(60), orphan_s=0.4)
actor.start(assignment(Path({folder!r}), time_limit_s={limit}), wait_s=0)
time.sleep({wait_s})
sys.exit(3)
"""


@pytest.mark.parametrize(("limit", "wait_s", "code"), [(0.1, 50, 0), (600.0, 2, 3)])
def test_a_trial_that_hangs_past_its_limit_holds_no_resources_without_a_driver(
    tmp_path: Path, limit: float, wait_s: int, code: int
) -> None:
    program = HANGS.format(tests=str(Path(__file__).parent), folder=str(tmp_path), limit=limit, wait_s=wait_s)
    assert subprocess.run([sys.executable, "-c", program], timeout=150, check=False).returncode == code
