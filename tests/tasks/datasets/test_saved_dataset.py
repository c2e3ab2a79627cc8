"""Folders that Hugging Face's `datasets` saved: one part or three, several files, classes by name, and each mistake."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import own_tables as tables
import pytest
import torch
from own_tables import VIT, context, entries, planned
from pydantic import ValidationError

from tasks.datasets.images.arrow import ArrowImages
from tasks.datasets.labelled import partition
from tasks.datasets.labelled.listing import Sizes
from tasks.errors import DataError

SAVED = {"kind": "huggingface", "path": "lab/birds"}
CLASSES = {"names": ["owl", "kite"], "_type": "ClassLabel"}
FEATURES: dict[str, Any] = {
    "image": {"_type": "Image"},
    "label": CLASSES,
    "bird": {"dtype": "string", "_type": "Value"},
}
Row = dict[str, Any]


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    made = tables.birds(tmp_path / "files")
    return [
        {
            "image": {"bytes": (tmp_path / "files" / row["path"]).read_bytes(), "path": None},
            "label": CLASSES["names"].index(row["label"]),
            "bird": row["bird"],
        }
        for row in made
    ]


def save_parts(base: Path, rows: list[Row], features: dict[str, Any] = FEATURES) -> None:
    for i, split in enumerate(("train", "validation", "test")):
        tables.write_saved(base / split, rows[8 * i : 8 * i + 8], features)
    (base / "dataset_dict.json").write_text(json.dumps({"splits": ["test", "train", "validation"]}))


def test_a_dataset_is_cut_by_groups(tmp_path: Path, rows: list[Row]) -> None:
    tables.write_saved(tmp_path / "lab" / "birds", rows, FEATURES, files=3)
    own = planned(tmp_path, {**SAVED, "group": "bird", "test_fraction": 0.25}, val_fraction=0.3)
    assert [*own.sizes.values()] == [Sizes(classes=2, train=18, test=6, held_out=6)]
    written = entries(tmp_path)
    assert written[8]["file"] == "data-00001-of-00003.arrow/0"
    assert {entry["bytes"] for entry in written} == {len(row["image"]["bytes"]) for row in rows}
    loaders = own.loaders(context(tmp_path))
    assert (loaders.train_samples, len(list(loaders.epoch(0)))) == (12, 6)
    assert own.build(VIT, None).get_parameter("head.weight").shape == (2, 16)
    labels = torch.cat([batch["labels"] for batch in loaders.evaluation()])
    assert sorted(labels.tolist()) == [0, 0, 0, 1, 1, 1]


def test_the_images_are_those_of_the_files(tmp_path: Path, rows: list[Row]) -> None:
    """Pixel for pixel, in the order of the rows."""
    files = tables.birds(tmp_path / "files")
    numbered = [{"path": of["path"], "label": row["label"]} for of, row in zip(files, rows, strict=True)]
    tables.write_csv(tmp_path / "files" / "birds.csv", numbered)
    tables.write_saved(tmp_path / "lab" / "birds", rows, {}, files=2)
    own = planned(tmp_path, SAVED), planned(tmp_path, {"kind": "table", "path": "files/birds.csv"})
    found = [[batch["images"] for batch in task.loaders(context(tmp_path)).evaluation()] for task in own]
    assert all(torch.equal(first, second) for first, second in zip(*found, strict=True))


def test_splits_are_the_parts(tmp_path: Path, rows: list[Row]) -> None:
    save_parts(tmp_path / "lab" / "birds", rows)
    own = planned(tmp_path, SAVED)
    assert [*own.sizes.values()] == [Sizes(classes=2, train=8, val=8, test=8)]
    final = planned(tmp_path, SAVED, train="trainval", evaluate="test")
    assert sum(len(batch["labels"]) for batch in final.loaders(context(tmp_path)).evaluation()) == 8
    (path,) = (tmp_path / "splits").glob("*.jsonl")
    assert json.loads(path.read_text().splitlines()[0])["names"] == CLASSES["names"]


@pytest.mark.parametrize("feature", [{"feature": CLASSES, "_type": "List"}, [CLASSES], {"_type": "Value"}])
def test_several_labels_are_a_list(tmp_path: Path, rows: list[Row], feature: Any) -> None:
    written = [{"image": row["image"], "tags": [[0], [0, 1], []][i % 3]} for i, row in enumerate(rows)]
    tables.write_saved(tmp_path / "lab" / "birds", written, {"tags": feature})
    own = planned(tmp_path, {**SAVED, "labels": "tags"})
    assert (own.metric, next(iter(own.sizes.values())).classes) == ("map11", 2)
    assert [entry["labels"] for entry in entries(tmp_path)][:3] == [[0], [0, 1], []]


def test_rows_can_be_read_by_other_processes(tmp_path: Path, rows: list[Row]) -> None:
    tables.write_saved(tmp_path / "lab" / "birds", rows, FEATURES, files=2)
    names = [(f"data-0000{i % 2}-of-00002.arrow", i) for i in range(6)]
    source = ArrowImages("birds", tmp_path / "lab" / "birds", "image", names)
    expected = [source.encoded(i) for i in range(6)]
    again = pickle.loads(pickle.dumps(source))
    assert [again.encoded(i) for i in range(6)] == expected
    assert source.lengths() == [len(each) for each in expected]
    assert source.identity(0, 2) != source.identity(2, 4)
    assert [source.taken([4, 1]).encoded(i) for i in (0, 1)] == [expected[4], expected[1]]
    assert len({b"".join(source.content()), b"".join(source.taken([0, 1]).content())}) == 2


def test_an_image_that_cannot_be_decoded_is_named_by_its_row(tmp_path: Path, rows: list[Row]) -> None:
    rows[20]["image"]["bytes"] = b"cut short"
    save_parts(tmp_path / "lab" / "birds", rows)
    own = planned(tmp_path, SAVED, train="trainval", evaluate="test")
    with pytest.raises(DataError, match=r"birds: cannot read image .*/test/data-00000-of-00001.arrow, row 5 \(no"):
        list(own.loaders(context(tmp_path)).evaluation())


def test_a_data_set_that_is_saved_anew_is_noticed(tmp_path: Path, rows: list[Row]) -> None:
    base = tmp_path / "lab" / "birds"
    save_parts(base, rows)
    own = planned(tmp_path, SAVED)
    rows[1]["image"]["bytes"] += b" "
    save_parts(base, rows)
    partition._planned.cache_clear()
    with pytest.raises(DataError, match=r"birds: 1 of 8 images were changed since this trial was planned: train/.*/1"):
        own.loaders(context(tmp_path))
    assert planned(tmp_path, SAVED).manifests != own.manifests


def _no_bytes(rows: list[Row]) -> None:
    rows[9]["image"] = {"bytes": None, "path": "/somewhere/9.jpg"}


@pytest.mark.parametrize(
    ("damage", "fields", "message"),
    [
        (
            _no_bytes,
            {},
            r"data-00000-of-00001.arrow, row 10: column 'image': it holds no bytes of an image",
        ),
        (
            lambda rows: rows[3].update(label=-1),
            {},
            r"row 4 of lab/birds \(splits one after the other\): column 'label' has no",
        ),
        (
            None,
            {"image": "photo"},
            "no column 'photo' in lab/birds; its columns: image, label, bird; task",
        ),
        (None, {"image": "bird"}, "row 1: column 'bird': it holds no bytes of an image"),
        (None, {"group": "nest"}, "no column 'nest' in lab/birds"),
    ],
)
def test_what_is_wrong_in_rows_is_one_line(
    tmp_path: Path, rows: list[Row], damage: Callable[[list[Row]], Any] | None, fields: dict[str, Any], message: str
) -> None:
    if damage:
        damage(rows)
    tables.write_saved(tmp_path / "lab" / "birds", rows, FEATURES)
    with pytest.raises(DataError, match=message):
        planned(tmp_path, {**SAVED, **fields})


def _edit(file: str, **changed: Any) -> Callable[[Path], Any]:
    def edit(base: Path) -> None:
        (base / file).write_text(json.dumps({**json.loads((base / file).read_text()), **changed}))

    return edit


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_edit("dataset_dict.json", splits=["train", "extra"]), "splits train, extra are not read"),
        (_edit("dataset_dict.json", splits=["../x"]), "names no file below the folder of the data"),
        (_edit("train/state.json", _indices_data_files=[{"filename": "i.arrow"}]), "list of indices"),
        (_edit("test/dataset_info.json", features={"label": {"names": ["kite", "owl"]}}), "the splits of .* have"),
        (lambda base: (base / "train" / "state.json").write_text("[]"), "state.json is not as `save_to"),
        (lambda base: (base / "train" / "state.json").unlink(), "No such file or directory.*state.json"),
        (lambda base: (base / "test" / "data-00000-of-00001.arrow").unlink(),
         "data-00000-of-00001.arrow"),
        (lambda base: (base / "test" / "data-00000-of-00001.arrow").write_bytes(b"ARROW"), "lab/birds must be"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_folder_is_one_line(
    tmp_path: Path, rows: list[Row], damage: Callable[[Path], Any], message: str
) -> None:
    save_parts(tmp_path / "lab" / "birds", rows)
    damage(tmp_path / "lab" / "birds")
    with pytest.raises(DataError, match=message) as caught:
        planned(tmp_path, SAVED)
    assert "\n" not in str(caught.value)


def test_a_column_of_parts_beside_splits_is_refused(tmp_path: Path, rows: list[Row]) -> None:
    save_parts(tmp_path / "lab" / "birds", rows)
    with pytest.raises(DataError, match=r"has its splits in folders; leave out task\.dataset\.split"):
        planned(tmp_path, {**SAVED, "split": "bird"})
    with pytest.raises(ValidationError, match="Extra inputs"):
        planned(tmp_path, {**SAVED, "images": "lab"})
