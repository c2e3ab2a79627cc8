"""Samples with any target: boxes, key points, depth maps, pairs of frames get what labelled images get."""

from __future__ import annotations

import pickle
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batches import same
from PIL import Image

from tasks.base import Batch, DataContext, EvaluationShare
from tasks.datasets.images import cache
from tasks.datasets.images.decode import Unreadable
from tasks.datasets.images.source import Files, Source
from tasks.datasets.loaders import BatchTransform, Pipeline, SampleLoaders
from tasks.datasets.samples import ArrayTargets, PickledTargets, Records, Sample, Samples, Targets, stack, stack_images
from tasks.errors import DataError

HEIGHT, WIDTH = 24, 18


def context(root: Path, **other: Any) -> DataContext:
    return replace(DataContext(root, (HEIGHT, WIDTH), device="cpu", seed=3, batch=4), **other)


def pictures(root: Path, count: int = 8) -> Source:
    """Black images of several sizes, with a white square of 6 x 6 pixels whose corner `corner` gives."""
    paths = []
    for i in range(count):
        pixels = np.zeros((30 + i, 40, 3), dtype=np.uint8)
        left, top = corner(i)
        pixels[top : top + 6, left : left + 6] = 255
        paths.append(root / f"{i}.png")
        Image.fromarray(pixels).save(paths[-1])
    return Files("squares", root, paths)


def corner(i: int) -> tuple[int, int]:
    return 3 * i, 20 - 2 * i


def boxes(i: int) -> dict[str, Any]:
    """(left, top, right, bottom) of as many boxes as the image's number says, the square's first; image 0 has none."""
    left, top = corner(i)
    rows = [[left, top, left + 6, top + 6], *([1, 1, 2 + k, 3] for k in range(i - 1))]
    return {"boxes": np.array(rows[: i or 0], dtype=np.float32).reshape(-1, 4), "id": f"image {i}", "crowd": i % 2 == 0}


def flip_and_pad(sample: Sample) -> Sample:
    """A flip of image and boxes by one coin, then zeros below and to the right up to 40 x 40."""
    pixels, found = np.asarray(sample.image), torch.from_numpy(sample.target["boxes"].copy())
    if random.random() < 0.5:
        pixels = pixels[:, ::-1]
        found[:, [0, 2]] = pixels.shape[1] - found[:, [2, 0]]
    padded = np.zeros((40, 40, 3), dtype=np.uint8)
    padded[: pixels.shape[0], : pixels.shape[1]] = pixels
    image = torch.from_numpy(padded).permute(2, 0, 1).float() / 255
    return replace(sample, image=image, target={**sample.target, "boxes": found})


DETECTION = Pipeline(flip_and_pad, flip_and_pad, stack_images, evaluation_batch=3)


def detection(root: Path, **other: Any) -> SampleLoaders:
    source = pictures(root)
    samples = Records(source, PickledTargets([boxes(i) for i in range(len(source))]))
    return SampleLoaders(samples, samples, DETECTION, context(root, **other))


def test_boxes_of_varying_number_move_with_their_image(tmp_path: Path) -> None:
    batches = [batch for epoch in (0, 1, 2) for batch in detection(tmp_path).epoch(epoch)]
    flipped = set()
    for batch in batches:
        assert batch["images"].shape == (4, 3, 40, 40)
        for image, target in zip(batch["images"], batch["targets"], strict=True):
            number = int(target["id"].split()[1])
            assert len(target["boxes"]) == number
            if number:
                left, top, right, bottom = target["boxes"][0].int().tolist()
                assert image[:, top:bottom, left:right].min() == 1
                assert image.sum() == 3 * 36
                flipped.add(left != corner(number)[0])
    assert flipped == {True, False}


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_is_the_same_from_any_step_and_over_any_ranks(tmp_path: Path, workers: int) -> None:
    whole = list(detection(tmp_path).epoch(1))
    assert [str(one) for one in whole] == [str(one) for one in detection(tmp_path, loader_workers=workers).epoch(1)]
    assert str(whole[1:]) == str(list(detection(tmp_path, loader_workers=workers).epoch(1, first_step=1)))
    ranks = [list(detection(tmp_path, rank=rank, world=2).epoch(1)) for rank in (0, 1)]
    for step, batch in enumerate(whole):
        ids = sorted(target["id"] for rank in ranks for target in rank[step]["targets"])
        assert ids == sorted(target["id"] for target in batch["targets"])


def test_evaluation_is_shared_out_by_batches_of_the_pipelines_size(tmp_path: Path) -> None:
    loaders = detection(tmp_path)
    assert [batch["item"] for batch in loaders.evaluation()] == ["000000000000", "000000000003", "000000000006"]
    second = list(loaders.evaluation(EvaluationShare(rank=1, world=2)))
    assert [[target["id"] for target in batch["targets"]] for batch in second] == [["image 3", "image 4", "image 5"]]


class Counted(Source):
    """Logs which images are decoded."""

    def __init__(self, inner: Source, log: Path) -> None:
        self.name, self._inner, self._log = inner.name, inner, log

    def __len__(self) -> int:
        return len(self._inner)

    def image(self, index: int) -> Image.Image:
        with self._log.open("a") as log:
            log.write(f"{index}\n")
        return self._inner.image(index)

    def where(self, index: int) -> str:
        return self._inner.where(index)

    def content(self) -> Iterator[bytes]:
        return self._inner.content()

    def identity(self, first: int, last: int) -> bytes:
        return self._inner.identity(first, last)


def crop(sample: Sample) -> Sample:
    """Top-down: the region of HEIGHT x WIDTH around a person, and the key points in it."""
    left, top = random.randint(0, 4), random.randint(0, 4)
    pixels = np.asarray(sample.image)[top : top + HEIGHT, left : left + WIDTH]
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float()
    return replace(sample, image=image, target=sample.target - np.array([left, top]))


def test_persons_in_one_photograph_share_its_decoded_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATOR_CACHE", str(tmp_path / "node"))
    monkeypatch.setattr(cache, "SAMPLE", 1)
    source = Counted(pictures(tmp_path, 4), tmp_path / "log")
    persons = ArrayTargets(np.arange(12 * 17 * 2).reshape(12, 17, 2))
    samples = Records(source, persons, image_of=np.repeat(np.arange(4), 3))
    pose = Pipeline(crop, crop)
    loaders = SampleLoaders(samples, samples, pose, context(tmp_path))
    batches = [*loaders.epoch(0), *loaders.epoch(1), *loaders.evaluation()]
    assert loaders.train_samples == 12
    assert batches[0]["images"].shape == (4, 3, HEIGHT, WIDTH)
    assert batches[0]["targets"].shape == (4, 17, 2)
    decoded = [int(line) for line in (tmp_path / "log").read_text().split()]
    assert sorted(decoded) == [0, 0, 1, 2, 3]  # once more the one that says how much room images take
    monkeypatch.setenv("ORCHESTRATOR_CACHE", "off")
    plain = SampleLoaders(samples, samples, pose, context(tmp_path))
    assert all(map(same, batches, [*plain.epoch(0), *plain.epoch(1), *plain.evaluation()]))
    assert plain.digest == loaders.digest


class DepthMaps(Targets):
    """A map in 16 bits beside each image."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = list(paths)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        try:
            return np.asarray(Image.open(self._paths[index])).astype(np.float32) / 1000
        except OSError as error:
            raise Unreadable(f"depth: cannot read map {self._paths[index]} ({error}); get it again") from error

    def content(self) -> Iterator[bytes]:
        return (path.name.encode() for path in self._paths)


def crop_both(sample: Sample) -> Sample:
    top, left = random.randint(0, 2), random.randint(0, 2)
    rows, columns = slice(top, top + HEIGHT), slice(left, left + WIDTH)
    image = torch.from_numpy(np.asarray(sample.image)[rows, columns].copy()).permute(2, 0, 1).float()
    return replace(sample, image=image, target=torch.from_numpy(sample.target[rows, columns].copy()))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_depth_map_is_cropped_with_its_image_and_replaced_when_unreadable(tmp_path: Path, workers: int) -> None:
    source, maps = pictures(tmp_path), []
    for i in range(len(source)):
        maps.append(tmp_path / f"{i}-depth.png")
        Image.fromarray(np.asarray(source.image(i))[:, :, 0].astype(np.uint16) * 20 + i).save(maps[-1])
    samples = Records(source, DepthMaps(maps))
    depth = Pipeline(crop_both, crop_both)
    maps[5].write_bytes(b"cut short")
    loaders = SampleLoaders(samples, samples, depth, context(tmp_path, loader_workers=workers, max_unreadable=0.2))
    batches = list(loaders.epoch(0))
    shown = []
    for batch in batches:
        assert batch["targets"].shape == (4, HEIGHT, WIDTH)
        for image, target in zip(batch["images"], batch["targets"], strict=True):
            shown.append(round(target.min().item() * 1000))
            assert torch.allclose(target * 1000 - shown[-1], image[0] * 20, atol=1e-2)
    assert sorted(shown) == [0, 1, 2, 3, 4, 6, 6, 7]
    assert [failure.split(" (")[0] for failure in loaders.unreadable] == [f"depth: cannot read map {maps[5]}"]
    with pytest.raises(DataError, match="depth: cannot read map"):
        list(loaders.evaluation())


class Pairs(Samples):
    """Two frames of a sequence at most two apart, drawn anew in each epoch; more pairs than there are frames."""

    def __init__(self, images: Source, pairs: int) -> None:
        self.images, self._pairs = images, pairs

    def __len__(self) -> int:
        return self._pairs

    def sample(self, index: int) -> Sample:
        first = random.randrange(len(self.images) - 2)
        frames = first, first + random.randint(1, 2)
        return Sample(tuple(map(self.images.image, frames)), torch.tensor(frames), index)

    def content(self) -> Iterator[bytes]:
        yield from self.images.content()
        yield str(self._pairs).encode()


def template_and_search(sample: Sample) -> Sample:
    sizes = (8, 16)
    template, search = (
        torch.from_numpy(np.array(frame.resize((side, side)))).permute(2, 0, 1).float()
        for frame, side in zip(sample.image, sizes, strict=True)
    )
    return replace(sample, image={"template": template, "search": search})


def pair_batch(samples: Sequence[Sample]) -> Batch:
    return {
        **{name: torch.stack([sample.image[name] for sample in samples]) for name in ("template", "search")},
        "frames": torch.stack([sample.target for sample in samples]),
    }


def test_pairs_of_frames_are_drawn_by_seed_epoch_and_index(tmp_path: Path) -> None:
    source = pictures(tmp_path)
    tracking = Pipeline(template_and_search, template_and_search, pair_batch)

    def loaders(**other: Any) -> SampleLoaders:
        return SampleLoaders(Pairs(source, 20), Pairs(source, 4), tracking, context(tmp_path, **other))

    epoch = list(loaders().epoch(2))
    assert [batch["search"].shape for batch in epoch] == [(4, 3, 16, 16)] * 5
    assert all(((batch["frames"][:, 1] - batch["frames"][:, 0]) <= 2).all() for batch in epoch)
    assert all(map(same, epoch, loaders(loader_workers=2).epoch(2)))
    assert all(map(same, epoch[3:], loaders().epoch(2, first_step=3)))
    frames = [sorted(torch.cat([b["frames"] for b in loaders().epoch(n)]).tolist()) for n in (2, 3)]
    assert frames[0] != frames[1]


class Doubled(BatchTransform):
    """Doubles images, and records what else it was given."""

    def train(self, batch: Batch, epoch: int, step: int, indices: torch.Tensor) -> Batch:
        return {"images": 2 * batch["images"], "position": (epoch, step, indices)}

    def evaluate(self, batch: Batch, indices: torch.Tensor) -> Batch:
        return {**batch, "indices": indices}


def test_whole_batches_are_changed_with_their_epoch_step_and_indices(tmp_path: Path) -> None:
    source = pictures(tmp_path)
    samples = Records(source, None)
    pipeline = Pipeline(
        lambda s: replace(s, image=torch.tensor(float(s.index))), lambda s: replace(s, image=torch.zeros(1))
    )
    loaders = SampleLoaders(samples, samples, replace(pipeline, batches=Doubled()), context(tmp_path))
    for step, batch in enumerate(loaders.epoch(1)):
        epoch, number, indices = batch["position"]
        assert (epoch, number) == (1, step)
        assert torch.equal(batch["images"], 2.0 * indices)
        assert torch.equal(indices, loaders.rows(1)[step])
    (evaluated,) = loaders.evaluation()
    assert evaluated["targets"] == [None] * 8
    assert evaluated["indices"].tolist() == list(range(8))


@pytest.mark.parametrize(
    ("target", "stacked"),
    [
        (3, True),
        (2.5, True),
        (np.ones(2), True),
        (torch.ones(2, 3), True),
        (None, False),
        ("cat", False),
        ([1, 2], False),
    ],
)
def test_the_default_collate_stacks_numbers_and_arrays_and_lists_the_rest(target: Any, stacked: bool) -> None:
    batch = stack([Sample(torch.zeros(3, 4, 4), target, i) for i in range(2)])
    assert batch["images"].shape == (2, 3, 4, 4)
    if stacked:
        assert batch["targets"].shape == (2, *np.shape(target))
    else:
        assert batch["targets"] == [target, target]


def test_targets_of_two_shapes_are_not_stacked_by_chance() -> None:
    """Whether a batch is a tensor or a list must not depend on which samples meet in it."""
    samples = [Sample(torch.zeros(1), torch.zeros(count, 4), 0) for count in (1, 2)]
    with pytest.raises(RuntimeError, match="stack expects each tensor to be equal size"):
        stack(samples)
    assert [len(target) for target in stack_images(samples)["targets"]] == [1, 2]


def test_annotations_have_a_digest_by_value_and_no_object_each() -> None:
    shared = np.arange(4.0)
    targets = [{"boxes": shared, "name": "x", "parts": [shared, (1, None)]}, None]
    apart = [{"parts": [shared.copy(), (1, None)], "name": "x", "boxes": shared.copy()}, None]
    digests = [b"".join(PickledTargets(each).content()) for each in (targets, apart)]
    assert digests[0] == digests[1]
    assert digests[0] != b"".join(PickledTargets([None, targets[0]]).content())
    many = PickledTargets([boxes(i % 8) for i in range(2000)])
    assert many[9]["boxes"].tolist() == boxes(1)["boxes"].tolist()
    assert [type(value) for value in vars(many).values()] == [np.ndarray, np.ndarray]
    assert pickle.loads(pickle.dumps(many))[1999]["id"] == "image 7"


def test_records_without_a_target_each_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="squares: 3 targets for 8 records"):
        Records(pictures(tmp_path), ArrayTargets(np.zeros(3)))
