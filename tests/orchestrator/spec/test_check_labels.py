"""Two names for the same weights in one stage are one trial behind two rows, and are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import SpecError
from orchestrator.spec import load

DIGEST = "ab" * 32
SPEC = """
name: twice
trial:
  task: {kind: classify, dataset: digits}
  backbone: {model: vit_tiny_patch16_224, image_size: 16, args: {patch_size: 4}}
  optim: {lr: 1e-3, batch: 40, epochs: 4, warmup_epochs: 1}
stages:
  - name: pretrain
    override: {task: {kind: pretrain, dataset: digits-pretrain, mask_patch: 4}, backbone.init: {kind: none}}
  - name: one
    sweep:
      grid: GRID
"""


def problems(tmp_path: Path, grid: str) -> list[str]:
    (tmp_path / "x.yaml").write_text(SPEC.replace("GRID", grid))
    try:
        load(tmp_path / "x.yaml")
    except SpecError as error:
        return error.problems
    return []


def axis(first: str, second: str) -> str:
    return f"{{backbone.init: [{{{first}}}, {{{second}}}]}}"


@pytest.mark.parametrize(
    "grid",
    [
        axis("kind: none, name: A", "kind: none, name: B"),
        axis("kind: none", "kind: none, name: B"),
        axis("kind: timm, name: A, tag: test_vit.r160_in1k", "kind: timm, name: B, tag: test_vit.r160_in1k"),
        axis("kind: stage, name: A, stage: pretrain", "kind: stage, name: B, stage: pretrain"),
        axis(
            f"kind: file, name: A, path: a.safetensors, sha256: {DIGEST}",
            f"kind: file, name: B, path: b.safetensors, sha256: {DIGEST}",
        ),
        "[{backbone.init: [{kind: none, name: A}], optim.lr: [1e-3]}, "
        "{backbone.init: [{kind: none, name: B}], optim.lr: [2e-3]}]",
    ],
)
def test_the_same_weights_under_two_names_are_refused(tmp_path: Path, grid: str) -> None:
    (line,) = problems(tmp_path, grid)
    assert "x.yaml:12:" in line
    assert "stages.one.sweep.backbone.init" in line
    assert "under another name: one trial would stand behind two rows; keep one of them" in line


def test_groups_of_a_search_are_looked_at_too(tmp_path: Path) -> None:
    search = "search: {optim.lr: {loguniform: [1e-4, 1e-2]}}\n      each: GRID\n      trials: 3"
    text = SPEC.replace("grid: GRID", search).replace("GRID", axis("kind: none, name: A", "kind: none, name: B"))
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(SpecError, match=r"x.yaml:13:.*the same weights as 'A' under another name"):
        load(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    "grid",
    [
        axis("kind: none, name: A", "kind: stage, name: B, stage: pretrain"),
        axis("kind: file, name: A, path: a.safetensors", "kind: file, name: B, path: b.safetensors"),
        "[{backbone.init: [{kind: none, name: A}], optim.lr: [1e-3]}, "
        "{backbone.init: [{kind: none, name: A}], optim.lr: [2e-3]}]",
    ],
)
def test_different_weights_and_one_name_are_fine(tmp_path: Path, grid: str) -> None:
    assert problems(tmp_path, grid) == []


OTHER = "{kind: stage, name: A, stage: pretrain}"


@pytest.mark.parametrize(
    ("grid", "clash"),
    [
        ("[{backbone.init: [{kind: none, name: A}, %s]}]", True),
        ("[{FIRST, optim.lr: [1e-3, 2e-3]}, {backbone.init: [%s], optim.lr: [2e-3]}]", True),
        ("[{FIRST, optim.lr: [1e-3]}, {backbone.init: [%s], optim.lr: [2e-3]}]", False),
        ("[{FIRST}, {backbone.init: [%s], optim.lr: [2e-3]}]", True),
    ],
)  # fmt: skip
def test_replicates_need_names_for_weights_that_nothing_else_tells_apart(
    tmp_path: Path, grid: str, clash: bool
) -> None:
    found = problems(
        tmp_path, grid.replace("FIRST", "backbone.init: [{kind: none, name: A}]") % OTHER + "\n    replicates: 2"
    )
    assert any("other weights are called 'A' too" in line for line in found) is clash
    assert clash or found == []
