"""Other people's checkpoints: read when they hold weights and settings, refused by name when they hold code."""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tasks.backbones.checkpoint_reader import check_sizes, entries, read, settings, state_dict
from tasks.errors import DataError

WEIGHTS = {"norm.weight": torch.arange(4.0), "norm.bias": torch.zeros(4)}


class Bomb:
    """Creates a folder when its pickle is run."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.target),)


class ViaEval(Bomb):
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return eval, (f"__import__('pathlib').Path({str(self.target)!r}).touch()",)


@pytest.fixture
def config_class(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, Any]], Any]:
    """A class that pickles as yacs' CfgNode does, gone again before anything is read."""
    module = types.ModuleType("yacs.config")

    class CfgNode(dict):  # type: ignore[type-arg]
        def __init__(self, values: dict[str, Any]) -> None:
            super().__init__({k: CfgNode(v) if isinstance(v, dict) else v for k, v in values.items()})
            self.__dict__.update({"__immutable__": True, "__deprecated_keys__": set(), "__renamed_keys__": {}})

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    module.CfgNode = CfgNode  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "yacs", types.ModuleType("yacs"))
    monkeypatch.setitem(sys.modules, "yacs.config", module)
    return CfgNode


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_weights_and_settings_come_out_plain(
    tmp_path: Path, config_class: Callable[[dict[str, Any]], Any], zipped: bool
) -> None:
    file = tmp_path / "ckpt.pth"
    content = {
        "model": WEIGHTS,
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 1e-3}]},
        "config": config_class({"DATA": {"IMG_SIZE": 192}, "MODEL": {"SWINV2": {"WINDOW_SIZE": 12}}, "TAG": ("a", 1)}),
        "args": argparse.Namespace(lr=0.1, out=Path("/data/out"), betas=(0.9, 0.999)),
        "epoch": 799,
        "max_accuracy": np.float64(81.25),
        "best": np.int64(-3),
        "scaler": None,
    }
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    for name in ("yacs.config", "yacs"):
        del sys.modules[name]

    found = read(file)
    weights, entry = state_dict(found)
    assert entry == "model"
    assert weights.keys() == WEIGHTS.keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in WEIGHTS.items())
    assert settings(found) == {
        "config": {"DATA": {"IMG_SIZE": 192}, "MODEL": {"SWINV2": {"WINDOW_SIZE": 12}}, "TAG": ["a", 1]},
        "args": {"lr": 0.1, "out": "/data/out", "betas": [0.9, 0.999]},
        "epoch": 799,
        "max_accuracy": 81.25,
        "best": -3,
    }
    assert type(found["max_accuracy"]) is float
    assert type(found["config"]) is dict


@pytest.mark.parametrize("bomb", [Bomb, ViaEval])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_code_is_refused_by_name_and_not_run(tmp_path: Path, zipped: bool, bomb: type[Bomb]) -> None:
    target, file = tmp_path / "was_run", tmp_path / "bad.pth"
    torch.save({"model": WEIGHTS, "extra": bomb(target)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(DataError, match=r"without running code: it asks for (posix.mkdir|eval)"):
        read(file)
    assert not target.exists()
    torch.load(file, weights_only=False)  # the file does what it is said to do, where nobody looks
    assert target.exists()


def _zip_with(pickled: bytes, file: Path) -> None:
    """A torch archive whose pickle is replaced."""
    sound = file.with_suffix(".sound")
    torch.save(WEIGHTS, sound)
    with zipfile.ZipFile(sound) as source, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, pickled if entry.filename.endswith("data.pkl") else source.read(entry))


def test_code_inside_a_persistent_id_is_not_run(tmp_path: Path) -> None:
    """torch asks the file where a tensor's storage is; the answer is a pickle too."""
    target, file = tmp_path / "was_run", tmp_path / "bad.pth"

    class Hidden(pickle._Pickler):  # type: ignore[name-defined]
        def persistent_id(self, value: Any) -> Any:
            return ("storage", Bomb(target), "0", "cpu", 4) if isinstance(value, torch.Tensor) else None

    with (tmp_path / "pickle").open("wb") as out:
        Hidden(out, protocol=2).dump({"model": {"norm.weight": torch.zeros(4)}})
    _zip_with((tmp_path / "pickle").read_bytes(), file)
    with pytest.raises(DataError, match="without running code"):
        read(file)
    assert not target.exists()


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02cyacs.config\nCfgNode\ncos\nsystem\nX\x05\x00\x00\x00touch\x85R\x85R.",  # as an argument
        b"\x80\x02cargparse\nNamespace\n)\x81}X\x09\x00\x00\x00__class__cos\nsystem\nsb.",  # as state
        b"\x80\x02cbuiltins\ngetattr\n.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",  # a later protocol
    ],
)
def test_stand_ins_open_no_way_to_code(tmp_path: Path, pickled: bytes) -> None:
    file = tmp_path / "bad.pth"
    _zip_with(pickled, file)
    with pytest.raises(DataError, match="one of it was run"):
        read(file)


@pytest.mark.parametrize("part", [0.2, 0.6, 0.95])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_file_cut_short_is_said(tmp_path: Path, zipped: bool, part: float) -> None:
    file = tmp_path / "cut.pth"
    torch.save({"model": {"w": torch.zeros(4096)}}, file, _use_new_zipfile_serialization=zipped)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(DataError, match=rf"cut.pth \({len(file.read_bytes())} bytes\) is .*damaged"):
        read(file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "Git LFS pointer"),
        (b"x" * 4000, "not a checkpoint of torch.save"),
        (b"hello, not weights", "not a checkpoint of torch.save and no safetensors file, or is damaged"),
        (pickle.dumps({"model": 1}), "a pickle of Python, but not a checkpoint of torch.save, or is damaged: load it"),
    ],
)
def test_what_is_no_checkpoint_is_said(tmp_path: Path, content: bytes, said: str) -> None:
    file = tmp_path / "w.pth"
    file.write_bytes(content)
    with pytest.raises(DataError, match=said):
        read(file)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file .*none\.pth"):
        read(tmp_path / "none.pth")


def test_a_model_instead_of_weights_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pth")
    with pytest.raises(DataError, match=r"torch.nn.modules.linear.Linear.*state_dict"):
        read(tmp_path / "model.pth")
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(DataError, match="holds a Tensor, not a dictionary"):
        read(tmp_path / "tensor.pth")


def test_where_the_weights_are() -> None:
    assert state_dict(WEIGHTS) == (WEIGHTS, "")
    assert state_dict({"epoch": 3, "state_dict": WEIGHTS})[1] == "state_dict"
    both = {"model": WEIGHTS, "model_ema": {"norm.weight": torch.ones(4)}}
    assert state_dict(both)[1] == "model"
    assert state_dict(both, "model_ema")[0]["norm.weight"].sum() == 4
    with pytest.raises(DataError, match=r"there are: epoch \(int\), net \(dict\)"):
        state_dict({"epoch": 1, "net": WEIGHTS})
    with pytest.raises(DataError, match="entry 'ema' holds no named tensors"):
        state_dict(both, "ema")


@pytest.mark.parametrize(
    ("content", "entry"),
    [
        ({"epoch": 1, "state_dict_ema": WEIGHTS}, "state_dict_ema"),
        ({"model_ema": WEIGHTS, "optimizer": {"state": {}}}, "model_ema"),
        ({"state_dict": {"model": WEIGHTS, "epoch": 3}}, "state_dict.model"),
        ({"model": {"module": {"state_dict": WEIGHTS}}}, "model.module.state_dict"),
        ({"model": {}, "module": WEIGHTS}, "module"),
        ({"model": WEIGHTS, "mean": torch.zeros(3)}, "model"),
    ],
)
def test_weights_are_found_where_averages_and_wrappers_keep_them(content: dict[str, Any], entry: str) -> None:
    assert state_dict(content) == (WEIGHTS, entry)
    assert state_dict(content, entry) == (WEIGHTS, entry)
    assert entry in entries(content)


def test_an_entry_of_another_name_is_offered_and_can_be_asked_for() -> None:
    with pytest.raises(DataError, match=r"net \(dict\); for one of these pass --entry: net$"):
        state_dict({"epoch": 1, "net": WEIGHTS})
    assert state_dict({"net": WEIGHTS}, "net") == (WEIGHTS, "net")
    with pytest.raises(DataError, match=r"entry 'net.body' holds no named tensors"):
        state_dict({"net": WEIGHTS}, "net.body")


def test_tensors_may_share_memory_within_what_the_file_accounts_for() -> None:
    tied = torch.zeros(1000)
    check_sizes({"a": tied, "b": tied}, 4000)
    check_sizes({"position_ids": torch.zeros(1).expand(1, 1024)}, 600)
    with pytest.raises(DataError, match=r"weights have 40,000,000 bytes together, the file 5,000: .*: w \[10000000\]"):
        check_sizes({"w": torch.zeros(1).expand(10_000_000)}, 5000)
