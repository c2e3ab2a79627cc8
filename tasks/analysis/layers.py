"""Takes attention maps, block outputs and large kernels out of built models, one block at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from tasks.analysis.attention import Places
from tasks.backbones.features import feature_info
from tasks.backbones.large_kernel_conv import LargeKernel

Layout = Literal["tokens", "rows", "channels"]
"""Output of a block: (n, tokens, c), (n, h, w, c), or (n, c, h, w)."""


@dataclass(frozen=True)
class AttentionLayer:
    """The attention of one block."""

    name: str
    module: nn.Module
    heads: int
    places: Places
    """Of the tokens among which it attends: those of the image, or of a window."""
    allowed: Tensor | None = None
    """(windows, tokens, tokens), where windows are shifted: true where a query may see a key."""

    def plain(self) -> dict[str, Any]:
        """As JSON values, for the record."""
        places = self.places
        return {
            "name": self.name, "heads": self.heads, "attends_over": [places.height, places.width],
            "pixels": list(places.pixel), "prefix_tokens": places.prefix, "shifted": self.allowed is not None,
        }  # fmt: skip


@dataclass(frozen=True)
class Blocks:
    """The blocks of a model in order, whose outputs are its layers' features."""

    names: tuple[str, ...]
    modules: tuple[nn.Module, ...]
    layout: Layout
    prefix: int = 0
    """Tokens before the patches (layout `tokens`)."""
    others: tuple[nn.Module, ...] = ()
    """What else takes images or maps one by one, between blocks and before them; empty where nothing is known of it."""


def attention_layers(model: nn.Module, size: tuple[int, int]) -> list[AttentionLayer]:
    """The attention of every block of a ViT, BEiT, DeiT, Swin or SwinV2, in order. `size`: height and width of the
    input in pixels.

    Raises ValueError for any other model.
    """
    found = blocks(model)
    if found.layout == "channels" or not all(_attends(block) for block in found.modules):
        raise ValueError(
            f"{type(model).__name__} has no attention that this analysis knows (it knows ViT, DeiT, BEiT, Swin, "
            "SwinV2, and the kernels of RepLKNet): leave attention out of task.measures, or use another backbone.model"
        )
    layers = []
    for name, block in zip(found.names, found.modules, strict=True):
        attention = cast("Any", block).attn
        if found.layout == "rows":
            places, allowed = _window(block, size)
        else:
            height, width = cast("Any", model).patch_embed.grid_size
            places, allowed = Places(height, width, (size[0] / height, size[1] / width), found.prefix), None
        layers.append(AttentionLayer(name, attention, int(attention.num_heads), places, allowed))
    return layers


def _attends(block: nn.Module) -> bool:
    attention = getattr(block, "attn", None)
    return isinstance(getattr(attention, "attn_drop", None), nn.Module) and hasattr(attention, "num_heads")


def _window(block: Any, size: tuple[int, int]) -> tuple[Places, Tensor | None]:
    """The places in a window of a Swin or SwinV2 block, and what its shift lets queries see. Windows divide their map:
    `tasks.backbones.model.build` refuses others. So what a shift wraps around the border is masked, and places within a
    window are as far apart as in the image.

    A mask takes 100 from a logit. In Swin, whose logits are small, that leaves a weight of about e^-100. Logits of
    SwinV2 are a cosine times up to 100 and a bias of up to 16, so a masked key may keep more where two heads' logits
    lie far apart. The map is measured as the model applies it: such a weight counts at the key's place in the window.
    """
    rows, columns = block.input_resolution
    high, wide = block.window_size
    mask = block.attn_mask
    places = Places(high, wide, (size[0] / rows, size[1] / columns))
    return places, None if mask is None else mask == 0


@contextmanager
def attention_maps(layers: Sequence[AttentionLayer], take: Callable[[int, Tensor], None]) -> Iterator[None]:
    """Within it, every forward pass hands `take` the number of each layer and its map (n, heads, tokens, tokens), rows
    of which sum to 1; n counts images, or windows of images. Maps are not kept.

    Attention is computed unfused meanwhile, by the attribute of these modules: timm's own switch is one for the whole
    process, in which other trials run later. Raises ValueError, in the forward pass, for a map that is not as the
    layer's places say.
    """
    with ExitStack() as stack:
        for number, layer in enumerate(layers):
            attention: Any = layer.module
            if hasattr(attention, "fused_attn"):
                stack.callback(setattr, attention, "fused_attn", attention.fused_attn)
                attention.fused_attn = False
            handle = attention.attn_drop.register_forward_pre_hook(partial(_handed_over, number, layer, take))
            stack.callback(handle.remove)
        yield


def _handed_over(
    number: int, layer: AttentionLayer, take: Callable[[int, Tensor], None], module: nn.Module, inputs: Any
) -> None:
    """The input of the dropout behind the softmax is the attention map, in every timm model."""
    maps: Tensor = inputs[0]
    tokens = layer.places.tokens
    if maps.shape[1:] != (layer.heads, tokens, tokens):
        raise ValueError(
            f"{layer.name}: attention maps of shape {tuple(maps.shape)}, not (n, {layer.heads}, {tokens}, {tokens}): "
            "this analysis does not know this model's attention; leave attention out of task.measures"
        )
    first = maps[0].detach()
    if (first.sum(-1) - 1).abs().max() > 1e-3:
        raise ValueError(f"{layer.name}: rows of its attention do not sum to 1: leave attention out of task.measures")
    take(number, maps.detach())


def blocks(model: nn.Module) -> Blocks:
    """The blocks of a model: of ViT, BEiT, Swin and SwinV2 its own; of RepLKNet each large-kernel block with the
    feed-forward behind it; of any other model the levels of timm's `feature_info`. Raises ValueError where it has none.
    """
    part = cast("Any", model)
    family = {base.__name__ for base in type(model).__mro__}
    if family & {"SwinTransformer", "SwinTransformerV2"}:
        named = _named(model, [block for stage in part.layers for block in stage.blocks])
        between = tuple(stage.downsample for stage in part.layers if not isinstance(stage.downsample, nn.Identity))
        return Blocks(*named, "rows", others=(part.patch_embed, *between))
    if "RepLKNet" in family:
        named = _named(model, [block for stage in part.stages for block in list(stage.blocks)[1::2]])
        first = tuple(block for stage in part.stages for block in list(stage.blocks)[::2])
        return Blocks(*named, "channels", others=(part.entry, part.stem, *part.transitions, *first))
    if hasattr(model, "blocks") and hasattr(getattr(model, "patch_embed", None), "grid_size"):
        return Blocks(
            *_named(model, list(part.blocks)),
            "tokens",
            int(getattr(model, "num_prefix_tokens", 0)),
            (part.patch_embed,),
        )
    modules = [model.get_submodule(level.name.replace("[", ".").replace("]", "")) for level in feature_info(model)]
    return Blocks(*_named(model, modules), "channels")


def _named(model: nn.Module, wanted: Sequence[nn.Module]) -> tuple[tuple[str, ...], tuple[nn.Module, ...]]:
    names = {module: name for name, module in model.named_modules()}
    return tuple(names[module] for module in wanted), tuple(wanted)


@contextmanager
def block_outputs(of: Blocks, take: Callable[[int, Tensor], None], batch: int) -> Iterator[None]:
    """Within it, every forward pass hands `take` the number of each block and its output for all images of the pass.

    Blocks, and the modules of `Blocks.others`, work on `batch` images at a time, whatever the number of images of the
    pass: so a Gram matrix of many images needs one block's output for all of them, and no more.
    """

    def hook(number: int, module: nn.Module, inputs: Any, output: Tensor) -> None:
        take(number, output.detach())

    with ExitStack() as stack:
        for module in (*of.modules, *of.others) if of.others else ():
            own = vars(module).get("forward")
            part = cast("Any", module)
            part.forward = partial(_in_parts, module.forward, batch)
            stack.callback(delattr, part, "forward") if own is None else stack.callback(setattr, part, "forward", own)
        for number, module in enumerate(of.modules):
            stack.callback(module.register_forward_hook(partial(hook, number)).remove)
        yield


def _in_parts(forward: Callable[..., Tensor], size: int, images: Tensor, *others: Any, **more: Any) -> Tensor:
    """The result for all images (n, ..), computed for `size` of them at a time."""
    if len(images) <= size:
        return forward(images, *others, **more)
    return torch.cat([forward(part, *others, **more) for part in torch.split(images, size)])


def pooled(output: Tensor, of: Blocks) -> Tensor:
    """(n, c): the mean of a block's output over its patches or positions, without prefix tokens."""
    if of.layout == "tokens":
        return output[:, of.prefix :].mean(1)
    return output.mean((1, 2) if of.layout == "rows" else (2, 3))


@dataclass(frozen=True)
class KernelLayer:
    """The large kernels of one block of RepLKNet."""

    name: str
    kernels: Tensor
    """(channels, height, width)"""
    stride: int
    """Pixels of the input from one position of the map to the next."""


def kernel_layers(model: nn.Module, merged: bool) -> list[KernelLayer]:
    """The large kernels of a RepLKNet in order; empty for any other model.

    `merged`: each with the small kernel and the batch norms of both folded in (float64), the one kernel that the block
    applies in eval mode; else the large kernel as it is trained, without them. Raises ValueError for the latter where
    weights hold merged kernels alone.
    """
    if type(model).__name__ != "RepLKNet":
        return []
    layers = []
    for level, stage in zip(feature_info(model), cast("Any", model).stages, strict=True):
        for name, part in stage.named_modules(prefix=level.name):
            if not isinstance(part, LargeKernel):
                continue
            if not merged and hasattr(part, "lkb_reparam"):
                raise ValueError(
                    f"{name}: these weights hold merged kernels alone, and task.re_param false asks for the large "
                    "kernel as trained: set task.re_param to true"
                )
            kernel = part.equivalent()[0] if merged else cast("Any", part).lkb_origin.conv.weight
            layers.append(KernelLayer(name, kernel.detach()[:, 0], level.stride))
    return layers
