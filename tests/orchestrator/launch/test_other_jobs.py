"""Initial weights from a stage of another job: which trial they mean, and when they are refused."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from in_process_backend import Machine, drive_to_end, made_up, messages, results_of
from k12_job import BASE, FINAL, PRETRAIN, RAND, SUP, grid, job, planner_of
from more_tasks import MoreTasks
from two_jobs import FROM_OTHER, SEVERAL, SMALL, forget_by_force, giving, placed_by_a_planner, run, taking

from orchestrator import spec
from orchestrator.engine.plan_rows import placement_of
from orchestrator.errors import NotFound, SpecError
from orchestrator.launch import other_jobs
from orchestrator.launch.estimate import estimate
from orchestrator.launch.other_jobs import (
    assume_weights,
    assumptions,
    check_test_data_unseen,
    find,
    references_to_other_jobs,
    resolve_weights,
)
from orchestrator.launch.submit import record_job
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.plan.resource_fit import Node
from orchestrator.records.rows import ResolvedWeightsRow, SearchEvent
from orchestrator.records.states import JobState, TrialState
from orchestrator.report import describe
from orchestrator.settings import settings
from orchestrator.spec.job import job_id
from orchestrator.spec.sweep import SingleSetting
from orchestrator.store import tables
from orchestrator.store.store import Store, open_store
from workers.trial import TrialSpec


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = open_store(database_url)
    yield opened
    opened.close()


def test_a_job_starts_from_the_best_of_another_jobs_stage(store: Store, tmp_path: Path) -> None:
    giver = giving()
    run(store, giver, tmp_path)
    best = max(store.trials.placed(job_id(giver)), key=lambda row: row.value or 0)
    wanted, origins = resolve_weights(taking(), store)
    assert [(each.key, each.from_job, each.candidates) for each in origins] == [(best.key, job_id(giver), 2)]
    assert job_id(wanted) != job_id(taking())
    record_job(store, wanted, job_id(wanted))
    store.lineage.put_origins(job_id(wanted), origins)
    run(store, wanted, tmp_path)
    mim = [row for row in store.trials.placed(job_id(wanted), "grid") if row.group == "digits/MIM"]
    assert len(mim) == 3
    assert {store.trials.get(row.key).parent for row in mim} == {best.key}
    final = results_of(store, wanted)["final", "digits/MIM"][0]
    steps = describe.trial(store, final, tmp_path).to_json()["lineage"]
    (weights,) = [step for step in steps if step["link"] == "weights" and step["kind"] == "trial"]
    assert weights["key"] == best.key
    assert weights["decision"]["from_job"] == job_id(giver)
    assert weights["decision"]["candidates"] == 2
    assert (
        f"weights from {best.name} {best.key[:12]} (job {job_id(giver)})"
        in describe.trial(store, final, tmp_path).text()
    )


def test_weights_that_have_seen_test_images_are_refused(store: Store, tmp_path: Path) -> None:
    """photo-tiles shows the photographs of textures; the weights come through a second job."""
    tiles = {"kind": "pretrain", "dataset": "photo-tiles", "mask_patch": 16}
    run(store, giving({"name": "pretrain", "override": {"task": tiles}, "keep_weights": True}), tmp_path)
    between = job({"name": "more", "override": {"backbone.init": FROM_OTHER}, "keep_weights": True}, name="between")
    between, _ = resolve_weights(between, store)
    run(store, between, tmp_path)
    init = {**FROM_OTHER, "job": "between", "stage": "more"}
    for dataset in ("digits", "textures"):
        sweep = grid(**{**SMALL, "dataset": [dataset], "init": [init]})
        wanted, origins = resolve_weights(job(sweep, FINAL | {"from": "grid"}, name="user"), store)
        planner = Planner(wanted, DurationModel())
        if dataset == "digits":
            check_test_data_unseen(store, origins, planner.foreseen())
            continue
        with pytest.raises(SpecError, match=r"of job between.*opened images of textures by task.dataset: photo-tiles"):
            check_test_data_unseen(store, origins, planner.foreseen())
        check_test_data_unseen(store, origins, planner.specs())  # the search alone reads no test images


def test_ancestors_count_that_a_trial_names_beside_its_backbone(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial that compares two models has seen what the trials of both have seen."""
    monkeypatch.setattr(other_jobs, "TrialSpec", MoreTasks)
    caltech = {"kind": "classify", "dataset": "caltech101"}
    seen = MoreTasks.model_validate({**BASE, "task": {**caltech, "split_seed": 1}})
    other = {"kind": "trial", "name": "MIM", "trial": seen.key}
    comparing = MoreTasks.model_validate({**BASE, "task": {"kind": "compared", "other": other}})
    record_job(store, giving(), job_id(giving()))
    (placement, *_) = [placement_of(planned) for planned in Planner(giving(), DurationModel()).placed]
    placements = [
        replace(placement, key=trial.key, spec=trial.model_dump(mode="json"), position=number)
        for number, trial in enumerate((seen, comparing))
    ]
    store.trials.place(job_id(giving()), placements)
    origin = ResolvedWeightsRow("", "", "pre", "pretrain", "all", comparing.key, "top1", 1.0, 1)
    reading = {**BASE, "may_test": True, "task": {**caltech, "train": "trainval", "evaluate": "test"}}
    for split_seed in (0, 1):
        specs = [TrialSpec.model_validate({**reading, "task": {**reading["task"], "split_seed": split_seed}})]
        if split_seed == 1:
            check_test_data_unseen(store, [origin], specs)
            continue
        with pytest.raises(SpecError, match=f"trial {seen.key[:12]} opened images of caltech101 by task.split_seed: 1"):
            check_test_data_unseen(store, [origin], specs)


def test_an_ancestor_of_a_plugin_that_is_not_here_is_not_taken_for_one_that_saw_nothing(store: Store) -> None:
    record_job(store, giving(), job_id(giving()))
    (placement, *_) = [placement_of(planned) for planned in Planner(giving(), DurationModel()).placed]
    plugins = [{"module": "birds.task", "digest": "ab" * 32, "versions": {}}]
    unread = {**BASE, "task": {"kind": "focal", "dataset": "digits"}, "plugins": plugins}
    store.trials.place(job_id(giving()), [replace(placement, key="ab" * 32, spec=unread)])
    origin = ResolvedWeightsRow("", "", "pre", "pretrain", "all", "ab" * 32, "top1", 1.0, 1)
    task = {"kind": "classify", "dataset": "digits", "train": "trainval", "evaluate": "test"}
    reading = TrialSpec.model_validate({**BASE, "may_test": True, "task": task})
    with pytest.raises(
        SpecError, match=r"trial abababababab, .* ran with the plugins birds\.task, .*: write plugins: \[bi"
    ):
        check_test_data_unseen(store, [origin], [reading])
    check_test_data_unseen(store, [origin], [TrialSpec.model_validate(BASE)])  # reads no test images


def test_references_are_resolved_wherever_they_stand(store: Store, tmp_path: Path) -> None:
    run(store, giving(), tmp_path)
    override = {"task.others": [FROM_OTHER, {"kind": "none"}], "task.more": {"deep": {"init": FROM_OTHER}}}
    wanted, origins = resolve_weights(job({"name": "compare", "override": override}), store)
    (origin,) = origins
    trial = {"kind": "trial", "name": "MIM", "trial": origin.key}
    assert wanted.stages[0].override == {
        "task.others": [trial, {"kind": "none"}],
        "task.more": {"deep": {"init": trial}},
    }
    assert references_to_other_jobs(wanted) == {}


def test_a_spec_file_may_name_another_jobs_stage(tmp_path: Path) -> None:
    """Nothing is looked up when the spec is read, and its stage need not be one of this job's."""
    path = tmp_path / "user.yaml"
    content = {"name": "user", "trial": BASE, "stages": [grid(**{**SMALL, "init": [FROM_OTHER]})]}
    path.write_text(json.dumps(content))  # JSON is YAML
    (asked,) = references_to_other_jobs(spec.load(path)).values()
    assert (asked["job"], asked["stage"]) == ("pre", "pretrain")
    wrong = {**FROM_OTHER, "jobs": "pre"}
    path.write_text(json.dumps({**content, "stages": [grid(**{**SMALL, "init": [wrong]})]}))
    with pytest.raises(SpecError, match=r"backbone\.init\.jobs: pre: no such field; fields: .*job, .*nearest: job"):
        spec.load(path)


def test_a_group_is_named_where_there_are_several(store: Store, tmp_path: Path) -> None:
    sets = {"task.dataset": ["digits-pretrain", "digits"], "optim.lr": [1e-4, 6e-4]}
    giver = giving({**SEVERAL, "sweep": {"grid": sets}, "override": {}, "per": ["task.dataset"]})
    run(store, giver, tmp_path)
    with pytest.raises(NotFound, match="has 2 groups; name one of them with `group`: digits, digits-pretrain"):
        resolve_weights(taking(), store)
    with pytest.raises(
        NotFound, match=r"has no such group in job pre-.*its groups: digits, digits-pretrain; nearest: digits"
    ):
        resolve_weights(taking({**FROM_OTHER, "group": "digit"}), store)
    _, (origin,) = resolve_weights(taking({**FROM_OTHER, "group": "digits"}), store)
    best = max(
        (row for row in store.trials.placed(job_id(giver)) if row.group == "digits"), key=lambda row: row.value or 0
    )
    assert (origin.key, origin.group) == (best.key, "digits")


def test_what_is_missing_is_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"initial weights MIM .job pre, stage pretrain.: no job has the name 'pre'"):
        resolve_weights(taking(), store)
    giver = giving(SEVERAL, grid(**SMALL))
    record_job(store, giver, job_id(giver))
    with pytest.raises(NotFound, match="none of its trials is placed yet"):
        resolve_weights(taking(), store)
    with pytest.raises(NotFound, match=r"has no such stage; its stages: pretrain, grid; nearest: pretrain"):
        resolve_weights(taking({**FROM_OTHER, "stage": "pretain"}), store)
    rows = placed_by_a_planner(store, giver)
    with pytest.raises(NotFound, match=r"2 of its 2 trials have no result: pretrain/all/lr=.*pending.*submit or retry"):
        resolve_weights(taking(), store)
    run(store, giver, tmp_path)
    assert resolve_weights(taking(), store)[1][0].key in rows


def test_a_stage_of_which_not_all_trials_are_placed_is_not_complete(store: Store, tmp_path: Path) -> None:
    """All placed trials are done, but those that wait for another stage's weights may be better."""
    both = {**SEVERAL, "name": "second", "override": {}, "sweep": {"grid": {"backbone.init": [RAND, SUP]}}}
    giver = giving(PRETRAIN, both)
    failing = Machine(execute=_failing_on("digits-pretrain"))
    state, _ = drive_to_end(store, giver, failing, tmp_path)
    assert state is JobState.incomplete
    assert [row.state for row in store.trials.placed(job_id(giver), "second")] == [TrialState.done, TrialState.pending]
    with pytest.raises(NotFound, match="1 of its 2 trials have no result"):
        resolve_weights(taking({**FROM_OTHER, "stage": "second"}), store)


def _failing_on(dataset: str) -> Any:
    def execute(assignment: Any, emit: Any, stop: Any) -> Any:
        if assignment.trial.task.dataset == dataset:
            raise RuntimeError("boom")
        return made_up(assignment, emit, stop)

    return execute


def test_the_same_spec_again_means_the_same_trial(
    store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Even if the other job's name now means another job, which is reported."""
    caplog.set_level(logging.INFO, "orchestrator.launch")
    giver = giving()
    run(store, giver, tmp_path)
    first, origins = resolve_weights(taking(), store)
    record_job(store, first, job_id(first))
    store.lineage.put_origins(job_id(first), origins)
    newer = giving(trial={**BASE, "seed": 1})
    run(store, newer, tmp_path)
    assert not messages(caplog)
    again, same = resolve_weights(taking(), store)
    assert (job_id(again), same) == (job_id(first), origins)
    (message,) = messages(caplog)
    assert f"trial {origins[0].key[:12]} of job {job_id(giver)}, as when this spec was first submitted" in message
    assert message.endswith(f"to use that one, write job: {job_id(newer)}")
    other, (origin,) = resolve_weights(taking({**FROM_OTHER, "job": job_id(newer)}), store)
    assert origin.from_job == job_id(newer)
    assert job_id(other) != job_id(first)
    plain = giving()
    assert resolve_weights(plain, store) == (plain, [])


def test_weights_that_were_not_kept_are_refused_with_a_remedy_that_works(store: Store, tmp_path: Path) -> None:
    giver = giving({**SEVERAL, "keep_weights": None})
    machine = run(store, giver, tmp_path)
    best = max(store.trials.placed(job_id(giver)), key=lambda row: row.value or 0)
    with pytest.raises(NotFound, match=f"were not kept or have been removed.*pin {best.key[:12]}, and submit job"):
        resolve_weights(taking(), store)
    store.weights.pin(best.key, "start of user")
    run(store, giver, tmp_path, machine)
    assert machine.ran[best.key] == 2
    assert sum(machine.ran.values()) == 3
    assert store.trials.figures([best.key])[best.key]["top1"] == best.value
    assert resolve_weights(taking(), store)[1][0].key == best.key
    run(store, giver, tmp_path, machine)
    assert sum(machine.ran.values()) == 3


def test_a_pinned_trial_keeps_the_weights_that_its_stage_would_not(store: Store, tmp_path: Path) -> None:
    giver = giving({**SEVERAL, "keep_weights": None})
    record_job(store, giver, job_id(giver))
    key = placed_by_a_planner(store, giver)[0]
    store.weights.pin(key)
    machine = run(store, giver, tmp_path)
    assert machine.ran[key] == 1
    assert [row.key for row in store.trials.placed(job_id(giver)) if store.trials.get(row.key).weights] == [key]


def test_another_jobs_stage_that_was_not_looked_up_is_refused(store: Store, tmp_path: Path) -> None:
    """As when only a field of backbone.init is overridden, so that its parts never stand together."""
    with pytest.raises(SpecError, match=r"stage pretrain of job pre was not looked up; write backbone.init as a whole"):
        planner_of(grid(**{**SMALL, "init": [FROM_OTHER]}))
    parted = {k: v for k, v in FROM_OTHER.items() if k != "job"}
    user = taking({"kind": "none"}, trial={**BASE, "backbone": {**BASE["backbone"], "init": parted}})  # type: ignore[dict-item]
    grids = user.stages[0].model_copy(update={"override": {"backbone.init.job": "pre"}, "sweep": SingleSetting()})
    user = user.model_copy(update={"stages": [grids]})
    assert resolve_weights(user, store) == (user, [])
    with pytest.raises(SpecError, match="was not looked up"):
        Planner(user, DurationModel())


def test_weights_that_go_while_a_job_is_submitted_are_noticed(store: Store, tmp_path: Path) -> None:
    giver = giving({**SEVERAL, "sweep": {"grid": {"optim.lr": [1e-4, 6e-4]}}})
    run(store, giver, tmp_path)
    wanted, origins = resolve_weights(taking(), store)
    later = max(store.trials.placed(job_id(giver)), key=lambda row: row.value or 0)
    record_job(store, wanted, job_id(wanted))
    assert store.weights.forget([later.key]) == set()  # the job that is to start from it is there by now
    store.lineage.put_origins(job_id(wanted), origins)
    lost = [origin for origin in origins if origin.key == later.key]
    other = taking(priority=1)
    record_job(store, other, job_id(other))
    forget_by_force(store, later.key)
    with pytest.raises(NotFound, match="were removed just now: submit again"):
        store.lineage.put_origins(job_id(other), lost)
    assert store.lineage.origins_of([job_id(other)]) == []


def test_plan_assumes_weights_of_jobs_to_come(tmp_path: Path) -> None:
    where = settings(folder=tmp_path / "runs")
    cost = estimate(assume_weights(taking(), where), where, [Node(2.0)])
    assert (cost.trials, cost.done) == (8, 0)
    assert not cost.problems
    assert any("assumed: initial weights MIM" in line for line in cost.basis)
    assert not (tmp_path / "runs" / "store.db").exists()
    opened = open_store(where.database_url)
    run(opened, giving(), tmp_path)
    planned = assume_weights(taking(), where)
    assert assumptions(planned) == []
    assert job_id(planned) == job_id(resolve_weights(taking(), opened)[0])
    opened.close()
    assert estimate(planned, where, [Node(2.0)]).trials == 8


def test_the_winner_is_found_by_the_stages_own_rule(store: Store, tmp_path: Path) -> None:
    """Where the metric is equal, the stage's own tie rule decides."""
    stage = {**SEVERAL, "ties": ["optim.lr:max"], "sweep": {"grid": {"optim.lr": [3e-4, 1.2e-3]}}}
    giver = giving(stage)  # both as far from the best learning rate, in the logarithm
    run(store, giver, tmp_path)
    rows = {row.settings["optim.lr"]: row for row in store.trials.placed(job_id(giver))}
    assert rows[3e-4].value == rows[1.2e-3].value
    assert find(store, FROM_OTHER).key == rows[1.2e-3].key


def test_of_settings_none_of_which_is_better_no_weights_are_taken(store: Store, tmp_path: Path) -> None:
    run(store, giving(), tmp_path)
    assert find(store, FROM_OTHER).candidates == 2
    neither = sa.update(tables.metrics).values(better="neither")
    store._db.write(lambda connection: connection.execute(neither) and None)
    with pytest.raises(NotFound, match=r"has 2 settings, and no value of top1 is better than another$"):
        find(store, FROM_OTHER)


def test_what_its_stages_search_stopped_does_not_win_where_another_job_ran_it_in_full(
    store: Store, tmp_path: Path
) -> None:
    giver = giving()
    run(store, giver, tmp_path)
    first, second = store.trials.placed(job_id(giver))
    best = find(store, FROM_OTHER).key
    stopped = SearchEvent(0, "stopped", best, {"epoch": 1, "value": 0.0})
    store.trials.place(job_id(giver), [], [((first.stage, first.group), stopped)])
    origin = find(store, FROM_OTHER)
    assert {best, origin.key} == {first.key, second.key}
    assert origin.candidates == 1
