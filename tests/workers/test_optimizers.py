"""Optimizers by name: their steps in closed form, resumed trials, impossible fields."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tiny_task import after, digest, outcome_values, run, trial
from torch import nn

from workers.distributed import load_optimizer, whole_optimizer
from workers.errors import Stopped
from workers.optim import ParameterGroup, optimizer_of
from workers.optim_spec import OptimSpec

NAMES = ("adamw", "sgd", "momentum", "lars", "lamb")
DECAYED = [ParameterGroup(1.0, 0.1, ("weight",)), ParameterGroup(0.5, 0.0, ("bias",))]


def spec(name: str, **changes: Any) -> OptimSpec:
    """`changes` may name another optimizer."""
    return OptimSpec(**{"lr": 0.1, "epochs": 4, "warmup_epochs": 1, "batch": 8, "optimizer": name, **changes})


def steps(optim: OptimSpec, count: int = 3) -> dict[str, torch.Tensor]:
    """The weights of a linear layer after steps with the gradients 1 and 2."""
    torch.manual_seed(0)
    model = nn.Linear(3, 2).double()
    optimizer = optimizer_of(model, DECAYED, optim)
    for _ in range(count):
        model.weight.grad, model.bias.grad = torch.ones(2, 3).double(), 2 * torch.ones(2).double()
        optimizer.step()
    return {name: value.detach() for name, value in model.named_parameters()}


def start() -> dict[str, torch.Tensor]:
    return steps(spec("sgd"), 0)


@pytest.mark.parametrize(("name", "nesterov"), [("sgd", True), ("momentum", False)])
def test_momentum_in_closed_form(name: str, nesterov: bool) -> None:
    ended, expected = steps(spec(name, momentum=0.8)), start()
    for parameter, decay, gradient, lr in (("weight", 0.1, 1.0, 0.1), ("bias", 0.0, 2.0, 0.05)):
        value, velocity = expected[parameter], torch.zeros(())
        for _ in range(3):
            slope = gradient + decay * value
            velocity = 0.8 * velocity + slope
            value = value - lr * (slope + 0.8 * velocity if nesterov else velocity)
        torch.testing.assert_close(ended[parameter], value)


def test_sgd_without_nesterov_is_momentum() -> None:
    for one, other in zip(steps(spec("sgd", nesterov=False)).values(), steps(spec("momentum")).values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("always", "nesterov"), [(False, False), (True, False), (False, True)])
def test_lars_in_closed_form(always: bool, nesterov: bool) -> None:
    """You et al. 2017: the step of a tensor is scaled by trust * |w| / (|g| + decay * |w|)."""
    ended = steps(spec("lars", momentum=0.8, trust_coeff=0.02, always_adapt=always, nesterov=nesterov))
    expected = start()
    for parameter, decay, gradient, lr in (("weight", 0.1, 1.0, 0.1), ("bias", 0.0, 2.0, 0.05)):
        value = expected[parameter]
        slope, velocity = torch.full_like(value, gradient), torch.zeros(())
        for _ in range(3):
            step = slope + decay * value
            if decay or always:
                step = step * 0.02 * value.norm() / (slope.norm() + decay * value.norm() + 1e-8)
            velocity = 0.8 * velocity + step
            value = value - lr * (step + 0.8 * velocity if nesterov else velocity)
        torch.testing.assert_close(ended[parameter], value)


def test_lamb_in_closed_form() -> None:
    """You et al. 2020: the length of Adam's step, weight decay included, becomes that of the weights."""
    ended, expected = steps(spec("lamb", betas=(0.8, 0.9), eps=1e-6)), start()
    for parameter, decay, gradient, lr in (("weight", 0.1, 1.0, 0.1), ("bias", 0.0, 2.0, 0.05)):
        value = expected[parameter]
        for _ in range(3):
            # with a constant gradient the unbiased moments are the gradient and its square
            step = gradient / (gradient + 1e-6) + decay * value
            ratio = value.norm() / step.norm() if decay else 1.0
            value = value - lr * ratio * step
        torch.testing.assert_close(ended[parameter], value)


def test_lamb_clips_nothing_by_itself() -> None:
    """timm's would bring the gradient to a norm of 1 before every step, beside `optim.clip`."""
    model = nn.Linear(3, 2)
    assert optimizer_of(model, DECAYED, spec("lamb")).defaults["max_grad_norm"] is None


@pytest.mark.parametrize("name", NAMES)
def test_a_trial_that_was_stopped_goes_on_to_the_same_bits(name: str, tmp_path: Path) -> None:
    optim = {"optimizer": name, "lr": 1e-2, "weight_decay": 0.05}
    wanted = trial({"dropout": 0.3}, runtime={"checkpoint_epochs": 1}, **optim)
    whole, reports = run(wanted, tmp_path / "whole")
    with pytest.raises(Stopped):
        run(wanted, tmp_path / "parts", after(6))
    resumed, again = run(wanted, tmp_path / "parts")
    assert resumed.facts["resumed_at"] == 6
    assert digest(resumed) == digest(whole)
    assert [outcome_values(report) for report in again] == [outcome_values(report) for report in reports]
    other, _ = run(trial({"dropout": 0.3}, **{**optim, "optimizer": "adamw" if name != "adamw" else "sgd"}), tmp_path)
    assert digest(other) != digest(whole)


def test_lambs_count_of_steps_is_in_its_state() -> None:
    model = nn.Linear(3, 2)
    optimizer = optimizer_of(model, DECAYED, spec("lamb"))
    for _ in range(3):
        model.weight.grad, model.bias.grad = torch.ones(2, 3), torch.ones(2)
        optimizer.step()
    again = optimizer_of(model, DECAYED, spec("lamb"))
    load_optimizer(model, again, whole_optimizer(model, optimizer, keep=True))
    assert [float(group["step"]) for group in again.param_groups] == [3, 3]


def test_fields_of_other_optimizers() -> None:
    plain: dict[str, Any] = {"lr": 0.1, "epochs": 4}
    assert trial(optimizer="sgd", betas=(0.8, 0.9), **plain).key == trial(optimizer="sgd", **plain).key
    assert trial(optimizer="lamb", betas=(0.8, 0.9), **plain).key != trial(optimizer="lamb", **plain).key
    assert trial(optimizer="adamw", **plain).key == trial(**plain).key
    assert len({trial(optimizer=name, **plain).key for name in NAMES}) == len(NAMES)
    assert math.isclose(spec("sgd").eps, 1e-8)
    recorded = spec("adamw").model_dump(mode="json")  # with every field of the others
    assert OptimSpec.model_validate(recorded) == spec("adamw")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"optimizer": "adamw", "momentum": 0.8}, "momentum is of the optimizers sgd, momentum, lars, not of adamw"),
        ({"optimizer": "lamb", "nesterov": True}, "nesterov is of the optimizers sgd, momentum, lars, not of lamb"),
        ({"optimizer": "sgd", "trust_coeff": 0.1}, "trust_coeff is of the optimizer lars, not of sgd: leave"),
        ({"optimizer": "momentum", "nesterov": True}, "optimizer momentum is without nesterov: write optimizer sgd"),
        ({"optimizer": "sgd", "momentum": 0}, "nesterov needs a momentum: set momentum above 0, or nesterov to false"),
        ({"optimizer": "adam"}, "'adamw', 'sgd', 'momentum', 'lars' or 'lamb'"),
        ({"optimizer": "sgd", "momentum": 1}, "less than 1"),
    ],
)
def test_impossible_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        spec(**{"name": "", **fields})


@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_shards_have_no_norm_of_whole_weights(name: str) -> None:
    with pytest.raises(ValidationError, match=rf"optim.optimizer {name} needs the norm of whole weights"):
        trial(optimizer=name, runtime={"parallel": "fsdp"})
    assert not trial(optimizer=name, runtime={"parallel": "fsdp"}, epochs=0, warmup_epochs=0).trains
