"""A data set of one's own, described in a spec: from the spec over real trials to the table."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from data_commands import trees
from in_process_backend import Machine, drive_to_end
from PIL import Image

from orchestrator import spec
from orchestrator.errors import Conflict, NotFound, SpecError
from orchestrator.launch.data_manifests import check_unchanged, with_manifests
from orchestrator.launch.submit import record_job
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.records.states import JobState
from orchestrator.report.build import build
from orchestrator.report.formats import csv_table
from orchestrator.report.lineage import lineage, lines
from orchestrator.settings import Settings, settings
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.store.store import Store, open_store
from workers.run import run_trial

SPEC = """
name: own
trial:
  task:
    kind: classify
    augment: {rand_augment: none, color_jitter: 0, mixup: 0, cutmix: 0, erasing: 0, flip: 0, crop_scale: [1, 1]}
  backbone:
    model: vit_tiny_patch16_224
    image_size: 8
    args: {patch_size: 4, embed_dim: 16, depth: 1, num_heads: 2}
    init: {kind: none}
  optim: {batch: 8, epochs: 2, warmup_epochs: 1, layer_decay: 1}
stages:
  - name: grid
    per: [task.dataset]
    sweep:
      grid:
        task.dataset: [{kind: folder, path: lab/stripes}, {kind: folder, path: lab/flat, name: flat ones}, faces]
        optim.lr: [1.0e-3, 1.0e-2]
  - name: final
    from: grid
    override: {task.train: trainval, task.evaluate: test}
report:
  averages: [{name: mine, over: [stripes]}]
"""
ONE_SET = SPEC.replace(", {kind: folder, path: lab/flat, name: flat ones}, faces]", "]")


def draw(base: Path, parts: tuple[str, ...]) -> None:
    """Stripes from left to right and from top to bottom, with noise: 12 images of each in every part."""
    random = np.random.RandomState(0)
    for part in parts:
        for name in ("across", "down"):
            (base / part / name).mkdir(parents=True)
            for i in range(12):
                pixels = random.randint(0, 60, (8, 8, 3), dtype=np.uint8)
                lines_ = pixels[::2] if name == "down" else pixels[:, ::2]
                lines_ += 180
                Image.fromarray(pixels).save(base / part / name / f"{i}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    draw(tmp_path / "data" / "lab" / "stripes", ("train", "val", "test"))
    draw(tmp_path / "data" / "lab" / "flat", ("",))
    return tmp_path / "data"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    yield opened
    opened.close()


def load(folder: Path, text: str) -> JobSpec:
    (folder / "own.yaml").write_text(text)
    return spec.load(folder / "own.yaml", None, ())


def at(folder: Path, root: Path) -> Settings:
    return settings(folder=folder / "runs", data_root=root)


def test_from_spec_to_table(tmp_path: Path, root: Path, store: Store) -> None:
    job = load(tmp_path, ONE_SET)
    planned = with_manifests(job, at(tmp_path, root))
    state, _ = drive_to_end(store, job, Machine(execute=run_trial), tmp_path, planned=planned)
    assert state is JobState.done
    report = build(store, job_id(job))
    assert [column.name for column in report.columns] == ["stripes"]
    cells = {row["column"]: row for row in csv.DictReader(io.StringIO(csv_table.csv(report)))}
    assert {"stripes", "mine"} <= set(cells)
    (final,) = store.trials.placed(job_id(job), "final")
    assert (final.group, final.name.split("/")[:2]) == ("stripes", ["final", "stripes"])
    assert final.value is not None
    assert float(cells["stripes"]["value"]) == pytest.approx(100 * final.value)
    trial = store.trials.get(final.key)
    assert trial.spec["task"]["dataset"]["name"] == "stripes"
    text = lines(final.key, lineage(store, trial))
    assert any("classify of stripes" in line for line in text)


def test_the_same_data_elsewhere_are_the_same_trials(tmp_path: Path, root: Path) -> None:
    job = load(tmp_path, ONE_SET)
    keys = [p.key for p in Planner(with_manifests(job, at(tmp_path, root)), DurationModel()).placed]
    shutil.move(root, tmp_path / "moved")
    again = with_manifests(job, at(tmp_path, tmp_path / "moved"))
    assert [p.key for p in Planner(again, DurationModel()).placed] == keys
    absolute = tmp_path / "moved" / "lab" / "stripes"
    text = ONE_SET.replace("path: lab/stripes", f"path: {absolute}, name: Stripes").replace("[stripes]", "[Stripes]")
    other = with_manifests(load(tmp_path, text), at(tmp_path, tmp_path / "nowhere"))
    assert [p.key for p in Planner(other, DurationModel()).placed] == keys
    assert not (tmp_path / "nowhere").exists()


def test_a_job_does_not_continue_on_changed_images(tmp_path: Path, root: Path, store: Store) -> None:
    from orchestrator.engine.plan_rows import placement_of

    job = load(tmp_path, ONE_SET)
    planned = with_manifests(job, at(tmp_path, root))
    record_job(store, job, job_id(job))
    store.trials.place(job_id(job), [placement_of(trial) for trial in Planner(planned, DurationModel()).placed])
    check_unchanged(store, job_id(job), with_manifests(job, at(tmp_path, root)))
    (root / "lab" / "stripes" / "train" / "down" / "3.png").unlink()
    with pytest.raises(Conflict, match=r"ran on other data: the split stripes-\w+/0.2/0 had .* To run on the data as"):
        check_unchanged(store, job_id(job), with_manifests(job, at(tmp_path, root)))


def test_samples_are_counted_for_the_plan(tmp_path: Path, root: Path) -> None:
    job = load(tmp_path, SPEC.replace("    override: {task.train: trainval, task.evaluate: test}\n", ""))
    placed = Planner(with_manifests(job, at(tmp_path, root)), DurationModel()).placed
    tasks = {p.group: p.spec.task for p in placed}
    assert {group: (t.train_samples, t.evaluation_samples) for group, t in tasks.items()} == {
        "stripes": (24, 24), "flat ones": (19, 5), "faces": (40, 80),
    }  # fmt: skip
    assert all(p.seconds > 0 for p in placed)


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ("lab/stripes", "lab/strpes", NotFound, r"strpes: no folder .*lab/strpes; task.dataset.path is absolute or"),
        ("lab/stripes", "lab/flat", SpecError, "task: flat has no test images; evaluate on val"),
        (", name: flat ones", ", name: stripes", SpecError,
         "task.dataset: two data sets are called stripes; give lab/flat another `name`"),
        (", name: flat ones", ", name: faces", SpecError, "two data sets are called faces; give lab/flat another"),
    ],
)  # fmt: skip
def test_what_only_the_data_tell_is_told_before_anything_runs(
    tmp_path: Path, root: Path, old: str, new: str, error: type[Exception], message: str
) -> None:
    text = ONE_SET if old == "lab/stripes" else SPEC
    text = text.replace(old, new).replace("over: [stripes]", "over: []")
    with pytest.raises(error, match=message):
        with_manifests(load(tmp_path, text), at(tmp_path, root))


def test_a_column_that_no_data_set_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"over: strypes: no trial has this column; .*nearest: stripes"):
        load(tmp_path, SPEC.replace("over: [stripes]", "over: [strypes]"))


def test_described_and_known_data_stand_side_by_side(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees.plant("pets", root, monkeypatch)
    text = SPEC.replace("faces]", "pets]").replace("    override: {task.train: trainval, task.evaluate: test}\n", "")
    placed = Planner(with_manifests(load(tmp_path, text), at(tmp_path, root)), DurationModel()).placed
    names = {p.group: list(p.spec.task.model_dump()["manifests"]) for p in placed}
    assert names["pets"] == ["pets/0.2/0"]
    assert names["stripes"][0].startswith("stripes-")
    assert len({name for each in names.values() for name in each}) == 3
