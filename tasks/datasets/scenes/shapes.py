"""Silhouettes of ten classes, how they are placed, and their exact masks and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.datasets.scenes.textures import Floats, Pixels

FINE = 4
"""Masks are drawn at this many times their size and averaged: soft edges."""


def _turned(count: int, radius: float = 1.0, start: float = -90.0) -> Floats:
    """(count, 2): corners of a regular polygon."""
    angles = np.deg2rad(start + 360 * np.arange(count) / count)
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1) * radius


def _star() -> Floats:
    points = np.empty((10, 2))
    points[0::2], points[1::2] = _turned(5), _turned(5, 0.42, -54)
    return points


def _crescent() -> Floats:
    outer, inner = np.deg2rad(np.linspace(50, 310, 30)), np.deg2rad(np.linspace(295, 65, 24))
    round_ = np.stack([np.cos(outer), np.sin(outer)], axis=-1)
    return np.concatenate([round_, np.stack([np.cos(inner) * 0.84 + 0.36, np.sin(inner) * 0.84], axis=-1)])


def _heart() -> Floats:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    down = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -down - 2.5], axis=-1) / 16


_CROSS = np.array([
    [-1, -3], [1, -3], [1, -1], [3, -1], [3, 1], [1, 1], [1, 3], [-1, 3], [-1, 1], [-3, 1], [-3, -1], [-1, -1],
]) / 3.0  # fmt: skip
_ARROW = np.array([[0, -1], [0.8, 0], [0.3, 0], [0.3, 1], [-0.3, 1], [-0.3, 0], [-0.8, 0]])
_HOURGLASS = np.array([[-0.75, -1], [0.75, -1], [0.12, 0], [0.75, 1], [-0.75, 1], [-0.12, 0]])

OUTLINES: dict[str, tuple[Floats, ...]] = {
    "disc": (_turned(48),),
    "triangle": (_turned(3, 1.1),),
    "square": (_turned(4, 1.15, -45),),
    "star": (_star(),),
    "cross": (_CROSS,),
    "ring": (_turned(48), _turned(48, 0.55)),
    "crescent": (_crescent(),),
    "heart": (_heart(),),
    "arrow": (_ARROW,),
    "hourglass": (_HOURGLASS,),
}
"""Class -> its outline, and the outlines of its holes: corners (n, 2) in -1..1, x to the right and y down."""
CLASSES = tuple(OUTLINES)


@dataclass(frozen=True)
class Placement:
    """Where a silhouette lies: its centre and radius in pixels, its angle, and how much wider than high it is made."""

    x: float
    y: float
    radius: float
    angle: float = 0.0
    """Radians."""
    stretch: float = 1.0
    """Width is multiplied by its root, height divided."""

    def of(self, outline: Floats) -> Floats:
        """The outline's corners in the image: 0 is the centre of the first pixel."""
        wide = outline * (self.radius * np.array([self.stretch**0.5, self.stretch**-0.5]))
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        turned = np.stack([cos * wide[:, 0] - sin * wide[:, 1], sin * wide[:, 0] + cos * wide[:, 1]], axis=-1)
        placed: Floats = turned + np.array([self.x, self.y])
        return placed


def drawn(name: str, place: Placement, width: int, height: int) -> Pixels:
    """How much of each pixel (height, width) the silhouette of a class covers, 0..255."""
    return cover([place.of(outline) for outline in OUTLINES[name]], width, height)


def cover(outlines: Sequence[Floats], width: int, height: int, left: float = 0, top: float = 0) -> Pixels:
    """How much of each pixel (height, width) the first outline covers less the others, 0..255. `left`, `top`: the
    position of the first pixel."""
    from PIL import Image, ImageDraw

    image = Image.new("L", (width * FINE, height * FINE))
    draw = ImageDraw.Draw(image)
    for number, outline in enumerate(outlines):
        corners = (outline - np.array([left, top]) + 0.5) * FINE - 0.5
        draw.polygon([(x, y) for x, y in corners.tolist()], fill=0 if number else 255)
    return np.asarray(image.reduce(FINE))


def box_of(mask: np.typing.NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    """(left, top, width, height) of the pixels of a mask; None: it has none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    left, top = int(columns[0]), int(rows[0])
    return left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1
