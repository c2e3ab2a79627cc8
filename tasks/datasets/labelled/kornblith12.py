"""The twelve data sets of Kornblith et al. (K12 in the paper)."""

from __future__ import annotations

from tasks.datasets.info import Download
from tasks.datasets.labelled.dataset import LabelledDataset

# Sizes: train + val and test as the data sets' own lists and torchvision say; the cut between train and val, where it
# is not official, from the tables of Kornblith et al. and BYOL. All are checked against what is on disk.
_RESEARCH = "research use; the photographs keep their owners' rights"
_HELD_OUT = "official train and test; val held out of train, stratified and seeded"
_OFFICIAL = "official train, val and test"
_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"

K12 = (
    LabelledDataset(
        name="food101", title="Food101", classes=101, metric="top1", train=68_175, val=7_575, test=25_250,
        source="folder", official_val=False, split=_HELD_OUT, licence=_RESEARCH,
        needs=("food-101/meta/train.json", "food-101/images"),
        how_to_get="Unpack http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz (4.7 GB) there.",
        downloads=(
            Download("http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz", "85eeb15f3717b99a5da872d97d918f87", "."),
        ),
    ),
    LabelledDataset(
        name="cifar10", title="CIFAR10", classes=10, metric="top1", train=45_000, val=5_000, test=10_000,
        source="folder", official_val=False, split=_HELD_OUT, licence=_RESEARCH, needs=("cifar-10-batches-py",),
        how_to_get="Unpack https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz (163 MB) there.",
        downloads=(
            Download(
                "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", "."
            ),
        ),
    ),
    LabelledDataset(
        name="cifar100", title="CIFAR100", classes=100, metric="top1", train=44_933, val=5_067, test=10_000,
        source="folder", official_val=False, split=_HELD_OUT, licence=_RESEARCH, needs=("cifar-100-python",),
        how_to_get="Unpack https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz (161 MB) there.",
        downloads=(
            Download(
                "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", "."
            ),
        ),
    ),
    LabelledDataset(
        name="birdsnap", title="Birdsnap", classes=500, metric="top1", train=42_405, val=4_981, test=2_443,
        source="folder", official_val=False, licence=_RESEARCH, partly_lost=True,
        split="test as listed, all others train; val held out of train, stratified and seeded",
        needs=("birdsnap/images.txt", "birdsnap/test_images.txt", "birdsnap/images"),
        how_to_get="Unpack birdsnap.tgz (lists, version 1.1, thomasberg.org) there and fetch the images it lists into "
        "birdsnap/images. Many of their addresses no longer answer: see task.counts.",
    ),
    LabelledDataset(
        name="sun397", title="SUN397", classes=397, metric="top1", train=15_880, val=3_970, test=19_850,
        source="folder", official_val=False, licence=_RESEARCH,
        split="partition 1 of the ten official ones; val held out of its training set, stratified and seeded",
        needs=("SUN397/Partitions/ClassName.txt", "SUN397/Partitions/Training_01.txt", "SUN397/a"),
        how_to_get="Unpack http://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz (37 GB) there, and "
        "Partitions.zip (same site) into SUN397/Partitions.",
    ),
    LabelledDataset(
        name="cars", title="Cars", classes=196, metric="top1", train=6_494, val=1_650, test=8_041,
        source="folder", official_val=False, split=_HELD_OUT, licence=_RESEARCH,
        needs=("stanford_cars/devkit", "stanford_cars/cars_train", "stanford_cars/cars_test",
               "stanford_cars/cars_test_annos_withlabels.mat"),
        how_to_get="The original address is gone; from a mirror put cars_train, cars_test, devkit and "
        "cars_test_annos_withlabels.mat into stanford_cars (as torchvision.datasets.StanfordCars wants them).",
    ),
    LabelledDataset(
        name="aircraft", title="Aircraft", classes=100, metric="mean_per_class", train=3_334, val=3_333, test=3_333,
        source="folder", official_val=True, split=_OFFICIAL, licence="non-commercial research",
        needs=("fgvc-aircraft-2013b/data/images", "fgvc-aircraft-2013b/data/variants.txt"),
        how_to_get=f"Unpack fgvc-aircraft-2013b.tar.gz (2.6 GB) from {_OXFORD}/fgvc-aircraft/ there.",
        downloads=(Download(f"{_OXFORD}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz", None, "."),),
    ),
    LabelledDataset(
        name="voc2007", title="VOC2007", classes=20, metric="map11", train=2_501, val=2_510, test=4_952,
        source="folder", official_val=True, licence="Flickr terms of use; see the source", several_labels=True,
        split=f"{_OFFICIAL}; a class whose objects are all marked difficult is ignored for that image",
        needs=("VOCdevkit/VOC2007/JPEGImages", "VOCdevkit/VOC2007/Annotations",
               "VOCdevkit/VOC2007/ImageSets/Main/train.txt", "VOCdevkit/VOC2007/ImageSets/Main/test.txt"),
        how_to_get="Unpack VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar (900 MB) from "
        "https://thor.robots.ox.ac.uk/pascal/VOC/voc2007/ there. In no table of the paper: it leaves this set out.",
        downloads=(
            Download(
                "https://thor.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtrainval_06-Nov-2007.tar",
                "c52e279531787c972589f7e41ab4ae64", ".",
            ),
            Download(
                "https://thor.robots.ox.ac.uk/pascal/VOC/voc2007/VOCtest_06-Nov-2007.tar",
                "b6e924de25625d8de591ea690078ad9f", ".",
            ),
        ),
    ),
    LabelledDataset(
        name="dtd", title="DTD", classes=47, metric="top1", train=1_880, val=1_880, test=1_880,
        source="folder", official_val=True, licence=_RESEARCH, needs=("dtd/dtd/images", "dtd/dtd/labels"),
        split="official train, val and test, the first of ten partitions",
        how_to_get=f"Unpack dtd-r1.0.1.tar.gz (600 MB) from {_OXFORD}/dtd/ into dtd.",
        downloads=(
            Download(f"{_OXFORD}/dtd/download/dtd-r1.0.1.tar.gz", "fff73e5086ae6bdbea199a49dfb8a4c1", "dtd"),
        ),
    ),
    LabelledDataset(
        name="pets", title="Pets", classes=37, metric="mean_per_class", train=2_940, val=740, test=3_669,
        source="folder", official_val=False, split=_HELD_OUT, licence="CC BY-SA 4.0",
        needs=("oxford-iiit-pet/images", "oxford-iiit-pet/annotations/trainval.txt"),
        how_to_get=f"Unpack images.tar.gz and annotations.tar.gz (800 MB) from {_OXFORD}/pets/ into oxford-iiit-pet.",
        downloads=(
            Download(f"{_OXFORD}/pets/data/images.tar.gz", "5c4f3ee8e5d25df40f4fd59a7f44e54c", "oxford-iiit-pet"),
            Download(f"{_OXFORD}/pets/data/annotations.tar.gz", "95a8c909bbe2e81eed6a22bccdf3f68f", "oxford-iiit-pet"),
        ),
    ),
    LabelledDataset(
        name="caltech101", title="Caltech101", classes=102, metric="mean_per_class", train=2_550, val=510, test=6_084,
        source="folder", official_val=False, licence="CC BY 4.0", needs=("caltech101/101_ObjectCategories",),
        split="none official: 30 images per class drawn by the seed are train + val, all others test; val held out of "
        "the 30, stratified; BACKGROUND_Google is a class unless task.caltech_background is false",
        draws_test=True,
        background=467,  # 9,144 images in all, 8,677 of them of the 101 classes
        how_to_get="Unpack caltech-101.zip (137 MB) from https://data.caltech.edu/records/mzrjq-6wc02, and the "
        "101_ObjectCategories.tar.gz in it into caltech101.",
        downloads=(
            Download(
                "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
                "3138e1922a9193bfa496528edbbc45d0", "caltech101",
            ),
        ),
    ),
    LabelledDataset(
        name="flowers", title="Flowers", classes=102, metric="mean_per_class", train=1_020, val=1_020, test=6_149,
        source="folder", official_val=True, split=_OFFICIAL, licence=_RESEARCH,
        needs=("flowers-102/jpg", "flowers-102/imagelabels.mat", "flowers-102/setid.mat"),
        how_to_get=f"Unpack 102flowers.tgz (345 MB), and put imagelabels.mat and setid.mat, from {_OXFORD}/flowers/102/"
        " into flowers-102.",
        downloads=(
            Download(f"{_OXFORD}/flowers/102/102flowers.tgz", "52808999861908f626f3c1f4e79d11fa", "flowers-102"),
            Download(
                f"{_OXFORD}/flowers/102/imagelabels.mat", "e0620be6f572b9609742df49c70aed4d", "flowers-102", False
            ),
            Download(f"{_OXFORD}/flowers/102/setid.mat", "a5357ecc9cb78c4bef273ce3793fc85c", "flowers-102", False),
        ),
    ),
)  # fmt: skip
