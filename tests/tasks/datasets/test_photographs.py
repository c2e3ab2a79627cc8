"""The table of photographs: each in one part, all in the packages, none with itself under another name."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.datasets import DATASETS
from tasks.datasets.photographs import PHOTOGRAPHS, SCENES, SHOWS, of_part, open_photograph, packaged
from tasks.errors import DataError


def test_every_photograph_is_in_one_part_and_opens() -> None:
    assert len({(photo.package, photo.file) for photo in PHOTOGRAPHS}) == len(PHOTOGRAPHS)
    parts = [of_part("pretrain"), of_part("train"), of_part("val"), of_part("test")]
    assert sum(map(len, parts)) == len(PHOTOGRAPHS)
    assert min(map(len, parts)) >= 2
    seen = {}
    for photo in PHOTOGRAPHS:
        image = open_photograph(photo, "scenes")
        assert (image.size, image.mode) == ((photo.width, photo.height), "RGB")
        seen[photo.file] = np.asarray(image.resize((16, 16)), dtype=float)
    assert np.ptp(np.stack(list(seen.values())), axis=0).mean() > 50


def test_the_stereo_pair_is_test() -> None:
    """It shows one scene, and its true depth is a real test of depth estimation."""
    assert {photo.part for photo in PHOTOGRAPHS if photo.file.startswith("motorcycle")} == {"test"}


def test_a_file_that_is_not_in_the_package_is_named() -> None:
    with pytest.raises(DataError, match=r"scenes: no .*data/cosmonaut\.png; install the versions"):
        packaged("skimage/data", "cosmonaut.png", "scenes")


def test_sets_of_the_same_photographs_say_so() -> None:
    """Weights trained on one of them are not measured on test images of another that show the same photograph."""
    for name in ("photo-tiles", "scene-crops", *SCENES):
        assert DATASETS[name].shows == SHOWS
        assert DATASETS[name].shown == dict.fromkeys(SHOWS, f"dataset: {name}")
    assert DATASETS["photos"].shows == SCENES
    assert DATASETS["digits"].shown == {}
