"""The named data sets of persons with joints."""

from __future__ import annotations

from tasks.datasets.persons.dataset import Part, PartFiles, PoseDataset
from tasks.datasets.photographs import SHOWS

_BOXES = "person_detection_results"
_OF_CROWDPOSE: dict[Part, int] = {"train": 10_000, "val": 2_000, "test": 8_000}
"""Images."""
_OF_SCENES: dict[Part, tuple[int, int, int]] = {
    "train": (2_812, 4_758, 0),
    "val": (300, 461, 579),
    "test": (300, 488, 663),
}
"""Images (of train those with persons), persons and detected boxes; stated here too, so that they are known before the
set is made. A test compares."""
COCO_KEYPOINTS = PoseDataset(
    name="coco-keypoints", title="COCO", source="folder", skeleton="coco",
    split="COCO 2017's train, val and test-dev; labels of test-dev are not public: a submission is written",
    licence="annotations CC BY 4.0; images by Flickr's terms of use",
    needs=("coco/annotations/person_keypoints_train2017.json", "coco/annotations/person_keypoints_val2017.json",
           "coco/train2017", "coco/val2017"),
    how_to_get="Unpack train2017.zip, val2017.zip (19 GB) and annotations_trainval2017.zip from cocodataset.org into "
    "coco; for test-dev also test2017.zip and image_info_test2017.zip. Detected boxes: person_detection_results of "
    "Simple Baseline and HRNet (their README links it) into coco/person_detection_results.",
    part_files={
        # 149,813 and 6,352 persons: "=> load .. samples" in the logs of HRNet's code; 104,125 boxes: "Total boxes" in
        # those of Simple Baseline's code, and 407 steps of 256 in ViTPose's (logs/vitpose-b-simple.log.json, commit
        # 33f49cf). 56,599 images of train with a person that has a joint, and 20,288 of test-dev:
        # ultralytics/ultralytics, cfg/datasets/coco-pose.yaml, commit 0f3f439
        "train": PartFiles("coco/annotations/person_keypoints_train2017.json", "coco/train2017", image_count=56_599,
                           persons=149_813),
        "val": PartFiles("coco/annotations/person_keypoints_val2017.json", "coco/val2017",
                         f"coco/{_BOXES}/COCO_val2017_detections_AP_H_56_person.json", image_count=5_000,
                         persons=6_352, boxes=104_125),
        # the number of boxes is an estimate, for cost alone: as many in an image as in val
        "test": PartFiles("coco/annotations/image_info_test-dev2017.json", "coco/test2017",
                          f"coco/{_BOXES}/COCO_test-dev2017_detections_AP_H_609_person.json", labelled=False,
                          image_count=20_288, boxes=422_500),
    },
    optional=("test",),
)  # fmt: skip
CROWDPOSE = PoseDataset(
    name="crowdpose", title="CrowdPose", source="folder", skeleton="crowdpose",
    split="CrowdPose's train, val and test; the paper trains on train and val, and evaluates test",
    licence="for research; images by the terms of MSCOCO, MPII and AI Challenger",
    needs=("crowdpose/json/crowdpose_train.json", "crowdpose/json/crowdpose_val.json",
           "crowdpose/json/crowdpose_test.json", "crowdpose/images"),
    # height and width of train and test: issue 12 of the data set's repository, and open-mmlab/mmpose, issues 308, 310
    how_to_get="Get images.zip and the annotations from github.com/Jeff-sjtu/CrowdPose into crowdpose/images and "
    "crowdpose/json (files of before April 2021 have height and width exchanged). Detected boxes (the paper's are of a "
    "Cascade Mask R-CNN and are not published; those that the configurations of mmpose take are of YOLOv3: "
    "det_for_crowd_test_0.1_0.5.json) as "
    "crowdpose/person_detection_results/crowdpose_test_detections.json, or anywhere with task.boxes_file.",
    # 20,000 images with 80,000 persons in the paper of the data set; how many are in which part, and how many boxes a
    # detector finds there, no public source that we found says: estimates, for cost alone
    part_files={
        part: PartFiles(f"crowdpose/json/crowdpose_{part}.json", "crowdpose/images",
                        f"crowdpose/{_BOXES}/crowdpose_{part}_detections.json",
                        image_count=0 if part == "train" else images, persons=4 * images, boxes=8 * images)
        for part, images in _OF_CROWDPOSE.items()
    },
)  # fmt: skip
SCENE_PEOPLE = PoseDataset(
    name="scene-people", title="Generated people", source="made", skeleton="coco", shows=SHOWS,
    split="generated: train, val and test show other photographs and figures (tasks/datasets/scenes)",
    licence="as the photographs in scikit-image and scikit-learn",
    how_to_get="Drawn by this project over photographs in packages when it is first asked for.",
    part_files={
        part: PartFiles(f"annotations/person_keypoints_{part}2017.json", f"{part}2017",
                        "" if part == "train" else f"{_BOXES}/{part}2017_detections.json", image_count=images,
                        persons=persons, boxes=boxes)
        for part, (images, persons, boxes) in _OF_SCENES.items()
    },
)  # fmt: skip
POSE = (COCO_KEYPOINTS, CROWDPOSE, SCENE_PEOPLE)
