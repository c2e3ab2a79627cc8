from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.records.rows import ChoiceRow, JobRow, MetricRow, PlacedRow, ReportRow, TrialRow
from orchestrator.records.states import JobState, TrialState
from orchestrator.tracking import run_view


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
    everything = list(run_view.numbers(reports, 0, 5000))
    assert list(run_view.numbers(reports, 2, 5000)) == everything[2:]
    assert everything[1] == [("train_loss", 0.5, 5500, 2), ("epoch_seconds", 0.25, 5500, 2)]


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
    tags = run_view.trial_tags(job, placed, a_trial({}), "parent", "running")
    assert (tags["metric"], tags["better"], tags["split"]) == ("rmse", "lower", "eigen")
    assert (tags["level"], tags["trial"], tags["mlflow.parentRunId"]) == ("trial", "a", "parent")
    assert "plugins" not in tags
    plugins = [{"module": f"birds.{name}", "digest": "0123456789abcdef" * 4} for name in ("model", "task")]
    tags = run_view.trial_tags(job, placed, a_trial({"plugins": plugins}), "parent", "running")
    assert tags["plugins"] == "birds.model 0123456789ab, birds.task 0123456789ab"
    distance = MetricRow("attention_distance", "attention distance", "neither", "px")
    neither = replace(placed, metric=distance.name, mode="max", metrics=(distance,))
    assert run_view.trial_tags(job, neither, a_trial({}), "parent", "running")["better"] == "neither"


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
    assert run_view.final_numbers(trial) == [("final/top1", 0.5, 3000, 3), ("final/loss", math.inf, 3000, 3)]
    assert run_view.end_tags(trial, "done", ("RUNNING", "running")) == {
        "state": "done", "host": "h", "device": "cpu", "data_digest": "d1", "git_commit": "c0ffee",
        "mlflow.source.git.commit": "c0ffee", "git_dirty": "false",
    }  # fmt: skip
    assert run_view.end_tags(trial, "done", ("FAILED", "failed"))["error"] == ""
