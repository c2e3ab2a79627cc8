"""The order of an epoch and what is drawn in it: another for every epoch and seed, one for all ranks, whole after a
resume; how many images may be unreadable; and what the digest covers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dataset_trees as trees
import pytest
import torch
from batches import same

from tasks.base import DataContext
from tasks.datasets.augment import Augment
from tasks.datasets.labelled import bundled_images, partition
from tasks.datasets.labelled.card import SplitSpec
from tasks.datasets.labelled.loaders import ImageInput, LabelledImages, MemoryLoaders, file_loaders
from tasks.datasets.labelled.parts import LabelledPart
from tasks.datasets.loaders import BatchTransform, SampleLoaders, share
from tasks.errors import DataError

PLAIN = ImageInput(Augment.none(), "half")
"""Nothing is random but the order."""


def context(batch: int, **other: Any) -> DataContext:
    return replace(DataContext(Path("/nowhere"), input_size=(16, 16), device="cpu", seed=5, batch=batch), **other)


def in_memory(how: ImageInput = PLAIN, **other: Any) -> MemoryLoaders:
    """Of 300 digits, 40 in a batch."""
    part = bundled_images.load_bundled(trees.card_of("digits"), Path("/nowhere"))
    train, val = (LabelledPart(part.images[rows], part.labels[rows]) for rows in (part.train, part.val))
    return MemoryLoaders(
        LabelledImages("digits", Path("/nowhere"), train, val, small=True), how, context(40, **other), BatchTransform()
    )


@pytest.fixture
def in_files(tmp_path: Path) -> Callable[..., SampleLoaders]:
    """Of 14 images, 6 in a batch."""
    card = trees.food101(tmp_path)

    def make(how: ImageInput = PLAIN, **other: Any) -> SampleLoaders:
        parts = partition.read_both(card, tmp_path, SplitSpec("food101"), "train", "val")
        data = LabelledImages("food101", tmp_path, *parts)
        return file_loaders(data, how, context(6, root=tmp_path, **other), BatchTransform())

    return make


@pytest.fixture(params=["memory", "files"])
def make(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return in_memory if request.param == "memory" else request.getfixturevalue("in_files")


def labels_of(loaders: Any) -> list[int]:
    """The labels of the training images, in the order of the data set."""
    if isinstance(loaders, MemoryLoaders):
        return loaders._labels.tolist()
    samples = loaders._training._items._samples
    return [int(samples.sample(i).target) for i in range(len(samples))]


def test_the_order_is_another_in_every_epoch_and_for_every_seed(make: Callable[..., Any]) -> None:
    orders = [make(seed=seed).rows(epoch).flatten().tolist() for seed in (5, 6) for epoch in (0, 1, 2)]
    assert len({tuple(order) for order in orders}) == 6
    for order in orders:
        assert len(set(order)) == len(order)
        assert order != sorted(order)
    assert len({frozenset(order) for order in orders}) > 1  # nor are the same images left out


def test_batches_are_the_images_of_their_rows(make: Callable[..., Any]) -> None:
    loaders = make()
    labels = labels_of(loaders)
    for epoch in (0, 1):
        seen = [batch["labels"].tolist() for batch in loaders.epoch(epoch)]
        assert seen == [[labels[i] for i in row] for row in loaders.rows(epoch).tolist()]


def test_without_augmentation_epochs_and_seeds_still_differ(make: Callable[..., Any]) -> None:
    first = next(make().epoch(0))
    assert same(first, next(make().epoch(0)))
    assert not same(first, next(make().epoch(1)))
    assert not same(first, next(make(seed=6).epoch(0)))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_the_one_order_of_the_epoch(make: Callable[..., Any], world: int) -> None:
    world = 4 if make is in_memory and world == 3 else world  # of 40
    whole = make().rows(2)
    shares = []
    for rank in range(world):
        rows = make(rank=rank, world=world).rows(2)
        assert torch.equal(rows, whole[:, share(whole.shape[1], rank, world)])
        shares.append(rows)
    for step, row in enumerate(whole):
        assert sorted(torch.cat([rows[step] for rows in shares]).tolist()) == sorted(row.tolist())


@pytest.mark.parametrize("workers", [0, 1])
def test_epochs_after_a_resumed_one_are_whole(in_files: Callable[..., SampleLoaders], workers: int) -> None:
    """The reader of the resumed one goes on to the next epoch, at its first step."""
    resumed, undisturbed = in_files(loader_workers=workers), in_files()
    assert len(list(resumed.epoch(0, first_step=1))) == 1
    seen = list(resumed.epoch(1))
    assert len(seen) == resumed.steps_per_epoch == 2
    assert all(same(one, other) for one, other in zip(seen, undisturbed.epoch(1), strict=True))


def test_augmentation_in_memory_is_drawn_anew_in_every_epoch_and_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the same images at the same places."""
    augment = Augment.none().model_copy(update={"crop_scale": (0.3, 1.0), "flip": 0.5, "erasing": 0.5})
    loaders = in_memory(ImageInput(augment, "half"))
    images = torch.arange(40).repeat(2, 1)
    monkeypatch.setattr(loaders, "rows", lambda epoch: images)
    batches = [batch for epoch in (0, 1) for batch in loaders.epoch(epoch)]
    assert len(batches) == 4
    assert not any(same(one, other) for i, one in enumerate(batches) for other in batches[:i])


@pytest.mark.parametrize("workers", [0, 1])
def test_exactly_the_stated_share_may_be_unreadable(
    in_files: Callable[..., SampleLoaders], tmp_path: Path, workers: int
) -> None:
    """A quarter of the 12 images of an epoch: three are replaced, a fourth stops it."""
    loaders = in_files()
    paths = [Path(loaders._training._items._samples.images.where(i)) for i in loaders.rows(0).flatten().tolist()]
    assert len(paths) == 12
    for path in paths[:3]:
        path.write_bytes(path.read_bytes()[:200])
    loaders = in_files(loader_workers=workers, max_unreadable=0.25)
    assert len(list(loaders.epoch(0))) == 2
    assert len(loaders.unreadable) == 3
    paths[7].write_bytes(b"")
    with pytest.raises(DataError, match=r"^4 of 12 images of epoch 1 cannot be read, more than runtime.max_unreadable"):
        list(in_files(loader_workers=workers, max_unreadable=0.25).epoch(0))


def test_digests_of_files_cover_what_is_evaluated_on(tmp_path: Path) -> None:
    card = trees.food101(tmp_path)

    def digest(evaluate: Any, rows: slice = slice(None), other: int = 0) -> str:
        train, val = partition.read_both(card, tmp_path, SplitSpec("food101"), "train", evaluate)
        part = LabelledPart(val.images[rows], [label + other for label in val.labels[rows]])
        data = LabelledImages("food101", tmp_path, train, part)
        return file_loaders(data, PLAIN, context(6, root=tmp_path), BatchTransform()).digest

    assert digest("val") == digest("val")
    assert len({digest("val"), digest("test"), digest("test", slice(1, None)), digest("test", other=1)}) == 4
