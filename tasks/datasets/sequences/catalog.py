"""The sequences that are known by name.

Sources of the counts. GOT-10k: Huang et al. 2021 (180 of its 420 test sequences are published), its lists, and frames
as users counted them. TrackingNet: Muller et al. 2018, and its development kit (12 chunks of 2,511 sequences). LaSOT:
Fan et al. 2019; testing_set.txt and the boxes in its evaluation toolkit, of which the 280 test sequences have
685,360; train has the other 2,831,982 frames. COCO: images with an object that is no group (1,021 of 118,287 have
none), and such objects, as Detectron2's logs of COCO 2017 count them.
"""

from __future__ import annotations

from dataclasses import replace

from tasks.datasets.photographs import SHOWS
from tasks.datasets.sequences.dataset import FolderSequences, SequenceDataset, StillImages

GOT10K = FolderSequences(
    name="got10k", title="GOT-10k", source="folder", form="Got10k", folder="got10k", metric="AO",
    split="GOT-10k's train (7,086 of 9,335 sequences, as SwinTrack takes them), val and test; boxes of test are not "
    "public: a submission is written",
    how_to_get="Get the full data of GOT-10k from got-10k.aitestunion.com (66 GB) and unpack train, val and test into "
    "got10k, each with its list.txt.",
    licence="CC BY-NC-SA 4.0",
    counts={"train": 7_086, "val": 180, "test": 180}, frames={"val": 21_007, "test": 22_834},
)  # fmt: skip
TRACKINGNET = FolderSequences(
    name="trackingnet", title="TrackingNet", source="folder", form="TrackingNet", folder="trackingnet",
    split="TrackingNet's train (TRAIN_0 to TRAIN_11) and test (TEST); boxes of test are not public: a submission is "
    "written; no val",
    how_to_get="Get TrackingNet with its development kit (github.com/SilvioGiancola/TrackingNet-devkit, 1.1 TB) into "
    "trackingnet, and unpack the frames of TRAIN_0 to TRAIN_11 and TEST.",
    licence="annotations Apache 2.0; videos by YouTube's terms",
    counts={"train": 30_132, "test": 511}, frames={"train": 14_205_677, "test": 225_589},
)  # fmt: skip
LASOT = FolderSequences(
    name="lasot", title="LaSOT", source="folder", form="Lasot", folder="lasot",
    split="LaSOT's second protocol: 16 sequences of each of 70 categories train, 4 test; no val",
    how_to_get="Get LaSOT (its site, or huggingface.co/datasets/l-lt/LaSOT, 227 GB) and unpack the 70 categories into "
    "lasot: lasot/airplane/airplane-1/img ..",
    licence="for research",
    counts={"train": 1_120, "test": 280}, frames={"train": 2_831_982, "test": 685_360},
)  # fmt: skip
COCO_BOXES = StillImages(
    name="coco-boxes", title="COCO", source="folder", folder="coco", metric="SUC",
    split="COCO 2017's train and val; each object of an image is paired with itself",
    how_to_get="Unpack train2017.zip, val2017.zip (19 GB) and annotations_trainval2017.zip from cocodataset.org into "
    "coco.",
    licence="annotations CC BY 4.0; images by Flickr's terms of use",
    counts={"train": 117_266, "val": 4_952}, frames={"train": 849_949, "val": 36_335},
)  # fmt: skip
SCENE_TRACKS = FolderSequences(
    name="scene-tracks", title="Generated tracks", source="made", form="Own", shows=SHOWS,
    split="generated: train, val and test show other photographs (tasks/datasets/scenes)",
    how_to_get="Generated on first use, below the data root, from photographs inside scikit-image and scikit-learn.",
    licence="the photographs': scikit-image's data folder; china and flower CC BY 2.0",
    counts={"train": 300, "val": 16, "test": 16}, frames={"train": 6_000, "val": 320, "test": 320},
    caveat="the sequences are generated: compare with nothing published",
)  # fmt: skip
SCENE_TRACKS_SMALL = replace(
    SCENE_TRACKS, name="scene-tracks-small", title="Generated tracks (few)",
    counts={"train": 40, "val": 4, "test": 4}, frames={"train": 800, "val": 80, "test": 80},
)  # fmt: skip
SEQUENCES: tuple[SequenceDataset, ...] = (GOT10K, TRACKINGNET, LASOT, COCO_BOXES, SCENE_TRACKS, SCENE_TRACKS_SMALL)
