"""What `plan` and `validate` say of a job before it runs: data and weights that are not here, and lost causes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from huggingface_hub import constants
from torch import hub

from orchestrator.cli.main import cli
from orchestrator.launch.notes import caveats, missing, training_caveats
from orchestrator.spec.job import JobSpec
from orchestrator.spec.load import load

TAG = "test_vit.r160_in1k"
SPEC = """\
name: notes
trial:
  task: {kind: classify, dataset: digits}
  backbone: {model: vit_tiny_patch16_224, image_size: 32, args: {patch_size: 4, embed_dim: 16, depth: 1, num_heads: 2}}
  optim: {lr: 1e-3, batch: 20, epochs: 2, warmup_epochs: 1}
stages:
  - {name: grid, per: [task.dataset, backbone.init], GRID}
  - {name: final, from: grid, override: {task.train: trainval, task.evaluate: test}}
"""
Written = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Written:
    """Writes the spec; both caches of timm's weights are empty folders below."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "_hub_dir", str(tmp_path / "torch"))

    def write(grid: str = "sweep: {grid: {optim.lr: [1e-3, 2e-3]}}", **replaced: str) -> Path:
        text = SPEC.replace("GRID", grid)
        for old, new in replaced.items():
            text = text.replace(old, new)
        path = tmp_path / "spec.yaml"
        path.write_text(text)
        return path

    return write


def lines(path: Path, root: Path) -> list[str]:
    return missing(load(path), root)


def test_a_job_that_lacks_nothing_has_no_lines(write: Written, tmp_path: Path) -> None:
    assert lines(write(), tmp_path) == []


def test_data_and_weights_are_named_once_each_with_the_remedy(write: Written, tmp_path: Path) -> None:
    init = f"{{kind: timm, name: SUP, tag: {TAG}}}, {{kind: file, name: MIM, path: mim.safetensors}}"
    found = lines(
        write(f"sweep: {{grid: {{task.dataset: [food101, pets], backbone.init: [{{kind: none}}, {init}], optim.lr: "
              "[1e-3, 2e-3]}}, override: {task.augment: light}"), tmp_path
    )  # fmt: skip
    assert [line.partition(":")[0] for line in found] == ["food101", "pets", "weights SUP", "weights MIM"]
    assert "food-101" in found[0]
    assert "\n" not in "".join(found)
    assert "not in timm's cache here; trials fetch it, or once: python -c" in found[2]
    assert f"timm.create_model('{TAG}', pretrained=True)" in found[2]
    assert "mim.safetensors; put it there" in found[3]


def test_weights_in_a_cache_are_not_missing(write: Written, tmp_path: Path) -> None:
    path = write("override: {backbone.init: {kind: timm, name: SUP, tag: " + TAG + "}}")
    assert len(lines(path, tmp_path)) == 1
    snapshot = tmp_path / "hub" / f"models--timm--{TAG}" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    (snapshot / "model.safetensors").write_bytes(b"")
    assert lines(path, tmp_path) == []


def test_weights_from_an_address_of_their_own_are_looked_for_in_torchs_cache(write: Written, tmp_path: Path) -> None:
    import timm

    tag = "vit_tiny_patch16_224.augreg_in21k"
    url = timm.get_pretrained_cfg(tag).url
    if not url:
        pytest.skip("timm no longer has an address for this tag")
    path = write("override: {backbone.init: {kind: timm, name: SUP, tag: " + tag + "}}")
    assert len(lines(path, tmp_path)) == 1
    (tmp_path / "torch" / "checkpoints").mkdir(parents=True)
    (tmp_path / "torch" / "checkpoints" / Path(url).name).write_bytes(b"")
    assert lines(path, tmp_path) == []


def test_a_tag_that_timm_does_not_have_is_named(write: Written, tmp_path: Path) -> None:
    path = write("override: {backbone.init: {kind: timm, name: SUP, tag: test_vit.in_nothing}}")
    (line,) = lines(path, tmp_path)
    assert line.startswith("weights SUP: this timm has no weights test_vit.in_nothing")


def test_a_file_without_digest_is_read_and_its_digest_said(write: Written, tmp_path: Path) -> None:
    (tmp_path / "mim.safetensors").write_bytes(b"abc")
    path = write("override: {backbone.init: {kind: file, name: MIM, path: mim.safetensors}}")
    (line,) = lines(path, tmp_path)
    assert "sha256 is not filled in" in line
    assert "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" in line


@pytest.mark.parametrize(
    ("augment", "size", "said"),
    [
        ("", 32, "crops down to 8 % of the area, rand-m9-mstd0.5-inc1"),
        (", augment: {preset: light, rand_augment: rand-m9}", 32, "(rand-m9)"),
        (", augment: {preset: light, crop_scale: [0.1, 1]}", 92, "(crops down to 10 % of the area)"),
        (", augment: light", 32, ""),
        (", augment: {preset: light, mixup: 0.8, erasing: 0.25}", 32, ""),
        ("", 96, ""),
    ],
)
def test_small_images_under_augmentation_for_large_ones_are_told(
    write: Written, augment: str, size: int, said: str
) -> None:
    job = load(write(digits=f"digits{augment}", **{"image_size: 32": f"image_size: {size}"}))
    found = training_caveats(job)
    assert found == caveats(job)
    assert len(found) == bool(said)
    if said:
        assert f"images of {size} x {size} pixels under augmentation made for 192 and more" in found[0]
        assert said in found[0]
        assert found[0].endswith("task.augment: light")


def test_nothing_is_said_of_augmentation_where_nothing_is_trained(write: Written) -> None:
    path = write("override: {optim.epochs: 0, optim.warmup_epochs: 0}", **{"  - {name: final, from: grid, override: "
                 "{task.train: trainval, task.evaluate: test}}\n": ""})  # fmt: skip
    assert training_caveats(load(path)) == []


STAGES = """\
name: own-weights
trial:
  task: {kind: classify, dataset: digits, augment: light, normalize: HERE}
  backbone: {model: vit_tiny_patch16_224, image_size: 32, args: {patch_size: 4, embed_dim: 16, depth: 1, num_heads: 2}}
  optim: {lr: 1e-3, batch: 20, epochs: 2, warmup_epochs: 1}
stages:
  - name: pretrain
    override: {task: {kind: pretrain, dataset: digits-pretrain, mask_patch: 4, normalize: THERE, augment: {flip: 0}}}
  - {name: grid, sweep: {grid: {optim.lr: [1e-3, 2e-3]}}, override: {backbone.init: {INIT}}}
  - {name: final, from: grid, override: {task.train: trainval, task.evaluate: test}}
"""


@pytest.mark.parametrize(
    ("here", "there", "init", "told"),
    [
        ("imagenet", "half", "kind: stage, name: MIM, stage: pretrain", True),
        ("half", "imagenet", "kind: stage, name: MIM, stage: pretrain", True),
        ("half", "half", "kind: stage, name: MIM, stage: pretrain", False),
        ("imagenet", "half", "kind: none", False),
        ("imagenet", "half", "kind: stage, name: MIM, stage: pretrain, job: another", False),  # it is not known here
    ],
)
def test_weights_of_a_stage_that_prepared_its_images_otherwise_are_told_once(
    here: str, there: str, init: str, told: bool, tmp_path: Path
) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(STAGES.replace("THERE", there).replace("HERE", here).replace("INIT", init))
    mean = {"half": "0.5", "imagenet": "0.485 0.456 0.406"}
    deviation = {"half": "0.5", "imagenet": "0.229 0.224 0.225"}
    line = (
        f"weights MIM: trained with other preprocessing, by stage pretrain: mean {mean[there]} (here {mean[here]}), "
        f"standard deviation {deviation[there]} (here {deviation[here]})"
    )
    assert [each for each in caveats(load(path)) if "preprocessing" in each] == [line] * told


def test_every_stage_and_axis_is_looked_at(write: Written) -> None:
    def sizes(grid: str) -> list[str]:
        job: JobSpec = load(write(grid, **{"image_size: 32": "image_size: 224"}))
        return [line.partition(" pixels")[0] for line in training_caveats(job)]

    assert sizes("sweep: {grid: {backbone.image_size: [32, 224, 64]}}") == ["images of 32 x 32", "images of 64 x 64"]
    assert sizes("sweep: {grid: {task.augment: [light, none]}}, override: {backbone.image_size: 32}") == []
    assert sizes("override: {backbone.image_size: 48}") == ["images of 48 x 48"]


def test_validate_and_plan_print_them(write: Written, tmp_path: Path) -> None:
    path = write("override: {task.dataset: food101}")
    validated = CliRunner().invoke(cli, ["validate", str(path), "--data-root", str(tmp_path / "data")])
    assert validated.exit_code == 0
    assert "valid; job notes-" in validated.stdout
    assert "note: images of 32 x 32 pixels under augmentation" in validated.stderr
    assert "note: missing here: food101: not found under" in validated.stderr
    planned = CliRunner().invoke(cli, ["plan", str(path), "--data-root", str(tmp_path / "data"), "--runs", "none"])
    assert planned.exit_code == 0
    assert "missing here: food101: not found under" in planned.stdout
    assert "images of 32 x 32 pixels under augmentation" in planned.stdout
