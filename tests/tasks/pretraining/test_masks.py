"""On what a mask depends: in training on the seed, the epoch and the image; on val on the image alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tasks.base import Batch, DataContext
from tasks.pretraining.masking import Masking
from tasks.pretraining.masks import Masks

MASKING = Masking(image_size=24, patch=4, ratio=0.6)
INDICES = torch.tensor([5, 0, 2**40])


def masks_of(seed: int = 3, **context: int) -> Masks:
    given = {"input_size": (24, 24), "device": "cpu", "batch": 8, **context}
    return Masks(MASKING, DataContext(Path("/nowhere"), seed=seed, **given))  # type: ignore[arg-type]


def batch(count: int = 3) -> Batch:
    return {"images": torch.arange(count * 3.0).view(count, 3, 1, 1), "labels": torch.zeros(count)}


def training(seed: int = 3, epoch: int = 1, step: int = 0, indices: Tensor = INDICES, **context: int) -> Tensor:
    masked: Tensor = masks_of(seed, **context).train(batch(len(indices)), epoch, step, indices)["masks"]
    return masked


def on_val(seed: int = 3, indices: Tensor = INDICES, **context: int) -> Tensor:
    masked: Tensor = masks_of(seed, **context).evaluate(batch(len(indices)), indices)["masks"]
    return masked


def differ(first: Tensor, second: Tensor) -> bool:
    """True if every image has another mask."""
    return not any(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_a_training_mask_changes_with_the_seed_the_epoch_and_the_image() -> None:
    assert differ(training(), training(seed=4))
    assert differ(training(), training(epoch=2))
    assert differ(training(), training(indices=INDICES + 1))


def test_a_training_mask_does_not_change_with_anything_else() -> None:
    assert torch.equal(training(), training(step=9))
    assert torch.equal(training(), training(rank=1, world=2))
    assert torch.equal(training(), training(batch=64))
    assert torch.equal(training(indices=INDICES.flip(0)), training().flip(0))
    assert torch.equal(training(indices=INDICES[1:]), training()[1:])


def test_a_val_mask_is_of_the_image_alone_and_none_of_training() -> None:
    for other in (on_val(seed=4), on_val(batch=64), on_val(rank=1, world=2)):
        assert torch.equal(on_val(), other)
    assert torch.equal(on_val(indices=INDICES.flip(0)), on_val().flip(0))
    assert differ(on_val(), on_val(indices=INDICES + 1))
    for epoch in range(3):
        assert differ(on_val(seed=0), training(seed=0, epoch=epoch))


@pytest.mark.parametrize("evaluate", [False, True])
def test_a_batch_has_its_images_and_masks_and_nothing_else(evaluate: bool) -> None:
    given = batch()
    masked = masks_of().evaluate(given, INDICES) if evaluate else masks_of().train(given, 0, 0, INDICES)
    assert masked.keys() == {"images", "masks"}
    assert torch.equal(masked["images"], given["images"])
    assert masked["masks"].shape == (3, 6, 6)
    assert masked["masks"].dtype == torch.bool
    assert masked["masks"].flatten(1).sum(1).tolist() == [22, 22, 22]


def test_todays_masks_are_those_of_tomorrow() -> None:
    """A changed mask is another trial: raise KEY_VERSION before this test is changed."""
    rows = [[int("".join(str(int(hidden)) for hidden in row)) for row in mask] for mask in (training()[0], on_val()[0])]
    assert rows[0] == [101010, 10011, 10111, 111100, 11110, 11110]
    assert rows[1] == [10100, 111011, 111111, 100010, 101010, 10111]
