"""What the loop checks after a step: the gradient's norm, the time since the last checkpoint, every rank's weights."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from pydantic import ValidationError
from tiny_task import Tiny, run, trial
from torch import nn
from torch.nn import functional

from workers import distributed
from workers.distributed import all_finite, load_optimizer, whole_optimizer
from workers.errors import ErrorClass, TrialError


def test_a_gradient_that_is_not_finite_ends_the_trial_at_its_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss itself is finite: the root of nothing has the value 0 and an infinite slope."""

    def loss(task: Tiny, model: Any, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        plain = functional.cross_entropy(model(batch["images"]), batch["labels"])
        nothing = (model.head.bias - model.head.bias.detach()).sum()
        return {"loss": plain + nothing.sqrt(), "plain": plain}

    monkeypatch.setattr(Tiny, "loss", loss)
    with pytest.raises(TrialError, match=r"epoch 1, step 1: loss \d[\d.]*, gradient norm (inf|nan) at") as caught:
        run(trial(), tmp_path)
    assert caught.value.error_class is ErrorClass.diverged
    assert not list(tmp_path.glob("checkpoint-*"))


def test_a_checkpoint_falls_due_after_so_many_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that moves by 10 seconds whenever the loop asks whether to stop, as it does in every step."""
    real, ahead = time.monotonic, [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: real() + ahead[0])
    written: dict[str, float] = {}

    def step() -> bool:
        for path in tmp_path.glob("checkpoint-*"):
            written.setdefault(path.name[:20], ahead[0])
        ahead[0] += 10
        return False

    run(trial(runtime={"checkpoint_minutes": 1, "checkpoint_epochs": 50}), tmp_path, step)
    times = [0.0, *written.values()]
    assert len(times) > 3
    assert all(60 <= later - earlier <= 100 for earlier, later in itertools.pairwise(times))


def test_a_trial_without_permission_cannot_ask_for_test_data() -> None:
    with pytest.raises(ValidationError, match="asks for test data before selection"):
        trial({"test": True})
    assert trial({"test": True}, may_test=True).task.reads_test


def a_state(*sizes: int) -> tuple[nn.Module, torch.optim.Optimizer, dict[str, dict[str, Any]]]:
    """A model of linear layers, its optimizer after one step, and the optimizer's state by name."""
    model = nn.Sequential(*(nn.Linear(2, size) for size in sizes))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return model, optimizer, whole_optimizer(model, optimizer, keep=True)


def test_an_optimizers_state_of_other_parameters_is_refused() -> None:
    model, optimizer, state = a_state(3)
    _, _, larger = a_state(3, 4)
    with pytest.raises(ValueError, match=r"state is of other parameters: 1\.bias, 1\.weight$"):
        load_optimizer(model, optimizer, larger)
    load_optimizer(model, optimizer, state)
    loaded = whole_optimizer(model, optimizer, keep=True)
    assert loaded.keys() == state.keys() == {"0.weight", "0.bias"}
    assert all(torch.equal(loaded[name][what], state[name][what]) for name in state for what in state[name])


@pytest.mark.parametrize("broken_there", [False, True])
def test_weights_in_shards_are_finite_if_those_of_every_rank_are(
    broken_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This rank's own are; another one's may not be."""
    model = nn.Linear(2, 2)
    asked: list[float] = []

    def sum_over_ranks(bad: torch.Tensor) -> None:
        asked.append(bad.item())
        bad += broken_there

    monkeypatch.setattr(distributed, "is_sharded", lambda of: of is model)
    monkeypatch.setattr(dist, "all_reduce", sum_over_ranks)
    assert all_finite(model) is not broken_there
    assert asked == [0.0]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_weight_that_is_not_finite_is_enough(value: float) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert all_finite(model)
    with torch.no_grad():
        model[1].bias[0] = value
    assert not all_finite(model)
    assert all_finite(nn.Identity())
