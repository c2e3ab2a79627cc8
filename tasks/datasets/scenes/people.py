"""Images of articulated figures over photographs, in the layout of COCO 2017's key points, with scored detections."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.photographs import PhotoPart
from tasks.datasets.scenes.crops import parted
from tasks.datasets.scenes.figures import JOINTS, Canvas, Figure, Patch, drawn_figure, drawn_look, placed, placed_parts
from tasks.datasets.scenes.shapes import CLASSES, OUTLINES, Placement, box_of
from tasks.datasets.scenes.shares import Counts, save_entries, share_of, take_entries, write_in_processes
from tasks.datasets.scenes.textures import Pixels, Textures

NAME = "scene-people"
SIDE = 128
SEED = 1212
COUNTS: dict[PhotoPart, int] = {"train": 3000, "val": 300, "test": 300}
"""Images of each part, made of the photographs of the same part."""
HEIGHTS = (60.0, 115.0)
"""Of figures, in pixels."""
MOST = 3
EMPTY, CROWDED, OCCLUDED = 0.06, 0.3, 0.2
"""Shares of images: without persons; of several persons close together; with a thing in front."""
LEAST_SHOWN = 0.5
"""A figure of which less can be seen is not painted: its part of pixels that it would have if it were alone."""
_EDGES = (
    (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9), (8, 10), (9, 11),
    (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7),
)  # fmt: skip
"""`skeleton` of COCO's category, which counts from 1."""


@dataclass(frozen=True)
class Person:
    """The ground truth of one figure."""

    figure: Figure
    flags: NDArray[np.int64]
    """(17,): COCO's visibility of each joint."""
    mask: NDArray[np.bool_]
    """(SIDE, SIDE): the pixels that show the figure."""

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(left, top, width, height) of the mask."""
        box = box_of(self.mask)
        assert box is not None
        return box


@dataclass(frozen=True)
class Scene:
    """An image with the persons in it."""

    pixels: Pixels
    persons: tuple[Person, ...]


def scene(part: PhotoPart, index: int) -> Scene:
    """An image, the same on every call: it depends on its part and index alone. Raises DataError."""
    random = np.random.default_rng([SEED, list(COUNTS).index(part), index])
    textures = Textures(part, NAME)
    background = textures.view(random, SIDE, SIDE, (0.5, 3))
    figures = [
        (figure, placed_parts(figure, SIDE, SIDE), drawn_look(random, textures, SIDE, SIDE))
        for figure in _figures(random)
    ]
    thing = _thing(random, textures, background) if random.random() < OCCLUDED else None

    chosen, alone = list(range(len(figures))), []
    for _, pieces, _ in figures:
        canvas = Canvas(background)
        canvas.paint_figure(pieces, None, 1)
        alone.append(int(canvas.owner.sum()))
    while True:
        canvas = Canvas(background)
        for number in chosen:
            canvas.paint_figure(*figures[number][1:], number + 1)
        if thing is not None:
            canvas.paint(*thing, -1)
        shown = {number: int((canvas.owner == number + 1).sum()) / max(1, alone[number]) for number in chosen}
        hidden = [number for number in chosen if shown[number] < LEAST_SHOWN]
        if not hidden:
            break
        chosen.remove(hidden[0])
    persons = (
        Person(figures[number][0], canvas.visibility(figures[number][0], number + 1), canvas.owner == number + 1)
        for number in chosen
    )
    return Scene(canvas.pixels, tuple(persons))


def _figures(random: np.random.Generator) -> list[Figure]:
    """Figures, the smallest and so the farthest first."""
    if random.random() < EMPTY:
        return []
    count = int(random.integers(1, MOST + 1))
    crowded = count > 1 and random.random() < CROWDED
    anchor = random.uniform(0.35 * SIDE, 0.65 * SIDE, 2)
    size = random.uniform(*HEIGHTS)
    figures = []
    for _ in range(count):
        height = float(np.clip(size * random.uniform(0.8, 1.2), *HEIGHTS)) if crowded else random.uniform(*HEIGHTS)
        middle = anchor + random.normal(0, 0.13 * size, 2) if crowded else _place(random, height)
        figures.append(drawn_figure(random, height, (float(middle[0]), float(middle[1]))))
    return sorted(figures, key=lambda figure: figure.height)


def _place(random: np.random.Generator, height: float) -> NDArray[np.float64]:
    """Mostly inside of the image; at its edges figures are cut off."""
    aside, above = 0.12 * height, 0.38 * height
    below = max(above, SIDE - 1 - 0.35 * height)
    return np.array([random.uniform(aside, SIDE - 1 - aside), random.uniform(above, below)])


def _thing(random: np.random.Generator, textures: Textures, below: Pixels) -> tuple[Patch, Pixels] | None:
    """A cut-out that may hide parts of persons, and what it is filled with. None: it lies outside of the image."""
    solid = [name for name in CLASSES if len(OUTLINES[name]) == 1]
    outline = OUTLINES[solid[int(random.integers(len(solid)))]][0]
    x, y = random.uniform(0, SIDE, 2)
    place = Placement(float(x), float(y), random.uniform(10, 26), random.uniform(-np.pi, np.pi))
    fill = textures.view(random, SIDE, SIDE, (0.5, 3))
    fill, _ = parted(fill, below, np.ones(below.shape[:2], bool), lighter=bool(random.random() < 0.5))
    patch = placed(place.of(outline), SIDE, SIDE)
    return None if patch is None else (patch, fill)


def crowd_index(persons: Sequence[Person]) -> float:
    """CrowdPose's: the mean over persons of (joints of others inside of one's box) / (one's own joints), at most 1
    each; 0 without persons (Li et al. 2019, equation 1)."""
    ratios = []
    for person in persons:
        left, top, width, height = person.box
        others = [other for other in persons if other is not person]
        joints = np.concatenate([np.empty((0, 2)), *(other.figure.joints[other.flags > 0] for other in others)])
        inside = ((joints >= [left, top]) & (joints < [left + width, top + height])).all(axis=1)
        ratios.append(min(1.0, int(inside.sum()) / max(1, int((person.flags > 0).sum()))))
    return float(np.mean(ratios)) if ratios else 0.0


def annotation(person: Person, image: int) -> dict[str, Any]:
    """COCO's entry of a person, but for its `id`. `area`: the number of pixels that show it. Joints outside of the
    image are 0, 0, 0."""
    places = np.round(person.figure.joints, 2) * (person.flags > 0)[:, None]
    triples = [[x, y, flag] for (x, y), flag in zip(places.tolist(), person.flags.tolist(), strict=True)]
    return {
        "image_id": image, "category_id": 1, "iscrowd": 0,
        "keypoints": [value for triple in triples for value in triple],
        "num_keypoints": int((person.flags > 0).sum()),
        "bbox": list(person.box), "area": int(person.mask.sum()),
        "segmentation": {"size": list(person.mask.shape), "counts": run_lengths(person.mask)},
    }  # fmt: skip


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """COCO's uncompressed code of a mask: lengths of runs of 0 and 1 in turn, column by column, 0 first."""
    flat = np.concatenate([[False], mask.ravel(order="F")])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return [int(length) for length in np.diff([0, *changes.tolist(), mask.size])]


def detections(part: PhotoPart, index: int, persons: Sequence[Person]) -> list[dict[str, Any]]:
    """Boxes in an image as a detector would give them, in the form of COCO's result files: jittered, some missed, some
    false, some twice; better boxes have higher scores on the whole. `persons`: of the image."""
    found = []
    random = np.random.default_rng([SEED, 7, list(COUNTS).index(part), index])
    for person in persons:
        if random.random() < 0.06:
            continue
        for worse in (1.0, 2.5) if random.random() < 0.1 else (1.0,):
            jitter = random.normal(0, 0.04 * worse, 4)
            score = 1 / (1 + np.exp(-random.normal(2.5 / worse, 0.8)))
            found.append(_detection(index + 1, _jittered(person.box, jitter), score))
    for _ in range(int(random.poisson(0.4))):
        width, height = random.uniform(0.12, 0.5) * SIDE, random.uniform(0.25, 0.9) * SIDE
        corner = random.uniform(0, 1, 2) * [SIDE - width, SIDE - height]
        score = 1 / (1 + np.exp(-random.normal(-1.5, 1.0)))
        found.append(_detection(index + 1, [*corner.tolist(), width, height], score))
    return found


def _jittered(box: tuple[int, int, int, int], jitter: NDArray[np.float64]) -> list[float]:
    """The box moved and made larger or smaller, by parts of its size, within the image."""
    left, top, width, height = box
    x, y = left + width / 2 + jitter[0] * width, top + height / 2 + jitter[1] * height
    width, height = width * float(np.exp(jitter[2])), height * float(np.exp(jitter[3]))  # type: ignore[assignment]
    left, top = max(0.0, x - width / 2), max(0.0, y - height / 2)  # type: ignore[assignment]
    return [left, top, min(SIDE, x + width / 2) - left, min(SIDE, y + height / 2) - top]


def _detection(image: int, box: list[float], score: float) -> dict[str, Any]:
    rounded = [round(float(side), 2) for side in box]
    return {"image_id": image, "category_id": 1, "bbox": rounded, "score": round(float(score), 4)}


def write(folder: Path) -> None:
    """Writes the images and files of all parts, in as many processes as there are cores. Raises OSError and
    DataError."""
    (folder / "annotations").mkdir()
    (folder / "person_detection_results").mkdir()
    for part in COUNTS:
        (folder / f"{part}2017").mkdir()
    _gather(folder, write_in_processes(write_share, folder, NAME, COUNTS))


def write_share(folder: Path, counts: Counts, share: int, shares: int) -> None:
    """Writes every image of this share, and what annotations and detections say of it beside. Raises OSError and
    DataError."""
    from PIL import Image

    entries: list[dict[str, Any]] = []
    for part, index in share_of(counts, share, shares):
        made, file = scene(part, index), f"{index + 1:012d}.png"
        Image.fromarray(made.pixels).save(folder / f"{part}2017" / file, compress_level=3)
        crowd = round(crowd_index(made.persons), 4)
        entries.append({
            "part": part,
            "image": {"id": index + 1, "file_name": file, "width": SIDE, "height": SIDE, "crowdIndex": crowd},
            "annotations": [annotation(person, index + 1) for person in made.persons],
            "detections": detections(part, index, made.persons),
        })  # fmt: skip
    save_entries(folder, share, entries)


def _gather(folder: Path, shares: int) -> None:
    """Makes the files of annotations and detections of what the shares kept."""
    whole = sorted(take_entries(folder, shares), key=lambda entry: entry["image"]["id"])
    for part in COUNTS:
        found = [entry for entry in whole if entry["part"] == part]
        persons = [person for entry in found for person in entry["annotations"]]
        content = {
            "info": INFO, "images": [entry["image"] for entry in found],
            "annotations": [{"id": number, **person} for number, person in enumerate(persons, 1)],
            "categories": [CATEGORY],
        }  # fmt: skip
        (folder / "annotations" / f"person_keypoints_{part}2017.json").write_text(json.dumps(content))
        if part != "train":
            path = folder / "person_detection_results" / f"{part}2017_detections.json"
            path.write_text(json.dumps([box for entry in found for box in entry["detections"]]))


INFO = {"description": "Generated: articulated figures over photographs; not real persons", "version": "1"}
CATEGORY = {
    "id": 1, "name": "person", "supercategory": "person", "keypoints": list(JOINTS),
    "skeleton": [list(edge) for edge in _EDGES],
}  # fmt: skip
