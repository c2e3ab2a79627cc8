"""Weights files that are damaged, of another kind, or made to break what reads them; each made when asked for."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import pickle
import struct
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

WEIGHTS = {"norm.weight": torch.arange(4.0), "norm.bias": torch.zeros(4)}


def saved(content: Any, zipped: bool = True) -> bytes:
    """As torch.save writes it."""
    out = io.BytesIO()
    torch.save(content, out, _use_new_zipfile_serialization=zipped)
    return out.getvalue()


def rezipped(
    change: Callable[[str, bytes], bytes | None], source: bytes | None = None, compression: int = zipfile.ZIP_STORED,
    extra: dict[str, bytes] | None = None,
) -> bytes:  # fmt: skip
    """An archive of torch.save, written anew by Python with changed records; None removes one."""
    out = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(source or saved({"model": WEIGHTS}))) as old,
        zipfile.ZipFile(out, "w", compression) as new,
    ):
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
        for name, content in (extra or {}).items():
            new.writestr(name, content)
    return out.getvalue()


def with_pickle(pickled: bytes) -> bytes:
    """An archive of torch.save whose pickle is this one."""
    return rezipped(lambda name, content: pickled if name.endswith("data.pkl") else content)


def safetensors(header: Any, data: bytes = b"", text: bytes | None = None) -> bytes:
    """A safetensors file with this header, or this text as header."""
    encoded = json.dumps(header).encode() if text is None else text
    return struct.pack("<Q", len(encoded)) + encoded + data


def flipped(content: bytes, marker: bytes, at: int = 0) -> bytes:
    """The file with one bit of the first place of `marker` flipped."""
    position = content.index(marker) + at
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


class _Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes a tensor's storage as torch does, by a persistent id that may be false."""

    def persistent_id(self, value: Any) -> Any:
        return value.identity if isinstance(value, Storage) else None


class Storage:
    """A storage in a pickle: its type, record and length as they are stated."""

    def __init__(self, kind: Any, record: str, numel: int) -> None:
        self.identity = ("storage", kind, record, "cpu", numel)


class Tensor:
    """A tensor in a pickle: rebuilt from a storage with any offset, size and stride."""

    def __init__(self, storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.arguments = (storage, offset, size, stride, False, OrderedDict())

    def __reduce__(self) -> Any:
        return torch._utils._rebuild_tensor_v2, self.arguments


def tensor_file(kind: Any, numel: int, record: bytes, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    """An archive with one tensor as stated, over a record of these bytes."""
    out = io.BytesIO()
    _Pickler(out, protocol=2).dump({"model": {"norm.weight": Tensor(Storage(kind, "0", numel), 0, size, stride)}})
    return rezipped(
        lambda name, content: {"archive/data.pkl": out.getvalue(), "archive/data/0": record}.get(name, content),
        saved({"model": {"norm.weight": torch.zeros(4)}}),
    )


def self_containing() -> dict[str, Any]:
    content: dict[str, Any] = {"model": dict(WEIGHTS), "config": {}}
    content["config"]["again"] = content["config"]
    return content


def doubled(levels: int, times: int = 10) -> Any:
    """A list of the same list, so many levels deep."""
    value: Any = [1] * times
    for _ in range(levels):
        value = [value] * times
    return value


def deep(levels: int) -> bytes:
    return b"\x80\x02}(X\x05\x00\x00\x00model" + b"]" * levels + b"a" * (levels - 1) + b"u."


def script() -> bytes:
    """What torch.jit.save adds to an archive."""
    code = {"archive/code/__torch__.py": b"class Linear(Module):", "archive/constants.pkl": b"\x80\x02)."}
    return rezipped(lambda _, content: content, extra=code)


def twice() -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python's word for it
        return rezipped(lambda _, content: content, extra={"archive/data/0": b"0" * 16})


def old_form_with(numel: int) -> bytes:
    """The form before torch 1.6 with one storage of so many numbers, of which 16 bytes are there."""
    whole = saved({"model": {"w": torch.zeros(4)}}, zipped=False)
    kind, length = whole.index(b"FloatStorage"), whole.index(b"K\x04", whole.index(b"FloatStorage"))
    assert kind < length
    return whole[:length] + b"\x8a\x06" + numel.to_bytes(6, "little") + whole[length + 2 :]


def archived(content: bytes, name: str = "model.pth") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def npz() -> bytes:
    out = io.BytesIO()
    np.savez(out, **{"Transformer/encoder_norm/bias": np.zeros(3)})
    return out.getvalue()


def npy() -> bytes:
    out = io.BytesIO()
    np.save(out, np.zeros(3))
    return out.getvalue()


def zipped(content: bytes, name: str = "weights/model.pth") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(name, content)
    return out.getvalue()


def _f32(*values: float) -> bytes:
    return np.array(values, np.float32).tobytes()


ONE = {"norm.bias": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


def _one(**changes: Any) -> dict[str, Any]:
    return {"norm.bias": {**ONE["norm.bias"], **changes}}


def _quantized() -> torch.Tensor:
    return torch.quantize_per_tensor(torch.zeros(4), 0.1, 0, torch.qint8)


FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    # damaged
    "a bit of a weight": (lambda: flipped(saved({"model": WEIGHTS}), _f32(0, 1, 2, 3), 5), "checksum"),
    "a bit of the pickle": (lambda: flipped(saved({"model": WEIGHTS}), b"norm.weight", 2), "checksum"),
    "an archive cut short": (lambda: saved({"model": WEIGHTS})[:-100], "damaged archive"),
    "the old form cut short": (lambda: saved({"model": WEIGHTS}, zipped=False)[:-9], "damaged or cut short"),
    "a record twice": (twice, "twice"),
    "bytes before the archive": (lambda: b"PK\x03\x04" + b"\0" * 60 + saved({"model": WEIGHTS}), "around the archive"),
    "bytes after the archive": (lambda: saved({"model": WEIGHTS}) + b"\0" * 60, "around the archive"),
    "a record that is not there": (
        lambda: rezipped(lambda name, content: None if name.endswith("data/0") else content), "damaged or cut short",
    ),
    # another kind of file
    "TorchScript": (script, "is TorchScript"),
    "npz": (npz, ".npz archive"),
    "npy": (npy, "one NumPy array"),
    "gzip": (lambda: gzip.compress(saved({"model": WEIGHTS})), "compressed with gzip"),
    "xz": (lambda: lzma.compress(saved({"model": WEIGHTS})), "compressed with xz"),
    "tar": (lambda: archived(saved({"model": WEIGHTS})), "tar archive"),
    "tar of the old torch": (lambda: archived(b"0", "sys_info"), "tar archive"),
    "a zip with a checkpoint": (lambda: zipped(saved({"model": WEIGHTS})), "holds 'weights/model.pth': unpack it"),
    "a zip of something else": (lambda: zipped(b"hello", "readme.txt"), "not a checkpoint of torch.save"),
    "HDF5": (lambda: b"\x89HDF\r\n\x1a\n" + b"\0" * 600, "HDF5"),
    "GGUF": (lambda: b"GGUF" + b"\0" * 600, "GGUF"),
    "a list of shards": (lambda: b'{"metadata": {}, "weight_map": {}}', "text (JSON)"),
    "a pickle": (lambda: pickle.dumps(WEIGHTS), "pickle of Python"),
    "noise": (lambda: bytes(range(255, 0, -1)) * 9, "not a checkpoint of torch.save"),
    "nothing": (lambda: b"", "is empty"),
    "blanks": (lambda: b" \n" * 300, "holds nothing"),
    # larger inside than outside
    "stride 0": (lambda: saved({"model": {"w": torch.zeros(1).expand(30_000, 30_000)}}), "made to fill the memory"),
    "one storage many times": (
        lambda: saved({"model": dict.fromkeys((f"w{n}" for n in range(400)), torch.zeros(20_000))}), "made to fill",
    ),
    "a list of lists": (lambda: saved({"model": WEIGHTS, "config": doubled(12)}), "more than 300,000 values"),
    "a list of lists in place of weights": (lambda: saved({"model": doubled(12)}), "more than 300,000 values"),
    "a deflated pickle": (lambda: rezipped(lambda _, content: content, compression=zipfile.ZIP_DEFLATED), "compressed"),
    "a bzip2 record": (lambda: rezipped(lambda _, content: content, compression=zipfile.ZIP_BZIP2), "compressed"),
    "a pickle of 40 MB": (lambda: with_pickle(b"\x80\x02]." + b"0" * 40_000_000), "more than 33,554,432 are not read"),
    "a storage larger than its record": (
        lambda: tensor_file(torch.FloatStorage, 10**9, b"0" * 16, (10**9,), (1,)), "",
    ),
    "40 GB stated in the old form": (lambda: old_form_with(10**10), "of memory"),
    # made to crash
    "complex numbers in half a record": (lambda: tensor_file(torch.ComplexDoubleStorage, 1, b"0" * 16, (1,), (1,)), ""),
    "a shape beyond the storage": (lambda: tensor_file(torch.FloatStorage, 4, b"0" * 16, (5,), (1,)), ""),
    "a negative shape": (lambda: tensor_file(torch.FloatStorage, 4, b"0" * 16, (-4,), (1,)), ""),
    "a negative stride": (lambda: tensor_file(torch.FloatStorage, 4, b"0" * 16, (4,), (-1,)), ""),
    "a huge shape": (lambda: tensor_file(torch.FloatStorage, 4, b"0" * 16, (2**62, 4), (0, 0)), ""),
    "a shape of no numbers": (lambda: tensor_file(torch.FloatStorage, 4, b"0" * 16, ("4",), (1,)), ""),  # type: ignore[arg-type]
    "100,000 levels": (lambda: with_pickle(deep(100_000)), "levels deep"),
    "101 levels": (lambda: with_pickle(deep(101)), "levels deep"),
    "a memo of 4,000,000,000": (lambda: with_pickle(b"\x80\x02]r\xff\xff\xff\xff."), ""),
    "a dictionary in itself": (lambda: saved(self_containing()), "contains itself"),
    # no weights
    "keys that are numbers": (lambda: saved({"model": {0: torch.zeros(2), 1: torch.ones(2)}}), "0 is a key of kind"),
    "numbers at the top": (lambda: saved({0: torch.zeros(2)}), "0 is a key of kind int"),
    "keys that are pairs": (lambda: saved({"model": {("a", 1): torch.zeros(2)}}), "a key of kind tuple"),
    "a key of None": (lambda: saved({"model": {None: torch.zeros(2)}}), "a key of kind NoneType"),
    "bytes that are no text": (lambda: saved({"model": {b"\xff\xfe": torch.zeros(2)}}), "not text in UTF-8"),
    "text and bytes": (lambda: saved({"model": {"a": torch.zeros(2), b"a": torch.ones(2)}}), "one name twice"),
    "extra state": (lambda: saved({"model": {**WEIGHTS, "norm._extra_state": {"scale": 1}}}), "_extra_state is of"),
    "extra state of nothing": (lambda: saved({**WEIGHTS, "norm._extra_state": None}), "norm._extra_state is of"),
    "an epoch among weights": (lambda: saved({**WEIGHTS, "epoch": 3}), "epoch is of kind int, not a tensor"),
    "a control sequence": (lambda: saved({"model": {**WEIGHTS, "\x1b]0;owned\x07": 3}}), "\\x1b]0;owned\\x07"),
    "sparse": (lambda: saved({"model": {**WEIGHTS, "w": torch.eye(3).to_sparse()}}), "w is a sparse"),
    "compressed rows": (lambda: saved({"model": {"w": torch.eye(3).to_sparse_csr()}}), "w is a sparse"),
    "meta": (lambda: saved({"model": {**WEIGHTS, "w": torch.empty(3, device="meta")}}), "w is a tensor without"),
    "quantized": (lambda: saved({"model": {**WEIGHTS, "w": _quantized()}}), ""),
    "complex": (lambda: saved({"model": {"w": torch.zeros(3, dtype=torch.complex64)}}), "complex numbers (complex64)"),
    "not finite": (lambda: saved({"model": {**WEIGHTS, "norm.bias": torch.tensor([1.0, float("nan")])}}), ""),
    "infinite": (lambda: saved({"model": {**WEIGHTS, "norm.bias": torch.tensor([1.0, -float("inf")])}}), ""),
    "another code's names": (lambda: saved({"vit.embeddings.cls_token": torch.zeros(1, 1, 4)}), ""),
    "only numbers": (lambda: saved({"epoch": 3}), "no weights found"),
    "an empty dictionary": (lambda: saved({}), "no weights found"),
    "an empty state dict": (lambda: saved({"model": {}}), "no weights found"),
    # safetensors
    "metadata null": (lambda: safetensors({"__metadata__": None, **ONE}, _f32(1, 2)), "__metadata__ are no mapping"),
    "metadata a list": (lambda: safetensors({"__metadata__": [1], **ONE}, _f32(1, 2)), "__metadata__ are no mapping"),
    "metadata text": (lambda: safetensors({"__metadata__": "x", **ONE}, _f32(1, 2)), "__metadata__ are no mapping"),
    "metadata numbers": (lambda: safetensors({"__metadata__": {"a": 1}, **ONE}, _f32(1, 2)), "no mapping of text"),
    "our metadata no JSON": (
        lambda: safetensors({"__metadata__": {"orchestrator": "{"}, **ONE}, _f32(1, 2)), "are no JSON mapping",
    ),
    "our metadata a list": (
        lambda: safetensors({"__metadata__": {"orchestrator": "[1]"}, **ONE}, _f32(1, 2)), "are no JSON mapping",
    ),
    "no shape": (lambda: safetensors({"norm.bias": {"dtype": "F32", "data_offsets": [0, 8]}}, _f32(1, 2)), "lacks its"),
    "an entry of null": (lambda: safetensors({"norm.bias": None}, _f32(1, 2)), "lacks its dtype"),
    "a negative side": (lambda: safetensors(_one(shape=[-2]), _f32(1, 2)), "that cannot be"),
    "two negative sides": (lambda: safetensors(_one(shape=[-2, -1]), _f32(1, 2)), "that cannot be"),
    "a side of text": (lambda: safetensors(_one(shape=["2"]), _f32(1, 2)), "that cannot be"),
    "a side of true": (lambda: safetensors(_one(shape=[2, True]), _f32(1, 2)), "that cannot be"),
    "a shape of text": (lambda: safetensors(_one(shape="2"), _f32(1, 2)), "that cannot be"),
    "a larger shape": (lambda: safetensors(_one(shape=[3]), _f32(1, 2)), "needs 12 bytes, not 8"),
    "a huge side": (lambda: safetensors(_one(shape=[2**63]), _f32(1, 2)), "that cannot be"),
    "an unknown dtype": (lambda: safetensors(_one(dtype="F31"), _f32(1, 2)), "numbers of kind 'F31'"),
    "overlapping": (lambda: safetensors({**ONE, "b": ONE["norm.bias"]}, _f32(1, 2)), "begins at byte 0"),
    "a hole": (lambda: safetensors(_one(data_offsets=[4, 12]), _f32(0, 1, 2)), "begins at byte 4"),
    "ends before it begins": (lambda: safetensors(_one(data_offsets=[8, 0]), _f32(1, 2)), "needs 8 bytes, not -8"),
    "more bytes": (lambda: safetensors(ONE, _f32(1, 2, 3)), "cut short"),
    "fewer bytes": (lambda: safetensors(ONE, _f32(1)), "cut short"),
    "a header longer than the file": (lambda: struct.pack("<Q", 10**7) + b"{}", "cut short"),
    "a header of nothing but brackets": (lambda: safetensors(None, text=b"{" + b'"a":[' * 50_000), ""),
    "a name twice": (
        lambda: safetensors(None, _f32(1, 2), b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":' +
                            b'{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'), "one name twice",
    ),
    "not a number in safetensors": (lambda: safetensors(ONE, _f32(float("nan"), 1)), ""),
}  # fmt: skip
"""What is wrong -> the file, and words of the message (empty: any message)."""

ONLY_IMPORT = ("not finite", "infinite", "another code's names", "not a number in safetensors")
"""Files that `weights show` shows and `weights import` refuses."""


def written(name: str, folder: Path, suffix: str = ".pth") -> Path:
    """The file of this name, in a folder."""
    path = folder / f"x{suffix}"
    path.write_bytes(FILES[name][0]())
    return path
