"""What is wrong with depth data is found before anything is trained: one line, with name, value and remedy."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from depth_sets import SIDE, described, pair, spoil, write_kitti, write_nyuv2, write_own, write_pair
from numpy.typing import NDArray
from PIL import Image

from tasks.base import DataContext
from tasks.datasets.depth_pairs.dataset import KITTI_EIGEN, NYUV2
from tasks.datasets.depth_pairs.described import DepthPairs
from tasks.datasets.depth_pairs.pairs import read_pairs
from tasks.datasets.loaders import Pipeline, SampleLoaders
from tasks.depth.data import DepthSamples, collated, nearest
from tasks.depth.task import Depth
from tasks.errors import DataError

COUNTS = {"train": 4, "val": 3, "test": 2}


def opened(folder: Path, side: int = SIDE, task: dict[str, Any] | None = None, **fields: Any) -> Any:
    chosen = Depth.model_validate({"dataset": described(folder, **fields), **(task or {})})
    return chosen.loaders(DataContext(folder, (side, side), device="cpu", seed=0, batch=2))


def eight_bits(folder: Path) -> None:
    path = folder / "val/depth_000.png"
    Image.fromarray((np.asarray(Image.open(path)) >> 8).astype(np.uint8)).save(path)


def nan(folder: Path) -> None:
    values = pair(0)[1].astype(np.float32)
    values[2, 3:5] = np.nan
    Image.fromarray(values).save(folder / "val/depth.tif")
    path = folder / "val.txt"
    path.write_text(path.read_text().replace("val/depth_000.png", "val/depth.tif"))


def other_size(folder: Path) -> None:
    image, depth = pair(0, SIDE, SIDE + 4)
    write_pair(folder / "other.png", folder / "val/depth_001.png", image, depth)


def add(file: str, line: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with (folder / file).open("a") as list_:
            list_.write(f"{line}\n")

    return change


def rescaled(divisor: int) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for path in folder.glob("*/depth_*.png"):
            spoil(path, lambda depth: (depth // divisor).astype(np.uint16))

    return change


def in_metres(folder: Path) -> None:
    """Depth maps of floating-point metres in TIFF files."""
    for part in ("train", "val", "test"):
        for path in (folder / part).glob("depth_*.png"):
            Image.fromarray((np.asarray(Image.open(path)) / 1000).astype(np.float32)).save(path.with_suffix(".tif"))
        path = folder / f"{part}.txt"
        path.write_text(path.read_text().replace(".png\n", ".tif\n"))


def marked(folder: Path) -> None:
    """Unknown depths of a training map are 65535."""

    def mark(depth: NDArray[Any]) -> NDArray[Any]:
        return np.where(np.arange(len(depth))[:, None] < 3, np.uint16(65535), depth)

    spoil(folder / "train/depth_001.png", mark)


def exchanged(folder: Path) -> None:
    path = folder / "val.txt"
    path.write_text("\n".join(" ".join(reversed(line.split())) for line in path.read_text().splitlines()))


def no_truth(folder: Path) -> None:
    spoil(folder / "val/depth_002.png", np.zeros_like)


def nothing(folder: Path) -> None:
    pass


BAD: dict[str, tuple[Callable[[Path], None], dict[str, Any], str]] = {
    "8 bits": (eight_bits, {}, r"rooms: cannot read depth map .*val/depth_000\.png \(its mode is L, 8 bits a channel, "
               r"and a depth map has one channel of 16 bits\); it was converted on the way: take the original file"),
    "NaN": (nan, {}, r"depth\.tif \(2 pixels are NaN or infinite\); write 0 where the depth is not known"),
    "another size than the image": (
        other_size, {}, r"rooms: image val/rgb_001\.png has 16 x 16 pixels and its depth map val/depth_001\.png 16 x 20"
        r" \(height x width\): these do not belong together"),
    "missing files": (
        lambda folder: (folder / "train/depth_003.png").unlink(), {},
        r"rooms: 1 of 8 files that the list of train names are not there or empty: train/depth_003\.png"),
    "a line without a pair": (add("train.txt", "a.png"), {}, r"train\.txt, line 5: 'a\.png' names no pair; write"),
    "outside of the folder": (
        add("train.txt", "../a.png b.png"), {}, r"line 5: '\.\./a\.png' names no file below the folder of the data"),
    "an image twice": (
        add("val.txt", "val/rgb_000.png val/depth_000.png"), {}, r"val\.txt names 1 images twice: val/rgb_000\.png"),
    "an image in two lists": (
        add("test.txt", "train/rgb_000.png train/depth_000.png"), {},
        r"1 images are in two lists, so that the model would be measured on what it learnt from: train/rgb_000\.png"),
    "metres for millimetres": (
        nothing, {"steps_per_metre": 1},
        r"rooms: the middle depth is 49\d\d m with steps_per_metre 1, and the range ends at 10 m; the numbers look "
        r"like millimetres \(steps_per_metre 1000, middle depth 4\.9\d+ m\)"),
    "millimetres for metres": (
        rescaled(1000), {"longest": 300},
        r"the middle depth is 0\.00\d+ m with steps_per_metre 1000, .* look like 16-bit maps that were read as 8-bit"),
    "centimetres": (
        rescaled(10), {"longest": 600}, r"the range ends at 600 m; the numbers look like metres \(steps_per_metre 1, "),
    "metres in floating point": (
        in_metres, {}, r"the middle depth is 0\.00\d+ m with steps_per_metre 1000, .* at 10 m; the "
        r"numbers look like metres \(steps_per_metre 1, middle depth 4\.9\d+ m\)$"),
    "whole metres": (
        rescaled(1000), {}, r"no number is above 255, so these look like 16-bit maps that were read as 8-bit: take the "
        r"original files; if they are, the numbers look like metres \(steps_per_metre 1, middle depth \d m\)"),
    "a range in millimetres": (
        nothing, {"longest": 10_000}, r"the range ends at 10000 m; longest looks like millimetres \(it is in "
        r"metres: 10\), or the numbers look like metres \(steps_per_metre 1, middle depth 49\d\d m\)"),
    "marks of unknown depth": (
        marked, {}, r"rooms: the depth maps of 1 of 7 images that were opened hold 65535, which is 65\.53 m where the "
        r"range ends at 10 m: train/rgb_001\.png; it looks like a mark for an unknown depth, .*: write 0"),
    "image and depth map exchanged": (
        exchanged, {}, r"depth map .*val/rgb_000\.png \(its mode is RGB, .*\); the list names the image first and "),
    "another format": (
        lambda folder: np.save((folder / "val/depth_000.png").open("wb"), pair(0)[1]), {},
        r"cannot read depth map .*val/depth_000\.png \(it is no PNG or TIFF file\); save it as one of 16 bits"),
    "no usual unit": (nothing, {"longest": 1e6}, r"no usual unit fits: correct longest"),
    "no ground truth": (
        no_truth, {}, r"rooms: 1 of 3 images to evaluate have no ground truth in the part that is evaluated "
        r"\(window whole\) between 0\.001 and 10 m: val/rgb_002\.png; leave them out of the list"),
    "kb crop": (nothing, {"kb_crop": True}, r"16 x 16 pixels, and the crop kb_crop is larger, 352 x 1216"),
    "no list": (lambda folder: (folder / "val.txt").unlink(), {}, r"no list .*val\.txt; write a list of pairs, or eva"),
    "an empty list": (lambda folder: (folder / "val.txt").write_text("\n"), {}, r"val\.txt names no image with a dep"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_one_fault_is_one_line_before_anything_is_trained(name: str, tmp_path: Path) -> None:
    change, fields, line = BAD[name]
    folder = write_own(tmp_path / "rooms", COUNTS)
    change(folder)
    with pytest.raises(DataError, match=line) as caught:
        opened(folder, **fields)
    assert "\n" not in str(caught.value)


def test_a_mean_map_of_other_images_is_refused_before_the_training(tmp_path: Path) -> None:
    folder = write_own(tmp_path / "rooms", COUNTS)
    write_pair(folder / "val/rgb_001.png", folder / "val/depth_001.png", *pair(0, SIDE, SIDE + 4))
    line = r"image val/rgb_001\.png has \(16, 20\) and the training maps \(16, 16\) pixels .*: set task\.baseline none"
    with pytest.raises(DataError, match=line):
        opened(folder, task={"baseline": "mean_map"})


def test_a_crop_larger_than_the_image_is_refused(tmp_path: Path) -> None:
    folder = write_own(tmp_path / "rooms", COUNTS)
    crop = (
        r"rooms: training crops of 32 x 32 pixels \(backbone\.image_size\) are larger than image train/rgb_000\.png of "
    )
    with pytest.raises(DataError, match=crop):
        opened(folder, side=32)
    assert next(iter(opened(folder, 32, {"resize": "height"}).epoch(0)))["images"].shape[-2:] == (32, 32)


@pytest.mark.parametrize(
    ("size", "windows", "line"),
    [
        (
            (20, 24),
            None,
            r"image val/rgb_000\.png has 20 x 24 pixels \(height x width\), and windows of 16 x 16 pixels",
        ),
        ((24, 16), None, r"has 24 x 16 pixels"),
        (
            (16, 40),
            2,
            r"2 square windows leave 8 of 40 columns of images of 16 x 40 pixels .*set task\.windows to 3 or more",
        ),
        ((16, 17), 1, r"1 square windows leave 1 of 17 columns"),
    ],
)
def test_windows_that_do_not_cover_an_image_are_refused(
    size: tuple[int, int], windows: int | None, line: str, tmp_path: Path
) -> None:
    folder = write_own(tmp_path / "rooms", COUNTS, size)
    with pytest.raises(DataError, match=line):
        opened(folder, task={"windows": windows})


def test_without_a_number_as_few_windows_as_cover_the_image(tmp_path: Path) -> None:
    found = opened(write_own(tmp_path / "rooms", COUNTS, (16, 41))).preprocessing
    assert (found["windows"], found["uncovered_columns"], found["uncovered_columns_evaluated"]) == ([3], 1, 1)


def test_an_unreadable_training_pair_is_named_or_replaced(tmp_path: Path) -> None:
    folder = write_own(tmp_path / "rooms", {"train": 130, "val": 1, "test": 1})
    spoil(folder / "train/depth_001.png", lambda depth: depth.astype(np.uint8))  # not among those that are looked at
    task = Depth(dataset=described(folder))
    context = DataContext(folder, (SIDE, SIDE), device="cpu", seed=0, batch=10)
    with pytest.raises(DataError, match=r"depth_001\.png \(its mode is L"):
        list(task.loaders(context).epoch(0))
    skips = DataContext(folder, (SIDE, SIDE), device="cpu", seed=0, batch=10, max_unreadable=0.1)
    loaders = task.loaders(skips)
    assert len(list(loaders.epoch(0))) == 13
    assert len(loaders.unreadable) == 1


def test_what_a_sample_looks_like_follows_from_seed_epoch_and_index(tmp_path: Path) -> None:
    folder = write_own(tmp_path / "rooms", {"train": 6, "val": 1, "test": 1}, (20, 28))

    def epoch(number: int, **other: Any) -> dict[str, torch.Tensor]:
        task = Depth(dataset=described(folder), resize="none")
        context = DataContext(folder, (SIDE, SIDE), device="cpu", seed=3, batch=2, **other)
        how = task._prepared(SIDE)  # without the look at images to evaluate, which are too high here
        layout = task._data.whole.layout(folder)
        samples = DepthSamples(layout, read_pairs("rooms", folder, layout.lists["train"]))
        loaders = SampleLoaders(samples, samples, Pipeline(how.train, how.evaluate, collated), context)
        return {name: image for batch in loaders.epoch(number)
                for name, image in zip(batch["names"], batch["images"], strict=True)}  # fmt: skip

    one, again, later = epoch(0), epoch(0), epoch(1)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not all(torch.equal(one[name], later[name]) for name in one)
    halves = [epoch(0, rank=rank, world=2) for rank in (0, 1)]
    assert halves[0].keys() | halves[1].keys() == one.keys()
    assert all(torch.equal(image, one[name]) for half in halves for name, image in half.items())


def test_images_and_maps_are_resized_together(tmp_path: Path) -> None:
    assert nearest(np.arange(16, dtype=np.float32).reshape(4, 4), 2, 2).tolist() == [[5, 7], [13, 15]]
    folder = write_own(tmp_path / "rooms", COUNTS, (32, 48))
    (batch,) = opened(folder, task={"resize": "height"}).evaluation()
    assert tuple(batch["images"].shape) == (3, 3, 16, 24)
    shade = batch["images"].mean(1)
    inside = batch["depth"][:, 0, 2:, 2:]
    assert torch.corrcoef(torch.stack([shade[:, 2:, 2:].flatten(), inside.flatten()]))[0, 1] > 0.9


def test_pixels_go_in_from_0_to_1_and_depth_in_metres(tmp_path: Path) -> None:
    folder = write_own(tmp_path / "rooms", COUNTS)
    (batch,) = opened(folder).evaluation()
    expected = np.asarray(Image.open(folder / "val/rgb_001.png")).transpose(2, 0, 1) / np.float32(255)
    np.testing.assert_allclose(batch["images"][1].numpy(), expected)
    metres = np.asarray(Image.open(folder / "val/depth_001.png")) / np.float32(1000)
    np.testing.assert_array_equal(batch["depth"][1, 0].numpy(), metres)
    assert metres[0, 0] == 0


@pytest.mark.parametrize("info", [NYUV2, KITTI_EIGEN], ids=lambda info: info.name)
def test_a_missing_set_says_where_it_was_looked_for_and_how_to_get_it(info: Any, tmp_path: Path) -> None:
    problem = Depth(dataset=info.name).missing_data(tmp_path)
    assert problem
    assert re.search(rf"{info.name}: not found under .*: .*train_list\.txt\. Get ", problem)


def test_data_check_counts_opens_and_notes_what_the_lists_leave_out(tmp_path: Path) -> None:
    write_nyuv2(tmp_path)
    write_kitti(tmp_path, (2, 1))
    finding = NYUV2.check(tmp_path, {}, [], images=True)
    assert (finding.problems, finding.counts, finding.opened) == ([], {"train": 6, "val": 0, "test": 3}, 9)
    assert finding.notes == [
        "6 pairs in train, 24,231 in the published list", "3 pairs in test, 654 in the published list"
    ]  # fmt: skip
    finding = KITTI_EIGEN.check(tmp_path, {}, [], images=False)
    assert finding.problems == []
    assert finding.notes[-1] == "1 images of test have no depth map (None in the list) and are left out"
    for path in (tmp_path / "nyu_depth_v2").rglob("*depth*.png"):
        spoil(path, lambda depth: (depth // 100).astype(np.uint16))
    (line,) = NYUV2.check(tmp_path, {}, [], images=False).problems
    assert "these look like 16-bit maps that were read as 8-bit" in line


def test_data_check_names_the_list_of_another_unit(tmp_path: Path) -> None:
    folder = write_own(tmp_path / "rooms", COUNTS)
    for path in folder.glob("test/depth_*.png"):
        spoil(path, lambda depth: depth * 6)
    info = DepthPairs.model_validate(described(folder)).info(tmp_path)
    (line,) = info.check(tmp_path, {}, [], images=False).problems
    assert re.match(
        r"list of test: the middle depth is 30\.?\d* m with steps_per_metre 1000, and the range ends at 10 m", line
    )
