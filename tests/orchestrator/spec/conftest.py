"""Writes specs for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from good_spec import Write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "spec.yaml"
        path.write_text(text)
        return path

    return write
