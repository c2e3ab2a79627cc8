"""The only place that describes the small sets that need no download: photographs inside packages, and drawn ones."""

from __future__ import annotations

from tasks.datasets.cards import Card

_SKLEARN = "Ships with scikit-learn (sklearn.datasets.load_digits)."
_SKIMAGE = "Ships with scikit-image (skimage.data)."
_DRAWN = "Drawn by this project (tasks/datasets/drawn.py): synthetic, not photographs."
_FIXED = "none official: stratified, seed 0, fixed"
_REGIONS = "none official: each photograph is cut into patches; its left part is train, its middle val, its right test"

SMALL = (
    Card(
        name="digits", title="Digits", classes=10, metric="top1", train=300, val=299, test=300,
        source="wheel", official_val=True, split=_FIXED, how_to_get=_SKLEARN, licence="CC BY 4.0",
    ),
    Card(
        name="digits-pretrain", title="Digits, other half", classes=10, metric="top1", train=748, val=150, test=0,
        source="wheel", official_val=True, split=_FIXED, how_to_get=_SKLEARN, licence="CC BY 4.0",
    ),
    Card(
        name="faces", title="Faces", classes=2, metric="mean_per_class", train=40, val=80, test=80,
        source="wheel", official_val=True, split=_FIXED,
        how_to_get="Ships with scikit-image (skimage.data.lfw_subset).", licence="see scikit-image's data folder",
    ),
    Card(
        name="textures", title="Textures", classes=3, metric="top1", train=288, val=240, test=240,
        source="wheel", official_val=True, split=_REGIONS, how_to_get=_SKIMAGE, licence="CC0",
    ),
    Card(
        name="photos", title="Photos", classes=9, metric="top1", train=324, val=324, test=324,
        source="wheel", official_val=True, how_to_get=_SKIMAGE, licence="public domain, CC0 or as scikit-image states",
        split=f"{_REGIONS}; which photograph a patch is from is an artificial question about real pixels",
    ),
    Card(
        name="cog-small-seen", title="Seen", classes=10, metric="top1", train=600, val=150, test=150,
        source="made", official_val=True, split="fixed", how_to_get=_DRAWN, licence="that of this project",
    ),
    *(
        Card(
            name=f"cog-small-l{level}", title=f"L{level} (drawn)", classes=10, metric="top1", train=320, val=80,
            test=200, source="made", official_val=True, how_to_get=_DRAWN, licence="that of this project",
            split="fixed; val is 20 % of the training images, as in CoG",
        )
        for level in range(1, 6)
    ),
)  # fmt: skip
