"""A table of one's own images: every form of file, several labels, parts and groups, and each mistake in one line."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import own_tables as tables
import pytest
import torch
from dataset_trees import draw
from own_tables import VIT, context, entries, planned
from pydantic import ValidationError
from task_figures import figures_of

from tasks.analysis.task import Analyse
from tasks.classification.task import Classify
from tasks.datasets.labelled import partition
from tasks.datasets.labelled.listing import Sizes
from tasks.errors import DataError
from tasks.pretraining.task import Pretrain
from workers.trial import TrialSpec

TABLE = {"kind": "table", "path": "lab/birds.csv"}
Row = dict[str, Any]


def key(task: Classify) -> str:
    body = {
        "task": task.model_dump(mode="json"),
        "backbone": VIT.model_dump(mode="json"),
        "optim": {"lr": 0.1, "batch": 2},
    }
    return TrialSpec.model_validate({**body, "may_test": task.reads_test}).key


@pytest.fixture
def rows(tmp_path: Path) -> list[Row]:
    return tables.birds(tmp_path / "lab")


WRITERS: dict[str, Callable[[Path, list[Row]], None]] = {
    ".csv": tables.write_csv,
    ".tsv": lambda path, rows: tables.write_csv(path, rows, "\t"),
    ".jsonl": tables.write_lines,
    ".parquet": tables.write_parquet,
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_form_of_a_table_is_the_same_data(tmp_path: Path, rows: list[Row], suffix: str) -> None:
    WRITERS[suffix](tmp_path / "lab" / f"birds{suffix}", rows)
    own = planned(tmp_path, {"kind": "table", "path": f"lab/birds{suffix}", "test_fraction": 0.25})
    assert [*own.sizes.values()] == [Sizes(classes=2, train=18, test=6)]
    parts = [entry["part"] for entry in entries(tmp_path)]
    assert [parts.count(part) for part in ("train", "val", "test")] == [14, 4, 6]
    loaders = own.loaders(context(tmp_path))
    assert loaders.train_samples == own.train_samples == 14
    batches = list(loaders.evaluation())
    assert sum(len(batch["labels"]) for batch in batches) == own.evaluation_samples == 4
    final = planned(tmp_path, {**own.dataset.model_dump(), "metric": None}, train="trainval", evaluate="test")
    labels = torch.cat([batch["labels"] for batch in final.loaders(context(tmp_path)).evaluation()])
    assert sorted(labels.tolist()) == [0, 0, 0, 1, 1, 1]


def test_all_forms_give_one_key(tmp_path: Path, rows: list[Row]) -> None:
    """Neither place, nor the table's form, nor the names of its columns enter it."""
    for suffix, write in WRITERS.items():
        write(tmp_path / "lab" / f"birds{suffix}", rows)
    renamed = [{"file": row["path"], "species": row["label"]} for row in rows]
    tables.write_csv(tmp_path / "lab" / "other.csv", renamed)
    described = [{"path": f"lab/birds{suffix}"} for suffix in WRITERS]
    described += [{"path": "lab/other.csv", "image": "file", "label": "species"}]
    keys = {key(planned(tmp_path, {"kind": "table", **each})) for each in described}
    absolute = [{**row, "path": str(tmp_path / "lab" / row["path"])} for row in rows]
    tables.write_csv(tmp_path / "lists" / "birds.csv", absolute)
    keys.add(key(planned(tmp_path, {"kind": "table", "path": "lists/birds.csv", "images": "lab"})))
    assert len(keys) == 1
    rows[0]["label"], rows[3]["label"] = rows[3]["label"], rows[0]["label"]
    tables.write_csv(tmp_path / "lab" / "birds.csv", rows)
    assert key(planned(tmp_path, TABLE)) not in keys


def test_groups_never_straddle_a_cut(tmp_path: Path, rows: list[Row]) -> None:
    tables.write_csv(tmp_path / "lab" / "birds.csv", rows)
    own = planned(tmp_path, {**TABLE, "group": "bird", "test_fraction": 0.25}, val_fraction=0.3)
    bird = {row["path"]: row["bird"] for row in rows}
    parts: dict[str, set[str]] = {}
    for entry in entries(tmp_path):
        parts.setdefault(bird[entry["file"]], set()).add(entry["part"])
    assert all(len(of_bird) == 1 for of_bird in parts.values())
    counts = partition.make(own._card, tmp_path, own._data.split).counts
    assert counts == {"train": 12, "val": 6, "test": 6}
    assert (own.train_samples, own.evaluation_samples) == (12, 6)
    assert own.loaders(context(tmp_path)).train_samples == 12
    assert key(own) != key(planned(tmp_path, {**TABLE, "test_fraction": 0.25}, val_fraction=0.3))


def test_a_column_group_is_taken_without_asking_and_can_be_refused(tmp_path: Path, rows: list[Row]) -> None:
    named = [{"path": row["path"], "label": row["label"], "group": row["bird"]} for row in rows]
    tables.write_csv(tmp_path / "lab" / "birds.csv", named)
    assert [each.held_out for each in planned(tmp_path, TABLE, val_fraction=0.3).sizes.values()] == [6]
    assert [each.held_out for each in planned(tmp_path, {**TABLE, "group": ""}).sizes.values()] == [None]


def test_a_column_split_says_what_is_what(tmp_path: Path, rows: list[Row]) -> None:
    for i, row in enumerate(rows):
        row["split"] = ("train", "val", "train", "test")[i // 6]
    tables.write_csv(tmp_path / "lab" / "birds.csv", rows)
    own = planned(tmp_path, {**TABLE, "group": "bird"})
    assert [*own.sizes.values()] == [Sizes(classes=2, train=12, val=6, test=6)]
    assert (own.train_samples, own.evaluation_samples) == (12, 6)
    assert [entry["part"] for entry in entries(tmp_path)] == [row["split"] for row in rows]
    assert [*planned(tmp_path, {**TABLE, "split": ""}).sizes.values()] == [Sizes(classes=2, train=24)]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_several_labels_are_measured_by_map(tmp_path: Path, rows: list[Row], suffix: str) -> None:
    kinds = [["owl"], ["kite", "night"], ["owl", "night"], []]
    written = [{"path": row["path"], "tags": kinds[i % 4]} for i, row in enumerate(rows)]
    if suffix == ".csv":
        written = [{**row, "tags": "; ".join(row["tags"])} for row in written]
    WRITERS[suffix](tmp_path / "lab" / f"birds{suffix}", written)
    own = planned(tmp_path, {"kind": "table", "path": f"lab/birds{suffix}", "labels": "tags"})
    assert own.metric == "map11"
    assert [entry["labels"] for entry in entries(tmp_path)][:4] == [[2], [0, 1], [1, 2], []]
    (sizes,) = own.sizes.values()
    assert (sizes.classes, own.train_samples + own.evaluation_samples) == (3, 24)
    loaders, model = own.loaders(context(tmp_path)), own.build(VIT, None)
    batch = next(iter(loaders.epoch(0)))
    assert own.loss(model, batch)["loss"].item() > 0
    with torch.no_grad():
        assert set(figures_of(own, model.eval(), loaders.evaluation())) == {"map11", "loss"}


def test_numbers_are_classes_in_their_order(tmp_path: Path, rows: list[Row]) -> None:
    for i, row in enumerate(rows):
        row["label"] = (10, 9)[i % 2]
    for suffix in (".csv", ".parquet"):
        WRITERS[suffix](tmp_path / "lab" / f"birds{suffix}", rows)
        planned(tmp_path, {"kind": "table", "path": f"lab/birds{suffix}"})
    for path in (tmp_path / "splits").glob("birds*.jsonl"):
        assert '"names": ["9", "10"]' in path.read_text().splitlines()[0]


@pytest.mark.parametrize("other", ["9.0", "9."])
def test_a_number_that_is_written_in_two_ways_is_refused(tmp_path: Path, rows: list[Row], other: str) -> None:
    """Half of a class's images would be of a class of their own."""
    for i, row in enumerate(rows):
        row["label"] = ("9", "10", other)[i % 3]
    tables.write_csv(tmp_path / "lab" / "birds.csv", rows)
    with pytest.raises(DataError, match=rf"labels '9' and '{re.escape(other)}' of lab/birds.csv are one number"):
        planned(tmp_path, TABLE)
    for row in rows:
        row["label"] = str(row["label"]).replace(other, "09")  # a code with its zero is another one
    tables.write_csv(tmp_path / "lab" / "birds.csv", rows)
    planned(tmp_path, TABLE)


def test_a_table_without_labels_is_for_pretraining_and_analysis(tmp_path: Path, rows: list[Row]) -> None:
    tables.write_csv(tmp_path / "lab" / "birds.csv", [{"path": row["path"]} for row in rows])
    for written in (
        {"kind": "pretrain", "mask_patch": 8, "val_fraction": 0.25, "dataset": {**TABLE, "name": "birds", "label": ""}},
        {"kind": "analysis", "images": 4, "val_fraction": 0.25, "dataset": {**TABLE, "name": "birds", "label": ""}},
    ):
        of = Pretrain if written["kind"] == "pretrain" else Analyse
        own = of.model_validate({**written, **of.model_validate(written).planned_fields(tmp_path)})
        assert own.evaluation_samples == (6 if of is Pretrain else 4)
        assert len(next(iter(own.loaders(context(tmp_path)).evaluation()))["images"])
    with pytest.raises(ValidationError, match="birds has one class only"):
        planned(tmp_path, {**TABLE, "name": "birds", "label": ""})


def _row(**changed: Any) -> Callable[[list[Row]], Any]:
    return lambda rows: rows[4].update(changed)


def _split(*parts: str) -> Callable[[list[Row]], Any]:
    return lambda rows: [row.update(split=parts[i % len(parts)]) for i, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("damage", "fields", "message"),
    [
        (None, {"label": "species"}, "no column 'species' in lab/birds.csv; its columns: path, label, bird; "
         "task.dataset.label names another"),
        (None, {"image": "file"}, "no column 'file' .* task.dataset.image names another"),
        (None, {"group": "nest"}, "no column 'nest' .* task.dataset.group names another"),
        (_row(label=" "), {}, "row 5 of lab/birds.csv: column 'label' has no label; give every image its label, or"),
        (_row(path=""), {}, "row 5 .* column 'path' names no file; give the path of an image"),
        (_row(path="../4.jpg"), {}, r"row 5 .* column 'path' names '../4.jpg', outside .*/lab; task.dataset.images"),
        (_row(path="/etc/4.jpg"), {}, r"row 5 .* column 'path' names '/etc/4.jpg', outside .*/lab"),
        (_row(path="images/3.jpg", label="kite"), {}, "1 images are listed twice: images/3.jpg; keep one of each"),
        (_row(path="images/0.jpg", label="kite"), {}, "1 images are listed with two labels: images/0.jpg; keep the"),
        (_row(path="images/99.jpg"), {}, r"1 of 24 files are not there or empty: images/99.jpg; they are looked for"),
        (_row(bird=""), {"group": "bird"}, "row 5 .* column 'bird' is empty; an image that belongs to no group needs"),
        (_split("train", "validation"), {}, "row 2 .* column 'split' holds 'validation'; write val"),
        (_split("train", "fold 2"), {}, "row 2 .* holds 'fold 2'; a part is train, val or test"),
        (_split("val", "test"), {}, "no image of part train; the parts that the data name: val, test"),
        (_split("train", "test"), {"group": "bird"}, "group 'bird 0' is in train and in test; a group must be in one"),
        (_split("train", "train"), {"test_fraction": 0.2}, "test_fraction cuts data that name no parts, and these"),
        (lambda rows: [row.update(split="train") for row in rows] + [rows[4].update(label="crow", split="test")], {},
         "1 classes are in test and never trained: crow; give each some images to train on, or leave it out"),
        (lambda rows: rows.__delitem__(slice(1, None)), {}, "val_fraction 0.2 of 1 images holds out 0 as val"),
        (lambda rows: [row.update(bird="one") for row in rows], {"group": "bird"},
         "task.val_fraction 0.2 of 24 images in 1 groups leaves none in val; choose it so that both have some"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_table_is_one_line(
    tmp_path: Path, rows: list[Row], damage: Any, fields: dict[str, Any], message: str
) -> None:
    if damage:
        damage(rows)
    tables.write_csv(tmp_path / "lab" / "birds.csv", rows)
    with pytest.raises(DataError, match=message) as caught:
        planned(tmp_path, {**TABLE, **fields})
    assert str(caught.value).startswith("birds.csv: ")
    assert "\n" not in str(caught.value)


def test_a_class_whose_images_are_all_drawn_for_test_is_refused(tmp_path: Path, rows: list[Row]) -> None:
    for row in rows[:3]:
        row["label"] = "crow"
    tables.write_csv(tmp_path / "lab" / "birds.csv", rows)
    with pytest.raises(DataError, match=r"1 classes are in test and never trained: crow; .* draw another test"):
        planned(tmp_path, {**TABLE, "test_fraction": 0.9})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "no images: .*a.csv is empty"),
        ("a.csv", b"path,label\n", "a.csv: no images. a.csv must be a table"),
        ("a.csv", b"path,label\n1.jpg\n", "a.csv: line 2 has 1 cells, and the first 2"),
        ("a.csv", b'path,label\n"1.jpg,x\n', "a.csv: line 2: unexpected end of data"),
        ("a.csv", b"path,path\n1.jpg,x\n", "two columns have one name; its columns: path, path"),
        ("a.csv", b"path;label\n1.jpg;x\n", "no column 'path' in a.csv; its columns: path;label"),
        ("a.jsonl", b'{"path": 1\n', "a.jsonl: line 1 is no JSON"),
        ("a.jsonl", b"[1]\n", "line 1 is no JSON object"),
        ("a.jsonl", b'{"path": "1.jpg", "label": 0.5}\n', "column 'label' holds 0.5; a class is text or a whole num"),
        ("a.jsonl", b'{"path": "1.jpg", "label": ["x"]}\n', "'label' holds a list; name the column as `labels`"),
        ("a.jsonl", b'{"path": "1.jpg"}\n{"path": "2.jpg", "label": "x"}\n', "row 1 .* 'label' has no label"),
        ("a.jsonl", b'{"path": 7, "label": "x"}\n', "row 1 .* 'path' names no file"),
        ("a.parquet", b"PAR1 nothing", "a.parquet: .*[Pp]arquet"),
        ("a.xlsx", b"PK", "a.xlsx is no table that is read; known: .csv, .tsv, .jsonl, .ndjson, .parquet"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        planned(tmp_path, {"kind": "table", "path": name})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ({"kind": "table", "path": "lab"}, "lab is a folder, and kind table reads a file; folders are of kind folder"),
        ({"kind": "table", "path": "birds.csv"}, "no table .*birds.csv; task.dataset.path is absolute or below the"),
        (
            {"kind": "table", "path": "lab/birds.csv", "images": "nowhere"},
            "no folder .*nowhere; task.dataset.images",
        ),
        ({"kind": "folder", "path": "lab/birds.csv"}, "is a file, and kind folder reads folders; tables are of kind t"),
        ({"kind": "huggingface", "path": "lab/birds.csv"}, "is not a folder that `save_to_disk` .*: it is a file"),
        ({"kind": "huggingface", "path": "lab"}, "no dataset_dict.json or state.json in it; folders of image files ar"),
    ],
)
def test_a_wrong_kind_is_named(tmp_path: Path, rows: list[Row], dataset: Any, message: str) -> None:
    tables.write_csv(tmp_path / "lab" / "birds.csv", rows)
    with pytest.raises(DataError, match=message):
        planned(tmp_path, dataset)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"label": "a", "labels": "b"}, "label is for one class per image, labels for several: give one of the two"),
        ({"labels": ""}, "labels: name a column, or leave it out"),
        ({"metric": "map11"}, r"metric map11: map11 is for several labels per image \(labels\); leave metric out"),
        ({"labels": "tags", "metric": "top1"}, "metric top1: labels needs map11; leave metric out"),
        ({"test_fraction": 1}, "less than 1"),
        ({"test_seed": -1}, "greater than or equal to 0"),
    ],
)
def test_a_wrong_description_of_a_table_is_refused_with_the_spec(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Classify.model_validate({"kind": "classify", "dataset": {**TABLE, **fields}})


def test_mixing_several_labels_is_refused_with_the_spec() -> None:
    with pytest.raises(ValidationError, match=r"birds\.csv has several labels per image, for which mixing"):
        Classify.model_validate({"kind": "classify", "dataset": {**TABLE, "labels": "tags"}})


def test_two_ways_to_read_one_table_are_two_data_sets(tmp_path: Path, rows: list[Row]) -> None:
    """Their splits have other names, and in one job that reads test they must agree in what is test."""
    tables.write_csv(tmp_path / "lab" / "birds.csv", rows)
    several = [
        planned(tmp_path, {**TABLE, "test_fraction": 0.25, **fields}, train="trainval", evaluate="test")
        for fields in ({}, {"group": "bird"}, {"label": "bird", "test_fraction": 0.3, "test_seed": 2})
    ]
    assert len({name for each in several for name in each.manifests}) == 3
    assert len({rule for each in several for rule in each.opens.values()}) == 3
    assert {path for each in several for path in each.opens} == {"lab/birds.csv"}


def test_an_image_is_changed_by_its_bytes_alone(tmp_path: Path, rows: list[Row]) -> None:
    tables.write_csv(tmp_path / "lab" / "birds.csv", rows)
    before = planned(tmp_path, TABLE)
    path = tmp_path / "lab" / "images" / "7.jpg"
    content = path.read_bytes()
    draw(path, 99)
    assert planned(tmp_path, TABLE).manifests != before.manifests
    path.write_bytes(content)
    assert planned(tmp_path, TABLE).manifests == before.manifests
    shutil.copytree(tmp_path / "lab", tmp_path / "other")
    assert key(planned(tmp_path, {**TABLE, "path": "other/birds.csv"})) == key(before)
