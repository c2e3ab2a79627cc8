"""Where a trial comes from, over choices, weights and other jobs; and that what gc removed is made again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from in_process_backend import Machine, drive_to_end, made_up, results_of
from k12_job import BASE, FINAL, PRETRAIN, RAND, REFINE, SUP, grid, job, planner_of

from orchestrator import spec
from orchestrator.engine import collector
from orchestrator.engine.driver import _placement
from orchestrator.errors import NotFound, SpecError
from orchestrator.launch.estimate import estimate
from orchestrator.launch.other_jobs import (
    assume_weights,
    assumptions,
    check_test_data_unseen,
    elsewhere,
    find,
    resolve_weights,
)
from orchestrator.launch.submit import record_job
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.plan.resource_fit import Node
from orchestrator.records.rows import DriverRow, SearchEvent
from orchestrator.records.states import JobState, TrialSnapshot, TrialState
from orchestrator.report import describe, lineage
from orchestrator.settings import settings
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.spec.sweep import SingleSetting
from orchestrator.store import tables
from orchestrator.store.store import Store, open_store
from workers.trial import TrialSpec

SMALL = {"dataset": ["digits"], "init": [SUP], "lr": [1e-4, 6e-4, 1e-3], "layer_decay": [0.85]}
FROM_OTHER = {"kind": "stage", "name": "MIM", "job": "pre", "stage": "pretrain"}
SEVERAL = {**PRETRAIN, "sweep": {"grid": {"optim.lr": [1e-4, 6e-4]}}, "keep_weights": True}
"""Several pre-trainings, of which the second is the best (see k12_job.figures)."""


def giving(*stages: dict[str, Any], **fields: Any) -> JobSpec:
    return job(*(stages or (SEVERAL,)), **{"name": "pre", **fields})


def taking(init: dict[str, Any] = FROM_OTHER, **fields: Any) -> JobSpec:
    return job(grid(**{**SMALL, "init": [RAND, init]}), FINAL | {"from": "grid"}, name="user", **fields)


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = open_store(database_url)
    yield opened
    opened.close()


def run(store: Store, what: JobSpec, folder: Path, machine: Machine | None = None) -> Machine:
    machine = machine or Machine()
    state, _ = drive_to_end(store, what, machine, folder)
    assert state is JobState.done, store.jobs.get(job_id(what)).message
    return machine


def only(store: Store, what: JobSpec, stage: str) -> str:
    (row,) = store.trials.placed(job_id(what), stage)
    return row.key


def deaf(line: str) -> None:
    raise AssertionError(f"said without need: {line}")


# What describe shows


def test_the_chain_from_the_final_number_to_the_pre_training(store: Store, tmp_path: Path) -> None:
    study = job(PRETRAIN, grid(**SMALL), REFINE, FINAL)
    run(store, study, tmp_path)
    final, pretrain = only(store, study, "final"), only(store, study, "pretrain")
    choices = {winner.stage: winner for winner in store.choices.of(job_id(study))}
    told = describe.trial(store, final, tmp_path).to_json()
    json.dumps(told, allow_nan=False)
    steps = told["lineage"]
    assert [(step["link"], step["kind"], step.get("stage")) for step in steps] == [
        ("settings", "trial", "refine"),
        ("weights", "trial", "pretrain"),
        ("neighbourhood", "trial", "grid"),
        ("weights", "none", None),
    ]
    assert [step["of"] for step in steps] == [final, final, steps[0]["key"], pretrain]
    assert steps[0]["key"] == choices["final"].key
    assert steps[0]["decision"]["candidates"] == choices["final"].candidates > 3
    assert steps[0]["decision"]["sources"] == ["grid", "refine"]
    assert steps[2]["key"] == choices["refine"].key
    assert steps[1]["key"] == pretrain
    assert (steps[1]["task"], steps[1]["dataset"], steps[1]["epochs"]) == ("classify", "digits-pretrain", 4)
    assert steps[1]["value"] == store.trials.get(pretrain).value
    assert steps[1]["weights"] == dict(zip(("path", "sha256"), store.trials.get(pretrain).weights or (), strict=True))
    assert steps[3]["seed"] == 0
    text = describe.trial(store, final, tmp_path).text()
    value = f"{choices['final'].value:.6g}"
    assert f"settings from {steps[0]['name']} {steps[0]['key'][:12]} (job {job_id(study)})" in text
    assert f"taken by final: best of {choices['final'].candidates} in grid, refine, top1 {value}" in text
    assert f"tried around {steps[2]['name']}" in text
    assert f"weights from {steps[1]['name']}" in text
    assert "SHA-256 " + "0" * 64 in text
    assert text.index("weights from pretrain") < text.index("random initial weights, drawn from seed 0")


def test_what_follows_from_a_trial(store: Store, tmp_path: Path) -> None:
    study = job(PRETRAIN, grid(**SMALL), REFINE, FINAL)
    run(store, study, tmp_path)
    pretrain = only(store, study, "pretrain")
    told = describe.trial(store, pretrain, tmp_path).to_json()["children"]
    assert told["count"] == len(store.trials.placed(job_id(study))) - 1 > lineage.LISTED == len(told["first"])
    assert told["taken"] == []
    text = describe.trial(store, pretrain, tmp_path).text()
    assert f"{told['count']} trials start from its weights" in text
    assert f"and {told['count'] - lineage.LISTED} more" in text
    winner = store.choices.of(job_id(study))[0]
    taken = describe.trial(store, winner.key, tmp_path).to_json()["children"]["taken"]
    assert ("refine", 3) in [(each["by"], each["candidates"]) for each in taken]


def test_weights_chosen_among_several_say_so(store: Store, tmp_path: Path) -> None:
    study = job(SEVERAL, grid(**SMALL))
    run(store, study, tmp_path)
    key = store.trials.placed(job_id(study), "grid")[0].key
    (step, *_) = describe.trial(store, key, tmp_path).to_json()["lineage"]
    assert step["stage"] == "pretrain"
    assert step["decision"]["candidates"] == 2
    assert step["decision"]["by"] == "grid: weights of pretrain"


def test_files_and_tags_are_shown_with_their_digest(store: Store, tmp_path: Path) -> None:
    """A file's from the spec; a tag's as the trial noted it, where the spec leaves it open."""
    digest = "5" * 64
    file = {"kind": "file", "name": "SimMIM", "path": "weights/simmim.safetensors", "sha256": digest}
    tag = {"kind": "timm", "name": "1K", "tag": "vit_tiny_patch16_224.augreg_in21k", "sha256": None}
    study = job(grid(**{**SMALL, "init": [file, tag], "lr": [1e-4]}))
    record_job(store, study, job_id(study))
    machine = Machine()
    drive_to_end(store, study, machine, tmp_path)
    found = {}
    for row in store.trials.placed(job_id(study)):
        trial = store.trials.get(row.key)
        found[row.group.rpartition("/")[2]] = lineage.beginning(trial)
        (step,) = lineage.lineage(store, trial)
        assert step["link"] == "weights"
    assert found["SimMIM"] == {"kind": "file", "name": "SimMIM", "path": file["path"], "sha256": digest}
    assert found["1K"]["sha256"] is None
    text = "\n".join(lineage.lines("a", [{"link": "weights", "of": "a", "decision": None, **found["SimMIM"]}]))
    assert text == f"  weights from file weights/simmim.safetensors (SHA-256 {digest})"


def test_a_tags_digest_is_the_one_the_trial_noted(store: Store, tmp_path: Path) -> None:
    study = job(PRETRAIN)
    run(store, study, tmp_path)
    trial = store.trials.get(only(store, study, "pretrain"))
    tag = "vit_tiny_patch16_224.augreg_in21k"
    spec = {"backbone": {"init": {"kind": "timm", "name": "1K", "tag": tag, "sha256": None}}}
    notes = ["loader: cached", f"weights: {tag} of timm, SHA-256 {'7' * 64}"]
    assert lineage.beginning(replace(trial, spec=spec, facts={"notes": notes}))["sha256"] == "7" * 64
    assert lineage.beginning(replace(trial, spec=spec, facts={}))["sha256"] is None


def test_a_part_of_a_schedule_goes_on_from_the_part_before_it(tmp_path: Path) -> None:
    """Population-based training: from the training state, not from the weights alone."""
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    study = job(PRETRAIN)
    record_job(store, study, job_id(study))
    first = TrialSpec.model_validate({**study.trial, "span": {"first_epoch": 0, "last_epoch": 2}})
    again = {"kind": "trial", "name": "RAND", "trial": first.key}
    second = TrialSpec.model_validate(
        {**study.trial, "span": {"first_epoch": 2, "last_epoch": 4}, "backbone": {**BASE["backbone"], "init": again}}  # type: ignore[dict-item]
    )
    (placed,) = [_placement(planned) for planned in Planner(study, DurationModel()).placed]
    parts = [replace(placed, key=spec.key, spec=spec.model_dump(mode="json")) for spec in (first, second)]
    store.trials.place(job_id(study), parts)
    steps = lineage.lineage(store, store.trials.get(second.key))
    assert [(step["link"], step.get("key")) for step in steps] == [("state", first.key), ("weights", None)]
    assert any("goes on from pretrain/all" in line for line in lineage.lines(second.key, steps))
    store.close()


# Weights of another job


def test_a_job_starts_from_the_best_of_another_jobs_stage(store: Store, tmp_path: Path) -> None:
    giver = giving()
    run(store, giver, tmp_path)
    best = max(store.trials.placed(job_id(giver)), key=lambda row: row.value or 0)
    wanted, origins = resolve_weights(taking(), store, deaf)
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
    between, _ = resolve_weights(between, store, deaf)
    run(store, between, tmp_path)
    init = {**FROM_OTHER, "job": "between", "stage": "more"}
    for dataset in ("digits", "textures"):
        sweep = grid(**{**SMALL, "dataset": [dataset], "init": [init]})
        wanted, origins = resolve_weights(job(sweep, FINAL | {"from": "grid"}, name="user"), store, deaf)
        planner = Planner(wanted, DurationModel())
        if dataset == "digits":
            check_test_data_unseen(store, origins, planner.foreseen())
            continue
        with pytest.raises(SpecError, match=r"of job between.*opened images of textures by task.dataset: photo-tiles"):
            check_test_data_unseen(store, origins, planner.foreseen())
        check_test_data_unseen(store, origins, planner.specs())  # the search alone reads no test images


def test_a_spec_file_may_name_another_jobs_stage(tmp_path: Path) -> None:
    """Nothing is looked up when it is read; that its stage is none of this job's is no mistake."""
    path = tmp_path / "user.yaml"
    content = {"name": "user", "trial": BASE, "stages": [grid(**{**SMALL, "init": [FROM_OTHER]})]}
    path.write_text(json.dumps(content))  # JSON is YAML
    (asked,) = elsewhere(spec.load(path)).values()
    assert (asked["job"], asked["stage"]) == ("pre", "pretrain")
    wrong = {**FROM_OTHER, "jobs": "pre"}
    path.write_text(json.dumps({**content, "stages": [grid(**{**SMALL, "init": [wrong]})]}))
    with pytest.raises(SpecError, match="jobs"):
        spec.load(path)


def test_a_group_is_named_where_there_are_several(store: Store, tmp_path: Path) -> None:
    sets = {"task.dataset": ["digits-pretrain", "digits"], "optim.lr": [1e-4, 6e-4]}
    giver = giving({**SEVERAL, "sweep": {"grid": sets}, "override": {}, "per": ["task.dataset"]})
    run(store, giver, tmp_path)
    with pytest.raises(NotFound, match="has 2 groups; name one of them with `group`: digits, digits-pretrain"):
        resolve_weights(taking(), store, deaf)
    with pytest.raises(NotFound, match=r"no such group there; did you mean digits\?"):
        resolve_weights(taking({**FROM_OTHER, "group": "digit"}), store, deaf)
    _, (origin,) = resolve_weights(taking({**FROM_OTHER, "group": "digits"}), store, deaf)
    best = max(
        (row for row in store.trials.placed(job_id(giver)) if row.group == "digits"), key=lambda row: row.value or 0
    )
    assert (origin.key, origin.group) == (best.key, "digits")


def test_what_is_missing_is_named(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"initial weights MIM .job pre, stage pretrain.: no job has the name 'pre'"):
        resolve_weights(taking(), store, deaf)
    giver = giving(SEVERAL, grid(**SMALL))
    record_job(store, giver, job_id(giver))
    with pytest.raises(NotFound, match="none of its trials is placed yet"):
        resolve_weights(taking(), store, deaf)
    with pytest.raises(NotFound, match=r"has no such stage; did you mean pretrain.*there are: pretrain, grid"):
        resolve_weights(taking({**FROM_OTHER, "stage": "pretain"}), store, deaf)
    rows = _placed_by_a_planner(store, giver)
    with pytest.raises(NotFound, match=r"2 of its 2 trials have no result: pretrain/all/lr=.*pending.*submit or retry"):
        resolve_weights(taking(), store, deaf)
    run(store, giver, tmp_path)
    assert resolve_weights(taking(), store, deaf)[1][0].key in rows


def _placed_by_a_planner(store: Store, what: JobSpec) -> list[str]:
    placements = [_placement(planned) for planned in Planner(what, DurationModel()).placed]
    store.trials.place(job_id(what), placements)
    return [placement.key for placement in placements]


def test_a_stage_of_which_not_all_trials_are_placed_is_not_complete(store: Store, tmp_path: Path) -> None:
    """All that are placed are done: but those that wait for another stage's weights may be better."""
    both = {**SEVERAL, "name": "second", "override": {}, "sweep": {"grid": {"backbone.init": [RAND, SUP]}}}
    giver = giving(PRETRAIN, both)
    failing = Machine(execute=_failing_on("digits-pretrain"))
    state, _ = drive_to_end(store, giver, failing, tmp_path)
    assert state is JobState.incomplete
    assert [row.state for row in store.trials.placed(job_id(giver), "second")] == [TrialState.done, TrialState.pending]
    with pytest.raises(NotFound, match="1 of its 2 trials have no result"):
        resolve_weights(taking({**FROM_OTHER, "stage": "second"}), store, deaf)


def _failing_on(dataset: str) -> Any:
    def execute(assignment: Any, emit: Any, stop: Any) -> Any:
        if assignment.trial.task.dataset == dataset:
            raise RuntimeError("boom")
        return made_up(assignment, emit, stop)

    return execute


def test_the_same_spec_again_means_the_same_trial(store: Store, tmp_path: Path) -> None:
    """Whatever the other job's name has come to mean: and it says so."""
    run(store, giving(), tmp_path)
    first, origins = resolve_weights(taking(), store, deaf)
    record_job(store, first, job_id(first))
    store.lineage.put_origins(job_id(first), origins)
    newer = giving(trial={**BASE, "seed": 1})
    run(store, newer, tmp_path)
    said: list[str] = []
    again, same = resolve_weights(taking(), store, said.append)
    assert (job_id(again), same) == (job_id(first), origins)
    assert job_id(newer) in said[0]
    assert origins[0].key[:12] in said[0]
    other, (origin,) = resolve_weights(taking({**FROM_OTHER, "job": job_id(newer)}), store, deaf)
    assert origin.from_job == job_id(newer)
    assert job_id(other) != job_id(first)
    plain = giving()
    assert resolve_weights(plain, store, deaf) == (plain, [])


def test_weights_that_were_not_kept_are_refused_with_a_remedy_that_works(store: Store, tmp_path: Path) -> None:
    giver = giving({**SEVERAL, "keep_weights": None})
    machine = run(store, giver, tmp_path)
    best = max(store.trials.placed(job_id(giver)), key=lambda row: row.value or 0)
    with pytest.raises(NotFound, match=f"were not kept or have been removed.*pin {best.key[:12]}, and submit job"):
        resolve_weights(taking(), store, deaf)
    store.weights.pin(best.key, "start of user")
    run(store, giver, tmp_path, machine)
    assert machine.ran[best.key] == 2
    assert sum(machine.ran.values()) == 3
    assert store.trials.figures([best.key])[best.key]["top1"] == best.value
    assert resolve_weights(taking(), store, deaf)[1][0].key == best.key
    run(store, giver, tmp_path, machine)
    assert sum(machine.ran.values()) == 3


def test_a_pinned_trial_keeps_the_weights_that_its_stage_would_not(store: Store, tmp_path: Path) -> None:
    giver = giving({**SEVERAL, "keep_weights": None})
    record_job(store, giver, job_id(giver))
    key = _placed_by_a_planner(store, giver)[0]
    store.weights.pin(key)
    machine = run(store, giver, tmp_path)
    assert machine.ran[key] == 1
    assert [row.key for row in store.trials.placed(job_id(giver)) if store.trials.get(row.key).weights] == [key]


def test_another_jobs_stage_that_was_not_looked_up_is_refused(store: Store, tmp_path: Path) -> None:
    """As when only a field of backbone.init is overridden, so that the parts of it never stand together."""
    with pytest.raises(SpecError, match=r"stage pretrain of job pre was not looked up; write backbone.init as a whole"):
        planner_of(grid(**{**SMALL, "init": [FROM_OTHER]}))
    parted = {k: v for k, v in FROM_OTHER.items() if k != "job"}
    user = taking({"kind": "none"}, trial={**BASE, "backbone": {**BASE["backbone"], "init": parted}})  # type: ignore[dict-item]
    grids = user.stages[0].model_copy(update={"override": {"backbone.init.job": "pre"}, "sweep": SingleSetting()})
    user = user.model_copy(update={"stages": [grids]})
    assert resolve_weights(user, store, deaf) == (user, [])
    with pytest.raises(SpecError, match="was not looked up"):
        Planner(user, DurationModel())


def test_weights_that_go_while_a_job_is_submitted_are_noticed(store: Store, tmp_path: Path) -> None:
    giver = giving({**SEVERAL, "sweep": {"grid": {"optim.lr": [1e-4, 6e-4]}}})
    run(store, giver, tmp_path)
    wanted, origins = resolve_weights(taking(), store, deaf)
    later = max(store.trials.placed(job_id(giver)), key=lambda row: row.value or 0)
    record_job(store, wanted, job_id(wanted))
    assert store.weights.forget([later.key]) == set()  # the job that is to start from it is there by now
    store.lineage.put_origins(job_id(wanted), origins)
    lost = [origin for origin in origins if origin.key == later.key]
    other = taking(priority=1)
    record_job(store, other, job_id(other))
    _forget_by_force(store, later.key)
    with pytest.raises(NotFound, match="were removed just now: submit again"):
        store.lineage.put_origins(job_id(other), lost)
    assert store.lineage.origins_of([job_id(other)]) == []


def _forget_by_force(store: Store, key: str) -> None:
    gone = sa.update(tables.trials).where(tables.trials.c.key == key).values(weights_path=None, weights_sha256=None)
    store._db.write(lambda connection: connection.execute(gone) and None)


def test_plan_takes_weights_of_jobs_to_come_for_known(tmp_path: Path) -> None:
    where = settings(folder=tmp_path / "runs")
    found = estimate(taking(), where, [Node(2.0)])
    assert (found.trials, found.done) == (8, 0)
    assert not found.problems
    assert any("taken for known: initial weights MIM" in line for line in found.basis)
    assert not (tmp_path / "runs" / "store.db").exists()
    opened = open_store(where.database_url)
    run(opened, giving(), tmp_path)
    planned = assume_weights(taking(), where)
    assert assumptions(planned) == []
    assert job_id(planned) == job_id(resolve_weights(taking(), opened, deaf)[0])
    opened.close()
    assert estimate(taking(), where, [Node(2.0)]).trials == 8


def test_the_winner_is_found_by_the_stages_own_rule(store: Store, tmp_path: Path) -> None:
    """Equal in the metric, the stage's own tie rule decides."""
    stage = {**SEVERAL, "ties": ["optim.lr:max"], "sweep": {"grid": {"optim.lr": [3e-4, 1.2e-3]}}}
    giver = giving(stage)  # both as far from the best learning rate, in the logarithm
    run(store, giver, tmp_path)
    rows = {row.settings["optim.lr"]: row for row in store.trials.placed(job_id(giver))}
    assert rows[3e-4].value == rows[1.2e-3].value
    assert find(store, FROM_OTHER).key == rows[1.2e-3].key


def test_what_its_stages_search_stopped_does_not_win_where_another_job_ran_it_in_full(
    store: Store, tmp_path: Path
) -> None:
    giver = giving()
    run(store, giver, tmp_path)
    first, second = store.trials.placed(job_id(giver))
    best = find(store, FROM_OTHER).key
    stopped = SearchEvent(0, "stopped", best, {"epoch": 1, "value": 0.0})
    store.trials.place(job_id(giver), [], [((first.stage, first.group), stopped)])
    found = find(store, FROM_OTHER)
    assert {best, found.key} == {first.key, second.key}
    assert found.candidates == 1


# What gc removed is made again


def test_a_chain_whose_weights_are_gone_is_made_again_from_its_start() -> None:
    """3 starts from 2, which started from 1; neither 1 nor 2 has weights any more."""
    first = {"name": "first", "override": {"task.dataset": "digits-pretrain"}}
    second = {"name": "second", "override": {"backbone.init": {**SUP, "stage": "first"}}}
    third = {"name": "third", "override": {"backbone.init": {**SUP, "stage": "second"}, "task.dataset": "faces"}}
    planner = planner_of(first, second, third)
    lost = TrialSnapshot(TrialState.done, figures={"top1": 1.0, "mean_per_class": 1.0, "loss": 0.0})
    for name in ("first", "second"):
        (planned,) = [each for each in planner.placed if each.stage == name]
        planner.update(planned.key, lost)
    handed = []
    while planned := planner.next(lambda _: True):
        handed.append(planned.stage)
        weights = (planned.key, "0" * 64) if planned.keep_weights else None
        figures = {planned.spec.task.metric: 1.0, "loss": 0.0}
        planner.update(planned.key, TrialSnapshot(TrialState.done, figures=figures, weights=weights))
    assert handed == ["first", "second", "third"]
    assert planner.finished()
    assert planner.incomplete() == []


def test_a_lost_parent_of_another_job_is_named_also_behind_a_done_trial() -> None:
    """3 starts from 2, which has no weights and started from a trial elsewhere, which has none either."""
    elsewhere = TrialSpec.model_validate({**BASE, "seed": 9}).key
    init = {"kind": "trial", "name": "MIM", "trial": elsewhere}
    second = {"name": "second", "override": {"backbone.init": init}}
    third = {"name": "third", "override": {"backbone.init": {**SUP, "stage": "second"}, "task.dataset": "faces"}}
    planner = planner_of(second, third)
    assert planner.outside() == [elsewhere]
    lost = TrialSnapshot(TrialState.done, figures={"top1": 1.0, "loss": 0.0})
    planner.update(elsewhere, lost)
    planner.update(planner.placed[0].key, lost)
    assert planner.next(lambda _: True) is None
    assert planner.finished()
    assert any("third" in line and f"pin {elsewhere[:12]}" in line for line in planner.incomplete())


def test_a_study_goes_on_after_gc_took_what_it_could(store: Store, tmp_path: Path) -> None:
    """The study is done and its pre-training's weights are removed by hand; a longer study needs them again."""
    short = job(PRETRAIN, grid(**SMALL))
    machine = run(store, short, tmp_path)
    pretrain = only(store, short, "pretrain")
    _forget_by_force(store, pretrain)
    longer = job(PRETRAIN, grid(**{**SMALL, "lr": [1e-4, 6e-4, 1e-3, 2e-3]}))
    run(store, longer, tmp_path, machine)
    assert machine.ran[pretrain] == 2
    assert store.trials.get(pretrain).weights is not None
    assert store.jobs.get(job_id(longer)).state is JobState.done


def test_gc_leaves_a_running_study_alone(store: Store, tmp_path: Path) -> None:
    """Called again and again while drivers work, with real files: no trial misses the weights it starts from."""

    def with_files(assignment: Any, emit: Any, stop: Any) -> Any:
        for weights in assignment.parents.values():
            assert Path(weights.path).read_bytes() == b"weights"
        outcome = made_up(assignment, emit, stop)
        folder = Path(assignment.folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "checkpoint-000000010-0.pt").write_bytes(b"c")
        if outcome.weights is None:
            return outcome
        path = folder / "weights.safetensors"
        path.write_bytes(b"weights")
        return replace(outcome, weights=replace(outcome.weights, path=str(path)))

    storage = tmp_path / "storage"
    removed: list[collector.Item] = []

    def watch(drive: Any) -> None:
        removed.extend(
            collector.remove(store, storage, collector.plan(store, storage, collector.Options(checkpoints=True))).items
        )

    study = job(SEVERAL, grid(**{**SMALL, "lr": [1e-4, 6e-4]}), FINAL | {"from": "grid"})
    state, drive = drive_to_end(store, study, Machine(execute=with_files), tmp_path, watch=watch)
    assert state is JobState.done
    assert drive.tally.started == 5
    assert all(item.kind != "weights" for item in removed)
    collector.remove(store, storage, collector.plan(store, storage))
    rows = {row.name: row for row in store.trials.placed(job_id(study))}
    kept = {name.split("/")[0] for name, row in rows.items() if store.trials.get(row.key).weights}
    assert kept == {"pretrain", "final"}
    assert len(list(storage.rglob("weights.safetensors"))) == 2
    assert list(storage.rglob("checkpoint-*")) == []


def test_the_driver_row_of_another_host_counts_as_alive(store: Store, tmp_path: Path) -> None:
    """A pending trial of a job that a driver elsewhere drives keeps its checkpoints."""
    giver = giving()
    record_job(store, giver, job_id(giver))
    key = _placed_by_a_planner(store, giver)[0]
    folder = tmp_path / "storage" / "trials" / key[:2] / key
    folder.mkdir(parents=True)
    (folder / "checkpoint-000000010-0.pt").write_bytes(b"c")
    store.leases.register(DriverRow("far", "elsewhere", 1, 0.0, job_id(giver), "cluster"))
    options = collector.Options(checkpoints=True)
    assert collector.plan(store, tmp_path / "storage", options).items == []
    store.leases.unregister("far")
    assert len(collector.plan(store, tmp_path / "storage", options).items) == 1
