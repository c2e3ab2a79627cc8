"""Sequences in the published layouts: which there are, their frames, boxes, flags, rates and protocols."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sequence_trees as trees
from pydantic import TypeAdapter, ValidationError

from tasks.datasets import DATASETS, describe
from tasks.datasets.images.decode import Unreadable
from tasks.datasets.sequences import lasot_lists
from tasks.datasets.sequences.catalog import COCO_BOXES, GOT10K, LASOT, SEQUENCES, TRACKINGNET
from tasks.datasets.sequences.dataset import FolderSequences, SequenceDataset
from tasks.datasets.sequences.described import SequencesDescription, SequencesField
from tasks.datasets.sequences.got10k_lists import numbers_left_out
from tasks.datasets.sequences.open import open_sequences
from tasks.datasets.sequences.types import Part, Protocol, SequenceSet
from tasks.errors import DataError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = trees.all_four(tmp_path_factory.mktemp("data"))
    trees.own(root / "mine")
    return root


def names(opened: SequenceSet) -> list[str]:
    return [opened.sequence_name(index) for index in range(len(opened))]


def of_name(opened: SequenceSet, name: str) -> int:
    return names(opened).index(name)


def flags(values: np.ndarray) -> str:
    return "".join(map(str, values.astype(int)))


def test_got10k_train_is_the_references_list(root: Path) -> None:
    opened = open_sequences(GOT10K, root, "train")
    assert names(opened) == [f"GOT-10k_Train_{number:06d}" for number in (1, 3, 4, 8, 9)]
    assert opened.lengths.tolist() == [trees.FRAMES] * 5
    sequence = opened.load(0)
    assert sequence.frames[0] == "train/GOT-10k_Train_000001/00000001.jpg"
    assert len(sequence.frames) == trees.FRAMES
    np.testing.assert_allclose(sequence.boxes, trees.path_of(1))
    assert (sequence.fps, sequence.still) == (10.0, False)
    assert flags(sequence.visible) == "11111001"  # hidden in 5, absent in 6
    assert flags(sequence.counted) == "01111001"  # without the first, which is given
    assert opened.protocol == Protocol("got10k", True)


@pytest.mark.parametrize(("taken", "numbers"), [("all", (1, 2, 3, 4, 8, 9)), ("without_vot", (1, 2, 3, 8, 9))])
def test_got10k_takes_other_sequences_where_that_is_asked_for(root: Path, taken: str, numbers: tuple[int]) -> None:
    chosen = GOT10K.with_choices({"taken": taken})
    opened = open_sequences(chosen, root, "train")
    assert names(opened) == [f"GOT-10k_Train_{number:06d}" for number in numbers]
    assert chosen.manifest_of(root).digest != GOT10K.manifest_of(root).digest


def test_the_lists_of_got10k_have_the_published_lengths() -> None:
    assert [9_335 - len(numbers_left_out(taken)) for taken in ("reference", "without_vot", "all")] == [7086, 8335, 9335]
    forbidden, reference = numbers_left_out("without_vot"), numbers_left_out("reference")
    assert {number + 1 for number in forbidden} <= reference  # the reference leaves out the neighbours: see Taken
    assert max(reference) <= 9_335
    assert GOT10K.counts["train"] == 7086


def test_got10k_test_has_its_first_box_alone(root: Path) -> None:
    opened = open_sequences(GOT10K, root, "test")
    sequence = opened.load(0)
    assert sequence.boxes.shape == (1, 4)
    assert opened.lengths.tolist() == [len(sequence.frames)] * 2 == [trees.FRAMES] * 2
    assert (flags(sequence.visible), flags(sequence.counted)) == ("10000000", "00000000")
    assert opened.protocol == Protocol("got10k", False)


def test_trackingnet_has_twelve_folders_and_a_test(root: Path) -> None:
    opened = open_sequences(TRACKINGNET, root, "train")
    assert names(opened) == [
        "TRAIN_0/0abc_1", "TRAIN_0/AwVdVzh1Eh0_0", "TRAIN_11/11abc_1", "TRAIN_11/AwVdVzh1Eh0_0",
    ]  # fmt: skip
    sequence = opened.load(3)
    assert sequence.frames[:2] == ("TRAIN_11/frames/AwVdVzh1Eh0_0/0.jpg", "TRAIN_11/frames/AwVdVzh1Eh0_0/1.jpg")
    np.testing.assert_allclose(sequence.boxes, trees.path_of(0), atol=0.005)
    assert (sequence.fps, sequence.visible.all(), sequence.counted.all()) == (30.0, True, True)
    test = open_sequences(TRACKINGNET, root, "test")
    assert names(test) == ["-3TIfnTSM6c_2", "a1qoB1eERn0_0"]
    assert test.load(0).boxes.shape == (1, 4)
    assert test.load(0).frames[-1] == f"TEST/frames/-3TIfnTSM6c_2/{trees.FRAMES - 1}.jpg"
    assert test.protocol == Protocol("otb", False)


def test_frames_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    trees.trackingnet(tmp_path / "trackingnet", chunks=(3,), frames=12)  # 10.jpg comes after 9.jpg, not after 1.jpg
    frames = open_sequences(TRACKINGNET, tmp_path, "test").load(0).frames
    assert [frame.rpartition("/")[2] for frame in frames] == [f"{number}.jpg" for number in range(12)]


def test_lasot_counts_from_one_and_hides_what_is_occluded_or_gone(root: Path) -> None:
    opened = open_sequences(LASOT, root, "test")
    assert names(opened) == list(trees.LASOT["test"])
    sequence = opened.load(0)
    assert sequence.frames[0] == "airplane/airplane-1/img/00000001.jpg"
    np.testing.assert_allclose(sequence.boxes[:4], trees.path_of(0).round()[:4])  # one less than in the file
    assert flags(sequence.visible) == flags(sequence.counted) == "11110011"
    assert opened.protocol == Protocol("otb", True)


def test_a_box_without_area_is_not_measured_on_lasot(tmp_path: Path) -> None:
    """Three frames of its test sequences have one, although the object shows (tiger-6, lion-5, microphone-6)."""
    trees.lasot(tmp_path / "lasot")
    path = tmp_path / "lasot/bear/bear-2/groundtruth.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], "613,731,247,-11", *lines[3:]]))
    sequence = open_sequences(LASOT, tmp_path, "test").load(1)
    assert flags(sequence.visible) == flags(sequence.counted) == "11011111"


def test_lasots_own_list_is_taken_where_no_file_names_others(tmp_path: Path) -> None:
    tested, trained = lasot_lists.sequences("test"), lasot_lists.sequences("train")
    assert (len(tested), len(trained), len({*tested, *trained})) == (280, 1120, 1400)
    assert tested[:5] == ["airplane-1", "airplane-9", "airplane-13", "airplane-15", "basketball-1"]
    assert {"zebra-10", "zebra-14", "zebra-16", "zebra-17"} <= {*tested}
    assert len({name.rpartition("-")[0] for name in tested}) == 70
    for name in tested[:2]:
        (tmp_path / "lasot" / "airplane" / name).mkdir(parents=True)
    with pytest.raises(
        DataError, match=r"lasot: 278 of 280 sequences of LaSOT's list of test have no folder: airplane-13"
    ):
        open_sequences(LASOT, tmp_path, "test")


def test_an_image_of_coco_is_a_still_sequence_of_its_objects(root: Path) -> None:
    opened = open_sequences(COCO_BOXES, root, "train")
    assert len(opened) == 4  # one image has no object
    assert opened.lengths.tolist() == [2, 2, 2, 2]  # a group and a box without area are no objects
    sequence = opened.load(1)
    assert sequence.still
    assert sequence.frames == ("train2017/000000000102.jpg",) * 2
    np.testing.assert_allclose(np.sort(sequence.boxes, axis=0), trees.path_of(2, 2))
    assert opened.image(sequence.frames[0]).shape == (trees.HEIGHT, trees.WIDTH, 3)


def test_ones_own_frames_have_any_names_that_end_in_numbers(root: Path) -> None:
    described = SequencesDescription.model_validate({"kind": "sequences", "path": "mine", "fps": 12})
    opened = open_sequences(described, root, "train")
    assert names(opened) == list(trees.OWN["train"])
    boat = opened.load(0)
    assert boat.frames[:2] == ("train/boat/frame9.png", "train/boat/frame10.png")
    assert (boat.fps, flags(boat.visible), flags(boat.counted)) == (12.0, "11101111", "11101111")
    assert opened.load(1).visible.all()
    other = described.model_copy(update={"protocol": "got10k"})
    assert flags(open_sequences(other, root, "test").load(0).counted) == "01101111"


def test_the_squares_lie_in_their_boxes(root: Path) -> None:
    """Boxes and frames belong together, and positions count from 0."""
    opened = open_sequences(describe("mine", "sequences", {}, root), root, "train")  # type: ignore[arg-type]
    sequence = opened.load(1)
    for frame, box in zip(sequence.frames, sequence.boxes.round().astype(int).tolist(), strict=True):
        bright = (opened.image(frame) > 140).all(-1)
        rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        assert [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1] == box


@pytest.mark.parametrize("card", SEQUENCES[:4], ids=lambda card: card.name)
def test_a_set_goes_to_other_processes(root: Path, card: SequenceDataset) -> None:
    opened = open_sequences(card, root, "train")
    again = pickle.loads(pickle.dumps(opened))
    for index in range(len(opened)):
        first, other = opened.load(index), again.load(index)
        assert (first.name, first.frames) == (other.name, other.frames)
        np.testing.assert_array_equal(first.boxes, other.boxes)


@pytest.mark.parametrize(("name", "part"), [("trackingnet", "val"), ("lasot", "val"), ("coco-boxes", "test")])
def test_a_part_that_a_set_does_not_have_is_one_line(root: Path, name: str, part: Part) -> None:
    card = DATASETS[name]
    assert isinstance(card, SequenceDataset)
    with pytest.raises(DataError, match=rf"^{name} has no sequences of {part} here \(its parts: train, (test|val)\)\."):
        open_sequences(card, root, part)


def test_a_frame_that_is_gone_is_unreadable_when_a_pair_asks_for_it(tmp_path: Path) -> None:
    trees.got10k(tmp_path / "got10k", train=(1,))
    opened = open_sequences(GOT10K, tmp_path, "train")
    frame = opened.load(0).frames[3]
    (tmp_path / "got10k" / frame).unlink()
    with pytest.raises(Unreadable, match=r"got10k: cannot read image .*000001/00000004\.jpg \(.*No such file"):
        opened.image(opened.load(0).frames[3])


def test_the_field_takes_a_name_or_a_description() -> None:
    field: TypeAdapter[str | SequencesDescription] = TypeAdapter(SequencesField)
    assert field.validate_python("lasot") == "lasot"
    assert isinstance(field.validate_python({"kind": "sequences", "path": "mine"}), SequencesDescription)
    with pytest.raises(ValidationError, match=r"must be the name of a data set, or \{kind: sequences, path: \.\.\}"):
        field.validate_python({"kind": "folder", "path": "mine"})
    with pytest.raises(ValidationError, match="greater than 0"):
        field.validate_python({"kind": "sequences", "path": "mine", "fps": 0})


def test_cards_state_their_parts_and_compare() -> None:
    assert {card.name for card in SEQUENCES} <= DATASETS.keys()
    assert replace(GOT10K, fields={"taken": "all"}).cut == "all"
    assert isinstance(GOT10K, FolderSequences)
    assert GOT10K.facts()["metric"] == "AO"
    assert LASOT.facts()["frames"] == "train 2,831,982, test 685,360"
