"""What the mirror writes to MLflow. Every test has a real SQLite store and a real MLflow database."""

from __future__ import annotations

import math
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from mirrored_job import JOB, World, contents, draw

from orchestrator.errors import NotFound
from orchestrator.records.rows import ChoiceRow
from orchestrator.records.writes import Failed, Released, Reported
from orchestrator.tracking.mlflow_mirror import sync
from orchestrator.tracking.mlflow_runs import Synced


def test_mlflow_shows_what_the_store_has(world: World) -> None:
    first = world.trial("grid", "digits", 0, top1=0.75, loss=math.inf)
    second = world.trial("grid", "digits", 1, top1=math.nan)
    waiting = world.place("grid", "faces", 0)
    world.store.choices.record(JOB, ChoiceRow("final", "digits", first, 0.75, "top1", sources=["grid"]))

    assert world.sync(picture=draw) == Synced(
        runs=3, metrics=2 * 3 * 3 + 3 + 3, closed=3
    )  # 3 of the group: two bests, a loss

    run = world.run_of("grid", "digits", first)
    trial = world.store.trials.get(first)
    assert trial.started is not None
    assert trial.ended is not None
    assert run.info.run_name == f"grid/digits/lr=0.0001 {first[:8]}"
    assert (run.info.status, run.info.start_time) == ("FINISHED", round(trial.started * 1000))
    assert run.info.end_time == round(trial.ended * 1000)
    assert run.data.params == {
        "task.kind": "classify", "task.dataset": "digits", "backbone.model": "tiny", "optim.lr": "0.0001", "seed": "5",
    }  # fmt: skip
    parent = world.run_of("grid", "digits")
    expected = {
        "job": JOB, "stage": "grid", "group": "digits", "trial": first, "seed": "5", "git_commit": "c0ffee",
        "mlflow.source.git.commit": "c0ffee", "git_dirty": "true", "host": "node7", "device": "cpu",
        "data_digest": "d1", "state": "done", "profile": "laptop", "mlflow.parentRunId": parent.info.run_id,
    }  # fmt: skip
    assert expected.items() <= run.data.tags.items()
    curve = world.client().get_metric_history(run.info.run_id, "train/loss")
    assert [(m.step, m.value, m.timestamp - run.info.start_time) for m in curve] == [
        (1, 1.0, 500), (2, 0.5, 1000), (3, 1 / 3, 1500)
    ]  # fmt: skip
    assert run.data.metrics["val/top1"] == 0.75
    assert run.data.metrics["val/loss"] > 1e308  # MLflow's infinity
    assert math.isnan(world.run_of("grid", "digits", second).data.metrics["val/top1"])

    assert parent.info.run_name == "grid/digits"
    assert parent.data.params == {"task.dataset": "digits", "optim.lr": "0.0001"}, "the chosen setting"
    best = [(m.step, m.value) for m in world.client().get_metric_history(parent.info.run_id, "val/top1")]
    assert best == [(1, 0.75), (2, 0.75)], "over the number of trials that are done"
    assert parent.data.metrics["val/loss"] > 1e308
    assert parent.data.tags["mlflow.note.content"].startswith("Best of 2 settings: optim.lr 0.0001. Trial")
    (used,) = run.inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest, used.tags[0].value) == ("digits", "d1", "train, val")
    assert (parent.info.status, parent.data.tags["state"]) == ("FINISHED", f"winner {first[:8]}")
    files = world.folder / "mlartifacts" / "study" / parent.info.run_id / "artifacts"
    assert (files / "heat_map.svg").read_text() == "<svg>2 trials, 1 chosen</svg>"
    assert (files / "spec.yaml").read_text() == "name: study\ntrial:\n  optim:\n    lr: 0.0001\n"
    assert ("grid", "faces", waiting) not in world.store.tracked_runs.of(JOB)  # it has not begun


def test_a_job_that_an_earlier_version_began_keeps_its_names(world: World) -> None:
    key, later = world.place("grid", "digits", 0), world.place("grid", "digits", 1)
    token = world.start(key)
    world.report(key, token, [1])
    world.sync()
    for run_id in (run.run_id for run in world.store.tracked_runs.of(JOB).values()):
        world.client().delete_tag(run_id, "names")  # as an earlier version left them
    world.report(key, token, [2, 3])
    world.finish(key, token)
    second = world.start(later)
    world.report(later, second, [1])
    world.finish(later, second, top1=0.25)
    assert world.sync().problem is None
    run, new = world.run_of("grid", "digits", key), world.run_of("grid", "digits", later)
    assert [m.step for m in world.client().get_metric_history(run.info.run_id, "train_loss")] == [2, 3]
    assert run.data.metrics["final/top1"] == 0.5
    assert (new.data.metrics["final/top1"], new.data.metrics["train_loss"]) == (0.25, 1.0), "new runs of the job too"
    assert "names" not in new.data.tags
    assert world.run_of("grid", "digits").data.metrics["best/top1"] == 0.5
    assert world.sync() == Synced()


def test_a_second_sync_writes_nothing(world: World) -> None:
    world.trial("grid", "digits", 0)
    key = world.place("grid", "digits", 1)
    world.report(key, world.start(key), [1])
    world.sync(picture=draw)
    before = contents(world)
    assert world.sync(picture=draw) == Synced()
    assert contents(world) == before


def test_a_job_is_followed_from_its_first_report_to_its_end(world: World) -> None:
    key = world.place("grid", "digits", 0)
    assert world.sync() == Synced()
    token = world.start(key)
    world.report(key, token, [1])
    assert world.sync() == Synced(runs=2, metrics=3)
    assert world.run_of("grid", "digits", key).info.status == "RUNNING"
    assert world.run_of("grid", "digits").info.status == "RUNNING"
    world.report(key, token, [2, 3])
    assert world.sync() == Synced(metrics=6)
    world.finish(key, token)
    assert world.sync() == Synced(metrics=2, closed=2)
    world.store.choices.record(JOB, ChoiceRow("final", "digits", key, 0.5, "top1", sources=["grid"]))
    world.sync(picture=draw)  # the choice came later: the picture marks it
    assert world.run_of("grid", "digits").data.tags["state"] == f"winner {key[:8]}"
    assert b"1 chosen" in next((world.folder / "mlartifacts").rglob("heat_map.svg")).read_bytes()


def test_what_a_dead_driver_left_running_is_closed_and_opened_again_when_it_runs(world: World) -> None:
    world.drive("doomed", gone=False)
    key = world.place("grid", "digits", 0)
    token = world.start(key)
    world.report(key, token, [1])
    world.sync()
    world.drive("doomed", gone=True)
    assert world.sync() == Synced(closed=1)  # the group has a living driver (driver-1): it goes on
    run = world.run_of("grid", "digits", key)
    assert (run.info.status, run.data.tags["state"]) == ("KILLED", "interrupted")
    world.store.leases.unregister("driver-1")
    assert world.sync() == Synced(closed=1)
    assert world.run_of("grid", "digits").info.status == "KILLED"

    world.drive("driver-2")
    token = world.start(key)
    world.report(key, token, [1, 2], seconds=9.0)  # from the checkpoint: epoch 1 once more, in other time
    assert world.sync() == Synced(metrics=3)
    run = world.run_of("grid", "digits", key)
    assert (run.info.status, run.data.tags["state"]) == ("RUNNING", "running")
    world.report(key, token, [3])
    world.finish(key, token)
    assert world.sync() == Synced(metrics=5, closed=2)
    steps = [m.step for m in world.client().get_metric_history(run.info.run_id, "train/loss")]
    assert steps == [1, 2, 3]
    assert world.run_of("grid", "digits").info.status == "FINISHED"


def test_failures_are_shown_with_their_reason_and_forgotten_after_a_retry_that_went_well(world: World) -> None:
    failed, cancelled, released = (world.place("grid", "digits", n) for n in range(3))
    tokens = {key: world.start(key) for key in (failed, cancelled, released)}
    world.sync()
    world.store.trials.commit(
        world.driver,
        [Failed(failed, tokens[failed], "code", "ValueError: no"),
         Failed(cancelled, tokens[cancelled], "cancelled", ""),
         Released(released, tokens[released], "interrupted")],
    )  # fmt: skip
    assert world.sync().closed == 3
    run = world.run_of("grid", "digits", failed)
    assert (run.info.status, run.data.tags["error"]) == ("FAILED", "code: ValueError: no")
    assert world.run_of("grid", "digits", cancelled).info.status == "KILLED"
    assert world.run_of("grid", "digits", released).info.status == "KILLED"

    world.store.jobs.retry(JOB)
    for key in tokens:
        world.finish(key, world.start(key))
    assert world.sync().closed == 4
    run = world.run_of("grid", "digits", failed)
    assert (run.info.status, run.data.tags["state"], run.data.tags["error"]) == ("FINISHED", "done", "")
    assert world.run_of("grid", "digits").info.status == "FINISHED"


def test_many_epochs_and_parameters_go_in_few_calls(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    sizes: list[tuple[int, int]] = []

    class Watched(MlflowClient):
        def log_batch(
            self, run_id: str, metrics: Sequence[Any] = (), params: Sequence[Any] = (), tags: Sequence[Any] = (),
            synchronous: bool | None = None,
        ) -> Any:  # fmt: skip
            sizes.append((len(metrics), len(params)))
            assert len(metrics) + len(params) + len(tags) <= 1000
            return super().log_batch(run_id, metrics, params, tags, synchronous)

    key = world.place("grid", "digits", 0, epochs=900, extra={f"field{n}": "x" * 9000 for n in range(230)})
    token = world.start(key)
    world.report(key, token, range(1, 901))
    world.finish(key, token)
    with monkeypatch.context() as patch:
        patch.setattr("mlflow.MlflowClient", Watched)
        assert world.sync() == Synced(runs=2, metrics=2702, closed=2)
    # 4 for 2,701 metrics, 2 more for 235 params; 3 for the group
    assert len(sizes) == 9
    assert max(sizes) > (700, 0)
    run = world.run_of("grid", "digits", key)
    assert len(run.data.params) == 235
    assert set(map(len, run.data.params.values())) >= {6000}
    steps = [m.step for m in world.client().get_metric_history(run.info.run_id, "train/loss")]
    assert sorted(steps) == list(range(1, 901))


def test_a_trial_mlflow_refuses_does_not_hold_up_the_others(world: World) -> None:
    first, second = (world.place("grid", "digits", n) for n in range(2))
    tokens = {key: world.start(key) for key in (first, second)}
    world.sync()
    file = sqlite3.connect(world.uri.removeprefix("sqlite:///"))
    run_id = world.store.tracked_runs.of(JOB)["grid", "digits", first].run_id
    file.execute("UPDATE params SET value = '3' WHERE key = 'optim.lr' AND run_uuid = ?", (run_id,))
    file.commit()
    file.close()
    for key, token in tokens.items():
        world.report(key, token, [1])
        world.finish(key, token)
    problem = world.sync().problem or ""
    assert problem.count("\n") == 0
    assert "1 trials were refused, the first: grid/digits/lr=0.0001" in problem
    assert world.run_of("grid", "digits", second).info.status == "FINISHED"
    assert world.run_of("grid", "digits", second).data.metrics["train/loss"] == 1.0


def test_what_a_user_deleted_stays_deleted_and_another_database_gets_everything(world: World, migrated: Path) -> None:
    keys = [world.trial("grid", "digits", n) for n in range(2)]
    world.sync()
    old = world.uri
    world.client().delete_run(world.store.tracked_runs.of(JOB)["grid", "digits", keys[0]].run_id)
    assert world.sync() == Synced()

    shutil.copy(migrated, world.folder / "other.db")
    world.uri = f"sqlite:///{world.folder / 'other.db'}"
    assert world.sync() == Synced(runs=3, metrics=22, closed=3)
    assert world.run_of("grid", "digits", keys[0]).info.status == "FINISHED"
    assert world.sync() == Synced()

    third = world.trial("grid", "digits", 2)
    world.uri = old  # and back: its runs are found again by their tags
    assert world.sync().runs == 1
    assert world.run_of("grid", "digits", third).info.status == "FINISHED"
    assert len(world.client().search_runs([world.run_of("grid", "digits").info.experiment_id])) == 3


def test_a_deleted_experiment_is_a_problem_that_says_the_remedy(world: World) -> None:
    world.trial("grid", "digits", 0)
    world.sync()
    experiment = world.run_of("grid", "digits").info.experiment_id
    world.client().delete_experiment(experiment)
    world.trial("grid", "digits", 1)
    assert f"mlflow experiments restore -x {experiment}" in (world.sync().problem or "")


def test_one_process_mirrors_a_job_at_a_time(world: World) -> None:
    import fcntl

    world.trial("grid", "digits", 0)
    with (world.folder / f"mirror-{JOB}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "another process is mirroring" in (world.sync().problem or "")
    assert world.sync().runs == 2


def test_out_of_time_the_rest_is_left_to_the_next_sync(world: World) -> None:
    world.trial("grid", "digits", 0)
    assert "1 of 1 trials" in (world.sync(limit_s=-1.0).problem or "")
    assert world.sync() == Synced(runs=2, metrics=11, closed=2)


def test_a_job_that_is_not_there_is_an_error(world: World) -> None:
    with pytest.raises(NotFound, match="no-such-job"):
        sync(world.store, "no-such-job", world.uri, world.folder)


def test_what_a_trial_drew_is_with_its_run_whenever_the_server_takes_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = world.place("grid", "digits", 0)
    token = world.start(key)
    folder = world.folder / "trials" / key[:2] / key
    (folder / "pictures").mkdir(parents=True)
    for epoch in (1, 2):
        name = f"pictures/masked-{epoch:04d}.png"
        if epoch == 1:
            (folder / name).write_bytes(b"png")  # that of epoch 2 was removed
        values = {"train_loss": 1.0, "system_data_wait": 0.25}
        world.store.trials.commit(world.driver, [Reported(key, token, epoch, epoch, values, 1.0, (name,))])

    from mlflow import MlflowClient

    log = MlflowClient.log_artifact

    def full(self: Any, run_id: str, path: str, *args: Any) -> None:
        if path.endswith(".png"):
            raise OSError("no space left")
        log(self, run_id, path, *args)

    with monkeypatch.context() as patch:
        patch.setattr("mlflow.MlflowClient.log_artifact", full)
        assert "no space left" in (world.sync(storage=world.folder).problem or "")
    assert world.sync(storage=world.folder) == Synced(metrics=6)
    run = world.run_of("grid", "digits", key)
    assert [file.path for file in world.client().list_artifacts(run.info.run_id, "pictures")] == [
        "pictures/masked-0001.png"
    ]
    assert run.data.metrics["system/data_wait_percent"] == 25.0
    assert world.sync(storage=world.folder) == Synced()
