"""The task pretrain: its options, its data and masks, a whole trial, and a child that starts from its weights."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dataset_trees import plant
from pydantic import TypeAdapter, ValidationError
from task_figures import figures_of

from tasks import AnyTask
from tasks.backbones.spec import BackboneSpec
from tasks.base import Batch, DataContext
from tasks.classification.task import Classify
from tasks.datasets import photo_tiles
from tasks.datasets.photo_tiles import PHOTO_TILES
from tasks.errors import DataError
from tasks.pretraining.task import Pretrain
from workers.checkpoint import load_weights
from workers.messages import Outcome, Report
from workers.state import RankContext
from workers.train import train
from workers.trial import TrialSpec

SWIN = {"patch_size": 2, "embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
DIGITS: dict[str, Any] = {"dataset": "digits-pretrain", "mask_patch": 4, "augment": {"flip": 0}}


def place(root: Path = Path("nowhere"), **other: Any) -> DataContext:
    return DataContext(**{"root": root, "input_size": (16, 16), "device": "cpu", "seed": 0, "batch": 8, **other})


def trial(task: dict[str, Any] = DIGITS, **other: Any) -> TrialSpec:
    given: dict[str, Any] = {
        "task": {"kind": "pretrain", **task},
        "backbone": {"model": "swinv2_base_window12_192", "args": SWIN, "image_size": 16},
        "optim": {"lr": 3e-3, "batch": 32, "epochs": 3, "warmup_epochs": 1},
        **other,
    }
    return TrialSpec.model_validate(given)


def ran(spec: TrialSpec, folder: Path, **other: Any) -> tuple[Outcome, list[Report]]:
    reports: list[Report] = []
    where = RankContext(folder=folder, data_root=Path("nowhere"), keep_weights=True, token=1, **other)
    return train(spec, where, reports.append, lambda: False), reports


def taken(batches: Iterable[Batch], count: int = 3) -> list[Batch]:
    return [batch for batch, _ in zip(batches, range(count), strict=False)]


def test_kind_tells_the_tasks_apart() -> None:
    of: TypeAdapter[Any] = TypeAdapter(AnyTask)
    assert of.validate_python({"kind": "pretrain", **DIGITS}) == Pretrain(**DIGITS)
    assert of.validate_python({"kind": "classify", "dataset": "digits"}) == Classify(dataset="digits")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"dataset": "photo-tile"}, "unknown data set 'photo-tile'.*photo-tiles"),
        ({"norm_window": 46}, "norm_window 46 has no middle pixel: use 45 or 47"),
        ({"augment": {"crop_scale": (1.0, 0.5)}}, "is no range"),
        ({"mask_ratio": 1.0}, "less than 1"),
        ({"official_val": "test"}, "official_val: test is for imagenet"),
    ],
)
def test_wrong_options_are_named(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Pretrain(**{**DIGITS, **wrong})


def test_a_mask_patch_that_does_not_divide_is_refused_with_the_spec() -> None:
    with pytest.raises(ValidationError, match="mask_patch 5 does not divide image_size 16"):
        trial({**DIGITS, "mask_patch": 5})


@pytest.mark.parametrize(
    ("model", "args", "patch"),
    [
        ("swinv2_base_window12_192", {**SWIN, "patch_size": 8}, 8),
        ("beit_base_patch16_224", {"global_pool": "token"}, 16),
    ],
)
def test_a_mask_patch_that_does_not_fit_the_models_is_refused_with_the_spec(
    model: str, args: dict[str, Any], patch: int
) -> None:
    with pytest.raises(ValidationError, match=f"mask_patch 4 is no multiple of the model's patch of {patch} pixels"):
        trial(backbone={"model": model, "args": args, "image_size": 16})


def test_counts_are_those_of_the_loaders() -> None:
    for task, batch in ((Pretrain(**DIGITS), 8), (Pretrain(dataset=PHOTO_TILES.name, mask_patch=4), 8)):
        loaders = task.loaders(place(batch=batch))
        assert loaders.train_samples == task.train_samples
        assert sum(len(batch["images"]) for batch in loaders.evaluation()) == task.evaluation_samples
    assert (PHOTO_TILES.samples("train"), PHOTO_TILES.samples("val")) == (612, 89)


def test_half_of_imagenets_train_may_be_held_out_and_its_val_left_alone() -> None:
    official = Pretrain(dataset="imagenet")
    assert (official.train_samples, official.evaluation_samples) == (1_281_167, 50_000)
    own = Pretrain(dataset="imagenet", official_val="test", val_fraction=0.01)
    assert (own.train_samples, own.evaluation_samples) == (1_268_355, 12_812)


def test_photographs_are_held_out_as_a_whole() -> None:
    pixels = photo_tiles.pixels()
    assert pixels.shape == (701, 64, 64, 3)
    assert not set(photo_tiles.PHOTOS["train"]) & set(photo_tiles.PHOTOS["val"])
    flat = {tile.tobytes() for tile in pixels[:612]}
    assert not any(tile.tobytes() in flat for tile in pixels[612:])
    assert pixels.std((1, 2, 3)).mean() > 20


def test_batches_hold_images_and_masks_and_no_labels() -> None:
    loaders = Pretrain(**DIGITS).loaders(place())
    for batch in (*taken(loaders.epoch(0)), *taken(loaders.evaluation())):
        assert set(batch) - {"item"} == {"images", "masks"}
        assert batch["images"].shape[1:] == (3, 16, 16)
        assert batch["masks"].dtype == torch.bool
        assert (batch["masks"].sum((1, 2)) == 10).all()


def test_masks_are_drawn_anew_in_training_and_fixed_on_val() -> None:
    task = Pretrain(**DIGITS)
    loaders, other = task.loaders(place()), task.loaders(place(seed=1))
    first, again, later = (taken(loaders.epoch(epoch)) for epoch in (0, 0, 1))
    assert all(torch.equal(a["masks"], b["masks"]) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a["masks"], b["masks"]) for a, b in zip(first, later, strict=True))
    for mine, theirs in zip(loaders.evaluation(), other.evaluation(), strict=True):
        assert torch.equal(mine["masks"], theirs["masks"])


def test_a_resumed_epoch_and_a_rank_see_the_same_masks() -> None:
    task = Pretrain(**DIGITS)
    whole = list(task.loaders(place()).epoch(2))
    for late, batch in zip(task.loaders(place()).epoch(2, 5), whole[5:], strict=True):
        assert torch.equal(late["images"], batch["images"])
        assert torch.equal(late["masks"], batch["masks"])
    ranks = [task.loaders(place(rank=rank, world=2)).epoch(2) for rank in (0, 1)]
    for first, second, batch in zip(*ranks, whole, strict=True):
        both = [torch.cat([first[name], second[name]]) for name in ("images", "masks")]
        pairs = {(image.numpy().tobytes(), mask.numpy().tobytes()) for image, mask in zip(*both, strict=True)}
        together = zip(batch["images"], batch["masks"], strict=True)
        assert pairs == {(image.numpy().tobytes(), mask.numpy().tobytes()) for image, mask in together}


def test_files_are_masked_alike_whatever_the_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant("imagenet", tmp_path, monkeypatch)
    task = Pretrain(dataset="imagenet", mask_patch=16)
    seen = []
    for processes in (0, 2):
        loaders = task.loaders(place(tmp_path, input_size=(32, 32), batch=4, loader_workers=processes))
        seen.append([*loaders.epoch(1), *loaders.evaluation()])
    for one, other in zip(*seen, strict=True):
        assert torch.equal(one["images"], other["images"])
        assert torch.equal(one["masks"], other["masks"])
        assert (one["masks"].sum((1, 2)) == 3).all()


def test_missing_data_are_named(tmp_path: Path) -> None:
    task = Pretrain(dataset="imagenet")
    assert "imagenet/train" in str(task.missing_data(tmp_path))
    with pytest.raises(DataError, match="not found under"):
        task.loaders(place(tmp_path, input_size=(64, 64)))
    assert Pretrain(dataset=PHOTO_TILES.name).missing_data(tmp_path) is None


@pytest.mark.parametrize(
    ("model", "said", "expected"),
    [
        ("swinv2_base_window12_192", "auto", True),
        ("swin_base_patch4_window7_224", "auto", False),
        ("swinv2_base_window12_192", "off", False),
        ("swin_base_patch4_window7_224", "on", True),
    ],
)
def test_the_target_is_normalised_for_swinv2_unless_told_otherwise(model: str, said: str, expected: bool) -> None:
    task = Pretrain(**DIGITS, norm_target=said)
    net = task.build(BackboneSpec(model=model, args=SWIN, image_size=16), None)
    facts = task.facts(net)
    assert facts["norm_target"] is expected
    assert facts["mask"] == "10 of 16"
    assert 2 < facts["avg_dist"] < 3
    images = torch.randn(2, 3, 16, 16)
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[:, 1:3] = True
    batch = {"images": images, "masks": masks}
    shifted = {"images": images * 2 + 5, "masks": masks}
    silent = net.eval()
    with torch.no_grad():
        silent.decoder[0].weight.zero_()
        silent.decoder[0].bias.zero_()
        same = torch.allclose(task.loss(silent, batch)["loss"], task.loss(silent, shifted)["loss"], rtol=1e-4)
    assert same is expected


def test_losses_on_val_are_over_all_hidden_pixels() -> None:
    """A model that says zero, images with as many hidden pixels each: the mean over all of |x|; and of |x - mean|."""
    task = Pretrain(**DIGITS, norm_target="off")
    net = task.build(BackboneSpec(model="swinv2_base_window12_192", args=SWIN, image_size=16), None).eval()
    with torch.no_grad():
        net.decoder[0].weight.zero_()
        net.decoder[0].bias.zero_()
        loaders = task.loaders(place())
        figures = figures_of(task, net, loaders.evaluation())
    errors, of_mean = [], []
    for batch in loaders.evaluation():
        for image, mask in zip(batch["images"].numpy(), batch["masks"].numpy(), strict=True):
            hidden = mask.repeat(4, 0).repeat(4, 1)
            errors.append(np.abs(image[:, hidden]).mean())
            of_mean.append(np.abs(image[:, hidden] - image[:, ~hidden].mean(1, keepdims=True)).mean())
    assert figures["loss"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert figures["loss_of_mean"] == pytest.approx(np.mean(of_mean), rel=1e-5)
    assert set(figures) == {"loss", "loss_of_mean", "avg_dist"}


def test_a_trial_learns_shows_pictures_and_a_classifier_starts_from_it(tmp_path: Path) -> None:
    optim = {"lr": 5e-3, "batch": 16, "epochs": 5, "warmup_epochs": 1}
    spec = trial({**DIGITS, "norm_target": "off"}, optim=optim)
    outcome, reports = ran(spec, tmp_path / "mim")
    assert outcome.figures["loss"] == reports[-1].values["loss"] < reports[0].values["loss"]
    assert outcome.figures["loss"] < 0.75 * outcome.figures["loss_of_mean"]
    assert outcome.facts["mask"] == "10 of 16"
    assert reports[-1].pictures == ("pictures/reconstructions-0005.png",)
    assert outcome.weights is not None
    weights = load_weights(outcome.weights)
    assert {"mask_token", "decoder.0.weight", "encoder.patch_embed.proj.weight"} <= set(weights)

    init = {"kind": "trial", "name": "MIM", "trial": spec.key}
    augment = {"rand_augment": "none", "color_jitter": 0, "erasing": 0, "mixup": 0, "cutmix": 0}
    child = trial(
        {"kind": "classify", "dataset": "digits", "augment": augment},
        backbone={"model": "swinv2_base_window12_192", "args": SWIN, "image_size": 16, "init": init},
        optim={"lr": 1e-12, "batch": 100, "epochs": 1, "warmup_epochs": 0, "warmup_lr": 0, "weight_decay": 0},
    )
    after, _ = ran(child, tmp_path / "child", parents={spec.key: outcome.weights})
    assert after.weights is not None
    kept = load_weights(after.weights)
    same = [name for name in kept if f"encoder.{name}" in weights and not name.startswith("head.")]
    assert len(same) > 20
    for name in same:
        torch.testing.assert_close(kept[name], weights[f"encoder.{name}"], rtol=0, atol=1e-6)


def test_pretraining_goes_on_from_weights_of_pretraining(tmp_path: Path) -> None:
    task, spec = Pretrain(**DIGITS), trial()
    torch.manual_seed(0)
    first = task.build(spec.backbone, None)
    second = task.build(spec.backbone, first.state_dict())
    for name, parameter in first.encoder.named_parameters():
        assert torch.equal(parameter, second.encoder.get_parameter(name))
    assert not torch.equal(first.mask_token, second.mask_token)


@pytest.mark.parametrize("norm_target", ["on", "off"])
def test_pictures_show_seen_pixels_as_they_are(norm_target: str) -> None:
    task = Pretrain(**DIGITS, norm_target=norm_target)
    net = task.build(BackboneSpec(model="swinv2_base_window12_192", args=SWIN, image_size=16), None).eval()
    loaders = task.loaders(place())
    with torch.no_grad():
        sheet = task.pictures(net, loaders)["reconstructions"]
        again = task.pictures(net, loaders)["reconstructions"]
    assert sheet.dtype == np.uint8
    assert (sheet == again).all()
    side, gap, labels = 96, 4, 120  # 16 pixels, shown six times as large
    assert sheet.shape == (gap + 3 * (side + gap), labels + 8 * (side + gap) + gap, 3)
    rows = [sheet[gap + r * (side + gap) :][:side, labels : labels + side] for r in range(3)]
    original, masked, reconstruction = (row[::6, ::6].astype(int) for row in rows)
    mask = next(iter(loaders.evaluation()))["masks"][0].numpy().repeat(4, 0).repeat(4, 1)
    assert (masked[mask] == 128).all()
    assert (masked[~mask] == original[~mask]).all()
    assert (reconstruction[~mask] == original[~mask]).all()
    assert (reconstruction[mask] != original[mask]).any()
