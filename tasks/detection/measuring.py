"""Carries what a model finds in its input back to the images, masks as COCO's code at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from tasks.base import Batch
from tasks.detection.evaluation import Found
from tasks.detection.masks import rle_of


def found_in(batch: Batch, predicted: Sequence[Mapping[str, Tensor]]) -> Iterator[Found]:
    """`predicted`: of each image of the batch, see `Detector.forward`. Only the masks of one image are open at a time,
    and of each only its 28 x 28 probabilities."""
    ids = [category["id"] for category in batch["categories"]]
    for each, (height, width), (image, *original) in zip(predicted, batch["sizes"], batch["originals"], strict=True):
        back = np.array([original[1] / width, original[0] / height] * 2)
        boxes = each["boxes"].double().cpu().numpy() * back
        boxes = boxes.clip(0, np.array([original[1], original[0]] * 2))
        masks = each["masks"][:, 0].float().cpu().numpy()
        labels = each["labels"].cpu().numpy() - 1
        yield Found(
            image, (original[0], original[1]), np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1),
            each["scores"].double().cpu().numpy(), np.array(ids, dtype=np.int64)[labels],
            [rle_of(mask, box, (original[0], original[1])) for mask, box in zip(masks, boxes, strict=True)],
        )  # fmt: skip


def part_of(batch: Batch, predicted: Sequence[Mapping[str, Tensor]]) -> dict[str, Any]:
    """What `summarize` needs of a batch: `found`, `truth` and `categories`."""
    found = list(found_in(batch, predicted))
    return {"found": found, "truth": batch["truth"], "categories": batch["categories"]}
