"""Studies on a user's own data as a user writes them: a folder with two models, and a table with groups."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import own_tables as tables
import pytest
from in_process_backend import Machine, drive_to_end
from PIL import Image

from orchestrator import spec
from orchestrator.launch.data_manifests import with_manifests
from orchestrator.records.states import JobState
from orchestrator.report.build import build
from orchestrator.report.formats import csv_table
from orchestrator.settings import settings
from orchestrator.spec.job import job_id
from orchestrator.store.store import Store, open_store
from workers.run import run_trial

TWO_MODELS = """
name: insects
trial:
  task:
    kind: classify
    dataset: {kind: folder, path: lab/insects, test_fraction: 0.25}
    augment: {rand_augment: none, color_jitter: 0, mixup: 0, cutmix: 0, erasing: 0, flip: 0, crop_scale: [1, 1]}
  backbone: {model: resnet10t, image_size: 32, init: {kind: none}}
  optim: {batch: 8, epochs: 1, warmup_epochs: 0, layer_decay: 1}
stages:
  - name: grid
    per: [backbone.model]
    sweep:
      grid:
        backbone.model: [convnext_atto, resnet10t]
        optim.lr: [1.0e-4, 1.0e-3]
  - name: final
    from: grid
    override: {task.train: trainval, task.evaluate: test}
    replicates: 3
report:
  rows: backbone.model
"""
GROUPS = """
name: birds
trial:
  task:
    kind: classify
    dataset: {kind: table, path: lab/birds.csv, label: species, group: bird, test_fraction: 0.25}
    val_fraction: 0.3
    augment: {rand_augment: none, color_jitter: 0, mixup: 0, cutmix: 0, erasing: 0, flip: 0, crop_scale: [1, 1]}
  backbone:
    model: vit_tiny_patch16_224
    image_size: 8
    args: {patch_size: 4, embed_dim: 16, depth: 1, num_heads: 2}
    init: {kind: none}
  optim: {batch: 4, epochs: 2, warmup_epochs: 1, layer_decay: 1}
stages:
  - name: grid
    per: [task.dataset]
    sweep: {grid: {optim.lr: [1.0e-3, 1.0e-2]}}
  - name: final
    from: grid
    override: {task.train: trainval, task.evaluate: test}
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    yield opened
    opened.close()


def stripes(path: Path, down: bool, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 60, (8, 8, 3), dtype=np.uint8)
    lines = pixels[::2] if down else pixels[:, ::2]
    lines += 180
    Image.fromarray(pixels).save(path)


def run(tmp_path: Path, store: Store, text: str) -> tuple[str, dict[str, dict[str, str]]]:
    """Submits the spec without Ray; the job and the rows of its table by their name."""
    (tmp_path / "study.yaml").write_text(text)
    job = spec.load(tmp_path / "study.yaml", None, ())
    planned = with_manifests(job, settings(folder=tmp_path / "runs", data_root=tmp_path / "data"))
    state, _ = drive_to_end(store, job, Machine(execute=run_trial), tmp_path, planned=planned)
    assert state is JobState.done
    report = build(store, job_id(job))
    (column,) = [column.name for column in report.columns]
    cells = csv.DictReader(io.StringIO(csv_table.csv(report)))
    return job_id(job), {row["row"]: row for row in cells if row["column"] == column}


def test_a_folder_of_ones_own_with_two_models_and_three_replicates(tmp_path: Path, store: Store) -> None:
    for i in range(40):
        down = i % 2 == 1
        stripes(tmp_path / "data" / "lab" / "insects" / ("bee" if down else "ant") / f"{i}.png", down, i)
    job, rows = run(tmp_path, store, TWO_MODELS)
    assert {row["column"] for row in rows.values()} == {"insects"}
    assert set(rows) == {"convnext_atto", "resnet10t"}
    finals = store.trials.placed(job, "final")
    assert sorted(trial.group for trial in finals) == ["convnext_atto"] * 3 + ["resnet10t"] * 3
    seeds = {trial.key: store.trials.get(trial.key).spec["seed"] for trial in finals}
    assert sorted(seeds.values()) == [1, 1, 2, 2, 3, 3]
    for name, row in rows.items():
        values = [trial.value for trial in finals if trial.group == name]
        assert all(value is not None and 0 <= value <= 1 for value in values)
        assert float(row["value"]) == pytest.approx(100 * np.mean([value for value in values if value is not None]))
    task = store.trials.get(finals[0].key).spec["task"]
    assert [(each["train"], each["test"]) for each in task["sizes"].values()] == [(30, 10)]


def test_a_table_with_groups(tmp_path: Path, store: Store) -> None:
    rows = []
    for i in range(48):
        bird = i // 3
        stripes(tmp_path / "data" / "lab" / "photos" / f"{i}.png", bird % 2 == 1, i)
        species = ("owl", "kite")[bird % 2]
        rows.append({"path": f"photos/{i}.png", "species": species, "bird": f"bird {bird}"})
    tables.write_csv(tmp_path / "data" / "lab" / "birds.csv", rows)
    job, cells = run(tmp_path, store, GROUPS)
    (final,) = store.trials.placed(job, "final")
    assert final.value is not None
    assert float(next(iter(cells.values()))["value"]) == pytest.approx(100 * final.value)
    bird_of = {row["path"]: row["bird"] for row in rows}
    entries = tables.entries(tmp_path / "data")
    assert len({(bird_of[entry["file"]], entry["part"]) for entry in entries}) == 16
    assert {part: sum(entry["part"] == part for entry in entries) for part in ("train", "val", "test")} == {
        "train": 24, "val": 12, "test": 12,
    }  # fmt: skip
    assert [each["held_out"] for each in store.trials.get(final.key).spec["task"]["sizes"].values()] == [12]
