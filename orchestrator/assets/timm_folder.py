"""Reads a folder with a model in timm's form (config.json and model.safetensors), as `weights export` writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from orchestrator.errors import BadInput, NotFound

if TYPE_CHECKING:
    from tasks.backbones.spec import BackboneSpec

OWN = ("img_size", "in_chans", "num_classes", "drop_path_rate", "pretrained")
"""Arguments of a model that a spec has fields of its own for, or that a task decides."""


def weights_of(folder: Path) -> Path:
    """The weights file of the folder. Raises NotFound."""
    path = folder / "model.safetensors"
    if not path.is_file():
        raise NotFound(f"{folder} has no model.safetensors: name the file itself, or a folder in timm's form")
    return path


def model_of(folder: Path) -> BackboneSpec:
    """The model that the folder's config.json describes. Raises NotFound without that file, BadInput for a wrong
    one."""
    from tasks.backbones.spec import BackboneSpec

    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        arguments, input_size = dict(config.get("model_args", {})), config["pretrained_cfg"]["input_size"]
        arguments = {name: value for name, value in arguments.items() if name not in OWN}
        return BackboneSpec(
            model=config["architecture"], args=arguments, image_size=input_size[-1], norm_eps=_norm_eps(folder)
        )
    except FileNotFoundError:
        raise NotFound(f"{folder} has no config.json: name the weights file, and the model with --model") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        problems = "; ".join(str(problem["msg"]) for problem in error.errors())
        raise BadInput(f"{path}: {problems}; name the weights file, and the model with --model") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise BadInput(f"{path} is not timm's description of a model ({type(error).__name__}: {error})") from error


def _norm_eps(folder: Path) -> Any:
    """The epsilon that timm's config has no place for, where we wrote the folder; None: the model's own."""
    try:
        spec = json.loads((folder / "lineage.json").read_text(encoding="utf-8"))["spec"]
        return spec["backbone"].get("norm_eps")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
