"""Depth as a task: published layouts train, evaluation over ranks, resuming, figures apart, what enters the key."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from depth_sets import COUNTS, SIDE, described, shared, write_kitti, write_nyuv2, write_own
from pydantic import ValidationError
from task_figures import figures_of
from tiny_task import after, digest, run, seen

from tasks.base import Batch, DataContext
from tasks.datasets.loaders import SampleLoaders
from tasks.depth.losses import silog
from tasks.depth.metrics import evaluated_pixels, image_figures
from tasks.depth.pictures import DPI, SHOWN, TOP, WIDTH, _chosen
from tasks.depth.task import CUT_DEPTH, Depth
from tasks.errors import DataError
from workers.errors import Stopped
from workers.trial import TrialSpec

SWIN = {
    "model": "swinv2_tiny_window8_256", "image_size": 32,
    "args": {"patch_size": 4, "embed_dim": 8, "depths": [1, 1, 2], "num_heads": [1, 2, 4], "window_size": 4},
}  # fmt: skip
VIT = {
    "model": "vit_tiny_patch16_224", "image_size": SIDE,
    "args": {"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2},
}  # fmt: skip


def trial(dataset: Any, backbone: dict[str, Any] = SWIN, optim: dict[str, Any] | None = None, **task: Any) -> TrialSpec:
    return TrialSpec.model_validate({
        "task": {"kind": "depth", "dataset": dataset, **task},
        "backbone": backbone,
        "optim": {"lr": 1e-3, "batch": 2, "epochs": 1, "warmup_epochs": 0, "clip": 0, **(optim or {})},
        "may_test": True,
    })  # fmt: skip


def own(**task: Any) -> TrialSpec:
    """On pairs of one's own, with the paper's schedule and layer decay."""
    up_down = {"schedule": "up_down", "min_lr": 3e-5, "batch": 10, "epochs": 2, "layer_decay": 0.9, "warmup_epochs": 0}
    return trial(described(), VIT, up_down, **task)


def context(root: Path, side: int = SIDE, **other: Any) -> DataContext:
    return DataContext(root, (side, side), device="cpu", seed=0, batch=2, may_test=True, **other)


def test_nyuv2_in_its_published_layout_trains_and_is_evaluated(tmp_path: Path) -> None:
    write_nyuv2(tmp_path)
    outcome, _ = run(trial("nyuv2", evaluate="test", final_norm=True), tmp_path)
    assert set(outcome.figures) == {metric.name for metric in Depth(dataset="nyuv2").metrics}
    assert 0 < outcome.figures["rmse"] < 10
    found = outcome.facts["preprocessing"]
    assert (found["windows"], found["uncovered_columns"]) == ([2], 0)
    assert (found["depth"]["window"], found["depth"]["longest"], found["depth"]["steps_per_metre"]) == ("nyu", 10, 1000)
    assert outcome.facts["depth_head"] == {"embedding": 8, "deconvolutions": 2}
    assert CUT_DEPTH in outcome.facts["caveats"]


def test_kitti_in_its_published_layout_trains_and_nine_columns_stay_without_a_prediction(tmp_path: Path) -> None:
    write_kitti(tmp_path, (2, 1))
    backbone = {**VIT, "image_size": 352, "args": {"patch_size": 32, "embed_dim": 8, "depth": 1, "num_heads": 2}}
    outcome, _ = run(trial("kitti-eigen", backbone, evaluate="test", embedding=4), tmp_path)
    found = outcome.facts["preprocessing"]
    assert (found["windows"], found["uncovered_columns"], found["uncovered_columns_evaluated"]) == ([16], 9, 0)
    assert found["images_without_depth_map"] == 1
    assert 0 < outcome.figures["rmse"] < 80
    loaders = Depth(dataset="kitti-eigen", evaluate="test").loaders(context(tmp_path, 352))
    (batch,) = loaders.evaluation()
    assert tuple(batch["images"].shape) == (1, 3, 352, 1216)
    assert 11 < float(batch["depth"].max()) < 60  # the file's numbers over 256
    (learnt,) = loaders.epoch(0)
    assert tuple(learnt["images"].shape) == (2, 3, 352, 352)


def test_pairs_of_your_own_are_learnt(tmp_path: Path) -> None:
    """Brightness tells depth there."""
    spec = trial(described(), VIT, {"lr": 5e-3, "batch": 6, "epochs": 12}, baseline="mean_map", augment=PLAIN)
    outcome, reports = run(spec, tmp_path)
    assert outcome.figures["rmse"] < 0.6 * reports[0].values["rmse"]
    assert outcome.figures["rmse"] < outcome.figures["mean_map_rmse"]


PLAIN = {"brightness_contrast": 0, "gamma": 0, "hue_saturation_value": 0, "cut_depth": 0}


def test_a_stopped_trial_ends_with_the_weights_of_an_undisturbed_one(tmp_path: Path) -> None:
    whole, reports = run(own(), tmp_path / "whole")
    with pytest.raises(Stopped):
        run(own(), tmp_path / "stopped", after(4))
    resumed, again = run(own(), tmp_path / "stopped")
    assert digest(resumed) == digest(whole)
    assert seen(again) == seen(reports)


def on_two_ranks(rank: int, folder: str, pairs: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    for name in ("measured", "trained"):
        outcome, reports = run(shared_out(name, Path(pairs)), Path(folder) / name, rank=rank, world=2)
        if rank == 0:
            said = {"figures": dict(outcome.figures), "loss": reports[0].values.get("train_loss")}
            (Path(folder) / f"{name}.json").write_text(json.dumps(said))
    dist.barrier()
    dist.destroy_process_group()
    # As in tests/workers/test_distributed.py: gloo's threads may still be closing connections at the interpreter's end,
    # and C++ aborts over that. Seen on a busy machine. The test reads the files.
    os._exit(0)


def shared_out(name: str, pairs: Path, workers: int = 2) -> TrialSpec:
    """`measured`: the weights as drawn; `trained`: one step that learns nothing. On 8 pairs of val."""
    optim = {"epochs": 0} if name == "measured" else {"lr": 1e-30, "min_lr": 0, "weight_decay": 0, "batch": 30}
    spec = trial(described(pairs), VIT, optim)
    runtime = spec.runtime.model_copy(update={"sync_batchnorm": True})
    return spec.model_copy(update={"runtime": runtime, "batch_workers": workers if name == "trained" else 1})


def test_two_ranks_measure_what_one_does_and_their_loss_is_the_mean_of_both(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(on_two_ranks, (str(tmp_path), str(shared())), nprocs=2)
    alone, _ = run(shared_out("measured", shared()), tmp_path / "alone")
    two = json.loads((tmp_path / "measured.json").read_text())
    assert two["figures"] == dict(alone.figures)
    spec = shared_out("trained", shared())
    losses = []
    for rank in (0, 1):
        (batch,) = spec.task.loaders(DataContext(tmp_path, (SIDE, SIDE), "cpu", spec.seed, 30, rank, 2)).epoch(0)
        losses.append(silog(torch.full_like(batch["depth"], 5.0), batch["depth"]).item())
    # the head predicts half of the longest depth everywhere when training begins
    assert json.loads((tmp_path / "trained.json").read_text())["loss"] == pytest.approx(sum(losses) / 2, abs=2e-3)
    assert spec.key != shared_out("trained", shared(), 1).key


def test_figures_are_means_of_values_per_image_that_measurements_keep(tmp_path: Path) -> None:
    task = Depth(dataset=described(), flip_test=False)
    loaders = task.loaders(context(tmp_path))

    def predict(images: torch.Tensor) -> torch.Tensor:
        return images.mean(1, keepdim=True) * 10 + 0.1

    summary = task.summarize(list(task.measure(predict, loaders.evaluation())))  # type: ignore[arg-type]
    (batch,) = loaders.evaluation()
    by_hand = []
    for image, truth in zip(batch["images"], batch["depth"], strict=True):
        pixels = evaluated_pixels(truth[0], "whole", 1e-3, 10)
        by_hand.append(image_figures(predict(image[None])[0, 0], truth[0], pixels)["rmse"])
    assert summary.figures["rmse"] == pytest.approx(sum(by_hand) / len(by_hand))
    rows = list(summary.measurements)
    assert [row.value for row in rows] == pytest.approx(by_hand)
    assert [row.item for row in rows] == [f"val/rgb_{number:03d}.png" for number in range(COUNTS["val"])]
    assert task.measured_figures == {"rmse": "image"}


def test_images_of_several_sizes_are_measured_one_by_one(tmp_path: Path) -> None:
    folder = write_own(tmp_path / "rooms", {"train": 3, "val": 2, "test": 2}, (16, 24))
    other = write_own(tmp_path / "other", {"val": 2}, (16, 40))
    (other / "val").rename(folder / "wide")
    with (folder / "val.txt").open("a") as listed:
        listed.write((other / "val.txt").read_text().replace("val/", "wide/"))
    task = Depth(dataset=described(folder))
    loaders = task.loaders(context(tmp_path))
    assert loaders.preprocessing is not None
    assert loaders.preprocessing["windows"] == [2, 3]
    seen_: list[int] = []

    def predict(images: torch.Tensor) -> torch.Tensor:
        seen_.append(len(images))
        return images.mean(1, keepdim=True) * 10 + 0.1

    parts = list(task.measure(predict, loaders.evaluation()))  # type: ignore[arg-type]
    assert [row[0] for _, rows in parts for row in rows] == [
        "val/rgb_000.png", "val/rgb_001.png", "wide/rgb_000.png", "wide/rgb_001.png"
    ]  # fmt: skip
    assert seen_ == [4, 4, 6, 6]


def test_the_mean_map_is_that_of_the_training_pairs(tmp_path: Path) -> None:
    task = Depth(dataset=described(), baseline="mean_map")
    loaders = task.loaders(context(tmp_path))
    maps = torch.stack([batch["depth"] for batch in Depth(dataset=described(), augment={**PLAIN, "flip": 0}).loaders(
        DataContext(tmp_path, (SIDE, SIDE), "cpu", 0, 30)).epoch(0)])[0]  # fmt: skip
    known = maps > 0
    mean = maps.sum(0) / known.sum(0).clamp(min=1)
    mean[known.sum(0) == 0] = maps[known].mean()
    (batch,) = loaders.evaluation()
    torch.testing.assert_close(batch["mean_map"][0], mean, rtol=1e-5, atol=1e-5)
    constant = lambda images: torch.full_like(images[:, :1], 5.0)  # noqa: E731
    figures = figures_of(task, constant, [batch])  # type: ignore[arg-type]
    errors = [image_figures(mean[0], each[0], each[0] > 1e-3)["rmse"] for each in batch["depth"]]
    assert figures["mean_map_rmse"] == pytest.approx(sum(errors) / len(errors))


def test_pictures_have_four_columns_and_one_bar(tmp_path: Path) -> None:
    task = Depth(dataset=described())
    loaders = task.loaders(context(tmp_path))
    pixels = task.pictures(lambda images: images.mean(1, keepdim=True) * 10, loaders)["depth"]  # type: ignore[arg-type]
    assert pixels.dtype == np.uint8
    assert pixels.shape == (round((TOP + 2 * SHOWN) * DPI), WIDTH * DPI, 3)
    other = task.pictures(lambda images: images.mean(1, keepdim=True) * 5, loaders)["depth"]  # type: ignore[arg-type]
    assert (other != pixels).any()


def test_pictures_read_the_batches_of_the_images_that_they_show_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaders = Depth(dataset=described()).loaders(context(tmp_path))
    assert isinstance(loaders, SampleLoaders)
    (whole,) = loaders.evaluation()
    # as many as a large set has: 8 of val in batches of 1, of which 6 are shown
    monkeypatch.setattr(loaders, "_pipeline", replace(loaders._pipeline, evaluation_batch=1))
    read: list[int] = []

    def predict(batch: Batch) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        read.append(len(batch["images"]))
        return zip(batch["images"], (image[:1] for image in batch["images"]), strict=True)

    shown = _chosen(loaders, predict)
    assert read == [1] * SHOWN
    for (image, truth, _), row in zip(shown, (0, 1, 3, 4, 6, 7), strict=True):
        assert torch.equal(image, whole["images"][row])
        assert torch.equal(truth, whole["depth"][row])


def test_test_pairs_are_opened_only_after_every_choice(tmp_path: Path) -> None:
    task = Depth(dataset=described(), evaluate="test")
    with pytest.raises(DataError, match=r"rooms: test images are opened only by trials that come after every choice"):
        task.loaders(DataContext(tmp_path, (SIDE, SIDE), device="cpu", seed=0, batch=2))


def test_lists_enter_the_key_and_the_place_does_not(tmp_path: Path) -> None:
    copy = write_own(tmp_path / "moved" / "rooms")
    planned = [Depth(dataset=described(path)).planned_fields(tmp_path, [tmp_path]) for path in (shared(), copy)]
    assert planned[0] == planned[1]
    assert planned[0]["sizes"] == {"rooms/lists": COUNTS}
    keys = {trial(described(path), VIT, **planned[0]).key for path in (shared(), copy)}
    assert len(keys) == 1
    assert trial(described(), VIT).key not in keys
    assert trial(described(steps_per_metre=256), VIT, **planned[0]).key not in keys
    without_sizes = trial(described(), VIT, manifests=planned[0]["manifests"])
    assert without_sizes.key in keys
    with (copy / "train.txt").open("a") as listed:
        listed.write("train/rgb_000b.png train/depth_000.png\n")
    assert Depth(dataset=described(copy)).data_manifests(tmp_path) != planned[1]["manifests"]
    changed = Depth(dataset=described(copy), **planned[1])
    with pytest.raises(DataError, match=r"rooms: the lists here have SHA-256 .* other data than where the job was"):
        changed.loaders(context(tmp_path))


def test_nyuv2_is_planned_from_the_users_lists(tmp_path: Path) -> None:
    assert Depth(dataset="nyuv2").planned_fields(tmp_path) == {}
    assert Depth(dataset="nyuv2", evaluate="test").evaluation_samples == 654
    write_nyuv2(tmp_path)
    fields = Depth(dataset="nyuv2").planned_fields(tmp_path, [tmp_path / "splits"])
    task = Depth(dataset="nyuv2", evaluate="test", **fields)
    assert (task.train_samples, task.evaluation_samples) == (6, 3)
    assert "3 test images of NYUv2 in the list that was used, 654 in the published one" in task.caveats
    assert (tmp_path / "splits/nyuv2-lists.jsonl").is_file()
    with pytest.raises(ValidationError, match=r"nyuv2 has no list of val: write one, or evaluate on test"):
        Depth(dataset="nyuv2", **fields)
    assert Depth(dataset="nyuv2").missing_data(tmp_path) == (
        f"nyuv2: no list {tmp_path}/nyu_depth_v2/val_list.txt; write a list of pairs, or evaluate on test"
    )


def test_the_public_codes_wrap_is_an_option_and_the_default_says_what_it_does() -> None:
    assert CUT_DEPTH in Depth(dataset="nyuv2").caveats
    assert CUT_DEPTH not in Depth(dataset="nyuv2", augment={"cut_depth_values": "uint8_wrap"}).caveats
    assert CUT_DEPTH not in Depth(dataset="nyuv2", augment={"cut_depth": 0}).caveats


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"dataset": "nyu"}, r"unknown data set 'nyu'; nearest: 'nyuv2'; known: kitti-eigen, nyuv2"),
        ({"dataset": "digits"}, r"unknown data set 'digits'; known: kitti-eigen"),
        ({"dataset": "nyuv2", "shortest": 20}, r"shortest 20 m must be below longest 10 m"),
        ({"dataset": "nyuv2", "apart": True}, r"apart is for scene-rooms, and nyuv2 has no photograph apart"),
        ({"dataset": described(shortest=5, longest=4)}, r"shortest 5 m must be below longest 4 m"),
    ],
)
def test_a_field_that_does_not_fit_is_one_line(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError, match=line) as caught:
        Depth(**fields)
    assert caught.value.error_count() == 1


def test_an_image_size_that_the_stride_does_not_divide_is_refused() -> None:
    backbone = trial("nyuv2").backbone.model_copy(update={"image_size": 40, "args": {**SWIN["args"], "window_size": 5}})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"image_size 40 is no multiple of the stride 16 .* use 32 or 48"):
        Depth(dataset="nyuv2").build(backbone, None)


@pytest.mark.parametrize("layers", [{"drop_last": 0}, {"drop_last": 1}])
def test_what_is_left_of_a_backbone_trains_with_its_own_number_of_deconvolutions(
    layers: dict[str, Any], tmp_path: Path
) -> None:
    args = {"patch_size": 4, "embed_dim": 8, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8], "window_size": 4}
    write_nyuv2(tmp_path)
    spec = trial("nyuv2", {**SWIN, "args": args, **layers}, {"layer_decay": 0.9, "layer_decay_scheme": "swin29"},
                 evaluate="test")  # fmt: skip
    outcome, _ = run(spec, tmp_path)
    assert outcome.facts["depth_head"] == {"embedding": 8, "deconvolutions": 2}
    assert math.isfinite(outcome.figures["rmse"])
