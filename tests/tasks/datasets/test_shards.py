"""Images packed into tar files are the same images, in the same order, with the same figures; in any order."""

from __future__ import annotations

import io
import pickle
import shutil
import tarfile
from pathlib import Path

import dataset_trees as trees
import numpy as np
import pytest
import torch
from batches import same
from PIL import Image

from tasks.base import DataContext
from tasks.datasets.augment import Augment
from tasks.datasets.images import open, shards
from tasks.datasets.images.decode import Unreadable
from tasks.datasets.images.shards import Packed
from tasks.datasets.images.source import Files
from tasks.datasets.labelled import partition, readers
from tasks.datasets.labelled.card import SplitSpec
from tasks.datasets.labelled.loaders import ImageInput, LabelledImages, file_loaders, mixing
from tasks.errors import DataError


def packed(root: Path, labels: bool = True, shard_bytes: int = 8000) -> shards.Index:
    """Food-101 in miniature, all of it; several small shards."""
    paths = sorted((root / "food-101" / "images").rglob("*.jpg"))
    classes = sorted({path.parent.name for path in paths})
    numbers = [classes.index(path.parent.name) for path in paths] if labels else None
    return shards.pack(root, paths, numbers, root / "food-101" / "shards", shard_bytes)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_those_of_the_folders(tmp_path: Path, workers: int) -> None:
    card = trees.food101(tmp_path)

    def batches() -> tuple[list[dict[str, torch.Tensor]], str]:
        train, evaluation = partition.read_both(card, tmp_path, SplitSpec(card.name), "train", "val")
        context = DataContext(tmp_path, (16, 16), device="cpu", seed=1, batch=4, loader_workers=workers)
        data, how = LabelledImages("food101", tmp_path, train, evaluation), ImageInput(Augment(), "half")
        made = file_loaders(data, how, context, mixing(3, how.augment, context))
        return [*made.epoch(0), *made.epoch(1, first_step=1), *made.evaluation()], made.digest

    plain, digest = batches()
    made = packed(tmp_path)
    assert len(made.shards) > 3
    for image in (tmp_path / "food-101" / "images").rglob("*.jpg"):
        image.unlink()
    again, same_digest = batches()
    assert same_digest == digest
    for one, other in zip(plain, again, strict=True):
        assert same(one, other)


def test_an_index_says_names_labels_and_places(tmp_path: Path) -> None:
    trees.food101(tmp_path)
    made = packed(tmp_path)
    found = shards.read_index(tmp_path / "food-101" / "shards")
    assert found is not None
    assert list(found.names) == list(made.names)
    assert found.labels.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    for row in (0, 7, 29):
        with (found.folder / found.shards[found.shard[row]]).open("rb") as file:
            file.seek(found.offset[row])
            assert file.read(found.size[row]) == (tmp_path / found.names[row]).read_bytes()
    assert found.rows_of([found.names[5], "nothing", found.names[0]]).tolist() == [5, -1, 0]
    shutil.rmtree(found.folder)
    assert packed(tmp_path, labels=False).labels.tolist() == [shards.NO_LABEL] * 30


def test_tar_files_of_others_can_be_indexed(tmp_path: Path) -> None:
    """As WebDataset's writer lays them out: fields of one key side by side, and some that are not ours to read."""
    content = io.BytesIO()
    Image.new("RGB", (5, 4), (9, 8, 7)).save(content, "PNG")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in (("k1.cls", b"3"), ("k1.json", b"{}"), ("k1.png", content.getvalue())):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    found = shards.index(tmp_path)
    assert (list(found.names), found.labels.tolist()) == (["k1.png"], [3])
    source = pickle.loads(pickle.dumps(Packed("others", found, np.array([0, 0]))))
    assert [source.image(i).getpixel((0, 0)) for i in range(2)] == [(9, 8, 7)] * 2


def test_without_an_index_or_without_these_images_files_are_read(tmp_path: Path) -> None:
    trees.food101(tmp_path)
    paths = sorted(tmp_path.rglob("*.jpg"))
    assert isinstance(open.open_images("food101", tmp_path, paths), Files)
    packed(tmp_path)
    assert isinstance(open.open_images("food101", tmp_path, paths), Packed)
    trees.draw(tmp_path / "food-101" / "other.jpg", 0)
    assert isinstance(open.open_images("food101", tmp_path, [tmp_path / "food-101" / "other.jpg"]), Files)
    with pytest.raises(DataError, match=r"1 of 31 images are not in the tar files of .*for example food-101/other.jpg"):
        open.open_images("food101", tmp_path, [*paths, tmp_path / "food-101" / "other.jpg"])


def test_packing_is_never_half_done(tmp_path: Path) -> None:
    trees.food101(tmp_path)
    out = tmp_path / "food-101" / "shards"
    unfinished = tmp_path / "food-101" / "shards.part"
    unfinished.mkdir()
    (unfinished / "000009.tar").write_bytes(b"of a run that was killed")
    assert sorted(path.name for path in out.parent.iterdir() if "shards" in path.name) == ["shards.part"]
    made = packed(tmp_path)
    assert sorted(path.name for path in out.iterdir()) == [*made.shards, "index.npz"]
    assert not unfinished.exists()
    with pytest.raises(DataError, match="shards is there already; remove it to pack"):
        packed(tmp_path)


def test_shards_that_changed_since_are_refused(tmp_path: Path) -> None:
    trees.food101(tmp_path)
    first = packed(tmp_path).shards[0]
    out = tmp_path / "food-101" / "shards"
    (out / first).write_bytes((out / first).read_bytes()[:-512])
    with pytest.raises(DataError, match=r"index.npz does not fit the tar files beside it: 000000.tar is not of the"):
        shards.read_index(out)
    (out / "index.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"index.npz does not fit"):
        shards.read_index(out)


def test_imagenet_can_be_nothing_but_tar_files(tmp_path: Path) -> None:
    """The one set whose folders say what is in it."""
    card = trees.imagenet(tmp_path)
    plain = [readers.read(card, tmp_path, part, 0) for part in ("train", "val")]
    paths = sorted((tmp_path / "imagenet").rglob("*.JPEG"), reverse=True)
    shards.pack(tmp_path, paths, None, tmp_path / "imagenet" / "shards")
    for part in ("train", "val"):
        shutil.rmtree(tmp_path / "imagenet" / part)
    assert card.missing(tmp_path) is None
    assert [readers.read(card, tmp_path, part, 0) for part in ("train", "val")] == plain
    assert isinstance(open.open_images("imagenet", tmp_path, plain[0][0]), Packed)
    shutil.rmtree(tmp_path / "imagenet" / "shards")
    assert "imagenet: not found under" in (card.missing(tmp_path) or "")
    assert "no such folder on this machine" in (card.missing(tmp_path / "unmounted") or "")


def test_a_damaged_image_in_a_shard_is_named(tmp_path: Path) -> None:
    trees.food101(tmp_path)
    victim = sorted(tmp_path.rglob("*.jpg"))[3]
    victim.write_bytes(victim.read_bytes()[:100])
    source = Packed("food101", packed(tmp_path), np.arange(30))
    with pytest.raises(Unreadable, match=rf"food101: cannot read image food-101/.*{victim.name} in .*/0000\d\d.tar \("):
        source.image(3)
    assert source.image(4).mode == "RGB"


def test_names_that_tar_files_cannot_tell_apart_are_refused(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png"):
        trees.draw(tmp_path / "set" / name, 0)
    paths = sorted((tmp_path / "set").iterdir())
    with pytest.raises(DataError, match="two images differ in the suffix alone"):
        shards.pack(tmp_path, paths, None, tmp_path / "set" / "shards")
    with pytest.raises(DataError, match="no tar files with images in"):
        shards.index(tmp_path)


def test_a_file_that_is_no_tar_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"x" * 2000)
    with pytest.raises(DataError, match=r"x.tar is no whole tar file of images"):
        shards.index(tmp_path)
