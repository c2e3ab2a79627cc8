"""Rooms with boxes and cut-outs in them, with the class of every pixel, in the layout of ADE20K."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tasks.datasets.photographs import PhotoPart
from tasks.datasets.scenes.objects import CATEGORIES, SIDE, Piece, cut_out, drawn
from tasks.datasets.scenes.rooms import SIDE as ROOM
from tasks.datasets.scenes.rooms import Paint, drawn_room, nearest, painted
from tasks.datasets.scenes.shapes import CLASSES as SHAPES
from tasks.datasets.scenes.shares import Counts, share_of, write_in_processes
from tasks.datasets.scenes.textures import Pixels, Textures

NAME, SMALL = "scene-maps", "scene-maps-small"
"""The second is the beginning of the first, for a first look."""
SETS: dict[str, dict[PhotoPart, int]] = {
    NAME: {"train": 800, "val": 100, "test": 100},
    SMALL: {"train": 48, "val": 8, "test": 8},
}
"""Images of each part, made of the photographs of the same part."""
FOLDERS: dict[PhotoPart, str] = {"train": "training", "val": "validation", "test": "test"}
SURFACES = ("wall", "floor", "ceiling", "box")
CLASSES = (*SURFACES, *CATEGORIES)
"""In a map, 1 is the first; 0 is anything else, as in ADE20K."""
OF_ROOM = (1, 1, 2, 3, 1, 1)
"""The number of each of a room's six sides, in the order of `drawn_room`; further planes belong to boxes."""
SEED = 161616
MOST = 3
"""Cut-outs of an image."""
RADIUS = (9.0, 19.0)
OTHER = 0.25
"""Share of images with a cut-out of a class that the maps do not have."""


@dataclass(frozen=True)
class Mapped:
    """An image with its map."""

    pixels: Pixels
    """(SIDE, SIDE, 3)"""
    classes: Pixels
    """(SIDE, SIDE): 0, or 1 + the place in CLASSES."""


def mapped(part: PhotoPart, index: int) -> Mapped:
    """An image, the same on every call: it depends on its part and index alone. Raises DataError."""
    random = np.random.default_rng([SEED, list(SETS[NAME]).index(part), index])
    textures = Textures(part, NAME)
    camera, planes = drawn_room(random)
    paints = [Paint(random, textures) for _ in planes]
    background = painted(camera, planes, paints, 2 * SIDE // ROOM, SIDE)
    _, which = nearest(planes, camera.position, camera.rays(SIDE / ROOM))
    classes = np.array([*OF_ROOM, *[1 + SURFACES.index("box")] * (len(planes) - len(OF_ROOM))], np.uint8)[which]
    things = [_thing(random, textures, float(background.mean())) for _ in range(int(random.integers(0, MOST + 1)))]
    if random.random() < OTHER:
        others = [name for name in SHAPES if name not in CATEGORIES]
        things.append(_thing(random, textures, float(background.mean()), others))
    names, pieces = [name for name, _ in things], [[] if piece is None else [piece] for _, piece in things]
    canvas, kept = drawn(background, pieces)
    for number in kept:
        known = names[number] in CLASSES
        classes[canvas.owner == number + 1] = 1 + CLASSES.index(names[number]) if known else 0
    return Mapped(canvas.pixels, classes)


def _thing(
    random: np.random.Generator, textures: Textures, brightness: float, names: list[str] | None = None
) -> tuple[str, Piece | None]:
    """A cut-out of one of these classes, or of those of the maps."""
    known = names or list(CATEGORIES)
    name, (x, y) = known[int(random.integers(len(known)))], random.uniform(0.06 * SIDE, 0.94 * SIDE, 2).tolist()
    return name, cut_out(random, textures, name, brightness, (x, y), RADIUS)


def write(folder: Path, name: str = NAME) -> None:
    """Writes images, maps and the list of classes, in as many processes as there are cores. Raises OSError and
    DataError."""
    prepare(folder, name)
    write_in_processes(write_share, folder, name, SETS[name])


def prepare(folder: Path, name: str) -> None:
    """Makes the folders of all parts, and the list of classes."""
    for part in SETS[name]:
        for what in ("images", "annotations"):
            (folder / what / FOLDERS[part]).mkdir(parents=True)
    rows = "".join(f"{number}\t{each}\n" for number, each in enumerate(CLASSES, 1))
    (folder / "objectInfo150.txt").write_text(f"Idx\tName\n{rows}")


def write_share(folder: Path, counts: Counts, share: int, shares: int) -> None:
    """Writes every image and map of this share. Raises OSError and DataError."""
    from PIL import Image

    for part, index in share_of(counts, share, shares):
        made, file = mapped(part, index), f"ADE_{part}_{index + 1:08d}.png"
        Image.fromarray(made.pixels).save(folder / "images" / FOLDERS[part] / file, compress_level=3)
        Image.fromarray(made.classes).save(folder / "annotations" / FOLDERS[part] / file, compress_level=3)
