"""Weights in a file: nothing runs before the file is there and its digest is the one in the spec."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tasks.backbones.spec import FromFile

DIGEST = hashlib.sha256(b"weights").hexdigest()


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    said = FromFile(name="MIM", path="w/mim.safetensors").missing(tmp_path)
    assert said is not None
    assert str(tmp_path / "w" / "mim.safetensors") in said
    assert "MIM" in said


def test_digest_that_is_not_filled_in_is_told(tmp_path: Path) -> None:
    (tmp_path / "mim.safetensors").write_bytes(b"weights")
    said = FromFile(name="MIM", path="mim.safetensors").missing(tmp_path)
    assert said is not None
    assert "not filled in" in said
    assert DIGEST in said


def test_other_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mim.safetensors").write_bytes(b"other weights")
    said = FromFile(name="MIM", path="mim.safetensors", sha256=DIGEST).missing(tmp_path)
    assert said is not None
    assert DIGEST in said
    assert hashlib.sha256(b"other weights").hexdigest() in said


def test_the_file_of_the_spec_is_fine_also_by_absolute_path(tmp_path: Path) -> None:
    file = tmp_path / "mim.safetensors"
    file.write_bytes(b"weights")
    assert FromFile(name="MIM", path="mim.safetensors", sha256=DIGEST).missing(tmp_path) is None
    assert FromFile(name="MIM", path=str(file), sha256=DIGEST).missing(Path("/elsewhere")) is None
