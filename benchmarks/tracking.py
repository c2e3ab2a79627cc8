"""Tracking: pairs/s of the sampler beside code written by hand with OpenCV; the tracker in batches and alone.

    python benchmarks/tracking.py                              three minutes on 2 cores
    python benchmarks/tracking.py --parts tracker              on a quiet machine
    python benchmarks/tracking.py --parts tracker --threads 1  in one thread alone

`pairs`: from JPEGs (1280 x 720, made here) to normalised crops of 112 and 224 pixels with their box, with the
operations of SwinTrack's configuration in both. `tracker`: frames/s of the model of specs/tracking.yaml's laptop
profile on eight sequences in memory, eight at once and one after the other, whose boxes must agree to 0.001 pixels. The
sides take turns; times are those of the processor, in one thread, so other work on the machine matters little.

The tracker is compared a second time in `--threads` threads (by default as many as the CPU has cores) and by the clock,
since processor time does not say how long two threads take together. Other work on the machine slows the many short
passes of one sequence more than the few of a batch, and so flatters the ratio: the row counts (`counts`) on a quiet
machine alone. Each row has the machine's load (of the last minute, from the operating system) before and after; of this
row the first should be near 0, or near 1 after a part that ran in one thread.

A table, and JSON in benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402 (after the number of threads)
import torch  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from PIL import Image  # noqa: E402
from sides.turns import in_turns  # noqa: E402 (the folder beside this file)

from tasks.backbones.spec import BackboneSpec  # noqa: E402
from tasks.base import DataContext  # noqa: E402
from tasks.tracking.task import Tracking  # noqa: E402

RESULTS = Path(__file__).parent / "results"
WIDTH, HEIGHT, FRAMES = 1280, 720, 12
MEAN, STD = np.array((0.485, 0.456, 0.406), np.float32), np.array((0.229, 0.224, 0.225), np.float32)
NEAR = 1e-3
"""Pixels that boxes of both ways of tracking may be apart."""
BATCH = 16
BUSY = 1.3
"""Load before a row that is timed by the clock: one thread of this script makes 1, and more is other work."""


def boxes_of(number: int, width: int, height: int, frames: int) -> NDArray[np.float64]:
    """(frames, 4) x, y, width, height of an object that wanders."""
    generator = np.random.default_rng(number)
    size = generator.uniform(0.08, 0.3, 2) * height
    steps = np.cumsum(generator.normal(0, 0.02 * height, (frames, 2)), 0)
    middle, most = np.array([width, height]) / 2, np.array([width, height]) - size
    places = np.clip(middle + steps, 0, most)
    return np.concatenate([places, np.tile(size, (frames, 1))], 1)


def frame_of(number: int, box: NDArray[np.float64], width: int, height: int) -> NDArray[np.uint8]:
    """Smooth noise with a coloured rectangle in the box."""
    generator = np.random.default_rng(number)
    small = Image.fromarray(generator.integers(0, 255, (height // 16, width // 16, 3), np.uint8))
    pixels = np.array(small.resize((width, height), Image.Resampling.BICUBIC))
    left, top, across, down = box.round().astype(int)
    pixels[top : top + down, left : left + across] = generator.integers(0, 255, 3)
    return pixels


def written(folder: Path, sequences: int) -> None:
    """Sequences of one's own in the layout of `{kind: sequences}`."""
    for part, count in (("train", sequences), ("val", 1)):
        for number in range(count):
            place = folder / part / f"{number:03d}"
            place.mkdir(parents=True)
            boxes = boxes_of(number, WIDTH, HEIGHT, FRAMES)
            for step, box in enumerate(boxes):
                Image.fromarray(frame_of(number, box, WIDTH, HEIGHT)).save(place / f"{step:04d}.jpg", quality=90)
            (place / "boxes.txt").write_text("\n".join(",".join(f"{value:.2f}" for value in box) for box in boxes))


def ours(folder: Path, pairs: int) -> Iterator[Any]:
    """Batches of our loaders, without worker processes, epoch after epoch."""
    task = Tracking.model_validate({"dataset": {"kind": "sequences", "path": str(folder)}, "pairs": pairs})
    loaders = task.loaders(DataContext(folder, (224, 224), "cpu", seed=0, batch=BATCH))
    epoch = 0
    while True:
        yield from loaders.epoch(epoch)
        epoch += 1


def by_hand(folder: Path) -> Iterator[Any]:
    """The same with OpenCV, a pair after the other: borders, crop, resize, jitter, normalisation."""
    import cv2

    cv2.setNumThreads(1)
    sequences = sorted((folder / "train").iterdir())
    labels = [np.loadtxt(place / "boxes.txt", delimiter=",") for place in sequences]
    generator = np.random.default_rng(0)

    def crop(image: Any, centre: Any, sides: Any, side: int) -> Any:
        low, high = np.floor(centre - sides / 2).astype(int), np.ceil(centre + sides / 2).astype(int)
        pad = [max(0, -low[1]), max(0, high[1] - image.shape[0]), max(0, -low[0]), max(0, high[0] - image.shape[1])]
        mean = image.mean((0, 1))
        image = cv2.copyMakeBorder(image, *map(int, pad), cv2.BORDER_CONSTANT, value=mean)
        moved = np.array([pad[2], pad[0]])
        low, high = low + moved, high + moved
        return cv2.resize(image[low[1] : high[1], low[0] : high[0]], (side, side), interpolation=cv2.INTER_LINEAR)

    def coloured(image: Any) -> Any:
        image = image.astype(np.float32)
        for change in generator.permutation(3):
            factor = np.float32(generator.uniform(0.6, 1.4))
            grey = image @ np.array((0.299, 0.587, 0.114), np.float32)
            other = (0.0, grey.mean(), grey[..., None])[change]
            image = np.clip(other + (image - other) * factor, 0, 255)
        return (image / 255 - MEAN) / STD

    while True:
        batch = []
        for _ in range(BATCH):
            number = int(generator.integers(len(sequences)))
            first, second = generator.choice(FRAMES, 2, replace=False)
            crops = []
            for step, factor, side in ((first, 2.0, 112), (second, 4.0, 224)):
                image = cv2.cvtColor(cv2.imread(str(sequences[number] / f"{step:04d}.jpg")), cv2.COLOR_BGR2RGB)
                x, y, width, height = labels[number][step]
                context = (factor - 1) * (width + height) / 2
                sides = np.full(2, np.sqrt((width + context) * (height + context)))
                centre = np.array([x + width / 2, y + height / 2])
                if factor == 4.0:
                    sides = sides * np.exp(generator.normal(0, 0.25, 2))
                    centre = (
                        centre + (generator.random(2) - 0.5) * 3 * (np.array([width, height]) / sides).mean() * sides
                    )
                crops.append(coloured(crop(image, centre, sides, side)))
            batch.append([torch.from_numpy(np.ascontiguousarray(each.transpose(2, 0, 1))) for each in crops])
        yield [torch.stack(each) for each in zip(*batch, strict=True)]


def load() -> float:
    return round(os.getloadavg()[0], 1)


def compare(
    what: str, sides: dict[str, Callable[[], Any]], samples: int, rounds: int, aim: str, threads: int = 1
) -> dict[str, Any]:
    """Both sides in turns; samples/s of each at its median, and the ratio of the first to the second, of neighbours. In
    one thread in processor time, in several by the clock."""
    before = load()
    seconds, _ = in_turns(sides, rounds, time.process_time if threads == 1 else time.perf_counter)
    first, second = seconds.values()
    ratios = [b / a for a, b in zip(first, second, strict=True)]
    return {
        "what": what, **{name: samples / statistics.median(each) for name, each in seconds.items()},
        "ratio": statistics.median(ratios), "ratios": ratios, "aim": aim, "threads": threads,
        "clock": "processor time" if threads == 1 else "wall clock",
        "load": [before, load()], "counts": threads == 1 or before < BUSY,
    }  # fmt: skip


def pairs_row(batches: int, rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "made"
        written(folder, 6)
        mine, theirs = ours(folder, batches * BATCH), by_hand(folder)

        def some(of: Iterator[Any]) -> Callable[[], Any]:
            return lambda: [next(of) for _ in range(batches)]

        sides = {"ours": some(mine), "by_hand": some(theirs)}
        return compare("pairs/s of the sampler", sides, batches * BATCH, rounds, "no aim")


class InMemory:
    """A sequence whose frames are there."""

    def __init__(self, number: int, frames: int) -> None:
        boxes = boxes_of(number, 128, 96, frames)
        self.first_box = np.concatenate([boxes[0, :2], boxes[0, :2] + boxes[0, 2:]])
        self._frames = [frame_of(number, box, 128, 96) for box in boxes]

    def __len__(self) -> int:
        return len(self._frames)

    def frames(self, known: int = 1) -> Iterator[NDArray[np.uint8]]:
        return iter([self._frames[0], *self._frames[known:]])


def tracker_rows(frames: int, sequences: int, rounds: int, threads: int) -> list[dict[str, Any]]:
    """In one thread, and in `threads`."""
    from orchestrator import spec

    laptop = spec.load(ROOT / "specs" / "tracking.yaml", "laptop").trial
    task, backbone = Tracking.model_validate(laptop["task"]), BackboneSpec.model_validate(laptop["backbone"])
    torch.manual_seed(0)
    model = task.build(backbone, None).eval()
    videos = [InMemory(number, frames) for number in range(sequences)]

    def tracks(at_once: int) -> dict[int, NDArray[np.float64]]:
        found = task.tracker(model).track(videos, at_once)
        return {id(video): boxes for video, boxes, _ in found}

    sides = {"together": lambda: tracks(sequences), "one_by_one": lambda: tracks(1)}
    rows = []
    for count in dict.fromkeys((1, threads)):
        torch.set_num_threads(count)
        together, alone = tracks(sequences), tracks(1)
        apart = max(float(np.abs(together[name] - alone[name]).max()) for name in alone)
        if apart > NEAR:
            raise SystemExit(
                f"boxes of both ways of tracking in {count} threads are {apart:g} pixels apart, more than {NEAR:g}"
            )
        what = f"frames/s of the tracker, {sequences} sequences"
        rows.append({**compare(what, sides, frames * sequences, rounds, "at least 2", count), "pixels_apart": apart})
    torch.set_num_threads(1)
    return rows


def show(row: dict[str, Any]) -> None:
    names = [name for name in ("ours", "by_hand", "together", "one_by_one") if name in row]
    values = ", ".join(f"{name} {row[name]:.1f}" for name in names)
    (low, high), (before, after) = (min(row["ratios"]), max(row["ratios"])), row["load"]
    words = "" if row["counts"] else "; the machine was not quiet, so this row does not count"
    print(
        f"{row['what']}: {values}, ratio {row['ratio']:.2f} ({low:.2f} to {high:.2f}; {row['aim']}); threads "
        f"{row['threads']}, {row['clock']}, load {before} to {after}{words}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=["pairs", "tracker"], default=["pairs", "tracker"])
    parser.add_argument("--batches", type=int, default=6, help="of 16 pairs, timed in each turn")
    parser.add_argument("--frames", type=int, default=30, help="of each sequence")
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the tracker's second row")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side")
    parser.add_argument("--out", type=Path, help="JSON file; default benchmarks/results/tracking-DATE-cpu.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    about = {
        "date": date.today().isoformat(), "cpu": platform.machine(), "cores": os.cpu_count(),
        "load": load(), "versions": {name: version(name) for name in ("torch", "timm", "pillow")},
    }  # fmt: skip
    print(json.dumps(about))
    rows = []
    for part in options.parts:
        some = (
            [pairs_row(options.batches, options.rounds)]
            if part == "pairs"
            else tracker_rows(options.frames, options.sequences, options.rounds, options.threads)
        )
        rows += [{"part": part, **row} for row in some]
        for row in some:
            show(row)
    file = options.out or RESULTS / f"tracking-{about['date']}-cpu.json"
    asked = {name: value for name, value in vars(options).items() if name != "out"}
    content = {"script": "benchmarks/tracking.py", **about, "asked": asked, "rows": rows}
    file.write_text(json.dumps(content, indent=1) + "\n")
    print(file)


if __name__ == "__main__":
    main()
