"""Backbones without their last blocks (`BackboneSpec.drop_last`), and weights whose blocks are drawn at random.

Figure 5 and section 3.2 of the paper. Such a model is timm's own with fewer blocks, so that feature maps, layer decay
and heads take it as any other. It keeps beside it (`model.cut`) what it was built without.
"""

from __future__ import annotations

import hashlib
import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from tasks.backbones.model_arguments import arguments

if TYPE_CHECKING:
    import torch
    from torch import nn

    from tasks.backbones.spec import BackboneSpec

THIRD = 2
"""Index of the stage that blocks are dropped from, in a model that has stages."""

_FINAL_NORM = ("norm.", "fc_norm.")


@dataclass(frozen=True)
class Cut:
    """What `drop_last` left out of a model."""

    title: str
    """The model's name in timm."""
    arguments: dict[str, Any]
    """Arguments that build it without, in place of those of the spec."""
    blocks: str
    """Module that blocks were dropped from: `layers.2.blocks`, `stages.2.blocks`, `blocks`."""
    per_block: int
    """Modules that make a block there: 2 in RepLKNet (a large kernel and its feed-forward), else 1."""
    pool: int
    """Blocks that the whole model has there."""
    left: int
    gone: frozenset[str]
    """Weights that only the whole model has."""
    whole: nn.Module
    """The whole model with a head of one class, on the meta device: shapes without content."""
    fresh_norm: bool
    whole_levels: bool
    """True: layer decay counts levels as in the whole model."""
    drawn: tuple[int, ...] | None
    """The blocks of the whole model whose weights the first, second, .. block takes; None: its own."""


def cut_of(whole: nn.Module, spec: BackboneSpec) -> Cut:
    """The cut that `spec.drop_last` asks for. `whole`: the model without it, on the meta device.

    Raises ValueError for a model of another kind, one with too few blocks, and a draw that could not be told from none.
    """
    dropped = spec.drop_last
    assert dropped is not None
    given, blocks, per_block, stages = _family(whole, spec)
    pool = len(cast("Any", whole.get_submodule(blocks))) // per_block
    if dropped >= pool:
        where = "" if stages is None else " in its third stage"
        raise ValueError(
            f"backbone.drop_last {dropped}: {spec.model} has {_count(pool)}{where}, of which at least one "
            f"has to be left; use 0 to {pool - 1}"
        )
    left = pool - dropped
    first_gone = re.compile(re.escape(blocks) + r"\.(\d+)\.")
    gone = {
        name
        for name in whole.state_dict()
        if ((match := first_gone.match(name)) and int(match[1]) >= left * per_block) or _later(name, blocks)
    }
    drawn = None
    if spec.sample_layers is not None:
        if not gone:
            raise ValueError(
                f"backbone.sample_layers with drop_last 0: no part of {spec.model} is dropped, so weights whose "
                "blocks were drawn in an earlier trial could not be told from others and would be drawn again; set "
                f"drop_last to 1 to {pool - 1}"
            )
        drawn = drawn_blocks(pool, left, spec.sample_layers.draw, spec.sample_layers.order)
    return Cut(
        title=spec.model, arguments=_lengths(given, pool, left), blocks=blocks, per_block=per_block, pool=pool,
        left=left, gone=frozenset(gone), whole=whole, fresh_norm=spec.cut.final_norm == "fresh",
        whole_levels=spec.cut.decay_levels == "whole", drawn=drawn,
    )  # fmt: skip


def drawn_blocks(pool: int, left: int, draw: int, order: str) -> tuple[int, ...]:
    """`left` of the numbers 0 to pool - 1, without replacement; `sorted`: ascending, `drawn`: as they were drawn.

    A function of its arguments alone, on every machine and with every version of a library: the numbers with the
    smallest BLAKE2 digests.
    """

    def lot(block: int) -> bytes:
        return hashlib.blake2b(f"{draw}/{pool}/{left}/{block}".encode(), digest_size=16).digest()

    taken = sorted(range(pool), key=lot)[:left]
    return tuple(sorted(taken) if order == "sorted" else taken)


def finish(model: nn.Module, cut: Cut, spec: BackboneSpec) -> None:
    """Gives a model built with `cut.arguments` the drop path rates that the spec asks for, and its `cut`.

    Raises ValueError if the whole model's final norm is to be kept and does not fit.
    """
    own, before = model.state_dict(), cut.whole.state_dict()
    norms = [name for name in own if name.startswith(_FINAL_NORM)]
    unlike = [name for name in norms if name in before and before[name].shape != own[name].shape]
    if unlike and not cut.fresh_norm:
        raise ValueError(
            f"backbone.cut.final_norm pretrained: the final norm of {spec.model} has {before[unlike[0]].shape[0]} "
            f"channels and the third stage has {own[unlike[0]].shape[0]}; set it to fresh"
        )
    if spec.cut.drop_path == "kept":
        rates = {name: part.drop_prob for name, part in cut.whole.named_modules() if hasattr(part, "drop_prob")}
        for name, part in model.named_modules():
            if hasattr(part, "drop_prob") and name in rates:
                part.drop_prob = rates[name]
    model.cut = cut  # type: ignore[assignment]


def fit_cut(state: dict[str, torch.Tensor], model: nn.Module) -> list[str]:
    """Moves the weights of drawn blocks to their new places, and leaves out those of parts that `drop_last` dropped.

    Changes `state` in place, which has timm's names; returns a note on each change. All that belongs to a block moves
    with it, such as its table of relative positions; a window's shift does not, because it follows from the place of
    the block and not from weights. Weights of a model that was cut before in the same way keep their norm.
    Raises ValueError for weights that lack blocks to draw from, and for those of a cut model, whose blocks were drawn
    before and would be drawn again.
    """
    cut: Cut | None = getattr(model, "cut", None)
    if cut is None:
        return []
    from_whole = any(name in cut.gone for name in state)
    dropped = [name for name in state if _is_left_out(name, cut)]
    notes: list[str] = []
    if cut.drawn is not None:
        notes += _move(state, cut, cut.drawn)
        if not dropped:
            raise ValueError(
                "backbone.sample_layers draws from the blocks of a whole model, and these weights lack what drop_last "
                f"{cut.pool - cut.left} leaves out: of a model that was cut before, they load without sample_layers"
            )
    for name in cut.gone:
        state.pop(name, None)
    if not from_whole:
        return notes
    notes.append(
        f"weights: {len(dropped)} entries of what drop_last leaves out were not loaded ({_parts(dropped, cut)})"
    )
    if cut.fresh_norm:
        own = {name: tensor for name, tensor in model.state_dict().items() if name.startswith(_FINAL_NORM)}
        for name in [name for name in state if name.startswith(_FINAL_NORM)]:
            del state[name]
        state.update(own)
        if own:
            notes.append("weights: the final norm of the whole model was left out; that of the cut one starts as drawn")
    return notes


def cut_facts(model: nn.Module) -> dict[str, Any]:
    """What is left of the backbone inside `model`, as JSON values, and the blocks that were drawn; empty if whole."""
    cuts = (getattr(part, "cut", None) for part in model.modules())
    cut = next((each for each in cuts if isinstance(each, Cut)), None)
    if cut is None:
        return {}
    facts: dict[str, Any] = {"blocks_left": f"{cut.left} of {cut.pool} in {cut.blocks}"}
    return facts if cut.drawn is None else {**facts, "sampled_layers": list(cut.drawn)}


def _move(state: dict[str, torch.Tensor], cut: Cut, drawn: tuple[int, ...]) -> list[str]:
    pattern = re.compile(re.escape(cut.blocks) + r"\.(\d+)\.(.+)")
    found: dict[int, dict[str, torch.Tensor]] = {}  # module -> the rest of the name -> tensor
    for name in list(state):
        if match := pattern.match(name):
            found.setdefault(int(match[1]), {})[match[2]] = state.pop(name)
    present = {number // cut.per_block for number in found}
    if present != set(range(cut.pool)):
        raise ValueError(
            f"backbone.sample_layers draws from {_count(cut.pool)} of {cut.blocks}, and these weights have "
            f"{len(present)}; weights of a model that was cut before load without sample_layers"
        )
    for place, block in enumerate(drawn):
        for part in range(cut.per_block):
            rest = found[block * cut.per_block + part]
            at = place * cut.per_block + part
            state.update({f"{cut.blocks}.{at}.{name}": tensor for name, tensor in rest.items()})
    return [f"weights: blocks of {cut.blocks} start from those of {', '.join(map(str, drawn))} (of {cut.pool})"]


def _family(whole: nn.Module, spec: BackboneSpec) -> tuple[dict[str, Any], str, int, int | None]:
    """Arguments of a model with the third stage as its last, the module with its blocks, the modules in a block, and
    its number of stages; for a stack of blocks without stages the argument `depth`, and None."""
    part, kind = cast("Any", whole), {each.__name__ for each in type(whole).__mro__}
    if kind & {"SwinTransformer", "SwinTransformerV2"}:
        stages = len(part.layers)
        lengths = {
            "depths": tuple(len(stage.blocks) for stage in part.layers),
            "num_heads": tuple(stage.blocks[0].attn.num_heads for stage in part.layers),
        }
        return _up_to_third(lengths, spec, stages), f"layers.{THIRD}.blocks", 1, stages
    if "RepLKNet" in kind:
        stages = len(part.stages)
        defaults = inspect.signature(type(part)).parameters
        lengths = {
            name: tuple(spec.args.get(name, defaults[name].default)) for name in ("layers", "channels", "kernels")
        }
        return _up_to_third(lengths, spec, stages), f"stages.{THIRD}.blocks", 2, stages
    if hasattr(part, "blocks") and "depth" in arguments(spec.model) and len(part.blocks) > 0:
        return {"depth": len(part.blocks)}, "blocks", 1, None
    raise ValueError(
        f"backbone.drop_last {spec.drop_last} is not written for {spec.model} ({type(whole).__name__}): use a Swin, "
        "SwinV2 or RepLKNet, whose third stage loses blocks, or a ViT or BEiT; or set drop_last to null"
    )


def _up_to_third(lengths: dict[str, Any], spec: BackboneSpec, stages: int) -> dict[str, Any]:
    """`lengths`, and every other argument of the spec that is a list with an entry per stage, without later stages."""
    if stages <= THIRD:
        raise ValueError(
            f"backbone.drop_last {spec.drop_last} drops blocks from the third stage, and {spec.model} has {stages} "
            "stages here; set drop_last to null"
        )
    per_stage = {
        name: value for name, value in spec.args.items() if isinstance(value, list | tuple) and len(value) == stages
    }
    return {name: tuple(value[: THIRD + 1]) for name, value in {**per_stage, **lengths}.items()}


def _lengths(given: dict[str, Any], pool: int, left: int) -> dict[str, Any]:
    """The arguments with the number of blocks that are left in place of `pool`."""
    if "depth" in given:
        return {"depth": left}
    name = "depths" if "depths" in given else "layers"
    assert given[name][-1] == pool
    return {**given, name: (*given[name][:-1], left)}


def _later(name: str, blocks: str) -> bool:
    """True for a weight of a stage after the one that `blocks` belongs to, or of the transition to it."""
    container = blocks.split(".")[0]
    if container == "blocks":
        return False
    match = re.match(rf"({container}|transitions)\.(\d+)\.", name)
    return match is not None and int(match[2]) >= (THIRD if match[1] == "transitions" else THIRD + 1)


def _parts(names: list[str], cut: Cut) -> str:
    """Where weights that are gone come from: layers.2.blocks 9 to 17, layers.3"""
    pattern = re.compile(re.escape(cut.blocks) + r"\.(\d+)\.")
    blocks = sorted({int(match[1]) // cut.per_block for name in names if (match := pattern.match(name))})
    later = dict.fromkeys(".".join(name.split(".")[:2]) for name in names if not pattern.match(name))
    run = len(blocks) > 1 and blocks == list(range(blocks[0], blocks[-1] + 1))
    numbers = f"{blocks[0]} to {blocks[-1]}" if run else " ".join(map(str, blocks))
    return ", ".join([*([f"{cut.blocks} {numbers}"] if blocks else []), *later])


def _is_left_out(name: str, cut: Cut) -> bool:
    """True for a weight of the whole model of which the cut one has no use."""
    match = re.match(re.escape(cut.blocks) + r"\.(\d+)\.", name)
    if cut.drawn is None or match is None:
        return name in cut.gone
    return int(match[1]) // cut.per_block not in cut.drawn


def _count(blocks: int) -> str:
    return f"{blocks} block" + "s" * (blocks != 1)
