"""Peak memory of turning detections into COCO's codes: ours, and the pasting of masks of torchvision's references."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch
from analysis import forget_peak, resident

SIZE, SIDE, AT_ONCE, DETECTIONS = (480, 640), 1024, 8, 100
"""Height and width of images; side of the input; images of a batch; detections of an image."""
Predicted = list[dict[str, torch.Tensor]]


def batches(images: int) -> Iterator[tuple[dict[str, Any], Predicted]]:
    """What the loaders and the model give of them."""
    generator = torch.Generator().manual_seed(0)
    height, width = SIZE[0] * SIDE // SIZE[1], SIDE
    for first in range(0, images, AT_ONCE):
        predicted = []
        for _ in range(AT_ONCE):
            corners = torch.rand(DETECTIONS, 2, generator=generator) * torch.tensor([width, height]) * 0.7
            sides = 20 + torch.rand(DETECTIONS, 2, generator=generator) * 200
            boxes = torch.cat([corners, torch.minimum(corners + sides, torch.tensor([width, height]))], 1)
            coarse = torch.rand(DETECTIONS, 1, 5, 5, generator=generator)
            masks = torch.nn.functional.interpolate(coarse, (28, 28), mode="bilinear")
            predicted.append({
                "boxes": boxes, "masks": masks, "labels": torch.ones(DETECTIONS, dtype=torch.int64),
                "scores": torch.linspace(1, 0.1, DETECTIONS),
            })  # fmt: skip
        originals = [(first + number + 1, *SIZE) for number in range(AT_ONCE)]
        sizes = [(height, width)] * AT_ONCE
        yield {"sizes": sizes, "originals": originals, "categories": [{"id": 1}]}, predicted


def ours(images: int) -> int:
    from tasks.detection.measuring import found_in

    found = [each for batch, predicted in batches(images) for each in found_in(batch, predicted)]
    return sum(len(code) for each in found for code in each.masks)


def references(images: int) -> int:
    """The masks of a batch are pasted in the model (GeneralizedRCNNTransform), then coded one by one (coco_eval.py)."""
    from faster_coco_eval.core import mask
    from torchvision.models.detection.roi_heads import paste_masks_in_image

    codes = []
    for batch, predicted in batches(images):
        height, width = batch["sizes"][0]
        back = torch.tensor([SIZE[1] / width, SIZE[0] / height]).repeat(2)
        pasted = [paste_masks_in_image(each["masks"], each["boxes"] * back, SIZE) for each in predicted]
        for of_image in pasted:
            codes += [mask.encode(np.asfortranarray(each[0], dtype=np.uint8)) for each in (of_image > 0.5).numpy()]
    return sum(len(code["counts"]) for code in codes)


SIDES = {"ours": ours, "torchvision's references": references}


def most(side: str, images: int) -> tuple[float, int]:
    """MiB at most beyond what was resident before, and bytes of all codes."""
    torch.set_num_threads(1)
    SIDES[side](AT_ONCE)  # imports and what is allocated once
    before = resident("VmRSS")
    forget_peak("cpu")
    size = SIDES[side](images)
    return resident("VmHWM") - before, size


def compare(images: int) -> dict[str, Any]:
    """Each side in a process of its own. Stops if the codes of the two differ by more than their ways of pasting."""
    given = {}
    for side in SIDES:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            given[side] = process.submit(most, side, images).result()
    (_, (own, codes)), (peer, (other, others)) = given.items()
    if not 0.8 < codes / others < 1.25:
        raise SystemExit(f"codes of {codes} and {others} bytes")
    return {
        "part": "memory", "what": f"MiB at most to code {DETECTIONS} masks of each of {images} images", "peer": peer,
        "ours": own, "other": other, "ratio": own / other, "ratios": [own / other], "aim": "at most 1.0",
        "clock": "resident memory", "images": images, "codes_bytes": codes,
    }  # fmt: skip
