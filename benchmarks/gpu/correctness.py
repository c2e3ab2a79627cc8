"""Checks that training computes on this device what it should, each time against another way to compute the same."""

from __future__ import annotations

import contextlib
import copy
import math
import os
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from gpu.record import Row, State
from gpu.trials import (
    Bench,
    DrawnPretrain,
    DrawnTrial,
    Ended,
    Steps,
    carry_out,
    free,
    never,
    place_of,
    quickly_compiled,
    runtime,
    swin,
)
from gpu.worker import Worker
from tasks.backbones.spec import BackboneSpec
from tasks.base import DataContext
from workers import distributed
from workers.checkpoint import Folder, load_weights
from workers.errors import Stopped
from workers.messages import Report, Weights
from workers.optim import optimizer_of
from workers.prepare import prepare, seed_all
from workers.train import train

ROUNDING = 5.0
"""Times as far as one rounding of the initial weights moves the end of ten steps, sums in another order may move it.
Adam divides each gradient by its own size, so roundings grow: 0.0035 of the way on a CPU, more than a fixed bound that
would still notice a mistake could allow."""
ONE_ROUNDING = 2.0**-24
LEAST = 1e-4
"""Part of the way that is allowed in any case: with few weights a rounding may happen to move nothing."""
LOSSES = 1e-3
"""Part of the loss by which sums in another order may move it."""
NOISE = 1e-2
"""The same of twenty steps in bf16 whose sums have no fixed order."""
FORWARD, GRADIENT = 1e-4, 1e-3
"""Of fp32 against float64, as part of the norm; tensor cores in tf32 would be three to ten times beyond the first."""
CURVE = 0.03
"""Part of the loss by which bf16 may differ from fp32."""
KILLED_AT = 15
"""Step, the fifth of the second epoch; the checkpoint is that of step 10."""

FAMILIES: dict[str, BackboneSpec] = {
    "SwinV2": BackboneSpec(
        model="swinv2_tiny_window8_256", image_size=64,
        args={"patch_size": 4, "embed_dim": 32, "depths": [2, 2], "num_heads": [1, 2], "window_size": 8},
    ),
    "Swin": BackboneSpec(
        model="swin_tiny_patch4_window7_224", image_size=64,
        args={"patch_size": 4, "embed_dim": 32, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4},
    ),
    "BEiT": BackboneSpec(
        model="beit_base_patch16_224", image_size=64,
        args={
            "patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 4, "global_pool": "token", "init_values": 0.1,
            "use_abs_pos_emb": False, "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True,
        },
    ),
    "ViT": BackboneSpec(
        model="vit_tiny_patch16_224", image_size=64,
        args={"patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 4},
    ),
    "RepLKNet": BackboneSpec(
        model="replknet_31b_mim", image_size=64,
        args={
            "layers": [1, 1, 1, 1], "channels": [16, 32, 48, 64], "kernels": [31, 29, 27, 13], "entry_channels": 16,
        },
    ),
}  # fmt: skip


def families(bench: Bench) -> Iterator[Row]:
    """Output and gradients in fp32 on the device, and on the CPU, against float64 on the CPU."""
    for name, backbone in FAMILIES.items():
        task = DrawnPretrain(images=4, side=64, mask_patch=16)
        seed_all(0, "model", 0)
        model = task.build(backbone, None).train()
        place = DataContext(bench.folder, (64, 64), "cpu", seed=0, batch=4)
        batch = next(iter(task.loaders(place).epoch(0)))
        exact = _pass(task, copy.deepcopy(model).double(), {**batch, "images": batch["images"].double()})
        figures: dict[str, Any] = {}
        for device in dict.fromkeys([bench.device, "cpu"]):
            for what, got, true in zip(("forward", "gradients"), _fp32(task, model, batch, device), exact, strict=True):
                figures[f"{what} {device}"] = apart_of(got, true)
        good = figures[f"forward {bench.device}"] <= FORWARD and figures[f"gradients {bench.device}"] <= GRADIENT
        yield Row(f"fp32 against float64: {name}", _state(good), figures, f"at most {FORWARD:g}, {GRADIENT:g}")


def _fp32(task: DrawnPretrain, model: nn.Module, batch: dict[str, Any], device: str) -> tuple[dict[str, Any], ...]:
    with full_fp32():
        moved = {name: value.to(device) for name, value in batch.items()}
        return _pass(task, copy.deepcopy(model).to(device), moved)


def _pass(task: DrawnPretrain, model: nn.Module, batch: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """Output, and gradients of the loss by parameter, on the CPU."""
    output = model(batch["images"], batch["masks"])
    task.loss(model, batch)["loss"].backward()  # type: ignore[no-untyped-call]
    parameters = dict(model.named_parameters())
    gradients = {name: value.grad.cpu() for name, value in parameters.items() if value.grad is not None}
    if lost := parameters.keys() - gradients.keys():
        raise RuntimeError(f"no gradient reached {', '.join(sorted(lost)[:3])}")
    return {"output": output.detach().cpu()}, gradients


def accumulation(bench: Bench) -> Iterator[Row]:
    """Ten steps in micro-batches of a quarter against whole batches, with drop path."""
    trial = swin(bench, drop_path=0.2)
    with full_fp32():
        whole = carry_out(trial, bench)
        batch = whole.outcome.facts["micro_batch"]
        parts = carry_out(swin(bench, drop_path=0.2, micro_batch=batch // 4), bench)
    yield _close(trial, bench, "accumulation of 4 against one batch", parts, whole)


def channels_last(bench: Bench) -> Iterator[Row]:
    """Ten steps in channels-last layout against torch's own."""
    with full_fp32():
        plain, other = (carry_out(swin(bench, channels_last=which), bench) for which in ("off", "on"))
    yield _close(swin(bench), bench, "channels-last against not", other, plain)


def compiled(bench: Bench) -> Iterator[Row]:
    """Twenty steps with torch.compile against without, with drop path and in channels-last layout; and the same from a
    checkpoint, after being stopped in the second epoch."""
    trial = quickly_compiled(bench, epochs=2)
    how = runtime(precision="fp32", channels_last="on", evaluate_every=2)
    trial = trial.model_copy(update={"runtime": how})
    fast = trial.model_copy(update={"runtime": how.model_copy(update={"compile": True, "checkpoint_epochs": 1})})
    with full_fp32():
        eager, other = carry_out(trial, bench), carry_out(fast, bench)
        yield _close(trial, bench, "compiled against not", other, eager)
        free(bench)
        again, reports = place_of(bench, bench.folder / "resumed"), list[Report]()
        with contextlib.suppress(Stopped):
            train(fast, again, reports.append, lambda: len(reports) > 0)
        outcome = train(fast, again, reports.append, never)
    assert outcome.weights is not None
    apart = apart_of(load_weights(outcome.weights), other.weights, _start(trial))
    figures = {"weights apart": apart, "resumed at step": outcome.facts["resumed_at"]}
    most = _most_apart(trial, bench)
    good = apart <= most and figures["resumed at step"] == 11
    yield Row("compiled, resumed", _state(good), figures, f"at most {most:.2g}")


def out_of_memory(bench: Bench) -> Iterator[Row]:
    """A batch for which the device has no memory, against micro-batches of half from the start: the same bits.

    On a GPU this process is given less than the whole batch takes and more than half does; in small the loss of more
    than half a batch asks the allocator for more than there is.
    """
    batch = 32 if bench.small else 256
    exact = {"batch": batch, "deterministic": True, "plain_noise": True}
    half = carry_out(swin(bench, micro_batch=batch // 2, **exact), bench)
    figures: dict[str, Any] = {}
    if bench.on_cuda and not bench.small:
        reserved = _peak(bench, swin(bench, micro_batch=batch // 2, **exact), torch.cuda.max_memory_reserved)
        wanted = _peak(bench, swin(bench, **exact), torch.cuda.max_memory_allocated)
        figures = {"GiB for half": reserved / 2**30, "GiB for all": wanted / 2**30}
        if wanted <= reserved:
            raise RuntimeError(f"a batch of {batch} takes {wanted} bytes, half of it {reserved}: use a larger batch")
        with _no_more_memory(bench, (reserved + wanted) // 2):
            squeezed = carry_out(swin(bench, **exact), bench)
    else:
        squeezed = carry_out(swin(bench, fits=batch // 2, **exact), bench)
    notes = [note for note in squeezed.outcome.facts["notes"] if "out of memory" in note]
    figures |= {"micro-batch": squeezed.outcome.facts["micro_batch"], "same bits": _same(squeezed, half)}
    figures |= {"weights apart": apart_of(squeezed.weights, half.weights, _start(swin(bench)))}
    good = figures["same bits"] and figures["micro-batch"] == batch // 2 and len(notes) == 1
    yield Row(
        "out of memory at the whole batch", _state(good), figures, "half the micro-batch, same bits", "; ".join(notes)
    )


def _peak(bench: Bench, trial: DrawnTrial, measure: Any) -> int:
    carry_out(trial, bench)
    return int(measure(bench.device))


@contextmanager
def _no_more_memory(bench: Bench, most: int) -> Iterator[None]:
    free(bench)
    total = torch.cuda.get_device_properties(bench.device).total_memory
    torch.cuda.set_per_process_memory_fraction(most / total, bench.device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, bench.device)


def one_process(bench: Bench) -> Iterator[Row]:
    """DistributedDataParallel and FSDP2 in a process group of one, against neither; two micro-batches a step."""
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")  # whatever network the machine has, or none
    backend = "nccl" if bench.on_cuda else "gloo"
    dist.init_process_group(backend, init_method=f"file://{bench.folder / 'group'}", rank=0, world_size=1)
    try:
        with full_fp32():
            alone, _ = _spread(bench, "")
            for how, name in (("ddp", "DDP of one process"), ("fsdp", "FSDP2 of one process")):
                weights, loads = _spread(bench, how)
                figures = {
                    "weights apart": apart_of(weights, alone, _start(swin(bench))),
                    "optimizer loads again": loads,
                }
                most = _most_apart(swin(bench), bench)
                yield Row(name, _state(figures["weights apart"] <= most and loads), figures, f"at most {most:.2g}")
    finally:
        dist.destroy_process_group()


def _spread(bench: Bench, how: str) -> tuple[dict[str, torch.Tensor], bool]:
    """Whole weights after an epoch, and whether the optimizer's whole state loads into another like it unchanged.

    `how`: ddp, fsdp, or empty.
    """
    trial = swin(bench, channels_last="off" if how == "fsdp" else "auto")
    run = prepare(trial, place_of(bench, bench.folder / "spread"), Folder(bench.folder / "spread", trial.key, 0))
    device = run.numerics.device
    wrapped = distributed.wrap_distributed(run.model, how, device) if how else run.model
    optimizer = optimizer_of(run.model, run.groups, trial.optim)
    half = trial.optim.batch // 2
    for batch in run.loaders.epoch(0):
        optimizer.zero_grad(set_to_none=True)
        for first in (0, half):
            part = {name: value[first : first + half] for name, value in batch.items()}
            with distributed.exchange(wrapped, now=first > 0):
                with run.numerics.autocast():
                    loss = trial.task.loss(wrapped, part)["loss"]
                (loss / 2).backward()  # type: ignore[no-untyped-call]
        distributed.clip(run.parameters, trial.optim.clip)
        optimizer.step()
    saved = distributed.whole_optimizer(run.model, optimizer, keep=True)
    again = optimizer_of(run.model, run.groups, trial.optim)
    distributed.load_optimizer(run.model, again, saved)
    loaded = distributed.whole_optimizer(run.model, again, keep=True)
    same = saved.keys() == loaded.keys() and all(
        torch.equal(value.cpu(), loaded[name][what].cpu())
        for name, state in saved.items()
        for what, value in state.items()
    )
    weights = distributed.whole_weights(run.model, keep=True)
    return {name: value.detach().cpu().clone() for name, value in weights.items()}, same


def curve(bench: Bench) -> Iterator[Row]:
    """The loss of 60 steps in bf16 against fp32, step by step; another seed in fp32 says what chance does to it."""
    batch, epochs = (16, 3) if bench.small else (32, 6)

    def losses(precision: str, seed: int) -> torch.Tensor:
        trial = swin(bench, epochs, precision=precision, batch=batch, measured=False)
        return Steps(trial.model_copy(update={"seed": seed}), bench).make(10 * epochs).double().cpu()

    with full_fp32():
        fp32, bf16, other = losses("fp32", 0), losses("bf16", 0), losses("fp32", 1)
    apart, chance = ((each - fp32).abs() / fp32 for each in (bf16, other))
    figures = {
        "steps": 10 * epochs, "mean apart": apart.mean().item(), "most apart": apart.max().item(),
        "last ten apart": apart[-10:].max().item(), "another seed: mean apart": chance.mean().item(),
        "another seed: most apart": chance.max().item(), "fp32 from": fp32[:10].mean().item(),
        "to": fp32[-10:].mean().item(), "bf16 to": bf16[-10:].mean().item(),
    }  # fmt: skip
    learnt = all(each[-10:].mean() < 0.95 * each[:10].mean() for each in (fp32, bf16))
    good = learnt and 0 < figures["most apart"] <= CURVE
    yield Row("loss in bf16 against fp32", _state(good), figures, f"at most {CURVE:g} apart, and it falls")


def resume(bench: Bench) -> Iterator[Row]:
    """Trials whose process is killed with SIGKILL in the second epoch, and that go on from their checkpoint in another
    process, against ones that are left alone: the same bits with `deterministic`, close without."""
    modes = {"at will": False, "deterministic": True}  # in this order, as in a warm actor
    with ThreadPoolExecutor() as threads:
        killed = [threads.submit(_killed, bench, name, exact) for name, exact in modes.items()]
        with Worker(bench, "survivor") as survivor:
            whole = {name: _trained(bench, survivor, exact, f"whole {name}") for name, exact in modes.items()}
            for each in killed:
                each.result()
            for name, exact in modes.items():
                expected, got = whole[name], _trained(bench, survivor, exact, f"killed {name}")
                yield _resumed(bench, name, exact, got, expected)


def _resumed(bench: Bench, name: str, exact: bool, got: dict[str, Any], expected: dict[str, Any]) -> Row:
    same, resumed_at = (
        got["weights"] == expected["weights"] | {"path": got["weights"]["path"]},
        got["facts"]["resumed_at"],
    )
    one, other = (load_weights(Weights(**answer["weights"])) for answer in (got, expected))
    apart = apart_of(one, other, _start(_resumable(bench, exact)))
    good = resumed_at == 10 and (same if exact else apart <= NOISE)
    figures = {"same bits": same, "weights apart": apart, "resumed at step": resumed_at}
    return Row(f"resumed after SIGKILL, {name}", _state(good), figures, "same bits" if exact else f"at most {NOISE:g}")


def _resumable(bench: Bench, exact: bool) -> DrawnTrial:
    return swin(bench, 2, precision="auto", drop_path=0.1, deterministic=exact, checkpoint_epochs=1, measured=False)


def _killed(bench: Bench, name: str, exact: bool) -> None:
    """Raises RuntimeError when the process is not killed."""
    with Worker(bench, f"killed {name}", {"ORCHESTRATOR_CRASH_AT": f"step:{KILLED_AT}"}) as worker:
        worker.ask(_resumable(bench, exact), bench.folder / f"killed {name}", bench.threads)
        if worker.answer() is not None or (code := worker.end()) != -signal.SIGKILL:
            raise RuntimeError(f"the process was not killed in step {KILLED_AT} ({code}): {worker.why()}")


def _trained(bench: Bench, worker: Worker, exact: bool, folder: str) -> dict[str, Any]:
    worker.ask(_resumable(bench, exact), bench.folder / folder, bench.threads)
    answer = worker.answer()
    if answer is None:
        raise RuntimeError(f"the process ended with {worker.end()}: {worker.why()}")
    return answer


@contextmanager
def full_fp32() -> Iterator[None]:
    """torch lets convolutions use tf32 where the GPU has it; not here."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _close(trial: DrawnTrial, bench: Bench, name: str, got: Ended, expected: Ended) -> Row:
    figures = {"weights apart": apart_of(got.weights, expected.weights, _start(trial))}
    losses = [ended.reports[-1].values["train_loss"] for ended in (got, expected)]
    figures["loss apart"] = abs(losses[0] - losses[1]) / losses[1]
    most = _most_apart(trial, bench)
    good = figures["weights apart"] <= most and figures["loss apart"] <= LOSSES
    return Row(name, _state(good), figures, f"at most {most:.2g}, {LOSSES:g}")


_ROUNDED: dict[str, float] = {}
"""By trial: see `_most_apart`."""


def _most_apart(trial: DrawnTrial, bench: Bench) -> float:
    """How far sums in another order may move the end of the trial, as part of the way from the initial weights."""
    if trial.key not in _ROUNDED:
        nudged = trial.model_copy(update={"task": trial.task.model_copy(update={"nudge": ONE_ROUNDING})})
        with full_fp32():
            plain, rounded = (carry_out(each, bench).weights for each in (trial, nudged))
        _ROUNDED[trial.key] = apart_of(rounded, plain, _start(trial))
    return max(LEAST, ROUNDING * _ROUNDED[trial.key])


def _state(good: bool) -> State:
    return State.passed if good else State.failed


def _same(one: Ended, other: Ended) -> bool:
    assert one.outcome.weights is not None
    assert other.outcome.weights is not None
    return one.outcome.weights.sha256 == other.outcome.weights.sha256


def _start(trial: DrawnTrial) -> dict[str, torch.Tensor]:
    """The weights before the first step."""
    seed_all(trial.seed, "model", 0)
    return dict(trial.task.build(trial.backbone, None).state_dict())


def apart_of(
    got: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    start: Mapping[str, torch.Tensor] | None = None,
) -> float:
    """The norm of the difference of all numbers over that of what is expected, in float64; infinite where it is none.

    `start`: over the way from there to what is expected, which is much shorter.
    """
    if got.keys() != expected.keys():
        raise RuntimeError(f"not the same tensors: {', '.join(sorted(got.keys() ^ expected.keys())[:4])}")
    floating = [name for name, value in expected.items() if value.is_floating_point()]
    difference = sum((got[name].double() - expected[name].double()).square().sum().item() for name in floating)
    way = {name: expected[name].double() - (start[name].double() if start else 0) for name in floating}
    size = sum(value.square().sum().item() for value in way.values())
    apart = math.sqrt(difference / size) if size > 0 else math.inf
    return apart if math.isfinite(apart) else math.inf
