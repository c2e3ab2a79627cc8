"""Models of trials outside of their study: loaded, exported for timm alone, and imported again."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional

from orchestrator import api
from orchestrator.cli.main import main
from orchestrator.errors import BadInput, Conflict, NotFound
from orchestrator.launch.trained_models import TrainedModel
from orchestrator.records.rows import JobRecord, Placement
from orchestrator.records.trial_files import recorded_path, trial_folder
from orchestrator.records.writes import Finished
from orchestrator.settings import Settings, settings
from orchestrator.store.leases import driver_here
from orchestrator.store.store import open_store
from tasks.backbones.spec import BackboneSpec
from workers.messages import Outcome, Weights
from workers.state import RankContext
from workers.train import train
from workers.trial import TrialSpec

Trained = tuple[str, Outcome]
"""Key of a trial, and how it ended."""
VIT = {"patch_size": 4, "embed_dim": 32, "depth": 1, "num_heads": 2}
PLAIN = {
    "flip": 0, "rand_augment": "none", "color_jitter": 0, "erasing": 0, "mixup": 0, "cutmix": 0, "eval_crop": 1,
    "crop_scale": [0.6, 1.0],
}  # fmt: skip


def spec_of(task: dict[str, Any] | None = None, **fields: Any) -> TrialSpec:
    wanted: dict[str, Any] = {
        "task": {"kind": "classify", "dataset": "digits", "normalize": "half", "augment": PLAIN, **(task or {})},
        "backbone": {"model": "vit_tiny_patch16_224", "args": VIT, "image_size": 16},
        "optim": {"lr": 1e-3, "batch": 64, "epochs": 1, "warmup_epochs": 0},
    }
    for name, value in fields.items():
        wanted[name] = {**wanted[name], **value}
    return TrialSpec.model_validate(wanted)


def record(where: Settings, spec: TrialSpec, weights: bool = True) -> tuple[str, Outcome]:
    """Trains the trial in this process, and records it as its driver would."""
    folder = trial_folder(where.storage, spec.key)
    outcome = train(spec, RankContext(folder, where.data_root, keep_weights=True), lambda report: None, lambda: False)
    assert outcome.weights is not None
    with closing(open_store(where.database_url)) as store:
        store.jobs.put(JobRecord("job-1", "job", "", {"name": "job", "stages": []}, ""))
        store.trials.place(
            "job-1",
            [Placement("one", "all", {}, spec.key, spec.model_dump(mode="json"), {}, "one/all", 0, spec.metric,
                       spec.mode, 0, 1)],
        )  # fmt: skip
        store.leases.register(driver_here("d", "job-1", "local"))
        token = store.leases.claim("d", [spec.key])[spec.key]
        kept = (recorded_path(where.storage, outcome.weights.path), outcome.weights.sha256) if weights else None
        store.trials.commit("d", [Finished(spec.key, token, outcome.figures, outcome.facts, kept)])
    return spec.key, outcome


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("runs")
    return settings(folder=folder, data_root=folder / "data")


@pytest.fixture(scope="module")
def trained(where: Settings) -> Trained:
    return record(where, spec_of())


def measured(model: TrainedModel, where: Settings) -> tuple[float, float]:
    """Accuracy and cross entropy of a loaded model on val, through its own transform alone."""
    assert model.transform is not None
    data = model.spec.task._data.read(where.data_root, "train", "val").evaluation  # type: ignore[attr-defined]
    images = [Image.fromarray(image.squeeze()).convert("RGB") for image in data.images]
    labels = torch.from_numpy(data.labels)
    with torch.no_grad():
        logits = model.module(torch.stack([model.transform(image) for image in images]))
    right = (logits.argmax(1) == labels).double().mean().item()
    return right, functional.cross_entropy(logits, labels).item()


def test_a_loaded_model_gives_the_trials_own_figures(where: Settings, trained: Trained) -> None:
    key, outcome = trained
    model = api.load_model(key[:12], where)
    assert not model.module.training
    assert measured(model, where) == (
        pytest.approx(outcome.figures["top1"], abs=1e-9), pytest.approx(outcome.figures["loss"], rel=1e-5)
    )  # fmt: skip
    assert model.class_names == (), "scikit-learn's digits have numbers, no names"


def test_a_moved_runs_folder_still_has_its_weights(where: Settings, trained: Trained, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(where.folder, moved)
    there = settings(folder=moved)
    with closing(open_store(there.database_url)) as store:
        row = store.trials.get(trained[0])
        assert row.weights is not None
        assert not Path(row.weights[0]).is_absolute()
        original = Path(trained[1].weights.path)  # type: ignore[union-attr]
    assert api.load_model(trained[0], there).file.path == str(moved / original.relative_to(where.folder))


ALONE = """
import json, sys
import timm, torch
from safetensors.torch import load_file
folder = sys.argv[1]
model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
config = timm.data.resolve_data_config(model=model)
output = model(torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16))
weights = load_file(f"{folder}/model.safetensors")
same = all(torch.equal(model.state_dict()[name], value) for name, value in weights.items())
mine = sorted(name for name in sys.modules if name.split(".")[0] in ("orchestrator", "workers", "tasks"))
told = [output[0].tolist(), list(config["input_size"]), list(config["mean"]), config["crop_pct"], same, mine]
print(json.dumps(told))
"""


def test_an_exported_folder_is_loaded_by_timm_alone(where: Settings, trained: Trained, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    lines = api.export_weights(trained[0], folder, where)
    assert "10 classes" in lines[0]
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(folder)], capture_output=True, text=True, cwd=tmp_path, check=True,
        env={"PATH": "", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    output, input_size, mean, crop, same, mine = json.loads(done.stdout)
    module = api.load_model(trained[0], where).module
    with torch.no_grad():
        expected = module(torch.linspace(-1, 1, 3 * 16 * 16).reshape(1, 3, 16, 16))[0]
    assert output == pytest.approx(expected.tolist(), rel=1e-5, abs=1e-6)
    assert (input_size, mean, crop) == ([3, 16, 16], [0.5, 0.5, 0.5], 1.0)
    assert same
    assert mine == [], "nothing of this project was imported"
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors", "config.json", "transform.json", "lineage.json", "README.md",
    }  # fmt: skip
    told = json.loads((folder / "lineage.json").read_text())
    assert told["trial"] == trained[0]
    assert told["weights"] == {"averaged": False, "sha256": trained[1].weights.sha256}  # type: ignore[union-attr]
    assert told["figures"]["top1"] == trained[1].figures["top1"]
    assert "timm.create_model" in (folder / "README.md").read_text()
    with pytest.raises(Conflict, match="is there already"):
        api.export_weights(trained[0], folder, where)


def test_weights_come_back_bit_for_bit(
    where: Settings, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    folder, back = tmp_path / "model", tmp_path / "back.safetensors"
    for arguments in (
        ["weights", "export", trained[0][:12], str(folder), "--runs", str(where.folder)],
        ["weights", "import", str(folder), "--output", str(back), "--data-root", str(tmp_path)],
    ):
        monkeypatch.setattr(sys, "argv", ["orchestrator", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 0, capsys.readouterr().err
    told = capsys.readouterr()
    assert "model: vit_tiny_patch16_224" in told.out
    assert '"embed_dim": 32' in told.out
    assert "img_size" not in told.out
    first, again = load_file(trained[1].weights.path), load_file(back)  # type: ignore[union-attr]
    assert first.keys() == again.keys()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_trial_chosen_by_its_averaged_weights_gives_those(where: Settings) -> None:
    key, outcome = record(where, spec_of(optim={"ema": {"decay": 0.9, "choose": True}}))
    model = api.load_model(key, where)
    assert model.file.path.endswith("averaged.safetensors")
    assert measured(model, where)[1] == pytest.approx(outcome.figures["ema_loss"], rel=1e-5)
    assert outcome.figures["loss"] != pytest.approx(outcome.figures["ema_loss"], rel=1e-4), "the other weights differ"
    assert outcome.weights is not None
    assert outcome.weights.path.endswith("weights.safetensors"), "later trials start from these"
    key, outcome = record(where, spec_of(optim={"ema": {"decay": 0.9, "choose": True, "hand_on": True}}))
    assert api.load_model(key, where).file == outcome.weights


def test_a_probe_with_batch_norm_is_exported_without_it(where: Settings, tmp_path: Path) -> None:
    """The classifier takes the norm over: the same logits, up to rounding."""
    key, _ = record(where, spec_of({"probe": "linear_bn"}, optim={"optimizer": "sgd"}))
    api.export_weights(key, tmp_path / "probe", where)
    import timm

    again = timm.create_model(f"local-dir:{tmp_path / 'probe'}", pretrained=True).eval()
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(again(images), api.load_model(key, where).module(images), rtol=1e-4, atol=1e-5)


def test_pre_training_is_exported_as_a_bare_backbone(
    where: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = TrialSpec.model_validate(
        {
            "task": {"kind": "pretrain", "dataset": "digits-pretrain", "mask_patch": 4, "normalize": "half"},
            "backbone": {"model": "vit_tiny_patch16_224", "args": VIT, "image_size": 16, "norm_eps": 1e-5},
            "optim": {"lr": 1e-3, "batch": 256, "epochs": 1, "warmup_epochs": 0},
        }
    )
    key, outcome = record(where, spec)
    lines = api.export_weights(key, tmp_path / "encoder", where)
    assert "features, no classes" in lines[0]
    assert any("norm_eps 1e-05" in line for line in lines)
    tensors = load_file(tmp_path / "encoder" / "model.safetensors")
    kept = load_file(outcome.weights.path)  # type: ignore[union-attr]
    assert torch.equal(tensors["blocks.0.attn.qkv.weight"], next(
        value for name, value in kept.items() if name.endswith("blocks.0.attn.qkv.weight")
    ))  # fmt: skip
    readme = (tmp_path / "encoder" / "README.md").read_text()
    assert "part.eps = 1e-05" in readme
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", [
        "orchestrator", "weights", "import", str(tmp_path / "encoder"), "--data-root", str(tmp_path)
    ])  # fmt: skip
    with pytest.raises(SystemExit):
        main()
    lines = yaml.safe_load(capsys.readouterr().out)["backbone"]
    again = BackboneSpec.model_validate({**lines, "norm_eps": float(lines["norm_eps"])})
    assert (again.image_size, again.norm_eps) == (16, 1e-5), "else later trials compute something else"
    assert api.load_model(key, where).transform is None, "its samples are masked images"


def test_what_cannot_be_loaded_is_said_in_one_line(where: Settings, tmp_path: Path) -> None:
    key, _ = record(where, spec_of(optim={"lr": 5e-3}), weights=False)
    with pytest.raises(NotFound, match=r"did not keep its weights; to keep them: python -m orchestrator pin"):
        api.load_model(key, where)
    key, outcome = record(where, spec_of(optim={"lr": 6e-3}))
    path = Path(outcome.weights.path)  # type: ignore[union-attr]
    tensors = load_file(path)
    save_file({name: value + 1 for name, value in tensors.items()}, path)
    with pytest.raises(BadInput, match=r"has SHA-256 .*, not"):
        api.load_model(key, where)
    path.unlink()
    with pytest.raises(NotFound, match=r"there is no file"):
        api.load_model(key, where)
    with pytest.raises(NotFound, match=r"no trial has the name"):
        api.load_model("nothing", where)


def test_paths_of_earlier_versions_are_found_in_a_moved_storage(tmp_path: Path) -> None:
    from orchestrator.records.trial_files import stored_file

    key = "ab" + "0" * 62
    new = tmp_path / "new"
    file = trial_folder(new, key) / "weights.safetensors"
    old = str(tmp_path / "old" / file.relative_to(new))
    assert stored_file(new, old) == Path(old), "it is nowhere: the recorded path is the one to name"
    file.parent.mkdir(parents=True)
    file.touch()
    assert stored_file(new, old) == file
    Path(old).parent.mkdir(parents=True)
    Path(old).touch()
    assert stored_file(new, old) == Path(old), "the recorded file itself comes first"
    assert recorded_path(new, file) == f"trials/ab/{key}/weights.safetensors"
    assert stored_file(new, recorded_path(new, file)) == file
    assert recorded_path(new, "/other/weights") == "/other/weights"
    assert Weights(str(stored_file(new, "trials/x")), "0").path == f"{new}/trials/x"


def test_classes_of_ones_own_data_have_their_names(tmp_path: Path) -> None:
    """In the loaded model and in timm's config; the data may be gone by then."""
    where = settings(folder=tmp_path / "runs", data_root=tmp_path)
    for part, images in (("train", 8), ("val", 4)):
        for shade, name in enumerate(("calm", "loud")):
            folder = tmp_path / "pets" / part / name
            folder.mkdir(parents=True)
            for number in range(images):
                Image.new("RGB", (16, 16), (60 * number, 200 * shade, number)).save(folder / f"{number}.png")
    data = {"kind": "folder", "path": "pets"}
    task = spec_of({"dataset": data}).task
    fields = task.planned_fields(tmp_path)
    spec = spec_of({"dataset": data, **fields}, optim={"batch": 8})
    key, outcome = record(where, spec)
    model = api.load_model(key, where)
    assert model.class_names == ("calm", "loud")
    assert measured_on_files(model, tmp_path / "pets" / "val") == pytest.approx(outcome.figures["top1"])
    api.export_weights(key, tmp_path / "out", where)
    import timm

    again = timm.create_model(f"local-dir:{tmp_path / 'out'}", pretrained=True)
    assert list(again.pretrained_cfg["label_names"]) == ["calm", "loud"]
    assert "label_names" in (tmp_path / "out" / "README.md").read_text()
    shutil.rmtree(tmp_path / "pets")
    assert api.load_model(key, where).class_names == ()


def measured_on_files(model: TrainedModel, folder: Path) -> float:
    """Accuracy over the image files of a folder with a folder for each class."""
    assert model.transform is not None
    right = []
    for file in sorted(folder.rglob("*.png")):
        with torch.no_grad():
            number = int(model.module(model.transform(Image.open(file).convert("RGB"))[None]).argmax())
        right.append(model.class_names[number] == file.parent.name)
    return sum(right) / len(right)
