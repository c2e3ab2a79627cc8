"""What a job would cost: counts, hours, the lower bound, the makespan against other ways to work it out, disk."""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Mapping
from typing import Any

import pytest
from k12_job import BASE, FINAL, PRETRAIN, RAND, REFINE, SUP, done, figures, grid, job, run

from orchestrator.plan.cost import Cost, cost
from orchestrator.plan.durations import EVALUATION_SHARE, DurationModel, model_id
from orchestrator.plan.planner import Planner
from orchestrator.plan.resource_fit import Node
from orchestrator.plan.simulation import remaining_part
from orchestrator.plan.trials import PlannedTrial
from orchestrator.records.states import TrialSnapshot, TrialState
from orchestrator.spec.job import JobSpec, Resources
from workers.trial import Span, TrialSpec

ONE_CPU = [Node(cpus=1)]


def nothing(keys: list[str]) -> Mapping[str, TrialSnapshot]:
    return {}


def among(known: Mapping[str, TrialSnapshot]) -> Any:
    """A look-up in what is recorded, as the store's."""
    return lambda keys: {key: known[key] for key in keys if key in known}


def trials(planned: list[PlannedTrial]) -> dict[str, PlannedTrial]:
    return {each.key: each for each in planned}


def whole(spec: JobSpec) -> list[PlannedTrial]:
    """All trials of a job, were the first of each group its winner."""
    planner = Planner(spec, DurationModel())
    run(planner, lambda each: TrialSnapshot(
        TrialState.done, figures={each.spec.task.metric: -each.position}, weights=("/w", "0"),
    ))  # fmt: skip
    return planner.placed


def first_hours(spec: JobSpec) -> float:
    """Hours of a job's first trial."""
    return Planner(spec, DurationModel()).placed[0].seconds / 3600


# Counts and hours


def test_a_job_that_has_not_begun() -> None:
    spec = job()
    found = cost(spec, nothing, DurationModel(), ONE_CPU)
    assert [(row.name, row.groups, row.trials, row.done, row.forecast) for row in found.stages] == [
        ("pretrain", 1, 1, 0, False),
        ("grid", 4, 60, 0, False),
        ("refine", 4, 24, 0, True),
        ("final", 4, 4, 0, True),
    ]
    assert (found.trials, found.done, found.measured, found.problems) == (89, 0, 0, [])
    seconds = sum(each.seconds for each in trials(whole(spec)).values())
    assert found.cpu_hours == pytest.approx(seconds / 3600)
    assert found.gpu_hours == 0
    assert sum(row.cpu_hours for row in found.stages) == pytest.approx(found.cpu_hours)
    assert any("guessed, 300 images/s" in line for line in found.basis)
    assert json.loads(json.dumps(found.to_json()))["stages"][1]["trials"] == 60


def test_what_is_done_is_not_counted_again() -> None:
    spec = job()
    planner = Planner(spec, DurationModel())
    known = {each.key: done(each) for each in run(planner)}
    found = cost(spec, among(known), DurationModel(), ONE_CPU)
    assert (found.done, found.trials) == (89, 89)
    assert (found.cpu_hours, found.makespan_hours, found.lower_bound_hours) == (0, 0, 0)
    assert not any(row.forecast for row in found.stages)
    grid_only = {each.key: known[each.key] for each in planner.placed if each.stage in ("pretrain", "grid")}
    found = cost(spec, among(grid_only), DurationModel(), ONE_CPU)
    assert [row.done for row in found.stages] == [1, 60, 0, 0]
    assert [row.forecast for row in found.stages] == [False, False, False, True]
    assert found.stages[1].cpu_hours == 0


def test_failed_trials_are_counted_and_running_ones_with_what_is_left() -> None:
    spec = job(grid(dataset=["digits"], init=[RAND]))
    first, second, third, *_ = Planner(spec, DurationModel()).placed
    known = {
        first.key: TrialSnapshot(TrialState.failed, error_class="code"),
        second.key: TrialSnapshot(TrialState.running, epoch=3, epochs=4),
        third.key: TrialSnapshot(TrialState.diverged),
    }
    found = cost(spec, among(known), DurationModel(), ONE_CPU)
    assert found.done == 1
    assert found.cpu_hours == pytest.approx((15 - 1 - 0.75) * first.seconds / 3600)


def test_of_a_part_of_a_schedule_only_its_own_epochs_are_left() -> None:
    epochs = [TrialSnapshot(TrialState.running, epoch=epoch, epochs=12) for epoch in (0, 8, 9, 12)]
    assert [remaining_part(known, 8) for known in epochs] == [1, 1, 0.75, 0]
    assert [remaining_part(known, 0) for known in epochs] == [1, 1 / 3, 0.25, 0]


def test_a_trial_that_may_do_with_fewer_workers_is_planned_with_those_that_fit() -> None:
    spec = job(grid(dataset=["digits"], init=[RAND]), resources={"cpus": 1, "workers": 4, "min_workers": 1})
    two = cost(spec, nothing, DurationModel(), [Node(cpus=1), Node(cpus=2)])  # 3 are no whole part of 4
    all_ = cost(spec, nothing, DurationModel(), [Node(cpus=4)])
    assert (two.problems, all_.problems) == ([], [])
    assert two.makespan_hours == pytest.approx(2 * (all_.makespan_hours or 0))
    assert all_.makespan_hours == pytest.approx(15 * first_hours(spec)), "four workers each, one trial after the other"
    assert ["2 of 4 workers" in line for line in (two.basis[-1], all_.basis[-1])] == [True, False]
    assert cost(spec, nothing, DurationModel(), [Node(cpus=0.5)]).problems


def test_a_trial_of_two_stages_costs_once() -> None:
    again = {**grid(dataset=["digits"], init=[RAND]), "name": "again"}
    found = cost(job(grid(dataset=["digits"], init=[RAND]), again), nothing, DurationModel(), ONE_CPU)
    assert found.trials == 15
    assert [row.trials for row in found.stages] == [15, 15]
    assert found.stages[1].cpu_hours == 0


def test_hours_are_of_all_that_a_trial_holds() -> None:
    resources = {"cpus": 3, "gpus": 0.5, "workers": 2}
    spec = job(grid(dataset=["digits"], init=[RAND]), resources=resources)
    found = cost(spec, nothing, DurationModel(), [Node(cpus=6, gpus=1)])
    assert found.makespan_hours is not None
    assert found.makespan_hours == pytest.approx(15 * first_hours(spec))
    assert found.cpu_hours == pytest.approx(6 * 15 * first_hours(spec))
    assert found.gpu_hours == pytest.approx(15 * first_hours(spec))


# Speed


def test_the_guess_is_images_over_images_per_second() -> None:
    (planned,) = Planner(job(PRETRAIN), DurationModel()).placed
    task = planned.spec.task
    images = 4 * (task.train_samples + task.evaluation_samples * EVALUATION_SHARE)
    alone = DurationModel().estimate(planned.spec, Resources(images_per_second=100))
    assert (alone.seconds, alone.measured) == (pytest.approx(images / 100), False)
    four = DurationModel().estimate(planned.spec, Resources(images_per_second=100, workers=4))
    assert four.seconds == pytest.approx(images / 400)


def test_test_images_are_evaluated_once_and_val_as_often_as_asked() -> None:
    spec = job(grid(dataset=["digits"], init=[RAND]), {**FINAL, "from": "grid"})
    final = next(each.spec for each in whole(spec) if each.stage == "final")
    every = next(each.spec for each in whole(spec) if each.stage == "grid")
    second = every.model_copy(update={"runtime": every.runtime.model_copy(update={"evaluate_every": 3})})
    for trial, times in ((final, 1), (every, 4), (second, 2)):
        images = 4 * trial.task.train_samples + times * trial.task.evaluation_samples * EVALUATION_SHARE
        assert DurationModel().estimate(trial, Resources(images_per_second=1)).seconds == pytest.approx(images)


def test_a_length_in_iterations_costs_its_steps_and_evaluations() -> None:
    """10 steps in rounds of 4, 4 and 2 images each of 64."""
    optim = {"lr": 1e-3, "batch": 64, "iterations": 10}
    base = {**BASE, "optim": optim, "runtime": {"report_iterations": 4}}
    (planned,) = Planner(job(PRETRAIN, trial=base), DurationModel()).placed
    spec = planned.spec
    evaluation = spec.task.evaluation_samples * EVALUATION_SHARE
    guess = DurationModel().estimate(spec, Resources(images_per_second=1)).seconds
    assert guess == pytest.approx(10 * 64 + 3 * evaluation)
    measured = TrialSnapshot(TrialState.done, step_seconds=0.5, facts={"device": "cpu", "workers": 1})
    speed = DurationModel([(spec, measured)])
    assert speed.estimate(spec, Resources()).seconds == pytest.approx(0.5 * (10 + 3 * evaluation / 64))
    last = spec.model_copy(update={"span": Span(first_epoch=2, last_epoch=3)})
    assert speed.estimate(last, Resources()).seconds == pytest.approx(0.5 * (2 + evaluation / 64))


def test_a_trial_without_training_costs_one_evaluation() -> None:
    base = {**BASE, "optim": {"lr": 1e-3, "batch": 64, "epochs": 0}}
    (planned,) = Planner(job(PRETRAIN, trial=base), DurationModel()).placed
    evaluation = planned.spec.task.evaluation_samples * EVALUATION_SHARE
    assert DurationModel().estimate(planned.spec, Resources(images_per_second=1)).seconds == pytest.approx(evaluation)


def test_recorded_step_times_of_the_same_kind_are_used() -> None:
    smaller = {"name": "smaller", "override": {"task.dataset": "digits-pretrain", "optim.batch": 32}}
    spec = job(grid(dataset=["digits"], init=[RAND]), smaller)
    planner = Planner(spec, DurationModel())
    on_cpu = {"device": "cpu", "workers": 1}
    recorded = [
        (planner.placed[number].spec, TrialSnapshot(TrialState.done, step_seconds=seconds, facts=on_cpu))
        for number, seconds in ((0, 0.5), (1, 0.7), (2, 0.6))
    ]
    speed = DurationModel(recorded)
    grid_trial, other_batch = planner.placed[5].spec, planner.placed[-1].spec
    task = grid_trial.task
    steps = 4 * (task.train_samples // 64)
    expected = 0.6 * (steps + 4 * task.evaluation_samples * EVALUATION_SHARE / 64)
    assert speed.estimate(grid_trial, Resources()).seconds == pytest.approx(expected)
    assert speed.estimate(grid_trial, Resources()).measured
    assert not speed.estimate(other_batch, Resources()).measured
    assert not speed.estimate(grid_trial, Resources(gpus=1)).measured
    assert not speed.estimate(grid_trial, Resources(workers=2)).measured
    found = cost(spec, nothing, speed, ONE_CPU)
    assert found.measured == 15
    assert any(line.startswith("time of 15 trials: recorded") for line in found.basis)
    assert any(line.startswith("time of 1 trials: guessed") for line in found.basis)


# Makespan


def schedule(chains: list[list[list[float]]], slots: int, critical: bool) -> float:
    """The makespan of groups of stages of trials (seconds) on equal slots, worked out apart from the planner.

    `critical`: longest remaining chain first; else in the order in which trials become ready.
    """
    tails = [[sum(max(stage) for stage in group[number + 1 :]) for number in range(len(group))] for group in chains]
    ready: list[tuple[float, int, int, float]] = []
    serial = itertools.count()

    def release(group: int, stage: int) -> None:
        for seconds in chains[group][stage]:
            number = next(serial)
            rank = -(seconds + tails[group][stage]) if critical else float(number)
            heapq.heappush(ready, (rank, number, group, seconds))

    at, left = [0] * len(chains), [len(group[0]) for group in chains]
    for group in range(len(chains)):
        release(group, 0)
    now, running = 0.0, []
    while ready or running:
        while ready and len(running) < slots:
            _, number, group, seconds = heapq.heappop(ready)
            heapq.heappush(running, (now + seconds, number, group))
        now, _, group = heapq.heappop(running)
        left[group] -= 1
        if not left[group] and at[group] + 1 < len(chains[group]):
            at[group] += 1
            left[group] = len(chains[group][at[group]])
            release(group, at[group])
    return now


def chains_of(spec: JobSpec) -> list[list[list[float]]]:
    groups: dict[str, dict[str, list[float]]] = {}
    for each in whole(spec):
        groups.setdefault(each.group, {}).setdefault(each.stage, []).append(each.seconds)
    return [list(stages.values()) for stages in groups.values()]


def study() -> JobSpec:
    """The paper's eleven K12 sets and two initial weights: grids of 15, 6 neighbours, 1 final; one GPU each."""
    sets = ["food101", "birdsnap", "sun397", "cars", "aircraft", "dtd", "pets", "caltech101", "flowers", "cifar10",
            "cifar100"]  # fmt: skip
    files = [
        {"kind": "file", "name": name, "path": f"{name}.safetensors", "sha256": digit * 64}
        for name, digit in (("SUP", "1"), ("MIM", "2"))
    ]
    resources = {"cpus": 0, "gpus": 1, "images_per_second": 800}
    return job(grid(dataset=sets, init=files), REFINE, FINAL, resources=resources)


def hours_on(spec: JobSpec, gpus: int) -> Cost:
    nodes = [Node(cpus=64, gpus=8)] * (gpus // 8)
    return cost(spec, nothing, DurationModel(), nodes)


def test_the_makespan_of_the_study_is_near_its_bound_and_below_first_come_first_served() -> None:
    spec = study()
    chains = chains_of(spec)
    assert sum(len(stage) for group in chains for stage in group) == 22 * (15 + 6 + 1)
    ratios = {}
    for gpus in (8, 16, 64):
        found = hours_on(spec, gpus)
        assert found.makespan_hours is not None
        assert found.lower_bound_hours is not None
        assert found.makespan_hours * 3600 == pytest.approx(schedule(chains, gpus, critical=True))
        work = sum(seconds for group in chains for stage in group for seconds in stage)
        chain = max(sum(max(stage) for stage in group) for group in chains)
        assert found.longest_chain_hours * 3600 == pytest.approx(chain)
        assert found.gpu_hours * 3600 == pytest.approx(work)
        assert found.lower_bound_hours * 3600 == pytest.approx(max(work / gpus, chain))
        waiting = schedule(chains, gpus, critical=False) / 3600
        ratios[gpus] = (found.makespan_hours / found.lower_bound_hours, waiting / found.lower_bound_hours)
    assert all(1 <= ours <= first_come for ours, first_come in ratios.values())
    assert ratios[8][0] < 1.02
    assert ratios[16][0] < 1.02
    assert ratios[64][0] < 1.1


def brute_force(chains: list[list[list[float]]], slots: int) -> float:
    """The least makespan over every order of the trials, by trying them all; a trial starts as soon as it may."""
    trials = [(g, s, x) for g, stages in enumerate(chains) for s, some in enumerate(stages) for x in some]
    best = float("inf")
    for order in itertools.permutations(trials):
        free = [0.0] * slots
        ends = {group: [(-1, 0.0)] for group in range(len(chains))}
        for group, stage, seconds in order:
            before = [end for earlier, end in ends[group] if earlier < stage]
            if len(before) - 1 < sum(len(some) for some in chains[group][:stage]):
                break  # an order in which something comes before what it follows from
            slot = min(range(slots), key=lambda number: free[number])
            free[slot] = max([free[slot], *before]) + seconds
            ends[group] = [*ends[group], (stage, free[slot])]
        else:
            best = min(best, max(free))
    return best


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_no_order_beats_the_bound_and_ours_is_near_the_best(slots: int) -> None:
    lengths = grid(dataset=["digits", "faces"], init=[RAND], lr=[1e-3], layer_decay=[0.8])
    lengths["sweep"]["grid"]["optim.epochs"] = [2, 3, 5]
    spec = job(lengths, {"name": "more", "from": "grid", "override": {"optim.epochs": 6}})
    best = brute_force(chains_of(spec), slots) / 3600
    found = cost(spec, nothing, DurationModel(), [Node(cpus=slots)])
    assert found.makespan_hours is not None
    assert found.lower_bound_hours is not None
    assert found.lower_bound_hours <= best * (1 + 1e-6)
    assert best <= found.makespan_hours * (1 + 1e-6)
    assert found.makespan_hours <= best * 1.1


def test_trials_share_a_gpu_and_workers_spread_over_nodes() -> None:
    axes = grid(dataset=["digits"], init=[RAND], lr=[1e-3, 2e-3, 3e-3], layer_decay=[0.8])
    third = job(axes, resources={"cpus": 0, "gpus": 1 / 3})
    one = cost(third, nothing, DurationModel(), [Node(cpus=1, gpus=1)])
    assert one.makespan_hours == pytest.approx(one.longest_chain_hours) == first_hours(third)
    wide = job(axes, resources={"cpus": 0, "gpus": 1, "workers": 2})
    two = cost(wide, nothing, DurationModel(), [Node(cpus=1, gpus=1), Node(cpus=1, gpus=1)])
    assert two.makespan_hours == pytest.approx(3 * two.longest_chain_hours)
    assert two.longest_chain_hours == pytest.approx(first_hours(wide))
    assert cost(wide, nothing, DurationModel(), [Node(cpus=1, gpus=1)]).makespan_hours is None


def test_the_bound_counts_whole_trials() -> None:
    """Five CPUs have room for two trials of two."""
    axes = grid(dataset=["digits"], init=[RAND], lr=[1e-3, 2e-3], layer_decay=[0.7, 0.8])
    for resources, nodes in (({"cpus": 2}, [Node(cpus=5)]), ({"cpus": 2, "workers": 2}, [Node(cpus=3)] * 5)):
        spec = job(axes, resources=resources)
        found = cost(spec, nothing, DurationModel(), nodes)
        assert found.makespan_hours == pytest.approx(2 * first_hours(spec))
        assert found.lower_bound_hours == pytest.approx(2 * first_hours(spec))
        assert found.longest_chain_hours == pytest.approx(first_hours(spec))


def test_what_fits_on_no_node_is_said() -> None:
    custom = {**grid(dataset=["digits"], init=[RAND]), "resources": {"custom": {"a100": 1}}}
    found = cost(job(PRETRAIN, custom), nothing, DurationModel(), [Node(cpus=2, gpus=2)])
    assert (found.makespan_hours, found.lower_bound_hours) == (None, None)
    assert found.problems == ["stage grid: a trial needs 1 x CPU 1, a100 1, which does not fit on the cluster"]
    assert found.trials == 16
    both = cost(
        job({**PRETRAIN, "resources": {"custom": {"a100": 1}}}, custom), nothing, DurationModel(), [Node(cpus=2)]
    )
    assert [each.partition(":")[0] for each in both.problems] == [f"stages {PRETRAIN['name']}, grid"]
    big = cost(job(PRETRAIN, resources={"cpus": 4}), nothing, DurationModel(), [Node(cpus=2), Node(cpus=2)])
    assert (big.makespan_hours, len(big.problems)) == (None, 1)
    assert big.lower_bound_hours == pytest.approx(big.longest_chain_hours)  # 4 CPUs there, on two nodes
    assert big.longest_chain_hours == pytest.approx(first_hours(job(PRETRAIN)))
    assert cost(job(custom), nothing, DurationModel(), [Node(cpus=1, custom={"a100": 1})]).problems == []


# Disk


def test_disk_is_weights_that_are_kept_and_checkpoints_of_what_runs_at_once() -> None:
    asked: list[str] = []

    def parameters(trial: TrialSpec) -> int:
        asked.append(model_id(trial))
        return 1000

    spec = job()
    found = cost(spec, nothing, DurationModel(), [Node(cpus=4)], parameters)
    assert found.disk_bytes == 4 * 1000 * (5 + 9 * 4)  # pretrain and four finals; four at once, three checkpoints each
    assert len(asked) == len(set(asked)) == 2  # digits and faces: heads of 10 and of 40 classes
    assert cost(spec, nothing, DurationModel(), ONE_CPU).disk_bytes is None


def test_disk_is_known_if_every_model_is_recorded_or_computed() -> None:
    spec = job(PRETRAIN, grid())
    pretrain = next(each.spec for each in Planner(spec, DurationModel()).placed if each.stage == "pretrain")
    recorded = DurationModel([(pretrain, TrialSnapshot(TrialState.done, facts={"parameters": 2000}))])
    assert cost(spec, nothing, recorded, ONE_CPU).disk_bytes is None  # faces have another head
    assert cost(spec, nothing, recorded, ONE_CPU, lambda trial: None).disk_bytes is None
    assert cost(spec, nothing, recorded, ONE_CPU, lambda trial: 3000).disk_bytes == 4 * (2000 + 9 * 3000)


def test_weights_that_were_lost_are_counted_once_more() -> None:
    spec = job(PRETRAIN, grid(dataset=["digits"], init=[SUP]), trial=BASE)
    (pretrain,) = [each for each in Planner(spec, DurationModel()).placed if each.stage == "pretrain"]
    lost = {pretrain.key: TrialSnapshot(TrialState.done, figures=figures(pretrain.spec))}
    found = cost(spec, among(lost), DurationModel(), ONE_CPU)
    assert (found.trials, found.done) == (16, 1)
    assert found.stages[0].cpu_hours == pytest.approx(pretrain.seconds / 3600)
