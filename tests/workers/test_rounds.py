"""A length in iterations: the same steps as in epochs, reported, stopped and split elsewhere."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_task import Tiny, TinyLoaders, after, digest, run, seen, trial

from tasks.backbones.spec import FromTrial
from tasks.base import Batch, DataContext, Loaders
from workers.checkpoint import clear
from workers.errors import Stopped
from workers.rounds import Rounds, batches_from
from workers.trial import Span, TrialSpec

RANDOM = {"dropout": 0.3, "noise": 0.1}


def in_iterations(
    task: dict[str, Any] | None = None, init: FromTrial | None = None, span: Span | None = None, **runtime: Any
) -> TrialSpec:
    """The 16 steps of `trial()`, of which 4 make an epoch, in rounds of 6, 6 and 4."""
    return trial(
        {**RANDOM, **(task or {})}, init, {"report_iterations": 6, **runtime}, span=span,
        epochs=0, warmup_epochs=0, iterations=16, warmup_iterations=4,
    )  # fmt: skip


def test_steps_divide_into_rounds() -> None:
    assert [Rounds.of(in_iterations(), 4).steps(number) for number in range(3)] == [6, 6, 4]
    assert in_iterations().rounds == 3
    assert [Rounds.of(trial(), 5).steps(number) for number in range(4)] == [5] * 4
    assert trial().rounds == 4


def test_a_length_in_iterations_trains_as_one_in_epochs(tmp_path: Path) -> None:
    epochs, _ = run(trial(RANDOM), tmp_path / "epochs")
    iterations, reports = run(in_iterations(), tmp_path / "iterations")
    assert digest(iterations) == digest(epochs)
    assert iterations.figures == epochs.figures
    assert [(report.epoch, report.step) for report in reports] == [(1, 6), (2, 12), (3, 16)]
    assert all({"top1", "train_loss", "system_data_wait"} <= set(report.values) for report in reports)


def test_a_round_reports_the_mean_of_its_own_steps(tmp_path: Path) -> None:
    _, each = run(in_iterations(report_iterations=1), tmp_path / "each")
    _, reports = run(in_iterations(), tmp_path / "rounds")
    steps = [report.values["train_loss"] for report in each]
    for report, own in zip(reports, (steps[:6], steps[6:12], steps[12:]), strict=True):
        assert report.values["train_loss"] == pytest.approx(sum(own) / len(own), rel=1e-6)


@pytest.mark.parametrize("step", [3, 4, 6, 7, 8, 12, 16])
def test_it_continues_from_any_step_to_the_same_bits(tmp_path: Path, step: int) -> None:
    whole, reports = run(in_iterations(), tmp_path / "whole")
    with pytest.raises(Stopped):
        run(in_iterations(), tmp_path / "stopped", after(step))
    resumed, again = run(in_iterations(), tmp_path / "stopped")
    assert resumed.facts["resumed_at"] == step
    assert digest(resumed) == digest(whole)
    assert seen(again) == seen(reports)


def test_checkpoints_evaluations_and_pictures_count_rounds(tmp_path: Path) -> None:
    spec = in_iterations({"draws": 1}, checkpoint_epochs=1, evaluate_every=2, pictures_every=2)
    steps: set[int] = set()

    def look() -> bool:
        steps.update(int(path.name[11:20]) for path in tmp_path.glob("checkpoint-*"))
        return False

    _, reports = run(spec, tmp_path, look)
    assert steps == {6, 12}
    assert ["top1" in report.values for report in reports] == [False, True, True]
    assert [bool(report.pictures) for report in reports] == [False, True, True]


def test_spans_count_rounds(tmp_path: Path) -> None:
    whole, reports = run(in_iterations(), tmp_path / "whole")
    first = in_iterations(span=Span(first_epoch=0, last_epoch=2))
    before, first_reports = run(first, tmp_path / "first")
    assert before.weights is not None
    clear(tmp_path / "first")
    init = FromTrial(name="before", trial=first.key)
    parents = {first.key: before.weights}
    second = in_iterations(init=init, span=Span(first_epoch=2, last_epoch=3))
    ended, rest = run(second, tmp_path / "second", parents=parents)
    assert digest(ended) == digest(whole)
    assert seen(first_reports) + seen(rest) == seen(reports)
    other = in_iterations(init=init, span=Span(first_epoch=2, last_epoch=4), report_iterations=4)
    with pytest.raises(ValueError, match="ended after step 12, and this one would continue it with 8"):
        run(other, tmp_path / "other", parents=parents)
    with pytest.raises(ValueError, match=r"span.last_epoch 4 is above the 3 rounds of optim.iterations 16 by 6"):
        in_iterations(span=Span(first_epoch=0, last_epoch=4))


def test_a_warm_up_in_iterations_goes_with_epochs(tmp_path: Path) -> None:
    epochs, _ = run(trial(), tmp_path / "epochs")
    iterations, _ = run(trial(warmup_epochs=0, warmup_iterations=4), tmp_path / "iterations")
    assert digest(iterations) == digest(epochs)
    with pytest.raises(ValueError, match=r"optim.warmup_iterations 16 must be below the 16 steps of the trial"):
        run(trial(warmup_epochs=0, warmup_iterations=16), tmp_path / "long")


@pytest.mark.parametrize(("batches", "words"), [(3, "gave 3 batches"), (5, "gave more batches")])
def test_loaders_that_miscount_their_steps_are_reported(tmp_path: Path, batches: int, words: str) -> None:
    class Miscounting(TinyLoaders):
        def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
            yield from itertools.islice(itertools.cycle(super().epoch(epoch)), batches)

    class Task(Tiny):
        def loaders(self, place: DataContext) -> Loaders:
            return Miscounting(self, place)

    with pytest.raises(RuntimeError, match=rf"{words} in an epoch of 4 steps"):
        run(trial().model_copy(update={"task": Task()}), tmp_path)


def test_batches_roll_over_from_one_epoch_to_the_next(tmp_path: Path) -> None:
    spec = trial()
    loaders = spec.task.loaders(DataContext(tmp_path, input_size=(4, 4), device="cpu", seed=3, batch=8))
    expected = [batch["labels"].tolist() for epoch in (0, 1, 2) for batch in loaders.epoch(epoch)]
    for step in (0, 3, 4, 6):
        given = batches_from(loaders, step)
        assert [next(given)["labels"].tolist() for _ in expected[step:]] == expected[step:]
