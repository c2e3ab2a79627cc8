"""Draws strips of frames with the annotated and the predicted box."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.sequences.types import Pixels
from tasks.tracking.crops import Floats
from tasks.tracking.loaders import Tracked
from tasks.tracking.metrics import overlap
from tasks.tracking.tracker import Tracker

if TYPE_CHECKING:
    from PIL import Image

LOOKED_AT, LONGEST = 16, 120
"""Sequences that are tracked for pictures, and frames of each: the worst are the worst of these."""
ROWS, COLUMNS = 6, 8
"""Sequences in a picture, and frames of each."""
HEIGHT, TITLE, GAP = 96, 14, 4
"""Pixels: of a frame, of the line below it, between frames."""
TRUTH, PREDICTION = (40, 200, 60), (230, 60, 40)
"""Colours of the two boxes."""


class Beginning:
    """The first frames of a sequence."""

    def __init__(self, whole: Tracked) -> None:
        self.whole, self.first_box = whole, whole.first_box

    def __len__(self) -> int:
        return min(len(self.whole), LONGEST)

    def frames(self, known: int = 1) -> Iterator[Pixels]:
        return itertools.islice(self.whole.frames(known), 1 + LONGEST - known)


@dataclass(frozen=True)
class Strip:
    """A tracked sequence."""

    video: Beginning
    boxes: Floats
    """(frames, 4) predicted."""
    overlap: float | None
    """The mean over its annotated frames after the first; None where boxes are not public."""


def tracked(videos: Iterable[Tracked], tracker: Tracker, at_once: int) -> list[Strip]:
    """The beginnings of the sequences, each as it was tracked, in their order."""
    begun = [Beginning(video) for video in videos]
    found = {id(video): boxes for video, boxes, _ in tracker.track(begun, at_once)}
    return [Strip(video, found[id(video)], _overlap(video, found[id(video)])) for video in begun]


def _overlap(video: Beginning, boxes: Floats) -> float | None:
    truth = video.whole.boxes
    if len(truth) < 2 or len(boxes) < 2:
        return None
    count = min(len(truth), len(boxes))
    return float(overlap(boxes[1:count], truth[1:count]).mean())


def sheets(strips: Sequence[Strip]) -> dict[str, NDArray[np.uint8]]:
    """`tracks`: sequences at even distances; and `worst_tracks`, by mean overlap, where boxes are public. Each (height,
    width, 3); a row of frames for each sequence, the annotated box green and the predicted one red."""
    if not strips:
        return {}
    chosen = np.unique(np.linspace(0, len(strips) - 1, min(ROWS, len(strips))).round().astype(int))
    drawn = {"tracks": _sheet([strips[place] for place in chosen])}
    known = [strip for strip in strips if strip.overlap is not None]
    if known:
        drawn["worst_tracks"] = _sheet(sorted(known, key=lambda strip: strip.overlap or 0.0)[:ROWS])
    return drawn


def _sheet(strips: Sequence[Strip]) -> NDArray[np.uint8]:
    from PIL import Image, ImageDraw, ImageFont

    rows = [_row(strip) for strip in strips]
    width = GAP + max(sum(image.width + GAP for image in row) for row in rows)
    paper = Image.new("RGB", (width, len(rows) * (HEIGHT + TITLE + GAP) + GAP), "white")
    pen, font = ImageDraw.Draw(paper), ImageFont.load_default()
    for number, (row, strip) in enumerate(zip(rows, strips, strict=True)):
        top, left = GAP + number * (HEIGHT + TITLE + GAP), GAP
        for image in row:
            paper.paste(image, (left, top))
            left += image.width + GAP
        measured = "" if strip.overlap is None else f", mean overlap {strip.overlap:.2f}"
        pen.text((GAP, top + HEIGHT + 1), f"{strip.video.whole.name}{measured}", fill="black", font=font)
    return np.asarray(paper)


def _row(strip: Strip) -> list[Image.Image]:
    """Frames at even distances, with their boxes."""
    from PIL import Image, ImageDraw

    count, truth = len(strip.video), strip.video.whole.boxes
    wanted = set(np.linspace(0, count - 1, min(COLUMNS, count)).round().astype(int).tolist())
    images = []
    for number, pixels in enumerate(strip.video.frames()):
        if number not in wanted:
            continue
        frame = Image.fromarray(pixels)
        zoom = HEIGHT / frame.height
        image = frame.resize((max(1, round(frame.width * zoom)), HEIGHT), Image.Resampling.BILINEAR)
        pen = ImageDraw.Draw(image)
        for boxes, colour in ((truth, TRUTH), (strip.boxes, PREDICTION)):
            if number < len(boxes):
                left, top, right, bottom = (boxes[number] * zoom).tolist()
                if right > left and bottom > top:
                    pen.rectangle((left, top, right, bottom), outline=colour, width=2)
        images.append(image)
    return images
