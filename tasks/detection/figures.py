"""Names and titles of the figures of boxes and masks; specs are read by them, without NumPy."""

from __future__ import annotations

from typing import Literal

from tasks.metrics import Metric, percent

Kind = Literal["box", "mask"]
IOU: dict[Kind, Literal["bbox", "segm"]] = {"box": "bbox", "mask": "segm"}
_TITLES = {
    "ap": "AP", "ap50": "AP50", "ap75": "AP75", "aps": "AP small", "apm": "AP medium", "apl": "AP large",
    "ar1": "AR of 1", "ar10": "AR of 10", "ar100": "AR of 100", "ars": "AR small", "arm": "AR medium",
    "arl": "AR large",
}  # fmt: skip
METRICS: tuple[Metric, ...] = tuple(
    percent(f"{name}_{kind}", f"{title} {kind}") for kind in IOU for name, title in _TITLES.items()
)
"""COCO's twelve figures of boxes and those of masks."""
