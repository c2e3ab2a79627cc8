"""A spec without a mistake, from which tests make others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import SpecError
from orchestrator.spec import load

FIGURES = """\
name: figures
trial:
  task: {kind: classify, dataset: faces}
  backbone: {model: vit_tiny_patch16_224, image_size: 64}
  optim: {lr: 1e-3, batch: 32, epochs: 4, warmup_epochs: 1}
stages:
  - {name: only}
report: REPORT
"""
"""A small spec, whose report a test fills in."""

GOOD = """\
name: test-grid
profile: small
trial:
  task: {kind: classify, dataset: digits}
  backbone: {model: vit_tiny_patch16_224, image_size: 32, init: {kind: none}}
  optim: {lr: 1e-3, batch: 32, epochs: 4, warmup_epochs: 1}
stages:
  - name: pretrain
    override: {task.dataset: digits-pretrain}
  - name: grid
    per: [task.dataset, backbone.init]
    sweep:
      grid:
        task.dataset: [digits, faces]
        backbone.init: [{kind: none, name: RAND}, {kind: stage, name: SUP, stage: pretrain}]
        optim.lr: {logspace: [1e-4, 1e-2, 3]}
        optim.layer_decay: [0.75, 0.95]
  - name: refine
    from: grid
    neighbourhood:
      near:
        optim.lr: {multiply: [0.5, 2]}
        optim.layer_decay: {add: [-0.05, 0.05], high: 1}
  - name: final
    from: [grid, refine]
    override: {task.train: trainval, task.evaluate: test}
report:
  averages: [{name: Mean, over: [digits, faces]}]
profiles:
  small: {trial: {seed: 1}}
  large:
    trial: {optim: {epochs: 8}, backbone: {init: {kind: file, name: MIM, path: w.safetensors}}}
    stages:
      pretrain: null
      grid:
        resources: {gpus: 1}
        sweep: {grid: {backbone.init: [{kind: none}], optim.lr: {linspace: [0.1, 0.3, 3]}}}
      again: {name: again, from: grid, sweep: {grid: {seed: [0, 1, 2]}}}
"""

GRID = GOOD[GOOD.index("      grid:\n") : GOOD.index("  - name: refine")]

Write = Callable[[str], Path]


def _problems(path: Path, profile: str | None = None, *overrides: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load(path, profile, overrides)
    assert caught.value.exit_code == 3
    return caught.value.problems
