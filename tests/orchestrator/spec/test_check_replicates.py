"""Replicates in a spec: seeds that would be chosen among, and counts that do not go together, are refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from good_spec import GOOD, Write, _problems

from orchestrator.spec import load
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.spec.seeds import StageSeeds
from tasks.bounds import MAX_SEED

SEARCH = """\
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
      trials: 4
      stopping: none
  - name: final
    from: search
    override: {task.evaluate: test}
"""
STOPPING = SEARCH.replace("stopping: none", "stopping: {asha: {grace_epochs: 4}}")
POPULATION = SEARCH.replace("stopping: none", "population: {size: 4, every_epochs: 5}")
AXIS = "        optim.layer_decay: [0.75, 0.95]\n"
PRETRAIN, GRID, FINAL = "    override: {task.dataset: digits-pretrain}\n", "  - name: grid\n", "  - name: final\n"
NEAR = "        optim.lr: {multiply: [0.5, 2]}\n"
LUCKY = "which would be the luckiest seed; write replicates: n instead"
AGAIN = "  - {name: again, from: grid, override: {seed: 5}}\n  - name: final\n    from: [grid, §again]"

BAD = {
    "axis of seeds": (GOOD, AXIS, AXIS + "        §seed: [0, 1, 2]\n", "seed: refine takes its winner", LUCKY),
    "search over seeds": (
        SEARCH, "      trials: 4\n", "        §seed: {int: [0, 9]}\n      trials: 4\n", "final takes its", LUCKY),
    "weights of the best seed": (
        GOOD, PRETRAIN, PRETRAIN + "    sweep: {grid: {§seed: [0, 1]}}\n", "grid starts from its best weights", LUCKY),
    "neighbours of a seed": (
        GOOD, NEAR, NEAR + "        §seed: {add: [1, 2]}\n", "a seed has no neighbourhood", "replicates: n"),
    "tie by seed": (GOOD, "    from: grid\n", "    from: grid\n    ties: [§'seed:min']\n", "a seed decides nothing"),
    "sources with other seeds": (
        GOOD, FINAL + "    from: [grid, refine]", AGAIN.replace("[grid, §again]", "§[grid, again]"),
        "run with different seeds (grid: 1; again: 5)", "give them equal seeds"),
    "none": (GOOD, FINAL, FINAL + "    replicates: §0\n", "replicates: 0: must be greater than or equal to 1"),
    "too many": (GOOD, FINAL, FINAL + "    replicates: §1001\n", "must be less than or equal to 1000"),
    "too many in a mapping": (
        GOOD, FINAL, FINAL + "    replicates: {n: §1001}\n", "replicates.n: 1001: must be less than or equal to 1000"),
    "negative": (GOOD, FINAL, FINAL + "    replicates: {n: 2, first: §-1}\n", "first: -1: must be greater than or"),
    "beyond the last seed": (
        GOOD, FINAL, FINAL + f"    replicates: §{{n: 2, first: {MAX_SEED}}}\n", "the last seed", "a smaller first"),
    "text": (GOOD, FINAL, FINAL + "    replicates: §five\n", "must be a whole number, or {n: how many, first: the"),
    "list": (GOOD, FINAL, FINAL + "    replicates: §[0, 1]\n", "must be a whole number, or {n: how many, first: the"),
    "boolean": (GOOD, FINAL, FINAL + "    replicates: §true\n", "must be a whole number, or {n: how many, first: the"),
    "without n": (GOOD, FINAL, FINAL + "    replicates: §{first: 2}\n", "replicates.n: missing"),
    "misspelt": (GOOD, FINAL, FINAL + "    replicates: {n: 2, §frst: 2}\n", "no such field", "nearest: first"),
    "and an override": (
        GOOD, "task.evaluate: test}\n", "task.evaluate: test, §seed: 3}\n    replicates: 2\n", "keep one of them"),
    "and an axis": (
        GOOD, "task.evaluate: test}\n",
        "task.evaluate: test}\n    replicates: 2\n    sweep: {grid: {§seed: [2, 3]}}\n", "keep one of them"),
    "and an axis whose winner is taken": (
        GOOD, AXIS, AXIS + "        §seed: [0, 1, 2]\n    replicates: 2\n", "keep one of them"),
    "groups by seed": (
        GOOD, PRETRAIN, PRETRAIN + "    per: seed\n    replicates: §2\n", "each group has a seed of its own"),
    "around a winner with more": (
        GOOD, GRID, GRID + "    replicates: 3\n", "its points are compared with those of grid, which run with 3 seeds",
        "write replicates: 3"),
    "around a winner with fewer": (
        GOOD, "    from: grid\n", "    from: grid\n    §replicates: 3\n", "those of grid, which run with 1 seed (1)",
        "write replicates: 3 in grid too, or remove it here"),
    "around a winner with others": (
        GOOD, "    from: grid\n", "    from: grid\n    §replicates: {n: 1, first: 2}\n", "write replicates: 1"),
    "luck of the chosen": (
        GOOD, FINAL, FINAL + "    replicates: {n: 3, first: §1}\n", "its setting was chosen with seeds 1, whose luck",
        "write first: 2, or leave first out"),
    "luck of the chosen at the end": (
        GOOD, FINAL, FINAL + "    replicates: {n: 3, first: §0}\n", "its setting was chosen with seeds 1, whose luck",
        "write first: 2, or leave first out"),
    "more weights": (
        GOOD, GRID, "    replicates: 2\n" + GRID + "    §replicates: 3\n",
        "runs 3 seeds, but starts from stage pretrain, which has 2", "write replicates: 2, or none"),
    "more weights through a winner": (
        GOOD, PRETRAIN, PRETRAIN + "    replicates: 2\n", "starts from stage pretrain, which has 2",
        "write replicates: 2, or none"),
    "weights for an axis of seeds": (
        GOOD, FINAL,
        "  - name: more\n    override: {backbone.init: {kind: stage, name: A, stage: pretrain}}\n"
        "    §sweep: {grid: {seed: [0, 1]}}\n" + FINAL,
        "runs 2 seeds, but starts from stage pretrain, which has 2", "write replicates: 2"),
    "early stopping": (
        STOPPING, FINAL, "    replicates: §2\n" + FINAL, "stops early has no result",
        "remove stopping or replicates"),
    "population": (
        POPULATION, FINAL, "    replicates: §2\n" + FINAL, "members of a population", "remove it"),
    "after a population": (
        POPULATION, "    from: search\n", "    from: search\n    §replicates: 2\n", "cannot have a neighbourhood"),
    "other weights of one name": (
        GOOD, "{kind: none, name: RAND}, ", "{kind: none, name: SUP}, §", "other weights are called 'SUP' too"),
    "too many trials": (
        GOOD, PRETRAIN, PRETRAIN + "    sweep: {grid: {optim.lr: {linspace: [0.1, 0.2, 101]}}}\n    replicates: 1000\n",
        "101,000 trials; a job has at most 100,000"),
}  # fmt: skip
"""Name -> spec, what is replaced in it, by what (§: the place of the message), words of the message."""
REFINE = ("    neighbourhood:\n", "    replicates: 3\n    neighbourhood:\n")
ALSO = {
    "more weights": [REFINE],
    "more weights through a winner": [(FINAL, FINAL + "    §replicates: 3\n")],
    "weights for an axis of seeds": [(GRID, "    replicates: 2\n" + GRID)],
    "around a winner with more": [("    neighbourhood:\n", "    §neighbourhood:\n")],
    "other weights of one name": [(GRID, GRID + "    replicates: 3\n"), REFINE],
}
"""Other changes that make the mistake."""


def text_of(case: str) -> str:
    """The spec of a case, with § before the place of its message."""
    base, old, new, *_ = BAD[case]
    assert base.count(old) >= 1
    text = base.replace(old, new, 1)
    for old, new in ALSO.get(case, ()):
        assert text.count(old) >= 1
        text = text.replace(old, new, 1)
    return text


@pytest.mark.parametrize("case", BAD)
def test_mistake_is_named_once_and_at_its_place(case: str, write: Write) -> None:
    marked = text_of(case)
    words = BAD[case][3:]
    problems = _problems(write(marked.replace("§", "")))
    assert len(problems) == 1, problems
    assert all(word in problems[0] for word in words), problems
    if "§" in marked:
        before = marked.partition("§")[0]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        assert f"spec.yaml:{line}:{column}: " in problems[0], problems


STARTS = "backbone.init: {kind: stage, name: A, stage: pretrain}"
ALLOWED = {
    "five pre-trainings and one grid": [(GRID, "    replicates: 5\n" + GRID), (FINAL, FINAL + "    replicates: 5\n")],
    "one checkpoint": [(FINAL, FINAL + "    replicates: 5\n")],
    "everywhere": [
        (GRID, "    replicates: 3\n" + GRID + "    replicates: 3\n"),
        ("    neighbourhood:\n", "    replicates: 3\n    neighbourhood:\n"), (FINAL, FINAL + "    replicates: 3\n"),
    ],
    "after those that chose": [(FINAL, FINAL + "    replicates: {n: 3, first: 2}\n")],
    "one replicate is one seed": [(GRID, "    replicates: 5\n" + GRID + "    replicates: 1\n")],
    "seeds from whose groups weights are taken by name": [
        (PRETRAIN, PRETRAIN + "    per: seed\n    sweep: {grid: {seed: [0, 1]}}\n"),
        ("stage: pretrain}", "stage: pretrain, group: '1'}"),
    ],
    "an axis of seeds at the end": [
        ("task.evaluate: test}\n", "task.evaluate: test}\n    sweep: {grid: {seed: [2, 3]}}\n")],
    "other weights in the last stage": [
        (GRID, "    replicates: 2\n" + GRID), (FINAL, FINAL + "    replicates: 3\n"),
        ("task.evaluate: test}", "task.evaluate: test, backbone.init: {kind: none, name: NEW}}"),
    ],
    "the last seeds": [(FINAL, FINAL + f"    replicates: {{n: 2, first: {MAX_SEED - 1}}}\n")],
}  # fmt: skip


@pytest.mark.parametrize("case", ALLOWED)
def test_what_goes_together_is_allowed(case: str, write: Write) -> None:
    text = GOOD
    for old, new in ALLOWED[case]:
        assert old in text
        text = text.replace(old, new, 1)
    load(write(text))


def test_a_plain_search_may_have_replicates(write: Write) -> None:
    job = load(write(SEARCH.replace(FINAL, "    replicates: 3\n" + FINAL + "    replicates: 3\n")))
    assert {stage: len(seeds) for stage, seeds in StageSeeds(job).of.items()} == {"search": 3, "final": 3}


def seeds_of(*stages: dict[str, Any], seed: int = 0) -> dict[str, tuple[int, ...]]:
    trial = {"task": {"kind": "classify"}, "seed": seed}
    return StageSeeds(JobSpec.model_validate({"name": "a", "trial": trial, "stages": list(stages)})).of


def test_the_seeds_of_each_stage() -> None:
    near = {"near": {"optim.lr": {"add": [1]}}}
    assert seeds_of(
        {"name": "a", "replicates": 3},
        {"name": "b", "from": "a", "neighbourhood": near, "replicates": 3},
        {"name": "c", "from": ["a", "b"], "replicates": 2},
        {"name": "d", "from": "c", "replicates": {"n": 2, "first": 50}},
        {"name": "e", "from": "d", "replicates": 1},
        {"name": "f", "from": "d"},
        {"name": "g", "override": {"seed": 9}},
        {"name": "h", "sweep": {"grid": {"seed": [1, 2]}}},
        seed=4,
    ) == {
        "a": (4, 5, 6), "b": (4, 5, 6), "c": (7, 8), "d": (50, 51), "e": (52,), "f": (50,), "g": (9,), "h": (1, 2),
    }  # fmt: skip


def test_a_job_without_replicates_keeps_its_id() -> None:
    stages = [{"name": "a"}, {"name": "b", "from": "a"}]
    content = {"name": "a", "trial": {"task": {"kind": "classify"}}, "stages": stages}
    plain, none, some, mapping = (
        job_id(JobSpec.model_validate({**content, "stages": [stages[0], {**stages[1], **more}]}))
        for more in ({}, {"replicates": None}, {"replicates": 3}, {"replicates": {"n": 3}})
    )
    assert plain == none != some == mapping
    assert json.loads(JobSpec.model_validate(content).model_dump_json())["stages"][0]["replicates"] is None
