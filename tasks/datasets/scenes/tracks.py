"""Sequences of a cut-out that moves over a moving background, is hidden and leaves, with exact boxes."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.photographs import PhotoPart
from tasks.datasets.scenes.shapes import CLASSES, OUTLINES, Placement, cover
from tasks.datasets.scenes.shares import Counts, share_of, write_in_processes
from tasks.datasets.scenes.textures import Floats, Pixels, Textures, blended, shades, tinted

if TYPE_CHECKING:
    from PIL import Image

NAME, SMALL = "scene-tracks", "scene-tracks-small"
"""The second is the beginning of the first, for a first look."""
SETS: dict[str, dict[PhotoPart, int]] = {
    NAME: {"train": 300, "val": 16, "test": 16},
    SMALL: {"train": 40, "val": 4, "test": 4},
}
"""Sequences of each part, made of the photographs of the same part."""
FRAMES = 20
WIDTH, HEIGHT = 160, 120
SEED = 121212
RADIUS = (10.0, 17.0)
"""Of the object in the middle of its changes of size, in pixels: four times its side is about 112, the side of a search
crop of the laptop's profile."""
MARGIN = 50
"""Pixels by which the background is larger than the image on each side: for pans, zooms and turns."""
HIDDEN, LEAVES = 0.35, 0.2
"""Shares of sequences in which something passes in front of the object; in which it leaves the image and comes back."""
OTHERS, ALIKE = 3, 0.5
"""Other cut-outs that move about behind the object, and the share of them that are of its class. With at most one, as
in version 2, whoever found any cut-out had found the object four times in five, and models could do without the
template."""
SHOWN = 0.25
"""An object of which less shows, as a part of its area, counts as hidden or out of view."""
APART = 40
"""Least difference of mean brightness between a cut-out and the background, in levels of 256."""
_SPRITE = 30
"""Pixels of a cut-out's texture from its middle to its edge."""
_REACH = 1.25
"""Outlines stay within this many radii."""


@dataclass(frozen=True)
class Track:
    """A sequence with its ground truth."""

    frames: tuple[Pixels, ...]
    """(HEIGHT, WIDTH, 3)"""
    boxes: Floats
    """(frames, 4): x, y, width and height of the part of the outline that lies in the image, behind whatever hides it;
    0 is the left or upper edge of the image; all 0 where it is outside."""
    visible: NDArray[np.bool_]
    """(frames,): SHOWN of it can be seen."""


@dataclass(frozen=True)
class _Thing:
    """A cut-out and its way."""

    name: str
    """A class of shapes."""
    sprite: Image.Image
    """Its texture, which moves, grows and turns with it."""
    places: tuple[Placement, ...]
    """One for each frame."""


def track(part: PhotoPart, index: int) -> Track:
    """A sequence, the same on every call: it depends on its part and index alone. Raises DataError."""
    random = np.random.default_rng([SEED, list(SETS[NAME]).index(part), index])
    textures = Textures(part, NAME)
    behind = textures.view(random, WIDTH + 2 * MARGIN, HEIGHT + 2 * MARGIN, (0.4, 1.6), (0.5, 1.0))
    grounds = list(_grounds(random, behind))
    brightness = float(behind.mean())
    name = CLASSES[int(random.integers(len(CLASSES)))]
    target = _Thing(name, _sprite(random, textures, brightness), _way(random, leaves=random.random() < LEAVES))
    things = []
    for _ in range(OTHERS):
        other = name if random.random() < ALIKE else CLASSES[int(random.integers(len(CLASSES)))]
        things.append(_Thing(other, _sprite(random, textures, brightness), _way(random, leaves=False)))
    things.append(target)
    if random.random() < HIDDEN:
        solid = [each for each in CLASSES if len(OUTLINES[each]) == 1]
        passing = solid[int(random.integers(len(solid)))]
        things.append(_Thing(passing, _sprite(random, textures, brightness), _crossing(random, target.places)))
    return _painted(grounds, things, target)


def _painted(grounds: list[Pixels], things: list[_Thing], target: _Thing) -> Track:
    boxes = np.zeros((FRAMES, 4))
    visible = np.zeros(FRAMES, dtype=np.bool_)
    frames = []
    for number, pixels in enumerate(grounds):
        shown = np.zeros((HEIGHT, WIDTH), dtype=np.bool_)
        whole = 0
        for thing in things:
            mask, size = _paint(pixels, thing, thing.places[number])
            if thing is target:
                shown, whole = mask, size
            else:
                shown &= ~mask
        frames.append(pixels)
        boxes[number] = box_of_outline(target.name, target.places[number])
        visible[number] = shown.sum() >= SHOWN * whole and boxes[number, 2:].min() > 0
    return Track(tuple(frames), boxes, visible)


def box_of_outline(name: str, place: Placement) -> tuple[float, float, float, float]:
    """x, y, width and height of the part of a silhouette's box that lies in the image; zeros where it is outside."""
    corners = place.of(OUTLINES[name][0]) + 0.5  # a pixel's centre lies half a pixel from its edge
    outline = _in_image(corners)
    if not len(outline):
        return 0.0, 0.0, 0.0, 0.0
    low, high = outline.min(axis=0), outline.max(axis=0)
    x, y, width, height = np.round([*low, *(high - low)], 2).tolist()
    return (x, y, width, height) if min(width, height) > 0 else (0.0, 0.0, 0.0, 0.0)


def _in_image(corners: Floats) -> Floats:
    """(n, 2): the ends of the sides of a polygon, cut to the image (Liang and Barsky 1984), and those corners of the
    image that lie in it: where the part of it in the image begins and ends."""
    after = np.roll(corners, -1, axis=0)
    steps = after - corners
    safe = np.where(steps == 0, 1e-12, steps)
    ends = np.stack([-corners / safe, (np.array([WIDTH, HEIGHT]) - corners) / safe])
    enter = np.maximum(ends.min(axis=0).max(axis=1), 0)
    leave = np.minimum(ends.max(axis=0).min(axis=1), 1)
    cut = enter <= leave
    sides = [(corners + part[:, None] * steps)[cut] for part in (enter, leave)]
    inside = []
    for x, y in ((0, 0), (WIDTH, 0), (0, HEIGHT), (WIDTH, HEIGHT)):
        spans = (corners[:, 1] > y) != (after[:, 1] > y)
        crossed = corners[:, 0] + steps[:, 0] * (y - corners[:, 1]) / safe[:, 1]
        if (spans & (x < crossed)).sum() % 2:
            inside.append([x, y])
    return np.concatenate([*sides, np.array(inside, dtype=np.float64).reshape(-1, 2)])


def _wave(random: np.random.Generator, size: float, periods: tuple[float, float] = (14, 45)) -> Floats:
    """(FRAMES,): goes to and fro by up to `size`, once in so many frames."""
    turns = np.arange(FRAMES) / random.uniform(*periods) + random.uniform(0, 1)
    wave: Floats = size * np.sin(2 * np.pi * turns)
    return wave


def _way(random: np.random.Generator, leaves: bool) -> tuple[Placement, ...]:
    """Where a cut-out is in each frame: inside of the image in the first. `leaves`: it goes out over the nearest edge
    after its fourth frame at the earliest, and turns back."""
    x = _wave(random, random.uniform(5, 30)) + _wave(random, 5, (8, 14)) + np.arange(FRAMES) * random.normal(0, 1.5)
    y = _wave(random, random.uniform(5, 22)) + _wave(random, 4, (8, 14)) + np.arange(FRAMES) * random.normal(0, 1.0)
    radius = random.uniform(*RADIUS) * np.exp(_wave(random, random.uniform(0, 0.3)))
    angle = random.uniform(-np.pi, np.pi) + _wave(random, random.uniform(0, 1.2), (20, 60))
    stretch = np.exp(random.uniform(-0.25, 0.25) + _wave(random, random.uniform(0, 0.15)))
    inside = _REACH * radius[0] + 2
    x += random.uniform(inside, WIDTH - inside) - x[0]
    y += random.uniform(inside, HEIGHT - inside) - y[0]
    if not leaves:
        x, y = _kept(x, 0.4 * radius, WIDTH), _kept(y, 0.4 * radius, HEIGHT)
    else:
        begins, lasts = int(random.integers(3, 9)), int(random.integers(12, 17))
        there = np.clip((np.arange(FRAMES) - begins) / lasts, 0, 1)
        out = np.sin(np.pi * there) ** 2
        right = x[begins] > WIDTH / 2
        goal = WIDTH + 1.6 * radius if right else -1.6 * radius
        x = x + out * (goal - x)
    rows = zip(x.tolist(), y.tolist(), radius.tolist(), angle.tolist(), stretch.tolist(), strict=True)
    return tuple(Placement(*row) for row in rows)


def _kept(positions: Floats, margin: Floats, length: int) -> Floats:
    """Positions mirrored at the edges of the image, so that a cut-out may lie over an edge but its middle does not."""
    span = length - 2 * margin
    folded: Floats = margin + span - np.abs((positions - margin) % (2 * span) - span)
    return folded


def _crossing(random: np.random.Generator, places: tuple[Placement, ...]) -> tuple[Placement, ...]:
    """The way of something that passes over another cut-out, whose places these are."""
    middle = int(random.integers(8, FRAMES - 4))
    angle, speed = random.uniform(-np.pi, np.pi), random.uniform(5, 9)
    step = np.array([np.cos(angle), np.sin(angle)]) * speed
    radius = places[middle].radius * random.uniform(1.0, 1.5)
    turn, start = random.uniform(-np.pi, np.pi), np.array([places[middle].x, places[middle].y])
    ways = [start + step * (number - middle) for number in range(FRAMES)]
    return tuple(Placement(float(x), float(y), radius, turn) for x, y in ways)


def _grounds(random: np.random.Generator, behind: Pixels) -> Iterator[Pixels]:
    """The background of each frame: a view of a larger picture that pans, turns and zooms."""
    from PIL import Image

    picture = Image.fromarray(behind)
    across = _wave(random, random.uniform(0, 18)) + _wave(random, random.uniform(0, 4), (6, 12))
    down = _wave(random, random.uniform(0, 14)) + _wave(random, random.uniform(0, 4), (6, 12))
    zoom, turn = np.exp(_wave(random, random.uniform(0, 0.1))), _wave(random, random.uniform(0, 0.07))
    for number in range(FRAMES):
        cos, sin = np.cos(turn[number]) * zoom[number], np.sin(turn[number]) * zoom[number]
        matrix = np.array([[cos, -sin], [sin, cos]])
        centre = np.array([picture.width / 2 + across[number], picture.height / 2 + down[number]])
        yield _viewed(picture, matrix, centre, np.array([WIDTH / 2, HEIGHT / 2]), (WIDTH, HEIGHT))


def _viewed(picture: Image.Image, matrix: Floats, centre: Floats, at: Floats, size: tuple[int, int]) -> Pixels:
    """(height, width, 3): the picture through a linear map of positions, with its `centre` at `at` in the view."""
    from PIL import Image

    shift = centre - matrix @ at
    data = (*matrix[0], shift[0], *matrix[1], shift[1])
    view = picture.transform(size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
    return np.array(view)


def _sprite(random: np.random.Generator, textures: Textures, brightness: float) -> Image.Image:
    """A texture in a random colour, APART from the background in brightness."""
    from PIL import Image

    side = 2 * round(_SPRITE * _REACH)
    texture = shades(textures.view(random, side, side, (0.5, 2)))
    colour = np.array(colorsys.hsv_to_rgb(random.random(), random.uniform(0.3, 1), random.uniform(0.35, 1))) * 255
    pixels = tinted(texture, colour, random.uniform(0.5, 1.1)).astype(np.int32)
    lighter = float(pixels.mean()) - brightness
    sign = 1 if (lighter >= 0 and brightness + APART < 235) or brightness - APART < 20 else -1
    pixels += max(0, round(APART - sign * lighter)) * sign
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _paint(pixels: Pixels, thing: _Thing, place: Placement) -> tuple[NDArray[np.bool_], int]:
    """Paints a cut-out into an image. The image's pixels that it covers (HEIGHT, WIDTH), and how many it would cover
    were the image larger."""
    mask = np.zeros(pixels.shape[:2], dtype=np.bool_)
    outlines = [place.of(outline) for outline in OUTLINES[thing.name]]
    left, top = (np.floor(outlines[0].min(axis=0)) - 1).astype(int).tolist()
    right, bottom = (np.ceil(outlines[0].max(axis=0)) + 2).astype(int).tolist()
    covers = cover(outlines, right - left, bottom - top, left, top)
    whole = int((covers > 127).sum())
    inner = np.s_[max(0, -top) : HEIGHT - top, max(0, -left) : WIDTH - left]
    outer = np.s_[max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
    part = covers[inner]
    if not part.size or not pixels[outer].size:
        return mask, whole
    cos, sin = np.cos(place.angle), np.sin(place.angle)
    shrink = _SPRITE / (place.radius * np.array([place.stretch**0.5, place.stretch**-0.5]))
    matrix = shrink[:, None] * np.array([[cos, sin], [-sin, cos]])
    middle = np.array([place.x + 0.5 - left, place.y + 0.5 - top])
    half = np.array([thing.sprite.width, thing.sprite.height]) / 2
    above = _viewed(thing.sprite, matrix, half, middle, (right - left, bottom - top))[inner]
    pixels[outer] = blended(pixels[outer], above, part)
    mask[outer] = part > 127
    return mask, whole


def write(folder: Path, name: str = NAME) -> None:
    """Writes frames, boxes.txt and visible.txt of all sequences, in as many processes as there are cores. Raises
    OSError and DataError."""
    write_in_processes(write_share, folder, name, SETS[name])


def write_share(folder: Path, counts: Counts, share: int, shares: int) -> None:
    """Writes every sequence of this share. Raises OSError and DataError."""
    for part, index in share_of(counts, share, shares):
        write_track(folder / part / f"{index + 1:04d}", track(part, index))


def write_track(folder: Path, made: Track) -> None:
    """Frames 01.png .., boxes.txt (x,y,width,height a line) and visible.txt (1 or 0 a line)."""
    from PIL import Image

    folder.mkdir(parents=True)
    for number, pixels in enumerate(made.frames, 1):
        Image.fromarray(pixels).save(folder / f"{number:02d}.png", compress_level=1)
    boxes = "".join(",".join(f"{value:g}" for value in box) + "\n" for box in made.boxes.tolist())
    (folder / "boxes.txt").write_text(boxes)
    (folder / "visible.txt").write_text("".join(f"{int(shown)}\n" for shown in made.visible.tolist()))
