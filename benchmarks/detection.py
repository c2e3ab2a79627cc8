"""Detection beside torchvision and pycocotools: loader, evaluation, its memory, training step.

    python benchmarks/detection.py                      five minutes on one core
    python benchmarks/detection.py --parts evaluation

Loader: images/s from JPEGs of 640 x 480 with 7 polygons each (made here) to inputs of 1,024 x 1,024 with masks, against
the pipeline of torchvision's references: polygons to masks, v2.ScaleJitter, its FixedSizeCrop (which is in no package,
so written here), flip, floats, normalised. Evaluation: 20 detections of each of 5,000 images, boxes and masks, against
pycocotools, which must give the same 24 figures. Memory: the most that turning 100 detections of each image into codes of
masks takes, against the references' pasting (a process each; Linux). Step: the laptop profile's detector in our loop against torchvision's
MaskRCNN over the same pyramid in a plain loop, on batches in memory.

The other sides take turns in one process and one thread; times are of the processor, and a ratio is of neighbours in time. A
part without its peer (pip install '.[benchmarks]') is left out. A table, and JSON in benchmarks/results/.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402 (after the number of threads)
from detecting import found, loading, memory, steps  # noqa: E402 (the folder beside this file)

RESULTS = Path(__file__).parent / "results"
PARTS = ("loader", "evaluation", "memory", "step")


def row_of(part: str, options: argparse.Namespace) -> dict[str, Any]:
    if part == "loader":
        return loading.compare(options.images, options.rounds)
    if part == "evaluation":
        return found.compare(options.evaluated, options.rounds)
    if part == "memory":
        return memory.compare(options.coded)
    return steps.compare(options.steps, options.rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--images", type=int, default=48, help="that each turn of a loader reads")
    parser.add_argument("--evaluated", type=int, default=5000, help="images that are evaluated")
    parser.add_argument("--coded", type=int, default=64, help="images whose masks are coded, for memory")
    parser.add_argument("--steps", type=int, default=8, help="an epoch")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--out", type=Path, help="JSON file; default benchmarks/results/detection-DATE-cpu.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    about = {
        "date": date.today().isoformat(), "cpu": platform.machine(), "cores": os.cpu_count(), "device": "cpu",
        "load": round(os.getloadavg()[0], 1),
        "versions": {name: version(name) for name in ("torch", "torchvision", "timm", "faster-coco-eval")},
    }  # fmt: skip
    print(json.dumps(about))
    rows = []
    for part in options.parts:
        if part == "evaluation" and importlib.util.find_spec("pycocotools") is None:
            print("evaluation: left out, pycocotools not installed: pip install '.[benchmarks]'")
            continue
        row = row_of(part, options)
        rows.append(row)
        low, high = min(row["ratios"]), max(row["ratios"])
        print(
            f"{part}: {row['what']}: ours {row['ours']:.2f}, {row['peer']} {row['other']:.2f}, ratio "
            f"{row['ratio']:.2f} ({low:.2f} to {high:.2f}; {row['aim']})",
            flush=True,
        )
    file = options.out or RESULTS / f"detection-{about['date']}-cpu.json"
    asked = {name: value for name, value in vars(options).items() if name != "out"}
    file.write_text(
        json.dumps({"script": "benchmarks/detection.py", **about, "asked": asked, "rows": rows}, indent=1) + "\n"
    )
    print(file)


if __name__ == "__main__":
    main()
