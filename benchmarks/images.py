"""Images per second and memory of k concurrent trials on one node: behind its cache, and with k torchvision loaders.

    python benchmarks/images.py                    about two minutes on 2 cores
    python benchmarks/images.py --candidates       also: files mapped against Ray's object store, 1 minute more
    python benchmarks/images.py --decoders --workers-start     also: Pillow against torchvision.io; what workers cost

Each trial is a process that reads epochs of the same JPEGs (500 x 375: crops of the photographs in scikit-image) in its
own order, without a model: timm's crop and flip to 224 pixels, or the paper's augmentation (RandAugment). `ours` is our
loader behind the cache, which is filled before its first epoch (that time counts in `first`); `stored 256` is ours
with Augment.stored_size 256; `torchvision` is ImageFolder and DataLoader with the same transform. CPU is that of one
trial per image, in epochs after the first: it tells more than rates where others compute too. Memory is what the
processes hold together (PSS: shared pages count once), less what they hold before any image is read; of ours, the part
that is the cache can be dropped when memory is short.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from noop import machine
from PIL import Image

from tasks.base import DataContext
from tasks.datasets import transforms
from tasks.datasets.augment import Augment
from tasks.datasets.labelled.loaders import ImageInput, LabelledImages, file_loaders, mixing
from tasks.datasets.labelled.parts import LabelledPart
from tasks.datasets.loaders import SampleLoaders

SIZE = 224
BATCH = 50
AUGMENT = {
    "crop, flip": Augment(color_jitter=0, rand_augment="none", erasing=0, mixup=0, cutmix=0),
    "Table 7": Augment(mixup=0, cutmix=0),
}
SPAWN = multiprocessing.get_context("spawn")
Epochs = Callable[[int], int]
"""Reads the epoch of this number; how many images it had."""


def photographs(root: Path, count: int, size: tuple[int, int]) -> None:
    from skimage import data

    sources = [Image.fromarray(getattr(data, name)()) for name in ("astronaut", "chelsea", "coffee", "rocket")]
    random = np.random.RandomState(0)
    for i in range(count):
        source = sources[i % len(sources)]
        width = random.randint(source.width // 2, source.width)
        height = min(source.height, width * 3 // 4)
        x, y = random.randint(0, source.width - width + 1), random.randint(0, source.height - height + 1)
        path = root / "photographs" / f"{i % 10}" / f"{i:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        source.crop((x, y, x + width, y + height)).resize(size).convert("RGB").save(path, quality=90)


def ours(root: Path, augment: Augment, seed: int, stored_size: int | None = None) -> Epochs:
    paths = sorted((root / "photographs").rglob("*.jpg"))
    labels = [int(path.parent.name) for path in paths]
    augment = augment.model_copy(update={"stored_size": stored_size})
    place = DataContext(root, input_size=(SIZE, SIZE), device="cpu", seed=seed, batch=BATCH)
    loaders = _loaders(root, paths, labels, augment, place)
    return lambda epoch: sum(len(batch["images"]) for batch in loaders.epoch(epoch))


def _loaders(root: Path, paths: list[Path], labels: list[int], augment: Augment, context: DataContext) -> SampleLoaders:
    parts = LabelledPart(paths, labels), LabelledPart(paths[:10], labels[:10])
    data = LabelledImages("photographs", root, *parts)
    return file_loaders(data, ImageInput(augment, "imagenet"), context, mixing(10, augment, context))


def torchvisions(root: Path, augment: Augment, seed: int) -> Epochs:
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    data = ImageFolder(
        str(root / "photographs"), transforms.single_image((SIZE, SIZE), augment, "imagenet", training=True)
    )
    loader = DataLoader(data, BATCH, shuffle=True, generator=torch.Generator().manual_seed(seed))
    return lambda epoch: sum(len(images) for images, _ in loader)


def trial(make: Callable[..., Epochs], root: Path, augment: str, seed: int, epochs: int, gate: Any, said: Any) -> None:
    torch.set_num_threads(1)
    process = psutil.Process()
    make(root / "warm", AUGMENT[augment], seed)(0)  # libraries; before memory is looked at
    gate.wait()
    before = process.memory_full_info().pss
    gate.wait()
    start = time.perf_counter()
    read = make(root, AUGMENT[augment], seed)
    rates, images, cpu = [], 0, time.process_time()
    for epoch in range(epochs):
        images = read(epoch)
        now = time.perf_counter()
        rates.append(images / (now - start))
        start = now
        if epoch == 0:
            cpu = time.process_time()
    cpu = (time.process_time() - cpu) / images / (epochs - 1)
    gate.wait()  # all have read everything, and still hold it
    said.put((rates, cpu, process.memory_full_info().pss - before))
    gate.wait()


def concurrent(
    make: Callable[..., Epochs], root: Path, augment: str, trials: int, epochs: int
) -> tuple[float, float, float, float]:
    """Images per second of all trials together, in the first epoch and in the median later one; CPU ms per image of a
    later epoch; MB held."""
    gate, said = SPAWN.Barrier(trials), SPAWN.Queue()
    processes = [
        SPAWN.Process(target=trial, args=(make, root, augment, seed, epochs, gate, said)) for seed in range(trials)
    ]
    for process in processes:
        process.start()
    results = [said.get(timeout=300) for _ in processes]
    for process in processes:
        process.join()
    first = sum(rates[0] for rates, _, _ in results)
    later = sum(statistics.median(rates[1:]) for rates, _, _ in results)
    cpu = statistics.mean(cpu for _, cpu, _ in results) * 1000
    return first, later, cpu, sum(memory for *_, memory in results) / 2**20


MAKERS: dict[str, Callable[..., Epochs]] = {
    "ours": ours, "stored 256": functools.partial(ours, stored_size=256), "torchvision": torchvisions,
}  # fmt: skip


def compare(root: Path, most: int, epochs: int) -> None:
    print(f"{'':22}{'trials':>7}{'first img/s':>13}{'later img/s':>13}{'CPU ms':>8}{'memory MB':>11}")
    for augment in AUGMENT:
        for trials in [k for k in (1, 2, 4) if k <= most]:
            rates = {}
            for name, make in MAKERS.items():
                shutil.rmtree(root / "cache", ignore_errors=True)
                first, later, cpu, memory = concurrent(make, root, augment, trials, epochs)
                rates[name] = later, 1 / cpu
                print(f"{augment:10} {name:11}{trials:7}{first:13.0f}{later:13.0f}{cpu:8.2f}{memory:11.0f}", flush=True)
            for name in ("ours", "stored 256"):
                by_rate, by_cpu = (a / b for a, b in zip(rates[name], rates["torchvision"], strict=True))
                print(f"{'':10} {name} / torchvision, later epochs: {by_rate:.2f} (by CPU time {by_cpu:.2f})")


def decoders(root: Path) -> None:
    """Of one JPEG at a time to RGB, and whether the pixels are the same."""
    from torchvision.io import ImageReadMode, decode_jpeg, read_file

    paths = sorted((root / "photographs").rglob("*.jpg"))[:200]
    torch.set_num_threads(1)
    found: dict[str, list[np.ndarray[Any, Any]]] = {}
    for name, decode in (
        ("Pillow", lambda path: np.asarray(Image.open(path).convert("RGB"))),
        ("torchvision.io", lambda path: decode_jpeg(read_file(str(path)), ImageReadMode.RGB).permute(1, 2, 0).numpy()),
    ):
        decode(paths[0])
        start = time.perf_counter()
        found[name] = [decode(path) for path in paths]
        print(f"{name}: {len(paths) / (time.perf_counter() - start):.0f} decoded images/s")
    one, other = (np.stack(images).astype(int) for images in found.values())
    print(f"largest difference of a pixel {abs(one - other).max()}, differing {(one != other).mean():.2%}")


def workers_start(root: Path, counts: tuple[int, ...] = (2, 4, 8)) -> None:
    """Seconds until the first batch of an epoch: workers begun anew, and workers that live on from the one before."""
    paths = sorted((root / "photographs").rglob("*.jpg"))
    labels = [int(path.parent.name) for path in paths]
    for workers in counts:
        place = DataContext(root, (SIZE, SIZE), "cpu", seed=0, batch=BATCH, loader_workers=workers)
        loaders = _loaders(root, paths, labels, AUGMENT["crop, flip"], place)
        seconds = []
        for epoch in (0, 1):
            start = time.perf_counter()
            batches = loaders.epoch(epoch)
            next(batches)
            seconds.append(time.perf_counter() - start)
            for _ in batches:
                pass
            time.sleep(1)  # evaluation
        print(f"{workers} workers: first batch after {seconds[0]:.2f} s, of the next epoch after {seconds[1]:.3f} s")


def candidates(root: Path, trials: int = 2) -> None:
    """The same decoded pixels in a mapped file and in Ray's object store: reading, and memory of more readers."""
    import ray

    paths = sorted((root / "photographs").rglob("*.jpg"))
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    np.save(root / "pixels.npy", pixels)
    ray.init(
        address="local",
        num_cpus=trials,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=2 * pixels.nbytes,
    )

    class Reader:
        def __init__(self) -> None:
            self.process = psutil.Process()

        def pid(self) -> int:
            return self.process.pid

        def read(self, images: Any) -> float:
            """CPU ms per PIL image; `images`: what Ray made of a reference, or the name of a file."""
            self.images = np.load(images, mmap_mode="r") if isinstance(images, str) else images
            order = np.random.RandomState(0).permutation(len(self.images))
            start = time.process_time()
            for index in [*order, *order, *order]:
                Image.fromarray(self.images[index])
            return (time.process_time() - start) / 3 / len(order) * 1000

    try:
        for name in ("mapped file", "object store"):
            start = time.perf_counter()
            what = str(root / "pixels.npy") if name == "mapped file" else ray.put(pixels)
            put = time.perf_counter() - start
            readers = [ray.remote(Reader).remote() for _ in range(trials)]
            ray.get([reader.read.remote(what) for reader in readers])
            results = ray.get([reader.read.remote(what) for reader in readers])
            cpu = statistics.mean(results)
            pids = ray.get([reader.pid.remote() for reader in readers])
            memory = sum(psutil.Process(pid).memory_full_info().pss for pid in pids) / 2**20 / trials
            print(
                f"{name}, {trials} readers: {cpu:.2f} ms CPU per image, {memory:.0f} MB (PSS) each, put in {put:.2f} s"
            )
            del readers
    finally:
        ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--width", type=int, default=500, help="of the images, in pixels; they are 4 : 3")
    parser.add_argument("--epochs", type=int, default=3, help="at least 2")
    parser.add_argument("--trials", type=int, default=4, help="at most so many at once")
    parser.add_argument("--candidates", action="store_true")
    parser.add_argument("--decoders", action="store_true")
    parser.add_argument("--workers-start", action="store_true")
    given = parser.parse_args()
    print(machine(), time.strftime("%Y-%m-%d"))
    root = Path(tempfile.mkdtemp(prefix="images-"))
    os.environ["ORCHESTRATOR_CACHE"] = str(root / "cache")
    try:
        side = given.width, given.width * 3 // 4
        photographs(root, given.images, side)
        photographs(root / "warm", BATCH, side)
        size = sum(path.stat().st_size for path in (root / "photographs").rglob("*.jpg"))
        decoded = given.images * side[0] * side[1] * 3
        print(f"{given.images} JPEGs of {size / given.images / 1000:.0f} KB, {decoded / 2**20:.0f} MB decoded")
        compare(root, given.trials, given.epochs)
        if given.decoders:
            decoders(root)
        if given.workers_start:
            workers_start(root)
        if given.candidates:
            candidates(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
