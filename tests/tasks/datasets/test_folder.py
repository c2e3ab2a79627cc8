"""A folder of one's own images: its layouts, parts and counts, its place in a key, and training on it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import dataset_trees as trees
import pytest
import torch
from pydantic import ValidationError

from tasks.backbones.spec import BackboneSpec
from tasks.base import DataContext
from tasks.classification.task import Classify
from tasks.datasets.augment import Augment
from tasks.datasets.labelled import partition
from tasks.datasets.labelled.described import Sizes
from tasks.errors import DataError
from tasks.pretraining.task import Pretrain
from workers.trial import TrialSpec

PLAIN = Augment.none()
CLASSES = ("ant", "bee", "wasp")
VIT = BackboneSpec(
    model="vit_tiny_patch16_224", args={"embed_dim": 16, "depth": 1, "num_heads": 2, "patch_size": 4}, image_size=16
)


def plant(root: Path, parts: tuple[str, ...], each: int = 4) -> Path:
    """`each` images of three classes in every part ("": no folders of parts)."""
    base = root / "own" / "insects"
    for p, part in enumerate(parts):
        for c, name in enumerate(CLASSES):
            for i in range(each):
                below = "more" if i == 1 else ""
                trees.draw(base / part / name / below / f"{i}.jpg", 100 * p + 10 * c + i)
            (base / part / name / "notes.txt").write_text("no image")
            (base / part / name / ".hidden.jpg").write_text("no image either")
    return base


def task(root: Path, dataset: dict[str, Any] | None = None, **options: Any) -> Classify:
    """The task as planning completes it."""
    described = {"kind": "folder", "path": "own/insects", **(dataset or {})}
    written = {"kind": "classify", "dataset": described, "augment": PLAIN, **options}
    return Classify.model_validate({**written, **Classify.model_validate(written).planned_fields(root)})


def parts_of(manifest: Path) -> dict[str, str]:
    """Part of each file in a written manifest."""
    entries = [json.loads(line) for line in manifest.read_text().splitlines()[1:]]
    return {entry["file"]: entry["part"] for entry in entries}


def context(root: Path, **other: Any) -> DataContext:
    return DataContext(root, (16, 16), device="cpu", seed=0, batch=2, may_test=True, **other)


def trial(of: Classify, **other: Any) -> TrialSpec:
    return TrialSpec.model_validate({
        "task": of.model_dump(mode="json"), "backbone": VIT.model_dump(mode="json"),
        "optim": {"lr": 0.1, "batch": 2}, "may_test": of.reads_test, **other,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("parts", "sizes"),
    [
        (("",), Sizes(classes=3, train=12)),
        (("train",), Sizes(classes=3, train=12)),
        (("train", "test"), Sizes(classes=3, train=12, test=12)),
        (("train", "val"), Sizes(classes=3, train=12, val=12)),
        (("train", "val", "test"), Sizes(classes=3, train=12, val=12, test=12)),
    ],
)
def test_every_layout_is_read_for_what_it_is(tmp_path: Path, parts: tuple[str, ...], sizes: Sizes) -> None:
    plant(tmp_path, parts)
    own = task(tmp_path, val_fraction=0.25)
    assert list(own.sizes.values()) == [sizes]
    held_out = 0 if sizes.val is not None else 3
    assert (own.train_samples, own.evaluation_samples) == (12 - held_out, sizes.val or held_out)
    loaders = own.loaders(context(tmp_path))
    assert loaders.train_samples == own.train_samples
    labels = torch.cat([batch["labels"] for batch in loaders.evaluation()])
    assert sorted(labels.tolist()) == sorted([0, 1, 2] * (own.evaluation_samples // 3))
    assert own.build(VIT, None).get_parameter("head.weight").shape == (3, 16)
    if sizes.test:
        final = task(tmp_path, train="trainval", evaluate="test")
        assert (final.train_samples, final.evaluation_samples) == (12 + (sizes.val or 0), 12)
        assert len(next(iter(final.loaders(context(tmp_path)).evaluation()))["labels"]) == 12
    else:
        with pytest.raises(ValidationError, match="insects has no test images; evaluate on val"):
            task(tmp_path, train="trainval", evaluate="test")


def test_an_official_val_may_serve_as_test(tmp_path: Path) -> None:
    plant(tmp_path, ("train", "val"))
    own = task(tmp_path, official_val="test", val_fraction=0.25, train="trainval", evaluate="test")
    assert (own.train_samples, own.evaluation_samples) == (12, 12)
    chosen_on = task(tmp_path, official_val="test", val_fraction=0.25)
    assert chosen_on.opens == own.opens != task(tmp_path).opens  # which chooses on what these report
    assert (chosen_on.train_samples, chosen_on.evaluation_samples) == (9, 3)
    plant(tmp_path, ("test",))
    with pytest.raises(ValidationError, match="insects has its own test images"):
        task(tmp_path, official_val="test")


def test_labels_are_ranks_among_the_classes_of_train(tmp_path: Path) -> None:
    base = plant(tmp_path, ("train", "val"))
    shutil.rmtree(base / "val" / "ant")
    own = task(tmp_path)
    assert set(torch.cat([batch["labels"] for batch in own.loaders(context(tmp_path)).evaluation()]).tolist()) == {1, 2}
    (base / "val" / "bee").rename(base / "val" / "hornet")
    with pytest.raises(DataError, match=r"val: 1 folders that are no classes of .*train: hornet"):
        task(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda base: shutil.rmtree(base), r"insects: no folder .*own/insects; task.dataset.path is absolute or below"),
        (lambda base: shutil.rmtree(base / "bee" / "more") or [p.unlink() for p in (base / "bee").glob("*.jpg")],
         r"^insects: .*/own/insects: no images in bee\. own/insects must be one folder per class"),
        (lambda base: [shutil.rmtree(base / name) for name in CLASSES], "no images in it, and no folders"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_folder_is_one_line(tmp_path: Path, damage: Any, message: str) -> None:
    base = plant(tmp_path, ("",))
    damage(base)
    with pytest.raises(DataError, match=message):
        task(tmp_path)


def test_images_are_named_when_they_cannot_be_read(tmp_path: Path) -> None:
    base = plant(tmp_path, ("train", "val"))
    (base / "val" / "bee" / "2.jpg").write_bytes(b"cut short")
    own = task(tmp_path)
    with pytest.raises(DataError, match=r"insects: cannot read image .*val/bee/2\.jpg"):
        list(own.loaders(context(tmp_path)).evaluation())


def test_a_key_has_the_content_and_neither_place_nor_name(tmp_path: Path) -> None:
    base = plant(tmp_path, ("train", "val"))
    key = trial(task(tmp_path)).key
    assert key == trial(task(tmp_path, {"name": "Insects"})).key
    assert key == trial(task(Path("/elsewhere"), {"path": str(base)})).key
    moved = tmp_path / "other" / "insects2"
    shutil.copytree(base, moved)
    assert key == trial(task(tmp_path, {"path": "other/insects2"})).key
    assert key != trial(task(tmp_path, {"metric": "mean_per_class"})).key
    assert key != trial(task(tmp_path, split_seed=1)).key
    trees.draw(moved / "train" / "bee" / "new.jpg", 7)
    assert key != trial(task(tmp_path, {"path": "other/insects2"})).key
    unplanned = [
        Classify.model_validate({"kind": "classify", "dataset": {"kind": "folder", "path": path}, "augment": PLAIN})
        for path in ("own/insects", "other/insects2")
    ]
    assert len({trial(each).key for each in unplanned} | {key}) == 3


def test_a_trial_refuses_other_data_than_it_was_planned_for(tmp_path: Path) -> None:
    base = plant(tmp_path, ("train", "val"))
    own = task(tmp_path)
    (written,) = (tmp_path / "splits").glob("*.jsonl")
    header = json.loads(written.read_text().splitlines()[0])
    assert (header["cut"], header["classes"], [header["sha256"]]) == ("folder/official", 3, [*own.manifests.values()])
    partition._planned.cache_clear()
    own.loaders(context(tmp_path))  # by the written manifest
    trees.draw(base / "train" / "bee" / "new.jpg", 7)
    again = task(tmp_path)
    assert again.manifests.keys() == own.manifests.keys()
    assert again.manifests != own.manifests
    assert again.train_samples == 13
    partition._planned.cache_clear()
    again.loaders(context(tmp_path))
    with pytest.raises(DataError, match=r"insects: the split .* has SHA-256 \w+, and this trial was planned for"):
        own.loaders(context(tmp_path))


def test_an_image_that_is_replaced_under_its_name_is_noticed(tmp_path: Path) -> None:
    """With other bytes, of the same number, and with the old time of modification: another key. A trial that was
    planned before refuses a file of another size."""
    base = plant(tmp_path, ("train", "val"))
    own = task(tmp_path)
    path = base / "train" / "bee" / "2.jpg"
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    changed = task(tmp_path)
    assert changed.manifests != own.manifests
    assert trial(changed).key != trial(own).key
    path.write_bytes(content + b"more")
    partition._planned.cache_clear()
    with pytest.raises(DataError, match=r"insects: 1 of 12 images were changed since .*: train/bee/2.jpg; submit"):
        changed.loaders(context(tmp_path))


def test_a_folder_is_cut_into_three(tmp_path: Path) -> None:
    """Test by its own seed, so that val can be drawn anew while test stays."""
    plant(tmp_path, ("",), each=10)
    dataset = {"test_fraction": 0.2}
    tests = set()
    for seed in (0, 1):
        own = task(tmp_path, dataset, split_seed=seed, train="trainval", evaluate="test")
        assert (own.train_samples, own.evaluation_samples) == (24, 6)
        assert task(tmp_path, dataset, split_seed=seed).evaluation_samples == 5
        images = own.loaders(context(tmp_path)).evaluation()
        tests.add(tuple(label for batch in images for label in batch["labels"].tolist()))
        (path,) = (tmp_path / "splits").glob(f"insects-*-{seed}.jsonl")
        tests.add(tuple(name for name, part in parts_of(path).items() if part == "test"))
    assert len(tests) == 2  # labels and names, the same for both seeds
    assert task(tmp_path, {**dataset, "test_seed": 1}).opens != own.opens
    with pytest.raises(DataError, match=r"test_fraction 0\.01 of 30 images leaves none in test; choose it so"):
        task(tmp_path, {"test_fraction": 0.01})
    plant(tmp_path, ("train", "val"))
    with pytest.raises(DataError, match=r"test_fraction cuts data that name no parts, and these name train, val"):
        task(tmp_path, dataset)


def test_one_class_is_enough_for_pretraining_alone(tmp_path: Path) -> None:
    base = plant(tmp_path, ("",))
    for name in CLASSES[1:]:
        shutil.rmtree(base / name)
    with pytest.raises(ValidationError, match="insects has one class only: there is nothing to classify"):
        task(tmp_path)
    written = {"kind": "pretrain", "dataset": {"kind": "folder", "path": "own/insects"}, "mask_patch": 8,
               "val_fraction": 0.25}  # fmt: skip
    own = Pretrain.model_validate({**written, **Pretrain.model_validate(written).planned_fields(tmp_path)})
    assert (own.train_samples, own.evaluation_samples) == (3, 1)


def test_images_outside_the_data_root_are_read_from_where_they_are(tmp_path: Path) -> None:
    base = plant(tmp_path / "disk", ("train", "val"))
    (tmp_path / "root").mkdir()
    own = task(tmp_path / "root", {"path": str(base)})
    assert len(list(own.loaders(context(tmp_path / "root")).epoch(0))) == 6


@pytest.mark.parametrize("content", ['{"manifest": 1}\n', "nonsense", ""])
def test_a_manifest_that_cannot_be_used_is_written_anew(tmp_path: Path, content: str) -> None:
    """The folder is listed in any case."""
    plant(tmp_path, ("train", "val"))
    own = task(tmp_path)
    (written,) = (tmp_path / "splits").glob("*.jsonl")
    before = written.read_bytes()
    written.write_text(content)
    assert task(tmp_path).manifests == own.manifests
    assert written.read_bytes() == before


def test_before_planning_nothing_is_known_and_no_model_is_built(tmp_path: Path) -> None:
    own = Classify.model_validate({"kind": "classify", "dataset": {"kind": "folder", "path": "own/insects"}})
    assert (own.train_samples, own.evaluation_samples, own.sizes, own.manifests) == (0, 0, {}, {})
    with pytest.raises(
        ValueError, match="classes and images of insects are read from its folder when a job is planned"
    ):
        own.build(VIT, None)


def test_pretraining_takes_the_same_folder(tmp_path: Path) -> None:
    plant(tmp_path, ("",))
    written = {"kind": "pretrain", "dataset": {"kind": "folder", "path": "own/insects"}, "mask_patch": 8,
               "val_fraction": 0.25}  # fmt: skip
    own = Pretrain.model_validate({**written, **Pretrain.model_validate(written).planned_fields(tmp_path)})
    assert (own.train_samples, own.evaluation_samples) == (9, 3)
    batch = next(iter(own.loaders(context(tmp_path)).epoch(0)))
    assert set(batch) == {"images", "masks"}
    assert dict(own.opens) == {"own/insects": "dataset: own/insects"}


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (5, "must be the name of a data set, or {kind: folder, table or huggingface, path: ..}"),
        ({"path": "x"}, "must be the name of a data set, or {kind: folder, table or huggingface, path: ..}"),
        (
            {"kind": "tabel", "path": "x"},
            "must be the name of a data set, or {kind: folder, table or huggingface, path: ..}",
        ),
        ({"kind": "folder"}, "Field required"),
        ({"kind": "folder", "path": "x", "metrc": "top1"}, "Extra inputs are not permitted"),
        ({"kind": "folder", "path": "x", "name": "a/b"}, "String should match pattern"),
        ("insects", "unknown data set 'insects'"),
    ],
)
def test_wrong_descriptions_are_refused_with_the_spec(dataset: Any, message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Classify.model_validate({"kind": "classify", "dataset": dataset})
    (error,) = caught.value.errors()
    assert message in error["msg"]
    assert error["loc"][0] == "dataset"
