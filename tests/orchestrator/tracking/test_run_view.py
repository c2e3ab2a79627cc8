"""What a run in MLflow shows of a trial and of a group."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.records.rows import ChoiceRow, JobRow, MetricRow, PlacedRow, ReportRow, TrialRow
from orchestrator.records.states import JobState, TrialState
from orchestrator.tracking import run_view
from orchestrator.tracking.group_view import best
from orchestrator.tracking.names import Names, described


def row(key: str, state: str) -> PlacedRow:
    return PlacedRow(
        stage="grid", group="digits/RAND", key=key, name="grid/digits/RAND/lr=0.1", position=0, state=TrialState(state),
        metric="top1", mode="max", value=None, epoch=0, epochs=3, seed=0, started=None, ended=None,
        train_seconds=None, error_class=None, error=None, group_values={}, settings={},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("state", "alive", "shown", "expected"),
    [
        ("pending", False, None, None),
        ("running", True, None, ("RUNNING", "running")),
        ("running", False, None, ("KILLED", "interrupted")),
        ("running", False, ("RUNNING", "running"), ("KILLED", "interrupted")),
        ("pending", False, ("RUNNING", "running"), ("KILLED", "interrupted")),
        ("pending", False, ("FAILED", "failed"), ("FAILED", "failed")),
        ("running", True, ("KILLED", "interrupted"), ("RUNNING", "running")),
        ("done", False, ("KILLED", "interrupted"), ("FINISHED", "done")),
        ("diverged", False, ("RUNNING", "running"), ("FAILED", "diverged")),
        ("failed", False, None, ("FAILED", "failed")),
        ("cancelled", False, ("RUNNING", "running"), ("KILLED", "cancelled")),
    ],
)
def test_a_run_shows_how_its_trial_stands(
    state: str, alive: bool, shown: run_view.RunStatus | None, expected: run_view.RunStatus | None
) -> None:
    assert run_view.trial_status(row("a", state), alive, shown) == expected


@pytest.mark.parametrize(
    ("states", "driven", "expected"),
    [
        (["done", "running"], True, ("RUNNING", "running")),
        (["done", "pending"], True, ("RUNNING", "running")),
        (["done", "pending"], False, ("KILLED", "interrupted")),
        (["done", "done"], False, ("FINISHED", "complete")),
        (["done", "diverged"], False, ("FINISHED", "complete")),
        (["diverged", "diverged"], False, ("FAILED", "incomplete")),
        (["done", "failed"], False, ("FAILED", "incomplete")),
        (["done", "cancelled"], False, ("FAILED", "incomplete")),
        (["cancelled", "cancelled"], False, ("KILLED", "cancelled")),
    ],
)
def test_a_group_shows_the_worst_end_of_its_trials(
    states: list[str], driven: bool, expected: run_view.RunStatus
) -> None:
    rows = [row(str(n), state) for n, state in enumerate(states)]
    alive = {trial.key for trial in rows if trial.state is TrialState.running}
    assert run_view.group_status(rows, alive, driven, []) == expected


def test_a_complete_group_names_what_was_taken_from_it() -> None:
    rows = [row("aaaaaaaaaaaa", "done"), row("bbbbbbbbbbbb", "done")]
    winner = ChoiceRow("refine", "digits/RAND", "bbbbbbbbbbbb", 0.9, "top1", sources=["grid"])
    elsewhere = ChoiceRow("refine", "faces/RAND", "aaaaaaaaaaaa", 0.9, "top1", sources=["grid"])
    later = ChoiceRow("final", "digits/RAND", "aaaaaaaaaaaa", 0.9, "top1", sources=["refine"])
    taken = run_view.chosen(rows, [winner, elsewhere, later])
    assert taken == {"bbbbbbbbbbbb"}
    assert run_view.group_status(rows, set(), False, taken) == ("FINISHED", "winner bbbbbbbb")


def test_the_time_of_a_metric_does_not_depend_on_what_was_written_before() -> None:
    reports = [ReportRow(n, 10 * n, {"train_loss": 1 / n}, 0.25) for n in (1, 2, 3)]
    placed = row("a", "running")
    everything = list(run_view.numbers(placed, reports, 0, 5000, Names.plain))
    assert list(run_view.numbers(placed, reports, 2, 5000, Names.plain)) == everything[2:]
    assert everything[1] == [("train_loss", 0.5, 5500, 2), ("epoch_seconds", 0.25, 5500, 2)]


def test_metrics_are_named_by_split_and_have_units() -> None:
    top1 = MetricRow("top1", "top-1 accuracy", "higher", "%", 100.0, 1)
    placed = replace(row("a", "done"), metrics=(top1,), split="test")
    values = {
        "train_loss": 2.0, "train_grad_norm": 1.5, "lr": 0.001, "top1": 0.25, "other": 3.0, "system_memory_mb": 7.0,
        "system_images_per_second": 90.0, "system_data_wait": 0.25, "system_mfu": 0.5, "system_new": 1.0,
    }  # fmt: skip
    (numbers,) = run_view.numbers(placed, [ReportRow(3, 30, values, 2.0)], 0, 0, Names.by_split)
    assert {name: value for name, value, _, _ in numbers} == {
        "train/loss": 2.0, "train/grad_norm": 1.5, "lr": 0.001, "test/top1": 25.0, "other": 3.0,
        "system/memory_mib": 7.0, "system/images_per_second": 90.0, "system/data_wait_percent": 25.0,
        "system/mfu_percent": 50.0, "system/new": 1.0, "system/epoch_seconds": 2.0,
    }  # fmt: skip
    assert numbers[-1][0] == "system/epoch_seconds", "if MLflow has this one, it has the whole epoch"
    trial = replace(a_trial({}), figures={"top1": 0.25, "loss": 1.0})
    assert run_view.final_numbers(placed, trial, [ReportRow(3, 30, values, 2.0)], Names.by_split) == [
        ("test/loss", 1.0, 3000, 3)
    ], "the last report has the other one already"
    assert run_view.final_numbers(placed, trial, [], Names.by_split)[0] == ("test/top1", 25.0, 3000, 3)
    assert described(placed, ["top1", "nothing"]) == "- `test/top1`: top-1 accuracy (%), higher is better"


def placed_at(key: str, seed: int, lr: float, value: float | None, ended: float | None = 1.0) -> PlacedRow:
    state = "done" if value is not None else "running"
    settings = {"optim.lr": lr, "seed": seed}
    return replace(row(key, state), seed=seed, settings=settings, value=value, ended=ended if value else None)


def test_the_best_of_a_group_is_the_best_mean_over_whole_sets_of_seeds() -> None:
    rows = [placed_at("a0", 0, 0.1, 0.5), placed_at("a1", 1, 0.1, 0.7, 9.0), placed_at("b0", 0, 0.2, 0.9),
            placed_at("b1", 1, 0.2, None)]  # fmt: skip
    found = best(rows, [])
    assert found is not None
    assert [each.key for each in found.rows] == ["a0", "a1"], "of the other setting a seed still runs"
    assert (found.value, found.done, found.at, found.settings) == (pytest.approx(0.6), 3, 9.0, 2)
    assert found.chosen == {"optim.lr": 0.1}
    assert found.figures({"a0": {"top1": 0.5, "loss": 1.0}, "a1": {"top1": 0.7}}) == {"top1": pytest.approx(0.6)}
    whole = [*rows[:3], placed_at("b1", 1, 0.2, 0.7)]
    assert [each.key for each in best(whole, []).rows] == ["b0", "b1"]  # type: ignore[union-attr]
    winner = ChoiceRow("refine", "digits/RAND", "a0", 0.6, "top1", sources=["grid"])
    taken = best(whole, run_view.chosen(whole, [winner]))
    assert taken is not None
    assert taken.rows[0].key == "a0", "what a stage took counts, whatever another rule would say"
    note = run_view.group_note(taken, complete=True)
    assert note.startswith("Best of 2 settings, mean over 2 seeds: optim.lr 0.1. Trial a0, a1.")
    assert "`val/top1`: top1, higher is better" in note
    assert run_view.group_numbers(whole, 0, None, {}, Names.by_split) == [
        ("val/top1", pytest.approx(0.8), 1000, 3), ("val/top1", pytest.approx(0.8), 9000, 4),
    ], "after the third trial the first setting had both its seeds"  # fmt: skip
    numbers = run_view.group_numbers(whole, 3, taken, {"top1": 0.6, "loss": 1.0}, Names.plain)
    assert numbers == [("best/top1", pytest.approx(0.8), 9000, 4), ("best/top1", 0.6, 9000, 4),
                       ("best/loss", 1.0, 9000, 4)]  # fmt: skip
    assert run_view.group_numbers(whole, 4, best(whole, []), {"top1": 0.8}, Names.by_split)[1:] == []
    assert best([placed_at("c", 0, 0.1, None)], []) is None
    assert best([placed_at("c", 0, 0.1, math.nan)], []) is None
    lower = [replace(each, mode="min") for each in whole]
    assert best(lower, []).value == pytest.approx(0.6)  # type: ignore[union-attr]
    neither = (MetricRow("top1", "distance", "neither"),)
    assert best([replace(each, metrics=neither) for each in whole], []) is None
    assert best([replace(each, metrics=neither) for each in whole[:2]], []) is not None, "one setting"


def test_data_sets_are_named_and_cut_to_what_mlflow_takes() -> None:
    digest = "0123456789abcdef" * 4
    trial = replace(a_trial({"task": {"kind": "classify", "dataset": "digits", "train": "trainval"}}), split="test",
                    data_digest=digest)  # fmt: skip
    found = run_view.data_set(trial)
    assert found is not None
    assert (found.name, found.digest, found.context) == ("digits", digest[:36], "trainval, test")
    assert digest in found.source
    own = replace(trial, spec={"task": {"kind": "classify", "dataset": {"kind": "folder", "path": "/my/cats"}}})
    assert run_view.data_set(own).name == "/my/cats"  # type: ignore[union-attr]
    assert run_view.data_set(replace(trial, data_digest=None)) is None


def test_batches_stay_below_the_limit_and_lose_nothing() -> None:
    epochs = [[(f"m{k}", float(n), n, n) for k in range(7)] for n in range(500)]
    wide = [[(f"m{k}", 1.0, 500, 500) for k in range(1900)]]
    final = [("final/top1", 0.5, 9, 500)]
    made = list(run_view.batches([*epochs, *wide], final))
    assert max(map(len, made)) <= run_view.METRICS_PER_BATCH
    assert [number for batch in made for number in batch] == [n for e in [*epochs, *wide, final] for n in e]
    assert all(len(batch) % 7 == 0 for batch in made[:4])  # an epoch is not split
    assert list(run_view.batches([], [])) == [[]]


@pytest.mark.parametrize(
    ("name", "plain"),
    [("train_loss", "train_loss"), ("final/top1", "final/top1"), ("acc@1", "acc_1"), ("a//b", "a/b"),
     ("../../etc", "etc"), ("..", "_"), ("/x", "x"), ("", "_"), ("é", "_"), ("top1.", "top1."), ("x" * 400, "x" * 250)],
)  # fmt: skip
def test_names_become_such_as_mlflow_takes(name: str, plain: str) -> None:
    assert run_view.name_of(name) == plain


def a_trial(spec: dict[str, Any]) -> TrialRow:
    return TrialRow(
        key="k", spec=spec, parent=None, state=TrialState.done, metric="top1", mode="max", value=0.5,
        figures={"top1": 0.5, "loss": math.inf}, seed=7, epochs=3, epoch=3, step=9, token=1, driver_id="d",
        error_class=None, error=None, weights=None, facts={}, step_seconds=None, train_seconds=None,
        git_commit="c0ffee", git_dirty=False, host="h", device="cpu", data_digest="d1", versions={}, created=1.0,
        started=2.0, ended=3.0, placed=[],
    )  # fmt: skip


def test_a_trials_run_says_what_it_is_chosen_by_and_measured_on() -> None:
    job = JobRow(
        id="depth-1", name="depth", profile="", state=JobState.running, message="", priority=0, cancel=False,
        git_commit=None, git_dirty=None, versions={}, created=1.0, updated=1.0, counts={},
    )  # fmt: skip
    placed = replace(row("a", "running"), metric="rmse", mode="min", split="eigen")
    tags = run_view.trial_tags(job, placed, a_trial({}), "parent", "running", Names.by_split)
    assert tags["names"] == "2"
    assert (tags["metric"], tags["better"], tags["split"]) == ("rmse", "lower", "eigen")
    assert (tags["level"], tags["trial"], tags["mlflow.parentRunId"]) == ("trial", "a", "parent")
    assert "plugins" not in tags
    plugins = [{"module": f"birds.{name}", "digest": "0123456789abcdef" * 4} for name in ("model", "task")]
    tags = run_view.trial_tags(job, placed, a_trial({"plugins": plugins}), "parent", "running", Names.by_split)
    assert tags["plugins"] == "birds.model 0123456789ab, birds.task 0123456789ab"
    distance = MetricRow("attention_distance", "attention distance", "neither", "px")
    neither = replace(placed, metric=distance.name, mode="max", metrics=(distance,))
    assert run_view.trial_tags(job, neither, a_trial({}), "parent", "running", Names.plain)["better"] == "neither"


def test_parameters_are_flat_and_show_a_setting_as_elsewhere() -> None:
    spec = {
        "task": {"kind": "classify", "sizes": [1, 2]},
        "backbone": {"init": {"kind": "trial", "trial": "abc"}},
        "optim": {"lr": 1e-4, "clip": None},
        "runtime": {"compile": True},
    }
    trial = a_trial(spec)
    assert run_view.params(trial, {"optim.lr": 1e-4, "backbone.init": "SUP"}) == {
        "task.kind": "classify", "task.sizes": "[1, 2]", "backbone.init.kind": "trial",
        "backbone.init.trial": "abc", "backbone.init": "SUP", "optim.lr": "0.0001", "seed": "7",
    }  # fmt: skip
    numbers = run_view.final_numbers(row("k", "done"), trial, [], Names.plain)
    assert numbers == [("final/top1", 0.5, 3000, 3), ("final/loss", math.inf, 3000, 3)]
    assert run_view.end_tags(trial, "done", ("RUNNING", "running")) == {
        "state": "done", "host": "h", "device": "cpu", "data_digest": "d1", "git_commit": "c0ffee",
        "mlflow.source.git.commit": "c0ffee", "git_dirty": "false",
    }  # fmt: skip
    assert run_view.end_tags(trial, "done", ("FAILED", "failed"))["error"] == ""
    kept = run_view.end_tags(replace(trial, weights=("trials/k", "ab12")), "done", None, "/storage/trials/k")
    assert (kept["weights"], kept["weights.sha256"]) == ("/storage/trials/k", "ab12")
