"""Compiles a model block by block: blocks of one kind share a graph, so compiling takes seconds instead of minutes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import nn

GRAPHS_OF_A_KIND = 64
"""Graphs that one kind of block may have in a process, of training and evaluation and over all trials with its sizes.
torch allows 8, and then computes without a graph and without an error."""

Within = Callable[[], AbstractContextManager[Any]]


class CompiledBlock:
    """Stands in the place of a block's `forward`; names of parameters and hooks of the block itself stay as they are.

    Hooks of layers inside the block are not called; `torch.compiler.set_stance("force_eager")` runs the layers as they
    are. `within` surrounds every call, outside of the graph.
    """

    def __init__(self, block: nn.Module, run: Callable[..., Any], within: Within) -> None:
        self._block, self._run, self._within = block, run, within

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        with self._within():
            return self._run(self._block, inputs, named)


def compile_blocks(
    model: nn.Module, within: Callable[[nn.Module], Within | None], sizes: Hashable, backend: str = "inductor"
) -> int:
    """Compiles the repeated blocks of the model in place; returns how many it has, 0 if none.

    `within`: of a block, what surrounds its calls. `sizes`: what else than the block decides the shape of its input
    (batch, image size): blocks of other sizes have graphs of their own, since torch would make one for all sizes, which
    is slower.
    """
    config = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, GRAPHS_OF_A_KIND)
    blocks = list(repeated_blocks(model))
    for block in blocks:
        block.forward = CompiledBlock(block, _graphs(_kind(block), sizes, backend), within(block) or nullcontext)
    return len(blocks)


def is_compiled(model: nn.Module) -> bool:
    """Whether the model, or a block of it, is compiled: then hooks inside see nothing of a pass."""
    return any(
        isinstance(vars(module).get("forward"), CompiledBlock)
        or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )  # fmt: skip


def repeated_blocks(model: nn.Module) -> Iterator[nn.Module]:
    """The members of every list or sequence named `blocks`, as timm names them (Swin, SwinV2, ViT, BEiT, ConvNeXt), and
    RepLKNet; of a sequence of sequences, the inner members."""
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == "blocks" and isinstance(module, nn.ModuleList | nn.Sequential):
            yield from _members(module)


def _members(module: nn.Module) -> Iterator[nn.Module]:
    for member in module.children():
        if isinstance(member, nn.Sequential):
            yield from _members(member)
        elif any(True for _ in member.parameters()):
            yield member


def _kind(block: nn.Module) -> Hashable:
    """Equal for blocks that a graph may have in common: class, and shape and type of every tensor."""
    tensors = [*block.named_parameters(), *block.named_buffers()]
    return type(block), tuple((name, tuple(value.shape), value.dtype, value.device) for name, value in tensors)


@cache
def _graphs(kind: Hashable, sizes: Hashable, backend: str) -> Callable[..., Any]:
    """A compiled function for blocks of this kind, which later trials of the process use again.

    torch keeps graphs, and what it knows of sizes that vary, by a function's code and its name: each kind has its own.
    """

    def forward(block: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return type(block).forward(block, *inputs, **named)

    name = f"forward_{_graphs.cache_info().currsize}"
    forward.__code__ = forward.__code__.replace(co_name=name, co_qualname=name)
    return torch.compile(forward, backend=backend)
