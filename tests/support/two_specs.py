"""Two small specs of different tasks, and a table file that joins them."""

from __future__ import annotations

from pathlib import Path

from planned_jobs import run

from orchestrator.plan.trials import PlannedTrial
from orchestrator.spec import load
from orchestrator.store.store import Store

SEMANTIC = """\
name: semantic
trial:
  task: {kind: classify, dataset: digits}
  backbone: {model: vit_tiny_patch16_224, image_size: 32}
  optim: {lr: 1e-3, batch: 32, epochs: 4, warmup_epochs: 1}
stages:
  - name: tune
    per: [task.dataset, backbone.init]
    sweep:
      grid:
        task.dataset: [digits, textures]
        backbone.init: [{kind: none, name: RAND}, {kind: file, name: SUP, path: w.safetensors}]
        optim.lr: [1e-3, 2e-3]
  - name: final
    from: tune
    replicates: 3
    override: {task.train: trainval, task.evaluate: test}
profiles:
  long: {trial: {optim: {epochs: 8}}}
"""
MASKED = """\
name: masked
trial:
  task: {kind: pretrain, dataset: digits-pretrain}
  backbone: {model: swinv2_tiny_window8_256, image_size: 64}
  optim: {lr: 1e-3, batch: 32, epochs: 4, warmup_epochs: 1}
stages:
  - name: train
    per: [backbone.init]
    replicates: 3
    sweep: {grid: {backbone.init: [{kind: none, name: RAND}, {kind: file, name: 1K-SUP, path: w.safetensors}]}}
report: {columns: task.dataset}
"""
TABLE = """\
name: both
caption: Two studies side by side
columns:
  - {title: Digits, job: semantic.yaml, where: {task.dataset: digits}, figure: top1}
  - {title: Masked, job: masked.yaml, stage: train, figure: loss}
  - {title: Textures, job: semantic.yaml, where: {task.dataset: textures}, figure: top1}
rows:
  - {name: random, weights: RAND}
  - {name: supervised, weights: [SUP, 1K-SUP]}
averages: [{name: Mean, over: [Digits, Textures]}]
reference:
  source: Table 9 of a paper
  values: {random: {Digits: 70, Masked: 0.5}, supervised: {Digits: 80.04}}
  rows: [{name: HRFormer, source: its own paper, values: {Digits: 90, Masked: {loss: 0.25}, Mean: 91}}]
"""

SHARES = {"digits": 0.5, "textures": 0.25, "digits-pretrain": 0.125}
"""Data set -> the accuracy of random weights and, in a pre-training task, the loss."""


def measured(trial: PlannedTrial) -> dict[str, float]:
    """SUP is better than RAND by 0.1 in accuracy, and worse by 0.1 in loss; seeds differ by hundredths."""
    names = [metric.name for metric in trial.spec.task.metrics]
    supervised = trial.spec.backbone.init.name in ("SUP", "1K-SUP")
    value = SHARES[str(trial.settings.get("task.dataset", trial.spec.task.model_dump()["dataset"]))]
    number = value + 0.1 * supervised + 0.01 * (trial.spec.seed % 3)
    return dict.fromkeys(names, number)


def write(folder: Path, table: str = TABLE) -> Path:
    """Both specs and the table in a folder; returns the path of the table's file."""
    (folder / "semantic.yaml").write_text(SEMANTIC)
    (folder / "masked.yaml").write_text(MASKED)
    (folder / "both.yaml").write_text(table)
    return folder / "both.yaml"


def ran(folder: Path, store: Store, *names: str) -> list[str]:
    """The ids of these jobs, or of both, after they ran."""
    return [run(store, load(folder / f"{name}.yaml"), measured) for name in names or ("semantic", "masked")]
