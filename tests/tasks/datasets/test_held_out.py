"""Cuts that cannot be made: an empty part, and a seed that no draw takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dataset_trees as trees
import pytest
from data_commands import command
from pydantic import ValidationError

from tasks.classification.task import Classify
from tasks.datasets.labelled import partition
from tasks.datasets.labelled.card import SplitSpec
from tasks.datasets.labelled.dataset import LabelledDataset
from tasks.errors import DataError
from tasks.pretraining.task import Pretrain


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], LabelledDataset]:
    return lambda name: trees.plant(name, tmp_path, monkeypatch)


def planned(root: Path) -> Any:
    """What planning fills in for a folder of one's own."""
    return Classify(dataset={"kind": "folder", "path": "own"}, val_fraction=0.5).planned_fields(root)


def test_an_empty_part_is_refused_when_the_spec_is_read() -> None:
    for fraction in (1e-6, 1 - 1e-6):
        for make in (Classify, Pretrain):
            with pytest.raises(ValidationError, match=r"pets: val_fraction .* of 3,680 images holds out (0|3,680) "):
                make(dataset="pets", val_fraction=fraction)
        with pytest.raises(ValidationError, match="inat18: val_fraction"):
            Classify(dataset="inat18", val_fraction=fraction / 100 if fraction < 0.5 else fraction + 9.9e-7,
                     official_val="test")  # fmt: skip
        assert Classify(dataset="dtd", val_fraction=fraction).val_fraction == fraction  # its val is official
    assert Classify(dataset="pets", val_fraction=2e-4).train_samples == 3679


def test_an_empty_part_is_refused_when_a_folder_is_listed(tmp_path: Path) -> None:
    for name in ("a/1.jpg", "b/2.jpg"):
        trees.draw(tmp_path / "own" / name, 1)
    with pytest.raises(DataError, match=r"own: val_fraction 0\.2 of 2 images holds out 0 as val and leaves 2 to tr"):
        Classify(dataset={"kind": "folder", "path": "own"}).planned_fields(tmp_path)
    assert planned(tmp_path)["sizes"]


def test_a_seed_that_no_draw_takes_is_refused(tree: Callable[[str], LabelledDataset], tmp_path: Path) -> None:
    for make in (Classify, Pretrain):
        assert make(dataset="pets", split_seed=2**32 - 1).split_seed == 2**32 - 1
        for seed in (-1, 2**32, 2**63, 10**30):
            with pytest.raises(ValidationError, match=r"split_seed\n  Input should be (less|greater) than or equal to"):
                make(dataset="pets", split_seed=seed)
    card = tree("pets")
    assert partition.make(card, tmp_path, SplitSpec("pets", split_seed=2**32 - 1)).counts["val"] == 2
    result = command(tmp_path, "split", "pets", "--split-seed", 2**32)
    assert (result.exit_code, "is not in the range 0<=x<=4294967295" in result.output) == (2, True)
    result = command(tmp_path, "split", "pets", "--val-fraction", "1e-6")
    assert (result.exit_code, "holds out 0 as val" in result.output) == (4, True)
