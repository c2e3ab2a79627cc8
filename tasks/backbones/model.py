"""Builds backbones from their spec: as classifiers, or bare with the parts that feature maps need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn

from tasks.backbones.dropped_layers import cut_of, finish
from tasks.backbones.features import cut_after
from tasks.backbones.frozen import freeze_parts
from tasks.backbones.model_arguments import arguments, nearest_arguments
from tasks.backbones.spec import BackboneSpec
from tasks.backbones.swin_windows import check_windows


def build(spec: BackboneSpec, classes: int, input_size: tuple[int, int] | None = None) -> nn.Module:
    """The timm model with a head of `classes` outputs (0: none), drawn from torch's global generator; no weights yet.

    `input_size`: height and width of its images in pixels; by default the spec's `image_size` for both.

    Raises ValueError when timm does not take the arguments, or a drop path that is not 0, when patches do not divide
    the input or a window its map, when `norm_eps` is set for a model without LayerNorm, or when the model does not have
    the blocks that `drop_last` drops or the parts that `freeze` names.
    """
    height, width = input_size or (spec.image_size, spec.image_size)
    model = _create(spec, classes, (height, width), any_size=False)
    check_windows(model)
    return model


def build_backbone(
    spec: BackboneSpec,
    input_size: tuple[int, int] | None = None,
    levels: Sequence[int] = (-1,),
    *,
    final_norm: bool = False,
    any_size: bool = False,
) -> nn.Module:
    """The timm model without its classifier and without all that `feature_maps` of `levels` and `final_norm` leave
    unused (later stages or blocks, pooling), so that every parameter that is left gets a gradient, as DDP requires.

    `input_size`: as in `build`. `any_size`: the model takes images of other sizes too, as far as its patches and
    windows divide them; windows follow from `input_size` and stay. Drop path rates are those of `build`'s model.

    `load` takes the same weights for it as for `build`'s model and notes which of them it has no use for. A model that
    norms after pooling (BEiT by default) norms every position instead. Raises ValueError as `build` and `feature_info`
    do, and when the model cannot take any size or has no final norm at these levels.
    """
    height, width = input_size or (spec.image_size, spec.image_size)
    model = _create(spec, 1, (height, width), any_size)
    cut_after(model, levels, final_norm)
    check_windows(model)
    return model


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Names of the modules that map features to classes, for example `head`, or `head.fc`. Raises ValueError for a
    model that does not say so, which a plugin may have."""
    names = (getattr(model, "pretrained_cfg", None) or {}).get("classifier")
    if not names:
        raise ValueError(
            f"the model {type(model).__name__} does not say which of its modules is the classifier: build it by "
            "timm.models.build_model_with_cfg, with `classifier` in its default_cfgs"
        )
    return (names,) if isinstance(names, str) else tuple(names)


def draw_head(model: nn.Module, zero: bool = False) -> None:
    """Draws the head anew: weights normal with standard deviation 0.02, cut at +-2 (or zero); biases zero."""
    with torch.no_grad():
        for name in head_names(model):
            for key, parameter in model.get_submodule(name).named_parameters():
                if zero or key.endswith("bias"):
                    parameter.zero_()
                else:
                    torch.nn.init.trunc_normal_(parameter, std=0.02)


def _create(spec: BackboneSpec, classes: int, size: tuple[int, int], any_size: bool) -> nn.Module:
    """timm's model without what `drop_last` drops, its patches checked, the spec's `norm_eps` set and its parts
    frozen."""
    if spec.drop_last is None:
        model = _from_timm(spec, classes, size, any_size)
    else:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):  # random numbers stay those of the cut model
            whole = _from_timm(spec, 1, size, any_size)
        cut = cut_of(whole, spec)
        shorter = spec.model_copy(update={"args": {**spec.args, **cut.arguments}})
        model = _from_timm(shorter, classes, size, any_size)
        finish(model, cut, spec)
    _check_patch(model, size)
    if spec.norm_eps is not None:
        norms = [part for part in model.modules() if isinstance(part, nn.LayerNorm)]
        if not norms:
            raise ValueError(f"timm model {spec.model} has no LayerNorm; leave backbone.norm_eps out")
        for norm in norms:
            norm.eps = spec.norm_eps
    freeze_parts(model, spec)
    return model


def _from_timm(spec: BackboneSpec, classes: int, size: tuple[int, int], any_size: bool) -> nn.Module:
    import timm  # here: it takes seconds, and a worker imports this module before it needs a model

    import tasks.backbones.replknet  # noqa: F401 (registers its models with timm)

    _check_tag(spec.model)
    height, width = size
    # a side where it is a square: a few models take nothing else
    options: dict[str, Any] = {"img_size": height if height == width else size, "drop_path_rate": spec.drop_path}
    if any_size:
        options["dynamic_img_size"] = True
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in spec.args.items()}
    title = f"timm model {spec.model} with {spec.args}"
    try:
        try:
            model = timm.create_model(spec.model, num_classes=classes, **{**options, **given})
        except TypeError as error:
            # convolutional networks have no img_size, some old models no drop path: they are built without
            known = arguments(spec.model)
            if spec.drop_path > 0 and "drop_path_rate" not in known:
                raise ValueError(f"timm model {spec.model} has no drop path; set backbone.drop_path to 0") from error
            if known.issuperset(options):
                raise
            options = {name: value for name, value in options.items() if name in known}
            model = timm.create_model(spec.model, num_classes=classes, **{**options, **given})
    except TypeError as error:
        raise ValueError(f"{title}: {error}{nearest_arguments(spec.model, given)}") from error
    except (AssertionError, ArithmeticError, LookupError) as error:  # arguments that timm takes and cannot use
        raise ValueError(f"{title}: {type(error).__name__}: {error}") from error
    except RuntimeError as error:
        if _needs_content_or_memory(error):
            raise
        raise ValueError(f"{title}: {error}") from error
    if any_size and "img_size" in options and "dynamic_img_size" not in options:
        raise ValueError(f"timm model {spec.model} takes images of one size only; use a Swin, SwinV2, ViT or ResNet")
    return cast("nn.Module", model)


def _needs_content_or_memory(error: RuntimeError) -> bool:
    """Whether an error of torch may be about more than shapes, such as a size below zero.

    On the meta device there is no memory that could be short, and what asks for content there names the device.
    """
    return torch.get_default_device().type != "meta" or isinstance(error, NotImplementedError) or "meta" in str(error)


def _check_tag(name: str) -> None:
    """Raises ValueError for a name of a model with a tag of weights that timm does not have."""
    import timm

    if "." in name:
        try:
            timm.get_pretrained_cfg(name)
        except RuntimeError as error:
            raise ValueError(f"timm model {name}: {error} (all: timm.list_pretrained())") from error


def _check_patch(model: nn.Module, size: tuple[int, int]) -> None:
    """Raises ValueError if patches do not divide the input: timm silently ignores the pixels that are left over."""
    embed = getattr(model, "patch_embed", None)
    patch = getattr(embed, "patch_size", None)
    padded = getattr(embed, "dynamic_img_pad", False)
    if not isinstance(patch, tuple) or getattr(embed, "img_size", None) is None or padded:
        return
    axes = list(zip(("row", "column"), ("height", "width"), size, patch, strict=True))
    ignored = [f"{left} {line}{'s' * (left > 1)}" for line, _, pixels, side in axes if (left := pixels % side)]
    if not ignored:
        return
    if size[0] == size[1] and patch[0] == patch[1]:
        patches, image = f"{patch[0]}", f"image_size {size[0]}"
        remedy = f"image_size {_multiples(size[0], patch[0])}"
    else:
        patches, image = f"{patch[0]} x {patch[1]}", f"an input of {size[0]} x {size[1]}"
        remedy = " and ".join(f"{name} {_multiples(pixels, side)}" for _, name, pixels, side in axes if pixels % side)
    raise ValueError(
        f"patches of {patches} pixels do not divide {image}: {' and '.join(ignored)} would be ignored; "
        f"use {remedy}, or another patch_size in backbone.args"
    )


def _multiples(pixels: int, patch: int) -> str:
    """The multiples of the patch on either side."""
    below = pixels // patch * patch
    return " or ".join(str(fit) for fit in (below, below + patch) if fit)
