"""Translates weights from the names and shapes of other code bases into those of a timm model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from tasks.backbones.dropped_layers import fit_cut
from tasks.backbones.mmpretrain_swin import official_tensor, timm_name
from tasks.backbones.swin_windows import Windows, windows_in

if TYPE_CHECKING:
    import torch
    from torch import nn

State = dict[str, "torch.Tensor"]

_DERIVED = ("relative_position_index", "relative_coords_table", "attn_mask")
"""Buffers that the official Swin and BEiT code saves; timm computes them from image size and window."""
_AROUND_ALL = ("module.", "model.")
"""Prefixes that a wrapper of the whole model puts before every name: DataParallel, DistributedDataParallel, torch's
AveragedModel and DeepSpeed (module), Lightning and Hugging Face's trainer (model)."""
_AROUND_PARTS = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Steps that torch.compile, FSDP and activation checkpointing put into names, before the whole model or inside."""
_COUNTERS = ("n_averaged",)
"""Entries of a wrapper that count and weigh nothing: how many models AveragedModel averaged."""
_POOLING = ("fc_norm.", "attn_pool.")
"""Parts of a ViT or BEiT that a bare backbone does not have, whatever model its weights come from."""
_TABLE = "relative_position_bias_table"
_SHARED_TABLE = f"rel_pos_bias.{_TABLE}"


@dataclass(frozen=True)
class _Wrapper:
    """A model that holds the backbone under a prefix, and other parts that are not loaded."""

    layout: str
    prefix: str
    others: re.Pattern[str]
    """Names of those parts; if any further name lacks the prefix, the layout is not this one."""
    inside: re.Pattern[str] | None = None
    """Names below the prefix that are used in pre-training only."""
    mark: str | None = None
    """A name that distinguishes this layout from later ones with the same prefix."""
    normless: bool = False
    """The backbone was trained without its final norm: what follows it has norms of its own."""


_WRAPPERS = (
    # facebookresearch/moco-v3: the head of the base encoder is the projector, no classifier (convert_to_deit.py)
    _Wrapper("moco-v3", "base_encoder.", re.compile(r"momentum_encoder\.|predictor\."), re.compile(r"head\.|fc\.")),
    # microsoft/SimMIM and microsoft/Swin-Transformer (models/simmim.py)
    _Wrapper("simmim", "encoder.", re.compile(r"decoder\."), re.compile(r"mask_token$"), "encoder.mask_token"),
    # our own tasks/pretraining/task.py
    _Wrapper("pretrain", "encoder.", re.compile(r"decoder\.|mask_token$"), None, "mask_token"),
    # SwinTransformer/MIM-Depth-Estimation, or an encoder alone
    _Wrapper("encoder", "encoder.", re.compile(r"decoder\.|last_layer_depth\.")),
    # mmpose, mmdetection, mmsegmentation; the pose model of Gengzigang/PCT
    _Wrapper(
        "backbone",
        "backbone.",
        re.compile(r"(keypoint_|rpn_|roi_|bbox_|mask_|decode_|auxiliary_)?head\.|neck\.|extra_backbone\."),
    ),
    # our own tasks/detection/model.py, tasks/segmentation and tasks/tracking/model.py
    _Wrapper(
        "detection", "pyramid.maps.backbone.",
        re.compile(r"pyramid\.(maps\.(norms|resampled)|fpn)\.|rpn\.|roi_heads\."), normless=True,
    ),
    _Wrapper(
        "segmentation", "maps.backbone.", re.compile(r"maps\.(norms|resampled)\.|heads\.|decoders\.|criterion\."),
        normless=True,
    ),
    _Wrapper(
        "tracking", "backbone.", re.compile(r"(fusion|head|norm|search_projection|template_projection)\."),
        normless=True,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Named:
    """A state dict under timm's names, and a record of the translation."""

    layout: str
    """For example simmim/swin: the wrapper that held the backbone, and the naming of the backbone's parameters."""
    tensors: State
    renamed: dict[str, str]
    dropped: tuple[str, ...]
    windows: Windows | None
    """Those that SwinV2's position bias refers to, if the state dict has its coordinate tables."""
    stripped: tuple[str, ...] = ()
    """Prefixes of wrappers that were removed from names, the outermost first."""
    normless: bool = False
    """The weights are those of a model that takes the backbone's maps before its final norm, which so is not there."""

    @property
    def notes(self) -> list[str]:
        """A line each on what was renamed and dropped; empty when nothing was."""
        lines = []
        if self.renamed:
            old, new = next(iter(self.renamed.items()))
            lines.append(f"weights: layout {self.layout}, {len(self.renamed)} names changed ({old} -> {new}, ..)")
        if self.stripped:
            lines.append(f"weights: prefixes of wrappers were stripped from the names: {', '.join(self.stripped)}")
        if self.dropped:
            lines.append(f"weights: {len(self.dropped)} entries no backbone needs dropped ({_roots(self.dropped)})")
        return lines


def _roots(names: tuple[str, ...]) -> str:
    """A long list of names in short: mask_token, decoder, relative_position_index."""
    by_last_part = (*_DERIVED, "mask_token")
    roots = {name.rpartition(".")[2] if name.endswith(by_last_part) else name.split(".")[0] for name in names}
    return ", ".join(sorted(roots))


def translate(state: Mapping[str, torch.Tensor]) -> Named:
    """Renames any known layout to timm's names, without changing shapes. Names that no rule covers are kept, so whoever
    loads the result has to refuse missing and left-over names.

    Raises ValueError where two entries would get one name, and for a layout that is known and not translated.
    """
    names = {name: name for name in state}  # name in the state dict -> timm's name
    stripped, outer = _strip(names), list[str]()
    while wrapper := _unwrap(names):
        outer.append(wrapper)
        stripped += _strip(names)
    for name, new in list(names.items()):
        if new.rpartition(".")[2] in _DERIVED:
            del names[name]
    tensors = {name: state[name] for name in names}
    inner = "timm"
    if any(".attn.w_msa." in name for name in names.values()):
        inner, last = "mmpretrain-swin", _last_stage(names.values(), "stages")
        tensors = {name: official_tensor(new, tensors[name]) for name, new in names.items()}
        names = {name: timm_name(new, last) for name, new in names.items()}
    else:
        for layout, rename in (("swin", _swin(set(names.values()))), ("swin", _older_names)):
            changed = {name: rename(new) for name, new in names.items()}
            if changed != names:
                names, inner = changed, layout
    _check_one_name_each(names)
    return Named(
        layout="/".join([*outer, inner]),
        tensors={new: tensors[name] for name, new in names.items()},
        renamed={name: new for name, new in names.items() if name != new},
        dropped=tuple(name for name in state if name not in names),
        windows=windows_in(state),
        stripped=tuple(dict.fromkeys(stripped)),
        normless=any(wrapper.layout in outer for wrapper in _WRAPPERS if wrapper.normless),
    )


def _check_one_name_each(names: Mapping[str, str]) -> None:
    """Raises ValueError if two names become one: whichever came later would replace the other."""
    first: dict[str, str] = {}
    for name, new in names.items():
        if new in first:
            raise ValueError(
                f"the weights hold two entries for {new!r}: {first[new]!r} and {name!r}; remove the one that is not "
                "meant, since nothing in the file says which"
            )
        first[new] = name


def _strip(names: dict[str, str]) -> list[str]:
    """Strips prefixes of wrappers in place, again and again, and removes their counters. Returns the prefixes."""
    stripped: list[str] = []
    while True:
        for name, new in list(names.items()):
            if inside := _AROUND_PARTS.findall(new):
                names[name] = _AROUND_PARTS.sub("", new)
                stripped += [f"{step}." for step in inside if f"{step}." not in stripped]
        weights = [new for new in names.values() if new not in _COUNTERS]
        prefix = next((each for each in _AROUND_ALL if weights and all(new.startswith(each) for new in weights)), None)
        if prefix is None:
            return stripped
        stripped.append(prefix)
        for name, new in list(names.items()):
            if new in _COUNTERS:
                del names[name]
            else:
                names[name] = new.removeprefix(prefix)


def _last_stage(names: Iterable[str], of: str) -> int | None:
    """Number of the last stage that names like layers.3.blocks.1. have; None if there are no such names."""
    stages = [int(match[1]) for name in names if (match := re.match(rf"{of}\.(\d+)\.blocks\.", name))]
    return max(stages, default=None)


def _unwrap(names: dict[str, str]) -> str:
    """Strips the prefix of a known wrapper in place and removes its other parts. Returns its layout, or nothing."""
    present = set(names.values())
    for wrapper in _WRAPPERS:
        below = {name for name in present if name.startswith(wrapper.prefix)}
        known = all(wrapper.others.match(name) for name in present - below)
        if not below or not known or (wrapper.mark and wrapper.mark not in present):
            continue
        for name, new in list(names.items()):
            short = new.removeprefix(wrapper.prefix)
            if new not in below or (wrapper.inside and wrapper.inside.match(short)):
                del names[name]
            else:
                names[name] = short
        return wrapper.layout
    return ""


def _swin(present: set[str]) -> Callable[[str], str]:
    """Swin and SwinV2 as published: patch merging ends a stage (timm: begins the next), the classifier is `head`.

    The depth and pose code numbers its norms by stage: the last one is the final norm.
    """
    last = _last_stage(present, "layers")
    if last is None:
        return str
    final = f"norm{last}." if not any(name.startswith("norm.") for name in present) else None
    published = any(name.startswith("layers.0.downsample.") for name in present)

    def rename(name: str) -> str:
        if final and name.startswith(final):
            return "norm." + name.removeprefix(final)
        if not published:
            return name
        if name.startswith("head."):
            return "head.fc." + name.removeprefix("head.")
        return re.sub(r"^layers\.(\d+)\.downsample\.", lambda m: f"layers.{int(m[1]) + 1}.downsample.", name)

    return rename


def _older_names(name: str) -> str:
    """SwinV2's position network was called rpe_mlp before its code was published."""
    return name.replace(".attn.rpe_mlp.", ".attn.cpb_mlp.")


def fit(tensors: Mapping[str, torch.Tensor], model: nn.Module) -> tuple[State, list[str]]:
    """Weights under timm's names in the shapes of `model`, as far as a published rule defines them; and a note on each
    change.

    Position tables of Swin v1 and BEiT are resized to the window, position embeddings to the grid of patches; a table
    that all blocks shared is copied to each; a final norm is left out where the model norms after pooling instead; a
    bare backbone (`build_backbone`) and one without its last blocks (`drop_last`) need only the weights of the parts
    that they have. SwinV2 needs no resizing: its bias
    is a function of coordinates. Tensors that no rule covers do not change.
    """
    changed, notes = dict(tensors), list[str]()
    for rule in (fit_cut, _bare_backbone, _share_table, _resize_tables, _resample_positions, _norm_after_pooling):
        notes += rule(changed, model)
    return changed, notes


def fresh_norm(state: Mapping[str, torch.Tensor], model: nn.Module) -> State:
    """The final norm of `model`, as drawn, for weights of a backbone that was trained without it."""
    own = model.state_dict()
    return {name: own[name] for name in own if name.startswith(("norm.", "fc_norm.")) and name not in state}


def _bare_backbone(state: State, model: nn.Module) -> list[str]:
    """Leaves out the weights of parts that a bare backbone was built without; a norm that it lacks starts as drawn."""
    cut: frozenset[str] | None = getattr(model, "cut_weights", None)
    if cut is None:
        return []
    own = model.state_dict()
    dropped = tuple(name for name in state if name in cut - own.keys() or name.startswith(_POOLING))
    fresh = [name for name in own if name.startswith("norm.") and f"fc_{name}" in dropped and name not in state]
    for name in dropped:
        del state[name]
    state.update({name: own[name] for name in fresh})
    parts = ", ".join(sorted({re.match(r"\w+(\.\d+)?", name)[0] for name in dropped}))  # type: ignore[index]
    notes = [f"weights: {len(dropped)} entries of parts that this backbone lacks left out ({parts})"]
    if fresh:
        notes.append("weights: they were normed after pooling (fc_norm); the final norm of the maps starts as drawn")
    return notes if dropped else []


def _share_table(state: State, model: nn.Module) -> list[str]:
    """SimMIM and BEiT pre-train one table for all blocks and fine-tune one per block (utils.py of both)."""
    own = model.state_dict()
    missing = [name for name in own if name.endswith(f".attn.{_TABLE}") and name not in state]
    if _SHARED_TABLE not in state or _SHARED_TABLE in own or not missing:
        return []
    table = state.pop(_SHARED_TABLE)
    state.update({name: table.clone() for name in missing})
    return [f"weights: the table of relative positions that all blocks shared was copied to {len(missing)} blocks"]


def _resize_tables(state: State, model: nn.Module) -> list[str]:
    """Tables (positions, heads) to another window, on the geometric grid of BEiT's and SimMIM's code as in timm: linear
    between its points, where the originals drew a cubic spline with a SciPy function that no longer exists."""
    from timm.layers import resize_rel_pos_bias_table

    sizes: dict[tuple[int, int], int] = {}
    for name, own in model.state_dict().items():
        table = state.get(name)
        if not name.endswith(_TABLE) or table is None or table.shape == own.shape or table.ndim != 2:
            continue
        window = cast("tuple[int, int]", model.get_submodule(name.rpartition(".")[0]).window_size)
        extra = own.shape[0] - (2 * window[0] - 1) * (2 * window[1] - 1)  # entries of the class token
        if table.shape[1] != own.shape[1] or _side(table.shape[0] - extra) is None:
            continue
        state[name] = resize_rel_pos_bias_table(table, new_window_size=window, new_bias_shape=own.shape)
        change = (table.shape[0], own.shape[0])
        sizes[change] = sizes.get(change, 0) + 1
    return [f"weights: {n} tables of relative positions resized from {a} to {b} rows" for (a, b), n in sizes.items()]


def _resample_positions(state: State, model: nn.Module) -> list[str]:
    """Absolute position embeddings (1, tokens, width) to another number of patches: bicubic, as in timm."""
    from timm.layers import resample_abs_pos_embed

    given, own = state.get("pos_embed"), model.state_dict().get("pos_embed")
    if given is None or own is None or given.shape == own.shape or given.ndim != 3 or given.shape[2] != own.shape[2]:
        return []
    height, width = cast("tuple[int, int]", cast("nn.Module", model.patch_embed).grid_size)
    prefix = own.shape[1] - height * width
    side = _side(given.shape[1] - prefix)
    if side is None:
        return []
    state["pos_embed"] = resample_abs_pos_embed(given, [height, width], [side, side], num_prefix_tokens=prefix)
    return [f"weights: position embedding resampled from {side} x {side} to {height} x {width} patches (bicubic)"]


def _norm_after_pooling(state: State, model: nn.Module) -> list[str]:
    """Fine-tuning code of SimMIM's ViT, BEiT and MAE drops the norm before pooling and starts a new one after it."""
    own = model.state_dict()
    if "fc_norm.weight" not in own or "fc_norm.weight" in state or "norm.weight" in own or "norm.weight" not in state:
        return []
    for name in ("weight", "bias"):
        state.pop(f"norm.{name}", None)
        if f"fc_norm.{name}" in own:
            state[f"fc_norm.{name}"] = own[f"fc_norm.{name}"]
    return ["weights: the final norm was left out; this model norms after pooling (fc_norm), which starts as drawn"]


def _side(tokens: int) -> int | None:
    """Side of the square that so many tokens make; None if they make none."""
    side = round(max(tokens, 0) ** 0.5)
    return side if side > 0 and side * side == tokens else None
