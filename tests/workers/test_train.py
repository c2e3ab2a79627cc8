"""The loop: same figures however it is split, stopped, killed or spread; and a class for every way to fail."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from killed_trials import killed_trials
from PIL import Image
from tiny_task import (
    VIT,
    Tiny,
    after,
    assert_close,
    digest,
    outcome_values,
    real,
    run,
    seen,
    trial,
    trial_of,
    undisturbed,
    weights_of,
)
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from tasks.backbones.spec import BackboneSpec, FromFile, FromTrial
from tasks.base import Batch, DataContext
from workers.checkpoint import Folder, clear
from workers.errors import ErrorClass, Stopped, TrialError
from workers.messages import Report, Weights
from workers.prepare import _weights_channels_last
from workers.state import Numerics, RankContext
from workers.train import train
from workers.trial import RuntimeSpec, TrialSpec

STILL: dict[str, Any] = {"lr": 1e-30, "warmup_epochs": 0, "min_lr": 0, "weight_decay": 0, "epochs": 1}
"""Training that leaves every weight as it was."""


def test_a_trial_learns_and_says_how_it_ran(tmp_path: Path) -> None:
    outcome, reports = run(trial(lr=3e-2, epochs=12), tmp_path, threads=1)
    assert [(report.epoch, report.step) for report in reports] == [(n, 4 * n) for n in range(1, 13)]
    assert reports[-1].values["train_loss"] < 0.7 * reports[0].values["train_loss"]
    assert {"lr", "train_loss", "train_plain", "train_grad_norm", "top1"} <= set(reports[0].values)
    assert outcome.figures == {"top1": reports[-1].values["top1"], "evaluations": 1.0}
    facts = outcome.facts
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["steps"], facts["micro_batch"], facts["threads"], facts["train_images"]) == (48, 8, 1, 32)
    assert (facts["device"], facts["precision"], facts["resumed_at"], facts["notes"]) == ("cpu", "fp32", None, [])
    assert facts["parameters"] == 48 * 16 + 16 + 16 * 3 + 3
    assert facts["images_per_second"] == pytest.approx(8 / facts["step_seconds"])
    assert torch.get_num_threads() == 1


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    first, again, other = (
        run(trial({"dropout": 0.3, "noise": 0.1}, seed=seed), tmp_path / name)[0]
        for seed, name in ((3, "a"), (3, "b"), (4, "c"))
    )
    assert digest(first) == digest(again) != digest(other)
    drawn = [run(trial(seed=seed, **STILL), tmp_path / f"still-{seed}")[0] for seed in (3, 4)]
    assert digest(drawn[0]) != digest(drawn[1])


def test_a_report_gives_the_mean_over_the_epochs_images(tmp_path: Path) -> None:
    spec = trial(**STILL)
    outcome, reports = run(spec, tmp_path)
    place = DataContext(tmp_path, input_size=(4, 4), device="cpu", seed=spec.seed, batch=32)
    (everything,) = spec.task.loaders(place).epoch(0)
    expected = spec.task.loss(spec.task.build(spec.backbone, weights_of(outcome)), everything)["plain"]
    assert reports[0].values["train_plain"] == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("micro_batch", [1, 3, 4])
def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path: Path, micro_batch: int) -> None:
    whole, whole_reports = run(trial(), tmp_path / "whole")
    parts, part_reports = run(trial(micro_batch=micro_batch), tmp_path / "parts")
    assert parts.facts["micro_batch"] == micro_batch
    assert_close(whole, parts)
    for one, two in zip(whole_reports, part_reports, strict=True):
        assert outcome_values(one) == pytest.approx(outcome_values(two), rel=1e-5)


def test_the_gradient_is_clipped_and_its_norm_reported_as_it_was(tmp_path: Path) -> None:
    free, clipped = (run(trial(clip=clip, lr=1e-3), tmp_path / str(clip)) for clip in (0, 1e-3))
    assert digest(free[0]) != digest(clipped[0])
    assert clipped[1][0].values["train_grad_norm"] > 0.1


def test_a_killed_trial_ends_as_one_that_was_not(tmp_path: Path) -> None:
    scenarios = [
        [],
        ["step:1"],
        ["step:6", "step:1", "step:5"],  # three deaths, the last after the end of another epoch
        ["before_checkpoint_commit:1"],
        ["before_checkpoint_commit:2", "after_checkpoint_commit:1"],
        ["step:16"],
        ["item:2", "item:3"],  # in the middle of an evaluation, and of the one after the checkpoint
    ]
    results = killed_trials([(undisturbed(), crashes) for crashes in scenarios], tmp_path)
    expected = results[0]
    assert len(expected["reports"]) == 4
    for scenario, result in zip(scenarios, results, strict=True):
        assert result["killed"] == [True] * len(scenario) + [False]
        for what in ("sha256", "figures", "reports"):
            assert result[what] == expected[what], (scenario, what)
        assert result["left"] == ["outcome.json", "token", "weights.safetensors"]
    assert [result["resumed_at"] for result in results] == [None, None, 8, None, 8, 12, 4]


@pytest.mark.parametrize("step", [1, 4, 6, 16])
def test_a_stopped_trial_goes_on_to_the_same_end(tmp_path: Path, step: int) -> None:
    spec = undisturbed()
    whole, reports = run(spec, tmp_path / "whole")
    with pytest.raises(Stopped):
        run(spec, tmp_path / "stopped", after(step))
    assert max((tmp_path / "stopped").glob("checkpoint-*")).name.startswith(f"checkpoint-{step:09d}-")
    resumed, again = run(spec, tmp_path / "stopped")
    assert digest(resumed) == digest(whole)
    assert seen(again) == seen(reports)  # those of before the stop are said again
    assert resumed.facts["resumed_at"] == step


def test_checkpoints_are_written_every_so_many_epochs_or_minutes(tmp_path: Path) -> None:
    def written(name: str, **runtime: Any) -> list[int]:
        steps = set()

        def look() -> bool:
            steps.update(int(path.name[11:20]) for path in (tmp_path / name).glob("checkpoint-*"))
            return False

        run(trial(runtime=runtime), tmp_path / name, look)
        return sorted(steps)

    assert written("epochs", checkpoint_epochs=2) == [8]
    assert written("minutes", checkpoint_minutes=1e-9) == list(range(1, 17))
    assert written("neither", checkpoint_epochs=50) == []


def test_checkpoint_minutes_are_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes 20 seconds by this clock: of 16 steps every third is saved, as 60 s are over after it."""
    made = 0
    start = time.monotonic()

    def tick(*_: Any) -> None:
        nonlocal made
        made += 1

    hook = register_optimizer_step_post_hook(tick)
    monkeypatch.setattr(time, "monotonic", lambda: start + 20.5 * made)
    steps = set()

    def look() -> bool:
        steps.update(int(path.name[11:20]) for path in tmp_path.glob("checkpoint-*"))
        return False

    run(trial(runtime={"checkpoint_minutes": 1, "checkpoint_epochs": 50}), tmp_path, look)
    hook.remove()
    assert sorted(steps) == [3, 6, 9, 12, 15]


def test_a_damaged_checkpoint_costs_one_interval_and_is_noted(tmp_path: Path) -> None:
    spec = undisturbed()
    whole, reports = run(spec, tmp_path / "whole")
    with pytest.raises(Stopped):
        run(spec, tmp_path / "damaged", after(10))
    newest = max((tmp_path / "damaged").glob("checkpoint-*"))
    newest.write_bytes(newest.read_bytes()[:5000])
    resumed, again = run(spec, tmp_path / "damaged")
    assert digest(resumed) == digest(whole)
    assert seen(again) == seen(reports)
    assert resumed.facts["resumed_at"] == 8
    assert any("checkpoint-000000010 is damaged" in note for note in resumed.facts["notes"])


def test_an_outcome_that_nobody_recorded_is_given_again_without_training(tmp_path: Path) -> None:
    first, reports = run(trial(), tmp_path)
    again, said = run(trial(), tmp_path, stop=lambda: pytest.fail("it trained"))
    assert again == first
    assert said == reports
    clear(tmp_path)
    with pytest.raises(Stopped):
        run(trial(), tmp_path, stop=lambda: True)


@pytest.mark.parametrize("step", [0, 2])
def test_a_gradient_that_is_not_finite_ends_the_trial_at_once(tmp_path: Path, step: int) -> None:
    """With a loss that is: the weights are broken, and would be seen to be only at the end of the round."""

    class Steep(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, loss: torch.Tensor) -> torch.Tensor:
            return loss.clone()

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
            return gradient * torch.inf

    class Cliff(Tiny):
        def loss(self, model: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
            terms = super().loss(model, batch)
            seen_batches.append(1)
            return {**terms, "loss": Steep.apply(terms["loss"]) if len(seen_batches) == step + 1 else terms["loss"]}

    seen_batches: list[int] = []
    with pytest.raises(TrialError, match=rf"epoch 1, step {step + 1}: loss [0-9.]+, gradient norm (nan|inf)") as caught:
        run(trial_of(Cliff()), tmp_path)
    assert caught.value.error_class is ErrorClass.diverged


@pytest.mark.parametrize("step", [0, 2])
def test_a_loss_that_is_not_finite_ends_the_trial_as_diverged(tmp_path: Path, step: int) -> None:
    with pytest.raises(TrialError, match=rf"epoch 1, step {step + 1}: loss nan.*learning rate") as caught:
        run(trial({"inf_at": step}, runtime={"checkpoint_minutes": 1e-9}), tmp_path)
    assert caught.value.error_class is ErrorClass.diverged
    assert not list(tmp_path.glob(f"checkpoint-{step + 1:09d}*"))


def test_weights_that_the_last_step_broke_are_no_result(tmp_path: Path) -> None:
    spec = trial(epochs=1, warmup_epochs=0, batch=32)
    far = spec.model_copy(update={"optim": spec.optim.model_copy(update={"lr": 1e39})})  # no spec may have it
    with pytest.raises(TrialError, match="weights are not finite") as caught:
        run(far, tmp_path)  # one step, whose loss is finite
    assert caught.value.error_class is ErrorClass.diverged
    assert not list(tmp_path.glob("outcome.json"))


@pytest.mark.parametrize("device", ["cuda", "cublas", "cpu"])
def test_out_of_memory_halves_the_micro_batch_and_changes_nothing_else(tmp_path: Path, device: str) -> None:
    whole, _ = run(trial(), tmp_path / "whole")
    small = {"memory": (3,), "memory_error": device}
    halved, _ = run(trial(small), tmp_path / "halved")
    given, _ = run(trial(micro_batch=2), tmp_path / "given")
    assert digest(halved) == digest(given)
    assert_close(halved, whole)
    assert halved.facts["micro_batch"] == 2
    notes = halved.facts["notes"]
    assert [note.split(": ")[1:3] for note in notes] == [
        ["out of memory", "micro-batch 8 -> 4"],
        ["out of memory", "micro-batch 4 -> 2"],
    ]
    assert not any("batch norm" in note for note in notes)  # it has none


def test_a_step_begun_again_begins_from_the_state_before_it(tmp_path: Path) -> None:
    """Random numbers of the model, and the statistics of batch norm, which the failed pass had moved."""
    task = {"batch_norm": True, "dropout": 0.3}
    given, _ = run(trial(task, micro_batch=4), tmp_path / "given")
    halved, _ = run(trial({**task, "memory": (4,)}), tmp_path / "halved")
    assert digest(halved) == digest(given)
    assert weights_of(halved)["norm.num_batches_tracked"] == 16 * 2
    (note,) = halved.facts["notes"]
    assert note.endswith("; batch norm now has the statistics of 4 samples at a time")  # other numbers than the whole's


def test_the_smaller_micro_batch_survives_a_resume(tmp_path: Path) -> None:
    spec = trial({"memory": (3,)})
    with pytest.raises(Stopped):
        run(spec, tmp_path, after(2))
    outcome, _ = run(spec, tmp_path)
    assert (outcome.facts["micro_batch"], len(outcome.facts["notes"])) == (2, 2)


def test_out_of_memory_at_one_image_ends_the_trial(tmp_path: Path) -> None:
    assert run(trial({"memory": (1,)}), tmp_path / "one")[0].facts["micro_batch"] == 1
    with pytest.raises(TrialError, match="at a micro-batch of 1 already: OutOfMemoryError") as caught:
        run(trial({"memory": (0,)}), tmp_path)
    assert caught.value.error_class is ErrorClass.out_of_memory


def test_a_trial_over_its_time_leaves_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(TrialError, match=r"ran longer than 0 s") as caught:
        run(undisturbed(), tmp_path / "late", time_limit_s=0.0)
    assert caught.value.error_class is ErrorClass.timeout
    resumed, _ = run(undisturbed(), tmp_path / "late")
    assert resumed.facts["resumed_at"] == 2  # of the first epoch: noticed before its evaluation
    assert digest(resumed) == digest(run(undisturbed(), tmp_path / "whole")[0])


def test_an_attempt_that_was_given_up_writes_nothing(tmp_path: Path) -> None:
    spec = undisturbed()
    place = RankContext(folder=tmp_path, data_root=tmp_path, token=1)

    def taken_over(report: Report) -> None:
        if report.epoch == 2:
            Folder(tmp_path, spec.key, 2).claim()

    with pytest.raises(TrialError, match="attempt 2 owns") as caught:
        train(spec, place, taken_over, lambda: False)
    assert caught.value.error_class is ErrorClass.node_lost
    assert [path.name[:20] for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-000000004"]


def test_data_that_cannot_be_opened_are_of_class_data(tmp_path: Path) -> None:
    for spec, words in (
        (trial({"broken": "no photos in /data; ask for them"}), "no photos in /data; ask for them"),
        (trial(batch=64), "optim.batch 64 is more than the 32 training samples"),
    ):
        with pytest.raises(TrialError, match=words) as caught:
            run(spec, tmp_path)
        assert caught.value.error_class is ErrorClass.data


def test_evaluation_comes_every_so_many_epochs_and_at_the_end(tmp_path: Path) -> None:
    _, reports = run(trial(epochs=5, runtime={"evaluate_every": 2}), tmp_path)
    assert ["top1" in report.values for report in reports] == [False, True, False, True, True]


def test_test_data_are_evaluated_once_after_the_last_epoch(tmp_path: Path) -> None:
    outcome, reports = run(trial({"test": True}, may_test=True), tmp_path)
    assert ["top1" in report.values for report in reports] == [False, False, False, True]
    assert "top1" in outcome.figures


def test_initial_weights_come_from_a_trial_or_a_file(tmp_path: Path) -> None:
    parent, _ = run(trial(seed=9), tmp_path / "parent")
    assert parent.weights is not None
    key = "f" * 64
    from_trial = trial(init=FromTrial(name="SUP", trial=key), **STILL)
    child, _ = run(from_trial, tmp_path / "child", parents={key: parent.weights})
    assert digest(child) == digest(parent)
    file = FromFile(name="SUP", path="parent/weights.safetensors", sha256=parent.weights.sha256)
    child, _ = run(trial(init=file, **STILL), tmp_path / "file", data_root=tmp_path)
    assert digest(child) == digest(parent)

    wrong = Weights(parent.weights.path, "0" * 64)
    with pytest.raises(TrialError, match="SHA-256") as caught:
        run(from_trial, tmp_path / "wrong", parents={key: wrong})
    assert caught.value.error_class is ErrorClass.data
    unfilled = FromFile(name="SUP", path="parent/weights.safetensors")
    with pytest.raises(TrialError, match="sha256 is not filled in"):
        run(trial(init=unfilled, **STILL), tmp_path / "unfilled", data_root=tmp_path)
    with pytest.raises(ValueError, match="not handed over"):
        run(from_trial, tmp_path / "orphan")


def test_bfloat16_and_channels_last_where_asked_for(tmp_path: Path) -> None:
    full, _ = run(trial(), tmp_path / "fp32")
    half, _ = run(trial(runtime={"precision": "bf16", "channels_last": "on"}), tmp_path / "bf16")
    assert (half.facts["precision"], half.facts["channels_last"]) == ("bf16", True)
    assert digest(half) != digest(full)
    torch.testing.assert_close(weights_of(half), weights_of(full), rtol=0.05, atol=0.02)
    assert all(tensor.dtype == torch.float32 for tensor in weights_of(half).values())


def test_a_real_task_is_resumed_bit_for_bit(tmp_path: Path) -> None:
    spec = TrialSpec.model_validate(
        {
            "task": {"kind": "classify", "dataset": "digits", "augment": {"rand_augment": "none"}},
            "backbone": {
                "model": "vit_tiny_patch16_224", "image_size": 16, "drop_path": 0.2,
                "args": {"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2},
            },
            "optim": {"lr": 1e-3, "layer_decay": 0.85, "epochs": 2, "warmup_epochs": 0.5, "batch": 50},
        }
    )  # fmt: skip
    whole, reports = run(spec, tmp_path / "whole")
    with pytest.raises(Stopped):
        run(spec, tmp_path / "stopped", after(4))
    resumed, again = run(spec, tmp_path / "stopped")
    assert digest(resumed) == digest(whole)
    assert seen(again) == seen(reports)


@pytest.mark.parametrize("phase", [0, 1, 2, 3])
def test_a_stop_is_heard_while_the_trial_is_made_ready(tmp_path: Path, phase: int) -> None:
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > phase

    with pytest.raises(Stopped):
        run(trial(), tmp_path, stop)
    assert len(asked) == phase + 1
    assert [path.name[:20] for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-000000001"] * (phase == 3)


@pytest.mark.parametrize(
    ("model", "args"),
    [("vit_tiny_patch16_224", VIT), ("resnet10t", {"channels": [8, 8, 16, 16], "stem_width": 8})],
)
def test_forgotten_activations_give_the_same_bits(tmp_path: Path, model: str, args: dict[str, Any]) -> None:
    """With random numbers in the forward pass (drop path), and with statistics that it moves (batch norm)."""
    kept, reports = run(real(model, args), tmp_path / "kept")
    again, reports_again = run(real(model, args, grad_checkpointing=True), tmp_path / "again")
    assert digest(again) == digest(kept)
    assert seen(reports_again) == seen(reports)
    assert (kept.facts["grad_checkpointing"], again.facts["grad_checkpointing"]) == (False, True)


def test_a_model_that_cannot_forget_activations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"runtime.grad_checkpointing: vit_tiny_patch16_224 has none in timm"):
        run(trial(runtime={"grad_checkpointing": True}), tmp_path)


def test_pictures_are_made_every_so_many_epochs_and_at_the_end(tmp_path: Path) -> None:
    spec = trial({"draws": 2}, epochs=5, runtime={"pictures_every": 2})
    with pytest.raises(Stopped):
        run(spec, tmp_path, after(14))
    _, reports = run(spec, tmp_path)
    expected = [(), ("0002",), (), ("0004",), ("0005",)]
    assert [report.pictures for report in reports] == [
        tuple(f"pictures/draw-{n}-{epoch}.png" for epoch in some for n in (0, 1)) for some in expected
    ]
    files = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert files == [f"draw-{n}-{epoch}.png" for n in (0, 1) for epoch in ("0002", "0004", "0005")]
    with Image.open(tmp_path / "pictures" / files[0]) as picture:
        assert (picture.size, picture.mode) == ((3, 5), "RGB")
    _, said = run(spec, tmp_path, stop=lambda: pytest.fail("it trained"))  # from outcome.json
    assert said == reports
    _, without = run(trial({"draws": 2}), tmp_path / "end")
    assert [len(report.pictures) for report in without] == [0, 0, 0, 2]


def test_a_process_is_ready_for_a_deterministic_trial_from_its_first_one_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch reads this variable once, when the first trial computes, and then refuses deterministic ones without it."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    run(trial(epochs=2), tmp_path)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_tf32_is_used_only_where_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For every trial: a process that ran one with tf32 may run one without next."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    outcome, _ = run(trial(epochs=1, warmup_epochs=0), tmp_path)
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == (False, False)
    assert outcome.facts["tf32"] is False
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    for asked, device, used in ((True, "cuda:0", True), (False, "cuda:0", False), (True, "cpu", False)):
        assert Numerics.of(RuntimeSpec(tf32=asked), trial().backbone, device).tf32 is used


def test_channels_last_lays_out_weights_of_convolutions_and_nothing_else() -> None:
    """SwinV2's table of coordinates, a buffer, goes through linear layers: in another order each would copy it."""
    model = nn.Sequential(nn.Conv2d(3, 8, 2), nn.Linear(4, 4))
    model.register_buffer("table", torch.randn(1, 5, 5, 2))
    values = {name: value.clone() for name, value in model.state_dict().items()}
    _weights_channels_last(model)
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not model[0].weight.is_contiguous()
    assert all(value.is_contiguous() for name, value in model.state_dict().items() if name != "0.weight")
    torch.testing.assert_close(dict(model.state_dict()), values, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("model", "asked", "device", "used"),
    [
        ("swinv2_base_window12_192", "auto", "cuda:0", True),
        ("swinv2_base_window12_192", "auto", "cpu", False),
        ("replknet_31b_mim", "auto", "cuda:0", False),
        ("replknet_31b_mim", "on", "cuda:0", True),
        ("swinv2_base_window12_192", "off", "cuda:0", False),
    ],
)
def test_channels_last_is_for_models_that_gain(
    model: str, asked: Any, device: str, used: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    backbone = BackboneSpec(model=model, image_size=192)
    assert Numerics.of(RuntimeSpec(channels_last=asked), backbone, device).channels_last is used
