"""The only place that knows attention windows: which do not divide the map, and which ones weights were made with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

Window = tuple[int, int]
Windows = tuple[Window, ...]
"""Height and width per stage, in tokens."""

_TABLE = re.compile(r"(?:^|\.)layers\.(\d+)\.blocks\.\d+\.attn\.relative_coords_table$")


def check_windows(model: nn.Module) -> None:
    """Refuses a Swin or SwinV2 whose window does not divide the map of a stage (ValueError naming sizes that would).

    timm shifts and then pads such a map, the reference code pads and then shifts: the same weights give other numbers.
    A window larger than its map is no such case: both take the whole map then.
    """
    from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
    from timm.models.swin_transformer_v2 import SwinTransformerV2, SwinTransformerV2Block

    if not isinstance(model, SwinTransformer | SwinTransformerV2):
        return
    blocks = [part for part in model.modules() if isinstance(part, SwinTransformerBlock | SwinTransformerV2Block)]
    maps: list[Window] = list(dict.fromkeys(tuple(block.input_resolution) for block in blocks))
    bad = [block for block in blocks if not _divides(block.window_size, block.input_resolution)]
    if not bad:
        return
    window, (height, width) = max(max(block.window_size) for block in blocks), bad[0].input_resolution
    (side, _), (patch, _) = model.patch_embed.img_size, model.patch_embed.patch_size
    fitting = [size for size in range(2, max(maps[0]) + 1) if _all_divide(size, [max(shape) for shape in maps])]
    sizes = [
        count * patch
        for count in range(window, 4 * side // patch + 1)
        if _all_divide(window, [-(-count // 2**stage) for stage in range(len(maps))])
    ]
    raise ValueError(
        f"window {bad[0].window_size[0]} does not divide a map of {height} x {width} tokens (image_size {side}), and "
        f"there timm and the reference code differ; windows that divide every map: {_nearest(fitting, window)}; "
        f"image sizes for window {window}: {_nearest(sizes, side)}"
    )


def _divides(window: Sequence[int], shape: Sequence[int]) -> bool:
    return all(tokens % size == 0 for size, tokens in zip(window, shape, strict=True))


def _all_divide(window: int, sides: list[int]) -> bool:
    """Also even sides, but for the last: merging patches pads odd ones."""
    return all(side % min(window, side) == 0 for side in sides) and all(side % 2 == 0 for side in sides[:-1])


def _nearest(sizes: list[int], wanted: int) -> str:
    return ", ".join(str(size) for size in sorted(sorted(sizes, key=lambda size: abs(size - wanted))[:4])) or "none"


def reference_windows(model: nn.Module) -> Windows | None:
    """Windows that SwinV2's position bias refers to, per stage; None for a model without such a bias.

    The bias is a learned function of coordinates divided by (window - 1); the window is that of pre-training where the
    model was told it (`pretrained_window_sizes`), else its own. The same weights need the same divisor for ever.
    """
    from timm.models.swin_transformer_v2 import SwinTransformerV2Stage, WindowAttention

    found: list[Window] = []
    for stage in (part for part in model.modules() if isinstance(part, SwinTransformerV2Stage)):
        attention = next(part for part in stage.modules() if isinstance(part, WindowAttention))
        told = attention.pretrained_window_size
        height, width = told if told[0] > 0 else attention.window_size
        found.append((int(height), int(width)))
    return tuple(found) or None


def windows_in(state: Mapping[str, torch.Tensor]) -> Windows | None:
    """The same, from the coordinate tables that the official code saves with its weights; None when there are none.

    A table holds sign(x) * log2(8 |x| + 1) / log2(8) with x = offset / (window - 1), so its largest entry tells the
    window that it was divided by.
    """
    found: dict[int, Window] = {}
    for name, table in state.items():
        match = _TABLE.search(name)
        if match:
            _, rows, columns, _ = table.shape
            height = _divisor((rows + 1) // 2, table[..., 0].max().item())
            found[int(match[1])] = (height, _divisor((columns + 1) // 2, table[..., 1].max().item()))
    return tuple(found[stage] for stage in sorted(found)) or None


def _divisor(window: int, largest: float) -> int:
    return round(8 * (window - 1) / (8.0**largest - 1)) + 1 if window > 1 else 1


def check_same_windows(model: nn.Module, made_with: Windows | None) -> None:
    """Refuses (ValueError) a SwinV2 that would read its weights' position bias with another window than theirs.

    `made_with`: what the weights say; None: they say nothing, and nothing is checked.
    """
    own = reference_windows(model)
    if own is None or made_with is None or own == made_with:
        return
    wanted = ", ".join(str(height) for height, _ in made_with)
    raise ValueError(
        f"the weights' position bias was learned with windows {_said(made_with)}, this model would read it with "
        f"{_said(own)}; add to backbone.args: pretrained_window_sizes: [{wanted}]"
    )


def _said(windows: Windows) -> str:
    return "(" + ", ".join(str(h) if h == w else f"{h} x {w}" for h, w in windows) + ")"
