"""Feature maps of any backbone, as dense heads (pose, depth, detection, segmentation, tracking) need them.

A level is a place in the backbone whose output can be taken as a map: a stage of Swin, SwinV2, RepLKNet and other
pyramids, a block of ViT and BEiT. `tasks.backbones.model.build_backbone` builds a model with just the parts that the
levels of interest need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn

from tasks.backbones.swin_windows import check_windows


@dataclass(frozen=True)
class FeatureLevel:
    """One level of a backbone."""

    name: str
    """Module whose output it is, for example `layers.2` or `blocks.11`."""
    channels: int
    stride: int
    """Pixels of the image along a side per position of the map."""


def feature_info(model: nn.Module) -> list[FeatureLevel]:
    """The levels of a backbone, from its input to its output.

    Raises ValueError for a model without levels (timm: without `forward_intermediates`).
    """
    if not hasattr(model, "forward_intermediates"):
        raise ValueError(
            f"{type(model).__name__} has no feature maps (timm's forward_intermediates), which a dense head needs; "
            "use another backbone.model, for example a Swin, SwinV2, ViT, BEiT, ResNet or ConvNeXt"
        )
    levels = cast("list[dict[str, Any]]", model.feature_info)
    return [FeatureLevel(level["module"], level["num_chs"], level["reduction"]) for level in levels]


def feature_maps(
    model: nn.Module, images: Tensor, levels: Sequence[int] = (-1,), *, final_norm: bool = False
) -> list[Tensor]:
    """Maps (n, channels, h / stride, w / stride) of images (n, 3, h, w), one per entry of `levels`, in that order.

    `levels`: indices into `feature_info(model)`, -1 for the last; nothing after the last of them is computed.
    `final_norm`: of the last level alone; its map is normalised by the model's own final norm, if the model has one
    (ViT, BEiT, Swin, SwinV2 and RepLKNet have, ResNet has not). Norms per level are the head's matter.

    Call it inside the forward pass of the module that DDP or FSDP wraps. Raises ValueError for images of a size that
    the model does not take, for a level or a final norm that it does not have, and for `final_norm` of other levels.
    """
    known = feature_info(model)
    taken = _resolved(levels, len(known))
    if final_norm:
        _check_final_norm(model, taken)
    _check_images(model, images)
    ascending = sorted(set(taken))
    try:
        maps = cast("Any", model).forward_intermediates(
            images,
            indices=ascending,
            norm=final_norm,
            stop_early=ascending[-1] < len(known) - 1,
            intermediates_only=True,
        )
    except AssertionError as error:  # timm's way to refuse
        raise ValueError(f"{type(model).__name__}, images {tuple(images.shape)}: {error}") from error
    if final_norm and maps[-1].shape[1] != known[-1].channels:
        raise ValueError(f"the final norm of {type(model).__name__} changes the number of channels: leave it out")
    return [maps[ascending.index(level)] for level in taken]


def cut_after(model: nn.Module, levels: Sequence[int], final_norm: bool) -> None:
    """Removes from a freshly built model all that `feature_maps` of these levels leaves unused: later stages or blocks,
    classifier and pooling, and the final norm unless asked for.

    `model.cut_weights` then names the weights that it would have had besides. Raises ValueError as `feature_maps`.
    """
    weights = set(model.state_dict())
    taken = _resolved(levels, len(feature_info(model)))
    part = cast("Any", model)
    if isinstance(getattr(model, "norm", None), nn.Identity) and hasattr(model, "fc_norm"):
        part.norm, part.fc_norm = part.fc_norm, nn.Identity()  # nothing is pooled here
        weights |= set(model.state_dict())
    part.prune_intermediate_layers(taken, prune_norm=not final_norm, prune_head=True)
    part.cut_weights = frozenset(weights - set(model.state_dict()))
    if final_norm:
        _check_final_norm(model, taken)
    part.feature_info = part.feature_info[: max(taken) + 1]


def _check_final_norm(model: nn.Module, levels: Sequence[int]) -> None:
    """Raises ValueError if `levels` are not the last level alone, or the final norm of `model` is not there."""
    last = len(feature_info(model)) - 1
    if list(levels) != [last]:
        raise ValueError(f"final_norm is for the last level, {last}, alone, and not for levels {list(levels)}")
    cut = any(name.startswith("norm.") for name in getattr(model, "cut_weights", ()))
    after_pooling = not isinstance(getattr(model, "fc_norm", nn.Identity()), nn.Identity)
    if isinstance(getattr(model, "norm", None), nn.Identity) and (cut or after_pooling):
        raise ValueError(
            f"this {type(model).__name__} has no norm for its last map, only for what it pools; "
            "build it with build_backbone and final_norm, or leave final_norm out"
        )


def _resolved(levels: Sequence[int], count: int) -> list[int]:
    """The levels as indices from 0 on. Raises ValueError for one that is not there.

    -1 is the last, also of a model that was cut; any other negative number would change its meaning by that.
    """
    if not levels or any(not -1 <= level < count for level in levels):
        raise ValueError(f"levels {list(levels)}: the backbone has levels 0 to {count - 1} (-1: the last); name some")
    return [level % count for level in levels]


def _check_images(model: nn.Module, images: Tensor) -> None:
    """Raises ValueError for images of a size that a model with a fixed grid of patches cannot take."""
    size = (images.shape[-2], images.shape[-1])
    embedding: Any = getattr(model, "patch_embed", None)
    built = getattr(embedding, "img_size", None)
    if built is None or size == built:
        return
    if getattr(embedding, "strict_img_size", True):
        raise ValueError(
            f"images of {size[0]} x {size[1]} pixels for a {type(model).__name__} built for {built[0]} x {built[1]}: "
            "give build_backbone this input_size, or any_size where sizes differ"
        )
    check_windows(model, size)
