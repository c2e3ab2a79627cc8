"""Tables of a user's own images, in each form that is read, and the task on them as planning completes it."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dataset_trees as trees
import pyarrow as pa
from pyarrow import parquet

from tasks.backbones.spec import BackboneSpec
from tasks.base import DataContext
from tasks.classification.task import Classify
from tasks.datasets.augment import Augment

VIT = BackboneSpec(
    model="vit_tiny_patch16_224", args={"embed_dim": 16, "depth": 1, "num_heads": 2, "patch_size": 4}, image_size=16
)
Rows = Sequence[Mapping[str, Any]]


def write_csv(path: Path, rows: Rows, delimiter: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def write_lines(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_parquet(path: Path, rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)


def write_saved(folder: Path, rows: Rows, features: Mapping[str, Any], files: int = 1) -> None:
    """As `Dataset.save_to_disk` of datasets 5.2 writes it; images are {"bytes": .., "path": ..}."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([dict(row) for row in rows])
    names = [f"data-{i:05}-of-{files:05}.arrow" for i in range(files)]
    each = -(-len(rows) // files)
    for i, name in enumerate(names):
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table.slice(i * each, each))
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "0", "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"citation": "", "features": dict(features)}))


def birds(folder: Path, count: int = 24, each: int = 3) -> list[dict[str, Any]]:
    """Images on disk, and a row for each: two classes, `each` images of one bird."""
    rows = []
    for i in range(count):
        trees.draw(folder / "images" / f"{i}.jpg", i)
        bird = i // each
        rows.append({"path": f"images/{i}.jpg", "label": ("owl", "kite")[bird % 2], "bird": f"bird {bird}"})
    return rows


def planned(root: Path, dataset: Mapping[str, Any], **options: Any) -> Classify:
    """The task as planning completes it."""
    written = {"kind": "classify", "dataset": dict(dataset), "augment": Augment.none(), **options}
    return Classify.model_validate({**written, **Classify.model_validate(written).planned_fields(root)})


def context(root: Path, **other: Any) -> DataContext:
    return DataContext(root, (16, 16), device="cpu", seed=0, batch=2, may_test=True, **other)


def entries(root: Path) -> list[dict[str, Any]]:
    """What the one written manifest below the data root says of each image."""
    (path,) = (root / "splits").glob("*.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]
