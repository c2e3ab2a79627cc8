"""Training on a CPU flushes denormal numbers to zero, in its own steps alone, and no weight changes by that."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_task import Tiny, trial_of
from tiny_task import run as run_trial
from torch import nn

from tasks.base import Batch
from workers import denormals

CPU = torch.device("cpu")


class Watched(Tiny):
    """Its loss says whether denormal numbers are flushed."""

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        return {**super().loss(model, batch), "flushed": torch.tensor(float(denormals.are_flushed()))}


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="the processor cannot flush denormal numbers")
def test_a_training_step_flushes_denormal_numbers_and_nothing_after_it_does(tmp_path: Path) -> None:
    _, reports = run_trial(trial_of(Watched(), epochs=1, warmup_epochs=0), tmp_path)
    assert reports[-1].values["train_flushed"] == 1
    assert not denormals.are_flushed()


@pytest.mark.skipif(not torch.set_flush_denormal(False), reason="the processor cannot flush denormal numbers")
def test_what_held_before_holds_again_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), denormals.flushed(CPU):
        raise ZeroDivisionError
    assert not denormals.are_flushed()
    with denormals.flushed(CPU):
        with denormals.flushed(CPU):
            pass
        assert denormals.are_flushed()


def stepped(flush: bool) -> tuple[list[torch.Tensor], bool]:
    """The weights of a small Swin after five steps, and whether its attention had denormal numbers in any of them."""
    import timm

    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 4, "window_size": 4, "embed_dim": 16, "depths": (2,), "num_heads": (2,)}
    model = timm.create_model("swinv2_tiny_window8_256", num_classes=3, strict_img_size=False, **sizes)
    seen: list[bool] = []
    for module in model.modules():
        if isinstance(module, nn.Softmax):
            module.register_forward_hook(lambda _, __, out: seen.append(bool(((out > 0) & (out < 1e-38)).any())))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    images = torch.randn(4, 3, 32, 32)
    for _ in range(5):
        optimizer.zero_grad()
        if flush:
            with denormals.flushed(CPU):
                model(images).square().mean().backward()
                optimizer.step()
        else:
            model(images).square().mean().backward()
            optimizer.step()
    return [parameter.detach() for parameter in model.parameters()], any(seen)


def test_shifted_windows_give_the_same_weights_to_the_bit() -> None:
    (plain, had_some), (flushed, _) = stepped(flush=False), stepped(flush=True)
    assert had_some, "nothing to flush: the test would show nothing"
    assert all(torch.equal(one, other) for one, other in zip(plain, flushed, strict=True))
