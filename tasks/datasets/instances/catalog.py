"""The named data sets of objects with boxes and masks.

Counts of COCO 2017: its parts have 118,287 and 5,000 images, of which 117,266 of train show an object that is no crowd
region, as Detectron2's logs count them ("117266 images left").
"""

from __future__ import annotations

from dataclasses import replace

from tasks.datasets.instances.dataset import COCO_CLASSES, InstanceDataset
from tasks.datasets.photographs import SHOWS

COCO_INSTANCES = InstanceDataset(
    name="coco-instances", title="COCO", source="folder", folder="coco", classes=COCO_CLASSES,
    split="COCO 2017's train and val; the paper evaluates val (labels of test-dev are not public)",
    licence="annotations CC BY 4.0; images by Flickr's terms of use",
    needs=("coco/annotations/instances_train2017.json", "coco/annotations/instances_val2017.json", "coco/train2017",
           "coco/val2017"),
    how_to_get="Unpack train2017.zip, val2017.zip (19 GB) and annotations_trainval2017.zip from cocodataset.org into "
    "coco.",
    counts={"train": 118_287, "val": 5_000}, learnt=117_266,
)  # fmt: skip
SCENE_OBJECTS = InstanceDataset(
    name="scene-objects", title="Generated objects", source="made", folder="", classes=3, shows=SHOWS,
    split="generated: train, val and test show other photographs (tasks/datasets/scenes)",
    how_to_get="Generated on first use, below the data root, from photographs inside scikit-image and scikit-learn.",
    licence="the photographs': scikit-image's data folder; china and flower CC BY 2.0",
    counts={"train": 2_000, "val": 200, "test": 200}, learnt=1_873,
    caveat="the images are generated: compare with nothing published",
)  # fmt: skip
SCENE_OBJECTS_SMALL = replace(
    SCENE_OBJECTS, name="scene-objects-small", title="Generated objects (few)",
    counts={"train": 48, "val": 8, "test": 8}, learnt=45,
)  # fmt: skip
INSTANCES = (COCO_INSTANCES, SCENE_OBJECTS, SCENE_OBJECTS_SMALL)
