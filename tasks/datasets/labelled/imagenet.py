"""ImageNet-1K, iNaturalist-18 and the five levels of ImageNet-CoG."""

from __future__ import annotations

from tasks.datasets.info import Download
from tasks.datasets.labelled.cog_lists import COG_FEWEST, COG_MOST, CONVERSION
from tasks.datasets.labelled.dataset import LabelledDataset

_INAT = "https://ml-inat-competition-datasets.s3.amazonaws.com/2018"
_IMAGENET_TERMS = "ImageNet terms of access: non-commercial research and education"
_REPORTED_ON_VAL = (
    "official train and val; the test labels are not public, so as in the field (SimMIM's fine-tuning too) figures are "
    "reported on val; task.official_val: test makes it the test set and holds val out of train"
)


def _level(number: int) -> LabelledDataset:
    """A level. Its makers publish no count of training images: `train`, 1,100 per class, is a guess for `plan`."""
    return LabelledDataset(
        name=f"cog-l{number}", title=f"L{number}", classes=1_000, metric="top1", train=880_000, val=220_000,
        test=50_000, source="folder", official_val=False, licence=_IMAGENET_TERMS, per_class=(COG_FEWEST, COG_MOST),
        conversion=CONVERSION,
        split="CoG's train and test; val: a stratified, seeded part of train (CoG takes 20 %; which validation set the "
        "paper means is not said)",
        needs=(f"cog/l{number}.json", "imagenet21k"),
        how_to_get="Unpack ImageNet-21k (winter 2021, 1.1 TB, image-net.org, an account is needed) into imagenet21k, a "
        "folder per WordNet id; get cog_levels_mapping_file.pkl and cog_concepts_split_file.pkl from "
        "http://download.europe.naverlabs.com/ComputerVision/ and run: data convert cog FILE FILE.",
    )  # fmt: skip


LARGE = (
    LabelledDataset(
        name="imagenet", title="ImageNet-1K", classes=1_000, metric="top1", train=1_281_167, val=50_000, test=0,
        source="folder", official_val=True, split=_REPORTED_ON_VAL, licence=_IMAGENET_TERMS,
        needs=("imagenet/train", "imagenet/val"),
        how_to_get="Get ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz from "
        "image-net.org (an account is needed; 144 GB) into imagenet, and there, with Python: from torchvision.datasets "
        "import ImageNet; ImageNet('.', 'train'); ImageNet('.', 'val'). It checks and unpacks them into imagenet/train "
        "and imagenet/val, a folder per WordNet id in both.",
    ),
    LabelledDataset(
        name="inat18", title="iNat18", classes=8_142, metric="top1", train=437_513, val=24_426, test=0,
        source="folder", official_val=True, split=_REPORTED_ON_VAL, licence="non-commercial research and education",
        needs=("inat18/train2018.json", "inat18/val2018.json", "inat18/train_val2018"),
        how_to_get=f"Unpack train_val2018.tar.gz (120 GB), train2018.json.tar.gz and val2018.json.tar.gz from {_INAT}/ "
        "into inat18.",
        downloads=(
            Download(f"{_INAT}/train2018.json.tar.gz", None, "inat18"),
            Download(f"{_INAT}/val2018.json.tar.gz", None, "inat18"),
            Download(f"{_INAT}/train_val2018.tar.gz", "b1c6952ce38f31868cc50ea72d066cc3", "inat18"),
        ),
    ),
    *(_level(number) for number in range(1, 6)),
)  # fmt: skip
