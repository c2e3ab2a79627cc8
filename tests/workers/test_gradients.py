"""The gradient of a step does not depend on how the batch is cut, whatever its targets and its loss are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from points_task import Points, Spread, SummedPoints
from tiny_task import Tiny, assert_close, outcome_values, run, trial_of, weights_of

import workers.train
from tasks.base import Batch, DataContext
from workers.errors import ErrorClass, TrialError
from workers.gradients import gradients
from workers.prepare import seed_of
from workers.state import TrainingState
from workers.throughput import flops_per_image


@pytest.mark.parametrize("micro_batch", [1, 3, 4])
def test_lists_of_targets_are_cut_with_their_images(tmp_path: Path, micro_batch: int) -> None:
    whole, whole_reports = run(trial_of(Points()), tmp_path / "whole")
    parts, part_reports = run(trial_of(Points(), micro_batch=micro_batch), tmp_path / "parts")
    assert_close(whole, parts)
    assert whole_reports[-1].values["train_loss"] < whole_reports[0].values["train_loss"]
    for one, two in zip(whole_reports, part_reports, strict=True):
        assert outcome_values(one) == pytest.approx(outcome_values(two), rel=1e-5)


def test_operations_are_counted_with_lists_of_targets(tmp_path: Path) -> None:
    """Two images with their own lists, of a batch of eight."""
    spec = trial_of(Points())
    place = DataContext(tmp_path, input_size=(4, 4), device="cpu", seed=0, batch=8)
    (batch, *_) = Points().loaders(place).epoch(0)
    assert flops_per_image(spec, batch) == 2 * (2 * 48 * 16 + 3 * 16 * 3)
    assert all(isinstance(points, torch.Tensor) and points.device.type == "cpu" for points in batch["points"])


@pytest.mark.parametrize("micro_batch", [1, 3, 4, 8])
def test_sums_over_micro_batches_are_divided_once(tmp_path: Path, micro_batch: int) -> None:
    """Micro-batches differ in their numbers of points; a mean of their means would be another loss."""
    whole, reports = run(trial_of(SummedPoints(), batch=8), tmp_path / "whole")
    parts, part_reports = run(trial_of(SummedPoints(), micro_batch=micro_batch), tmp_path / "parts")
    torch.testing.assert_close(weights_of(parts), weights_of(whole), rtol=0, atol=1e-6)
    for one, two in zip(reports, part_reports, strict=True):
        assert outcome_values(one) == pytest.approx(outcome_values(two), rel=1e-6, abs=1e-6)


def test_the_total_and_its_terms_are_reported(tmp_path: Path) -> None:
    spec = trial_of(SummedPoints(), lr=1e-30, warmup_epochs=0, weight_decay=0, min_lr=0, epochs=1, batch=32)
    outcome, (report,) = run(spec, tmp_path)
    place = DataContext(tmp_path, input_size=(4, 4), device="cpu", seed=spec.seed, batch=32)
    (batch,) = spec.task.loaders(place).epoch(0)
    points, none = (
        spec.task.loss(spec.task.build(spec.backbone, weights_of(outcome)), batch)[name].item()
        for name in ("points", "none")
    )
    positives = sum(len(points) for points in batch["points"])
    negatives = sum(not len(points) for points in batch["points"])
    expected = {"points": points / positives, "none": none / negatives}
    assert report.values["train_points"] == pytest.approx(expected["points"], rel=1e-6)
    assert report.values["train_none"] == pytest.approx(expected["none"], rel=1e-6)
    assert report.values["train_loss"] == pytest.approx(sum(expected.values()), rel=1e-6)


def test_a_denominator_of_zero_counts_as_one(tmp_path: Path) -> None:
    _, reports = run(trial_of(SummedPoints(blank=True)), tmp_path)
    assert all(report.values["train_points"] == 0 for report in reports)
    assert reports[-1].values["train_loss"] < reports[0].values["train_loss"]


def test_running_out_of_memory_does_not_change_a_summed_loss(tmp_path: Path) -> None:
    whole, _ = run(trial_of(SummedPoints()), tmp_path / "whole")
    halved, _ = run(trial_of(SummedPoints(memory=(3,))), tmp_path / "halved")
    assert halved.facts["micro_batch"] == 2
    torch.testing.assert_close(weights_of(halved), weights_of(whole), rtol=0, atol=1e-6)


def test_a_term_without_its_denominator_is_reported(tmp_path: Path) -> None:
    class Incomplete(SummedPoints):
        def denominators(self, batch: Batch) -> dict[str, float | torch.Tensor]:
            return {"points": 1.0}

    class Total(SummedPoints):
        def loss(self, model: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
            return {"loss": model(batch["images"]).sum()}

        def denominators(self, batch: Batch) -> dict[str, float | torch.Tensor]:
            return {"loss": 1.0}

    for task, said in (
        (Incomplete(), "the terms none, points and denominators for points"),
        (Total(), "the terms loss and denominators for loss"),
    ):
        with pytest.raises(ValueError, match=f"{said}: each term needs one, and `loss`, their total, is none of them"):
            run(trial_of(task), tmp_path / type(task).__name__)


def test_every_pass_of_a_step_begins_from_the_steps_own_seed(tmp_path: Path) -> None:
    """Another seed would be as random, and would change the digits of every trial under the same key."""
    seeds: list[int] = []

    class Watched(Tiny):
        def loss(self, model: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
            seeds.append(torch.initial_seed())
            return super().loss(model, batch)

    run(trial_of(Watched(), micro_batch=4, epochs=1, warmup_epochs=0), tmp_path)
    assert seeds[-8:] == [seed_of(3, "step", step) for step in range(4) for _ in range(2)]


def test_a_micro_batch_that_fitted_is_known_to_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several workers then leave the exchange of gradients to DistributedDataParallel, which overlaps it."""
    known = []

    def watched(run: TrainingState, batch: Batch) -> dict[str, torch.Tensor]:
        known.append(run.micro_batch_fits)
        return gradients(run, batch)

    monkeypatch.setattr(workers.train, "gradients", watched)
    run(trial_of(Tiny(memory=(3,)), epochs=1, warmup_epochs=0), tmp_path)
    assert known == [False, True, True, True]


def test_operations_of_a_summed_loss_are_counted(tmp_path: Path) -> None:
    spec = trial_of(SummedPoints())
    place = DataContext(tmp_path, input_size=(4, 4), device="cpu", seed=0, batch=8)
    (batch, *_) = spec.task.loaders(place).epoch(0)
    assert flops_per_image(spec, batch) == 2 * (2 * 48 * 16 + 3 * 16 * 3)


def test_a_loss_over_the_batch_is_never_cut(tmp_path: Path) -> None:
    assert trial_of(Spread(), micro_batch=8).optim.micro_batch == 8
    assert trial_of(Spread(), micro_batch=4, batch_workers=2).batch_workers == 2
    for fields, words in (
        ({"micro_batch": 4}, r"optim.micro_batch 4 is below a worker's share of 8 \(batch 8, 1 workers\)"),
        ({"micro_batch": 2, "batch_workers": 2}, r"optim.micro_batch 2 is below a worker's share of 4"),
        ({"batch_workers": 3}, r"optim.batch 8 does not divide among 3 workers"),
    ):
        with pytest.raises(ValueError, match=words):
            trial_of(Spread(), **fields)
    with pytest.raises(TrialError, match=r"needs a worker's whole share at once.*grad_checkpointing") as caught:
        run(trial_of(Spread(memory=(7,))), tmp_path)
    assert caught.value.error_class is ErrorClass.out_of_memory


def test_the_number_of_workers_is_part_of_such_a_trial(tmp_path: Path) -> None:
    assert trial_of(Spread(), batch_workers=2).key != trial_of(Spread()).key
    with pytest.raises(ValueError, match=r"batch_workers 2: .* cannot run on 1 workers: plan it again"):
        run(trial_of(Spread(), batch_workers=2), tmp_path)
    assert trial_of(Tiny(), batch_workers=2).batch_workers == 1
    assert trial_of(Tiny(), batch_workers=2).key == trial_of(Tiny()).key
