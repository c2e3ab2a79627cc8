"""Sequences in memory: a bright square that moves over a plain background, with exact boxes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from tasks.datasets.images.decode import Unreadable
from tasks.datasets.sequences.types import Part, Pixels, Protocol, Sequence, SequenceSet

SIDE, OBJECT, LENGTH = 96, 16, 20


def sequence(
    number: int = 0, length: int = LENGTH, hidden: Iterable[int] = (), fps: float = 30.0, still: bool = False
) -> Sequence:
    """A square of 16 pixels that moves by 2 pixels a frame, and turns back at 56 pixels."""
    steps = np.arange(length)
    path = np.abs((steps * 2 + 7 * number) % 112 - 56.0)
    boxes = np.stack([8 + path, 10 + path / 2, np.full(length, OBJECT), np.full(length, OBJECT)], -1).astype(float)
    visible = ~np.isin(steps, list(hidden))
    names = tuple(f"{number}/{0 if still else step}" for step in range(length))
    return Sequence(f"square {number}", names, boxes, visible, visible.copy(), fps, still)


class Squares(SequenceSet):
    """So many sequences. Red of a frame's first pixels: the shade of the set, and the sequence's number."""

    def __init__(
        self,
        count: int,
        part: Part = "train",
        length: int = LENGTH,
        lengths: Iterable[int] | None = None,
        hidden: Mapping[int, Iterable[int]] | None = None,
        shade: int = 60,
        square: int = 220,
        damaged: int | None = None,
        still: bool = False,
        texture: bool = False,
        kind: str = "otb",
        public: bool = True,
    ) -> None:
        """`damaged`: the sequence whose frames cannot be read. `texture`: the square has a pattern."""
        self.name, self.root, self.part = "squares", Path(), part
        self.protocol = Protocol(kind, public)  # type: ignore[arg-type]
        self.lengths = np.array(list(lengths) if lengths else [length] * count)
        self._hidden, self._shade, self._square, self._still = hidden or {}, shade, square, still
        self._damaged, self._texture = damaged, texture
        self.read = 0

    def sequence_name(self, index: int) -> str:
        return f"square {index}"

    def load(self, index: int) -> Sequence:
        return sequence(index, int(self.lengths[index]), self._hidden.get(index, ()), still=self._still)

    def image(self, path: str) -> Pixels:
        self.read += 1
        number, step = map(int, path.split("/"))
        if number == self._damaged:
            raise Unreadable(f"{self.name}: cannot read frame {path}")
        frames = sequence(number, step + 1, still=self._still)
        x, y, width, height = frames.boxes[0 if self._still else step].round().astype(int).tolist()
        pixels = np.full((SIDE, SIDE, 3), self._shade, np.uint8)
        pixels[..., 2] = 30
        pixels[y : y + height, x : x + width] = (self._square, self._square, max(150, self._square - 30))
        if self._texture:
            pixels[y : y + height, x : x + width] -= np.random.default_rng(0).integers(
                0, 90, (OBJECT, OBJECT, 3), np.uint8
            )
        pixels[0, 1] = number
        return pixels
