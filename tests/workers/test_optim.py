"""Schedules against timm and torch; which parameter gets which learning rate and weight decay."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from workers.optim import Schedule, adamw, parameter_groups, set_lr
from workers.optim_spec import OptimSpec

STEPS = 7  # per epoch


def spec(**changes: Any) -> OptimSpec:
    return OptimSpec(**{"lr": 1e-3, "epochs": 10, "warmup_epochs": 2, "batch": 64, "layer_decay": 0.75, **changes})


@pytest.fixture(scope="module")
def swin() -> nn.Module:
    """SwinV2 with the depths of the paper's base model, and few channels."""
    import timm

    return timm.create_model(
        "swinv2_base_window12_192", img_size=64, window_size=4, embed_dim=16, num_heads=(1, 2, 4, 8), num_classes=5
    )


@pytest.mark.parametrize("prefix", [False, True])
@pytest.mark.parametrize("warmup_epochs", [0, 2, 2.5])
def test_cosine_is_timms_for_every_group(prefix: bool, warmup_epochs: float) -> None:
    from timm.scheduler import CosineLRScheduler

    optim = spec(warmup_prefix=prefix, warmup_epochs=warmup_epochs)
    total, warmup = optim.epochs * STEPS, int(warmup_epochs * STEPS)
    scales = [1.0, 0.75**3, 0.75**25]  # the last one's peak lies below warmup_lr
    optimizer = torch.optim.AdamW(
        [{"params": [nn.Parameter(torch.zeros(1))], "lr": optim.peak_lr * scale} for scale in scales]
    )
    theirs = CosineLRScheduler(
        optimizer, t_initial=total - warmup if prefix else total, lr_min=optim.min_lr, warmup_t=warmup,
        warmup_lr_init=optim.warmup_lr, warmup_prefix=prefix, t_in_epochs=False,
    )  # fmt: skip
    ours = Schedule(optim, STEPS)
    for step in range(total + 3):
        theirs.step_update(step)
        expected = [group["lr"] for group in optimizer.param_groups]
        assert [ours.lr(step, scale) for scale in scales] == pytest.approx(expected, rel=1e-12, abs=0)


def test_cosine_at_the_end_of_warm_up_as_in_the_reference_codes() -> None:
    paper: dict[str, Any] = {"epochs": 100, "warmup_epochs": 20, "min_lr": 0, "warmup_lr": 0}
    assert Schedule(spec(**paper), STEPS).lr(20 * STEPS) == pytest.approx(9.05e-4, rel=1e-3)
    assert Schedule(spec(**paper, warmup_prefix=True), STEPS).lr(20 * STEPS) == pytest.approx(1e-3)


@pytest.mark.parametrize("schedule", ["cosine", "step"])
def test_a_schedule_in_iterations_is_that_in_epochs(schedule: str) -> None:
    """UperNet trains 80,000 steps, 1,500 of them warm-up: no number of epochs says that."""
    epochs = spec(schedule=schedule, step_epochs=(4, 8) if schedule == "step" else ())
    milestones = (8 * STEPS, 4 * STEPS) if schedule == "step" else ()
    steps = OptimSpec(
        lr=1e-3, batch=64, iterations=10 * STEPS, warmup_iterations=2 * STEPS, schedule=epochs.schedule,
        step_iterations=milestones,
    )  # fmt: skip
    one, other = Schedule(epochs, STEPS), Schedule(steps, 1000)
    assert [one.lr(step) for step in range(10 * STEPS)] == [other.lr(step) for step in range(10 * STEPS)]


def test_step_schedule_is_torchs_after_the_warm_up() -> None:
    optim = spec(schedule="step", step_epochs=(8, 5), step_factor=0.1, warmup_epochs=2)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=optim.peak_lr)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, [5 * STEPS, 8 * STEPS], 0.1)
    ours = Schedule(optim, STEPS)
    seen = set()
    for step in range(10 * STEPS):
        if step >= 2 * STEPS:
            assert ours.lr(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
            seen.add(round(ours.lr(step), 9))
        optimizer.step()
        theirs.step()
    assert seen == {1e-3, 1e-4, 1e-5}
    assert [ours.lr(step) for step in (0, STEPS)] == pytest.approx([optim.warmup_lr, (optim.warmup_lr + 1e-3) / 2])


def test_per_512_scales_all_three_learning_rates() -> None:
    scaled = Schedule(spec(lr_convention="per_512", batch=2048), STEPS)
    absolute = Schedule(spec(lr=4e-3, warmup_lr=1e-6, min_lr=1e-6), STEPS)
    assert [scaled.lr(s) for s in range(80)] == pytest.approx([absolute.lr(s) for s in range(80)], rel=1e-12)


def test_layer_decay_gives_swinv2_its_26_levels(swin: nn.Module) -> None:
    groups = parameter_groups(swin, spec())
    table = {name: (group.lr_scale, group.weight_decay) for group in groups for name in group.names}
    assert sum(len(group.names) for group in groups) == len(table) == len(list(swin.parameters()))
    assert sorted({scale for scale, _ in table.values()}) == pytest.approx([0.75**k for k in range(25, -1, -1)])
    level = {name: round(math.log(scale, 0.75)) for name, (scale, _) in table.items()}
    assert level["head.fc.weight"] == 0
    assert level["layers.3.blocks.1.mlp.fc1.weight"] == 1
    assert level["layers.2.blocks.0.attn.qkv.weight"] == 20
    assert level["layers.0.blocks.0.attn.qkv.weight"] == 24
    assert level["patch_embed.proj.weight"] == 25
    for name, parameter in swin.named_parameters():
        spared = parameter.ndim <= 1 or any(word in name for word in ("cpb_mlp", "logit_scale"))
        assert table[name][1] == (0.0 if spared else 0.05), name


def test_without_layer_decay_two_groups_are_left(swin: nn.Module) -> None:
    assert {(g.lr_scale, g.weight_decay) for g in parameter_groups(swin, spec(layer_decay=1))} == {(1, 0), (1, 0.05)}


def test_a_frozen_parameter_is_in_no_group() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].weight.requires_grad_(False)
    groups = parameter_groups(model, spec(layer_decay=1))
    assert sorted(name for group in groups for name in group.names) == ["0.bias", "1.bias", "1.weight"]


def test_layer_decay_of_a_model_without_levels_is_refused() -> None:
    with pytest.raises(ValueError, match="group_matcher"):
        parameter_groups(nn.Linear(2, 2), spec())


def test_the_optimizer_follows_the_table(swin: nn.Module) -> None:
    optim = spec()
    groups = parameter_groups(swin, optim)
    optimizer = adamw(swin, groups, optim)
    set_lr(optimizer, Schedule(optim, STEPS), 30)
    names = {id(parameter): name for name, parameter in swin.named_parameters()}
    assert sorted(name for group in groups for name in group.names) == sorted(names.values())
    assert len({group.lr_scale for group in groups}) == 26
    for group, made in zip(groups, optimizer.param_groups, strict=True):
        assert tuple(names[id(parameter)] for parameter in made["params"]) == group.names
        assert made["weight_decay"] == group.weight_decay
        assert made["lr"] == Schedule(optim, STEPS).lr(30, group.lr_scale)


def test_the_optimizer_has_the_betas_and_epsilon_of_the_spec() -> None:
    model = nn.Linear(2, 2)
    optim = spec(layer_decay=1, betas=(0.8, 0.95), eps=1e-3)
    optimizer = adamw(model, parameter_groups(model, optim), optim)
    assert optimizer.param_groups
    assert {(group["betas"], group["eps"]) for group in optimizer.param_groups} == {((0.8, 0.95), 1e-3)}


def test_with_a_lag_the_learning_rate_in_force_is_the_reference_codes() -> None:
    """Swin's and SimMIM's loop: the scheduler sets the warm-up's start when it is made, and the value of step i after
    the optimizer's step i."""
    from timm.scheduler import CosineLRScheduler

    optim = spec(lr_lag=1)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=optim.peak_lr)
    theirs = CosineLRScheduler(
        optimizer, t_initial=10 * STEPS, lr_min=optim.min_lr, warmup_t=2 * STEPS, warmup_lr_init=optim.warmup_lr,
        t_in_epochs=False,
    )  # fmt: skip
    schedule, in_force = Schedule(optim, STEPS), []
    for step in range(10 * STEPS):
        in_force.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step_update(step)
    assert [schedule.lr(step) for step in range(10 * STEPS)] == pytest.approx(in_force, rel=1e-12)
    assert schedule.lr(0) == schedule.lr(1) == optim.warmup_lr < Schedule(spec(), STEPS).lr(1)


def test_a_lag_moves_the_steps_of_a_schedule_by_one() -> None:
    changes: dict[str, Any] = {"schedule": "step", "step_epochs": (5, 8)}
    lagging, plain = Schedule(spec(lr_lag=1, **changes), STEPS), Schedule(spec(**changes), STEPS)
    assert [lagging.lr(step + 1) for step in range(70)] == [plain.lr(step) for step in range(70)]
    assert lagging.lr(0) == plain.lr(0)
    assert [lagging.lr(5 * STEPS + late) for late in (0, 1)] == pytest.approx([1e-3, 1e-4])
