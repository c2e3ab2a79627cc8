"""Searches in a spec: what is refused and where, what `plan` says of them, how they are shown."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from orchestrator.errors import SpecError
from orchestrator.plan.cost import cost
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.plan.resource_fit import Node
from orchestrator.records.rows import PlacedRow, SearchEvent
from orchestrator.records.states import TrialSnapshot, TrialState
from orchestrator.report.groups import heat_map
from orchestrator.spec import load
from orchestrator.spec.job import JobSpec
from orchestrator.spec.search_space import Choice, IntRange, LogUniform, Uniform
from orchestrator.spec.sweep import Search
from orchestrator.tracking.run_view import group_status, trial_status

GOOD = """\
name: test-search
trial:
  task: {kind: classify, dataset: digits}
  backbone: {model: vit_tiny_patch16_224, image_size: 32}
  optim: {batch: 32, epochs: 20, warmup_epochs: 2}
stages:
  - name: search
    sweep:
      search:
        optim.lr: {loguniform: [1e-4, 1e-2]}
        optim.layer_decay: {uniform: [0.6, 1]}
        backbone.drop_path: {choice: [0, 0.1, 0.2]}
      each:
        task.dataset: [digits, faces]
      trials: 6
      at_once: 2
      stopping: {asha: {grace_epochs: 4}}
  - name: near
    from: search
    neighbourhood: {near: {optim.lr: {multiply: [0.5, 2]}}}
  - name: final
    from: [search, near]
    override: {task.train: trainval, task.evaluate: test}
"""
POPULATION = """\
name: test-population
trial:
  task: {kind: classify, dataset: digits}
  backbone: {model: vit_tiny_patch16_224, image_size: 32}
  optim: {batch: 32, epochs: 20, warmup_epochs: 2}
stages:
  - name: search
    sweep:
      search: {optim.lr: {loguniform: [1e-4, 1e-2]}}
      trials: 4
      population: {size: 4, every_epochs: 5}
  - name: final
    from: search
    override: {task.evaluate: test}
"""
FIRST = "trials: 6\n      first: [{optim.lr: 1e-3, optim.layer_decay: 0.8, backbone.drop_path: 0.1}]"

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "spec.yaml"
        path.write_text(text)
        return path

    return write


def test_a_good_search_loads_with_the_groups_of_each(write: Write) -> None:
    job = load(write(GOOD.replace("trials: 6", FIRST)))
    search = job.stages[0].sweep
    assert isinstance(search, Search)
    assert job.stages[0].per == ["task.dataset"]
    assert JobSpec.model_validate(job.model_dump(mode="json", by_alias=True)) == job
    assert search.first[0]["optim.lr"] == 1e-3


@pytest.mark.parametrize(
    "space",
    [
        Uniform(uniform=(0.5, 1)),
        LogUniform(loguniform=(1e-4, 1)),
        IntRange(between=(8, 16)),
        Choice(choice=[1, 2]),
    ],
    ids=lambda space: type(space).__name__,
)
def test_a_range_made_in_python_is_taken_as_it_is(space: Uniform | LogUniform | IntRange | Choice) -> None:
    search = Search(search={"optim.batch": space}, trials=3)
    assert search.search["optim.batch"] is space
    assert Search.model_validate(search.model_dump(mode="json", by_alias=True)) == search


MISTAKES = {
    "ends": ("[1e-4, 1e-2]", "§[1e-2, 1e-4]", "optim.lr.loguniform", "must be below the high end 0.0001"),
    "no range": ("{uniform: [0.6, 1]}", "§{unifrm: [0.6, 1]}", "layer_decay", "must be {uniform: [low, high]}"),
    "field": ("optim.layer_decay:", "§optim.layer_dekay:", "no such field", "nearest: optim.layer_decay"),
    "group field": ("task.dataset: [", "§task.datasett: [", "no such field", "nearest: task.dataset"),
    "outside": ("[0.6, 1]", "§[0.6, 1.5]", "layer_decay", "less than or equal to 1"),
    "choice": ("[0, 0.1, 0.2]", "[0, §1.1]", "drop_path", "less than 1"),
    "choice twice": ("[0, 0.1, 0.2]", "§[0.1, 0.1]", "drop_path", "the same value twice"),
    "choice equal": ("[0, 0.1, 0.2]", "§[0, 0.0, 0.2]", "drop_path", "the same value twice"),
    "too wide": ("[0.6, 1]", "[§-1e308, 1e308]", "layer_decay", "must be greater than or equal to -10000000"),
    "both": ("task.dataset: [digits, faces]", "optim.lr: [1e-3]", "is in both search and each", "keep one"),
    "override": ("grace_epochs: 4}}", "grace_epochs: 4}}\n    override: {§optim.lr: 1e-3}", "optim.lr", "keep one"),
    "per": ("  - name: search\n", "  - name: search\n    §per: [task.dataset, seed]\n", "per", "remove `per`"),
    "from": (
        "  - name: near\n    from: search\n    neighbourhood: {near: {optim.lr: {multiply: [0.5, 2]}}}",
        "  - name: near\n    §from: search\n    sweep: {search: {optim.lr: {loguniform: [1e-4, 1e-2]}}, trials: 3}",
        "stands on its own", "remove `from`",
    ),
    "warm-up": ("grace_epochs: 4", "§grace_epochs: 2", "inside the warm-up of 2 epochs", "inside_warmup: true"),
    "not evaluated": (
        "grace_epochs: 4}}", "§grace_epochs: 3}}\n    override: {runtime.evaluate_every: 2}",
        "may stop at epochs 3, 9, but epoch 3 is not evaluated", "multiple of 2",
    ),
    "too late": ("grace_epochs: 4", "§grace_epochs: 20", "grace_epochs", "leave nothing to stop"),
    "epochs differ": ("{choice: [0, 0.1, 0.2]}", "{choice: [0]}\n        optim.epochs: {int: [10, 20]}",
                      "different epochs", "set none"),
    "stopping": ("{asha: {grace_epochs: 4}}", "§asha", "stopping", "must be none, {asha: {...}} or {median: {...}}"),
    "sampler": ("trials: 6", "trials: 6\n      sampler: §tpa", "tpa: not allowed", "nearest: tpe"),
    "whole": ("{choice: [0, 0.1, 0.2]}", "{choice: [0]}\n        optim.batch: {int: §[8.5, 16]}", "batch",
              "needs two whole numbers"),
    "first lacks": ("trials: 6", FIRST.replace("[{", "[§{").replace("optim.lr: 1e-3, ", ""), "first",
                    "lacks optim.lr"),
    "first outside": ("trials: 6", FIRST.replace("1e-3", "§1e-1"), "optim.lr 0.1", "outside its range"),
    "first unknown": ("trials: 6", FIRST.replace("[{", "[{§seed: 3, "), "seed", "is not searched"),
    "no trials": ("      trials: 6\n", "", "trials", "missing"),
    "test": ("{asha: {grace_epochs: 4}}", "none\n    override: {task.evaluate: §test}", "test data before selection",
             "winners are chosen"),
}  # fmt: skip
OF_POPULATION = {
    "size": ("trials: 4", "trials: 5", "trials 5 must be population.size 4", ""),
    "part": ("every_epochs: 5", "§every_epochs: 6", "does not divide the 20 epochs", ""),
    "stopping": ("trials: 4", "trials: 4\n      stopping: {median: {grace_epochs: 4}}", "has no stopping", ""),
    "batch": ("1e-2]}}", "1e-2]}, optim.batch: {int: [8, 16]}}", "optim.batch", "cannot"),
    "retrained": ("{task.evaluate: test}", "{§task.train: trainval, task.evaluate: test}", "trained in parts",
                  "only task.evaluate may be set"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "mistake"),
    [(GOOD, mistake) for mistake in MISTAKES.values()] + [(POPULATION, mistake) for mistake in OF_POPULATION.values()],
    ids=[*MISTAKES, *(f"population: {name}" for name in OF_POPULATION)],
)
def test_mistake_is_named_once_and_at_its_place(write: Write, text: str, mistake: tuple[str, str, str, str]) -> None:
    """§ marks where the mistake is."""
    before, after, what, remedy = mistake
    assert before in text
    wrong = text.replace(before, after, 1)
    with pytest.raises(SpecError) as caught:
        load(write(wrong.replace("§", "")))
    (problem,) = caught.value.problems
    assert what in problem
    assert remedy in problem
    if "§" in wrong:
        line = wrong[: wrong.index("§")].count("\n") + 1
        assert f"spec.yaml:{line}:" in problem


def test_a_rung_inside_the_warm_up_may_be_allowed(write: Write) -> None:
    allowed = GOOD.replace("grace_epochs: 4", "grace_epochs: 1, inside_warmup: true")
    search = load(write(allowed)).stages[0].sweep
    assert isinstance(search, Search)
    assert search.stopping.asha.grace_epochs == 1  # type: ignore[union-attr]
    with pytest.raises(SpecError, match="warm-up"):
        load(write(allowed.replace(", inside_warmup: true", "")))


ITERATIONS = ("epochs: 20, warmup_epochs: 2", "iterations: 950, warmup_iterations: 150")
"""20 rounds, the last one shorter; the warm-up ends in the middle of the third."""


def in_iterations(text: str) -> str:
    before, after = ITERATIONS
    assert before in text
    return text.replace(before, after).replace("stages:", "  runtime: {report_iterations: 50}\nstages:", 1)


@pytest.mark.parametrize(
    ("text", "before", "after", "what"),
    [
        (GOOD, "grace_epochs: 4", "grace_epochs: 3", "3 lies inside the warm-up of 150 iterations (3 rounds)"),
        (GOOD, "grace_epochs: 4", "grace_epochs: 19", "19 of 19 rounds (950 iterations by 50) leave nothing to stop"),
        (GOOD, "grace_epochs: 4}}", "grace_epochs: 5}}\n    override: {runtime.evaluate_every: 2}",
         "may stop at rounds 5, 15, but round 5 is not evaluated"),
        (GOOD, "{choice: [0, 0.1, 0.2]}", "{choice: [0]}\n        runtime.report_iterations: {int: [50, 100]}",
         "trials with different rounds or evaluations cannot be compared"),
        (POPULATION, "every_epochs: 5", "every_epochs: 4",
         "4 does not divide the 19 rounds (950 iterations by 50) of a trial"),
        (POPULATION, "1e-2]}}", "1e-2]}, optim.iterations: {int: [800, 1600]}}",
         "a population cannot search optim.iterations"),
    ],
)  # fmt: skip
def test_a_search_counts_rounds_where_the_length_is_in_iterations(
    write: Write, text: str, before: str, after: str, what: str
) -> None:
    assert before in text
    with pytest.raises(SpecError) as caught:
        load(write(in_iterations(text.replace(before, after, 1))))
    (problem,) = caught.value.problems
    assert what in problem
    load(write(in_iterations(GOOD)))


def test_a_warm_up_in_iterations_is_compared_in_epochs(write: Write) -> None:
    """digits has 300 images to train on, so a batch of 32 makes 9 steps an epoch."""
    short, long = (GOOD.replace("warmup_epochs: 2", f"warmup_iterations: {count}") for count in (35, 36))
    load(write(short.replace("[digits, faces]", "[digits]")))
    with pytest.raises(SpecError, match=r"4 lies inside the warm-up of 36 iterations \(4 epochs\)"):
        load(write(long.replace("[digits, faces]", "[digits]")))


NODES = [Node(2.0)]


def nothing(keys: list[str]) -> Mapping[str, TrialSnapshot]:
    return {}


def test_plan_forecasts_a_search_in_the_middle_of_its_ranges_and_in_full(write: Write) -> None:
    job = load(write(GOOD))
    found = cost(job, nothing, DurationModel(), NODES)
    by_stage = {stage.name: stage for stage in found.stages}
    assert (by_stage["search"].groups, by_stage["search"].trials, by_stage["search"].forecast) == (2, 12, True)
    assert by_stage["final"].trials == 2
    assert any("12 trials of searches: forecast" in line for line in found.basis)
    alone = cost(load(write(GOOD.replace("at_once: 2", "at_once: 1"))), nothing, DurationModel(), [Node(64.0)])
    wide = cost(load(write(GOOD.replace("at_once: 2", "at_once: 6"))), nothing, DurationModel(), [Node(64.0)])
    assert alone.longest_chain_hours > 2 * wide.longest_chain_hours  # 6 rounds and 2 more trials against 1 and 2


def test_plan_of_a_population_counts_its_parts(write: Write) -> None:
    found = cost(load(write(POPULATION)), nothing, DurationModel(), NODES)
    text = POPULATION.replace("      population: {size: 4, every_epochs: 5}\n", "")
    whole = cost(load(write(text)), nothing, DurationModel(), NODES)
    parts, trials = found.stages[0], whole.stages[0]
    assert (parts.trials, trials.trials) == (16, 4)
    assert parts.cpu_hours == pytest.approx(trials.cpu_hours, rel=0.05)


def test_plan_shows_what_is_left_of_a_search(write: Write) -> None:
    job = load(write(GOOD.replace("[digits, faces]", "[digits]")))
    place = ("search", "digits")
    points = [{"optim.lr": lr, "optim.layer_decay": 0.8, "backbone.drop_path": 0} for lr in (1e-3, 3e-3, 5e-3)]
    planner = Planner(job, DurationModel())
    keys = [str(planner.searches.key_at(place, {"point": point})) for point in points]
    events = [SearchEvent(n, "asked", key, {"point": point}) for n, (key, point) in enumerate(zip(keys, points))]  # noqa: B905
    events.append(SearchEvent(3, "stopped", keys[1], {"epoch": 4, "value": 0.1}))
    known = {
        keys[0]: TrialSnapshot(TrialState.done, figures={"top1": 0.9}),
        keys[1]: TrialSnapshot(TrialState.stopped, epoch=4, epochs=20),
        keys[2]: TrialSnapshot(TrialState.running, epoch=10, epochs=20),
    }
    found = cost(
        job, lambda wanted: {k: known[k] for k in wanted if k in known}, DurationModel(), NODES, history={place: events}
    )
    before = cost(job, nothing, DurationModel(), NODES)
    row, was = found.stages[0], before.stages[0]
    assert (row.trials, row.done) == (6, 1)
    assert row.cpu_hours == pytest.approx(was.cpu_hours * 3.5 / 6, rel=0.01)  # one done, one stopped, one half way


def test_validate_and_plan_know_neither_tune_nor_optuna(write: Write, tmp_path: Path) -> None:
    code = (
        "import sys; from orchestrator.plan.cost import cost; from orchestrator.plan.resource_fit import Node; "
        "from orchestrator.spec import load; "
        "from orchestrator.plan.durations import DurationModel; "
        f"cost(load({str(write(GOOD))!r}), lambda keys: {{}}, DurationModel(), [Node(2.0)]); "
        "print([name for name in ('ray', 'optuna', 'torch', 'sqlalchemy') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def row(key: str, state: TrialState, **settings: float) -> PlacedRow:
    value = 0.5 if state is TrialState.done else None
    none = (None,) * 5
    return PlacedRow("search", "digits", key, key, 0, state, "top1", "max", value, 4, 20, 0, *none, {}, settings)


def test_a_stopped_trial_is_killed_for_mlflow_and_its_group_finished() -> None:
    """KILLED, not FINISHED: who filters for finished runs gets trials that ran in full; the tag says why."""
    stopped, done = row("a", TrialState.stopped), row("b", TrialState.done)
    assert trial_status(stopped, alive=False, shown=("RUNNING", "running")) == ("KILLED", "stopped")
    assert group_status([stopped, done], set(), driven=True, chosen=["b" * 64]) == ("FINISHED", "winner bbbbbbbb")


def test_points_that_lie_on_no_grid_make_no_heat_map() -> None:
    scattered = [row(str(n), TrialState.done, **{"optim.lr": 0.1 + n, "optim.layer_decay": 0.5 + n}) for n in range(6)]
    assert heat_map("search", scattered, set()) is None
    on_grid = [
        row(f"{x}{y}", TrialState.done, **{"optim.lr": x, "optim.layer_decay": y}) for x in range(3) for y in "12"
    ]
    assert heat_map("grid", on_grid, set()) is not None
