"""Fetches weights that timm publishes under a tag, from its hub or the cache on this machine."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from tasks.backbones.swin_windows import reference_windows
from tasks.errors import DataError

if TYPE_CHECKING:
    import torch

    from tasks.backbones.spec import FromTimm


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
            f'network needs it in its cache: run python -c "import timm; timm.create_model({init.tag!r}, '
            'pretrained=True)" where there is one, with HF_HOME on storage that the nodes see'
        ) from error
    tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    digest = hashlib.sha256(save(tensors)).hexdigest()
    if init.sha256 not in (None, digest):
        raise DataError(f"weights {init.name}: {init.tag} has SHA-256 {digest}, not {init.sha256}: another version")
    return tensors, {"layout": "timm", "windows": reference_windows(model)}, digest
