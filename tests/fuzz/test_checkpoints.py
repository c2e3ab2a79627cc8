"""Weights files of all kinds, changed at random: exit code and one line, in bounded memory, nothing written outside."""

from __future__ import annotations

import functools
import json
import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from fuzzing import examples
from hostile_files import FILES, WEIGHTS, rezipped, safetensors, saved
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from published_checkpoints import swinv2

from orchestrator.cli.data import data
from orchestrator.cli.weights import weights
from orchestrator.errors import BadInput

BOUNDED = settings(
    max_examples=examples(25), deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)  # fmt: skip
LARGEST = 400_000
"""Bytes of a seed: of the larger ones every change would be of the same kind."""

Change = tuple[str, float, bytes]
"""What is done, where (0: at the beginning, 1: at the end), and with which bytes."""
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["flip", "replace", "insert", "remove", "repeat", "cut"]),
        st.floats(0, 1, exclude_max=True),
        st.binary(min_size=1, max_size=12),
    ),
    max_size=4,
)


@functools.cache
def sound(name: str) -> bytes:
    """A file that is as it should be."""
    if name == "archive":
        return saved({"model": WEIGHTS, "config": {"MODEL": {"SWINV2": {"DEPTHS": [1]}}}, "epoch": 3})
    if name == "old form":
        return saved({"model": WEIGHTS, "epoch": 3}, zipped=False)
    if name == "swinv2":
        return saved({"model": swinv2(embed_dim=8).state_dict()})
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    return safetensors({"norm.bias": entry, "__metadata__": {"orchestrator": '{"windows": [[4, 4]]}'}}, b"\0" * 8)


SOUND = ("archive", "old form", "swinv2", "safetensors")


@functools.cache
def seed(name: str) -> bytes:
    """A sound file, or one of the corpus."""
    return sound(name) if name in SOUND else FILES[name][0]()[:LARGEST]


def changed(content: bytes, changes: list[Change]) -> bytes:
    for what, place, piece in changes:
        at = int(place * len(content))
        before, after = content[:at], content[at:]
        content = {
            "flip": before + bytes(byte ^ 0xFF for byte in after[:1]) + after[1:],
            "replace": before + piece + after[len(piece) :],
            "insert": before + piece + after,
            "remove": before + after[len(piece) :],
            "repeat": before + after[: 2 ** len(piece)] + after,
            "cut": before,
        }[what]
    return content


def obeyed(content: bytes, *commands: str, suffix: str = ".pth") -> None:
    """Asserts that each command takes the file, or refuses it in one line; and writes only where it should."""
    with tempfile.TemporaryDirectory() as folder:
        file, root = Path(folder) / f"x{suffix}", Path(folder) / "data"
        file.write_bytes(content)
        for command in commands:
            flags = {"show": [], "cog": ["--data-root", str(root)], "import": ["--data-root", str(root)]}[command]
            group, words = (data, ["convert", "cog"]) if command == "cog" else (weights, [command])
            try:
                result = CliRunner().invoke(group, [*words, str(file), *flags], catch_exceptions=False)
                assert result.exit_code == 0
            except BadInput as error:
                said = str(error)
                assert said.isprintable(), said
                assert "unforeseen" not in said
                assert "weights_only" not in said
                assert len(said) < 900 + 3 * len(str(file)), said
                assert not list(root.rglob("*.safetensors")), "a refused file left weights behind"
        assert {path.name for path in Path(folder).iterdir()} <= {file.name, "data"}
        assert {path.name for path in root.rglob("*") if path.is_file()} <= {"x.safetensors", "x.json"}
        assert file.read_bytes() == content


@BOUNDED
@given(name=st.sampled_from([*SOUND, *FILES]), changes=CHANGES, suffix=st.sampled_from([".pth", ".safetensors"]))
def test_any_change_of_any_file(name: str, changes: list[Change], suffix: str) -> None:
    obeyed(changed(seed(name), changes), "import", "show", suffix=suffix)


@BOUNDED
@given(
    name=st.sampled_from(["archive", "swinv2"]), changes=CHANGES, records=st.sampled_from(["data.pkl", "data/0", ""])
)
def test_any_change_inside_an_archive_with_the_right_checksums(name: str, changes: list[Change], records: str) -> None:
    obeyed(
        rezipped(
            lambda record, content: changed(content, changes) if record.endswith(records) else content, sound(name)
        ),
        "import",
    )


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=4),
    max_leaves=12,
)
"""Values that a pickle may hold."""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "I64", "BOOL", "F8_E4M3", "C64", "x"]) | JSON,
        "shape": st.lists(st.integers(-2, 4), max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(-8, 24), min_size=2, max_size=2) | JSON,
    },
)


@BOUNDED
@given(
    header=st.dictionaries(
        st.sampled_from(["a", "norm.bias", "\x1b[2J"]) | st.text(max_size=6), ENTRY | JSON, max_size=3
    ),
    metadata=JSON | st.dictionaries(st.sampled_from(["orchestrator", "format"]), st.text(max_size=12)),
    body=st.binary(max_size=24),
)
def test_any_safetensors_header(header: dict[str, Any], metadata: Any, body: bytes) -> None:
    obeyed(safetensors({**header, "__metadata__": metadata}, body), "import", "show", suffix=".safetensors")


@BOUNDED
@given(
    content=st.dictionaries(st.sampled_from(["model", "state_dict", "config", "ema"]) | st.text(), PLAIN, max_size=4)
)
def test_any_values_beside_weights(content: dict[str, Any]) -> None:
    obeyed(saved({**content, "module": WEIGHTS}), "import", "show")


@BOUNDED
@given(content=PLAIN, changes=CHANGES, protocol=st.integers(0, 4))
def test_any_pickle_for_cog(content: Any, changes: list[Change], protocol: int) -> None:
    lists = {"levels": [[f"n{n}0000000"] for n in range(1, 6)], "names": np.array(["n1/a.JPEG"]), "other": content}
    obeyed(changed(pickle.dumps(lists, protocol=protocol), changes), "cog")
    obeyed(pickle.dumps(content, protocol=protocol), "cog")


@pytest.mark.parametrize("name", SOUND)
def test_the_seeds_are_sound(name: str, tmp_path: Path) -> None:
    """What the changes begin with is taken, so that a refusal is the change's."""
    file = tmp_path / "x.bin"
    file.write_bytes(sound(name))
    for words in (["import", str(file), "--data-root", str(tmp_path)], ["show", str(file)]):
        assert CliRunner().invoke(weights, words, catch_exceptions=False).exit_code == 0
    assert json.loads((tmp_path / "weights" / "x.json").read_text())["sha256"]
