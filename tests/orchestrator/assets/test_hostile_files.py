"""Files that are no weights, or made to break what reads them: exit code 6 and one line, whatever the command."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hostile_files import FILES, ONLY_IMPORT, written
from published_checkpoints import swinv2
from safetensors.torch import save_file

from orchestrator.cli.weights import weights
from orchestrator.errors import BackendUnreachable, BadInput, NotFound


def message(command: str, file: Path, *flags: str) -> str:
    """What a command that must be refused as bad input says: one line, and nothing written."""
    before = sorted(path.name for path in file.parent.iterdir())
    with pytest.raises(BadInput) as caught:
        CliRunner().invoke(weights, [command, str(file), *flags], catch_exceptions=False)
    said = str(caught.value)
    assert said.isprintable(), said
    assert "weights_only" not in said
    assert "unforeseen" not in said
    assert len(said) < 600 + 3 * len(str(file)), said
    assert sorted(path.name for path in file.parent.iterdir()) == before
    return said


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_weights_is_told_in_one_line(name: str, tmp_path: Path) -> None:
    file = written(name, tmp_path)
    expected = FILES[name][1]
    assert expected in message("import", file, "--data-root", str(tmp_path))
    if name not in ONLY_IMPORT:
        assert expected in message("show", file)
    os.rename(file, file := file.with_suffix(".safetensors"))  # what a file is called plays no part
    assert expected in message("import", file, "--output", str(tmp_path / "out.safetensors"))


def test_what_is_no_file_is_told_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "folder.pth").mkdir()
    for name, command in (("pipe.pth", "import"), ("pipe.pth", "show"), ("folder.pth", "show")):
        assert f"{name} is no file" in message(command, tmp_path / name)
    with pytest.raises(NotFound, match=r"folder\.pth has no config\.json: name the weights file"):
        CliRunner().invoke(weights, ["import", str(tmp_path / "folder.pth")], catch_exceptions=False)


def test_a_name_that_the_system_refuses_and_an_output_that_is_a_folder_are_told(tmp_path: Path) -> None:
    for command in ("import", "show"):
        assert "File name too long" in message(command, tmp_path / ("a" * 300))
    save_file({"norm.bias": torch.ones(2)}, tmp_path / "w.safetensors")
    (tmp_path / "out.safetensors").mkdir()
    flags = ["--output", str(tmp_path / "out.safetensors")]
    with pytest.raises(BackendUnreachable, match=r"cannot read .*out.safetensors: Is a directory; choose another"):
        CliRunner().invoke(weights, ["import", str(tmp_path / "w.safetensors"), *flags], catch_exceptions=False)


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"{}", b"\xff\xfe", b"[" * 100_000])
def test_a_file_in_the_place_of_a_description_is_no_traceback_and_stays(text: bytes, tmp_path: Path) -> None:
    """`weights import` would write its description there, and `show` reads it."""
    file = tmp_path / "w.safetensors"
    save_file({"norm.bias": torch.ones(2)}, file)
    beside = tmp_path / "w.json"
    beside.write_bytes(text)
    said = message("import", file, "--output", str(file))
    assert f"{beside} is not the description of weights that belongs there" in said
    assert beside.read_bytes() == text
    if text != b"{}":
        assert f"{beside}, beside the weights," in message("show", file)


@pytest.mark.parametrize(
    "damage",
    [
        {"PATCH_SIZE": 0}, {"PATCH_SIZE": "4"}, {"WINDOW_SIZE": 10**30}, {"WINDOW_SIZE": None}, {"DEPTHS": 3},
        {"DEPTHS": [2] * 5000}, {"PRETRAINED_WINDOW_SIZES": [float("inf")] * 4}, {"PRETRAINED_WINDOW_SIZES": [-1] * 4},
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_not_believed(damage: dict[str, object], tmp_path: Path) -> None:
    config = {"MODEL": {"SWINV2": {"WINDOW_SIZE": 4, "DEPTHS": [1, 1, 2, 1], "PATCH_SIZE": 4, **damage}}}
    content = {"model": swinv2().state_dict(), "config": {**config, "DATA": {"IMG_SIZE": 64}}, "best": float("nan")}
    torch.save({**content, "huge": 2**100}, tmp_path / "x.pth")
    for command, flags in (("import", ["--data-root", str(tmp_path)]), ("show", [])):
        result = CliRunner().invoke(weights, [command, str(tmp_path / "x.pth"), *flags])
        assert result.exit_code == 0, result.exception
        assert "\nwindows" not in result.stdout
        assert "pretrained_window_sizes" not in result.stdout
    assert json.loads((tmp_path / "weights" / "x.json").read_text())["settings"]["best"] == "nan"
