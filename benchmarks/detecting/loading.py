"""Images per second of loaders at 1,024 pixels: ours, and the pipeline of torchvision's detection references."""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from faster_coco_eval.core import mask
from PIL import Image
from sides.turns import in_turns, row
from torchvision import tv_tensors
from torchvision.transforms import v2

from tasks.base import DataContext
from tasks.datasets.augment import MEAN_STD
from tasks.detection.loaders import DetectionLoaders
from tasks.detection.task import Detection

SIDE, BATCH, OBJECTS, POINTS = 1024, 4, 7, 20
"""Pixels; images of a batch; objects of an image and corners of each."""


def write(root: Path, images: int) -> None:
    """JPEGs of 640 x 480 in COCO's layout; train and val are alike but for their names."""
    random = np.random.default_rng(0)
    for part in ("train", "val"):
        (root / f"{part}2017").mkdir(parents=True)
        entries, objects = [], list[dict[str, Any]]()
        for number in range(1, (images if part == "train" else 1) + 1):
            name = f"{part}{number:09d}.jpg"
            coarse = random.integers(0, 255, (15, 20, 3), np.uint8)
            Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC).save(root / f"{part}2017" / name)
            entries.append({"id": number, "file_name": name, "height": 480, "width": 640})
            for _ in range(OBJECTS):
                radius = float(np.exp(random.uniform(np.log(10), np.log(110))))
                middle = random.uniform(radius, np.array([640, 480]) - radius)
                angles = np.sort(random.uniform(0, 2 * np.pi, POINTS))
                lengths = radius * random.uniform(0.7, 1, POINTS)
                corners = middle + np.stack([np.cos(angles), np.sin(angles)], 1) * lengths[:, None]
                low, high = corners.min(0), corners.max(0)
                objects.append({
                    "id": len(objects) + 1, "image_id": number, "category_id": 1, "iscrowd": 0,
                    "bbox": [*low.tolist(), *(high - low).tolist()], "area": float(radius**2 * 2),
                    "segmentation": [corners.ravel().tolist()],
                })  # fmt: skip
        content = {"images": entries, "annotations": objects, "categories": [{"id": 1, "name": "blob"}]}
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{part}2017.json").write_text(json.dumps(content))


class FixedSizeCrop(v2.Transform):
    """As in torchvision's references/detection/transforms.py: a random part of the size, padded where it is larger."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        functional = v2.functional
        cut = functional.crop(inpt, params["top"], params["left"], params["height"], params["width"])
        if isinstance(cut, tv_tensors.BoundingBoxes):
            cut = functional.clamp_bounding_boxes(cut)
        return functional.pad(cut, [0, 0, SIDE - params["width"], SIDE - params["height"]], fill=0)

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        height, width = v2.functional.get_size(flat_inputs[0])
        kept = min(height, SIDE), min(width, SIDE)
        at = torch.rand(1).item()
        return {
            "top": int((height - kept[0]) * at), "left": int((width - kept[1]) * at), "height": kept[0],
            "width": kept[1],
        }  # fmt: skip


class Reference:
    """Polygons to masks, jitter, crop, flip, floats and normalisation, a batch at a time."""

    def __init__(self, root: Path) -> None:
        content = json.loads((root / "annotations" / "instances_train2017.json").read_text())
        self._root, self._images = root, content["images"]
        self._of: dict[int, list[dict[str, Any]]] = {}
        for each in content["annotations"]:
            self._of.setdefault(each["image_id"], []).append(each)
        self._jitter = v2.Compose(
            [v2.ScaleJitter((SIDE, SIDE), (0.1, 2.0)), FixedSizeCrop(), v2.RandomHorizontalFlip()]
        )
        self._finish = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(*MEAN_STD["imagenet"])])

    def batch(self, first: int) -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
        made = [self._one(self._images[index]) for index in range(first, first + BATCH)]
        return torch.stack([image for image, _ in made]), [target for _, target in made]

    def _one(self, entry: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        image = tv_tensors.Image(v2.functional.pil_to_tensor(Image.open(self._root / "train2017" / entry["file_name"])))
        objects, size = self._of[entry["id"]], (entry["height"], entry["width"])
        codes = [mask.merge(mask.frPyObjects(each["segmentation"], *size)) for each in objects]
        boxes = torch.tensor([each["bbox"] for each in objects])
        boxes[:, 2:] += boxes[:, :2]
        masks = torch.from_numpy(np.stack([mask.decode(code) for code in codes]))
        image, boxes, masks = self._jitter(
            image,
            tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size),
            tv_tensors.Mask(masks),  # type: ignore[call-arg]
        )
        kept = (boxes[:, 2:] > boxes[:, :2]).all(1)
        return self._finish(image), {"boxes": boxes[kept], "masks": masks[kept]}


def our_loaders(root: Path) -> DetectionLoaders:
    fields = {"kind": "detection", "dataset": {"kind": "coco", "path": str(root)}}
    loaders = Detection.model_validate(fields).loaders(DataContext(root, (SIDE, SIDE), "cpu", 0, BATCH))
    assert isinstance(loaders, DetectionLoaders)
    return loaders


def compare(images: int, rounds: int) -> dict[str, Any]:
    """Each turn reads all images once."""
    images -= images % BATCH
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write(root, images)
        ours, theirs, epochs = our_loaders(root), Reference(root), itertools.count()

        def read() -> int:
            return sum(len(batch["images"]) for batch in ours.epoch(next(epochs)))

        def read_by_reference() -> int:
            return sum(len(theirs.batch(first)[0]) for first in range(0, images, BATCH))

        seconds, given = in_turns({"ours": read, "torchvision's references": read_by_reference}, rounds)
    if len(set(given.values())) > 1:
        raise SystemExit(f"not as many images: {given}")
    made = row("loader", "images/s at 1,024 pixels", seconds, images, "at least 1.0")
    return {**made, "images": images, "objects": OBJECTS}
