"""Writes small data sets of sequences in the layouts of GOT-10k, TrackingNet, LaSOT and COCO, and one's own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from shared_folders import shared_folder

from tasks.datasets import describe
from tasks.datasets.sequences import lasot_lists
from tasks.datasets.sequences.dataset import SequenceDataset

WIDTH, HEIGHT = 64, 48
FRAMES = 8
GOT10K_TRAIN = (1, 2, 3, 4, 8, 9)
"""Numbers of sequences: the reference leaves out 2, and VOT forbids 4."""
LASOT = {"train": ("airplane-2", "bear-1", "bear-3"), "test": ("airplane-1", "bear-2")}
OWN = {"train": ("boat", "car", "kite"), "val": ("bird", "cup"), "test": ("bird", "dog")}


def path_of(number: int, frames: int = FRAMES) -> NDArray[np.float64]:
    """(frames, 4): the box of an object that moves right and down, and grows."""
    steps = np.arange(frames)
    x, y = 4 + 2.5 * steps + number % 5, 3 + 1.5 * steps + number % 3
    side = 14 + 0.5 * steps + number % 4
    return np.stack([x, y, side, side * 0.75], axis=-1)


def draw(folder: Path, names: Sequence[str], boxes: NDArray[np.float64], number: int) -> None:
    """Frames in which a bright square lies in the box."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(number)
    background = rng.integers(0, 120, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    colour = rng.integers(150, 255, 3, dtype=np.uint8)
    for name, (x, y, width, height) in zip(names, boxes.round().astype(int).tolist(), strict=True):
        pixels = background.copy()
        pixels[max(0, y) : y + height, max(0, x) : x + width] = colour
        Image.fromarray(pixels).save(folder / name, quality=90)


def rows(boxes: Iterable[Sequence[float]], form: str = "{:.4f}") -> str:
    return "\n".join(",".join(form.format(value) for value in box) for box in boxes) + "\n"


def got10k(base: Path, train: Sequence[int] = GOT10K_TRAIN, others: int = 2, frames: int = FRAMES) -> Path:
    """train, val and test: of the first sequence of each part but test, frame 5 hides the object and 6 lacks it."""
    parts = {"train": train, "val": range(1, others + 1), "test": range(1, others + 1)}
    for part, numbers in parts.items():
        names = [f"GOT-10k_{part.title()}_{number:06d}" for number in numbers]
        for place, (name, number) in enumerate(zip(names, numbers, strict=True)):
            folder, boxes = base / part / name, path_of(number, frames)
            draw(folder, [f"{frame:08d}.jpg" for frame in range(1, frames + 1)], boxes, number)
            (folder / "groundtruth.txt").write_text(rows(boxes[:1] if part == "test" else boxes))
            if part == "test":
                continue
            cover, absence = np.full(frames, 8), np.zeros(frames, dtype=int)
            if place == 0:
                cover[5:7], absence[6] = 0, 1
            for file, values in (("cover", cover), ("absence", absence), ("cut_by_image", absence * 0)):
                (folder / f"{file}.label").write_text("\n".join(map(str, values.tolist())) + "\n")
            (folder / "meta_info.ini").write_text(
                "[METAINFO]\nurl: https://youtu.be/x%20y\nbegin: 00:00:10\nend: 00:00:20\nanno_fps: 10Hz\n"
                f"object_class: kite\nresolution: ({WIDTH}, {HEIGHT})\n"
            )
        (base / part / "list.txt").write_text("\n".join(names) + "\n")
    return base


def trackingnet(base: Path, chunks: Sequence[int] = (0, 11), frames: int = FRAMES) -> Path:
    """Two sequences in each chunk (one name is in both) and two of TEST, of which one begins with a minus."""
    for chunk, names in [(f"TRAIN_{number}", ("AwVdVzh1Eh0_0", f"{number}abc_1")) for number in chunks] + [
        ("TEST", ("-3TIfnTSM6c_2", "a1qoB1eERn0_0"))
    ]:
        (base / chunk / "anno").mkdir(parents=True)
        for number, name in enumerate(names):
            boxes = path_of(number, frames)
            draw(base / chunk / "frames" / name, [f"{frame}.jpg" for frame in range(frames)], boxes, number)
            shown = boxes[:1] if chunk == "TEST" else boxes
            (base / chunk / "anno" / f"{name}.txt").write_text(rows(shown, "{:.2f}").rstrip("\n"))
    return base


def lasot(base: Path, listed: bool = True, frames: int = FRAMES) -> Path:
    """`listed`: with LaSOT's files that name the sequences, of those alone that are here. In the first of each part
    frame 4 is fully occluded and 5 out of view, in train without a box."""
    names = LASOT if listed else {part: lasot_lists.sequences(part) for part in ("train", "test")}
    for part, some in names.items():
        for number, name in enumerate(some):
            folder, boxes = (
                base / name.rpartition("-")[0] / name,
                path_of(number, frames).round() + np.array([1, 1, 0, 0]),
            )
            draw(folder / "img", [f"{frame:08d}.jpg" for frame in range(1, frames + 1)], boxes, number)
            hidden, gone = np.zeros(frames, dtype=int), np.zeros(frames, dtype=int)
            if number == 0:
                hidden[4], gone[5] = 1, 1
                boxes[5] *= part == "test"
            (folder / "groundtruth.txt").write_text(rows(boxes, "{:.0f}"))
            (folder / "full_occlusion.txt").write_text(",".join(map(str, hidden.tolist())))
            (folder / "out_of_view.txt").write_text(",".join(map(str, gone.tolist())))
        if listed:
            file = {"train": "training_set.txt", "test": "testing_set.txt"}[part]
            (base / file).write_text("\n".join(some) + "\n")
    return base


def coco(base: Path, images: int = 5) -> Path:
    """train2017 and val2017: each image but one with two objects, one with a group and a box without area too."""
    for part, start in (("train", 100), ("val", 200)):
        (base / "annotations").mkdir(parents=True, exist_ok=True)
        entries, objects = [], []
        for number in range(images):
            file = f"{start + number:012d}.jpg"
            boxes = path_of(number, 2)
            draw(base / f"{part}2017", [file], boxes[:1], number)
            entries.append({"id": start + number, "file_name": file, "height": HEIGHT, "width": WIDTH})
            shown = [] if number == 1 else [(box, 0) for box in boxes.tolist()]
            if number == 2:
                shown += [([0.0, 0.0, 60.0, 40.0], 1), ([5.0, 5.0, 0.0, 3.0], 0)]
            objects += [(start + number, box, crowd) for box, crowd in shown]
        annotations = [
            {"id": place, "image_id": image, "bbox": box, "iscrowd": crowd, "category_id": 1, "area": box[2] * box[3]}
            for place, (image, box, crowd) in enumerate(reversed(objects), 1)
        ]
        content = {"images": entries, "annotations": annotations, "categories": [{"id": 1, "name": "kite"}]}
        (base / "annotations" / f"instances_{part}2017.json").write_text(json.dumps(content))
    return base


def own(base: Path, frames: int = FRAMES) -> Path:
    """Sequences of one's own; in train/boat and test/bird frame 3 is hidden."""
    for part, names in OWN.items():
        for number, name in enumerate(names):
            folder, boxes = base / part / name, path_of(number, frames)
            draw(folder, [f"frame{frame}.png" for frame in range(9, 9 + frames)], boxes, number)
            (folder / "boxes.txt").write_text(rows(boxes, "{:g}"))
            if name in ("boat", "bird"):
                flags = ["1"] * frames
                flags[3] = "0"
                (folder / "visible.txt").write_text("\n".join(flags) + "\n")
    return base


def mine(root: Path) -> SequenceDataset:
    """The set that `own` wrote in the folder `mine` of a data root."""
    card = describe("mine", "sequences", {}, root)
    assert isinstance(card, SequenceDataset)
    return card


def all_four(root: Path) -> Path:
    """The four published layouts below a data root, where the named sets look for them."""
    got10k(root / "got10k")
    trackingnet(root / "trackingnet")
    lasot(root / "lasot")
    coco(root / "coco")
    return root


@cache
def shared_sequences() -> Path:
    """Sequences of one's own for all tests of this process, which only read them."""
    return own(shared_folder("sequences") / "own")
