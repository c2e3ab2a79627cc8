"""Draws skeletons over persons, as annotated and as predicted, for those that the model does worst and best on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.base import Batch
from tasks.datasets.transforms import Normalizing, mean_std
from tasks.pose.boxes import warped_points
from tasks.pose.joints import Skeleton
from tasks.pose.scores import oks

SHOWN = 8
"""Persons in a picture."""
LEAST = 192
"""Smaller inputs are enlarged, every pixel a square, until the longer side has this many pixels."""
GAP, LABELS, TITLE = 4, 72, 16
"""Pixels between images, of the titles of rows, and of the lines below images."""
COLOURS = {"left": (255, 140, 0), "right": (0, 170, 255), "": (120, 220, 90)}
"""Of joints and edges by the side of the body."""


def sheets(
    batches: Iterable[Batch], predict: Callable[[Tensor], tuple[Tensor, Tensor]], skeleton: Skeleton,
    normalize: Normalizing,
) -> dict[str, NDArray[np.uint8]]:  # fmt: skip
    """`worst_poses` and `best_poses`, (height, width, 3) each: a column for each person, the annotation above the
    prediction, OKS and image below. None without annotated persons."""
    persons = [person for batch in batches for person in _measured(batch, predict, skeleton, normalize)]
    persons.sort(key=lambda person: person["oks"])
    if not persons:
        return {}
    return {
        "worst_poses": _sheet(persons[:SHOWN], skeleton),
        "best_poses": _sheet(persons[: -SHOWN - 1 : -1], skeleton),
    }


def _measured(
    batch: Batch, predict: Callable[[Tensor], tuple[Tensor, Tensor]], skeleton: Skeleton, normalize: Normalizing
) -> Iterable[Mapping[str, Any]]:
    """What a picture shows of each person of a batch. OKS is that in the photograph."""
    predicted, _ = predict(batch["images"])
    places, wanted = (each.double().cpu().numpy() for each in (predicted, batch["joints"]))
    visible = batch["visible"].cpu().numpy() > 0
    alike = oks(
        warped_points(places, batch["back"]), warped_points(wanted, batch["back"]), batch["person_areas"],
        skeleton.sigmas, visible,
    )  # fmt: skip
    pixels = _bytes(batch["images"], normalize)
    for i in range(len(pixels)):
        yield {
            "oks": float(alike[i]), "image": int(batch["image_ids"][i]), "pixels": pixels[i], "wanted": wanted[i],
            "places": places[i], "visible": visible[i],
        }  # fmt: skip


def _bytes(images: Tensor, normalize: Normalizing) -> NDArray[np.uint8]:
    """Normalised (n, 3, h, w) -> (n, h, w, 3) in 0..255."""
    mean, std = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in mean_std(normalize))
    pixels = ((images.float() * std + mean) * 255).round().clamp(0, 255)
    whole: NDArray[np.uint8] = pixels.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy()
    return whole


def _sheet(persons: Sequence[Mapping[str, Any]], skeleton: Skeleton) -> NDArray[np.uint8]:
    from PIL import Image, ImageDraw, ImageFont

    height, width = persons[0]["pixels"].shape[:2]
    zoom = max(1, -(-LEAST // max(height, width)))
    across, down = width * zoom + GAP, height * zoom + GAP
    paper = Image.new("RGB", (LABELS + len(persons) * across + GAP, 2 * down + TITLE + GAP), "white")
    pen, font = ImageDraw.Draw(paper), ImageFont.load_default()
    for row, (title, places) in enumerate((("annotation", "wanted"), ("prediction", "places"))):
        pen.text((GAP, GAP + row * down + down // 2), title, fill="black", font=font)
        for column, person in enumerate(persons):
            image = Image.fromarray(person["pixels"].repeat(zoom, axis=0).repeat(zoom, axis=1))
            _draw(image, (person[places] + 0.5) * zoom - 0.5, person["visible"], skeleton)
            paper.paste(image, (LABELS + column * across, GAP + row * down))
    for column, person in enumerate(persons):
        line = f"OKS {person['oks']:.2f}, {person['image']}"
        pen.text((LABELS + column * across, 2 * down + GAP), line, fill="black", font=font)
    return np.asarray(paper)


def _draw(image: Any, places: NDArray[np.float64], shown: NDArray[np.bool_], skeleton: Skeleton) -> None:
    """Edges and joints over an image; those that are labelled, in both rows, so that they can be compared."""
    from PIL import ImageDraw

    pen = ImageDraw.Draw(image)
    colours = [COLOURS.get(name.partition("_")[0], COLOURS[""]) for name in skeleton.names]
    thick = max(1, max(image.size) // 96)
    for first, second in skeleton.edge_indices:
        if shown[first] and shown[second]:
            ends = [tuple(places[first]), tuple(places[second])]
            pen.line(ends, fill=colours[second] if colours[first] == colours[second] else COLOURS[""], width=thick)
    for joint in np.flatnonzero(shown):
        (x, y), r = places[joint], thick + 1
        pen.ellipse((x - r, y - r, x + r, y + r), fill=colours[joint])
