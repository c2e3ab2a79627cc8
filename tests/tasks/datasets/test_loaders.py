"""Batches: order, shares of ranks, resuming, augmentation and mixing, from memory and from files."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dataset_trees as trees
import numpy as np
import pytest
import torch
from batches import same

from tasks.base import Batch, DataContext, Loaders
from tasks.datasets import DATASETS
from tasks.datasets.augment import Augment
from tasks.datasets.labelled import bundled_images, partition
from tasks.datasets.labelled.card import SplitSpec
from tasks.datasets.labelled.loaders import ImageInput, LabelledImages, file_loaders, labelled_loaders, mixing
from tasks.datasets.labelled.parts import LabelledPart
from tasks.datasets.loaders import BatchTransform, SampleLoaders, share
from tasks.errors import DataError

PLAIN = Augment.none()
BUSY = PLAIN.model_copy(
    update={"crop_scale": (0.3, 1.0), "flip": 0.5, "erasing": 0.5, "mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1}
)
TIMM = Augment()
"""The paper's: RandAugment and mixing, one image at a time."""


def place(**other: Any) -> DataContext:
    return replace(DataContext(Path("/nowhere"), input_size=(16, 16), device="cpu", seed=5, batch=40), **other)


def from_memory(augment: Augment = PLAIN, evaluate: str = "val", colour: bool = False, **other: Any) -> Loaders:
    part = bundled_images.load_bundled(trees.card_of("digits"), Path("/nowhere"))
    images = np.repeat(part.images[..., None], 3, axis=-1) if colour else part.images
    rows = part.train, getattr(part, evaluate)
    parts = (LabelledPart(images[row], part.labels[row]) for row in rows)
    data, context = LabelledImages("digits", Path("/nowhere"), *parts, small=True), place(**other)
    return labelled_loaders(data, ImageInput(augment, "half"), context, mixing(10, augment, context))


@pytest.fixture
def from_files(tmp_path: Path) -> Callable[..., SampleLoaders]:
    card = trees.food101(tmp_path)

    def make(augment: Augment = PLAIN, **other: Any) -> SampleLoaders:
        train, evaluation = partition.read_both(card, tmp_path, SplitSpec("food101"), "train", "val")
        data, context = LabelledImages("food101", tmp_path, train, evaluation), place(root=tmp_path, batch=6, **other)
        return file_loaders(data, ImageInput(augment, "imagenet"), context, mixing(3, augment, context))

    return make


@pytest.fixture(params=["memory", "files"])
def make(request: pytest.FixtureRequest) -> Callable[..., Loaders]:
    return from_memory if request.param == "memory" else request.getfixturevalue("from_files")


def by_image(batches: list[Batch]) -> list[tuple[float, ...]]:
    """Content of several batches without their order: a sum over each image, and its labels."""
    rows = [
        (round(image.double().sum().item(), 4), *target.tolist())
        for batch in batches
        for image, target in zip(batch["images"], batch.get("targets", batch["labels"].view(-1, 1)), strict=True)
    ]
    return sorted(rows)


def test_an_epoch_shows_each_image_at_most_once_and_drops_the_rest(make: Callable[..., Loaders]) -> None:
    loaders = make()
    batches = list(loaders.epoch(0))
    sums = [image.sum().item() for batch in batches for image in batch["images"]]
    size = len(batches[0]["images"])
    assert len(batches) == loaders.steps_per_epoch == loaders.train_samples // size
    assert len(set(sums)) == len(sums) == size * len(batches)


@pytest.mark.parametrize("augment", [BUSY, TIMM], ids=["busy", "timm"])
def test_what_is_seen_depends_on_seed_epoch_and_step_alone(make: Callable[..., Loaders], augment: Augment) -> None:
    whole = list(make(augment).epoch(3))
    torch.manual_seed(1)  # nothing that lives on may matter
    loaders = make(augment)
    next(loaders.epoch(0))
    assert all(same(one, other) for one, other in zip(whole, loaders.epoch(3), strict=True))
    resumed = list(make(augment).epoch(3, first_step=1))
    assert all(same(one, other) for one, other in zip(whole[1:], resumed, strict=True))
    assert not same(whole[0], next(make(augment).epoch(4)))
    assert not same(whole[0], next(make(augment, seed=6).epoch(3)))


@pytest.mark.parametrize("augment", [BUSY, TIMM], ids=["busy", "timm"])
def test_one_image_is_augmented_anew_under_every_seed_and_in_every_epoch(augment: Augment) -> None:
    """A training set of one image 40 times over: only the draws tell batches apart, whatever their order."""
    part = bundled_images.load_bundled(trees.card_of("digits"), Path("/nowhere"))
    same_image = LabelledPart(np.repeat(part.images[:1], 40, axis=0), np.zeros(40, np.int64))
    unmixed = augment.model_copy(update={"mixup": 0.0, "cutmix": 0.0})

    def seen(epoch: int, **other: Any) -> list[tuple[float, ...]]:
        data, context = LabelledImages("digits", Path("/nowhere"), same_image, same_image, small=True), place(**other)
        loaders = labelled_loaders(data, ImageInput(unmixed, "half"), context, mixing(10, unmixed, context))
        return by_image(list(loaders.epoch(epoch)))

    assert seen(0) == seen(0)
    assert len(set(seen(0))) > 20
    assert seen(0) != seen(1)
    assert seen(0) != seen(0, seed=6)


@pytest.mark.parametrize("other", [{"seed": 6}, {"epoch": 1}], ids=["seed", "epoch"])
def test_one_file_is_augmented_anew_under_every_seed_and_in_every_epoch(
    from_files: Callable[..., SampleLoaders], other: dict[str, int]
) -> None:
    unmixed = TIMM.model_copy(update={"mixup": 0.0, "cutmix": 0.0})

    def by_index(epoch: int = 0, **context: Any) -> dict[int, torch.Tensor]:
        loaders = from_files(unmixed, **context)
        images = torch.cat([batch["images"] for batch in loaders.epoch(epoch)])
        return dict(zip(loaders.rows(epoch).flatten().tolist(), images, strict=True))

    first, second = by_index(), by_index(**other)
    both = first.keys() & second.keys()
    assert len(both) > 5
    assert not any(torch.equal(first[index], second[index]) for index in both)


def test_loading_leaves_the_global_generators_alone(make: Callable[..., Loaders]) -> None:
    torch.manual_seed(7)
    np.random.seed(7)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(7)
    np.random.seed(7)
    list(make(TIMM).epoch(0))
    list(make(BUSY).epoch(0))
    assert (torch.rand(1), np.random.rand()) == expected


@pytest.mark.parametrize("augment", [PLAIN, BUSY, TIMM], ids=["plain", "busy", "timm"])
def test_two_workers_see_together_what_one_sees(make: Callable[..., Loaders], augment: Augment) -> None:
    if make is not from_memory and augment is not PLAIN:
        augment = augment.model_copy(update={"mixup": 0.0, "cutmix": 0.0})  # the share of 3 is odd
    alone = list(make(augment).epoch(1))
    ranks = [list(make(augment, rank=rank, world=2).epoch(1)) for rank in (0, 1)]
    for step, batch in enumerate(alone):
        assert by_image([batch]) == by_image([rank[step] for rank in ranks])


@pytest.mark.parametrize(("batch", "world"), [(12, 1), (12, 2), (12, 3), (9, 3)])
def test_shares_cover_the_batch_and_keep_mirror_pairs_together(batch: int, world: int) -> None:
    shares = [share(batch, rank, world) for rank in range(world)]
    assert sorted(torch.cat(shares).tolist()) == list(range(batch))
    if batch // world % 2 == 0:
        for positions in shares:
            assert torch.equal(positions.flip(0), batch - 1 - positions)


def test_evaluation_shows_each_image_once_in_order(make: Callable[..., Loaders]) -> None:
    whole_image = TIMM.model_copy(update={"eval_crop": 1.0})
    first, second = list(make(BUSY).evaluation()), list(make(whole_image).evaluation())
    assert all(same(one, other) for one, other in zip(first, second, strict=True))  # no augmentation here
    labels = torch.cat([batch["labels"] for batch in first]).tolist()
    if make is from_memory:
        part = bundled_images.load_bundled(trees.card_of("digits"), Path("/nowhere"))
        assert labels == part.labels[part.val].tolist()
    else:
        assert labels == [0, 0, 1, 2] or sorted(labels) == labels
        assert len({image.sum().item() for batch in first for image in batch["images"]}) == 4


def test_a_batch_larger_than_the_training_set_is_refused() -> None:
    with pytest.raises(DataError, match="batch 301 is larger than the training set of 300 images: lower it"):
        from_memory(batch=301)


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(DataError, match="batch 40 does not divide by 3 workers"):
        from_memory(world=3)


@pytest.mark.parametrize(("mode", "equal"), [("batch", True), ("pair", False), ("elem", False)])
def test_ranks_draw_the_strength_of_mixing_together_only_for_the_whole_batch(mode: str, equal: bool) -> None:
    mixes = PLAIN.model_copy(update={"mixup": 0.8, "mixup_mode": mode})
    one, other = (next(iter(from_memory(mixes, rank=rank, world=2).epoch(0)))["targets"] for rank in (0, 1))
    strengths = [{round(value, 4) for value in targets.max(1).values.tolist()} - {1.0} for targets in (one, other)]
    assert bool(strengths[0] & strengths[1]) == equal


def test_mixing_needs_an_even_share() -> None:
    with pytest.raises(DataError, match=r"batch 10 over 2 worker\(s\) must be even"):
        from_memory(BUSY, batch=10, world=2)
    assert from_memory(PLAIN, batch=10, world=2).steps_per_epoch == 30


def test_digests_tell_what_is_trained_and_evaluated_on(from_files: Callable[..., SampleLoaders]) -> None:
    assert from_memory().digest == from_memory(BUSY, seed=9).digest != from_memory(evaluate="test").digest
    assert from_files().digest == from_files(TIMM).digest != from_memory().digest


def test_worker_processes_change_nothing(from_files: Callable[..., SampleLoaders]) -> None:
    here, there = from_files(TIMM), from_files(TIMM, loader_workers=2)
    assert all(same(one, other) for one, other in zip(here.epoch(0), there.epoch(0), strict=True))
    assert all(same(one, other) for one, other in zip(here.evaluation(), there.evaluation(), strict=True))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_named(from_files: Callable[..., SampleLoaders], tmp_path: Path, workers: int) -> None:
    for image in sorted((tmp_path / "food-101" / "images" / "baklava").iterdir()):
        image.write_bytes(image.read_bytes()[:200])
    pattern = r"^food101: cannot read image .*/baklava/\d+\.jpg \(.*\); get this file again$"
    with pytest.raises(DataError, match=pattern):
        list(from_files(loader_workers=workers).epoch(0))


def spoil(root: Path, names: list[str]) -> None:
    """Training images of food101 that are cut short."""
    for name in names:
        path = root / "food-101" / "images" / name
        path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_up_to_a_share_are_replaced_by_the_next(
    from_files: Callable[..., SampleLoaders], tmp_path: Path, workers: int
) -> None:
    whole = [batch for epoch in (0, 1) for batch in from_files(PLAIN).epoch(epoch)]
    other = tmp_path / "other"
    train, _ = partition.read_both(trees.food101(other), other, SplitSpec("food101"), "train", "val")
    names = [f"{path.parent.name}/{path.name}" for path in train[0]]
    spoil(tmp_path, [names[3], names[4]])
    loaders = from_files(PLAIN, loader_workers=workers, max_unreadable=0.2)
    seen = [batch for epoch in (0, 1) for batch in loaders.epoch(epoch)]
    rows = torch.cat([loaders.rows(epoch) for epoch in (0, 1)])
    stands_in = from_files(PLAIN, max_unreadable=0.2)._training._items
    for row, one, other in zip(rows.tolist(), whole, seen, strict=True):
        assert len(other["images"]) == len(row)
        for position, index in enumerate(row):
            used = 5 if index in (3, 4) else index
            ((sample, _, _),) = stands_in.__getitems__([(0, used)])
            assert torch.equal(other["images"][position], sample.image)
            assert other["labels"][position] == train[1][used]
            assert index in (3, 4) or torch.equal(one["images"][position], other["images"][position])
    assert len(loaders.unreadable) == 2
    assert {names[3], names[4]} == {"/".join(what.split(" (")[0].split("/")[-2:]) for what in loaders.unreadable}


def test_more_unreadable_images_than_stated_stop_the_epoch(
    from_files: Callable[..., SampleLoaders], tmp_path: Path
) -> None:
    spoil(tmp_path, [f"baklava/{path.name}" for path in (tmp_path / "food-101" / "images" / "baklava").iterdir()])
    pattern = (
        r"\d of 12 images of epoch 1 cannot be read, more than runtime.max_unreadable 0.1 allows; food101: cannot read"
    )
    with pytest.raises(DataError, match=pattern):
        list(from_files(max_unreadable=0.1).epoch(0))
    with pytest.raises(DataError, match=r"^food101: cannot read image .*baklava"):
        list(from_files(max_unreadable=0.9).evaluation())  # a figure is over all images


def test_a_trial_records_which_images_it_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workers.state import RankContext
    from workers.train import train
    from workers.trial import TrialSpec

    card = trees.food101(tmp_path)
    monkeypatch.setitem(DATASETS, "food101", card)
    names = sorted(str(path.relative_to(tmp_path / "food-101" / "images")) for path in tmp_path.rglob("1000.jpg"))
    spoil(tmp_path, names)
    spec = TrialSpec.model_validate({
        "task": {"kind": "classify", "dataset": "food101", "augment": {"mixup": 0, "cutmix": 0}},
        "backbone": {"model": "vit_tiny_patch16_224", "image_size": 16,
                     "args": {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}},
        "optim": {"lr": 1e-3, "batch": 4, "epochs": 2, "warmup_epochs": 0},
        "runtime": {"max_unreadable": 0.25},
    })  # fmt: skip
    facts = train(spec, RankContext(tmp_path / "trial", tmp_path), lambda report: None, lambda: False).facts
    (said,) = facts["unreadable_images"]
    assert names[0] in said
    assert facts["image_cache"].startswith("training off")


def test_a_disk_that_is_gone_is_not_taken_for_unreadable_images(
    from_files: Callable[..., SampleLoaders], tmp_path: Path
) -> None:
    loaders = from_files(max_unreadable=0.9)
    shutil.rmtree(tmp_path / "food-101" / "images")
    with pytest.raises(DataError, match=r"^food101: cannot read image .*No such file"):
        list(loaders.epoch(0))


def test_resuming_decodes_nothing_that_was_seen(
    from_files: Callable[..., SampleLoaders], monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    opened: list[object] = []
    true_open = Image.open
    monkeypatch.setattr(Image, "open", lambda *a, **k: opened.append(a) or true_open(*a, **k))
    loaders = from_files()
    assert loaders.steps_per_epoch == 2
    list(loaders.epoch(0, first_step=1))
    assert len(opened) == 6
    opened.clear()
    assert list(loaders.epoch(0, first_step=2)) == []
    assert opened == []


def images_of(loaders: Loaders) -> Iterator[torch.Tensor]:
    return (batch["images"] for batch in loaders.epoch(0))


def test_colour_and_size_of_batches(make: Callable[..., Loaders]) -> None:
    for augment in (PLAIN, BUSY, TIMM):
        for images in images_of(make(augment)):
            assert images.shape[1:] == (3, 16, 16)
            assert images.dtype == torch.float32
            assert images.isfinite().all()


def test_several_labels_per_image_pass_through(tmp_path: Path) -> None:
    """Rows of 1, 0 and -1 belong to the image they come with."""
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    labels = random.randint(-1, 2, (12, 5)).astype(np.float32)
    parts = LabelledPart(images, labels), LabelledPart(images[:4], labels[:4])
    for small in (True, False):
        data = LabelledImages("several", tmp_path, *parts, small=small)
        loaders = labelled_loaders(data, ImageInput(PLAIN, "half"), place(batch=6), BatchTransform())
        batch = next(loaders.epoch(0))
        assert batch["labels"].dtype == torch.float32
        for image, label in zip(batch["images"], batch["labels"], strict=True):
            pixels = ((image * 0.5 + 0.5) * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)
            found = next(i for i in range(12) if (images[i] == pixels).all())
            assert label.tolist() == labels[found].tolist()
        assert torch.equal(torch.cat([b["labels"] for b in loaders.evaluation()]), torch.from_numpy(labels[:4]))


@pytest.mark.parametrize("augment", [BUSY, TIMM], ids=["busy", "timm"])
def test_a_grey_image_and_the_same_in_colour_look_alike(augment: Augment) -> None:
    grey, other = from_memory(augment), from_memory(augment, colour=True)
    assert same(next(grey.epoch(0)), next(other.epoch(0)))
    assert all(same(one, two) for one, two in zip(grey.evaluation(), other.evaluation(), strict=True))


def test_one_stream_serves_all_epochs_and_any_jump(from_files: Callable[..., SampleLoaders]) -> None:
    """Workers that read ahead into the next epoch change nothing, also when the next thing asked for is another."""
    fresh = {epoch: list(from_files(TIMM).epoch(epoch)) for epoch in range(3)}
    loaders = from_files(TIMM, loader_workers=1)
    for epoch in (0, 1, 0, 2):
        assert all(same(one, other) for one, other in zip(fresh[epoch], loaders.epoch(epoch), strict=True))
    unfinished = loaders.epoch(0)
    assert same(next(unfinished), fresh[0][0])
    assert all(same(one, other) for one, other in zip(fresh[1], loaders.epoch(1), strict=True))
    assert same(next(unfinished), fresh[0][1])


def test_worker_processes_live_over_epochs_and_end_with_their_loaders(from_files: Callable[..., SampleLoaders]) -> None:
    loaders = from_files(loader_workers=1)
    list(loaders.epoch(0))
    (worker,) = multiprocessing.active_children()
    list(loaders.epoch(1))
    assert multiprocessing.active_children() == [worker]
    del loaders  # not in a circle: then they would go at some later time, and that can take seconds each
    assert multiprocessing.active_children() == []
