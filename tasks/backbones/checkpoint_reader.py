"""Reads other people's checkpoints, most of which are pickles, without running any of their code.

torch's weights_only unpickler does the reading and calls only functions of a fixed list. This module adds harmless
stand-ins for the configuration objects that published checkpoints hold besides weights, which become plain values. A
pickle that names anything else is refused with that name.

What a file may cost is bounded by its size: see `check_archive` for records, `_plain` for values and `_check_tensors`
for tensors. A library that crashes over a file takes its process with it, so commands read in one of their own.
"""

from __future__ import annotations

import itertools
import math
import re
import struct
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from tasks.backbones import safetensors_header
from tasks.backbones.checkpoint_format import check_archive, format_of, reason
from tasks.errors import DataError

if TYPE_CHECKING:
    import torch

_ENTRIES = ("model", "state_dict", "module")
"""Entries under which published checkpoints keep their weights, in order of preference."""
_AVERAGES = ("model_ema", "state_dict_ema", "ema_state_dict", "ema")
"""Entries of averaged weights, which are taken where a file has no others."""

MOST_VALUES = 300_000
"""Values (numbers, texts, tensors, containers) that a checkpoint may hold."""
DEEPEST = 100
"""Levels of containers in containers."""
_SPARE_BYTES = 16 * 2**20
"""What the tensors of a file may have beyond twice its size, for those that show one number many times."""


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

    Of a safetensors file, its tensors. What a file is, its first bytes tell. Raises DataError for a file that is
    missing, no checkpoint, damaged, larger inside than it is, or readable only by running code that it names.
    """
    form = format_of(path)
    if form == "safetensors":
        return _safetensors(path)
    if form == "torch archive":
        check_archive(path)
    content = _unpickled(path, form == "torch archive")
    if not isinstance(content, Mapping | _Attributes):
        raise DataError(f"{path} holds a {type(content).__name__}, not a dictionary of weights")
    try:
        plain = _plain(content, itertools.count(), 0)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    assert isinstance(plain, dict)
    return plain


def read_weights(path: Path, entry: str | None = None) -> tuple[dict[str, Any], dict[str, torch.Tensor], str]:
    """The content of a checkpoint, the weights in it, and the entry that they are under, see `state_dict`. Raises
    DataError, which names the file, also for weights that are larger than it accounts for."""
    content = read(path)
    try:
        tensors, name = state_dict(content, entry)
        check_sizes(tensors, path.stat().st_size)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return content, tensors, name


def _unpickled(path: Path, archive: bool) -> Any:
    """What torch's restricted unpickler makes of a file."""
    import torch

    try:
        with torch.serialization.safe_globals(_STAND_INS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # unusual pickle protocols: torch reads or refuses them
            if path.suffix == ".safetensors":  # torch would go by the name
                with path.open("rb") as file:
                    return torch.load(file, map_location="cpu", weights_only=True)
            # mapped into memory, so that the optimizer's state, which is not used, is not read from disk
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except UnpicklingError as error:
        raise DataError(_refusal(path, str(error))) from error
    except Exception as error:  # which error depends on where the file is cut or which bytes are damaged
        if isinstance(error, MemoryError) or "allocate memory" in str(error):
            raise MemoryError from error
        why = f"unknown pickle instruction {error}" if isinstance(error, LookupError) else reason(error)
        raise DataError(f"{path} ({path.stat().st_size} bytes) is damaged or cut short: {why}") from error


def _safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    safetensors_header.shapes(path)  # says more of what is wrong than the library
    try:
        return dict(load_file(path))
    except (SafetensorError, ValueError, TypeError, LookupError, RuntimeError) as error:
        raise DataError(f"{path} ({path.stat().st_size} bytes) is damaged or cut short: {reason(error)}") from error


def _refusal(path: Path, message: str) -> str:
    code = re.search(r"GLOBAL ([\w.]+)", message)
    if code:
        return (
            f"{path} cannot be read without running code: it asks for {code[1]}, which is neither a tensor nor a "
            "known configuration class. None of it was run. If you trust the file, save only its weights with the "
            "program that made it: torch.save(model.state_dict(), ...)"
        )
    why = message.replace("Weights only load failed.", "").strip().rpartition("WeightsUnpickler error: ")[2]
    why = reason(UnpicklingError(why))
    return (
        f"{path} ({path.stat().st_size} bytes) is not a checkpoint of torch.save, or is damaged: {why}; "
        "none of it was run"
    )


def _plain(value: Any, values: Iterator[int], depth: int) -> Any:
    """Replaces stand-ins and other containers with plain ones, at any depth. Raises DataError for more values or levels
    than a checkpoint has, which is how a small file unfolds into a large one, and for keys that become one."""
    if next(values) >= MOST_VALUES:
        raise DataError(f"it holds more than {MOST_VALUES:,} values: damaged, or made to fill the memory")
    if isinstance(value, _Attributes):
        value = value.values
    if isinstance(value, Mapping | list | tuple | set | frozenset) and depth == DEEPEST:
        raise DataError(f"it holds containers more than {DEEPEST} levels deep, or one that contains itself")
    if isinstance(value, Mapping):
        plain = {_key(key): _plain(item, values, depth + 1) for key, item in value.items()}
        if len(plain) < len(value):
            raise DataError("it holds a dictionary with one name twice, as text and as bytes")
        return plain
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item, values, depth + 1) for item in value]
    return value


def _key(key: Any) -> Any:
    if not isinstance(key, bytes):
        return key
    try:
        return key.decode()
    except UnicodeDecodeError:
        raise DataError(f"the name {key[:40]!r} is not text in UTF-8") from None


def state_dict(content: Mapping[str, Any], entry: str | None = None) -> tuple[dict[str, torch.Tensor], str]:
    """The weights in a checkpoint's content, and the entry that they are under (empty: the content itself).

    `entry`: take this one (`model_ema`; `state_dict.model` for one inside another). Raises DataError naming the entries
    there are if none holds named tensors, and naming what stands in the way if one does not hold them alone.
    """
    if entry is not None:
        return _checked(_inside(content, entry), f"entry {entry!r}"), entry
    if content and all(_is_tensor(value) for value in content.values()):
        return _checked(content, "the file"), ""
    for name in _paths(content):
        return _checked(_inside(content, name), f"entry {name!r}"), name
    if any(_is_tensor(value) for value in content.values()):
        return _checked(content, "the file"), ""
    wanted = f"no entry {', '.join(_ENTRIES)} holds named tensors"
    raise DataError(f"no weights found: {wanted}; {_available(content)}")


def _available(content: Any) -> str:
    """The entries of a checkpoint, in words."""
    if not isinstance(content, Mapping):
        return f"it is a {type(content).__name__}"
    listed = [f"{shown(name)} ({type(value).__name__})" for name, value in itertools.islice(content.items(), 12)]
    others = [name for name in entries(content) if name not in (*_ENTRIES, *_AVERAGES)]
    hint = f"; for one of these pass --entry: {', '.join(others[:8])}" if others else ""
    return f"there are: {', '.join(listed) or 'no entries'}{hint}"


def _inside(content: Mapping[str, Any], entry: str) -> Any:
    """The entry of this name, or of this path of names. Raises DataError if there is none."""
    if entry in content:
        return content[entry]
    value: Any = content
    for step in entry.split("."):
        if not isinstance(value, Mapping) or step not in value:
            raise DataError(f"no weights found: entry {entry!r} holds no named tensors; {_available(content)}")
        value = value[step]
    return value


def _paths(content: Mapping[str, Any], before: str = "", depth: int = 0) -> Iterator[str]:
    """The known entries that hold tensors, and those inside known entries, in order of preference."""
    for name in (*_ENTRIES, *_AVERAGES):
        value = content.get(name)
        if _has_tensors(value):
            yield before + name
        elif isinstance(value, Mapping) and depth < 3:
            yield from _paths(value, f"{before}{name}.", depth + 1)


def _has_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(_is_tensor(item) for item in value.values())


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _checked(value: Any, what: str) -> dict[str, torch.Tensor]:
    """The entry as weights. Raises DataError naming whatever in it is not a named, dense, whole tensor on the CPU."""
    if not _has_tensors(value):
        raise DataError(f"no weights found: {what} holds no named tensors; {_available(value)}")
    problems = {shown(name): why for name, item in value.items() if (why := _problem(name, item))}
    if problems:
        name, why = next(iter(problems.items()))
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DataError(
            f"{what} holds more than named weights: {name} is {why}{more}; save only what is, where the file was made"
        )
    return dict(value)


def _problem(name: Any, item: Any) -> str:
    """Why this entry is not a weight, in words; empty if it is one."""
    import torch

    if not isinstance(name, str):
        return f"a key of kind {type(name).__name__}, not a name"
    if type(item) not in (torch.Tensor, torch.nn.Parameter):
        return f"of kind {type(item).__name__}, not a tensor"
    if item.is_quantized:
        return "a quantized tensor"
    if item.is_nested or item.layout != torch.strided:
        return "a sparse or nested tensor"
    if item.is_meta:
        return "a tensor without content (of the meta device)"
    if item.is_complex():
        return f"a tensor of complex numbers ({str(item.dtype).removeprefix('torch.')})"
    if str(item.dtype).removeprefix("torch.") not in safetensors_header.DTYPES.values():
        return f"a tensor of {str(item.dtype).removeprefix('torch.')}"
    return ""


def check_sizes(tensors: Mapping[str, torch.Tensor], file_bytes: int) -> None:
    """Raises DataError if the tensors together are larger than a file of this size accounts for: a tensor may show one
    number any number of times, and a number may be in any number of tensors."""
    sizes = {name: math.prod(tensor.shape) * tensor.element_size() for name, tensor in tensors.items()}
    if sum(sizes.values()) > 2 * file_bytes + _SPARE_BYTES:
        largest = max(sizes, key=lambda name: sizes[name])
        raise DataError(
            f"its weights have {sum(sizes.values()):,} bytes together, the file {file_bytes:,}: damaged, or made to "
            f"fill the memory (the largest: {shown(largest)} {list(tensors[largest].shape)})"
        )


def entries(content: Mapping[str, Any]) -> list[str]:
    """Every entry of a checkpoint that holds named tensors, those inside known entries as paths."""
    direct = [str(name) for name, value in content.items() if _has_tensors(value)]
    return direct + [path for path in _paths(content) if path not in direct]


def shown(name: Any) -> str:
    """A name from a file as messages show it: at most 200 characters, whatever is not printable escaped."""
    text = name if isinstance(name, str) else repr(name)
    return text if text.isprintable() and len(text) <= 200 else repr(text[:200])


def listed(names: Iterable[Any], count: int) -> str:
    """The first of some names, and dots if there are more than `count`."""
    first = [shown(name) for name in itertools.islice(names, count + 1)]
    return f"{', '.join(first[:count])}{', ..' * (len(first) > count)}"


def settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """How a checkpoint was made (config, args, epoch), as JSON values without tensors and optimizer."""
    left_out = {*_ENTRIES, *_AVERAGES, "optimizer", "lr_scheduler", "scaler", "amp"}
    plain = {_text(name): _json(value) for name, value in content.items() if name not in left_out}
    return {name: value for name, value in plain.items() if value not in ({}, [], None)}


def _json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_text(key): item for key, raw in value.items() if (item := _json(raw)) is not None}
    if isinstance(value, list):
        return [_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)  # nan and inf are no JSON
    if type(value) is int and abs(value) >= 2**63:
        return f"a number of {value.bit_length()} bits"
    return value if isinstance(value, bool | int | float | str) else None


def _text(key: Any) -> str:
    return key if isinstance(key, str) else shown(key)
