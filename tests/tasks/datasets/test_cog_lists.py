"""CoG's published pickles become lists; whatever else a pickle is or asks for is refused without running it."""

from __future__ import annotations

import json
import pickle
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_commands import command


def cog_pickles(folder: Path, split: dict[str, Any] | None = None, levels: Any = None) -> list[Path]:
    """The two files in the form of the published ones: levels as five lists, per concept arrays of file names."""
    folder.mkdir(exist_ok=True)
    concepts = [[f"n{level}{c}000000" for c in range(2, 0, -1)] for level in range(1, 6)]
    named = {
        wnid: {
            "train": np.array([f"/{wnid}/{wnid}_{i}.JPEG" for i in (11, 2, 3)], dtype=object if c % 2 else None),
            "test": np.array([f"/{wnid}/{wnid}_4.JPEG"]),
        }
        for c, wnid in enumerate(name for level in concepts for name in level)
    }
    paths = [folder / "cog_levels_mapping_file.pkl", folder / "cog_concepts_split_file.pkl"]
    paths[0].write_bytes(pickle.dumps(levels or concepts, protocol=4))
    paths[1].write_bytes(pickle.dumps(split or named, protocol=4))
    return paths


def test_the_pickles_of_cog_become_lists(tmp_path: Path) -> None:
    files = cog_pickles(tmp_path / "theirs")
    result = command(tmp_path, "convert", "cog", "--any-count", *files[::-1])
    assert result.exit_code == 0, result.output
    assert result.stdout.split() == [str(tmp_path / "cog" / f"l{n}.json") for n in range(1, 6)]
    level = json.loads((tmp_path / "cog" / "l3.json").read_text())
    assert list(level) == ["n31000000", "n32000000"]
    assert level["n31000000"] == {
        "train": [f"n31000000/n31000000_{i}.JPEG" for i in (11, 2, 3)], "test": ["n31000000/n31000000_4.JPEG"],
    }  # fmt: skip


@pytest.mark.parametrize("protocol", [0, 2, 3, 4])
def test_pickles_of_every_age_are_read_alike(protocol: int, tmp_path: Path) -> None:
    from tasks.datasets.labelled.cog_lists import read

    content = {
        "names": np.array(["n01/a.JPEG", "n02/bc.JPEG"]), "objects": np.array(["ü", "b"], dtype=object),
        "bytes": np.array([b"x", b"yz"]), "ordered": OrderedDict(a=1), "grouped": defaultdict(list, b=[2.5]),
        "tuple": (1, None, True), "one": np.array(["abc"])[0],
    }  # fmt: skip
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    assert read(path) == {
        "names": ["n01/a.JPEG", "n02/bc.JPEG"], "objects": ["ü", "b"], "bytes": ["x", "yz"], "ordered": {"a": 1},
        "grouped": {"b": [2.5]}, "tuple": [1, None, True], "one": "abc",
    }  # fmt: skip


class Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


def test_a_pickle_that_runs_code_is_refused_and_nothing_of_it_run(tmp_path: Path) -> None:
    files = cog_pickles(tmp_path / "theirs")
    files[0].write_bytes(pickle.dumps([Evil(tmp_path / "touched"), ["n01000000"]]))
    result = command(tmp_path, "convert", "cog", *files)
    assert result.exit_code == 4
    assert "was not read, and nothing of it was run: it asks for " in result.output
    assert not (tmp_path / "touched").exists()
    assert not (tmp_path / "cog").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": [["n11000000"]]}, "holds lists of concepts of five levels"),
        ({"split": {"n11000000": ["a.JPEG"]}}, "holds lists of train and test files"),
        ({"split": {"n11000000": {"train": ["n11000000/a.JPEG"], "test": []}}}, "concept n12000000 is in a level but"),
        ({"levels": [["n11000000"]] * 5}, "a concept is in two levels"),
        ({"split": {f"n{level}{c}000000": {"train": ["../../etc/passwd"], "test": []}
                    for level in range(1, 6) for c in (1, 2)}}, "is no image below the folder of a concept"),
        ({"split": {f"n{level}{c}000000": {"train": ["a.JPEG"], "test": ["a.JPEG"]}
                    for level in range(1, 6) for c in (1, 2)}}, "a file is named twice"),
        ({}, "3 images to train on and 1 to test on, expected 732 to 1300 and 50"),
    ],
)  # fmt: skip
def test_files_that_are_not_cogs_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    files = cog_pickles(tmp_path / "theirs", **change)
    result = command(tmp_path, "convert", "cog", *files)
    assert (result.exit_code, message in result.output) == (4, True), result.output
    assert not (tmp_path / "cog").exists()
    (tmp_path / "theirs" / "half.pkl").write_bytes(files[1].read_bytes()[:-20])
    assert "is no pickle, or is cut short" in command(tmp_path, "convert", "cog", tmp_path / "theirs/half.pkl").output
