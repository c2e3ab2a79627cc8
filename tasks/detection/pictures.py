"""Draws boxes and masks over images: what is annotated above what is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from tasks.datasets.instances.types import Pixels, Rle
from tasks.detection.evaluation import Found
from tasks.detection.loaders import DetectionLoaders
from tasks.detection.measuring import found_in

SHOWN = 8
"""Images in a picture, at even distances through the evaluated part."""
SIDE = 240
"""Pixels of the longer side of an image in it."""
LEAST = 0.5
"""Score from which on what is found is drawn."""
GAP, TITLE, LABELS = 4, 14, 72
"""Pixels between images, of the lines above objects, and of the titles of rows."""


@dataclass(frozen=True)
class Drawn:
    """An object to draw."""

    box: tuple[float, float, float, float]
    """x, y, width, height in pixels of the image."""
    mask: Rle
    category: int
    words: str


def sheet(loaders: DetectionLoaders, model: nn.Module) -> NDArray[np.uint8]:
    """(height, width, 3): a column for each of up to SHOWN images, the annotation above what the model finds with a
    score of LEAST or more."""
    objects = loaders.evaluated_set
    columns: list[tuple[Pixels, list[Drawn], list[Drawn]]] = []
    for batch in loaders.pictured(SHOWN):
        names = {each["id"]: str(each["name"]) for each in batch["categories"]}
        found = list(found_in(batch, model(batch["images"], batch["sizes"])))
        for each, truth, index in zip(found, batch["truth"], batch["indices"], strict=True):
            annotated = [_annotated(one, names) for one in truth["annotations"]]
            columns.append((objects.image(index), annotated, _found(each, names)))
    order = {number: place for place, number in enumerate(objects.category_ids)}
    return _sheet(columns, order)


def _annotated(annotation: Mapping[str, Any], names: Mapping[int, str]) -> Drawn:
    crowd = " (crowd)" if annotation["iscrowd"] else ""
    category = annotation["category_id"]
    return Drawn(tuple(annotation["bbox"]), annotation["segmentation"], category, f"{names[category]}{crowd}")


def _found(found: Found, names: Mapping[int, str]) -> list[Drawn]:
    """Best last, so that it is drawn over the others."""
    rows = [row for row in range(len(found.scores)) if found.scores[row] >= LEAST]
    return [
        Drawn(
            tuple(found.boxes[row].tolist()), {"size": list(found.size), "counts": found.masks[row]},
            int(found.category_ids[row]), f"{names[int(found.category_ids[row])]} {found.scores[row]:.2f}",
        )
        for row in reversed(rows)
    ]  # fmt: skip


def _sheet(columns: Sequence[tuple[Pixels, list[Drawn], list[Drawn]]], order: Mapping[int, int]) -> NDArray[np.uint8]:
    from PIL import Image, ImageDraw, ImageFont

    paper = Image.new("RGB", (LABELS + len(columns) * (SIDE + GAP) + GAP, 2 * (SIDE + GAP) + GAP), "white")
    pen, font = ImageDraw.Draw(paper), ImageFont.load_default()
    for row, title in enumerate(("annotation", "prediction")):
        top = GAP + row * (SIDE + GAP)
        pen.text((GAP, top + SIDE // 2), title, fill="black", font=font)
        for column, (image, *objects) in enumerate(columns):
            paper.paste(Image.fromarray(_drawn(image, objects[row], order)), (LABELS + column * (SIDE + GAP), top))
    return np.asarray(paper)


def _drawn(image: Pixels, objects: Sequence[Drawn], order: Mapping[int, int]) -> Pixels:
    """The image, its longer side SIDE pixels, with masks half transparent, boxes and words."""
    import cv2
    from faster_coco_eval.core import mask as codes
    from PIL import Image, ImageDraw, ImageFont

    height, width = image.shape[:2]
    zoom = SIDE / max(height, width)
    size = max(1, round(width * zoom)), max(1, round(height * zoom))
    pixels = cv2.resize(image, size, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_NEAREST)
    for each in objects:
        covered = cv2.resize(codes.decode(each.mask), size, interpolation=cv2.INTER_NEAREST).astype(bool)
        tint = np.array(_colour(order[each.category]))
        pixels[covered] = (pixels[covered] // 2 + tint // 2).astype(np.uint8)
    picture = Image.fromarray(pixels)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default()
    for each in objects:
        x, y, wide, high = (value * zoom for value in each.box)
        colour = _colour(order[each.category])
        pen.rectangle((x, y, x + max(wide, 1) - 1, y + max(high, 1) - 1), outline=colour, width=2)
        at = (x + 3, y - TITLE if y >= TITLE else y + 2)
        pen.text(at, each.words, fill=colour, font=font, stroke_width=1, stroke_fill="black")
    return np.asarray(picture)


def _colour(place: int) -> tuple[int, int, int]:
    """Bright, and unlike those of the neighbouring classes: hues a golden section apart."""
    import colorsys

    red, green, blue = colorsys.hsv_to_rgb(place * 0.618034 % 1, 0.85, 1)
    return round(255 * red), round(255 * green), round(255 * blue)
