"""Images per second of a training step: ours in the real loop, and transformers' models in a plain one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from sides.steps import InMemory, PlainLoop, in_turns_with_the_loop
from torch import Tensor, nn
from transformers import (
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Swinv2Config,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)

from tasks.backbones.spec import BackboneSpec
from tasks.base import Batch
from tasks.segmentation.mask2former import Mask2Former
from tasks.segmentation.task import Segmentation
from tasks.segmentation.upernet import UperNet
from workers.trial import TrialSpec

SIDE, BATCH = 96, 8
TASK: dict[str, Any] = {
    "kind": "segmentation", "dataset": "scene-maps", "test": {"multiple": SIDE},
    "upernet": {"channels": 64, "auxiliary_channels": 32, "averaged_over": "labelled"},
    "mask2former": {
        "channels": 64, "queries": 20, "encoder_layers": 2, "decoder_layers": 3, "encoder_feed_forward": 128,
        "feed_forward": 128, "points": 512,
    },
}  # fmt: skip
BACKBONE = BackboneSpec.model_validate({
    "model": "swinv2_tiny_window8_256", "image_size": SIDE, "drop_path": 0,
    "args": {"patch_size": 4, "embed_dim": 32, "depths": [2, 2, 4], "num_heads": [2, 4, 8], "window_size": 6},
})  # fmt: skip
"""The laptop profile of specs/segmentation.yaml; the loss is the mean over labelled pixels, as transformers has it."""
CLASSES = 7


def batches(steps: int) -> list[Batch]:
    """Each image shows four of the classes."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for step in range(steps):
        coarse = torch.rand(BATCH, CLASSES, generator=generator).argsort(1)[:, :4].view(BATCH, 2, 2)
        maps = coarse.repeat_interleave(SIDE // 2, 1).repeat_interleave(SIDE // 2, 2).to(torch.uint8)
        images = torch.randn(BATCH, 3, SIDE, SIDE, generator=generator)
        made.append({"images": images, "maps": maps, "seeds": list(range(step * BATCH, (step + 1) * BATCH))})
    return made


class SegmentationInMemory(InMemory, Segmentation):
    steps: int
    batch: ClassVar[int] = BATCH

    def made_batches(self, steps: int) -> list[Batch]:
        return batches(steps)


class Trial(TrialSpec):
    task: SegmentationInMemory  # type: ignore[assignment]


class _Encoder(nn.Module):
    """The same maps as transformers' models take them."""

    def __init__(self, maps: nn.Module) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, images: Tensor) -> Any:
        return SimpleNamespace(feature_maps=self.maps(images), hidden_states=None, attentions=None)

    def forward_with_filtered_kwargs(self, images: Tensor, **other: Any) -> Any:
        return self(images)


def _replaced() -> Swinv2Config:
    """Of a backbone that `_Encoder` takes the place of."""
    names = ["stage1", "stage2", "stage3"]
    return Swinv2Config(image_size=32, embed_dim=8, depths=[1, 1, 1], num_heads=[1, 2, 4], window_size=2,
                        out_features=names)  # fmt: skip


def upernet(trial: Trial) -> tuple[nn.Module, Callable[[Batch], Tensor]]:
    """transformers' model, and its loss of a batch."""
    ours = trial.task.build(trial.backbone, None)
    assert isinstance(ours, UperNet)
    config = UperNetConfig(backbone_config=_replaced(), num_labels=CLASSES, hidden_size=64, auxiliary_channels=32,
                           auxiliary_in_channels=64)  # fmt: skip
    model = UperNetForSemanticSegmentation(config).train()
    model.backbone = _Encoder(ours.maps)
    model.decode_head, model.auxiliary_head = ours.heads.decode_head, ours.heads.auxiliary_head
    return model, lambda batch: model(batch["images"], labels=batch["maps"].long()).loss


def mask2former(trial: Trial) -> tuple[nn.Module, Callable[[Batch], Tensor]]:
    """The same. Masks and classes of an image are made in the step, as ours are."""
    ours = trial.task.build(trial.backbone, None)
    assert isinstance(ours, Mask2Former)
    config = Mask2FormerConfig(**{**ours.decoders.config.to_dict(), "backbone_config": _replaced()})
    model = Mask2FormerForUniversalSegmentation(config).train()
    inside = model.model
    inside.pixel_level_module.encoder, inside.pixel_level_module.decoder = _Encoder(ours.maps), ours.decoders.pixels
    inside.transformer_module, model.class_predictor = ours.decoders.queries, ours.decoders.classes

    def loss(batch: Batch) -> Tensor:
        present = [torch.unique(classes).long() for classes in batch["maps"]]
        masks = [
            (classes[None] == of[:, None, None]).float() for classes, of in zip(batch["maps"], present, strict=True)
        ]
        found: Tensor = model(batch["images"], mask_labels=masks, class_labels=present).loss
        return found

    return model, loss


def plain_loop(decoder: str, trial: Trial) -> PlainLoop:
    model, loss = {"upernet": upernet, "mask2former": mask2former}[decoder](trial)
    return PlainLoop(model, batches(trial.task.steps), loss, trial.optim.lr)


def compare(decoder: str, steps: int, rounds: int) -> dict[str, Any]:
    """Epochs of `steps` batches in turns."""
    task = {**TASK, "decoder": decoder, "steps": steps}
    optim = {"lr": 1e-4, "batch": BATCH, "epochs": rounds + 1, "warmup_epochs": 0, "clip": 0}
    trial = Trial.model_validate({"task": task, "backbone": BACKBONE.model_dump(), "optim": optim})
    peer, make_other = "transformers in a plain loop", partial(plain_loop, decoder, trial)
    made = in_turns_with_the_loop(f"{decoder} step", trial, peer, make_other, steps * BATCH)
    return {**made, "batch": BATCH, "steps": steps}
