"""Trials in the store: places, reports, ends."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest
import sqlalchemy as sa
from stored_job import JOB, elsewhere, key_of, placement

from orchestrator.errors import Conflict, LeaseLost, NotFound
from orchestrator.records.rows import ChoiceRow, MeasurementRow, MetricRow, ReportRow, StartRow
from orchestrator.records.states import TrialState
from orchestrator.records.writes import Failed, Finished, Released, Reported
from orchestrator.store.store import Store


def test_find_trial_by_name_and_prefix(store: Store) -> None:
    store.jobs.put(JOB)
    near = replace(placement(2), key="01ff" * 16)
    store.trials.place(JOB.id, [placement(1), near])
    assert store.trials.find("0101") == key_of(1)
    assert store.trials.find("grid/digits/RAND/lr=2") == near.key
    assert store.trials.find("grid/digits/RAND/lr=2 01ff01ff") == near.key
    with pytest.raises(Conflict, match=r"trial.*010101010101.*01ff01ff01ff"):
        store.trials.find("01")
    with pytest.raises(NotFound, match=r"^no trial .*did you mean grid/digits/RAND/lr=1"):
        store.trials.find("grid/digit/RAND/lr=1")


def test_a_name_of_two_jobs_means_the_newer_one(store: Store) -> None:
    for number in (1, 2):
        store.jobs.put(replace(JOB, id=f"job{number}"))
        store.trials.place(f"job{number}", [replace(placement(number), name="grid/all/")])
        time.sleep(0.005)
    assert store.trials.find("grid/all/") == key_of(2)


def test_placing_is_idempotent_and_shared_between_jobs(three: Store) -> None:
    (key, token) = next(iter(three.leases.claim("d1", [key_of(1)]).items()))
    three.trials.commit("d1", [Finished(key, token, {"top1": 0.5})])
    known = three.trials.place(JOB.id, [placement(number) for number in (1, 2, 4)])
    assert {key: known[key].state for key in known} == {
        key_of(1): TrialState.done, key_of(2): TrialState.pending, key_of(4): TrialState.pending
    }  # fmt: skip
    assert known[key_of(1)].figures == {"top1": 0.5}
    three.jobs.put(replace(JOB, id="second"))
    assert three.trials.place("second", [placement(1)])[key_of(1)].state == TrialState.done
    assert [row.key for row in three.trials.placed(JOB.id)] == [key_of(number) for number in (1, 2, 3, 4)]
    assert [row.value for row in three.trials.placed("second")] == [0.5]
    assert three.trials.place(JOB.id, []) == {}
    counts = {job.id: job.counts for job in three.jobs.all()}
    assert counts[JOB.id][TrialState.pending] == 3
    assert counts[JOB.id][TrialState.done] == counts["second"][TrialState.done] == 1
    assert len(three.trials.get(key_of(1)).placed) == 2


def test_a_trial_may_have_two_places_in_one_job(three: Store) -> None:
    again = placement(1, stage="final")
    three.trials.place(JOB.id, [again])
    three.trials.place(JOB.id, [again])
    assert sorted(row.stage for row in three.trials.placed(JOB.id)) == ["final", "grid", "grid", "grid"]
    assert [row.name for row in three.trials.placed(JOB.id, "final")] == [again.name]


def test_placed_rows_say_how_far_a_trial_is(three: Store) -> None:
    token = three.leases.claim("d1", [key_of(2)])[key_of(2)]
    three.trials.commit("d1", [Reported(key_of(2), token, 4, 40, {"top1": 0.1}, 1.5)])
    row = three.trials.placed(JOB.id)[1]
    assert (row.stage, row.group, row.group_values) == ("grid", "digits/RAND", {"task.dataset": "digits"})
    assert (row.state, row.epoch, row.epochs, row.value, row.seconds) == (TrialState.running, 4, 10, None, None)
    assert row.settings == {"optim.lr": 2e-4}
    three.trials.commit(
        "d1", [Finished(key_of(2), token, {"top1": 0.9}, {"train_seconds": 12.5, "step_seconds": 0.25})]
    )
    row = three.trials.placed(JOB.id)[1]
    assert (row.state, row.value, row.seconds) == (TrialState.done, 0.9, 12.5)


def test_the_weights_that_trials_start_from_are_read_at_once(three: Store) -> None:
    file = replace(placement(5), spec={"backbone": {"init": {"kind": "file", "path": "a.safetensors"}}})
    both = {"backbone": {"init": {"kind": "trial", "trial": key_of(1)}}, "task": {"init": {"kind": "timm", "tag": "t"}}}
    three.trials.place(JOB.id, [placement(4, parent=key_of(1)), file, replace(placement(6), spec=both)])
    assert three.lineage.starts([key_of(number) for number in (1, 4, 5, 6, 7)]) == {
        key_of(1): StartRow((), given=False),
        key_of(4): StartRow((key_of(1),), given=False),
        key_of(5): StartRow((), given=True),
        key_of(6): StartRow((key_of(1),), given=True),
    }


def test_children_start_from_a_trial(three: Store) -> None:
    three.trials.place(JOB.id, [placement(5, "final", key_of(1)), placement(6, "final", key_of(1))])
    assert three.lineage.children(key_of(1)) == [key_of(5), key_of(6)]
    assert three.lineage.children(key_of(2)) == []


def test_a_trial_starts_from_its_backbones_weights_and_reads_those_of_others(three: Store) -> None:
    """Each parent is recorded once, also if the trial is placed again."""
    both = placement(5, "final", key_of(1))
    reads = {"teacher": {"kind": "trial", "trial": key_of(2)}, "again": {"kind": "trial", "trial": key_of(1)}}
    both = replace(both, spec={**both.spec, "task": {"kind": "x", **reads}})
    for _ in range(2):
        three.trials.place(JOB.id, [both, placement(4)])
    assert three.trials.get(key_of(5)).parent == key_of(1)
    assert [three.lineage.children(key_of(number)) for number in (1, 2, 3)] == [[key_of(5)], [key_of(5)], []]


def test_the_newest_measured_trials_are_timed(three: Store) -> None:
    """From their step times the durations of others are estimated."""
    three.leases.claim("d1", [key_of(1), key_of(2), key_of(3)])
    for number, step_seconds in ((2, 0.5), (1, 0.25), (3, None)):
        facts = {"step_seconds": step_seconds, "train_seconds": 9.0 * number, "device": "cpu"}
        three.trials.commit("d1", [Finished(key_of(number), 1, {"top1": 0.5}, facts)])
        time.sleep(0.005)
    newest, older = three.trials.timed()
    assert newest[0] == three.trials.get(key_of(1)).spec
    assert (newest[1].state, newest[1].step_seconds, newest[1].train_seconds) == (TrialState.done, 0.25, 9.0)
    assert newest[1].facts == {"step_seconds": 0.25, "train_seconds": 9.0, "device": "cpu"}
    assert (older[1].step_seconds, older[1].train_seconds) == (0.5, 18.0)
    assert three.trials.timed(limit=1) == [newest]
    three.leases.claim("d1", [key_of(1)], for_weights=True)
    assert three.trials.timed() == [older]  # it runs now


def test_trials_come_by_stage_then_group_then_position(three: Store) -> None:
    three.jobs.put_stages(JOB.id, [("pretrain", 0, {}), ("grid", 1, {}), ("final", 2, {})])
    others = [
        placement(9, "final"), replace(placement(8, "grid"), group="a first group"), placement(7, "pretrain"),
        replace(placement(6, "pretrain"), position=9),
    ]  # fmt: skip
    three.trials.place(JOB.id, others)
    assert [row.key for row in three.trials.placed(JOB.id)] == [key_of(n) for n in (7, 6, 8, 1, 2, 3, 9)]
    assert [row.key for row in three.trials.placed(JOB.id, "pretrain")] == [key_of(7), key_of(6)]
    three.trials.place(JOB.id, [placement(5, "unknown stage")])
    assert {row.key for row in three.trials.placed(JOB.id)} >= {key_of(5)}


def test_what_was_given_back_has_not_ended(three: Store) -> None:
    three.leases.claim("d1", [key_of(1), key_of(2)])
    three.trials.commit("d1", [Released(key_of(1), 1, "preempted"), Failed(key_of(2), 1, "data", "no images")])
    back, failed = three.trials.get(key_of(1)), three.trials.get(key_of(2))
    assert (back.state, back.ended, back.error_class, back.error) == (TrialState.pending, None, None, None)
    assert (failed.state, failed.error_class, failed.error) == (TrialState.failed, "data", "no images")
    assert (failed.ended or 0) >= (failed.started or 0) > 0
    three.jobs.retry(JOB.id)
    again = three.trials.get(key_of(2))
    assert (again.state, again.ended, again.error_class, again.error) == (TrialState.pending, None, None, None)
    assert again.driver_id == "d1"


def test_pictures_are_recorded_with_their_report_once(three: Store) -> None:
    token = three.leases.claim("d1", [key_of(1), key_of(2)])[key_of(1)]
    second = Reported(key_of(1), token, 2, 20, {}, 1.0, ("pictures/b-0002.png", "pictures/a-0002.png"))
    three.trials.commit("d1", [Reported(key_of(1), token, 1, 10, {}, 1.0), second])
    three.trials.commit(
        "d1", [second, Reported(key_of(1), token, 4, 40, {}, 1.0, ("pictures/a-0004.png",))]
    )  # sent again
    expected = [(2, "pictures/a-0002.png"), (2, "pictures/b-0002.png"), (4, "pictures/a-0004.png")]
    assert three.trials.pictures([key_of(1), key_of(2), "none"]) == {key_of(1): expected}


def test_inf_and_nan_come_back(three: Store) -> None:
    tokens = three.leases.claim("d1", [key_of(1), key_of(2)])
    odd = {"nan": math.nan, "inf": math.inf, "minus": -math.inf, "zero": 0.0, "tiny": 5e-324, "one": 1}
    three.trials.commit(
        "d1",
        [
            Reported(key_of(1), tokens[key_of(1)], 1, 10, odd, math.inf),
            Finished(key_of(1), tokens[key_of(1)], {**odd, "top1": math.nan}, {"worst": math.inf, "none": None}),
            Finished(key_of(2), tokens[key_of(2)], {"top1": -math.inf}),
        ],
    )
    for values in (three.trials.figures([key_of(1)])[key_of(1)], three.trials.reports(key_of(1))[0].values):
        assert math.isnan(values["nan"])
        assert {name: values[name] for name in odd if name != "nan"} == {
            name: value for name, value in odd.items() if name != "nan"
        }
    assert three.trials.reports(key_of(1))[0].seconds == math.inf
    assert math.isnan(three.trials.snapshots([key_of(1)])[key_of(1)].figures["top1"])
    assert three.trials.get(key_of(1)).facts == {"worst": math.inf, "none": None}
    nan, minus = (row.value for row in three.trials.placed(JOB.id)[:2])
    assert nan is not None
    assert math.isnan(nan)
    assert minus == -math.inf
    three.choices.record(JOB.id, ChoiceRow("final", "g", key_of(1), math.nan, "top1"))
    assert math.isnan(three.choices.of(JOB.id)[0].value)


def test_text_of_any_script_comes_back(three: Store) -> None:
    token = three.leases.claim("d1", [key_of(1)])[key_of(1)]
    message = "données; DROP TABLE trials; -- 图像 🦊 \" ' \\ %s :x"
    three.trials.commit("d1", [Failed(key_of(1), token, "data", message)])
    assert three.trials.snapshots([key_of(1)])[key_of(1)].error == message


def test_reports_are_upserted_by_epoch(three: Store) -> None:
    token = three.leases.claim("d1", [key_of(1)])[key_of(1)]
    batch = [Reported(key_of(1), token, epoch, 10 * epoch, {"loss": 1 / epoch}, 0.5) for epoch in (1, 2, 3)]
    three.trials.commit("d1", batch)
    three.trials.commit("d1", [*batch[1:], Reported(key_of(1), token, 3, 30, {"loss": 9.0}, 0.25)])
    assert three.trials.reports(key_of(1)) == [
        ReportRow(1, 10, {"loss": 1.0}, 0.5),
        ReportRow(2, 20, {"loss": 0.5}, 0.5),
        ReportRow(3, 30, {"loss": 9.0}, 0.25),
    ]
    known = three.trials.snapshots([key_of(1)])[key_of(1)]
    assert (known.state, known.epoch, known.epochs) == (TrialState.running, 3, 10)
    since = three.trials.reports_since({key_of(1): 2, key_of(2): 0})
    assert {key: [row.epoch for row in rows] for key, rows in since.items()} == {key_of(1): [3]}


def test_finished_is_recorded_once_with_everything_said(three: Store) -> None:
    token = three.leases.claim("d1", [key_of(1)])[key_of(1)]
    facts = {
        "host": "node7", "device": "NVIDIA H100", "data_digest": "d1935t", "versions": {"torch": "2.14"},
        "step_seconds": 0.25, "train_seconds": 30.0, "notes": ["micro-batch halved"],
    }  # fmt: skip
    three.trials.commit("d1", [Finished(key_of(1), token, {"top1": 0.9, "top5": 0.99}, facts)])
    three.trials.commit("d1", [Finished(key_of(1), token, {"top1": 0.1, "new": 1.0}, {}, ("w.safetensors", "5ha"))])
    row = three.trials.get(key_of(1))
    assert (row.state, row.value, row.figures) == (TrialState.done, 0.9, {"top1": 0.9, "top5": 0.99})
    assert (row.weights, row.facts, row.versions) == (("w.safetensors", "5ha"), facts, {"torch": "2.14"})
    assert (row.host, row.device, row.data_digest) == ("node7", "NVIDIA H100", "d1935t")
    assert (row.git_commit, row.git_dirty, row.seed, row.spec["seed"]) == ("c0ffee", True, 7, 7)
    assert row.created <= (row.started or 0) <= (row.ended or 0)
    known = three.trials.snapshots([key_of(1)])[key_of(1)]
    assert (known.weights, known.step_seconds, known.train_seconds) == (("w.safetensors", "5ha"), 0.25, 30.0)
    assert known.facts == facts
    assert [(a.token, a.cause) for a in three.trials.attempts(key_of(1))] == [(1, "done")]
    assert three.leases.claim("d1", [key_of(1)]) == {}


def test_a_done_trial_runs_once_more_for_its_weights_and_keeps_its_figures(three: Store) -> None:
    facts = {"step_seconds": 0.5}
    three.leases.claim("d1", [key_of(1), key_of(2)])
    three.trials.commit("d1", [Finished(key_of(1), 1, {"top1": 0.5}, facts)])
    three.trials.commit("d1", [Finished(key_of(2), 1, {"top1": 0.5}, facts, ("kept", "5ha"))])
    assert three.leases.claim("d1", [key_of(1), key_of(2)]) == {}
    assert three.leases.claim("d1", [key_of(1), key_of(2)], for_weights=True) == {key_of(1): 2}
    row = three.trials.placed(JOB.id)[0]
    assert (row.state, row.value) == (TrialState.running, None)
    for _ in range(2):
        three.trials.commit("d1", [Released(key_of(1), 2, "stopped")])
    assert three.trials.placed(JOB.id)[0].state == TrialState.done
    assert three.leases.claim("d1", [key_of(1)]) == {}
    assert three.leases.claim("d1", [key_of(1)], for_weights=True) == {key_of(1): 3}
    three.trials.commit("d1", [Finished(key_of(1), 3, {"top1": 0.4, "new": 1.0}, {}, ("again", "5ha"))])
    row = three.trials.placed(JOB.id)[0]
    assert (row.state, row.value) == (TrialState.done, 0.5)
    known = three.trials.snapshots([key_of(1)])[key_of(1)]
    assert (known.figures, known.facts, known.weights) == ({"top1": 0.5}, facts, ("again", "5ha"))
    assert [a.cause for a in three.trials.attempts(key_of(1))] == ["done", "stopped", "done"]


@pytest.mark.parametrize(
    "error_class", ["code", "data", "out_of_memory", "timeout", "cancelled", "diverged", "node_lost"]
)
@pytest.mark.parametrize("retry", [False, True])
def test_a_done_trial_that_fails_while_it_makes_its_weights_stays_done(
    three: Store, error_class: str, retry: bool
) -> None:
    """Another job, which needs its weights, must not take its figures from the job that has them."""
    three.leases.claim("d1", [key_of(1)])
    three.trials.commit("d1", [Finished(key_of(1), 1, {"top1": 0.5})])
    three.leases.claim("d1", [key_of(1)], for_weights=True)
    three.trials.commit("d1", [Failed(key_of(1), 2, error_class, "no room", retry)])
    row = three.trials.placed(JOB.id)[0]
    assert (row.state, row.value, row.error_class, row.error) == (TrialState.done, 0.5, None, None)
    assert three.trials.snapshots([key_of(1)])[key_of(1)].figures == {"top1": 0.5}
    assert [(a.cause, a.message) for a in three.trials.attempts(key_of(1))] == [("done", ""), (error_class, "no room")]
    assert three.leases.claim("d1", [key_of(1)]) == {}
    assert three.leases.claim("d1", [key_of(1)], for_weights=True) == {key_of(1): 3}


@pytest.mark.parametrize(
    ("error_class", "state"),
    [("diverged", "diverged"), ("cancelled", "cancelled"), ("code", "failed"), ("out_of_memory", "failed")],
)
def test_failed_says_why(three: Store, error_class: str, state: str) -> None:
    token = three.leases.claim("d1", [key_of(1)])[key_of(1)]
    three.trials.commit("d1", [Failed(key_of(1), token, error_class, "the reason")])
    known = three.trials.snapshots([key_of(1)])[key_of(1)]
    assert (known.state, known.error_class, known.error) == (state, error_class, "the reason")
    row = three.trials.placed(JOB.id)[0]
    assert (row.value, row.error_class, row.error) == (None, error_class, "the reason")
    attempt = three.trials.attempts(key_of(1))[0]
    assert (attempt.cause, attempt.message) == (error_class, "the reason")
    assert three.leases.claim("d1", [key_of(1)]) == {}


def test_failed_with_retry_is_pending_again(three: Store) -> None:
    token = three.leases.claim("d1", [key_of(1)])[key_of(1)]
    three.trials.commit("d1", [Reported(key_of(1), token, 4, 40, {}, 1.0)])
    three.trials.commit("d1", [Failed(key_of(1), token, "node_lost", "node 3 is gone", retry=True)])
    known = three.trials.snapshots([key_of(1)])[key_of(1)]
    assert (known.state, known.error_class, known.epoch) == (TrialState.pending, None, 4)
    assert three.leases.claim("d1", [key_of(1)]) == {key_of(1): 2}
    assert [(a.token, a.cause) for a in three.trials.attempts(key_of(1))] == [(1, "node_lost"), (2, None)]


def test_saying_again_what_was_recorded_is_no_error(three: Store) -> None:
    tokens = three.leases.claim("d1", [key_of(number) for number in (1, 2, 3)])
    batch = [
        Reported(key_of(1), tokens[key_of(1)], 1, 10, {"loss": 1.0}, 1.0),
        Finished(key_of(1), tokens[key_of(1)], {"top1": 0.5}),
        Failed(key_of(2), tokens[key_of(2)], "code", "x"),
        Released(key_of(3), tokens[key_of(3)], "stopped"),
    ]
    three.trials.commit("d1", batch)
    before = [three.trials.get(key_of(number)) for number in (1, 2, 3)]
    three.trials.commit("d1", batch)
    three.leases.register(elsewhere("d2"))
    three.trials.commit("d2", batch)  # the next driver receives it again from the actors
    assert [three.trials.get(key_of(number)) for number in (1, 2, 3)] == before
    with pytest.raises(LeaseLost, match="is failed already; a late Finished"):
        three.trials.commit("d1", [Finished(key_of(2), tokens[key_of(2)], {"top1": 0.5})])
    with pytest.raises(LeaseLost, match="is done already; a late Failed"):
        three.trials.commit("d1", [Failed(key_of(1), tokens[key_of(1)], "code", "x")])


def test_the_same_news_twice_in_one_batch_is_recorded_once(three: Store) -> None:
    three.leases.claim("d1", [key_of(1), key_of(2)])
    finished, failed = Finished(key_of(1), 1, {"top1": 0.5}), Failed(key_of(2), 1, "code", "first")
    report = Reported(key_of(1), 1, 1, 10, {"loss": 1.0}, 1.0)
    kept = replace(finished, weights=("w", "5ha"))
    three.trials.commit("d1", [report, finished, report, finished, failed, replace(failed, message="second"), kept])
    assert three.trials.snapshots([key_of(1)])[key_of(1)].weights == ("w", "5ha")
    assert three.trials.figures([key_of(1)]) == {key_of(1): {"top1": 0.5}}
    assert three.trials.snapshots([key_of(2)])[key_of(2)].error == "first"
    assert len(three.trials.reports(key_of(1))) == 1


# Metrics and measurements

RMSE = MetricRow("rmse", "RMSE", "lower", "m", 1.0, 3)
DELTA = MetricRow("d1", "δ1", "higher", "%", 100.0, 1)


def test_a_trial_keeps_the_metrics_and_the_split_that_its_task_declared(store: Store) -> None:
    store.jobs.put(JOB)
    one, other = placement(1), placement(2)
    store.trials.place(JOB.id, [replace(one, metrics=(RMSE, DELTA), split="eigen"), replace(other, metrics=(DELTA,))])
    rows = {row.key: row for row in store.trials.placed(JOB.id)}
    assert (rows[one.key].metrics, rows[one.key].split) == ((RMSE, DELTA), "eigen")
    assert (rows[other.key].metrics, rows[other.key].split) == ((DELTA,), "val")
    trial = store.trials.get(one.key)
    assert (trial.metrics, trial.split) == ((RMSE, DELTA), "eigen")


def test_measurements_come_back_in_their_order_and_answer_sql(three: Store, database_url: str) -> None:
    measured = [
        MeasurementRow("distance", "val", "", layer, head, None if layer == 2 else layer + head / 10)
        for layer in range(3)
        for head in range(2)
    ] + [MeasurementRow("iou", "val", "bus", None, None, 0.25)]
    token = three.leases.claim("d1", [key_of(1)])[key_of(1)]
    three.trials.commit("d1", [Finished(key_of(1), token, {"top1": 0.5}, measurements=measured)])
    assert three.measured.of([key_of(1), key_of(2)]) == {key_of(1): measured}
    assert three.measured.of([key_of(1)], ["iou"]) == {key_of(1): measured[-1:]}
    driver = "postgresql+psycopg" if database_url.startswith("postgresql") else "sqlite"
    with sa.create_engine(sa.make_url(database_url).set(drivername=driver)).connect() as connection:
        where = "WHERE figure = 'distance' GROUP BY trial, layer ORDER BY layer"
        query = f"SELECT trial, layer, avg(value) FROM measured {where}"
        found = [tuple(row) for row in connection.execute(sa.text(query))]
    assert found == [(key_of(1), 0, pytest.approx(0.05)), (key_of(1), 1, pytest.approx(1.05)), (key_of(1), 2, None)]
