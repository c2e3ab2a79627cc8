"""The only place that asks timm for weights that it publishes under a tag."""

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

    timm builds the published model as it was published and loads it whole, so nothing can be missing or left over; what
    the trial's backbone makes of the tensors is `backbones.model.load`'s matter, as for every other source. Raises
    DataError when the hub and its cache have no answer, or when `sha256` is set and another.
    """
    import timm
    from safetensors.torch import save

    try:
        model = timm.create_model(init.tag, pretrained=True)
    except Exception as error:  # hub, http and cache libraries each raise their own kinds
        first = str(error).strip().partition("\n")[0]
        raise DataError(
            f"weights {init.name}: timm could not load {init.tag} ({type(error).__name__}: {first}); a node without "
            f'network needs it in its cache: python -c "import timm; timm.create_model({init.tag!r}, pretrained=True)" '
            "with network, and HF_HOME on storage that the nodes see"
        ) from error
    tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    found = hashlib.sha256(save(tensors)).hexdigest()
    if init.sha256 not in (None, found):
        raise DataError(f"weights {init.name}: {init.tag} has SHA-256 {found}, not {init.sha256}: another version")
    return tensors, {"layout": "timm", "windows": reference_windows(model)}, found
