"""Every task keeps the contract of tasks/base.py: it builds, loads, learns, measures what it declares, and is reported.

A new task adds its smallest instance to `SMALLEST`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import segmentation_trials as maps
import torch
from batches import same
from depth_sets import COUNTS, described
from in_process_backend import Machine, drive_to_end
from object_trees import SWIN, detection
from person_trees import shared_tree
from registered_ships import registered_ships
from sequence_trees import shared_sequences
from ships.task import Ships

from orchestrator.plan.cost import cost
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.resource_fit import Node
from orchestrator.records.states import JobState
from orchestrator.report.build import build
from orchestrator.report.formats import FORMATS, Links
from orchestrator.report.verify import verify
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.store.store import open_store
from tasks import TASKS
from tasks.analysis.task import Analyse
from tasks.backbones.spec import BackboneSpec
from tasks.base import Batch, DataContext, EvaluationShare, Loaders, Task
from tasks.classification.task import Classify
from tasks.depth.task import Depth
from tasks.metrics import Summary
from tasks.pose.task import Pose
from tasks.pretraining.task import Pretrain
from tasks.tracking.task import Tracking
from workers.run import run_trial

VIT = BackboneSpec(
    model="vit_tiny_patch16_224",
    image_size=16,
    args={"patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2},
)


def people() -> Pose:
    """Pose on persons in COCO's layout, as it is planned: the sizes of described data are read from them."""
    fields = {
        "kind": "pose", "dataset": {"kind": "coco", "path": str(shared_tree())}, "boxes": "ground_truth", "sigma": 0.5,
        "augment": {"grid_dropout": 0},
    }  # fmt: skip
    planned = Pose.model_validate(fields).planned_fields(Path())
    return Pose.model_validate({**fields, "sizes": planned["sizes"]})


def sequences() -> Tracking:
    """Tracking of sequences of one's own, as it is planned."""
    fields = {
        "kind": "tracking", "dataset": {"kind": "sequences", "path": str(shared_sequences())}, "pairs": 36, "stride": 4,
        "fusion": {"width": 16, "heads": 2, "blocks": 1, "drop_path_from": 1}, "baselines": True,
    }  # fmt: skip
    planned = Tracking.model_validate(fields).planned_fields(Path())
    return Tracking.model_validate({**fields, "sizes": planned["sizes"]})


SMALLEST: dict[str, tuple[Task, BackboneSpec]] = {
    "classify": (Classify(dataset="digits", normalize="half"), VIT),
    "pretrain": (Pretrain(dataset="digits-pretrain", mask_patch=4, normalize="half"), VIT),
    "analysis": (Analyse(dataset="digits", normalize="half", images=30, cka_batch=10), VIT),
    "pose": (people(), VIT),
    "depth": (Depth(dataset=described(), sizes={"rooms/lists": COUNTS}, augment={"cut_depth": 0.5}), VIT),
    "tracking": (sequences(), VIT.model_copy(update={"image_size": 32})),
    "segmentation": (
        maps.segmentation(upernet={**maps.UPERNET, "averaged_over": "labelled"}),
        BackboneSpec.model_validate(maps.SWIN),
    ),
    "detection": (detection(), BackboneSpec.model_validate(SWIN)),
    "ships": (Ships(), BackboneSpec(model="resnet10t", image_size=64)),
}
"""Kind -> its smallest instance; `ships` is a task of the tests alone."""
LIBRARIES = {"segmentation": "transformers"}
"""Kind -> library of an extra, without which it cannot be had."""
MISSING = {kind for kind, library in LIBRARIES.items() if importlib.util.find_spec(library) is None}
for _kind in MISSING:
    del SMALLEST[_kind]
BATCH = 12


def test_every_task_is_here() -> None:
    assert set(TASKS) <= set(SMALLEST) | MISSING


@pytest.fixture(params=SMALLEST)
def case(request: pytest.FixtureRequest) -> tuple[Task, BackboneSpec]:
    return SMALLEST[request.param]


@pytest.fixture(params=[kind for kind, (task, _) in SMALLEST.items() if task.trains])
def learner(request: pytest.FixtureRequest) -> tuple[Task, BackboneSpec]:
    """A task that trains."""
    return SMALLEST[request.param]


def context_of(task: Task, backbone: BackboneSpec, folder: Path, **other: Any) -> DataContext:
    context = DataContext(folder, task.input_size(backbone), device="cpu", seed=5, batch=BATCH)
    return replace(context, **other)


def opened(case: tuple[Task, BackboneSpec], folder: Path, **other: Any) -> Loaders:
    task, backbone = case
    return task.loaders(context_of(task, backbone, folder, **other))


def first(loaders: Loaders) -> Batch:
    return next(iter(loaders.epoch(0)))


def test_the_model_trains_on_its_own_batches(learner: tuple[Task, BackboneSpec], tmp_path: Path) -> None:
    """The loss is finite, follows from the parts of a batch as the task says, and reaches every parameter."""
    task, backbone = learner
    batch = first(opened(learner, tmp_path))
    torch.manual_seed(0)
    model = task.build(backbone, None).eval()  # without dropout or batch statistics a batch is the sum of its parts

    def total(parts: list[Batch]) -> torch.Tensor:
        sums: dict[str, torch.Tensor] = {}
        wholes: dict[str, float] = {}
        for part in parts:
            terms, size = task.loss(model, part), len(part["images"]) / BATCH
            below = task.denominators(part)
            if below is None:
                sums["loss"] = sums.get("loss", torch.zeros(())) + size * terms["loss"]
                continue
            assert set(below) <= set(terms)
            for name in below:
                sums[name] = sums.get(name, torch.zeros(())) + terms[name]
                wholes[name] = wholes.get(name, 0.0) + float(below[name])
        return sum((value / (wholes.get(name, 1.0) or 1.0) for name, value in sums.items()), torch.zeros(()))

    whole = total([batch])
    assert torch.isfinite(whole)
    halves = [{name: value[part] for name, value in batch.items()} for part in (slice(0, 5), slice(5, BATCH))]
    if task.loss_over == "samples":
        torch.testing.assert_close(total(halves), whole, rtol=1e-5, atol=1e-6)
    whole.backward()  # type: ignore[no-untyped-call]
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []


def test_figures_are_those_that_are_declared(case: tuple[Task, BackboneSpec], tmp_path: Path) -> None:
    task, backbone = case
    loaders = opened(case, tmp_path)
    model = task.build(backbone, None).eval()
    with torch.no_grad():
        summary = task.summarize(list(task.measure(model, loaders.evaluation())))
    assert isinstance(summary, Summary)
    declared = {metric.name: metric for metric in task.metrics}
    assert set(summary.figures) == set(declared)
    assert task.metric == task.metrics[0].name
    assert all(math.isfinite(value) for value in summary.figures.values())
    assert all(metric.title and metric.digits >= 0 and metric.scale > 0 for metric in task.metrics)
    assert all({row.figure, f"{row.figure}_mean"} & set(declared) for row in summary.measurements)


def test_ranks_share_an_evaluation(case: tuple[Task, BackboneSpec], tmp_path: Path) -> None:
    """The parts of two ranks together are those of one, and what is done is not measured again."""
    task, backbone = case
    model = task.build(backbone, None).eval()

    def parts(share: EvaluationShare) -> list[tuple[str, Any]]:
        with torch.no_grad():
            return list(task.measure(model, opened(case, tmp_path).evaluation(share)))

    whole = parts(EvaluationShare())
    items = [item for item, _ in whole]
    assert len(set(items)) == len(items)
    assert items == sorted(items)
    shared = [*parts(EvaluationShare(0, 2)), *parts(EvaluationShare(1, 2))]
    assert sorted(item for item, _ in shared) == items
    again = task.summarize(sorted(shared, key=lambda part: part[0])).figures
    assert dict(again) == dict(task.summarize(whole).figures)
    assert [item for item, _ in parts(EvaluationShare(done=frozenset(items[:1])))] == items[1:]


def test_counts_known_before_data_are_opened_are_true(case: tuple[Task, BackboneSpec], tmp_path: Path) -> None:
    loaders = opened(case, tmp_path)
    assert loaders.train_samples == case[0].train_samples
    assert loaders.steps_per_epoch == loaders.train_samples // BATCH
    assert sum(len(batch["images"]) for batch in loaders.evaluation()) == case[0].evaluation_samples
    assert case[0].missing_data(tmp_path) is None


def test_an_epoch_resumed_at_any_step_is_the_same(learner: tuple[Task, BackboneSpec], tmp_path: Path) -> None:
    whole = list(opened(learner, tmp_path).epoch(1))
    for step in {1, len(whole) // 2, len(whole) - 1}:
        resumed = list(opened(learner, tmp_path).epoch(1, step))
        assert len(resumed) == len(whole) - step
        assert all(same(one, other) for one, other in zip(resumed, whole[step:], strict=True))


def test_two_ranks_train_on_the_images_of_one(learner: tuple[Task, BackboneSpec], tmp_path: Path) -> None:
    def rows(loaders: Loaders) -> Iterator[bytes]:
        return (row.numpy().tobytes() for batch in loaders.epoch(0) for row in batch["images"])

    multiple = learner[0].batch_multiple(2)[0]
    assert BATCH % multiple == 0
    whole = sorted(rows(opened(learner, tmp_path)))
    ranks = [rows(opened(learner, tmp_path, rank=rank, world=2)) for rank in (0, 1)]
    assert sorted(row for each in ranks for row in each) == whole


def test_it_is_planned_trained_recorded_and_printed(case: tuple[Task, BackboneSpec], tmp_path: Path) -> None:
    with registered_ships():
        _from_spec_to_table(*case, tmp_path)


def _from_spec_to_table(task: Task, backbone: BackboneSpec, tmp_path: Path) -> None:
    job = JobSpec.model_validate(
        {
            "name": "contract",
            "trial": {
                "task": task.model_dump(mode="json", exclude={"manifests"}),
                "backbone": backbone.model_dump(mode="json"),
                "optim": {"lr": 1e-3, "batch": BATCH, "epochs": 2, "warmup_epochs": 1},
            },
            "stages": [{"name": "all"}],
        }
    )
    assert cost(job, lambda keys: {}, DurationModel(), [Node(2.0)]).trials == 1
    with contextlib.closing(open_store(f"sqlite:///{tmp_path / 'store.db'}")) as store:
        state, _ = drive_to_end(store, job, Machine(1, run_trial), tmp_path)
        assert state is JobState.done
        (row,) = store.trials.placed(job_id(job))
        assert [metric.name for metric in row.metrics] == [metric.name for metric in task.metrics]
        assert row.split == task.split
        figures = store.trials.figures([row.key])[row.key]
        assert set(figures) == {metric.name for metric in task.metrics}
        report = build(store, job_id(job))
        first = task.metrics[0]
        value = figures[first.name] * first.scale
        assert verify(store, job_id(job), None) == []
    for name, form in FORMATS.items():
        text = form.render(report, Links())
        assert f"{value:.{first.digits}f}" in text or str(value) in text, name
    assert first.title in FORMATS["text"].render(report, Links())
    assert f" on {task.split}" in FORMATS["text"].render(report, Links())
