"""Images of cut-outs over photographs, with exact boxes and masks, in the layout of COCO 2017's instances."""

from __future__ import annotations

import colorsys
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.photographs import PhotoPart
from tasks.datasets.scenes.figures import Canvas, Patch
from tasks.datasets.scenes.people import run_lengths
from tasks.datasets.scenes.shapes import OUTLINES, Placement, box_of, cover
from tasks.datasets.scenes.shares import Counts, save_entries, share_of, take_entries, write_in_processes
from tasks.datasets.scenes.textures import Pixels, Textures, shades, tinted

NAME, SMALL = "scene-objects", "scene-objects-small"
"""The second is the beginning of the first, for a first look."""
SETS: dict[str, dict[PhotoPart, int]] = {
    NAME: {"train": 2_000, "val": 200, "test": 200},
    SMALL: {"train": 48, "val": 8, "test": 8},
}
"""Images of each part, made of the photographs of the same part."""
CATEGORIES = {"ring": 3, "square": 18, "star": 44}
"""Class, a silhouette of shapes, and its id in the files, which has gaps as COCO's have."""
SIDE = 96
SEED = 151515
MOST = 4
"""Objects of an image, without those of a crowd."""
RADIUS = (9.0, 19.0)
EMPTY, CROWDED, CLOSE = 0.06, 0.1, 0.35
"""Shares of images: without objects; with a crowd region, a heap of small cut-outs of one class; of several objects
close together, so that one hides another."""
HEAP, SMALL_RADIUS = (4, 7), (4.5, 6.5)
"""Cut-outs of a crowd region, and their radius in pixels."""
LEAST_SHOWN, LEAST_PIXELS = 0.35, 30
"""An object of which less can be seen is not painted: as a part of what the image would show of it alone; pixels."""
TYPICAL = 0.75
"""Share of objects in a hue that is typical of their class; of the others, the silhouette alone tells it."""
APART = 45
"""Least difference of mean brightness between a cut-out and the background, in levels of 256."""


@dataclass(frozen=True)
class Piece:
    """A cut-out before it is painted."""

    patch: Patch
    fill: Pixels
    """(SIDE, SIDE, 3)"""


@dataclass(frozen=True)
class Object:
    """The ground truth of one object or crowd region."""

    name: str
    mask: NDArray[np.bool_]
    """(SIDE, SIDE): the pixels that show it."""
    crowd: bool

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(left, top, width, height) of the mask."""
        box = box_of(self.mask)
        assert box is not None
        return box


@dataclass(frozen=True)
class Scene:
    """An image with the objects in it, the lowest first."""

    pixels: Pixels
    objects: tuple[Object, ...]


def scene(part: PhotoPart, index: int) -> Scene:
    """An image, the same on every call: it depends on its part and index alone. Raises DataError."""
    random = np.random.default_rng([SEED, list(SETS[NAME]).index(part), index])
    textures = Textures(part, NAME)
    background = textures.view(random, SIDE, SIDE, (0.7, 4), (0.4, 1.0))
    things = list(_things(random, textures, float(background.mean()))) if random.random() >= EMPTY else []
    canvas, kept = drawn(background, [pieces for _, pieces, _ in things])
    objects = [Object(things[number][0], canvas.owner == number + 1, things[number][2]) for number in kept]
    return Scene(canvas.pixels, tuple(objects))


def _things(
    random: np.random.Generator, textures: Textures, brightness: float
) -> Iterator[tuple[str, list[Piece], bool]]:
    """Class, cut-outs and whether it is a crowd; the lowest first."""
    names = list(CATEGORIES)
    if random.random() < CROWDED:
        name, middle = names[int(random.integers(len(names)))], random.uniform(0.2 * SIDE, 0.8 * SIDE, 2)
        places = middle + random.normal(0, 8, (int(random.integers(*HEAP)), 2))
        heap = [cut_out(random, textures, name, brightness, tuple(place), SMALL_RADIUS) for place in places.tolist()]
        yield name, [piece for piece in heap if piece is not None], True
    count = int(random.integers(1, MOST + 1))
    close = count > 1 and random.random() < CLOSE
    anchor = random.uniform(0.3 * SIDE, 0.7 * SIDE, 2)
    for _ in range(count):
        name = names[int(random.integers(len(names)))]
        at = anchor + random.normal(0, 14, 2) if close else random.uniform(0.06 * SIDE, 0.94 * SIDE, 2)
        piece = cut_out(random, textures, name, brightness, (float(at[0]), float(at[1])), RADIUS)
        if piece is not None:
            yield name, [piece], False


def cut_out(
    random: np.random.Generator,
    textures: Textures,
    name: str,
    brightness: float,
    at: tuple[float, ...],
    radii: tuple[float, float],
) -> Piece | None:
    """A silhouette of shapes with a photograph's texture in a random colour, lighter or darker than `brightness`. None:
    it lies outside of the image."""
    radius = random.uniform(*radii)
    place = Placement(at[0], at[1], radius, random.uniform(-np.pi, np.pi), float(np.exp(random.uniform(-0.25, 0.25))))
    texture = shades(textures.view(random, SIDE, SIDE, (0.5, 2)))
    typical = name in CATEGORIES and random.random() < TYPICAL
    hue = list(CATEGORIES).index(name) / len(CATEGORIES) + random.normal(0, 0.04) if typical else random.random()
    colour = np.array(colorsys.hsv_to_rgb(hue % 1, random.uniform(0.45, 1), random.uniform(0.4, 1))) * 255
    fill = tinted(texture, colour, random.uniform(0.3, 0.9)).astype(np.int32)
    lighter = float(colour.mean()) - brightness
    sign = 1 if (lighter >= 0 and brightness + APART < 235) or brightness - APART < 20 else -1
    fill += max(0, round(APART - sign * lighter)) * sign
    patch = _patch([place.of(outline) for outline in OUTLINES[name]])
    return None if patch is None else Piece(patch, np.clip(fill, 0, 255).astype(np.uint8))


def _patch(outlines: list[NDArray[np.float64]]) -> Patch | None:
    """The first outline less the others as it lies in the image."""
    low = np.clip(np.floor(outlines[0].min(axis=0)) - 1, 0, SIDE).astype(int)
    high = np.clip(np.ceil(outlines[0].max(axis=0)) + 2, 0, SIDE).astype(int)
    if (high <= low).any():
        return None
    window = np.s_[low[1] : high[1], low[0] : high[0]]
    return Patch(window, cover(outlines, *(high - low).tolist(), *low.tolist()))


def drawn(background: Pixels, things: list[list[Piece]]) -> tuple[Canvas, list[int]]:
    """Things painted over a background, the first one lowest, and the numbers of those that show enough; the others
    are left out of the image too. A pixel of thing n has owner n + 1."""
    alone = []
    for pieces in things:
        canvas = Canvas(background)
        for piece in pieces:
            canvas.paint(piece.patch, None, 1)
        alone.append(int(canvas.owner.sum()))
    chosen = list(range(len(things)))
    while True:
        canvas = Canvas(background)
        for number in chosen:
            for piece in things[number]:
                canvas.paint(piece.patch, piece.fill, number + 1)
        shown = {number: int((canvas.owner == number + 1).sum()) for number in chosen}
        hidden = [each for each in chosen if shown[each] < max(LEAST_PIXELS, LEAST_SHOWN * alone[each])]
        if not hidden:
            return canvas, chosen
        chosen.remove(hidden[0])


def annotation(found: Object, image: int) -> dict[str, Any]:
    """COCO's entry of an object, without its id. `area`: the number of pixels that show it."""
    return {
        "image_id": image, "category_id": CATEGORIES[found.name], "iscrowd": int(found.crowd), "bbox": list(found.box),
        "area": int(found.mask.sum()),
        "segmentation": {"size": list(found.mask.shape), "counts": run_lengths(found.mask)},
    }  # fmt: skip


def write(folder: Path, name: str = NAME) -> None:
    """Writes images and annotations of all parts, in as many processes as there are cores. Raises OSError and
    DataError."""
    for part in SETS[name]:
        (folder / f"{part}2017").mkdir()
    (folder / "annotations").mkdir()
    gather(folder, name, write_in_processes(write_share, folder, name, SETS[name]))


def gather(folder: Path, name: str, shares: int) -> None:
    """Makes the annotation files of what the shares kept."""
    found = take_entries(folder, shares)
    for part, count in SETS[name].items():
        images = [{"id": i, "file_name": _file(i), "width": SIDE, "height": SIDE} for i in range(1, count + 1)]
        entries = sorted((each["annotation"] for each in found if each["part"] == part), key=lambda e: e["image_id"])
        content = {
            "info": INFO, "images": images, "categories": _CATEGORIES,
            "annotations": [{"id": number, **entry} for number, entry in enumerate(entries, 1)],
        }  # fmt: skip
        (folder / "annotations" / f"instances_{part}2017.json").write_text(json.dumps(content))


def write_share(folder: Path, counts: Counts, share: int, shares: int) -> None:
    """Writes every image of this share, and its annotations beside. Raises OSError and DataError."""
    from PIL import Image

    entries = []
    for part, index in share_of(counts, share, shares):
        made = scene(part, index)
        Image.fromarray(made.pixels).save(folder / f"{part}2017" / _file(index + 1), compress_level=3)
        entries += [{"part": part, "annotation": annotation(each, index + 1)} for each in made.objects]
    save_entries(folder, share, entries)


def _file(number: int) -> str:
    return f"{number:012d}.png"


INFO = {"description": "Generated: cut-outs over photographs", "version": "1"}
_CATEGORIES = [{"id": number, "name": name, "supercategory": "shape"} for name, number in CATEGORIES.items()]
