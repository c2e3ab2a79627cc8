"""What timm cannot build, or take through layer decay, is told by `validate` with the place of the model's name."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from orchestrator.cli.jobs import validate
from orchestrator.errors import SpecError
from orchestrator.launch.preflight import CHECK
from workers.model_check import problems

SPEC = """
name: env
trial:
  task: {kind: classify, dataset: digits, normalize: half}
  backbone:
    model: caformer_s18
    image_size: 64
    init: {kind: none, name: RAND}
  optim: {lr: 1e-3, batch: 40, epochs: 1, warmup_epochs: 0, weight_decay: 0.05, schedule: cosine}
stages:
  - name: one
    sweep: {grid: {optim.lr: [1e-3]}}
"""


def written(folder: Path, *changes: str) -> str:
    """A spec with lines of YAML in the place of those that begin alike."""
    text = SPEC
    for change in changes:
        name = change.partition(":")[0]
        text = "\n".join(change if line.startswith(f"{name}:") else line for line in text.splitlines())
    (folder / "x.yaml").write_text(text)
    assert yaml.safe_load(text)
    return str(folder / "x.yaml")


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are built in this process, which has imported timm."""

    def run(command: list[str], input: str, **_: object) -> subprocess.CompletedProcess[str]:
        assert command[1:] == ["-c", CHECK]
        return subprocess.CompletedProcess(command, 0, json.dumps(problems(json.loads(input)["models"])), "")

    monkeypatch.setattr(subprocess, "run", run)


def test_models_are_built_in_a_process_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="vgg11 has no drop path"):
        CliRunner().invoke(
            validate, [written(tmp_path, "    model: vgg11\n    drop_path: 0.1")], catch_exceptions=False
        )


def test_a_process_that_fails_is_said_and_the_spec_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 1, "", "Traceback\nOSError: no room")
    )
    result = CliRunner().invoke(validate, [written(tmp_path)], catch_exceptions=False)
    assert "models were not built: the process that builds them ended (OSError: no room)" in result.stderr
    assert "valid; job env-" in result.stdout


@pytest.mark.usefixtures("here")
def test_a_family_without_an_image_size_is_valid_with_and_without_it(tmp_path: Path) -> None:
    spec = written(tmp_path)
    for flags in ([], ["--set", "backbone.model=ese_vovnet19b_slim_dw"]):
        result = CliRunner().invoke(validate, [spec, *flags], catch_exceptions=False)
        assert "valid; job env-" in result.output
    text = Path(spec).read_text().replace("    image_size: 64\n", "").replace("caformer_s18", "hrnet_w18_small")
    Path(spec).write_text(text)
    assert "valid; job env-" in CliRunner().invoke(validate, [spec], catch_exceptions=False).output


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            ["    model: caformer_s18\n    args: {dept: [1, 1, 1, 1]}"],
            r"x.yaml:6:12: backbone.model: caformer_s18: timm .*not among its arguments: dept \(nearest: depths\)",
        ),
        (
            ["  optim: {lr: 1e-3, batch: 40, epochs: 1, warmup_epochs: 0, layer_decay: 0.8}"],
            r"x.yaml:6:12: backbone.model: caformer_s18: layer decay needs one part .* MetaFormer has none",
        ),
        (
            ["    sweep: {grid: {backbone.model: [resnet10t, swin_tiny_patch4_window7_224]}}"],
            r"x.yaml:12:48: backbone.model: swin_tiny_patch4_window7_224: window 7 does not divide",
        ),
        (
            ["    model: vit_tiny_patch16_224", "    sweep: {grid: {backbone.drop_last: [null, 11, 12]}}"],
            r"x.yaml:6:12: backbone.model: vit_tiny_patch16_224: backbone.drop_last 12: vit_tiny_patch16_224 has 12 "
            r"blocks, of which at least one has to be left; use 0 to 11$",
        ),
        (
            ["    model: resnet10t\n    drop_last: 1"],
            r"x.yaml:6:12: backbone.model: resnet10t: backbone.drop_last 1 is not written for resnet10t \(ResNet\)",
        ),
    ],
)
@pytest.mark.usefixtures("here")
def test_what_cannot_be_had_is_told_at_the_name_of_the_model(tmp_path: Path, changes: list[str], said: str) -> None:
    with pytest.raises(SpecError, match=said) as caught:
        CliRunner().invoke(validate, [written(tmp_path, *changes)], catch_exceptions=False)
    assert len(caught.value.problems) == 1


@pytest.mark.usefixtures("here")
def test_described_data_and_weights_of_other_jobs_do_not_stand_in_the_way(tmp_path: Path) -> None:
    spec = written(
        tmp_path,
        "  task: {kind: classify, dataset: {kind: folder, path: ships}}",
        "    init: {kind: stage, name: MIM, job: other, stage: pretrain}",
    )
    result = CliRunner().invoke(validate, [spec], catch_exceptions=False)
    assert "valid; job env" in result.output, result.output
