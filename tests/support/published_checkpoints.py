"""Checkpoints as others publish them, small: made from timm models by renames written down from the public code."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from tasks.backbones.model import build
from tasks.backbones.spec import BackboneSpec

SWIN = {"embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8], "window_size": 4}
VIT = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 16}
REPLKNET = {"channels": [8, 16, 16, 16], "layers": [1, 1, 1, 1], "kernels": [7, 7, 5, 5]}
BEIT = {**VIT, "init_values": 0.1, "use_abs_pos_emb": False}
SHARED = {"use_shared_rel_pos_bias": True, "use_rel_pos_bias": False, "global_pool": "token"}
OWN = {"use_shared_rel_pos_bias": False, "use_rel_pos_bias": True, "global_pool": "avg"}

State = dict[str, torch.Tensor]


def model(name: str, args: dict[str, Any], image_size: int = 64, classes: int = 5, **other: Any) -> nn.Module:
    """A timm model in eval mode whose every parameter is drawn, so that each has its part in the output."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = build(BackboneSpec(model=name, args=args, image_size=image_size, **other), classes)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return net.eval()


def swinv2(image_size: int = 64, **args: Any) -> nn.Module:
    return model("swinv2_base_window12_192", {**SWIN, **args}, image_size)


def swin(image_size: int = 64, **args: Any) -> nn.Module:
    return model("swin_base_patch4_window7_224", {**SWIN, **args}, image_size)


def beit(image_size: int = 64, **args: Any) -> nn.Module:
    return model("beit_base_patch16_224", {**BEIT, **args}, image_size)


def vit(image_size: int = 64, **args: Any) -> nn.Module:
    return model("vit_base_patch16_224", {**VIT, **args}, image_size)


def replknet(image_size: int = 64, name: str = "replknet_31b", **args: Any) -> nn.Module:
    return model(name, {**REPLKNET, **args}, image_size)


def official_swin(net: nn.Module, pretrained: tuple[int, ...] = (0, 0, 0, 0)) -> State:
    """microsoft/Swin-Transformer models/swin_transformer(_v2).py: merging ends a stage, `head`, buffers are saved."""
    state: State = {}
    for name, tensor in net.state_dict().items():
        parts = name.split(".")
        if parts[0] == "layers" and parts[2] == "downsample":
            parts[1] = str(int(parts[1]) - 1)
        if parts[:2] == ["head", "fc"]:
            del parts[1]
        state[".".join(parts)] = tensor
    for stage, layer in enumerate(net.layers):  # type: ignore[arg-type]
        for index, block in enumerate(layer.blocks):
            at = f"layers.{stage}.blocks.{index}"
            window = block.window_size[0]
            state[f"{at}.attn.relative_position_index"] = torch.zeros(window**2, window**2, dtype=torch.int64)
            if block.attn_mask is not None:
                state[f"{at}.attn_mask"] = block.attn_mask
            if hasattr(block.attn, "cpb_mlp"):
                state[f"{at}.attn.relative_coords_table"] = coordinates(window, pretrained[stage] or window)
    return state


def coordinates(window: int, pretrained: int) -> torch.Tensor:
    """(1, 2w-1, 2w-1, 2): log-spaced offsets, as in SwinV2's paper, equation 6, times 8 and over log2(8)."""
    line = torch.tensor([(d / max(pretrained - 1, 1)) * 8 for d in range(1 - window, window)])
    line = line.sign() * (line.abs() + 1).log2() / math.log2(8)
    return torch.stack(torch.meshgrid(line, line, indexing="ij"), -1)[None]


def simmim(encoder: State, width: int, patch: int = 32, token: bool = True) -> dict[str, Any]:
    """microsoft/SimMIM models/simmim.py and main_simmim.py: encoder without head, decoder, the state of training."""
    inside = {f"encoder.{name}": tensor for name, tensor in encoder.items() if not name.startswith("head.")}
    if token:
        inside["encoder.mask_token"] = torch.zeros(1, 1, 16)
    decoder = {
        "decoder.0.weight": torch.zeros(patch**2 * 3, width, 1, 1),
        "decoder.0.bias": torch.zeros(patch**2 * 3),
    }
    return {
        "model": {**inside, **decoder},
        "optimizer": {"state": {}, "param_groups": []},
        "lr_scheduler": {"last_epoch": 1},
        "max_accuracy": 0.0,
        "scaler": {},
        "epoch": 799,
    }


def mmpretrain(net: nn.Module) -> dict[str, Any]:
    """mmpretrain's Swin (models/backbones/swin_transformer.py) and how its runner saves it: merging ends a stage."""
    state: State = {}
    for name, tensor in official_swin(net).items():
        if "attn_mask" in name:
            continue
        name = name.replace("layers.", "stages.").replace(".attn.", ".attn.w_msa.")
        name = name.replace(".mlp.fc1.", ".ffn.layers.0.0.").replace(".mlp.fc2.", ".ffn.layers.1.")
        name = name.replace("patch_embed.proj.", "patch_embed.projection.")
        if name.startswith("norm."):
            name = name.replace("norm.", "norm3.")
        if ".downsample." in name:
            tensor = _unfolded(tensor)
        state[f"head.fc.{name[5:]}" if name.startswith("head.") else f"backbone.{name}"] = tensor
    return {"meta": {"epoch": 300}, "state_dict": state}


def _unfolded(tensor: torch.Tensor) -> torch.Tensor:
    """The weights of a merging for the order of torch's Unfold: entry (channel, row, column) of the last axis takes
    what (column, row, channel) had."""
    parts = tensor.reshape(*tensor.shape[:-1], 2, 2, tensor.shape[-1] // 4)
    return parts.movedim(-1, -3).transpose(-1, -2).reshape(tensor.shape)


def moco(base: State) -> dict[str, Any]:
    """facebookresearch/moco-v3 moco/builder.py: base and momentum encoder with projectors as heads, predictor."""
    body = {name: tensor for name, tensor in base.items() if not name.startswith("head.")}
    projector = {"head.0.weight": torch.zeros(8, 16), "head.1.running_mean": torch.zeros(8)}
    state = {f"module.base_encoder.{name}": tensor for name, tensor in {**body, **projector}.items()}
    state |= {f"module.momentum_encoder.{name}": torch.zeros_like(t) for name, t in {**body, **projector}.items()}
    state["module.predictor.0.weight"] = torch.zeros(8, 8)
    return {"epoch": 300, "arch": "vit_base", "state_dict": state, "optimizer": {}, "scaler": {}}
