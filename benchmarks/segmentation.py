"""Segmentation beside torchvision, transformers and torchmetrics: loader, evaluation, training steps.

    python benchmarks/segmentation.py                   five minutes on one core
    python benchmarks/segmentation.py --parts evaluation

Loader: images/s from JPEGs of 683 x 512 and their maps (made here) to squares of 640 pixels, against the pipeline of
torchvision's references: v2.RandomResize, flip, crop, floats, normalised. A second row has the default augmentation,
with colours and squares drawn again, against the same with v2.RandomPhotometricDistort. Evaluation: the confusion
matrix of 150 classes, against torchmetrics and numpy, which must count the same; and images of 854 x 640 in sliding
squares to classes in the size of their files, against a loop by hand as mmsegmentation's, one image at a time; each
with the memory that it takes. Steps: the laptop profile's UperNet and Mask2Former in our loop against transformers'
models over the same maps in a plain loop, on batches in memory, in a process of its own as a script would have.

The sides take turns, each in one thread; times are of the processor, and a ratio is of neighbours in time. A
table, and JSON in benchmarks/results/.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from sides.script import Part, run  # noqa: E402 (the folder beside this file, after the number of threads)


def part(name: str) -> Any:
    """A module of segmenting/, imported late: the processes whose memory is measured import this file."""
    return importlib.import_module(f"segmenting.{name}")


PARTS = {
    "loader": Part(lambda options: part("loading").compare(options.images, options.rounds)),
    "evaluation": Part(lambda options: part("counting").compare(options.evaluated, options.classes, options.rounds)),
    "prediction": Part(lambda options: part("predicted").compare(options.predicted, options.classes, options.rounds)),
    "upernet": Part(lambda options: [part("steps").compare("upernet", options.steps, options.rounds)]),
    "mask2former": Part(lambda options: [part("steps").compare("mask2former", options.steps, options.rounds)]),
}
COUNTS = {
    "images": (48, "that each turn of a loader reads"),
    "evaluated": (100, "maps that are counted"),
    "predicted": (8, "images that are predicted, all alike in size"),
    "classes": (150, "of these maps and predictions"),
    "steps": (8, "an epoch"),
}

if __name__ == "__main__":
    run(Path(__file__), __doc__, PARTS, COUNTS, ("torch", "torchvision", "timm", "torchmetrics", "transformers"))
