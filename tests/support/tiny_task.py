"""The smallest task (generated images, a perceptron, faults on request), and helpers that run its trials."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional
from torch.optim.optimizer import register_optimizer_step_post_hook

from tasks.backbones.spec import BackboneSpec, Init, Scratch
from tasks.base import EVERYTHING, Batch, DataContext, EvaluationShare, Loaders, Task
from tasks.errors import DataError
from tasks.metrics import Metric, Summary, percent
from workers.checkpoint import load_weights
from workers.messages import Outcome, Report, Weights
from workers.optim_spec import OptimSpec
from workers.state import RankContext
from workers.throughput import PREFIX
from workers.train import train
from workers.trial import RuntimeSpec, Span, TrialSpec

CLASSES = 3
EXACT = {"rtol": 1e-5, "atol": 1e-6}
"""How much rounding may change a weight when the same sum is taken in another order."""


class Tiny(Task):
    kind: Literal["tiny"] = "tiny"
    images: int = 32
    dropout: float = 0.0
    noise: float = 0.0
    """Weight in the loss of random numbers from NumPy's and Python's generators: a resume must restore them too."""
    batch_norm: bool = False
    blocks: int = 0
    """Number of repeated layers, which are sharded one by one."""
    draws: int = 0
    """Number of pictures."""
    memory: tuple[int, ...] = ()
    """Images that fit in one forward pass, by rank; more raise the device's error."""
    memory_error: Literal["cuda", "cublas", "cpu"] = "cuda"
    inf_at: int | None = None
    """Step of the first epoch whose images are infinite."""
    test: bool = False
    broken: str = ""
    """DataError of this text when the data are opened."""

    metrics = property(  # type: ignore[assignment]
        lambda self: (percent("top1", "top-1 accuracy"), Metric("evaluations", "evaluations", "higher"))
    )
    reads_test = property(lambda self: self.test)  # type: ignore[assignment]
    train_samples = property(lambda self: self.images)  # type: ignore[assignment]
    evaluation_samples = property(lambda self: 10)  # type: ignore[assignment]

    def missing_data(self, root: Path) -> str | None:
        return None

    def build(self, backbone: BackboneSpec, weights: Mapping[str, torch.Tensor] | None) -> nn.Module:
        model = Perceptron(self)
        if weights is not None:
            model.load_state_dict(weights)
        return model

    def loaders(self, place: DataContext) -> Loaders:
        if self.broken:
            raise DataError(self.broken)
        return TinyLoaders(self, place)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        loss = functional.cross_entropy(model(batch["images"]), batch["labels"])
        noise = self.noise * (np.random.rand() + random.random()) if self.noise else 0.0
        return {"loss": loss * (1 + noise), "plain": loss}

    def measure(self, model: nn.Module, batches: Iterable[Batch]) -> Iterator[tuple[str, Any]]:
        assert not model.training
        for batch in batches:
            yield batch["item"], (model(batch["images"]).argmax(1) == batch["labels"]).float().mean().item()

    def summarize(self, parts: Sequence[tuple[str, Any]]) -> Summary:
        return Summary({"top1": float(np.mean([part for _, part in parts])), "evaluations": 1.0})

    def pictures(self, model: nn.Module, loaders: Loaders) -> dict[str, NDArray[np.uint8]]:
        """Outputs as grey values, so that pictures differ from epoch to epoch and need the whole model."""
        assert not model.training
        images = next(iter(loaders.evaluation()))["images"]
        logits = model(images).sigmoid().mul(255).byte().numpy()
        return {f"draw-{n}": np.repeat(logits[:, :, None], 3, axis=2) for n in range(self.draws)}


class Perceptron(nn.Module):
    def __init__(self, task: Tiny) -> None:
        super().__init__()
        self.task = task
        self.first = nn.Linear(48, 16)
        self.norm = nn.BatchNorm1d(16) if task.batch_norm else nn.Identity()
        self.body = nn.Sequential(*(Block() for _ in range(task.blocks)))
        self.drop = nn.Dropout(task.dropout)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.first(images.flatten(1)))
        rank = dist.get_rank() if dist.is_initialized() else 0
        if self.training and self.task.memory and len(images) > self.task.memory[rank]:
            if self.task.memory_error == "cuda":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")
            if self.task.memory_error == "cublas":
                raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 2 bytes")
        return self.head(self.drop(functional.gelu(self.body(x))))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + functional.gelu(self.layer(x))


class TinyLoaders(Loaders):
    def __init__(self, task: Tiny, place: DataContext) -> None:
        draw = torch.Generator().manual_seed(7)
        self._images = torch.randn(task.images + 10, 3, 4, 4, generator=draw)
        self._labels = self._images.flatten(1)[:, :CLASSES].argmax(1)
        self._task, self._place = task, place
        self.train_samples = task.images
        self.steps_per_epoch = task.images // place.batch
        self.digest = "tiny"

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        place = self._place
        order = torch.randperm(self.train_samples, generator=torch.Generator().manual_seed(1000 * place.seed + epoch))
        share = place.batch // place.world
        for step in range(first_step, self.steps_per_epoch):
            mine = order[step * place.batch + place.rank * share :][:share]
            images = self._images[mine]
            if epoch == 0 and step == self._task.inf_at:
                images = images * torch.inf
            yield {"images": images.to(place.device), "labels": self._labels[mine].to(place.device)}

    def evaluation(self, share: EvaluationShare = EVERYTHING) -> Iterable[Batch]:
        for position, first in enumerate((self.train_samples, self.train_samples + 5)):
            if share.wants(position, item := str(position)):
                part = slice(first, first + 5)
                yield {"images": self._images[part], "labels": self._labels[part], "item": item}


class TinyTrial(TrialSpec):
    task: Tiny  # type: ignore[assignment]


def trial(
    task: dict[str, Any] | None = None,
    init: Init | None = None,
    runtime: dict[str, Any] | None = None,
    seed: int = 3,
    may_test: bool = False,
    span: Span | None = None,
    **optim: Any,
) -> TinyTrial:
    """4 epochs of 4 steps of 8 images; eps is large, so that rounding in a gradient stays rounding in a weight."""
    wanted = {"lr": 1e-2, "epochs": 4, "warmup_epochs": 1, "batch": 8, "eps": 1e-2, **optim}
    return TinyTrial(
        task=Tiny(**(task or {})),
        backbone=BackboneSpec(model="vit_tiny_patch16_224", image_size=4, init=init or Scratch()),
        optim=OptimSpec(**wanted),
        runtime=RuntimeSpec(**(runtime or {})),
        seed=seed,
        may_test=may_test,
        span=span,
    )


def trial_of(task: Tiny, batch_workers: int = 1, **fields: Any) -> TinyTrial:
    """As `trial`, of a task made from Tiny."""
    plain = trial(**fields)
    parts = {name: getattr(plain, name) for name in TinyTrial.model_fields}
    return TinyTrial(**{**parts, "task": task, "batch_workers": batch_workers})


VIT: dict[str, Any] = {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}


def real(model: str, args: dict[str, Any], **runtime: Any) -> TrialSpec:
    return TrialSpec.model_validate(
        {
            "task": {"kind": "classify", "dataset": "digits", "augment": {"rand_augment": "none"}},
            "backbone": {"model": model, "image_size": 32, "args": args, "drop_path": 0.2 if "vit" in model else 0},
            "optim": {"lr": 1e-3, "epochs": 1, "warmup_epochs": 0.5, "batch": 100, "micro_batch": 50},
            "runtime": runtime,
        }
    )


def run(
    spec: TrialSpec, folder: Path, stop: Callable[[], bool] = lambda: False, **place: Any
) -> tuple[Outcome, list[Report]]:
    """Runs the trial with its weights kept; returns the outcome, and the reports as a store keeps them: the last of
    each epoch."""
    reports: dict[int, Report] = {}
    where = {"keep_weights": True, "data_root": folder, **place}
    outcome = train(
        spec, RankContext(folder=folder, **where), lambda report: reports.update({report.epoch: report}), stop
    )
    return outcome, list(reports.values())


def digest(outcome: Outcome) -> str:
    """SHA-256 of the final weights."""
    assert isinstance(outcome.weights, Weights)
    return outcome.weights.sha256


def seen(reports: list[Report]) -> list[tuple[int, int, dict[str, float]]]:
    """The parts of reports that must be the same in every run: all but time and speed."""
    return [(report.epoch, report.step, outcome_values(report)) for report in reports]


def outcome_values(report: Report) -> dict[str, float]:
    """A report's values without those about speed."""
    return {name: value for name, value in report.values.items() if not name.startswith(PREFIX)}


def weights_of(outcome: Outcome) -> dict[str, torch.Tensor]:
    assert outcome.weights is not None
    return load_weights(outcome.weights)


def assert_close(first: Outcome, second: Outcome) -> None:
    torch.testing.assert_close(weights_of(first), weights_of(second), **EXACT)


def after(steps: int) -> Callable[[], bool]:
    """A `stop` that turns true when so many optimizer steps were made from now on (0: at once)."""
    made = 0

    def count(*_: Any) -> None:
        nonlocal made
        made += 1

    hook = register_optimizer_step_post_hook(count)

    def stop() -> bool:
        if made >= steps:
            hook.remove()
        return made >= steps

    return stop


def undisturbed() -> TinyTrial:
    """A trial with random numbers everywhere, and a checkpoint after every epoch."""
    return trial({"dropout": 0.3, "noise": 0.1}, runtime={"checkpoint_epochs": 1})
