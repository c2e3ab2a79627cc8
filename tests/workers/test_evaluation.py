"""Evaluation: in fp32, item by item, and continued where it was interrupted."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from analysis_task import Analysis, AnalysisLoaders, Forgetful, Trained, analysis, measured
from killed_trials import killed_trials
from task_figures import figures_of
from tiny_task import digest, run, seen, trial_of, weights_of

from tasks.base import EVERYTHING, Batch, DataContext, EvaluationShare, Loaders
from workers.checkpoint import Folder, clear
from workers.errors import ErrorClass, Stopped, TrialError
from workers.finished_items import FinishedItems, Kept, finished_items
from workers.state import RankContext
from workers.train import train

STILL: dict[str, Any] = {"lr": 1e-30, "warmup_epochs": 0, "min_lr": 0, "weight_decay": 0, "epochs": 1}
"""Training that leaves every weight as it was."""
ITEMS = [(0, f"item {number:03d}") for number in range(5)]


def once(log: Path, items: int) -> Callable[[], bool]:
    """True once so many items were measured."""
    return lambda: len(measured(log)) >= items


def test_figures_and_pictures_are_computed_in_fp32(tmp_path: Path) -> None:
    outcomes = {}
    for precision in ("fp32", "bf16"):
        spec = trial_of(Trained(draws=1), runtime={"precision": precision}, **STILL)
        outcomes[precision], _ = run(spec, tmp_path / precision)
    full, half = outcomes["fp32"], outcomes["bf16"]
    assert (full.facts["precision"], half.facts["precision"]) == ("fp32", "bf16")
    assert digest(half) == digest(full)
    assert half.figures == full.figures
    name = "pictures/draw-0-0001.png"
    assert (tmp_path / "bf16" / name).read_bytes() == (tmp_path / "fp32" / name).read_bytes()
    model = spec.task.build(spec.backbone, weights_of(half)).eval()
    loaders = spec.task.loaders(DataContext(tmp_path, input_size=(4, 4), device="cpu", seed=0, batch=8))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert figures_of(spec.task, model, loaders.evaluation())["spread"] != full.figures["spread"]


def test_random_numbers_belong_to_the_item(tmp_path: Path) -> None:
    whole, _ = run(analysis({"noisy": True}), tmp_path / "whole")
    log = tmp_path / "log"
    spec = analysis({"noisy": True, "log": str(log)})
    with pytest.raises(Stopped):
        run(spec, tmp_path / "parts", once(log, 2))
    parts, _ = run(spec, tmp_path / "parts")
    assert parts.figures == whole.figures
    assert run(analysis({"noisy": True}, seed=1), tmp_path / "other")[0].figures != whole.figures


def test_an_evaluation_that_was_killed_measures_only_what_is_missing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    spec = analysis({"log": str(log)})
    whole, interrupted = killed_trials([(analysis(), []), (spec, ["item:2", "item:1", "item:1"])], tmp_path)
    assert interrupted["killed"] == [True, True, True, False]
    assert measured(log) == ITEMS  # each once, over four attempts
    for what in ("figures", "reports", "sha256"):
        assert interrupted[what] == whole[what]
    folder = tmp_path / "1"
    assert len(list(folder.glob("evaluation-*"))) == 4  # until the outcome is recorded
    clear(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["token", "weights.safetensors"]


def test_an_evaluation_during_training_is_continued_with_the_same_weights(tmp_path: Path) -> None:
    """Also one after which no checkpoint was due; results of an earlier round, of other weights, are not used."""
    log = tmp_path / "log"
    undisturbed = trial_of(Trained(dropout=0.3))
    whole, interrupted = killed_trials(
        [(undisturbed, []), (trial_of(Trained(dropout=0.3, log=str(log))), ["item:7", "item:1"])], tmp_path
    )
    assert interrupted["killed"] == [True, True, False]
    assert measured(log) == ITEMS * 4
    assert interrupted["resumed_at"] == 8
    for what in ("figures", "reports", "sha256"):
        assert interrupted[what] == whole[what]


def test_two_killed_ranks_are_continued_by_one(tmp_path: Path) -> None:
    log = tmp_path / "log"
    spec = analysis({"log": str(log), "items": 6, "noisy": True})
    processes = [
        torch.multiprocessing.get_context("spawn").Process(target=_killed_rank, args=(rank, str(tmp_path), spec))
        for rank in (0, 1)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [-signal.SIGKILL] * 2
    assert sorted(measured(log)) == [(0, "item 000"), (0, "item 002"), (1, "item 001"), (1, "item 003")]
    outcome, _ = run(spec, tmp_path / "trial", token=2)
    assert sorted(item for _, item in measured(log)) == [f"item {number:03d}" for number in range(6)]
    alone, _ = run(analysis({"items": 6, "noisy": True}), tmp_path / "alone")
    assert outcome.figures == alone.figures


def _killed_rank(rank: int, folder: str, spec: Any) -> None:
    """Each rank dies at its second item of three."""
    path = Path(folder)
    dist.init_process_group("gloo", init_method=f"file://{path / 'group'}", rank=rank, world_size=2)
    os.environ["ORCHESTRATOR_CRASH_AT"] = "item:2"
    run(spec, path / "trial", rank=rank, world=2, token=1, data_root=path)


def test_a_stop_is_heeded_between_items(tmp_path: Path) -> None:
    log = tmp_path / "log"
    spec = analysis({"log": str(log)})
    with pytest.raises(Stopped):
        run(spec, tmp_path / "trial", once(log, 3))
    assert measured(log) == ITEMS[:3]
    assert not list((tmp_path / "trial").glob("checkpoint-*"))  # nothing was trained
    outcome, _ = run(spec, tmp_path / "trial")
    assert measured(log) == ITEMS
    assert outcome.figures == run(analysis(), tmp_path / "whole")[0].figures


@pytest.mark.parametrize(("task", "again"), [(Trained, 2), (Forgetful, 0)])
def test_a_stop_during_an_evaluation_leaves_a_checkpoint(tmp_path: Path, task: type[Trained], again: int) -> None:
    """Without results of finished items the evaluation begins anew."""
    log = tmp_path / "log"
    whole, reports = run(trial_of(task(dropout=0.3)), tmp_path / "whole")
    spec = trial_of(task(dropout=0.3, log=str(log)))
    with pytest.raises(Stopped):
        run(spec, tmp_path / "trial", once(log, 7))
    assert max((tmp_path / "trial").glob("checkpoint-*")).name.startswith("checkpoint-000000008-")
    log.unlink()
    outcome, same = run(spec, tmp_path / "trial")
    assert measured(log) == ITEMS[again:] + ITEMS * 2
    assert outcome.facts["resumed_at"] == 8
    assert digest(outcome) == digest(whole)
    assert seen(same) == seen(reports)


def test_a_time_limit_is_heeded_between_items(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pytest.raises(TrialError, match="ran longer than 0 s") as caught:
        run(analysis({"log": str(log)}), tmp_path / "trial", time_limit_s=0.0)
    assert caught.value.error_class is ErrorClass.timeout
    assert measured(log) == ITEMS[:1]


def test_an_item_that_is_measured_twice_is_reported(tmp_path: Path) -> None:
    class Careless(AnalysisLoaders):
        def evaluation(self, share: EvaluationShare = EVERYTHING) -> Iterable[Batch]:
            yield from super().evaluation()
            yield from super().evaluation()

    class Twice(Analysis):
        def loaders(self, place: DataContext) -> Loaders:
            return Careless(self, place)

    spec = analysis().model_copy(update={"task": Twice()})
    with pytest.raises(ValueError, match="item item 000 was measured 2 times: loaders must keep to their share"):
        train(spec, RankContext(tmp_path, tmp_path), lambda report: None, lambda: False)


def test_finished_items_are_those_of_one_state(tmp_path: Path) -> None:
    folder, parts = Folder(tmp_path, "k", 1), {"x": [1, 2.5, math.inf], "y": None}
    first, second = FinishedItems(folder, "state 1", 0), FinishedItems(folder, "state 1", 1)
    other = FinishedItems(Folder(tmp_path, "k", 0), "state 0", 0)
    assert first.add("a", parts) == parts
    assert second.add("b", (1, 2)) == [1, 2]  # as a later attempt reads it
    other.add("c", 0)
    for file in (first, second, other):
        file.close()
    with (tmp_path / "evaluation-1-0.jsonl").open("ab") as file:
        file.write(b'{"state": "state 1", "item": "torn", "pa')  # killed
    again = FinishedItems(folder, "state 1", 0)
    again.add("d", 4)
    again.close()
    assert finished_items(folder, "state 1") == Kept({"a": parts, "b": [1, 2], "d": 4})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evaluation-1-0.jsonl", "evaluation-1-1.jsonl"]
    assert finished_items(folder, "state 2") == Kept()
    assert list(tmp_path.iterdir()) == []


def test_pieces_are_kept_in_their_order_until_their_item_ends(tmp_path: Path) -> None:
    """Of all ranks and attempts, whichever comes first by the names of files; those of another state never."""
    written = [(2, 0, "a", 1), (2, 1, "b", 10), (2, 0, "a", 2), (10, 1, "a", 3), (10, 0, "b", 11)]
    for token, rank, item, piece in written:
        file = FinishedItems(Folder(tmp_path, "k", token), "state 1", rank)
        file.add_piece(item, piece)
        file.close()
    averaged = FinishedItems(Folder(tmp_path, "k", 10), "state 1 averaged", 0)
    averaged.add_piece("a", 0)
    averaged.close()
    folder = Folder(tmp_path, "k", 11)
    assert finished_items(folder, "state 1") == Kept({}, {"a": [1, 2, 3], "b": [10, 11]})
    assert finished_items(folder, "state 1", " averaged") == Kept({}, {"a": [0]})
    with (tmp_path / "evaluation-10-1.jsonl").open("r+b") as cut:
        cut.truncate((tmp_path / "evaluation-10-1.jsonl").stat().st_size - 3)
    last = FinishedItems(folder, "state 1", 0)
    last.add("b", "part")
    last.close()
    assert finished_items(folder, "state 1") == Kept({"b": "part"}, {"a": [1, 2]})
    assert finished_items(folder, "state 2") == Kept()
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_cannot_be_kept_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"item a: .*Tensor is not JSON serializable; .* must measure JSON"):
        FinishedItems(Folder(tmp_path, "k", 1), "state", 0).add("a", torch.zeros(2))
    with pytest.raises(TrialError, match=r"cannot write evaluation in .*: No such file.*then `retry`") as caught:
        FinishedItems(Folder(tmp_path / "gone", "k", 1), "state", 0).add("a", 1)
    assert caught.value.error_class is ErrorClass.data
