"""Fetches weights that timm publishes under a tag, from its hub or the cache on this machine."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tasks.backbones.swin_windows import reference_windows
from tasks.errors import DataError

if TYPE_CHECKING:
    import torch
    from timm.models import PretrainedCfg

    from tasks.backbones.spec import FromTimm


FILES = ("model.safetensors", "pytorch_model.safetensors", "pytorch_model.bin")
"""Names of weights in a repository of the hub, as timm looks for them."""


def uncached(init: FromTimm) -> str | None:
    """None if this machine has the weights, so that no network is needed; else what to do. Imports timm, which takes
    seconds; looks for files, in the hub's cache and where timm keeps what has an address of its own, and asks nobody.
    """
    from huggingface_hub import try_to_load_from_cache
    from torch.hub import get_dir

    config = config_of(init.tag)
    if config is None:
        return f"weights {init.name}: this timm has no weights {init.tag} (all: timm.list_pretrained())"
    names = (config.hf_hub_filename,) if config.hf_hub_filename else FILES
    if config.hf_hub_id and any(isinstance(try_to_load_from_cache(config.hf_hub_id, name), str) for name in names):
        return None
    if config.url and (Path(get_dir()) / "checkpoints" / Path(urlsplit(config.url).path).name).is_file():
        return None
    return f"weights {init.name}: {init.tag} is not in timm's cache here; trials fetch it, or once: {_fetch(init.tag)}"


def config_of(tag: str) -> PretrainedCfg | None:
    """What timm states for the weights of this tag (MODEL.TAG); None if it has none."""
    import timm

    try:
        config = timm.get_pretrained_cfg(tag)
    except RuntimeError:
        return None
    return config if config is not None and config.has_weights else None


def _fetch(tag: str) -> str:
    return f'python -c "import timm; timm.create_model({tag!r}, pretrained=True)"'


def pretrained(init: FromTimm) -> tuple[dict[str, torch.Tensor], dict[str, Any], str]:
    """The tensors under timm's names, their metadata (see safetensors_header.py), and their SHA-256.

    timm builds and loads the whole model as it was published, so no weight can be missing or left over. Loading them
    into a trial's backbone is up to `backbones.loading.load`, as for every other source. Raises DataError if neither
    hub nor cache has them, or if `sha256` is set and theirs differs.
    """
    import timm  # here: it takes seconds, and most trials start from other weights
    from safetensors.torch import save

    try:
        model = timm.create_model(init.tag, pretrained=True)
    except Exception as error:  # hub, http and cache libraries each raise their own kinds
        reason = str(error).strip().partition("\n")[0]
        raise DataError(
            f"weights {init.name}: timm could not load {init.tag} ({type(error).__name__}: {reason}); a node without "
            f"network needs it in its cache: run {_fetch(init.tag)} where there is one, with HF_HOME on storage that "
            "the nodes see"
        ) from error
    tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    digest = hashlib.sha256(save(tensors)).hexdigest()
    if init.sha256 not in (None, digest):
        raise DataError(f"weights {init.name}: {init.tag} has SHA-256 {digest}, not {init.sha256}: another version")
    return tensors, {"layout": "timm", "windows": reference_windows(model)}, digest
