"""Schedules against timm and torch; which parameter gets which learning rate and weight decay."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from workers.optim import Schedule, optimizer_of, parameter_groups, set_lr
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


@pytest.mark.parametrize("power", [1.0, 0.9])
def test_poly_is_torchs_and_mmcvs_down_to_its_floor(power: float) -> None:
    optim = spec(schedule="poly", poly_power=power, min_lr=0, warmup_epochs=0)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=optim.peak_lr)
    total = optim.epochs * STEPS
    theirs = torch.optim.lr_scheduler.PolynomialLR(optimizer, total, power)
    ours, floored = Schedule(optim, STEPS), Schedule(spec(schedule="poly", poly_power=power, min_lr=1e-5), STEPS)
    for step in range(total):
        assert ours.lr(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        if step >= 2 * STEPS:  # mmcv's PolyLrUpdaterHook
            assert floored.lr(step) == pytest.approx((1e-3 - 1e-5) * (1 - step / total) ** power + 1e-5)
        optimizer.step()
        theirs.step()
    assert ours.lr(total) == 0
    assert floored.lr(0) == optim.warmup_lr


def test_poly_may_begin_after_the_warm_up() -> None:
    ours = Schedule(spec(schedule="poly", min_lr=0, warmup_prefix=True), STEPS)
    assert [ours.lr(step) for step in (2 * STEPS, 6 * STEPS)] == pytest.approx([1e-3, 5e-4])


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


DEPTH: dict[str, Any] = {
    "schedule": "up_down", "lr": 5e-4, "min_lr": 3e-5, "epochs": 25, "warmup_epochs": 0, "batch": 24
}  # fmt: skip
"""The paper's depth estimation (appendix E)."""


def test_up_down_is_the_depth_codes_closed_form() -> None:
    low, high, half = 3e-5, 5e-4, 25 // 2
    schedule = Schedule(OptimSpec(**DEPTH), STEPS)
    for step in range(25 * STEPS):
        done = (step + 1) / (STEPS * half)  # that code counts steps from 1
        up, down = (high - low) * done**0.9 + low, (low - high) * max(0, done - 1) ** 0.9 + high
        expected = up if step + 1 < STEPS * half else max(low, down)
        for scale in (1.0, 0.9, 0.9**28):  # it scales the whole schedule by layer decay, min_lr too
            assert schedule.lr(step, scale) == pytest.approx(expected * scale, rel=1e-12, abs=0)
    rates = [schedule.lr(step) for step in range(25 * STEPS)]
    assert rates[0] == pytest.approx(low + (high - low) * (1 / 84) ** 0.9)
    assert (max(rates), rates.index(max(rates))) == (pytest.approx(high), 12 * STEPS - 1)
    assert rates[24 * STEPS - 1 :] == pytest.approx([low] * (STEPS + 1))


def test_up_down_rises_as_long_as_asked_for_and_with_the_power_asked_for() -> None:
    schedule = Schedule(OptimSpec(**{**DEPTH, "up_epochs": 2.5, "up_power": 2, "epochs": 10}), 4)
    rates = [schedule.lr(step) for step in range(40)]
    up = [3e-5 + 4.7e-4 * (step / 10) ** 2 for step in range(1, 11)]
    assert rates[:10] == pytest.approx(up)
    assert rates[10:20] == pytest.approx([5e-4 - 4.7e-4 * (step / 10) ** 2 for step in range(1, 11)])
    assert rates[20:] == pytest.approx([3e-5] * 20)


def test_up_down_in_iterations_is_that_in_epochs() -> None:
    length: dict[str, Any] = {"schedule": "up_down", "lr": 5e-4, "min_lr": 3e-5, "batch": 24}
    epochs = Schedule(OptimSpec(**length, epochs=10), STEPS)
    steps = Schedule(OptimSpec(**length, iterations=10 * STEPS), 1000)
    later = Schedule(OptimSpec(**length, iterations=10 * STEPS, up_iterations=6 * STEPS), 1000)
    assert [epochs.lr(step) for step in range(10 * STEPS)] == [steps.lr(step) for step in range(10 * STEPS)]
    assert later.lr(6 * STEPS - 1) == pytest.approx(5e-4)
    assert (epochs.warmup_steps, steps.warmup_steps) == (0, 0)


def test_up_down_per_512_and_with_a_lag() -> None:
    plain, lagging = Schedule(OptimSpec(**DEPTH), STEPS), Schedule(OptimSpec(**DEPTH, lr_lag=1), STEPS)
    scaled = Schedule(OptimSpec(**{**DEPTH, "lr_convention": "per_512", "batch": 1024}), STEPS)
    assert [scaled.lr(step) for step in range(70)] == pytest.approx([2 * plain.lr(step) for step in range(70)])
    assert [lagging.lr(step + 1) for step in range(70)] == [plain.lr(step) for step in range(70)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warmup_epochs": 2}, "schedule up_down has no warm-up: leave warmup_epochs out"),
        ({"warmup_epochs": 0, "warmup_iterations": 9}, "schedule up_down has no warm-up"),
        ({"epochs": 1}, "rises for half of the epochs, rounded down, and of 1 that is 0: set up_epochs"),
        ({"up_epochs": 25}, "up_epochs 25 must be below epochs 25"),
        ({"min_lr": 5e-4}, "rises from min_lr 0.0005, which must be below lr 0.0005"),
        ({"up_iterations": 9}, "up_iterations is for a length in iterations: set iterations, or write up_epochs"),
        ({"epochs": 0, "iterations": 90, "up_epochs": 2}, "cannot be combined with iterations 90: write up_iterations"),
        ({"epochs": 0, "iterations": 90, "up_iterations": 90}, "up_iterations 90 must be below iterations 90"),
    ],
)
def test_an_up_down_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimSpec(**{**DEPTH, **changes})


def test_one_epoch_rises_as_long_as_it_says() -> None:
    """`rounded down` leaves nothing of one epoch; half of it can be asked for, and lasts a step at least."""
    half = OptimSpec(**{**DEPTH, "epochs": 1, "up_epochs": 0.5})
    assert [Schedule(half, 4).lr(step) for step in (1, 3)] == pytest.approx([5e-4, 3e-5])
    assert Schedule(half, 1).lr(0) == pytest.approx(5e-4)


def test_up_down_needs_no_rise_where_nothing_is_trained() -> None:
    assert not OptimSpec(**{**DEPTH, "epochs": 0}).trains


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


class _WithHead(nn.Module):
    """A backbone inside another model."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone, self.decoder = backbone, nn.Linear(3, 3)


@pytest.mark.parametrize("decay", [1.0, 0.75])
def test_a_backbone_learns_slower_by_its_factor_on_top_of_layer_decay(swin: nn.Module, decay: float) -> None:
    def scales(model: nn.Module, **changes: Any) -> dict[str, float]:
        groups = parameter_groups(model, spec(layer_decay=decay, **changes))
        return {name: group.lr_scale for group in groups for name in group.names}

    outer = _WithHead(swin)
    plain, slower = scales(outer), scales(outer, backbone_lr_factor=0.1)
    inside = {name for name in plain if name.startswith("backbone.") and not name.startswith("backbone.head.")}
    assert len(inside) > 100
    for name, scale in plain.items():
        assert slower[name] == pytest.approx(scale * (0.1 if name in inside else 1))
    alone, before = scales(swin, backbone_lr_factor=0.1), scales(swin)
    assert alone["head.fc.weight"] == before["head.fc.weight"] == 1  # a classifier is no part of its backbone
    assert alone["patch_embed.proj.weight"] == pytest.approx(0.1 * before["patch_embed.proj.weight"])


def test_a_factor_for_a_model_without_backbone_is_refused() -> None:
    message = r"optim\.backbone_lr_factor 0\.1 needs one part of the model .* Linear has none"
    with pytest.raises(ValueError, match=message):
        parameter_groups(nn.Linear(2, 2), spec(layer_decay=1, backbone_lr_factor=0.1))


def test_with_no_decay_none_everything_decays(swin: nn.Module) -> None:
    groups = parameter_groups(swin, spec(no_decay="none", weight_decay=0.1))
    assert {group.weight_decay for group in groups} == {0.1}
    assert sum(len(group.names) for group in groups) == len(list(swin.parameters()))


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
    optimizer = optimizer_of(swin, groups, optim)
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
    optimizer = optimizer_of(model, parameter_groups(model, optim), optim)
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
