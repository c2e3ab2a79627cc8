"""The small sets that need no download: photographs inside packages, and drawn ones."""

from __future__ import annotations

from tasks.datasets.labelled.dataset import LabelledDataset

_SKLEARN = "Ships with scikit-learn (sklearn.datasets.load_digits)."
_SKIMAGE = "Ships with scikit-image (skimage.data)."
_DRAWN = "Drawn by this project (tasks/datasets/labelled/synthetic.py): synthetic, not photographs."
_FIXED = "none official: stratified, seed 0, fixed"
_REGIONS = "none official: each photograph is cut into patches; its left part is train, its middle val, its right test"
_LEVELS = (
    "850dfbd529c44460f704b47b7276f6d311475e5e4be07e82094f06f226624279",
    "0dbb3bd858f275e9c073e0554a6a1caebcda0ff4fa56db209806616703d1eb5c",
    "375051ab95bbd9eda1db04483ed261ca58de5bc75a5911ace60c44c226b47bbf",
    "808564b8ebc4cb4301b67a3cc78528338352c17c2f2c21eebf6504b7486710bd",
    "9d83c6c918ec7fe395382d7ba768555e5cd92cf9e0d3179c19a1edb31b2a9088",
)
"""Digests of the manifests of the five levels."""

SMALL = (
    LabelledDataset(
        name="digits", title="Digits", classes=10, metric="top1", train=300, val=299, test=300,
        source="wheel", official_val=True, split=_FIXED, how_to_get=_SKLEARN, licence="CC BY 4.0",
        digest="4e818e68819a6ab941463506c79d9206d5cc71abef46f2a198bbf2c8493afd90",
    ),
    LabelledDataset(
        name="digits-pretrain", title="Digits, other half", classes=10, metric="top1", train=748, val=150, test=0,
        source="wheel", official_val=True, split=_FIXED, how_to_get=_SKLEARN, licence="CC BY 4.0",
        digest="b385957952305ced97aab98267273a4fc4868d770a515219fe285fae4a36a41e",
    ),
    LabelledDataset(
        name="faces", title="Faces", classes=2, metric="mean_per_class", train=40, val=80, test=80,
        source="wheel", official_val=True, split=_FIXED,
        how_to_get="Ships with scikit-image (skimage.data.lfw_subset).", licence="see scikit-image's data folder",
        digest="4c7b1ce78708709d65ecb70668fd7bc7589b17780ae9e998b36dde701bc3044a",
    ),
    LabelledDataset(
        name="textures", title="Textures", classes=3, metric="top1", train=288, val=240, test=240,
        source="wheel", official_val=True, split=_REGIONS, how_to_get=_SKIMAGE, licence="CC0 or public domain",
        digest="7e9cc12f1e6c3dbfc93722c5450be8a916c88af0f3db20b727c3bbe23b441e7b",
    ),
    LabelledDataset(
        name="photos", title="Photos", classes=9, metric="top1", train=324, val=324, test=324,
        source="wheel", official_val=True, how_to_get=_SKIMAGE, licence="public domain, CC0 or as scikit-image states",
        split=f"{_REGIONS}; which photograph a patch is from is an artificial question about real pixels",
        digest="8389b9508cd515bfda0a556338dfb497ba7e393a79aded29d0c5a80fb347af08",
    ),
    LabelledDataset(
        name="cog-small-seen", title="Seen", classes=10, metric="top1", train=600, val=150, test=150,
        source="made", official_val=True, split="fixed", how_to_get=_DRAWN, licence="that of this project",
        digest="5e813a02e6cbc9a764f3068153d8c6aaa43a5ac1e5a470e198fbd0b9c5df81be",
    ),
    *(
        LabelledDataset(
            name=f"cog-small-l{level}", title=f"L{level} (drawn)", classes=10, metric="top1", train=320, val=80,
            test=200, source="made", official_val=True, how_to_get=_DRAWN, licence="that of this project",
            split="fixed; val is 20 % of the training images, as in CoG", digest=digest,
        )
        for level, digest in enumerate(_LEVELS, 1)
    ),
)  # fmt: skip
