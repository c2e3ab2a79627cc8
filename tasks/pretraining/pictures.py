"""Draws pictures of masked image modelling: original images, their visible part, and reconstructions."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.datasets.augment import MEAN_STD, Normalize
from tasks.pretraining.simmim import local_statistics, upsample_mask

if TYPE_CHECKING:
    from tasks.base import Loaders
    from tasks.pretraining.simmim import SimMIM

LEAST = 96
"""Smaller images are enlarged, every pixel a square, until a side has this many pixels."""
GAP = 4
LABELS = 120
"""Width of the column with the titles of rows, in pixels."""
HIDDEN = (128, 128, 128)


def sheet(model: SimMIM, loaders: Loaders, count: int, normalize: Normalize, window: int | None) -> NDArray[np.uint8]:
    """(height, width, 3): a column for each of `count` held-out images at even distances through the val set; rows:
    original, masked, and reconstruction, in which visible pixels are the original's (the model predicts hidden ones).

    `window`: side of the neighbourhood by which the target was normalised, or None. A normalised target has neither the
    mean nor the contrast of a region, so these are taken from the original, hidden pixels included: the picture looks
    better than the prediction alone. The title of the row notes it.
    """
    images, masks = _chosen(loaders, count)
    predicted = model(images, masks).float()
    if window is not None:
        centre, deviation = local_statistics(images, window)
        predicted = predicted * deviation + centre
    hidden = upsample_mask(masks, model.mask_patch)[:, None]
    original, output = _bytes(images, normalize), _bytes(predicted, normalize)
    where = hidden.permute(0, 2, 3, 1).cpu().numpy()
    grey = np.array(HIDDEN, dtype=np.uint8)
    rows = {
        "original": original,
        "masked": np.where(where, grey, original),
        "reconstruction" + ("\n(local mean and\ncontrast given)" if window else ""): np.where(where, output, original),
    }
    return _sheet(rows)


def _chosen(loaders: Loaders, count: int) -> tuple[Tensor, Tensor]:
    """Images and masks at even distances through the val set."""
    images, masks = [], []
    batches = list(loaders.evaluation())
    total = sum(len(batch["images"]) for batch in batches)
    wanted = set(np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist())
    index = 0
    for batch in batches:
        at = [i for i in range(len(batch["images"])) if index + i in wanted]
        images.append(batch["images"][at])
        masks.append(batch["masks"][at])
        index += len(batch["images"])
    return torch.cat(images), torch.cat(masks)


def _bytes(images: Tensor, normalize: Normalize) -> NDArray[np.uint8]:
    """Normalised (n, 3, h, w) -> (n, h, w, 3) in 0..255."""
    mean, std = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in MEAN_STD[normalize])
    pixels = ((images.float() * std + mean) * 255).round().clamp(0, 255)
    return cast("NDArray[np.uint8]", pixels.permute(0, 2, 3, 1).to(torch.uint8).cpu().numpy())


def _sheet(rows: dict[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
    from PIL import Image, ImageDraw, ImageFont

    count, side = next(iter(rows.values())).shape[:2]
    zoom = max(1, -(-LEAST // side))
    step = side * zoom + GAP
    paper = Image.new("RGB", (LABELS + count * step + GAP, len(rows) * step + GAP), "white")
    pen, font = ImageDraw.Draw(paper), ImageFont.load_default()
    for r, (label, images) in enumerate(rows.items()):
        top = GAP + r * step
        pen.multiline_text((GAP, top + step // 2 - 8), label, fill="black", font=font)
        for c, image in enumerate(images):
            large = image.repeat(zoom, axis=0).repeat(zoom, axis=1)
            paper.paste(Image.fromarray(large), (LABELS + c * step, top))
    return np.asarray(paper)
