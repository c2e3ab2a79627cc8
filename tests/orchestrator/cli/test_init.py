"""`init`: first specs that are valid as they stand, for data of many forms, with a reason beside each choice."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import own_tables as tables
import pytest
from click.testing import CliRunner, Result
from dataset_trees import draw
from in_process_backend import Machine, drive_to_end

from orchestrator.cli import first_spec
from orchestrator.cli.main import cli
from orchestrator.launch.data_manifests import with_manifests
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.records.states import JobState
from orchestrator.report.build import build
from orchestrator.report.formats.markdown import markdown
from orchestrator.settings import settings
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.spec.load import load
from orchestrator.store.store import open_store
from workers.run import run_trial

VIT = "--model=vit_tiny_patch16_224"


def insects(root: Path, parts: tuple[str, ...] = ("",), counts: tuple[int, ...] = (10, 10)) -> Path:
    """Images of about 24 x 20 pixels."""
    for p, part in enumerate(parts):
        for c, count in enumerate(counts):
            for i in range(count):
                draw(root / "insects" / part / f"class{c}" / f"{i}.png", 100 * p + 1000 * c + i)
    return root / "insects"


def init(root: Path, *arguments: str | Path, code: int = 0, answers: str | None = None) -> Result:
    with_root = ["init", "--data-root", root, "--output", root / "study.yaml"] if answers is None else ["init"]
    result = CliRunner().invoke(cli, [*map(str, with_root), *map(str, arguments)], input=answers)
    assert (getattr(result.exception, "exit_code", result.exit_code) or 0) == code, (result.output, result.exception)
    return result


def first(root: Path, data: Path | str, *arguments: str) -> tuple[JobSpec, str]:
    """The job that is written, which plans; and its text."""
    init(root, "--data", data, *arguments)
    job = load(root / "study.yaml")
    planned = with_manifests(job, settings(folder=root / "runs", data_root=root))
    assert Planner(planned, DurationModel()).placed or "search" in arguments[-1]
    return job, (root / "study.yaml").read_text()


def test_small_images_in_a_folder(tmp_path: Path) -> None:
    job, text = first(tmp_path, insects(tmp_path), VIT)
    task, backbone = job.trial["task"], job.trial["backbone"]
    assert task["dataset"] == {"kind": "folder", "path": "insects", "test_fraction": 0.2}
    assert (task["augment"]["rand_augment"], task["augment"]["mixup"]) == ("none", 0)
    assert backbone["image_size"] == 16 * round(backbone["image_size"] / 16) < 64
    assert backbone["args"]["patch_size"] == backbone["image_size"] // 8
    assert [stage.name for stage in job.stages] == ["grid", "final"]
    assert job.stages[1].override == {"task.train": "trainval", "task.evaluate": "test"}
    assert "# 20 images of 2 classes, 10 of each" in text
    assert "a fifth is cut off" in text
    assert "Table 7's is for 192 pixels and more" in text
    assert text.count("\n") <= 20
    assert "13 training images: 1 step an epoch" in text


def test_what_is_written_runs_to_its_table(tmp_path: Path) -> None:
    insects(tmp_path / "data")
    init(tmp_path / "data", "--data", "insects", VIT)
    short = ["optim.epochs=1", "optim.warmup_epochs=0", "backbone.args.depth=1"]
    job = load(tmp_path / "data" / "study.yaml", None, short)
    planned = with_manifests(job, settings(folder=tmp_path / "runs", data_root=tmp_path / "data"))
    with contextlib.closing(open_store(f"sqlite:///{tmp_path / 'store.db'}")) as store:
        state, _ = drive_to_end(store, job, Machine(execute=run_trial), tmp_path, planned=planned)
        assert state is JobState.done
        assert "| RAND |" in markdown(build(store, job_id(job)))


def test_several_models_with_seeds_are_rows_of_one_table(tmp_path: Path) -> None:
    job, text = first(
        tmp_path, insects(tmp_path), "--model=convnext_atto", "--model=resnet18", "--replicates=3"
    )  # fmt: skip
    assert [stage.replicates for stage in job.stages] == [3, 3]
    assert job.report.rows == "backbone.model"
    assert job.stages[0].per == ["task.dataset", "backbone.model"]
    assert "a stem of stride" in text
    assert "output_stride: 8" in text


def test_a_search_in_place_of_the_grid(tmp_path: Path) -> None:
    job, _ = first(tmp_path, insects(tmp_path), VIT, "--search")
    sweep: Any = job.stages[0].sweep
    assert (sweep.sampler, sweep.trials) == ("random", 12)
    assert set(sweep.search) == {"optim.lr", "optim.weight_decay"}


@pytest.mark.parametrize(
    ("parts", "evaluate", "official", "fraction"),
    [
        (("train", "val", "test"), "test", None, None),
        (("train", "test"), "test", None, None),
        (("train", "val"), "test", "test", None),
        (("train",), None, None, None),
    ],
)
def test_the_parts_that_folders_name_are_kept(
    tmp_path: Path, parts: tuple[str, ...], evaluate: str | None, official: str | None, fraction: float | None
) -> None:
    job, _ = first(tmp_path, insects(tmp_path, parts), VIT)
    assert job.trial["task"].get("official_val") == official
    assert job.trial["task"]["dataset"].get("test_fraction") == fraction
    assert job.stages[-1].override.get("task.evaluate") == evaluate
    assert len(job.stages) == (1 if evaluate is None else 2)


def test_uneven_classes_count_alike(tmp_path: Path) -> None:
    job, text = first(tmp_path, insects(tmp_path, counts=(40, 10)), VIT)
    assert job.trial["task"]["dataset"]["metric"] == "mean_per_class"
    assert "the mean over classes counts" in text


def test_a_table_with_fields(tmp_path: Path) -> None:
    rows = [{**row, "species": row["label"]} for row in tables.birds(tmp_path / "birds")]
    tables.write_csv(tmp_path / "birds" / "birds.csv", [{k: v for k, v in r.items() if k != "label"} for r in rows])
    job, _ = first(tmp_path, tmp_path / "birds" / "birds.csv", "--field", "label=species", VIT)
    dataset = job.trial["task"]["dataset"]
    assert (dataset["kind"], dataset["label"], dataset["path"]) == ("table", "species", "birds/birds.csv")


def test_a_known_set_by_its_name(tmp_path: Path) -> None:
    job, text = first(tmp_path, "digits", VIT)
    assert (job.trial["task"]["dataset"], job.trial["backbone"]["image_size"]) == ("digits", 16)
    assert job.trial["backbone"]["args"] == {"patch_size": 2}
    assert "of 10 classes" in text


def test_weights_of_timm_keep_their_size_and_preprocessing(tmp_path: Path) -> None:
    job, _ = first(tmp_path, insects(tmp_path), "--weights=test_vit.r160_in1k")
    backbone = job.trial["backbone"]
    assert (backbone["model"], backbone["image_size"], backbone["init"]["kind"]) == ("test_vit", 160, "timm")
    assert job.trial["task"]["preprocessing"] == "weights"
    assert job.trial["optim"]["layer_decay"] == 0.75


def test_a_file_of_weights_gets_its_digest(tmp_path: Path) -> None:
    (tmp_path / "mim.safetensors").write_bytes(b"abc")
    init(tmp_path, "--data", insects(tmp_path), VIT, "--weights", "mim.safetensors")
    init_ = load(tmp_path / "study.yaml").trial["backbone"]["init"]
    assert init_["sha256"] == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert (init_["kind"], init_["name"]) == ("file", "mim")


def test_the_spec_can_be_printed(tmp_path: Path) -> None:
    result = init(tmp_path, "--data", insects(tmp_path), VIT, "--output", "-")
    (tmp_path / "printed.yaml").write_text(result.stdout)
    assert load(tmp_path / "printed.yaml").name == "insects"
    assert not (tmp_path / "study.yaml").exists()


def test_questions_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_spec, "_may_ask", lambda: True)
    monkeypatch.chdir(tmp_path)
    result = init(tmp_path, answers=f"{insects(tmp_path)}\nvit_tiny_patch16_224\ny\nmine.yaml\n")
    assert load(tmp_path / "mine.yaml").stages[0].name == "search"
    assert "python -m orchestrator submit mine.yaml" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--data", "nowhere/insects", VIT], 4, "no file or folder nowhere/insects here or below the data root"),
        (["--data", "digts", VIT], 4, "unknown data set 'digts'; nearest: 'digits"),
        (["--data", "scene-people", VIT], 6, "init writes studies of labelled images alone"),
        (["--data", "insects", "--model", "vit_tini_patch16_224"], 6, "no such timm model; nearest: vit_tiny_patch16"),
        (["--data", "insects", "--weights", "resnet18"], 6, "write MODEL.TAG of timm"),
        (["--data", "insects", "--weights", "resnet18.nosuch"], 6, "this timm has no such weights"),
        (["--data", "insects", "--weights", "no.safetensors"], 6, "does not say of which model: add --model"),
        (["--data", "insects", VIT, "--weights", "no.safetensors"], 4, "no such file here or below the data root"),
        (["--data", "insects", VIT, "--model=resnet18", "--weights=resnet18.a1_in1k"], 6, "are those of one model"),
        (["--data", "insects", VIT, "--field", "metric=top5"], 2, "metric"),
        ([VIT], 2, "needs --data, --model or --weights, and --output"),
    ],
)
def test_one_mistake_is_one_message(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    insects(tmp_path)
    result = init(tmp_path, *arguments, code=code)
    assert message in (str(result.exception) if code != 2 else result.output)
    assert not (tmp_path / "study.yaml").exists()


def test_a_file_that_exists_is_kept(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("mine")
    result = init(tmp_path, "--data", "digits", VIT, code=5)
    assert "exists already: choose another --output" in str(result.exception)
    assert (tmp_path / "study.yaml").read_text() == "mine"


@pytest.mark.parametrize("folder", ["2024", "1e3", "null", "no"])
def test_a_folder_whose_name_yaml_would_read_as_something_else(tmp_path: Path, folder: str) -> None:
    insects(tmp_path).rename(tmp_path / folder)
    job, _ = first(tmp_path, tmp_path / folder, VIT)
    assert (job.name, job.trial["task"]["dataset"]["path"]) == (folder, folder)


def test_what_is_asked_for_is_not_chosen_again(tmp_path: Path) -> None:
    insects(tmp_path, counts=(12, 3))
    job, text = first(tmp_path, tmp_path / "insects", VIT, "--field", "metric=top1", "--field", "test_fraction=0")
    assert job.trial["task"]["dataset"] == {"kind": "folder", "path": "insects", "metric": "top1", "test_fraction": 0}
    assert "a fifth is cut off" not in text
    assert [stage.name for stage in job.stages] == ["grid"]


def test_one_class_is_refused_and_a_model_named_twice_is_one(tmp_path: Path) -> None:
    insects(tmp_path, counts=(5,))
    result = init(tmp_path, "--data", tmp_path / "insects", VIT, code=6)
    assert "all its images are of one class: there is nothing to classify" in str(result.exception)
    draw(tmp_path / "insects" / "class1" / "0.png", 7)
    draw(tmp_path / "insects" / "class1" / "1.png", 8)
    _, text = first(tmp_path, tmp_path / "insects", VIT, VIT)
    assert "report: {rows" not in text


def test_the_lines_to_go_on_with_name_a_data_root_that_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    insects(tmp_path)
    monkeypatch.delenv("DATA_ROOT", raising=False)
    result = init(tmp_path, "--data", tmp_path / "insects", VIT)
    assert f"study.yaml --data-root {tmp_path}  # run it" in result.output
    assert f" --data-root {tmp_path}\nname:" in (tmp_path / "study.yaml").read_text()
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    (tmp_path / "study.yaml").unlink()
    assert "study.yaml  # run it" in init(tmp_path, "--data", tmp_path / "insects", VIT).output
