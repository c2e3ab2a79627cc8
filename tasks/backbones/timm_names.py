"""Lists timm's model names without importing timm, which would add seconds to every command."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from tasks import plugged
from tasks.spelling import nearest

_REGISTERED = re.compile(r"^@register_model\s*\ndef (\w+)\(", re.MULTILINE)


def timm_names() -> frozenset[str]:
    """Every name that timm.create_model takes (without pre-training tag), those of the job's plugins too."""
    return own_names() | plugged.MODELS.keys()


@cache
def own_names() -> frozenset[str]:
    """The same without plugins, read from timm's source files and ours."""
    package = importlib.util.find_spec("timm")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("timm is not installed, though this project requires it", name="timm")
    files = [*(Path(package.origin).parent / "models").glob("*.py"), Path(__file__).parent / "replknet.py"]
    return frozenset(name for file in files for name in _REGISTERED.findall(file.read_text(encoding="utf-8")))


def check_timm_name(name: str) -> str:
    """Returns `name` if timm has it, else raises ValueError with similar names. Any tag after a dot passes, but not
    a dot without one."""
    model, dot, tag = name.partition(".")
    if dot and not tag:
        raise ValueError(f"{name!r} ends in a dot: write the tag of the weights after it, or leave the dot out")
    if model in timm_names():
        return name
    near = nearest(name, sorted(timm_names()), count=3)
    hint = f"; nearest: {', '.join(near)}" if near else ""
    raise ValueError(f"no such timm model{hint} (all: timm.list_models())")


_NUMBERS = re.compile(r"(_?\d+[a-z]?(_\d+x\d+)?)+$")
_LISTED = """
aggregate aligner attn_pool aux_head base_layer block blocks blocks_token_only bn body cell cell_stem classif
classifier cls_attn_blocks cls_token conv conv_head conv_stem cpe crpe dense_stages dist_token downsamp_modules
embeds encoder entry fc fc_norm features final_conv final_layer head head_dist heads heads_dist in_conv
incre_modules last_linear layer layers level levels maxpool merger mixed msfa neck network norm norm1_proj
norm2_proj norm_head norm_pre parallel_blocks patch_embed patch_embeds patch_pos pixel_embed pixel_pos pos_block
pos_embed pos_embed_win pos_embed_window post_network pre_classifier pre_logits proj reduction_cell reg_token
rel_pos_bias repeat rope s serial_blocks shared_rel_pos stage stages std_bias std_scale stem stem_dct
transformers transition transitions weights weights_dist
"""
_PARTS = frozenset(_LISTED.split())
"""What names of weights begin with in timm 1.0.31, numbers left out: all 1,300 models were built to list them."""


def unknown_parts(names: Iterable[str]) -> list[str]:
    """The first parts of weights' names (`embeddings` of embeddings.cls_token) that no timm model has, each once."""
    parts = dict.fromkeys(name.partition(".")[0] for name in names)
    return [part for part in parts if _NUMBERS.sub("", part.lower()) not in _PARTS]
