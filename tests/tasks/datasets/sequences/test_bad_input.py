"""Wrong lists, frames and boxes of sequences: one line each, with file, sequence, value and remedy."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from data_commands import command, problems
from sequence_trees import mine

from tasks.datasets import describe
from tasks.datasets.images.decode import Unreadable
from tasks.datasets.sequences.catalog import COCO_BOXES, GOT10K, LASOT, TRACKINGNET
from tasks.datasets.sequences.dataset import SequenceDataset
from tasks.datasets.sequences.types import Part
from tasks.errors import DataError
from tasks.tracking.loaders import Tracked


def edited(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")


def line(number: int, text: str) -> Callable[[list[str]], list[str]]:
    return lambda lines: [text if place == number else each for place, each in enumerate(lines, 1)]


def load_all(card: SequenceDataset, root: Path, part: Part) -> None:
    opened = card.open(root, part)
    for index in range(len(opened)):
        opened.load(index)


def refused(card: SequenceDataset, root: Path, part: Part, words: str) -> None:
    """A trial on it ends with this line, and `data check` says the same."""
    with pytest.raises(DataError, match=rf"^{card.name}: {words}$"):
        load_all(card, root, part)
    lines = card.check(root, {}, [], images=False).problems
    assert [each for each in lines if re.fullmatch(words, each)], lines


def test_fewer_frames_than_boxes(root: Path) -> None:
    (root / "lasot/bear/bear-2/img/00000008.jpg").unlink()
    refused(LASOT, root, "test", "sequence bear-2 has 7 frames in bear/bear-2/img and 8 boxes in bear/bear-2/groundtru"
                                 "th.txt; each frame needs its box: get both again")  # fmt: skip


def test_more_frames_than_boxes(root: Path) -> None:
    """Some published sequences have them at their end; of one's own they are a mistake."""
    for folder, name in (("lasot/bear/bear-2/img", "00000009.jpg"), ("mine/val/cup", "frame17.png")):
        first = next(path for path in (root / folder).iterdir() if path.suffix in (".jpg", ".png"))
        shutil.copy(first, root / folder / name)
    assert len(LASOT.open(root, "test").load(1).frames) == 8
    refused(mine(root), root, "val", r"sequence cup has 9 frames in val/cup and 8 boxes in val/cup/boxes\.txt; each .*")


def test_a_missing_frame_in_the_middle(root: Path) -> None:
    (root / "got10k/val/GOT-10k_Val_000002/00000004.jpg").unlink()
    refused(GOT10K, root, "val", ".*val/GOT-10k_Val_000002: frame 4 is missing between 00000003.jpg and 00000005.jpg; g"
                                 "et it again")  # fmt: skip
    (root / "trackingnet/TEST/frames/a1qoB1eERn0_0/5.jpg").unlink()
    with pytest.raises(DataError, match=r"trackingnet: .*a1qoB1eERn0_0: frame 5 is missing between 4\.jpg and 6\.jpg"):
        TRACKINGNET.open(root, "test")


def test_a_missing_first_frame(root: Path) -> None:
    """Every box would be taken for that of the frame before: without a word where boxes are not public, and where
    frames follow after the last box."""
    for folder, first, last in (
        ("got10k/test/GOT-10k_Test_000002", "00000001.jpg", ""),
        ("trackingnet/TEST/frames/a1qoB1eERn0_0", "0.jpg", ""),
        ("lasot/bear/bear-2/img", "00000001.jpg", "00000009.jpg"),
    ):
        frame = root / folder / first
        frame.replace(frame.with_name(last)) if last else frame.unlink()
    again = "; get it again"
    refused(GOT10K, root, "test", rf".*Test_000002 begins with frame 00000002\.jpg, and lacks 00000001\.jpg{again}")
    refused(TRACKINGNET, root, "test", rf".*a1qoB1eERn0_0 begins with frame 1\.jpg, and lacks 0\.jpg{again}")
    refused(LASOT, root, "test", rf".*bear-2/img begins with frame 00000002\.jpg, and lacks 00000001\.jpg{again}")


def test_missing_frames_at_the_end_of_a_part_without_boxes(root: Path) -> None:
    """No file says how many there should be; all of the part together are known."""
    card = replace(TRACKINGNET, counts={"train": 4, "test": 2}, frames={"test": 16})
    assert card.check(root, {}, [], images=False).notes == []
    (root / "trackingnet/TEST/frames/a1qoB1eERn0_0/7.jpg").unlink()
    found = card.check(root, {}, [], images=False)
    assert found.problems == []
    assert found.notes == [
        "test: 15 frames, 16 published; the makers' server refuses the tracks of a sequence whose last frames are "
        "missing"
    ]


def test_two_frames_of_one_number(root: Path) -> None:
    shutil.copy(root / "mine/val/cup/frame10.png", root / "mine/val/cup/other10.png")
    refused(mine(root), root, "val", ".*val/cup has frame 10 twice: frame10.png and other10.png; remove one")


def test_a_box_without_area(root: Path) -> None:
    """In published sets it stands for an absent object and is not used; of one's own it is a mistake."""
    edited(root / "mine/train/car/boxes.txt", line(3, "5,5,0,12"))
    refused(mine(root), root, "train", r"train/car/boxes\.txt, line 3: the box of car is 0 x 12 pixels; correct it, or "
                                       "mark the frame as hidden")  # fmt: skip
    edited(root / "trackingnet/TRAIN_0/anno/0abc_1.txt", line(3, "5,5,0,12"))
    assert TRACKINGNET.open(root, "train").load(0).visible.tolist() == [True] * 2 + [False] + [True] * 5
    notes = TRACKINGNET.check(root, {}, [], images=False).notes
    assert notes == ["train: 1 boxes without area in frames that are not marked as hidden; not used"]


def test_a_box_outside_of_its_frame(root: Path) -> None:
    edited(root / "mine/val/cup/boxes.txt", line(4, "64,5,9,9"))
    card = mine(root)
    assert card.check(root, {}, [], images=False).problems == []
    assert card.check(root, {}, [], images=True).problems == [
        "val/cup/boxes.txt, line 4: the box of cup lies outside of its frame of 64 x 48 pixels; correct it, or mark "
        "the frame as hidden"
    ]
    (root / "mine/val/cup/visible.txt").write_text("1 1 1 0 1 1 1 1")
    assert card.check(root, {}, [], images=True).problems == []
    edited(root / "lasot/bear/bear-2/groundtruth.txt", line(1, "5,-20,9,20"))
    (fault,) = [each for each in LASOT.check(root, {}, [], images=False).problems if "published" not in each]
    assert fault == (
        "bear/bear-2/groundtruth.txt, line 1: the box of bear-2 lies outside of its frame of 64 x 48 pixels; correct "
        "it, or leave the sequence out"
    )
    video = Tracked(LASOT.open(root, "test"), 1)
    with pytest.raises(
        DataError,
        match=r"^lasot: sequence bear-2 cannot be tracked: its first box \(4, -21, 9, 20\) lies outside of its frame "
        r"of 64 x 48 pixels; correct it, or leave the sequence out$",
    ):
        next(video.frames())


def test_boxes_in_parts_of_the_frame(root: Path) -> None:
    edited(root / "mine/train/boat/boxes.txt", lambda lines: ["0.1,0.2,0.3,0.4"] * len(lines))
    refused(mine(root), root, "train", r"train/boat/boxes\.txt: all numbers of boat lie within -1 and 1, as parts of a "
                                       "frame's sides do; write x, y, width, height in pixels")  # fmt: skip


def test_an_object_that_only_the_first_frame_shows(root: Path) -> None:
    """Its box is given, so that such a sequence would be tracked perfectly."""
    words = ("sequence cup shows its object in the first frame alone, whose box is given, so there is nothing to track"
             "; add frames that show it, or remove the folder")  # fmt: skip
    (root / "mine/val/cup/visible.txt").write_text("1 0 0 0 0 0 0 0")
    refused(mine(root), root, "val", words)
    (root / "mine/val/cup/visible.txt").unlink()
    edited(root / "mine/val/cup/boxes.txt", lambda lines: lines[:1])
    for frame in range(10, 17):
        (root / f"mine/val/cup/frame{frame}.png").unlink()
    refused(mine(root), root, "val", words)


def test_a_box_without_area_where_the_object_is_hidden_is_none(root: Path) -> None:
    edited(root / "mine/train/boat/boxes.txt", line(4, "0,0,0,0"))
    assert not mine(root).open(root, "train").load(0).visible[3]
    assert mine(root).check(root, {}, [], images=True).problems == []


def test_a_first_box_without_area(root: Path) -> None:
    edited(root / "lasot/bear/bear-2/groundtruth.txt", line(1, "5,5,0,0"))
    refused(LASOT, root, "test", r".*bear-2/groundtruth\.txt, line 1: the first box of bear-2 is 0 x 0 pixels, so there"
                                 " is nothing to track; begin the sequence where the object shows")  # fmt: skip


def test_an_object_that_is_absent_in_the_first_frame(root: Path) -> None:
    edited(root / "got10k/val/GOT-10k_Val_000002/absence.label", line(1, "1"))
    refused(GOT10K, root, "val", "sequence GOT-10k_Val_000002 says that the object is absent or hidden in its first fr"
                                 "ame, so there is nothing to track; begin it where the object shows")  # fmt: skip


def test_an_absent_object_in_the_first_frame_may_be_trained_on(root: Path) -> None:
    edited(root / "got10k/train/GOT-10k_Train_000003/absence.label", line(1, "1"))
    assert not GOT10K.open(root, "train").load(1).visible[0]


def test_a_name_in_the_list_without_a_folder(root: Path) -> None:
    shutil.rmtree(root / "got10k/val/GOT-10k_Val_000002")
    refused(GOT10K, root, "val", r"1 of 2 sequences of .*val/list\.txt have no folder: GOT-10k_Val_000002; unpack all "
                                 "files of the set, or take them out of the list")  # fmt: skip
    shutil.rmtree(root / "trackingnet/TRAIN_11/frames/11abc_1")
    refused(
        TRACKINGNET, root, "train", "1 of 4 sequences of .*TRAIN_n/anno have no folder: TRAIN_11/11abc_1; unpack .*"
    )


def test_a_sequence_in_both_lists_of_lasot(root: Path) -> None:
    """Also where one list is LaSOT's own, since no file names another."""
    edited(root / "lasot/testing_set.txt", lambda lines: [*lines, "bear-3"])
    words = ("1 sequences are in {} and in .*testing_set.txt, so that trackers would be measured on what they learnt "
             "from: bear-3; take them out of one")  # fmt: skip
    refused(LASOT, root, "train", words.format(r".*training_set\.txt"))
    refused(LASOT, root, "test", words.format(r".*training_set\.txt"))
    assert len(LASOT.check(root, {}, [], images=False).problems) == 1
    (root / "lasot/training_set.txt").unlink()
    refused(LASOT, root, "test", words.format("LaSOT's list of train"))


def test_a_list_with_a_name_twice_or_outside_of_the_folder(root: Path) -> None:
    edited(root / "got10k/val/list.txt", lambda lines: [*lines, lines[0]])
    refused(GOT10K, root, "val", r".*list\.txt names 1 sequences twice: GOT-10k_Val_000001; keep one line of each")
    edited(root / "got10k/val/list.txt", lambda lines: ["../train/x"])
    refused(GOT10K, root, "val", r"cannot read the list .*'\.\./train/x' names no file below .*; get this file again")
    edited(root / "got10k/train/list.txt", lambda lines: ["kites"])
    refused(GOT10K, root, "train", ".*names 'kites'; GOT-10k's names end in a number, GOT-10k_Train_000001")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,2,3", "'1,2,3' has 3 numbers; a box has 4: x, y, width, height"),
        ("1,2,3,x", "'1,2,3,x' is no box; write x, y, width, height in pixels"),
        ("nan,2,3,4", "'nan,2,3,4' is no box; write x, y, width, height in pixels"),
        ("1,2,3,1e9", "'1,2,3,1e9' is no box; write x, y, width, height in pixels"),
    ],
)
def test_a_line_that_is_no_box(root: Path, text: str, words: str) -> None:
    edited(root / "got10k/val/GOT-10k_Val_000001/groundtruth.txt", line(3, text))
    refused(GOT10K, root, "val", rf".*000001/groundtruth\.txt, line 3: {re.escape(words)}")


def test_flags_of_another_number_or_kind(root: Path) -> None:
    edited(root / "got10k/val/GOT-10k_Val_000001/cover.label", lambda lines: lines[:-1])
    refused(GOT10K, root, "val", r".*cover\.label has 7 numbers, and the sequence 8 boxes; get this file again")
    edited(root / "lasot/bear/bear-2/out_of_view.txt", lambda lines: ["0,0,0,0,0,0,0,-1"])
    refused(LASOT, root, "test", r".*out_of_view\.txt: '-1' is no whole number from 0 on; get this file again")
    edited(root / "lasot/bear/bear-2/out_of_view.txt", lambda lines: ["0,0,0,0,0,0,0,yes"])
    refused(LASOT, root, "test", r".*out_of_view\.txt: could not convert string to float: 'yes'; write a number for .*")


@pytest.mark.parametrize(("value", "words"), [("anno_fps: fast", "anno_fps: 'fast' is no number of frames a second"),
                                              ("url: x", "has no line 'anno_fps'; get this file again")])  # fmt: skip
def test_a_rate_that_is_none(root: Path, value: str, words: str) -> None:
    path = root / "got10k/val/GOT-10k_Val_000001/meta_info.ini"
    path.write_text(path.read_text().replace("anno_fps: 10Hz", value))
    refused(GOT10K, root, "val", rf".*meta_info\.ini:? {re.escape(words)}.*")


def test_more_than_the_first_box_of_a_test_sequence(root: Path) -> None:
    edited(root / "trackingnet/TEST/anno/a1qoB1eERn0_0.txt", lambda lines: lines * 2)
    refused(TRACKINGNET, root, "test", r"TEST/anno/a1qoB1eERn0_0\.txt has 2 boxes; of this part the first alone is publ"
                                       "ic: get this file again")  # fmt: skip


def test_annotations_that_are_missing_or_empty(root: Path) -> None:
    (root / "mine/val/cup/boxes.txt").unlink()
    refused(mine(root), root, "val", r"1 of 2 sequences in .*mine/val have no boxes\.txt: cup; write one, with a line x"
                                     ",y,width,height for each frame, or remove the folder")  # fmt: skip
    (root / "got10k/val/GOT-10k_Val_000001/groundtruth.txt").write_text("")
    refused(
        GOT10K, root, "val", r"1 of 8 files are not there or empty: val/GOT-10k_Val_000001/groundtruth\.txt; they .*"
    )
    shutil.rmtree(root / "trackingnet/TRAIN_0/anno")
    refused(TRACKINGNET, root, "train", r".*TRAIN_0 has no folder anno \(No such file or directory\); unpack it")


def test_coco_without_boxes(root: Path) -> None:
    path = root / "coco/annotations/instances_train2017.json"
    whole = path.read_text()
    path.write_text(whole.replace('"bbox"', '"box"'))
    refused(COCO_BOXES, root, "train", r".*instances_train2017\.json: no 'bbox'; this needs instances as COCO 2017 .*")
    path.write_text(whole.replace('"image_id": 104', '"image_id": 999'))
    refused(COCO_BOXES, root, "train", r".*: annotation \d is of image 999, which the list of images lacks; this .*")
    path.write_text(whole)
    (root / "coco/train2017/000000000102.jpg").unlink()
    (fault,) = [each for each in COCO_BOXES.check(root, {}, [], images=True).problems if "published" not in each]
    assert (
        fault == "1 of 4 images that the annotations of train name are not there or empty: train2017/000000000102.jpg"
    )


def test_an_unreadable_frame(root: Path) -> None:
    """It is found by `data check --images`; a trial that asks for it is told by the error that all tasks have a rule
    for."""
    frame = root / "mine/val/cup/frame12.png"
    frame.write_bytes(frame.read_bytes()[:60])
    card = mine(root)
    assert card.check(root, {}, [], images=False).problems == []
    (fault,) = card.check(root, {}, [], images=True).problems
    assert fault.startswith(f"cannot read image {frame} (")
    opened = card.open(root, "val")
    with pytest.raises(Unreadable, match=r"mine: cannot read image .*frame12\.png \("):
        opened.image(opened.load(1).frames[3])


@pytest.mark.parametrize("content", [b"", None], ids=["empty", "folder"])
def test_a_frame_without_content_is_a_line_of_data_check(root: Path, content: bytes | None) -> None:
    frame = root / "mine/val/cup/frame12.png"
    frame.unlink()
    frame.mkdir() if content is None else frame.write_bytes(content)
    result = command(root, "check", root / "mine", "--kind", "sequences")
    assert problems(result, "mine") == [
        f"mine: 1 of 19 files are not there or empty: val/cup/frame12.png; they are looked for below {root}/mine"
    ]
    assert result.exit_code == 1


def test_another_number_of_sequences_is_a_line_of_data_check(root: Path) -> None:
    result = command(root, "check", "lasot")
    assert problems(result, "lasot") == [
        "lasot: 3 sequences of train, 1,120 published: unpack all files of the set",
        "lasot: 2 sequences of test, 280 published: unpack all files of the set",
    ]
    assert result.exit_code == 1
    assert "sequences 5 of 1,400 expected" in result.stdout


def test_many_faults_are_counted(root: Path) -> None:
    for number in range(30):
        shutil.copytree(root / "mine/val/cup", root / f"mine/val/cup{number:02d}")
        edited(root / f"mine/val/cup{number:02d}/boxes.txt", line(2, "1"))
    lines = mine(root).check(root, {}, [], images=False).problems
    assert len(lines) == 21
    assert lines[-1] == "10 other faults of val; correct these first"


def test_a_set_that_is_not_there(root: Path) -> None:
    shutil.rmtree(root / "lasot")
    result = command(root, "check", "lasot")
    assert result.exit_code == 4
    assert f"lasot: not found: {root}/lasot. Get LaSOT" in result.stdout
    missing = describe("gone", "sequences", {}, root).missing(root)
    assert missing == f"gone: no folder {root}/gone; task.dataset.path is absolute or below the data root {root}"
