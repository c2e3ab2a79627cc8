"""Pose and depth beside code that one writes by hand: their loaders, COCO's evaluation, and a training step.

    python benchmarks/dense.py                              five minutes on 2 cores
    python benchmarks/dense.py --workers 0                  loaders in one process, in processor time
    python benchmarks/dense.py --parts coco steps

Loaders: samples/s from JPEGs (640 x 480, made here) to what the loss takes, against albumentations and OpenCV in
torch's DataLoader with the same operations and probabilities: pose 256 x 256 with heat maps, depth 480 x 480 and PNGs
of 16 bits. `cached` is ours behind the node's cache of decoded images; `ours` decodes each time, as the other one does.
Ours warps and colours poses where the model is, here the CPU of the main process; on a GPU that takes no worker's time.
Evaluation: 6,352 boxes of 17 joints, against pycocotools, which must give the same figures. Step: the laptop profiles'
model in our loop against a loop written by hand, on batches in memory. Both make the heat maps of a batch in its step;
the loaders' part counts them for both too. (Until 27 November 2026 those of the loop by hand lay ready, made before its
time began, while ours were counted twice.) Ours takes the norm of the gradient in every step, to notice a trial that
diverges; in a second row the loop by hand does too, as the public code of SimMIM. The end of an epoch (report, log
line) counts for ours alone: with `--steps 8` it is 1 to 2 % of the time; an epoch of the pose laptop profile has 297
steps. The loop by hand has its own process, as a script would: what our loop sets for its process
(workers/host_memory.py) must not help it.

The sides take turns, and a ratio is of neighbours in time, so that other work on the machine slows both alike. All in
one thread a process. Without worker processes a time is that of the processor, else of the clock.

Peers are not part of the project: pip install '.[benchmarks]'. A part without its peer is left out, and says so.
A table, and JSON in benchmarks/results/.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402 (after the number of threads)
from dense import evaluation, loaders, steps  # noqa: E402 (the folder beside this file)

RESULTS = Path(__file__).parent / "results"
PEERS = {"pose": ("albumentations", "cv2"), "depth": ("albumentations", "cv2"), "coco": ("pycocotools",), "steps": ()}
"""What each part is compared with, by the names that are imported."""
PACKAGES = {"cv2": "opencv-python-headless"}


def rows_of(part: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    if part == "coco":
        return [evaluation.compare(options.boxes, options.rounds)]
    if part == "steps":
        return [
            steps.compare(kind, options.steps, options.rounds, norm)
            for kind in ("pose", "depth")
            for norm in (False, True)
        ]
    return [loaders.compare(part, options.batches, options.rounds, options.workers)]


def missing(part: str) -> list[str]:
    """The packages that this part needs and that are not installed."""
    return [PACKAGES.get(name, name) for name in PEERS[part] if importlib.util.find_spec(name) is None]


def machine() -> dict[str, Any]:
    versions = {}
    for name in ("torch", "timm", "numpy", "pillow", "albumentations", "opencv-python-headless", "pycocotools"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "date": date.today().isoformat(), "cpu": platform.machine(), "cores": os.cpu_count(), "device": "cpu",
        "load": round(os.getloadavg()[0], 1), "versions": versions,
    }  # fmt: skip


def line(row: dict[str, Any]) -> str:
    cached = f"; cached {row['ours_cached']:.1f}, ratio {row['ratio_cached']:.2f}" if "ours_cached" in row else ""
    low, high = min(row["ratios"]), max(row["ratios"])
    return (
        f"{row['part']:11}{row['what']}: ours {row['ours']:.2f}, by hand {row['by_hand']:.2f}, "
        f"ratio {row['ratio']:.2f} ({low:.2f} to {high:.2f}; {row['aim']}; {row['clock']}){cached}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--workers", type=int, default=2, help="processes of each loader")
    parser.add_argument("--batches", type=int, default=12, help="of 16 samples, timed in each turn of a loader")
    parser.add_argument("--boxes", type=int, default=6352, help="that are evaluated")
    parser.add_argument("--steps", type=int, default=48, help="an epoch")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--out", type=Path, help="JSON file; default benchmarks/results/dense-DATE-cpu.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    about, rows = machine(), []
    print(json.dumps(about))
    for part in options.parts:
        if lacking := missing(part):
            print(f"{part}: left out, {' and '.join(lacking)} not installed: pip install '.[benchmarks]'")
            continue
        for row in rows_of(part, options):
            rows.append(row)
            print(line(row), flush=True)
    file = options.out or RESULTS / f"dense-{about['date']}-cpu.json"
    asked = {name: value for name, value in vars(options).items() if name != "out"}
    file.write_text(
        json.dumps({"script": "benchmarks/dense.py", **about, "asked": asked, "rows": rows}, indent=1) + "\n"
    )
    print(file)


if __name__ == "__main__":
    main()
