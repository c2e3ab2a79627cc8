"""A data root with sequences in every layout, which each test may change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import sequence_trees as trees


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = trees.all_four(tmp_path_factory.mktemp("whole"))
    trees.own(root / "mine")
    return root


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    """Got10k, TrackingNet, LaSOT, COCO and one's own below a data root."""
    return shutil.copytree(whole, tmp_path / "data")
