"""The commands `data ls`, `check` and `split`: what is known, what is wrong in a line each, what is written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from data_commands import command, problems, trees
from PIL import Image

from orchestrator.cli.data import data
from tasks.base import DataContext
from tasks.classification.task import Classify
from tasks.datasets import DATASETS
from tasks.datasets.augment import Augment

IMAGES = Path(__file__).parents[2] / "data"


def test_ls_knows_every_set_and_which_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.plant("pets", tmp_path, monkeypatch)
    rows = json.loads(command(tmp_path, "ls", "-o", "json").stdout)
    assert {row["name"] for row in rows} == set(DATASETS)
    there = {row["name"] for row in rows if row["there"]}
    assert there == {"pets", *(info.name for info in DATASETS.values() if info.source != "folder")}
    table = command(tmp_path, "ls").stdout.splitlines()
    assert len(table) == len(DATASETS) + 2  # the header and a line under it
    one = command(tmp_path, "ls", "voc2007").stdout
    for said in (
        "map11",
        "2,501",
        "Flickr",
        "marked difficult",
        "VOCtest_06-Nov-2007.tar",
        "several labels yes",
        "2007/Annotations, ",
    ):
        assert said in one
    assert command(tmp_path, "ls", "pet").exit_code == 4


@pytest.mark.parametrize("name", [*trees.TREES, "faces", "textures"])
def test_a_whole_data_set_has_no_fault(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in trees.TREES:
        trees.plant(name, tmp_path, monkeypatch)
    result = command(tmp_path, "check", name, "--images")
    assert result.exit_code == 0, result.output
    assert problems(result, name) == [f"{name}: complete"]


def damaged(name: str, what: str, root: Path) -> None:
    pets = root / "oxford-iiit-pet"
    if what == "no lists":
        (pets / "annotations" / "trainval.txt").unlink()
    elif what == "half":
        for i in range(1, 4):
            (pets / "images" / f"Abyssinian_{i}.jpg").unlink()
        (pets / "images" / "Abyssinian_4.jpg").write_bytes(b"")
    elif what == "damaged list":
        (pets / "annotations" / "test.txt").write_text("Abyssinian_6\n")
    elif what == "short list":
        lines = (pets / "annotations" / "test.txt").read_text().splitlines(keepends=True)
        (pets / "annotations" / "test.txt").write_text("".join(lines[:5]))
    elif what == "listed twice":
        path = pets / "annotations" / "trainval.txt"
        path.write_text(path.read_text().replace("Abyssinian_2 ", "Abyssinian_1 "))
    elif what == "damaged image":
        path = pets / "images" / "Abyssinian_7.jpg"
        path.write_bytes(path.read_bytes()[:300])
    elif what == "wrong class":
        path = pets / "annotations" / "test.txt"
        path.write_text(path.read_text().replace("Abyssinian_6 1", "Abyssinian_6 9"))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("no lists", ["oxford-iiit-pet/annotations/trainval.txt is not there"]),
        (
            "half",
            ["4 of 20 images that the lists name are not there or empty: oxford-iiit-pet/images/Abyssinian_1.jpg"],
        ),
        ("damaged list", ["annotations/test.txt:1: 'Abyssinian_6' is no name and class"]),
        ("short list", ["5 images in test, expected 10", "1 of 2 classes have no image in test: 1"]),
        ("listed twice", ["1 images are listed twice: oxford-iiit-pet/images/Abyssinian_1.jpg"]),
        ("damaged image", ["1 of 20 images cannot be read: oxford-iiit-pet/images/Abyssinian_7.jpg ("]),
        ("wrong class", ["test has labels beyond the 2 classes: [8]"]),
    ],
)
def test_every_fault_is_one_line(what: str, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.plant("pets", tmp_path, monkeypatch)
    damaged("pets", what, tmp_path)
    result = command(tmp_path, "check", "pets", "--images")
    assert result.exit_code == (4 if what == "no lists" else 1)
    lines = problems(result, "pets")
    assert all(any(text in line for line in lines) for text in said), lines
    assert len(lines) == len(said)
    if what == "no lists":
        assert "annotations.tar.gz" in result.stderr


def swapped(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


UNREADABLE = {
    "damaged AVIF": lambda path: swapped(path, (IMAGES / "damaged.avif").read_bytes()),
    "float TIFF": lambda path: Image.new("F", (8, 8), 0.5).save(path, format="TIFF"),
    "32-bit TIFF": lambda path: Image.new("I", (8, 8), 70_000).save(path, format="TIFF"),
    "EPS": lambda path: Image.new("RGB", (8, 8)).save(path, format="EPS"),
    "text": lambda path: swapped(path, b"not found"),
    "folder": lambda path: path.unlink() or path.mkdir() or (path / "x").write_bytes(b"x"),
    "link to a device": lambda path: path.unlink() or path.symlink_to("/dev/zero"),
    "pipe": lambda path: path.unlink() or os.mkfifo(path),
    "dangling link": lambda path: path.unlink() or path.symlink_to("nowhere"),
    "many pixels": lambda path: Image.new("1", (13_000, 13_000)).save(path, format="PNG"),
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_an_image_that_cannot_be_read_is_named_and_stops_nothing(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the check of all others, nor training within `max_unreadable`."""
    card = trees.plant("pets", tmp_path, monkeypatch)
    UNREADABLE[what](tmp_path / "oxford-iiit-pet" / "images" / "Abyssinian_3.jpg")
    result = command(tmp_path, "check", "pets", "--images")
    assert result.exit_code == 1
    (line,) = problems(result, "pets")
    assert line.startswith("pets: 1 of 20 images ")
    assert "oxford-iiit-pet/images/Abyssinian_3.jpg" in line
    task = Classify(dataset="pets", augment=Augment.none())
    context = DataContext(tmp_path, (16, 16), device="cpu", seed=0, batch=4, max_unreadable=0.25)
    loaders = task.loaders(context)
    assert card.trainval == 10
    for epoch in range(4):
        assert len(list(loaders.epoch(epoch))) == 2
    assert [Path(said.partition(" (")[0]).name for said in loaders.unreadable] == ["Abyssinian_3.jpg"]


def test_a_16_bit_photograph_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.plant("pets", tmp_path, monkeypatch)
    swapped(tmp_path / "oxford-iiit-pet" / "images" / "Abyssinian_3.jpg", (IMAGES / "grey16.png").read_bytes())
    assert command(tmp_path, "check", "pets", "--images").exit_code == 0


def test_birdsnap_says_how_many_are_present(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.plant("birdsnap", tmp_path, monkeypatch)
    (tmp_path / "birdsnap" / "images" / "Bird_1" / "1_0.jpg").unlink()
    (tmp_path / "birdsnap" / "images" / "Bird_2" / "2_7.jpg").unlink()
    result = command(tmp_path, "check", "birdsnap")
    assert result.exit_code == 1
    assert problems(result, "birdsnap") == [
        "birdsnap: 11 images in trainval, expected 12", "birdsnap: 3 images in test, expected 4",
    ]  # fmt: skip
    assert "images   14 of 16 expected, 2 classes" in result.stdout
    assert "cannot be compared" in result.stdout


def test_check_counts_classes_and_gives_the_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.plant("cog-l2", tmp_path, monkeypatch)
    written = command(tmp_path, "split", "cog-l2").stdout.splitlines()
    found = json.loads(command(tmp_path, "check", "cog-l2", "-o", "json").stdout)
    assert found["balance"] == {"train + val": [10, 12], "test": [4, 4]}
    assert found["counts"] == {"train": 18, "val": 4, "test": 8}
    assert [found["manifest"], found["digest"]] == written


def test_split_writes_a_manifest_that_check_holds_against_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees.plant("caltech101", tmp_path, monkeypatch)
    result = command(tmp_path, "split", "caltech101", "--val-fraction", "0.1", "--split-seed", "3", "--no-background")
    path, digest = result.stdout.splitlines()
    assert Path(path) == tmp_path / "splits" / "caltech101-0.1-3-no-background.jsonl"
    header, *entries = map(json.loads, Path(path).read_text().splitlines())
    assert (header["sha256"], header["counts"]) == (digest, {"train": 54, "val": 6, "test": 4})
    assert len(entries) == 64
    assert not any("BACKGROUND" in entry["file"] for entry in entries)
    same = ("--val-fraction", "0.1", "--split-seed", "3", "--no-background")
    assert command(tmp_path, "check", "caltech101", *same).exit_code == 0
    (tmp_path / "caltech101" / "101_ObjectCategories" / "accordion" / "image_0033.jpg").unlink()
    result = command(tmp_path, "check", "caltech101", *same)
    assert any(line.startswith(f"caltech101: {path} was written for other data: SHA-256 {digest}")
               for line in result.stdout.splitlines())  # fmt: skip
    assert command(tmp_path, "split", "pets", "--no-background").exit_code == 2
    assert command(tmp_path, "split", "pets").exit_code == 4


def test_pack_copies_a_set_into_tar_files_that_trials_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.datasets.images import open
    from tasks.datasets.images.shards import Packed
    from tasks.datasets.labelled import partition
    from tasks.datasets.labelled.card import SplitSpec

    card = trees.plant("pets", tmp_path, monkeypatch)
    (images, _), _ = partition.read_both(card, tmp_path, SplitSpec("pets"), "train", "val")
    plain = [open.open_images("pets", tmp_path, images).image(i).tobytes() for i in range(len(images))]
    result = command(tmp_path, "pack", "pets")
    assert result.exit_code == 0, result.output
    assert "pets: 20 images in 1 tar files in" in result.output
    packed = open.open_images("pets", tmp_path, images)
    assert isinstance(packed, Packed)
    assert [packed.image(i).tobytes() for i in range(len(images))] == plain
    again = command(tmp_path, "pack", "pets")
    assert (again.exit_code, "is there already" in again.output) == (4, True)
    assert "kept in arrays" in command(tmp_path, "pack", "digits").output


def test_a_folder_too_few_or_too_many_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caltech-101 has no list of its classes, so a number of one would name the wrong folder."""
    trees.plant("caltech101", tmp_path, monkeypatch)
    folder = tmp_path / "caltech101" / "101_ObjectCategories"
    (folder / "accordion").rename(tmp_path / "elsewhere")
    lines = problems(command(tmp_path, "check", "caltech101"), "caltech101")
    assert [line for line in lines if "folders" in line] == [
        f"caltech101: 2 folders of classes with images in {part}, expected 3" for part in ("trainval", "test")
    ]
    assert not any("have no image" in line for line in lines)


def test_unlabelled_data_are_listed_checked_and_split_too(tmp_path: Path) -> None:
    row = json.loads(command(tmp_path, "ls", "photo-tiles", "-o", "json").stdout)
    assert (row["train"], row["val"], row["there"]) == (612, 89, True)
    assert "classes" not in row
    assert any(line.split()[:2] == ["photo-tiles", "–"] for line in command(tmp_path, "ls").stdout.splitlines())
    result = command(tmp_path, "check", "photo-tiles")
    assert result.exit_code == 0
    assert "images   701 of 701 expected\nparts    train 612, val 89, test 0" in result.stdout
    path, digest = command(tmp_path, "split", "photo-tiles").stdout.splitlines()
    lines = Path(path).read_text().splitlines()
    assert json.loads(lines[0])["sha256"] == digest
    place = {"photograph": "astronaut.png", "scale": 0, "left": 0, "top": 0}
    assert json.loads(lines[1]) == {"index": 0, **place, "part": "train"}
    assert "kept in arrays" in command(tmp_path, "pack", "photo-tiles").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("split", "pets", "--no-background"), "--no-background is no option of pets; its options: --val-fraction,"),
        (("check", "digits", "--official-val", "test"), "--official-val is no option of digits"),
        (("check", "photo-tiles", "--split-seed", "1"), "--split-seed is no option of photo-tiles; its options: none"),
        (("check", "pets", "--val-fraction", "1"), "1.0 is not in the range 0<x<1"),
    ],
)
def test_options_are_those_that_a_data_set_offers(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    result = command(tmp_path, *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_an_official_val_may_be_split_as_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.plant("inat18", tmp_path, monkeypatch)
    result = command(tmp_path, "split", "inat18", "--official-val", "test")
    assert "inat18-0.2-0-official-val-is-test.jsonl" in result.stdout
    assert "train 5, val 1, test 4" in result.stderr


def test_commands_know_no_data_set_by_name() -> None:
    """What a data set alone offers (options, conversions, downloads) it offers itself."""
    import orchestrator.assets.fetch_data
    import orchestrator.cli.data
    import orchestrator.launch.data_manifests

    for module in (orchestrator.cli.data, orchestrator.assets.fetch_data, orchestrator.launch.data_manifests):
        source = Path(str(module.__file__)).read_text()
        assert [name for name in DATASETS if f'"{name}' in source or f" {name} " in source] == []
        assert "labelled" not in source
    help_text = CliRunner().invoke(data, ["split", "--help"]).output
    for flag in ("--val-fraction", "--split-seed", "--no-background", "--official-val"):
        assert flag in help_text
    assert "cog" in CliRunner().invoke(data, ["convert", "--help"]).output
    assert CliRunner().invoke(data, ["convert", "food101"]).exit_code == 2
