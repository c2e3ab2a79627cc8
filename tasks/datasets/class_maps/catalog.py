"""The named data sets of class maps. Counts of ADE20K: 20,210 and 2,000 images (Zhou et al. 2017)."""

from __future__ import annotations

from dataclasses import replace

from tasks.datasets.class_maps.ade20k import COLOURS, NAMES
from tasks.datasets.class_maps.dataset import ClassMapDataset
from tasks.datasets.photographs import SHOWS

ADE20K = ClassMapDataset(
    name="ade20k", title="ADE20K", source="folder", folder="ADEChallengeData2016", names=NAMES, colours=COLOURS,
    split="ADE20K's training and validation; the paper evaluates validation (labels of test are not public)",
    needs=tuple(f"ADEChallengeData2016/{what}/{part}" for what in ("images", "annotations")
                for part in ("training", "validation")),
    how_to_get="Unpack ADEChallengeData2016.zip (924 MB, the scene parsing challenge of 2016, data.csail.mit.edu) into "
    "the data root.",
    licence="images: research and education; annotations BSD 3-clause",
    counts={"train": 20_210, "val": 2_000},
)  # fmt: skip
SCENE_MAPS = ClassMapDataset(
    name="scene-maps", title="Generated maps", source="made", folder="", shows=SHOWS,
    names=("wall", "floor", "ceiling", "box", "ring", "square", "star"),
    colours=("787878", "503232", "787850", "00ff14", "0066c8", "ff0633", "ffe000"),
    split="generated: train, val and test show other photographs (tasks/datasets/scenes)",
    how_to_get="Generated on first use, below the data root, from photographs inside scikit-image and scikit-learn.",
    licence="the photographs': scikit-image's data folder; china and flower CC BY 2.0",
    counts={"train": 800, "val": 100, "test": 100},
    caveat="the images are generated: compare with nothing published",
)  # fmt: skip
SCENE_MAPS_SMALL = replace(
    SCENE_MAPS, name="scene-maps-small", title="Generated maps (few)", counts={"train": 48, "val": 8, "test": 8},
)  # fmt: skip
CLASS_MAPS = (ADE20K, SCENE_MAPS, SCENE_MAPS_SMALL)
