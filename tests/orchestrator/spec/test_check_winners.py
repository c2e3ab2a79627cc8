"""An analysis is not chosen from: a stage or search that would take the best of it is one clear message."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import SpecError
from orchestrator.spec import load

ANALYSIS = """\
name: dark
trial:
  task: {kind: analysis, dataset: digits, images: 16}
  backbone: {image_size: 16, model: vit_tiny_patch16_224, args: {patch_size: 4, depth: 4}}
stages:
  - name: train
    override: {task: {kind: classify, dataset: digits}, optim: {lr: 1e-3, batch: 20, epochs: 2, warmup_epochs: 1}}
  - name: analyse
    sweep: {grid: {task.image_seed: [0, 1]}}
  - name: other
    override: {task: {kind: analysis, dataset: digits, images: 16}}
    from: train
"""
GRID = "sweep: {grid: {task.image_seed: [0, 1]}}"
OTHER = ANALYSIS[ANALYSIS.index("  - name: other") :]
FROM = "analyse: has no winner to take, since no value of attention_distance is better than another; remove it"
NOTHING = "no value of attention_distance is better than another, so there is none to search for; use a grid"
MISTAKES = {
    "winner of an analysis": ("from: train", "from: §analyse", f"stages.other.from: {FROM}"),
    "winner of an analysis or a training": ("from: train", "from: [train, §analyse]", f"stages.other.from: {FROM}"),
    "winner of an analysis of test": (
        f"{GRID}\n{OTHER}",
        "override: {task.evaluate: test}\n  - {name: other, from: §analyse}\n", FROM),
    "neighbours of an analysis": (
        "from: train", "from: §analyse\n    neighbourhood: {near: {task.image_seed: {add: [1]}}}", FROM),
    "winner by CKA": (
        f"{GRID}\n{OTHER}",
        "override: {task.measures: [cka]}\n  - {name: other, from: §analyse}\n", "no value of cka_mean is better"),
    "search in an analysis": (
        GRID, "sweep: {§search: {task.image_seed: {int: [0, 9]}}, trials: 2, stopping: none}",
        f"stages.analyse.sweep.search: {NOTHING}"),
    "search in an analysis with stopping": (
        GRID, "sweep: {§search: {task.image_seed: {int: [0, 9]}}, trials: 2}", NOTHING),
    "best weights of an analysis": (
        "    from: train", "    sweep: {grid: {backbone.init: [{kind: stage, name: A, stage: §analyse}]}}",
        "analyse: has 2 settings, and no value of attention_distance is better than another; give it one setting"),
}  # fmt: skip


def problems(folder: Path, text: str) -> list[str]:
    (folder / "spec.yaml").write_text(text)
    try:
        load(folder / "spec.yaml")
    except SpecError as error:
        return error.problems
    return []


@pytest.mark.parametrize("case", MISTAKES)
def test_each_mistake_is_one_message_at_its_place(case: str, tmp_path: Path) -> None:
    old, new, words = MISTAKES[case]
    assert ANALYSIS.count(old) == 1
    text = ANALYSIS.replace(old, new)
    (line,) = problems(tmp_path, text.replace("§", ""))
    assert words in line
    before = text.partition("§")[0].splitlines()
    assert f"spec.yaml:{len(before)}:{len(before[-1]) + 1}:" in line


@pytest.mark.parametrize(
    "part",
    [
        "from: train",
        "from: train\n    sweep: {grid: {task.image_seed: [0, 1]}}",
        "from: train\n    replicates: {n: 3, first: 1}",
        "sweep: {grid: {backbone.init: [{kind: stage, name: A, stage: train}]}}",
    ],
)
def test_an_analysis_may_be_of_a_winner_and_of_several_settings(part: str, tmp_path: Path) -> None:
    assert problems(tmp_path, ANALYSIS.replace("from: train", part)) == []
