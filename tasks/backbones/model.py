"""The only place that builds a backbone: timm name and arguments, initial weights, drop path, image size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.backbones.spec import BackboneSpec
from tasks.backbones.swin_windows import check_windows

if TYPE_CHECKING:
    from torch import nn


def build(spec: BackboneSpec, classes: int) -> nn.Module:
    """The timm model with a head of `classes` outputs (0: none), drawn from torch's global generator; no weights yet.

    Raises ValueError when timm does not take the arguments, or a drop path that is not 0, when patches do not divide
    the image or a window its map, or when `norm_eps` is set for a model without LayerNorm.
    """
    from torch import nn

    model = _create(spec, classes)
    _check_patch(model, spec)
    check_windows(model)
    if spec.norm_eps is not None:
        norms = [part for part in model.modules() if isinstance(part, nn.LayerNorm)]
        if not norms:
            raise ValueError(f"timm model {spec.model} has no LayerNorm; leave backbone.norm_eps out")
        for norm in norms:
            norm.eps = spec.norm_eps
    return model


def _create(spec: BackboneSpec, classes: int) -> nn.Module:
    import timm

    import tasks.backbones.replknet  # noqa: F401 (makes it known to timm)

    wanted: dict[str, Any] = {"img_size": spec.image_size, "drop_path_rate": spec.drop_path}
    arguments = {name: tuple(value) if isinstance(value, list) else value for name, value in spec.args.items()}
    while True:
        try:
            model: nn.Module = timm.create_model(spec.model, num_classes=classes, **wanted, **arguments)
            return model
        except TypeError as error:
            # Convolutional networks know no img_size, a few old models no drop path: only then it is left out.
            unknown = next((name for name in wanted if f"unexpected keyword argument '{name}'" in str(error)), None)
            if unknown is None:
                raise ValueError(f"timm model {spec.model} with {spec.args}: {error}") from error
            if unknown == "drop_path_rate" and spec.drop_path > 0:
                raise ValueError(f"timm model {spec.model} has no drop path; set backbone.drop_path to 0") from error
            del wanted[unknown]
        except (AssertionError, ArithmeticError, LookupError) as error:  # what timm takes and cannot use
            raise ValueError(f"timm model {spec.model} with {spec.args}: {type(error).__name__}: {error}") from error


def _check_patch(model: nn.Module, spec: BackboneSpec) -> None:
    """timm leaves out, without a word, the pixels at the right and below that make no whole patch."""
    embed = getattr(model, "patch_embed", None)
    patch = getattr(embed, "patch_size", None)
    padded = getattr(embed, "dynamic_img_pad", False)
    if not isinstance(patch, tuple) or getattr(embed, "img_size", None) is None or padded:
        return
    left = max(spec.image_size % side for side in patch)
    if left:
        whole = spec.image_size // patch[0]
        sizes = " or ".join(str(count * patch[0]) for count in (whole, whole + 1) if count)
        raise ValueError(
            f"patches of {patch[0]} pixels do not divide image_size {spec.image_size}: {left} pixels a row would never "
            f"be seen; use image_size {sizes}, or another patch_size in backbone.args"
        )


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Names of the modules that map features to classes, for example `head`, or `head.fc`."""
    names = model.pretrained_cfg["classifier"]  # type: ignore[index]
    return (names,) if isinstance(names, str) else tuple(names)


def draw_head(model: nn.Module, zero: bool = False) -> None:
    """Draws the head anew: weights normal with standard deviation 0.02, cut at +-2 (or zero); biases zero."""
    import torch

    with torch.no_grad():
        for name in head_names(model):
            for key, parameter in model.get_submodule(name).named_parameters():
                if zero or key.endswith("bias"):
                    parameter.zero_()
                else:
                    torch.nn.init.trunc_normal_(parameter, std=0.02)


def parameters(spec: BackboneSpec, classes: int) -> int:
    """Number of weights of the model, which is built without memory for them. Raises ValueError as `build`."""
    import torch

    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build(spec, classes).parameters())
