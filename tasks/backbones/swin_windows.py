"""Attention windows of Swin and SwinV2: whether they divide the maps, and which ones weights were trained with."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

Window = tuple[int, int]
Windows = tuple[Window, ...]
"""Height and width per stage, in tokens."""

_TABLE = re.compile(r"(?:^|\.)layers\.(\d+)\.blocks\.\d+\.attn\.relative_coords_table$")


def check_windows(model: nn.Module, size: tuple[int, int] | None = None) -> None:
    """Raises ValueError for a Swin or SwinV2 whose window does not divide the map of a stage; other models pass.

    timm shifts such a map and then pads it, the reference code pads and then shifts: the same weights give other
    numbers. When a model is built, its window shrinks to a map that is smaller, in both codes.

    `size`: height and width in pixels of images for a model that takes any size, whose windows no longer change; by
    default the size that the model was built for.
    """
    from timm.models.swin_transformer import SwinTransformer  # here: timm takes seconds to import
    from timm.models.swin_transformer_v2 import SwinTransformerV2

    if not isinstance(model, SwinTransformer | SwinTransformerV2):
        return
    pixels, patch = size or model.patch_embed.img_size, model.patch_embed.patch_size
    windows = {stage: layer.blocks[0].window_size for stage, layer in enumerate(model.layers) if len(layer.blocks)}
    rows, columns = (_tokens(pixels[axis], patch[axis], len(model.layers)) for axis in (0, 1))
    bad = next((s for s, (high, wide) in windows.items() if rows[s] % high or columns[s] % wide), None)
    if bad is None:
        return
    largest = max(max(window) for window in windows.values())

    def fits(tokens: list[int], axis: int) -> bool:
        if size is None:
            return tokens[0] >= largest and _divides(largest, tokens)
        return all(tokens[stage] % window[axis] == 0 for stage, window in windows.items())

    fitting = [
        window for window in range(2, max(*rows, *columns) + 1) if _divides(window, rows) and _divides(window, columns)
    ]
    raise ValueError(
        f"window {windows[bad][0]} does not divide a map of {rows[bad]} x {columns[bad]} tokens "
        f"({_image(*pixels)}), and there timm and the reference code differ; "
        + (f"windows that divide every map: {_nearest(fitting, largest)}; " if size is None else "")
        + f"image sizes for window {largest}: {_image_sizes(pixels, patch, len(model.layers), fits)}"
    )


def check_same_windows(model: nn.Module, weights_windows: Windows | None) -> None:
    """Raises ValueError for a SwinV2 that would read its weights' position bias with other windows than theirs.

    `weights_windows`: those recorded with the weights; None: none are recorded, and nothing is checked. Where one of
    the two was built without the last stages, those that both have are compared.
    """
    own = reference_windows(model)
    if own is None or weights_windows is None or all(a == b for a, b in zip(own, weights_windows, strict=False)):
        return
    wanted = ", ".join(str(height) for height, _ in weights_windows)
    raise ValueError(
        f"the weights' position bias was learned with windows {_shown(weights_windows)}, this model would read it with "
        f"{_shown(own)}; add to backbone.args: pretrained_window_sizes: [{wanted}]"
    )


def reference_windows(model: nn.Module) -> Windows | None:
    """Windows that SwinV2's position bias refers to, per stage; None for a model without such a bias.

    The bias is a learned function of coordinates divided by (window - 1), where the window is that of pre-training if
    the model was built with `pretrained_window_sizes`, else the model's own. The same weights always need the same
    divisor.
    """
    from timm.models.swin_transformer_v2 import SwinTransformerV2Stage, WindowAttention

    windows: list[Window] = []
    for stage in (part for part in model.modules() if isinstance(part, SwinTransformerV2Stage)):
        attention = next(part for part in stage.modules() if isinstance(part, WindowAttention))
        pretrained = attention.pretrained_window_size
        height, width = pretrained if pretrained[0] > 0 else attention.window_size
        windows.append((int(height), int(width)))
    return tuple(windows) or None


def windows_in(state: Mapping[str, torch.Tensor]) -> Windows | None:
    """The same from the coordinate tables that the official code saves with its weights; None if there are none.

    A table holds sign(x) * log2(8 |x| + 1) / log2(8) with x = offset / (window - 1), so its largest entry determines
    the window that offsets were divided by. Raises ValueError for a table that holds no such coordinates.
    """
    windows: dict[int, Window] = {}
    for name, table in state.items():
        match = _TABLE.search(name)
        if match:
            if table.ndim != 4 or table.shape[-1] != 2 or not table.numel() or not table.is_floating_point():
                raise ValueError(f"{name!r} has shape {tuple(table.shape)}: not a table of coordinates (1, h, w, 2)")
            _, rows, columns, _ = table.shape
            largest = [table[..., axis].max().item() for axis in (0, 1)]
            if not all(side == 1 or 1e-3 < x < 4 for side, x in zip((rows, columns), largest, strict=True)):
                raise ValueError(f"{name!r} holds {largest[0]:g} and {largest[1]:g}: not coordinates of a window")
            windows[int(match[1])] = (_divisor((rows + 1) // 2, largest[0]), _divisor((columns + 1) // 2, largest[1]))
    return tuple(windows[stage] for stage in sorted(windows)) or None


def _tokens(pixels: int, patch: int, stages: int) -> list[int]:
    """Tokens along a side in each stage: patch merging pads an odd side."""
    first = -(-pixels // patch)
    return [-(-first // 2**stage) for stage in range(stages)]


def _divides(window: int, tokens: list[int]) -> bool:
    """True if the window, or the whole side where that is smaller, divides every side, and no merging has to pad."""
    return all(side % min(window, side) == 0 for side in tokens) and all(side % 2 == 0 for side in tokens[:-1])


def _image(height: int, width: int) -> str:
    return f"image_size {height}" if height == width else f"an input of {height} x {width} pixels"


def _image_sizes(
    pixels: tuple[int, int], patch: tuple[int, int], stages: int, fits: Callable[[list[int], int], bool]
) -> str:
    """Sizes near `pixels` whose tokens per stage fit along each axis, in words."""
    near = []
    for axis in (0, 1):
        sizes = range(patch[axis], 4 * pixels[axis] + 1, patch[axis])
        near.append(_nearest([size for size in sizes if fits(_tokens(size, patch[axis], stages), axis)], pixels[axis]))
    return near[0] if pixels[0] == pixels[1] and near[0] == near[1] else f"heights {near[0]}; widths {near[1]}"


def _nearest(sizes: Sequence[int], wanted: int) -> str:
    return ", ".join(str(size) for size in sorted(sorted(sizes, key=lambda size: abs(size - wanted))[:4])) or "none"


def _divisor(window: int, largest: float) -> int:
    return round(8 * (window - 1) / (8.0**largest - 1)) + 1 if window > 1 else 1


def _shown(windows: Windows) -> str:
    return "(" + ", ".join(str(h) if h == w else f"{h} x {w}" for h, w in windows) + ")"
