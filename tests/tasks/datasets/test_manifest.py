"""Split manifests: complete, disjoint, the same for ever; and that a trial runs on its own data or not at all."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import dataset_trees as trees
import numpy as np
import pytest
from pydantic import ValidationError

from tasks.base import DataContext
from tasks.classification.task import Classify
from tasks.datasets import manifest
from tasks.datasets.augment import Augment
from tasks.datasets.labelled import partition
from tasks.datasets.labelled.card import SplitSpec
from tasks.datasets.labelled.catalog import LABELLED
from tasks.datasets.scenes import crops
from tasks.errors import DataError
from tasks.pretraining.task import Pretrain

PLAIN = Augment.none()
GOLDEN = {
    "food101": "3f6450ebea631b0a",
    "cifar10": "5d5cca968f91f0ff",
    "cifar100": "72435348bf370ddc",
    "birdsnap": "f22382d06c27eb54",
    "sun397": "19ddc03f385918ae",
    "cars": "0a57eb0caa5a74a7",
    "aircraft": "54b56d5ae557e56b",
    "voc2007": "ca5f7f71a2414c8a",
    "dtd": "fc00290ea8fff58f",
    "pets": "35c9876b2460ccd2",
    "caltech101": "735f17fdcb9ee774",
    "flowers": "ef58981f70a8808d",
    "imagenet": "466502df6aa7982c",
    "inat18": "68dea3280f6d444c",
    "cog-l1": "c2406edbd5349d6c",
    "cog-l2": "fe721ff5899bd5c7",
    "cog-l3": "b661646e80b0e72f",
    "cog-l4": "6bed23f9fbc519ab",
    "cog-l5": "963451b56416fb6f",
}
"""Digests of the manifests of tests/support/dataset_trees.py, on every machine, Python and numpy."""


@pytest.mark.parametrize("name", trees.TREES)
def test_a_manifest_says_where_every_image_belongs_for_ever(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = trees.plant(name, tmp_path, monkeypatch)
    made = partition.make(card, tmp_path, SplitSpec(name))
    assert len(set(made.images)) == len(made.images)
    assert set(made.parts) <= {"train", "val", "test"}
    assert made.counts["test"] == card.test
    assert made.counts["train"] + made.counts["val"] == card.trainval
    assert made.digest[:16] == GOLDEN[name]
    made.write(tmp_path / "m.jsonl")
    loaded = manifest.load(tmp_path / "m.jsonl")
    assert (loaded.digest, loaded.body, loaded.annotations) == (made.digest, made.body, made.annotations)
    assert manifest.saved_digest(tmp_path / "m.jsonl") == made.digest
    assert tmp_path.name not in (tmp_path / "m.jsonl").read_text()


@pytest.mark.parametrize(
    "name", [card.name for card in LABELLED if card.source != "folder" and card.name != crops.NAME]
)
def test_the_digests_of_images_in_packages_are_those_of_the_cards(name: str, tmp_path: Path) -> None:
    card = trees.card_of(name)
    made = partition.make(card, tmp_path, SplitSpec(name))
    assert made.digest == card.digest == partition.digest(card, tmp_path, SplitSpec(name))
    assert made.counts == {"train": card.train, "val": card.val, "test": card.test}


def test_another_python_makes_the_same_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash randomisation, and another order of the files on disk."""
    card = trees.plant("caltech101", tmp_path, monkeypatch)
    code = (
        "import sys; from pathlib import Path; from dataclasses import replace\n"
        "from tasks.datasets.labelled import partition\n"
        "from tasks.datasets import DATASETS\n"
        "from tasks.datasets.labelled.card import SplitSpec\n"
        "card = replace(DATASETS['caltech101'], classes=3, train=75, val=15, test=6, background=32)\n"
        "print(partition.make(card, Path(sys.argv[1]), SplitSpec('caltech101')).digest)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": "."},
    )  # fmt: skip
    assert run.stdout.strip() == partition.make(card, tmp_path, SplitSpec("caltech101")).digest


def test_every_open_choice_makes_another_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = trees.plant("caltech101", tmp_path, monkeypatch)
    cuts = [
        SplitSpec("caltech101"),
        SplitSpec("caltech101", val_fraction=0.1),
        SplitSpec("caltech101", split_seed=1),
        SplitSpec("caltech101", caltech_background=False),
    ]
    assert len({partition.make(card, tmp_path, cut).digest for cut in cuts}) == 4
    assert [cut.name(card) for cut in cuts] == [
        "caltech101/0.2/0", "caltech101/0.1/0", "caltech101/0.2/1", "caltech101/0.2/0/no-background",
    ]  # fmt: skip
    names = [frozenset(image for image, part in zip(made.images, made.parts, strict=True) if part == "val")
             for made in (partition.make(card, tmp_path, cut) for cut in cuts[:3])]  # fmt: skip
    assert len(set(names)) == 3  # other images, not only another name of the cut
    dtd = trees.card_of("dtd")
    assert SplitSpec("dtd", 0.1, 3).name(dtd) == SplitSpec("dtd").name(dtd) == "dtd/official"


@pytest.mark.parametrize("name", ["pets", "cog-l1", "imagenet"])
def test_the_seed_draws_the_images_that_are_held_out(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing else: test stays, and so do the numbers of each class."""
    card = trees.plant(name, tmp_path, monkeypatch)
    how = "test" if name == "imagenet" else "val"
    made = [partition.make(card, tmp_path, SplitSpec(name, 0.25, seed, official_val=how)) for seed in range(6)]  # type: ignore[arg-type]
    held_out = [tuple(i for i, part in enumerate(each.parts) if part == "val") for each in made]
    assert len(set(held_out)) > 3
    assert len({each.images == made[0].images for each in made}) == 1
    for each, val in zip(made, held_out, strict=True):
        assert [i for i, part in enumerate(each.parts) if part == "test"] == [
            i for i, part in enumerate(made[0].parts) if part == "test"
        ]
        assert sorted(each.annotations[i] for i in val) == sorted(made[0].annotations[i] for i in held_out[0])


def test_caltech_without_its_background_has_the_other_classes_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = trees.plant("caltech101", tmp_path, monkeypatch)
    whole, less = (partition.make(card, tmp_path, SplitSpec("caltech101", caltech_background=b)) for b in (True, False))
    assert (whole.classes, less.classes) == (3, 2)
    kept = {(file, label - 1) for file, label in zip(whole.images, whole.annotations, strict=True) if label}
    assert kept == set(zip(less.images, less.annotations, strict=True))
    of = SplitSpec("caltech101", caltech_background=False).of(trees.card_of("caltech101"))
    assert (of.trainval, of.test) == (sum(less.counts.values()) - less.counts["test"], less.counts["test"])
    monkeypatch.undo()
    published = SplitSpec("caltech101", caltech_background=False).of(trees.card_of("caltech101"))
    assert (published.classes, published.trainval, published.test) == (101, 3030, 8677 - 3030)


def test_the_official_val_may_become_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = trees.plant("imagenet", tmp_path, monkeypatch)
    as_val = partition.make(card, tmp_path, SplitSpec("imagenet"))
    as_test = partition.make(card, tmp_path, SplitSpec("imagenet", official_val="test", val_fraction=0.25))
    assert as_val.counts == {"train": 12, "val": 6, "test": 0}
    assert as_test.counts == {"train": 9, "val": 3, "test": 6}
    assert as_test.cut == "imagenet/0.25/0/official-val-is-test"
    test = {file for file, part in zip(as_test.images, as_test.parts, strict=True) if part == "test"}
    assert test == {file for file, part in zip(as_val.images, as_val.parts, strict=True) if part == "val"}
    task = Classify(
        dataset="imagenet", official_val="test", val_fraction=0.25, train="trainval", evaluate="test", augment=PLAIN
    )
    assert (task.train_samples, task.evaluation_samples, task.reads_test) == (12, 6, True)
    with pytest.raises(DataError, match="test images are opened only by trials that come after"):
        task.loaders(place(tmp_path))
    loaders = task.loaders(place(tmp_path, may_test=True))
    assert loaders.train_samples == 12
    assert sum(len(batch["labels"]) for batch in loaders.evaluation()) == 6


def place(root: Path, may_test: bool = False) -> DataContext:
    return DataContext(root, input_size=(16, 16), device="cpu", seed=0, batch=4, may_test=may_test)


@pytest.mark.parametrize("name", ["pets", "dtd", "cifar10", "voc2007"])
def test_the_written_manifest_and_the_lists_give_the_same_images(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, cut = trees.plant(name, tmp_path, monkeypatch), SplitSpec(name)
    expected = partition.digest(card, tmp_path, cut)
    assert expected is not None
    written = tmp_path / "splits" / partition.file_name(card, cut)
    assert json.loads(written.read_text().splitlines()[0])["sha256"] == expected
    for train, evaluate in (("train", "val"), ("trainval", "test")):
        from_file = partition.read_both(card, tmp_path, cut, train, evaluate, expected)  # type: ignore[arg-type]
        from_lists = partition.read_both(card, tmp_path, cut, train, evaluate)  # type: ignore[arg-type]
        for (images, labels), (images_too, labels_too) in zip(from_file, from_lists, strict=True):
            assert labels == labels_too
            if isinstance(images, np.ndarray):
                assert np.array_equal(images, np.asarray(images_too))
            else:
                assert images == images_too


def test_a_trial_keeps_its_own_manifest_and_only_that() -> None:
    known = {"pets/0.2/0": "a" * 64, "pets/0.1/0": "b" * 64, "dtd/official": "c" * 64}
    assert Classify(dataset="pets", manifests=known).manifests == {"pets/0.2/0": "a" * 64}
    assert Classify(dataset="pets", val_fraction=0.1, manifests=known).manifests == {"pets/0.1/0": "b" * 64}
    assert Classify(dataset="dtd", split_seed=5, manifests=known).manifests == {"dtd/official": "c" * 64}
    assert Classify(dataset="flowers", manifests=known).manifests == {}
    with pytest.raises(ValidationError, match="should match pattern"):
        Classify(dataset="pets", manifests={"pets/0.2/0": "none"})
    with pytest.raises(ValidationError, match="unknown data set 'pet'"):
        Classify(dataset="pet", manifests=known)


def test_other_data_than_planned_are_refused_naming_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = trees.plant("pets", tmp_path, monkeypatch)
    found = partition.make(card, tmp_path, SplitSpec("pets")).digest
    task = Classify(dataset="pets", augment=PLAIN, manifests={"pets/0.2/0": "0" * 64})
    with pytest.raises(DataError, match=rf"pets: the split pets/0.2/0 of the lists under .* SHA-256 {found}.*0{{64}}"):
        task.loaders(place(tmp_path))
    Classify(dataset="pets", augment=PLAIN, manifests={"pets/0.2/0": found}).loaders(place(tmp_path))
    wrong = Classify(dataset="faces", augment=PLAIN, manifests={"faces/official": "0" * 64})
    with pytest.raises(DataError, match=f"faces: the split faces/official of the installed packages has SHA-256 "
                                        f"{trees.card_of('faces').digest}"):  # fmt: skip
        wrong.loaders(place(tmp_path))
    right = wrong.model_copy(update={"manifests": {"faces/official": trees.card_of("faces").digest}})
    assert right.loaders(place(tmp_path)).train_samples == 40


def test_pre_training_names_its_data_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = trees.plant("pets", tmp_path, monkeypatch)
    found = partition.make(card, tmp_path, SplitSpec("pets", val_fraction=0.3)).digest
    other = {"faces/official": trees.card_of("faces").digest}
    task = Pretrain(dataset="pets", val_fraction=0.3, mask_patch=4, manifests={**other, "pets/0.3/0": found})
    assert task.manifests == {"pets/0.3/0": found}
    assert task.loaders(place(tmp_path)).train_samples == 7
    with pytest.raises(DataError, match=r"pets: the split pets/0.3/0 of "):
        task.model_copy(update={"manifests": {"pets/0.3/0": "0" * 64}}).loaders(place(tmp_path))
    assert Pretrain(dataset="photo-tiles", manifests=other).manifests == {}
    tiles = Pretrain(dataset="photo-tiles", mask_patch=4, manifests={"photo-tiles/parts": "0" * 64})
    with pytest.raises(DataError, match=r"photo-tiles: the split photo-tiles/parts has SHA-256 .*install the same"):
        tiles.loaders(place(tmp_path))
    wrong = Pretrain(dataset="faces", mask_patch=4, manifests={"faces/official": "0" * 64})
    with pytest.raises(DataError, match="faces: the split faces/official of the installed packages"):
        wrong.loaders(place(tmp_path))


def test_a_manifest_that_was_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card, cut = trees.plant("dtd", tmp_path, monkeypatch), SplitSpec("dtd")
    expected = partition.digest(card, tmp_path, cut)
    path = tmp_path / "splits" / "dtd-official.jsonl"
    path.write_text(path.read_text().replace('"part":"test"', '"part":"train"', 1))
    for read in (
        lambda: partition.digest(card, tmp_path, cut),
        lambda: partition.read_both(card, tmp_path, cut, "train", "val", expected or ""),
    ):
        with pytest.raises(DataError, match=r"dtd-official.jsonl was changed: it says SHA-256 .* `data split`"):
            read()
    path.write_text("nonsense")
    with pytest.raises(DataError, match="is no split manifest"):
        partition.digest(card, tmp_path, cut)


def test_a_manifest_by_earlier_rules_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its labels of val or its parts may be wrong; the digest of a cut that did not change stays."""
    card, cut = trees.plant("inat18", tmp_path, monkeypatch), SplitSpec("inat18")
    expected = partition.digest(card, tmp_path, cut) or ""
    path = tmp_path / "splits" / "inat18-official.jsonl"
    path.write_text(path.read_text().replace('{"manifest": 2,', '{"manifest": 1,', 1))
    partition._planned.cache_clear()
    for read in (
        lambda: partition.digest(card, tmp_path, cut),
        lambda: partition.read_both(card, tmp_path, cut, "train", "val", expected),
    ):
        with pytest.raises(DataError, match=r"inat18-official.jsonl is of version 1, not 2: .*again with `data split`"):
            read()
    path.write_text(path.read_text().replace('"manifest": 1, ', "", 1))
    with pytest.raises(DataError, match="is no split manifest"):
        partition.digest(card, tmp_path, cut)


def test_a_data_root_that_cannot_be_written_keeps_its_manifest_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card, cut = trees.plant("pets", tmp_path, monkeypatch), SplitSpec("pets")
    (tmp_path / "splits").write_text("a file where the folder would be")
    others = [tmp_path / "runs" / "splits"]
    first = partition.digest(card, tmp_path, cut, others)
    assert [path.name for path in others[0].iterdir()] == ["pets-0.2-0.jsonl"]
    (tmp_path / "oxford-iiit-pet" / "annotations" / "test.txt").write_text("")
    assert partition.digest(card, tmp_path, cut, others) == first  # the written one counts


def test_what_is_not_there_has_no_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert partition.digest(trees.card_of("pets"), tmp_path, SplitSpec("pets")) is None
    assert list(tmp_path.iterdir()) == []
    card = trees.plant("pets", tmp_path, monkeypatch)
    assert (
        partition.digest(card, tmp_path, SplitSpec("pets")) == partition.make(card, tmp_path, SplitSpec("pets")).digest
    )


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_manifest_is_written_whole_or_not_at_all(fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.jsonl"
    old = manifest.Manifest("old", ["a.jpg"], [0], ["train"], 1)
    old.write(path)

    def full(*arguments: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*((manifest.os, "fsync") if fails == "fsync" else (Path, "replace")), full)  # type: ignore[arg-type]
        with pytest.raises(OSError, match="no space left"):
            manifest.Manifest("new", ["b.jpg"], [0], ["train"], 1).write(path)
    assert manifest.load(path) == old
    assert [each.name for each in tmp_path.iterdir()] == ["m.jsonl"]


def test_incomplete_data_have_a_manifest_and_are_still_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card, cut = trees.plant("birdsnap", tmp_path, monkeypatch), SplitSpec("birdsnap")
    (tmp_path / "birdsnap" / "images" / "Bird_1" / "1_0.jpg").unlink()
    expected = partition.digest(card, tmp_path, cut) or ""
    with pytest.raises(DataError, match=r"birdsnap: 11 images in trainval .*, expected 12; .* task.counts: any"):
        partition.read_both(card, tmp_path, cut, "train", "val", expected)
    first, second = partition.read_both(card, tmp_path, cut, "train", "val", expected, any_count=True)
    assert len(first[1]) + len(second[1]) == 11


def test_too_few_images_of_a_class_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = replace(trees.plant("cog-l1", tmp_path, monkeypatch), per_class=(11, 12))
    with pytest.raises(DataError, match=r"cog-l1: 10 images in trainval of class 1 under .*, expected 11 to 12"):
        partition.read_both(card, tmp_path, SplitSpec("cog-l1"), "train", "val")
