"""Blocks of one kind share a graph; compiled ones compute what the others do, and keep their names and hooks."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from tasks.backbones.compiled_blocks import compile_blocks, is_compiled, repeated_blocks
from tasks.backbones.model import build
from tasks.backbones.spec import BackboneSpec
from workers.draws import Draws, Watch, around_block, draw_for_the_global_batch
from workers.prepare import seed_all

CPU = torch.device("cpu")
ARGS: dict[str, dict[str, Any]] = {
    "swinv2_tiny_window8_256": {
        "patch_size": 4, "embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4,
    },
    "swin_tiny_patch4_window7_224": {
        "patch_size": 4, "embed_dim": 8, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4,
    },
    "vit_tiny_patch16_224": {"patch_size": 8, "embed_dim": 16, "depth": 4, "num_heads": 2},
    "beit_base_patch16_224": {
        "patch_size": 8, "embed_dim": 16, "depth": 4, "num_heads": 2, "init_values": 0.1, "use_abs_pos_emb": False,
        "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True,
    },
    "replknet_31b_mim": {"layers": [2, 2], "channels": [8, 16], "kernels": [7, 5], "entry_channels": 8},
    "resnet10t": {"channels": [8, 8, 16, 16], "stem_width": 8},
}  # fmt: skip
BLOCKS = {
    # blocks, and their kinds: of stages, of shifted windows (which have a mask), without drop path (the first one)
    "swinv2_tiny_window8_256": (4, 3), "swin_tiny_patch4_window7_224": (4, 3), "vit_tiny_patch16_224": (4, 2),
    "beit_base_patch16_224": (4, 2), "replknet_31b_mim": (8, 6),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _without_graphs() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()


def model_of(name: str, image_size: int = 32) -> nn.Module:
    drop_path = 0.0 if name == "resnet10t" else 0.5
    backbone = BackboneSpec(model=name, image_size=image_size, args=ARGS[name], drop_path=drop_path)
    seed_all(0, "model", 0)
    return build(backbone, 3).train()


def losses(model: nn.Module, compiled: bool, backend: str = "eager") -> list[float]:
    """Of two steps in two micro-batches, with draws of the global batch; and one of evaluation."""
    draws = Draws(8, torch.arange(8), CPU, counts_calls=False)
    draw_for_the_global_batch(model, draws)
    if compiled:
        compile_blocks(model, partial(around_block, draws), 32, backend=backend)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    found = []
    for step in range(2):
        draws.begin_step(step)
        optimizer.zero_grad()
        for own in (slice(0, 4), slice(4, 8)):
            seed_all(0, "step", step)
            watch = Watch(CPU)
            with draws.samples(own):
                loss = model(images[own]).square().mean()
                draws.check_backward(loss.backward)
            assert not watch.unexplained(draws)
            found.append(loss.item())
        optimizer.step()
    with torch.no_grad():
        found.append(model.eval()(images[:4]).square().mean().item())
    return found


@pytest.mark.parametrize(
    ("name", "backend"),
    [("swinv2_tiny_window8_256", "eager"), ("vit_tiny_patch16_224", "aot_eager"), ("replknet_31b_mim", "eager")],
)
def test_compiled_blocks_compute_and_drop_the_same_with_a_graph_for_each_kind(name: str, backend: str) -> None:
    """`aot_eager` takes the backward pass into the graph too, which takes many seconds for SwinV2."""
    plain = losses(model_of(name), compiled=False)
    assert losses(model_of(name), compiled=True, backend=backend) == pytest.approx(plain, rel=1e-4)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert graphs == 2 * BLOCKS[name][1]  # in training, and in evaluation
    assert not torch._dynamo.utils.counters["graph_break"]


def test_with_gradient_checkpointing_the_same_samples_are_dropped_again() -> None:
    name = "swinv2_tiny_window8_256"
    plain, other = losses(model_of(name), compiled=False), model_of(name)
    other.set_grad_checkpointing(True)  # type: ignore[operator]
    assert losses(other, compiled=True) == pytest.approx(plain, rel=1e-4)


def test_another_trial_of_the_process_uses_the_graphs_again() -> None:
    name = "vit_tiny_patch16_224"
    first = losses(model_of(name), compiled=True)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert losses(model_of(name), compiled=True) == first
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs == 2 * BLOCKS[name][1]


@pytest.mark.parametrize("name", sorted(ARGS))
def test_the_repeated_blocks_of_a_model(name: str) -> None:
    model = model_of(name)
    before = list(model.state_dict())
    count = BLOCKS[name][0] if name in BLOCKS else 0
    assert len(list(repeated_blocks(model))) == count
    assert not is_compiled(model)
    assert compile_blocks(model, lambda block: None, 32, backend="eager") == count
    assert is_compiled(model) == bool(count)
    assert list(model.state_dict()) == before


def test_hooks_of_a_block_are_called_and_a_copy_calls_its_own_weights() -> None:
    model = model_of("vit_tiny_patch16_224").eval()
    compile_blocks(model, lambda block: None, 32, backend="eager")
    called: list[Any] = []
    list(repeated_blocks(model))[1].register_forward_hook(lambda *parts: called.append(parts[2]))
    images = torch.ones(2, 3, 32, 32)
    with torch.no_grad():
        expected = model(images)
        assert len(called) == 1
        other = copy.deepcopy(model)
        for parameter in model.parameters():
            parameter.zero_()
        torch.testing.assert_close(other(images), expected)
        assert not torch.equal(model(images), expected)


def test_a_model_that_is_compiled_as_a_whole_is_known_too() -> None:
    model = model_of("resnet10t")
    model.compile(backend="eager")
    assert is_compiled(model)
