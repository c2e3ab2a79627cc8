"""Attention distance, entropy and divergence of ViT-B and SwinV2-B at 224 pixels, against hooks that keep all maps.

    python benchmarks/analysis.py                       512 images, CPU: an hour on 2 cores, and 40 GB for the plain one
    python benchmarks/analysis.py --threads 1 --plain-images 32                          20 minutes, under 5 GB
    python benchmarks/analysis.py --images 32 --plain-images 8 --rounds 3                five minutes, under 4 GB
    python benchmarks/analysis.py --device cuda

`plain` is what one writes by hand: a hook on every softmax keeps its map on the CPU, the maps of all images are joined,
and each layer is measured in float32 over all of them, the divergence pair by pair of heads. Ours is the task of kind
`analysis` with the images, batch and definitions of the plain one; both must give the same figures.

Speed: the two take turns in one process, a few images at a time and in changing order, so that other work on the
machine slows both alike; the ratio is the median over turns. On one thread of a CPU it is time of the processor, user
and system, which is that of the clock on a machine without other work. Memory: each in a process of its own, the most
that was resident after the model was there (Linux: VmHWM), model and libraries included, and on a GPU what was
allocated. Ours is measured with all `--images`. Where `--plain-images` are fewer, the plain one is measured with these
and with half of them, and the line through both is extended to `--images`: such a number is marked with ~. Reach: at
least as fast, and at most a tenth of the memory at 512 images. A table, and JSON in benchmarks/results/.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import queue
import statistics
import subprocess
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tasks.analysis.layers import attention_layers
from tasks.analysis.measuring import Analysed
from tasks.analysis.task import Analyse
from tasks.backbones.spec import BackboneSpec

SIDE, EPS = 224, 1e-8
RESULTS = Path(__file__).parent / "results"
MODELS = {
    "ViT-B": BackboneSpec(model="vit_base_patch16_224", image_size=SIDE),
    "SwinV2-B": BackboneSpec(model="swinv2_base_window8_256", image_size=SIDE, args={"window_size": 14}),
}
FIGURES = ("attention_distance", "attention_entropy", "head_divergence")


def batches(images: int, batch: int, device: str) -> Iterator[Tensor]:
    draw = torch.Generator().manual_seed(0)
    for first in range(0, images, batch):
        yield torch.randn(min(batch, images - first), 3, SIDE, SIDE, generator=draw).to(device)


def ours(model: Analysed, images: int, batch: int, device: str) -> list[float]:
    task = Analyse(images=images, batch=batch, measures=("attention",))
    named = ({"images": each, "item": f"{i:012d}"} for i, each in enumerate(batches(images, batch, device)))
    with torch.no_grad():
        figures = task.summarize(list(task.measure(model, named))).figures
    return [figures[name] for name in FIGURES]


def plain(model: Analysed, images: int, batch: int, device: str) -> list[float]:
    layers = attention_layers(model.backbone, model.size)
    kept: list[list[Tensor]] = [[] for _ in layers]
    handles = []
    for layer, maps in zip(layers, kept, strict=True):
        attention: Any = layer.module
        attention.fused_attn = False
        hook = lambda module, inputs, maps=maps: maps.append(inputs[0].cpu())  # noqa: E731
        handles.append(attention.attn_drop.register_forward_pre_hook(hook))
    with torch.no_grad():
        for each in batches(images, batch, device):
            model(each)
    for handle in handles:
        handle.remove()
    values = [by_hand(torch.cat(maps), layer.places) for layer, maps in zip(layers, kept, strict=True)]
    return [statistics.mean(figures) for figures in zip(*values, strict=True)]


def by_hand(maps: Tensor, places: Any) -> tuple[float, float, float]:
    """Mean distance, entropy and divergence of a layer's maps (n, heads, tokens, tokens)."""
    points = torch.cartesian_prod(torch.arange(places.height), torch.arange(places.width)).float()
    apart = places.pixel[0] * torch.cdist(points, points)
    if places.prefix:
        maps = maps[:, :, places.prefix :, places.prefix :]
        maps = maps / maps.sum(-1, keepdim=True)
    distance = (maps * apart).sum(-1).mean().item()
    logs = (maps + EPS).log()
    entropy = -(maps * logs).sum(-1).mean().item()
    pairs = [
        (maps[:, i] * (logs[:, i] - logs[:, j])).sum(-1).mean().item()
        for i in range(maps.shape[1])
        for j in range(maps.shape[1])
        if i != j
    ]
    return distance, entropy, statistics.mean(pairs)


def model_of(name: str, device: str) -> Analysed:
    torch.manual_seed(0)
    model = Analyse(measures=("attention",)).build(MODELS[name], None).eval().to(device)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(
                    3
                )  # fresh weights attend to everything alike, and logarithms of that are cheap to get right
    assert isinstance(model, Analysed)
    return model


def resident(of: str) -> float:
    """MiB of this process by a line of /proc/self/status: VmRSS now, VmHWM the most since `forget_peak`."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(of))
    return int(line.split()[1]) / 1024


def forget_peak(device: str) -> None:
    Path("/proc/self/clear_refs").write_text("5")
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()


def memory_of(which: str, name: str, images: int, options: argparse.Namespace, answer: Any) -> None:
    """Answers MiB with the model alone, the most in MiB, and the figures."""
    torch.set_num_threads(options.threads)
    model = model_of(name, options.device)
    on_gpu = options.device != "cpu"
    before = resident("VmRSS") + (torch.cuda.memory_allocated() / 2**20 if on_gpu else 0)
    forget_peak(options.device)
    figures = {"ours": ours, "plain": plain}[which](model, images, options.batch, options.device)
    most = resident("VmHWM") + (torch.cuda.max_memory_allocated() / 2**20 if on_gpu else 0)
    answer.put((before, most, figures))


def memory(which: str, name: str, images: int, options: argparse.Namespace) -> tuple[float, float, list[float]]:
    """What `memory_of` answers, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=memory_of, args=(which, name, images, options, answer))
    process.start()
    while True:
        try:
            result: tuple[float, float, list[float]] = answer.get(timeout=5)
        except queue.Empty:
            if not process.is_alive():
                raise SystemExit(f"{which} of {name} with {images} images ended with {process.exitcode}") from None
        else:
            process.join()
            return result


def speed(name: str, options: argparse.Namespace) -> tuple[float, float, list[float]]:
    """Images/s of ours and of the plain one (medians), and the ratio of each turn."""
    model, images = model_of(name, options.device), options.speed_images
    alone = options.device == "cpu" and options.threads == 1
    clock = time.process_time if alone else time.perf_counter
    rates: dict[Any, list[float]] = {ours: [], plain: []}
    for turn in range(options.rounds + 1):
        for which in (ours, plain)[:: 1 if turn % 2 else -1]:
            started = clock()
            which(model, images, options.batch, options.device)
            if turn:  # the first warms up
                rates[which].append(images / (clock() - started))
    ratios = [one / other for one, other in zip(rates[ours], rates[plain], strict=True)]
    return statistics.median(rates[ours]), statistics.median(rates[plain]), ratios


def row(name: str, options: argparse.Namespace) -> dict[str, Any]:
    fast, slow, ratios = speed(name, options)
    fewer = min(options.plain_images or options.images, options.images)
    _, own, figures = memory("ours", name, options.images, options)
    before, theirs, by_plain = memory("plain", name, fewer, options)
    measured, whole = {fewer: theirs}, fewer == options.images
    _, own_of_fewer, same = (0, own, figures) if whole else memory("ours", name, fewer, options)
    if not whole:
        _, measured[fewer // 2], _ = memory("plain", name, fewer // 2, options)
        theirs += (theirs - measured[fewer // 2]) / (fewer - fewer // 2) * (options.images - fewer)
    for figure, one, other in zip(FIGURES, same, by_plain, strict=True):
        if abs(one - other) > 1e-3 * abs(other):
            raise SystemExit(f"{name}: {figure} is {one:g}, and {other:g} by hand")
    ratio, mark = statistics.median(ratios), "" if whole else "~"
    print(
        f"{name:10}{fast:10.2f}{slow:10.2f}{ratio:10.2f}{own:12.0f}{mark + f'{theirs:.0f}':>12}{own / theirs:10.3f}",
        flush=True,
    )
    return {
        "model": name, "images_per_second": fast, "plain_images_per_second": slow, "speed_ratio": ratio,
        "speed_ratios": ratios, "model_mib": before, "memory_mib": own, f"memory_mib_of_{fewer}_images": own_of_fewer,
        "plain_memory_mib": theirs, "memory_ratio": own / theirs, "plain_memory_extrapolated": not whole,
        "plain_memory_mib_measured": measured, "figures": dict(zip(FIGURES, figures, strict=True)),
    }  # fmt: skip


def machine(device: str) -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=RESULTS, check=False)
    return {
        "date": date.today().isoformat(), "commit": commit.stdout.strip(), "cpu": platform.machine(),
        "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "torch": torch.__version__,
        "device": device if device == "cpu" else torch.cuda.get_device_name(),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--plain-images", type=int, help="of the plain one's memory, at least 2; by default --images")
    parser.add_argument("--speed-images", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--out", type=Path, help="JSON file; default benchmarks/results/analysis-DATE-DEVICE.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    about = machine(options.device)
    print(f"{json.dumps(about)}\n{options.images} images at {SIDE} px, batch {options.batch}")
    print(f"{'':10}{'images/s':>10}{'plain':>10}{'ratio':>10}{'MiB':>12}{'plain':>12}{'ratio':>10}")
    rows = [row(name, options) for name in options.models]
    asked = {name: value for name, value in vars(options).items() if name != "out"}
    file = options.out or RESULTS / f"analysis-{about['date']}-{options.device}.json"
    file.write_text(
        json.dumps({"script": "benchmarks/analysis.py", **about, "asked": asked, "rows": rows}, indent=1) + "\n"
    )
    print(file)


if __name__ == "__main__":
    main()
