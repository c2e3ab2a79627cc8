"""A claim that names layers, heads or pairs that its model does not have is told before anything runs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from analysed_models import ATTENTIVE, REPLKNET
from click.testing import CliRunner

from orchestrator.cli.jobs import plan
from orchestrator.errors import SpecError
from orchestrator.launch.model_problems import check_claims, check_models
from orchestrator.launch.preflight import CHECK
from orchestrator.spec.load import load
from workers.model_check import problems

BACKBONES = {
    name: {"model": spec.model, "image_size": spec.image_size, "args": spec.args}
    for name, spec in {**ATTENTIVE, "replknet": REPLKNET}.items()
}
TASK: dict[str, Any] = {"kind": "analysis", "dataset": "digits", "normalize": "half", "images": 24, "cka_batch": 12}


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are built in this process, which has imported timm."""

    def run(command: list[str], input: str, **_: object) -> subprocess.CompletedProcess[str]:
        assert command[1:] == ["-c", CHECK]
        return subprocess.CompletedProcess(command, 0, json.dumps(problems(json.loads(input)["models"])), "")

    monkeypatch.setattr(subprocess, "run", run)


def written(folder: Path, backbone: str, side: dict[str, Any], other: str = "") -> Path:
    """A spec with a claim about one analysed model; `other`: the model that it is compared with."""
    task = {**TASK, "measures": ["cka"], "other": {"backbone": BACKBONES[other]}} if other else TASK
    claim = {"name": "far", "left": side, "right": 0.5, "relation": "above"}
    job = {
        "name": "look",
        "trial": {"task": task, "backbone": BACKBONES[backbone]},
        "stages": [{"name": "look"}],
        "claims": [claim],
    }
    path = folder / "look.yaml"
    path.write_text(yaml.safe_dump(job, sort_keys=False))
    return path


ABSENT: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "ViT": (
        "vit", {"figure": "attention_distance", "layer": 2}, "",
        "left.layer: 2: vit_tiny_patch16_224: no such layer of attention_distance: it has 0, 1",
    ),
    "ViT, from the end": (
        "vit", {"figure": "attention_entropy", "layers": [0, -3]}, "",
        "left.layers: [0, -3]: vit_tiny_patch16_224: -3: no such layer of attention_entropy: it has 0, 1",
    ),
    "ViT, head": (
        "vit", {"figure": "head_divergence", "layer": 0, "item": "4"}, "",
        "left.item: 4: vit_tiny_patch16_224: head_divergence has no item 4",
    ),
    "SwinV2": (
        "swinv2", {"figure": "head_divergence", "layers": {"last": 5}}, "",
        "left.layers: {'last': 5}: swinv2_tiny_window8_256: 4 layers of head_divergence, not 5",
    ),
    "SwinV2, head of a wider stage": (
        "swinv2", {"figure": "head_divergence", "layer": 1, "item": "3"}, "",
        "left.item: 3: swinv2_tiny_window8_256: head_divergence has no item 3",
    ),
    "RepLKNet": (
        "replknet", {"figure": "attention_distance", "layer": 5}, "",
        "left.layer: 5: replknet_31b: no such layer of attention_distance: it has 0 to 4",
    ),
    "RepLKNet, whose divergence is the mean over other channels": (
        "replknet", {"figure": "head_divergence", "item": "0"}, "",
        "left.item: 0: replknet_31b: head_divergence has no item 0",
    ),
    "layer of another model": (
        "vit", {"figure": "cka", "item": "4"}, "swinv2", "left.item: 4: vit_tiny_patch16_224: cka has no item 4"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ABSENT)
def test_what_the_model_does_not_have(case: str, tmp_path: Path) -> None:
    backbone, side, other, said = ABSENT[case]
    path = written(tmp_path, backbone, side, other)
    field = said.partition(":")[0].partition(".")[2]
    (line,) = (n for n, text in enumerate(path.read_text().splitlines(), 1) if text.strip().startswith(f"{field}:"))
    for check in (check_claims, check_models):
        with pytest.raises(SpecError, match=r"look\.yaml") as caught:
            check(load(path), path)
        (problem,) = caught.value.problems
        place, _, rest = problem.partition(": claims.far.")
        assert rest == said
        assert int(place.split(":")[1]) in (line, line + 1)  # a mapping or list begins in the next line


@pytest.mark.parametrize(
    ("backbone", "side", "other"),
    [
        ("vit", {"figure": "attention_distance", "layers": [0, -2]}, ""),
        ("vit", {"figure": "head_divergence", "layer": 1, "item": "3", "pairs": "distinct"}, ""),
        ("swinv2", {"figure": "head_divergence", "layer": 3, "item": "3"}, ""),
        ("replknet", {"figure": "head_divergence", "layers": {"last": 5}}, ""),
        ("replknet", {"figure": "uniform_distance", "layer": 4}, ""),
        ("vit", {"figure": "cka", "pairs": "distinct", "reduce": "min"}, ""),
        ("vit", {"figure": "cka", "layer": 1, "item": "3"}, "swinv2"),
    ],
)
def test_what_the_model_has(backbone: str, side: dict[str, Any], other: str, tmp_path: Path) -> None:
    path = written(tmp_path, backbone, side, other)
    assert check_claims(load(path), path) == check_models(load(path), path) == []


def test_plan_says_it_too(tmp_path: Path) -> None:
    path = written(tmp_path, "vit", {"figure": "attention_distance", "layer": 7})
    with pytest.raises(SpecError, match=r"claims\.far\.left\.layer: 7: .*it has 0, 1"):
        CliRunner().invoke(plan, [str(path), "--runs", str(tmp_path / "runs")], catch_exceptions=False)


def test_claims_without_layers_build_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(subprocess, "run")
    path = written(tmp_path, "vit", {"figure": "attention_distance"})
    assert check_claims(load(path), path) == []
