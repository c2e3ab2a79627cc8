"""Reads other people's checkpoints (.pth, .pt, .bin), which are pickles, without running any of their code.

torch's weights_only unpickler does the reading and calls only functions of a fixed list. This module adds harmless
stand-ins for the configuration objects that published checkpoints hold besides weights, which become plain values. A
pickle that names anything else is refused with that name.
"""

from __future__ import annotations

import re
import struct
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, is_zipfile

from tasks.errors import DataError

if TYPE_CHECKING:
    import torch

_ENTRIES = ("model", "state_dict", "module")
"""Entries under which published checkpoints keep their weights, in order of preference."""


class _Attributes:
    """Stand-in for an object with attributes (argparse.Namespace): stores them in a dictionary."""

    def __init__(self, *arguments: Any) -> None:
        self.values: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.values = dict(state) if isinstance(state, Mapping) else {}


class _Dtype:
    """Stand-in for numpy.dtype: its code (f8, i4, b1) and byte order."""

    def __init__(self, code: str = "", *arguments: Any) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: Any) -> None:
        self.order = ">" if state[1] == ">" else "<"


def _scalar(dtype: Any, data: Any = b"") -> float | int | bool:
    """Stand-in for numpy's scalar constructor; numbers only."""
    codes = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b", "b1": "?"}
    codes |= {code.replace("i", "u"): letter.upper() for code, letter in codes.items() if code.startswith("i")}
    if not isinstance(dtype, _Dtype) or dtype.code not in codes or not isinstance(data, bytes):
        raise UnpicklingError("a numpy scalar that is not a number")
    number: float | int | bool = struct.unpack(dtype.order + codes[dtype.code], data)[0]
    return number


def _path(*parts: Any) -> str:
    return str(PurePosixPath(*(part for part in parts if isinstance(part, str))))


_STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    *((OrderedDict, name) for name in (
        "yacs.config.CfgNode", "fvcore.common.config.CfgNode", "detectron2.config.config.CfgNode", "addict.addict.Dict",
        "mmcv.utils.config.ConfigDict", "mmengine.config.config.ConfigDict", "easydict.EasyDict",
    )),
    (_Attributes, "argparse.Namespace"),
    (_Attributes, "types.SimpleNamespace"),
    (_Dtype, "numpy.dtype"),
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
    (_path, "pathlib.PosixPath"),
    (_path, "pathlib._local.PosixPath"),
]  # fmt: skip


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint: tensors on the CPU, other values plain (dict, list, number, text).

    Of a .safetensors file, its tensors. Raises DataError for a file that is missing, a web page, cut short, not a
    checkpoint, or readable only by running code that it names.
    """
    import torch

    if not path.is_file():
        raise DataError(f"no file {path}")
    _check_start(path)
    if path.suffix == ".safetensors":
        return _safetensors(path)
    try:
        with torch.serialization.safe_globals(_STAND_INS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unusual pickle protocols: torch reads or refuses them
            # mapped into memory, so that the optimizer's state, which is not used, is not read from disk
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    except UnpicklingError as error:
        raise DataError(_refusal(path, str(error))) from error
    except (RuntimeError, EOFError, BadZipFile, OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        # which error the unpickler raises depends on where the file is cut or which bytes are damaged
        reason = str(error).strip().partition("\n")[0]
        if isinstance(error, LookupError):  # its message is the byte that is not an instruction
            raise DataError(_no_checkpoint(path, f"unknown pickle instruction {reason}")) from error
        raise DataError(f"{path} ({path.stat().st_size} bytes) is damaged or cut short: {reason}") from error
    plain = _plain(content)
    if not isinstance(plain, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, not a dictionary of weights")
    return plain


def _check_start(path: Path) -> None:
    """Raises DataError for the remains of a failed download, which the first bytes give away."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(256).lstrip().lower()
    if not start:
        raise DataError(f"{path} is empty")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise DataError(f"{path} ({size} bytes) is a web page, not weights: the server answered the download with one")
    if start.startswith(b"version https://git-lfs"):
        raise DataError(f"{path} is a Git LFS pointer, not weights: fetch the file itself (git lfs pull)")


def _safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise DataError(f"{path} ({path.stat().st_size} bytes) is damaged or cut short: {error}") from error


def _refusal(path: Path, message: str) -> str:
    code = re.search(r"GLOBAL ([\w.]+)", message)
    if code:
        return (
            f"{path} cannot be read without running code: it asks for {code[1]}, which is neither a tensor nor a "
            "known configuration class. None of it was run. If you trust the file, save only its weights with the "
            "program that made it: torch.save(model.state_dict(), ...)"
        )
    reason = message.replace("Weights only load failed.", "").strip().rpartition("WeightsUnpickler error: ")[2]
    return _no_checkpoint(path, reason.strip().partition("\n")[0])


def _no_checkpoint(path: Path, reason: str) -> str:
    return (
        f"{path} ({path.stat().st_size} bytes) is not a checkpoint of torch.save, or is damaged: {reason}; "
        "none of it was run"
    )


def _plain(value: Any) -> Any:
    """Replaces stand-ins and other containers with plain ones, at any depth."""
    if isinstance(value, _Attributes):
        value = value.values
    if isinstance(value, Mapping):
        return {key.decode() if isinstance(key, bytes) else key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value


def state_dict(content: Mapping[str, Any], entry: str | None = None) -> tuple[dict[str, torch.Tensor], str]:
    """The weights in a checkpoint's content, and the entry that they are under (empty: the content itself).

    `entry`: take this one (`model_ema`). Raises DataError naming the entries there are if none holds named tensors.
    """
    if entry is None and _weights(content):
        return dict(content), ""
    for name in [entry] if entry else _ENTRIES:
        if _weights(content.get(name)):
            return dict(content[name]), name
    available = ", ".join(f"{name} ({type(value).__name__})" for name, value in list(content.items())[:12])
    wanted = (
        f"entry {entry!r} holds no named tensors" if entry else f"no entry {', '.join(_ENTRIES)} holds named tensors"
    )
    raise DataError(f"no weights found: {wanted}; there are: {available or 'no entries'}")


def entries(content: Mapping[str, Any]) -> list[str]:
    """Every entry of a checkpoint that holds named tensors."""
    return [str(name) for name, value in content.items() if _weights(value)]


def _weights(value: Any) -> bool:
    import torch

    return isinstance(value, Mapping) and bool(value) and all(isinstance(item, torch.Tensor) for item in value.values())


def settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """How a checkpoint was made (config, args, epoch), as JSON values without tensors and optimizer."""
    left_out = {*_ENTRIES, "optimizer", "lr_scheduler", "scaler", "amp"}
    plain = {str(name): _json(value) for name, value in content.items() if name not in left_out}
    return {name: value for name, value in plain.items() if value not in ({}, [], None)}


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): item for key, raw in value.items() if (item := _json(raw)) is not None}
    if isinstance(value, list):
        return [_json(item) for item in value]
    return value if isinstance(value, bool | int | float | str) else None
