"""Detection beside torchvision and pycocotools: loader, evaluation, training step.

    python benchmarks/detection.py                      five minutes on one core
    python benchmarks/detection.py --parts evaluation

Loader: images/s from JPEGs of 640 x 480 with 7 polygons each (made here) to inputs of 1,024 x 1,024 with masks, against
the pipeline of torchvision's references: polygons to masks, v2.ScaleJitter, its FixedSizeCrop (which is in no package,
so written here), flip, floats, normalised. Evaluation: 20 detections of each of 5,000 images, boxes and masks, against
pycocotools, which must give the same 24 figures. Step: the laptop profile's detector in our loop against torchvision's
MaskRCNN over the same pyramid in a plain loop, on batches in memory, in a process of its own as a script would have.

Memory: the most that turning 100 detections of each image into codes of masks takes, against the references' pasting (a
process each; Linux).

The sides take turns, each in one thread; times are of the processor, and a ratio is of neighbours in time. A
part without its peer (pip install '.[benchmarks]') is left out. A table, and JSON in benchmarks/results/.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from detecting import found, loading, steps  # noqa: E402 (the folders beside this file, after the number of threads)
from detecting import memory as peak  # noqa: E402
from sides.script import Part, run  # noqa: E402

PARTS = {
    "loader": Part(lambda options: [loading.compare(options.images, options.rounds)]),
    "evaluation": Part(lambda options: [found.compare(options.evaluated, options.rounds)], peer="pycocotools"),
    "memory": Part(lambda options: [peak.compare(options.coded)]),
    "step": Part(lambda options: [steps.compare(options.steps, options.rounds)]),
}
COUNTS = {
    "images": (48, "that each turn of a loader reads"),
    "evaluated": (5000, "images that are evaluated"),
    "coded": (64, "images whose masks are coded, for memory"),
    "steps": (8, "an epoch"),
}

if __name__ == "__main__":
    run(Path(__file__), __doc__, PARTS, COUNTS, ("torch", "torchvision", "timm", "faster-coco-eval"))
