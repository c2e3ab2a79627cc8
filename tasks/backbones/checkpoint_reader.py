"""The only place that reads other people's checkpoints (.pth, .pt, .bin): pickles, of which no code is ever run.

The reading itself is torch's weights_only unpickler, which calls nothing outside a list. To that list this module adds
harmless stand-ins for the configuration objects that published checkpoints carry beside their weights: they come out as
plain values. Whatever else a pickle names is refused by name.
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
"""Where published checkpoints keep the weights, the first that is there; another by name."""


class _Attributes:
    """Stands for an object with attributes (argparse.Namespace): keeps them as a dictionary, runs nothing."""

    def __init__(self, *arguments: Any) -> None:
        self.values: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.values = dict(state) if isinstance(state, Mapping) else {}


class _Dtype:
    """Stands for numpy.dtype: its code (f8, i4, b1) and byte order."""

    def __init__(self, code: str = "", *arguments: Any) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: Any) -> None:
        self.order = ">" if state[1] == ">" else "<"


def _scalar(dtype: Any, data: Any = b"") -> float | int | bool:
    """Stands for numpy's scalar constructor; numbers only."""
    codes = {"f8": "d", "f4": "f", "f2": "e", "i8": "q", "i4": "i", "i2": "h", "i1": "b", "b1": "?"}
    codes |= {code.replace("i", "u"): letter.upper() for code, letter in codes.items() if code.startswith("i")}
    if not isinstance(dtype, _Dtype) or dtype.code not in codes or not isinstance(data, bytes):
        raise UnpicklingError("a numpy scalar that is no number")
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

    Also a .safetensors file, which is its tensors. Raises DataError, which says what is wrong with the file: not there,
    a web page, cut short, no checkpoint, or naming code that would have to be run to read it.
    """
    import torch

    if not path.is_file():
        raise DataError(f"no file {path}")
    _look_at(path)
    if path.suffix == ".safetensors":
        return _safetensors(path)
    try:
        with torch.serialization.safe_globals(_STAND_INS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unusual pickle protocols: they are read or refused
            # mapped, so that an optimizer's state, which nobody asks for, is not read
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path))
    except UnpicklingError as error:
        raise DataError(_refusal(path, str(error))) from error
    except (RuntimeError, EOFError, BadZipFile, OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        # what the unpickler runs into depends on where the file is cut or which bytes were damaged
        first = str(error).strip().partition("\n")[0]
        if isinstance(error, LookupError):  # a byte that is no instruction, said as a number
            raise DataError(_no_checkpoint(path, f"unknown pickle instruction {first}")) from error
        raise DataError(f"{path} ({path.stat().st_size} bytes) is damaged or cut short: {first}") from error
    plain = _plain(content)
    if not isinstance(plain, dict):
        raise DataError(f"{path} holds a {type(content).__name__}, not a dictionary of weights")
    return plain


def _look_at(path: Path) -> None:
    """Refuses by the first bytes what a failed download leaves behind."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(256).lstrip().lower()
    if not start:
        raise DataError(f"{path} is empty")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise DataError(f"{path} ({size} bytes) is a web page, not weights: the download was answered by one")
    if start.startswith(b"version https://git-lfs"):
        raise DataError(f"{path} is a Git LFS pointer, not weights: fetch the file itself (git lfs pull)")


def _safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise DataError(f"{path} ({path.stat().st_size} bytes) is damaged or cut short: {error}") from error


def _refusal(path: Path, said: str) -> str:
    named = re.search(r"GLOBAL ([\w.]+)", said)
    if named:
        return (
            f"{path} cannot be read without running code: it asks for {named[1]}, which is neither a tensor nor a "
            "known configuration class. Nothing of it was run. If you trust the file, save its weights alone with the "
            "program that made it: torch.save(model.state_dict(), ...)"
        )
    reason = said.replace("Weights only load failed.", "").strip().rpartition("WeightsUnpickler error: ")[2]
    return _no_checkpoint(path, reason.strip().partition("\n")[0])


def _no_checkpoint(path: Path, reason: str) -> str:
    return (
        f"{path} ({path.stat().st_size} bytes) is no checkpoint of torch.save, or is damaged: {reason}; "
        "nothing of it was run"
    )


def _plain(value: Any) -> Any:
    """Stand-ins and other containers as plain ones, at any depth."""
    if isinstance(value, _Attributes):
        value = value.values
    if isinstance(value, Mapping):
        return {key.decode() if isinstance(key, bytes) else key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    return value


def state_dict(content: Mapping[str, Any], entry: str | None = None) -> tuple[dict[str, torch.Tensor], str]:
    """The weights among what a checkpoint holds, and the name of the entry they were under (empty: at the top).

    `entry`: take this one (`model_ema`). Raises DataError naming what there is when no entry holds named tensors.
    """
    if entry is None and _weights(content):
        return dict(content), ""
    for name in [entry] if entry else _ENTRIES:
        if _weights(content.get(name)):
            return dict(content[name]), name
    there = ", ".join(f"{name} ({type(value).__name__})" for name, value in list(content.items())[:12])
    wanted = (
        f"entry {entry!r} holds no named tensors" if entry else f"no entry {', '.join(_ENTRIES)} holds named tensors"
    )
    raise DataError(f"no weights found: {wanted}; there are: {there or 'no entries'}")


def entries(content: Mapping[str, Any]) -> list[str]:
    """Every entry of a checkpoint that holds named tensors."""
    return [str(name) for name, value in content.items() if _weights(value)]


def _weights(value: Any) -> bool:
    import torch

    return isinstance(value, Mapping) and bool(value) and all(isinstance(item, torch.Tensor) for item in value.values())


def settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of its making (config, args, epoch), as JSON values; tensors and optimizer left out."""
    left_out = {*_ENTRIES, "optimizer", "lr_scheduler", "scaler", "amp"}
    plain = {str(name): _json(value) for name, value in content.items() if name not in left_out}
    return {name: value for name, value in plain.items() if value not in ({}, [], None)}


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): item for key, raw in value.items() if (item := _json(raw)) is not None}
    if isinstance(value, list):
        return [_json(item) for item in value]
    return value if isinstance(value, bool | int | float | str) else None
