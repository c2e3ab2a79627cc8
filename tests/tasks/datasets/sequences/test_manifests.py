"""Manifests of sequences: what enters a trial's key, what changes it, and that files are read once."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import sequence_trees as trees
from data_commands import command
from sequence_trees import mine

from tasks.datasets import DATASETS, contents, describe
from tasks.datasets.manifest import load
from tasks.datasets.sequences import opened
from tasks.datasets.sequences.catalog import GOT10K, LASOT, SCENE_TRACKS, SEQUENCES
from tasks.datasets.sequences.dataset import SequenceDataset


@pytest.mark.parametrize("card", SEQUENCES[:4], ids=lambda card: card.name)
def test_data_split_writes_one_entry_for_each_sequence(root: Path, card: SequenceDataset) -> None:
    result = command(root, "split", card.name)
    path, digest = result.stdout.splitlines()[:2]
    made = load(Path(path))
    assert made.digest == digest == card.manifest_of(root).digest
    for part in ("train", "val", "test"):
        surveyed = card.surveyed(root, part, [])  # type: ignore[arg-type]
        assert made.counts[part] == len(surveyed.names)
    assert {entry["frames"] for entry in made.annotations} == {2 if card.name == "coco-boxes" else trees.FRAMES}
    assert all(len(entry["sequence"]) == 32 for entry in made.annotations)


def test_the_digest_changes_with_boxes_flags_and_lists(root: Path) -> None:
    before = GOT10K.manifest_of(root).digest
    sequence = root / "got10k/val/GOT-10k_Val_000001"
    found = {before}
    for path, text in (
        (sequence / "groundtruth.txt", trees.rows(trees.path_of(3))),
        (sequence / "cover.label", "8\n" * trees.FRAMES),
        (root / "got10k/val/list.txt", "GOT-10k_Val_000001\n"),
    ):
        path.write_text(text)
        found.add(GOT10K.manifest_of(root).digest)
    assert len(found) == 4


def test_frames_of_ones_own_are_in_the_digest(root: Path) -> None:
    before = mine(root).manifest_of(root).digest
    shutil.copy(root / "mine/val/cup/frame9.png", root / "mine/val/cup/frame10.png")
    assert mine(root).manifest_of(root).digest != before


def test_where_ones_own_lie_is_not(root: Path) -> None:
    before = mine(root).manifest_of(root).digest
    (root / "mine").rename(root / "other")
    fields = {"name": "mine"}
    other = describe("other", "sequences", fields, root)
    assert isinstance(other, SequenceDataset)
    assert other.manifest_of(root).digest == before


def test_annotations_are_read_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "splits").mkdir()
    read = list[Path]()
    counted = opened.counted_lines
    monkeypatch.setattr(opened, "counted_lines", lambda path: (read.append(path), counted(path))[1])
    monkeypatch.setattr(contents, "RECENT", -1e9)  # these files are seconds old
    first = LASOT.open(root, "test").lengths.tolist()
    assert len(read) == 6
    assert LASOT.open(root, "test").lengths.tolist() == first
    assert len(read) == 6
    changed = root / "lasot/bear/bear-2/out_of_view.txt"
    os.utime(changed, (1, 1))
    assert LASOT.open(root, "test").lengths.tolist() == first
    assert read[6:] == [changed]


def test_a_written_manifest_of_other_data_is_a_fault(root: Path) -> None:
    command(root, "split", "lasot")
    (root / "lasot/bear/bear-2/out_of_view.txt").write_text(",".join("01" * 4))
    lines = LASOT.check(root, {}, [], images=False).problems
    assert any("lasot-official.jsonl was written for other data: SHA-256" in each for each in lines)


def test_a_generated_set_has_its_recipe_before_it_is_made(tmp_path: Path) -> None:
    assert SCENE_TRACKS.made
    assert len(SCENE_TRACKS.recipe()) == 64
    assert SCENE_TRACKS.missing(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
    assert not LASOT.made


def test_data_check_and_ls_of_ones_own(root: Path) -> None:
    result = command(root, "check", root / "mine", "--kind", "sequences", "--images")
    assert result.exit_code == 0, result.output
    assert "complete" in result.stdout
    assert "sequences 7" in result.stdout
    assert f"opened   {7 * trees.FRAMES} images" in result.stdout
    row = json.loads(command(root, "ls", root / "mine", "--kind", "sequences", "--output", "json").stdout)
    assert (row["name"], row["metric"]) == ("mine", "SUC")
    wrong = command(root, "check", root / "mine", "--kind", "sequences", "--field", "fsp=3")
    assert "fsp: Extra inputs are not permitted; nearest: fps" in wrong.output


def test_data_check_takes_the_choice_of_got10k(root: Path) -> None:
    result = command(root, "check", "got10k", "--got10k-train", "all")
    assert "got10k: 6 sequences of train, 9,335 published: unpack all files of the set" in result.stdout
    assert DATASETS["got10k"] == GOT10K
    refused = command(root, "check", "lasot", "--got10k-train", "all")
    assert "--got10k-train is no option of lasot; its options: none" in refused.output
