"""Figures over layers and second axes: what their trials do not measure, or have not, is one clear message."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import SpecError
from orchestrator.spec import load

WITH_LAYERS = """\
name: dark
trial:
  task: {kind: analysis, dataset: digits, images: 16}
  backbone: {image_size: 16, model: vit_tiny_patch16_224}
stages:
  - name: train
    override: {task: {kind: classify, dataset: digits}, optim: {lr: 1e-3, batch: 20, epochs: 2, warmup_epochs: 1}}
  - name: analyse
    override: {backbone.args: {patch_size: 4, depth: 4}}
    sweep: {grid: {backbone.init: [{kind: none, name: RAND}]}}
report:
  layers:
    - {title: Figure 1, figure: attention_distance, anchor: uniform_distance, rows: [RAND]}
    - {title: Figure 6, figure: cka, form: matrix, stage: analyse, columns: digits}
    - {title: Figure 7, figure: train_loss, form: epochs, beside: top1, stage: train}
  plots: [{x: attention_distance, second: {stage: analyse, figure: cka_mean}}]
"""
MISTAKES = {
    "no such stage": ("stage: analyse, columns", "stage: §analyze, columns", "layers.stage: analyze: no such stage"),
    "nothing measured": (
        "stage: analyse, columns", "stage: §train, columns", "cka: its trials measure nothing for"),
    "another figure": (
        "figure: attention_distance", "figure: §attention_distances", "distances: not measured by its trials; "),
    "another anchor": ("anchor: uniform_distance", "anchor: §uniform", "anchor: uniform: not measured by"),
    "no such row": ("rows: [RAND]", "rows: [§SUP]", "rows: SUP: no trial of its stage has this"),
    "no such column": ("columns: digits", "columns: §faces", "columns: faces: no trial of its stage"),
    "files of another": ("title: Figure 6", "title: §figure-1", "its files would have the name of those"),
    "several columns": (
        "[{kind: none, name: RAND}]}", "[{kind: none, name: RAND}], task.dataset: [digits, faces]}",
        "Figure 1: has no columns, and its trials have several (digits, faces); name one or more"),
    "not reported": ("figure: train_loss", "figure: §train_lost", "train_lost: not reported by its trials after"),
    "not reported beside": ("beside: top1", "beside: [top1, §top3]", "beside: top3: not reported by its trials after"),
    "panels beside layers": (
        "form: matrix, stage", "form: matrix, beside: §cka, stage", "further figures: are panels of form epochs"),
    "second axis of no stage": ("second: {stage: analyse", "second: {stage: §analysis", "analysis: no such"),
    "second axis of no figure": ("figure: cka_mean", "figure: §cka_means", "cka_means: no such figure; "),
}  # fmt: skip


def problems(folder: Path, text: str) -> list[str]:
    (folder / "spec.yaml").write_text(text)
    try:
        load(folder / "spec.yaml")
    except SpecError as error:
        return error.problems
    return []


def test_the_spec_without_a_mistake_is_valid(tmp_path: Path) -> None:
    assert problems(tmp_path, WITH_LAYERS) == []


@pytest.mark.parametrize("case", MISTAKES)
def test_each_mistake_is_one_message_at_its_place(case: str, tmp_path: Path) -> None:
    old, new, words = MISTAKES[case]
    text = WITH_LAYERS.replace(old, new, 1)
    assert text != WITH_LAYERS
    before = text.partition("§")[0] if "§" in text else text.partition("- {title")[0]
    (line,) = problems(tmp_path, text.replace("§", ""))
    assert words in line
    assert f"spec.yaml:{before.count(chr(10)) + 1}:" in line
