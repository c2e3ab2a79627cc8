"""Measures images per second, MFU, memory and waiting for data of the paper's models, each beside a plain loop."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch._inductor import config as inductor_config

from gpu import kernels, plain
from gpu.record import Row, State
from gpu.trials import (
    Bench,
    DrawnClassify,
    DrawnPretrain,
    DrawnTrial,
    Ended,
    Steps,
    carry_out,
    quickly_compiled,
    runtime,
)
from tasks.backbones.model import build
from tasks.backbones.spec import BackboneSpec
from workers.optim_spec import OptimSpec
from workers.throughput import peak_flops

GIB = 2**30
SWIN_B = "SimMIM SwinV2-B, 192"
"""Its row; variants are compared with the plain loop in it."""
FINETUNE = "fine-tune SwinV2-B, 224"
"""Likewise."""


@dataclass(frozen=True)
class Size:
    """How much is run: of every load the first epoch warms up."""

    batch: int
    steps: int = 4
    """An epoch."""
    epochs: int = 5


def ceilings(bench: Bench) -> Iterator[Row]:
    """What the device does at best, on random data: a bf16 matrix product, and a copy (bytes read and written)."""
    side, size = (512, 2**22) if bench.small else (8192, 2**31)
    one, other = (torch.randn(side, side, device=bench.device, dtype=torch.bfloat16) for _ in range(2))
    source = torch.randint(0, 256, (size,), device=bench.device, dtype=torch.uint8)
    target = torch.empty_like(source)
    product = _median_seconds(bench, lambda: torch.mm(one, other))
    copy = _median_seconds(bench, lambda: target.copy_(source))
    figures = {"bf16 TFLOP/s": 2 * side**3 / product / 1e12, "copy TB/s": 2 * size / copy / 1e12}
    figures |= _launches(bench)
    if bench.on_cuda and (peak := peak_flops(torch.cuda.get_device_name(bench.device))):
        figures["peak TFLOP/s in workers/throughput.py"] = peak / 1e12
    yield Row("ceilings of the device", State.measured, figures)


def _launches(bench: Bench) -> dict[str, float]:
    """Time of one operation on almost nothing: a step of training has thousands, so this bounds what is not compiled.
    By itself, and as one of many in a CUDA graph."""
    count, tiny = 50 if bench.small else 1000, torch.zeros(1, device=bench.device)

    def alone() -> None:
        for _ in range(count):
            tiny.add_(1)

    figures = {"operation us": 1e6 * _median_seconds(bench, alone) / count}
    if bench.on_cuda:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            alone()
        figures["operation in a graph us"] = 1e6 * _median_seconds(bench, graph.replay) / count
    return figures


def swinv2_b(bench: Bench) -> Iterator[Row]:
    yield from _beside_plain(
        bench, SWIN_B, _simmim_swin_b(bench), plain.simmim, "ratio at least 1.5",
        "specs/pretrain_simmim.yaml swinv2_b",
    )  # fmt: skip


def profile(bench: Bench) -> Iterator[Row]:
    """What the device does in steps of SimMIM SwinV2-B: where the time goes that MFU lacks."""
    steps = Steps(_simmim_swin_b(bench), bench)
    steps.make(3)
    kernels.profiled(steps, 1, bench)  # the first time the profiler has to begin
    seen = kernels.profiled(steps, 2 if bench.small else 4, bench)
    yield Row(f"kernels of {SWIN_B}", State.measured, seen.figures())
    longest = {f"{name[:150]} x {calls:g}": share for name, share, calls in seen.longest(12)}
    yield Row(f"longest kernels of {SWIN_B}", State.measured, longest)


def swinv2_l(bench: Bench) -> Iterator[Row]:
    backbone = _swin(bench, "swinv2_large_window12_192", 192, {"window_size": [12, 12, 12, 6]})
    trial = _simmim(bench, backbone, Size(64), "simmim_swin_pretrain")
    yield from _beside_plain(
        bench, "SimMIM SwinV2-L, 192", trial, plain.simmim, "ratio at least 1.0", "specs/pretrain_simmim.yaml swinv2_l"
    )


def vit_b(bench: Bench) -> Iterator[Row]:
    args: dict[str, Any] = {
        "global_pool": "token", "init_values": 0.1, "use_abs_pos_emb": False, "use_rel_pos_bias": False,
        "use_shared_rel_pos_bias": True,
    }  # fmt: skip
    if bench.small:
        args |= {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    backbone = BackboneSpec(
        model="beit_base_patch16_224", image_size=64 if bench.small else 224, args=args, drop_path=0.1
    )
    trial = _simmim(bench, backbone, Size(128), "simmim_vit")
    yield from _beside_plain(
        bench, "SimMIM ViT-B, 224", trial, plain.simmim, "ratio at least 1.0", "specs/pretrain_simmim.yaml vit_b"
    )


def replknet(bench: Bench) -> Iterator[Row]:
    args: dict[str, Any] = {"entry_channels": 128}
    if bench.small:
        args = {"layers": [1, 1], "channels": [8, 16], "kernels": [13, 5], "entry_channels": 8}
    backbone = BackboneSpec(model="replknet_31b_mim", image_size=64 if bench.small else 192, args=args, drop_path=0.1)
    trial = _simmim(bench, backbone, Size(32, steps=2, epochs=3), "simmim_swin_pretrain")
    yield from _beside_plain(
        bench, "SimMIM RepLKNet-31B, 192", trial, plain.simmim, "ratio at least 1.0",
        "specs/pretrain_simmim.yaml replknet",
    )  # fmt: skip


def finetune(bench: Bench) -> Iterator[Row]:
    """SwinV2-B at 224 with window 14 under Table 7's augmentation, by worker processes in both loops."""
    trial = finetuning(bench, Size(64, steps=12, epochs=5), "imagenet", images=None)
    yield from _beside_plain(
        bench, FINETUNE, trial, plain.finetune, "ratio at least 1.0",
        "specs/k12_grid.yaml paper; specs/imagenet_finetune.yaml, cog.yaml, inat18.yaml",
    )  # fmt: skip


def finetune_compiled(bench: Bench) -> Iterator[Row]:
    """The same with torch.compile. Its first epoch has the compilation in it."""
    trial = finetuning(bench, Size(64, steps=12, epochs=3), "imagenet", images=None)
    if bench.small:  # blocks and batch of the compiled SimMIM: Inductor's cache has their graphs by now
        quick = quickly_compiled(bench)
        optim = _flat(trial.optim).model_copy(update={"batch": quick.optim.batch})
        task = trial.task.model_copy(update={"images": quick.optim.batch})
        trial = trial.model_copy(update={"backbone": quick.backbone, "optim": optim, "task": task})
    yield _variant(bench, "compiled", _compiling(trial), of=FINETUNE)


def _flat(optim: OptimSpec) -> OptimSpec:
    """Without layer decay, which is defined for each model by itself."""
    return optim.model_copy(update={"layer_decay": 1.0, "layer_decay_scheme": "timm"})


def channels_last(bench: Bench) -> Iterator[Row]:
    """Off; it is on by default on a GPU."""
    yield _variant(bench, "channels-last off", _simmim_swin_b(bench, channels_last="off"))


def half_batch(bench: Bench) -> Iterator[Row]:
    yield _variant(bench, "half the batch", _simmim_swin_b(bench, factor=0.5))


def double_batch(bench: Bench) -> Iterator[Row]:
    yield _variant(bench, "twice the batch", _simmim_swin_b(bench, factor=2))


def compiled(bench: Bench) -> Iterator[Row]:
    """Its first epoch has the compilation in it."""
    trial = quickly_compiled(bench, epochs=2) if bench.small else _simmim_swin_b(bench)
    yield _variant(bench, "compiled", _compiling(trial))


def _compiling(trial: DrawnTrial) -> DrawnTrial:
    return trial.model_copy(update={"runtime": trial.runtime.model_copy(update={"compile": True})})


def graphs(bench: Bench) -> Iterator[Row]:
    """Compiled blocks, each in CUDA graphs: a block's forward and its backward pass are one launch each. The project
    does not offer it; losses against those without compilation say whether it could."""
    trial = quickly_compiled(bench) if bench.small else _simmim_swin_b(bench)
    warm, timed = (1, 1) if bench.small else (4, 6)
    eager = Steps(trial, bench).make(warm + timed).cpu()
    counters = torch._dynamo.utils.counters["inductor"]
    torch._dynamo.reset()  # blocks that were compiled without
    counters.clear()
    try:
        with inductor_config.patch({"triton.cudagraphs": bench.on_cuda}):
            steps, losses, seconds = Steps(_compiling(trial), bench), [], []
            for _ in range(warm + timed):
                torch.compiler.cudagraph_mark_step_begin()
                began = time.perf_counter()
                losses.append(steps.make(1).cpu())  # waits for the device
                seconds.append(time.perf_counter() - began)
    finally:
        torch._dynamo.reset()
    figures: dict[str, Any] = {"images/s": trial.optim.batch / statistics.median(seconds[warm:])}
    if bench.on_cuda:
        figures["peak GiB"] = torch.cuda.max_memory_allocated(bench.device) / GIB
    figures |= {
        "first step s": seconds[0], "loss apart": ((torch.cat(losses) - eager).abs() / eager).max().item(),
        "loss": losses[-1].item(), "without graphs": counters["cudagraph_skips"],
    }  # fmt: skip
    yield Row(f"{SWIN_B}: compiled, CUDA graphs", State.measured, figures, against=SWIN_B)


def adamw(bench: Bench) -> Iterator[Row]:
    """A step of the optimizer alone, over the weights of SwinV2-B: the fused kernel, which the project uses, and
    torch's default on a GPU, which the plain loop has."""
    figures = {}
    kernels: dict[str, Any] = {"fused ms": {"fused": True}, "foreach ms": {"foreach": True}}
    for name, how in kernels.items():
        model = build(_swin_b(bench), 0).to(bench.device)
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, **how)
        figures[name] = 1e3 * _median_seconds(bench, optimizer.step)
    yield Row("AdamW over SwinV2-B", State.measured, {**figures, "ratio": figures["foreach ms"] / figures["fused ms"]})


def _beside_plain(
    bench: Bench, name: str, trial: DrawnTrial, by_hand: Callable[[DrawnTrial, Bench], plain.Speed], aim: str, spec: str
) -> Iterator[Row]:
    """A row when our loop is measured, and again when the plain loop is."""
    row = Row(name, State.measured, _figures(carry_out(trial, bench, keep_weights=False), bench))
    if not bench.small:
        row.aim, row.note = aim, f"replaces the guess in {spec}"
    yield row
    speed = by_hand(trial, bench)
    row.figures |= {"plain images/s": speed.images_per_second, "plain data wait": speed.data_wait}
    row.figures |= {"plain peak GiB": speed.peak_bytes / GIB} if bench.on_cuda else {}
    row.figures["ratio"] = row.figures["images/s"] / speed.images_per_second
    yield row


def _variant(bench: Bench, what: str, trial: DrawnTrial, of: str = SWIN_B) -> Row:
    ended = carry_out(trial, bench, keep_weights=False)
    figures = _figures(ended, bench)
    if trial.runtime.compile:
        figures["first epoch s"] = ended.reports[0].seconds
    return Row(f"{of}: {what}", State.measured, figures, against=of)


def _figures(ended: Ended, bench: Bench) -> dict[str, Any]:
    """Medians of all epochs but the first."""
    values = [report.values for report in ended.reports[1:]]
    facts = ended.outcome.facts
    rate = statistics.median(value["system_images_per_second"] for value in values)
    figures: dict[str, Any] = {"images/s": rate}
    if bench.on_cuda:
        peak, flops = peak_flops(facts["device"]), facts["flops_per_image"]
        figures["MFU"] = rate * flops / peak if peak and flops else None
        figures["peak GiB"] = facts["gpu_memory_bytes"] / GIB
    figures["data wait"] = statistics.median(value["system_data_wait"] for value in values)
    figures["micro-batch"] = facts["micro_batch"]
    if facts["notes"]:
        figures["notes"] = "; ".join(facts["notes"])
    return figures


def _swin(bench: Bench, model: str, side: int, args: dict[str, Any]) -> BackboneSpec:
    """That model; in small two blocks of it on 64 pixels."""
    if bench.small:
        args = {"patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "window_size": 8}
    return BackboneSpec(model=model, image_size=64 if bench.small else side, args=args, drop_path=0.1)


def _swin_b(bench: Bench) -> BackboneSpec:
    return _swin(bench, "swinv2_base_window12_192", 192, {"window_size": [12, 12, 12, 6]})


def _simmim_swin_b(bench: Bench, factor: float = 1, **more: Any) -> DrawnTrial:
    return _simmim(bench, _swin_b(bench), Size(int(128 * factor)), "simmim_swin_pretrain", **more)


def _simmim(bench: Bench, backbone: BackboneSpec, size: Size, no_decay: Any, **more: Any) -> DrawnTrial:
    """As in specs/pretrain_simmim.yaml."""
    batch, steps, epochs = _sizes(bench, size)
    side = backbone.image_size
    return DrawnTrial(
        task=DrawnPretrain(
            images=steps * batch, side=side + 32, mask_patch=16 if bench.small else 32, plain_noise=True, measured=False
        ),
        backbone=backbone,
        optim=OptimSpec(
            lr=4e-4, epochs=epochs, warmup_epochs=0.5, warmup_lr=2e-6, schedule="step", step_epochs=(epochs - 0.5,),
            batch=batch, no_decay=no_decay,
        ),
        runtime=runtime(**more),
    )  # fmt: skip


def finetuning(bench: Bench, size: Size, dataset: str, images: int | None, **more: Any) -> DrawnTrial:
    """As in the paper profile of specs/k12_grid.yaml. `images`: an epoch; None: `size` says how many."""
    batch, steps, epochs = _sizes(bench, size)
    args = {"window_size": 14, "pretrained_window_sizes": [12, 12, 12, 6]}
    backbone = _swin(bench, "swinv2_base_window12_192", 224, args)
    spare = len(os.sched_getaffinity(0)) - 2
    return DrawnTrial(
        task=DrawnClassify(dataset=dataset, images=images or steps * batch, side=backbone.image_size + 32),
        backbone=backbone,
        optim=OptimSpec(
            lr=1e-3, epochs=epochs, warmup_epochs=0.5, batch=batch, layer_decay=0.85, layer_decay_scheme="swin26"
        ),
        runtime=runtime(**{"loader_workers": 1 if bench.small else max(1, min(14, spare)), **more}),
    )  # fmt: skip


def _sizes(bench: Bench, size: Size) -> tuple[int, int, int]:
    return (4, 1, 2) if bench.small else (size.batch, size.steps, size.epochs)


def _median_seconds(bench: Bench, work: Callable[[], Any]) -> float:
    """Of ten calls after three, each waited for."""
    times = []
    for _ in range(13):
        if bench.on_cuda:
            torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        if bench.on_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return statistics.median(times[3:])
