"""Trains the dense tasks of the paper on drawn pictures: right on this device, and how fast in the paper's size."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import create_model
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from gpu.correctness import FORWARD, GRADIENT, apart_of, full_fp32
from gpu.drawn import DrawnDepth, DrawnDetection, DrawnPose, DrawnSegmentation, DrawnTracking
from gpu.record import Row, State
from gpu.speed import GIB
from gpu.trials import Bench, Steps, runtime
from tasks.backbones.frozen import train_mode
from tasks.backbones.spec import BackboneSpec
from tasks.base import Batch, DataContext, Task
from tasks.datasets.reader import moved
from workers.optim_spec import OptimSpec
from workers.prepare import seed_all
from workers.throughput import flops_per_image, peak_flops
from workers.trial import TrialSpec

WARM, TIMED = 2, 5
"""Steps. The median of the timed ones counts."""
INPUTS = 1e-3
"""Part by which inputs made on this device may differ from those of a CPU: a hue at the edge of two sectors jumps."""
CASES: dict[str, Case] = {}
"""By name of the check."""


@dataclass(frozen=True)
class Case:
    """A task in the size of its spec's paper profile, and in a tiny form."""

    task: Task
    tiny: Task
    backbone: BackboneSpec
    batch: int
    """Samples that one GPU has in a step of the paper profile."""
    spec: str
    optim: Mapping[str, Any] = field(default_factory=dict)
    runtimes: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"as in the paper": {}})
    """What is timed, by the words that say so."""
    tiny_side: int = 64
    exact: torch.dtype = torch.float64
    """In which the CPU computes what the device is compared with: detection casts its maps to float32."""


def pose(bench: Bench) -> Iterator[Row]:
    yield from _rows("pose", bench)


def depth(bench: Bench) -> Iterator[Row]:
    yield from _rows("depth", bench)


def tracking(bench: Bench) -> Iterator[Row]:
    yield from _rows("tracking", bench)


def detection(bench: Bench) -> Iterator[Row]:
    yield from _rows("detection", bench)


def segmentation(bench: Bench) -> Iterator[Row]:
    for decoder in ("upernet", "mask2former"):
        yield from _rows(decoder, bench)


def _rows(name: str, bench: Bench) -> Iterator[Row]:
    case = CASES[name]
    try:
        yield _correct(name, case, bench)
        for words, how in case.runtimes.items():
            yield _timed(f"{name} {case.backbone.image_size}, {words}", case, how, bench)
    except ImportError as error:  # what only this task needs
        why = f"{error.name} is not installed" if isinstance(error, ModuleNotFoundError) else str(error).strip()
        yield Row(name, State.not_run, note=why.splitlines()[0][:300])


def _correct(name: str, case: Case, bench: Bench) -> Row:
    """Loss and gradients of a tiny model in fp32 on the device, against the CPU, in float64 where the model can; and
    the inputs, made on each of the two."""
    tiny, count = _tiny(case), 4
    seed_all(0, "model", 0)
    model = train_mode_of(case.tiny.build(tiny, None))
    place = DataContext(bench.folder, case.tiny.input_size(tiny), "cpu", seed=0, batch=count)
    raw, transform = case.tiny.samples(place)  # type: ignore[attr-defined]
    here = transform.train(raw, 0, 0, torch.arange(count))
    there = transform.train(moved(raw, bench.device), 0, 0, torch.arange(count))
    true, exact = _pass(case.tiny, copy.deepcopy(model).to(case.exact), _each(here, lambda each: each.to(case.exact)))
    with full_fp32(), DrawnOnCpu():
        other = copy.deepcopy(model).to(bench.device)
        loss, gradients = _pass(case.tiny, other, moved(here, bench.device))
    norms = [sum(float(each.double().square().sum()) for each in part.values()) ** 0.5 for part in (gradients, exact)]
    figures = {
        "loss": abs(loss / true - 1), "gradients": apart_of(gradients, exact),
        "gradient norm": abs(norms[0] / norms[1] - 1),
        "inputs": apart_of({"images": there["images"].cpu()}, {"images": here["images"]}),
    }  # fmt: skip
    good = figures["loss"] <= FORWARD and figures["gradients"] <= GRADIENT and figures["inputs"] <= INPUTS
    bounds = f"at most {FORWARD:g}, {GRADIENT:g}, inputs {INPUTS:g}"
    against = "float64" if case.exact == torch.float64 else "the CPU"
    return Row(f"fp32 against {against}: {name}", State.passed if good else State.failed, figures, bounds)


class DrawnOnCpu(TorchFunctionMode):
    """torch.rand draws on the CPU whatever device it is for: Mask2Former compares masks at points that it draws."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = dict(kwargs or {})
        device = named.pop("device", None) if func is torch.rand else None
        drawn = func(*args, **named)
        return drawn if device is None else drawn.to(device)


def train_mode_of(model: nn.Module) -> nn.Module:
    train_mode(model)
    return model


def _pass(task: Task, model: nn.Module, batch: Batch) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss, and its gradients by parameter, on the CPU."""
    total = torch.stack([term.reshape(()) for term in task.loss(model, batch).values()]).sum()
    total.backward()  # type: ignore[no-untyped-call]
    parameters = model.named_parameters()
    return total.item(), {name: value.grad.cpu() for name, value in parameters if value.grad is not None}


def _each(batch: Batch, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
    """The batch with floating-point tensors changed."""
    return {
        name: change(value) if torch.is_tensor(value) and value.is_floating_point() else value
        for name, value in batch.items()
    }


def _timed(name: str, case: Case, how: Mapping[str, Any], bench: Bench) -> Row:
    """Steps of the paper profile."""
    trial = _trial(case, how, bench)
    steps = Steps(trial, bench)
    steps.make(WARM)
    seconds = statistics.median(steps.seconds(1) for _ in range(1 if bench.small else TIMED))
    run, rate = steps.run, trial.optim.batch / seconds
    memory = torch.cuda.max_memory_allocated(bench.device) if bench.on_cuda else 0
    flops = _flops(trial, steps)
    figures: dict[str, Any] = {"images/s": rate, "batch": trial.optim.batch, "GFLOP an image": flops / 1e9}
    if bench.on_cuda:
        peak = peak_flops(torch.cuda.get_device_name(bench.device))
        figures["MFU"] = rate * flops / peak if peak else None
        figures["peak GiB"] = memory / GIB
    figures |= {"micro-batch": run.progress.micro_batch, "precision": str(run.numerics.dtype).removeprefix("torch.")}
    notes = "; ".join(run.progress.notes)
    return Row(
        name, State.measured, figures, note=notes if bench.small else f"replaces the guess in {case.spec} {notes}"
    )


def _flops(trial: TrialSpec, steps: Steps) -> float:
    """Of a sample in a step, not counting what is computed again."""
    try:
        return flops_per_image(trial, steps.batch)
    except RuntimeError:  # a loss that needs numbers: with those of two samples, in another model
        model = train_mode_of(trial.task.build(trial.backbone, None)).to(steps.run.numerics.device)
        batch = {name: value[:2] for name, value in steps.batch.items()}
        with FlopCounterMode(display=False) as counter:
            _pass(trial.task, model, batch)
        return float(counter.get_total_flops()) / 2


def _trial(case: Case, how: Mapping[str, Any], bench: Bench) -> TrialSpec:
    task, backbone = (case.tiny, _tiny(case)) if bench.small else (case.task, case.backbone)
    optim = {"lr": 5e-4, "epochs": 1, "warmup_epochs": 0.5, "batch": 4 if bench.small else case.batch, **case.optim}
    if bench.small:  # layer decay is defined for each model by itself
        optim = {**optim, "layer_decay": 1.0, "layer_decay_scheme": "timm"}
    drawn: Any = create_model("DenseTrial", __base__=TrialSpec, task=(type(task), ...))
    trial: TrialSpec = drawn(task=task, backbone=backbone, optim=OptimSpec(**optim), runtime=runtime(**how))
    return trial


def _tiny(case: Case) -> BackboneSpec:
    args = {"patch_size": 4, "embed_dim": 32, "depths": [1, 2, 1], "num_heads": [1, 2, 4], "window_size": 4}
    return BackboneSpec(
        model="swinv2_tiny_window8_256", image_size=case.tiny_side, args=args, norm_eps=case.backbone.norm_eps
    )


def _swin_b(side: int, window: int, **more: Any) -> BackboneSpec:
    args = {"window_size": window, "pretrained_window_sizes": [12, 12, 12, 6]}
    return BackboneSpec(model="swinv2_base_window12_192", image_size=side, args=args, **more)


_POSE = {"dataset": {"kind": "coco", "path": "drawn"}, "boxes": "ground_truth"}
_DEPTH = {"dataset": {"kind": "depth_pairs", "path": "drawn"}, "longest": 10.0}
_TRACKING = {"dataset": "got10k"}
_TINY_DETECTOR = {
    "channels": 16, "anchor_scale": 4, "proposals_per_level": 10**5, "proposals": 10**5, "box_channels": 32,
    "mask_channels": 16, "anchors": 10**5, "regions": 10**5,
}  # fmt: skip
"""Everything is sampled, since what generators draw differs between devices."""
_TINY_QUERIES = {
    "channels": 32, "queries": 20, "encoder_layers": 1, "decoder_layers": 1, "encoder_feed_forward": 32,
    "feed_forward": 32, "points": 64,
}  # fmt: skip
_DETECTION = {"dataset": "coco-instances"}
_UPERNET, _MASK2FORMER = ({"dataset": "ade20k", "decoder": decoder} for decoder in ("upernet", "mask2former"))
_DECAY = {"layer_decay": 0.9, "layer_decay_scheme": "swin29", "clip": 0}
CASES |= {
    "pose": Case(
        DrawnPose.model_validate(_POSE), DrawnPose.model_validate({**_POSE, "sigma": 1.0}),
        _swin_b(256, 16, norm_eps=1e-6, drop_path=0.3), 64, "specs/pose.yaml paper", _DECAY,
    ),
    "depth": Case(
        DrawnDepth.model_validate(_DEPTH), DrawnDepth.model_validate({**_DEPTH, "head_std": 0.05}),
        _swin_b(480, 30, norm_eps=1e-6, drop_path=0.3), 24, "specs/depth.yaml paper", _DECAY,
        {
            "as in the paper: fp32, computed again": {"precision": "fp32", "grad_checkpointing": True},
            "bf16, computed again": {"grad_checkpointing": True},
        },
    ),
    "tracking": Case(
        DrawnTracking.model_validate(_TRACKING),
        DrawnTracking.model_validate({**_TRACKING, "fusion": {"width": 32, "heads": 2, "blocks": 1}}),
        _swin_b(224, 7, drop_path=0.219), 20, "specs/tracking.yaml paper",
        {"weight_decay": 1e-4, "no_decay": "none", "clip": 0.1, "backbone_lr_factor": 0.1},
        tiny_side=128,  # windows of 4 divide the tokens of both crops
    ),
    "detection": Case(
        DrawnDetection.model_validate(_DETECTION),
        DrawnDetection.model_validate({**_DETECTION, "detector": _TINY_DETECTOR}),
        _swin_b(1024, 16, drop_path=0.3), 4, "specs/detection.yaml paper",
        {"weight_decay": 0.05, "no_decay": "timm", "clip": 0}, exact=torch.float32,
    ),
    "upernet": Case(
        DrawnSegmentation.model_validate(_UPERNET),
        DrawnSegmentation.model_validate({**_UPERNET, "upernet": {"channels": 16, "auxiliary_channels": 16}}),
        _swin_b(640, 20, drop_path=0.3), 4, "specs/segmentation.yaml paper",
        {"weight_decay": 0.05, "layer_decay": 0.95, "layer_decay_scheme": "swin29", "clip": 0},
    ),
    "mask2former": Case(
        DrawnSegmentation.model_validate(_MASK2FORMER),
        DrawnSegmentation.model_validate({**_MASK2FORMER, "mask2former": _TINY_QUERIES}),
        _swin_b(512, 8, drop_path=0.3), 2, "specs/segmentation.yaml paper",
        {"weight_decay": 0.05, "no_decay": "timm", "clip": 0.01, "backbone_lr_factor": 0.1}, exact=torch.float32,
    ),
}  # fmt: skip
