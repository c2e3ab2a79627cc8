"""What a spec may say of tracking, what enters the key, and what trials of it make."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from moving_squares import Squares
from pydantic import ValidationError
from sequence_trees import GOT10K_TRAIN, all_four, lasot, own, shared_sequences

from tasks.backbones.spec import BackboneSpec
from tasks.base import DataContext
from tasks.errors import DataError
from tasks.tracking.loaders import Tracked, TrackingLoaders
from tasks.tracking.model import level_in
from tasks.tracking.task import Tracking
from workers.key_content import key_content

TINY = BackboneSpec(
    model="swinv2_tiny_window8_256",
    args={"patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4},
    image_size=64,
)
SMALL: dict[str, Any] = {"pairs": 16, "stride": 8, "fusion": {"width": 16, "heads": 2, "blocks": 1}}


def task(**fields: Any) -> Tracking:
    return Tracking.model_validate({"dataset": "scene-tracks", **SMALL, **fields})


def described(path: Path) -> dict[str, Any]:
    return {"kind": "sequences", "path": str(path)}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dataset": "got10"}, r"unknown data set 'got10'; nearest: 'got10k'"),
        ({"dataset": "digits"}, r"unknown data set 'digits'; .*known: coco-boxes, got10k, lasot"),
        ({"dataset": "lasot", "evaluate": "val"}, "lasot has no val part; set evaluate to test"),
        ({"dataset": "coco-boxes"}, "dataset coco-boxes has still images, .* name it in train_sets, and sequences in"),
        ({"train_sets": ["lasot", "got10k", "lasot"]}, "train_sets has lasot twice"),
        ({"train_sets": []}, "at least 1 item"),
        ({"train_sets": ["lasot", "bears"]}, "unknown data set 'bears'"),
        (
            {"dataset": "got10k", "evaluate": "test", "baselines": True},
            "baselines needs boxes, and those of got10k test are not public: set baselines to false",
        ),
        (
            {"dataset": "trackingnet", "evaluate": "test", "other_template": True},
            "other_template needs boxes, .* set other_template to false",
        ),
        ({"fusion": {"width": 30, "heads": 4}}, "heads 4 do not divide width 30: use one of 1, 2, 3, 5"),
    ],
)
def test_mistakes_are_refused_with_a_remedy(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        task(**fields)


@pytest.mark.parametrize(
    ("fields", "size", "message"),
    [
        ({}, 60, r"backbone\.image_size 60: a crop is divided into tokens of task\.stride 8"),
        ({"template": 20}, 64, r"task\.template 20: a crop is divided .* take a multiple from 16 on"),
        ({}, 24, r"task\.template 12"),
        ({"head": "keep"}, 64, r"task\.head keep takes the head of an earlier trial"),
    ],
)
def test_crops_that_do_not_fit_the_stride_are_refused(fields: dict[str, Any], size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        task(**fields).check(TINY.model_copy(update={"image_size": size}))


def test_the_stage_is_the_last_of_its_stride() -> None:
    assert level_in(TINY, 8) == 1
    args = {"patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2}
    vit = BackboneSpec(model="vit_tiny_patch16_224", args=args, image_size=32)
    assert level_in(vit, 8) == 2
    with pytest.raises(
        ValueError, match=r"task\.stride 16: the backbone has feature maps of stride 4, 8 \(pixels\); use one"
    ):
        level_in(TINY, 16)


@pytest.mark.parametrize(
    ("model", "args", "stride"),
    [
        ("vit_tiny_patch16_224", {"patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}, 8),
        ("swin_tiny_patch4_window7_224", {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}, 8),
        ("replknet_31b", {"layers": [1, 1, 1, 1], "channels": [8, 16, 32, 64], "kernels": [7, 7, 7, 7]}, 16),
    ],
)
def test_other_backbones_take_both_crops(model: str, args: dict[str, Any], stride: int) -> None:
    spec = BackboneSpec(model=model, args=args, image_size=8 * stride)
    built = task(stride=stride).build(spec, None).eval()
    with torch.no_grad():
        scores, boxes = built(
            templates=torch.zeros(2, 3, 4 * stride, 4 * stride), searches=torch.zeros(2, 3, 8 * stride, 8 * stride)
        )
    assert (scores.shape, boxes.shape) == ((2, 8, 8), (2, 8, 8, 4))


def test_weights_go_to_the_backbone_alone_or_to_the_whole_model() -> None:
    torch.manual_seed(0)
    first = task().build(TINY, None)
    kept = task(head="keep").build(TINY, first.state_dict())
    assert all(torch.equal(value, kept.state_dict()[name]) for name, value in first.state_dict().items())
    backbone = {f"backbone.{name}": value for name, value in first.backbone.state_dict().items()}  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"task\.head keep: \d+ weights are not those of a tracker with this backbone"):
        task(head="keep").build(TINY, backbone)


def test_described_sets_enter_the_key_by_their_content(tmp_path: Path) -> None:
    here, there, other = (own(tmp_path / place / "own") for place in "abc")
    (other / "train" / "boat" / "boxes.txt").write_text("1,1,5,5\n" * 8)

    def content(*paths: Path) -> str:
        fields = {"dataset": described(paths[0]), "train_sets": [described(path) for path in paths]}
        manifests = task(**fields).planned_fields(tmp_path)["manifests"]
        planned = task(**fields, manifests=manifests)
        return json.dumps(planned.key_content(key_content(planned)), sort_keys=True)

    assert content(here) == content(there)
    assert len({content(here), content(other), content(here, other)}) == 3
    assert str(tmp_path) not in content(here, other)


def test_every_set_of_a_mixture_has_its_manifest(tmp_path: Path) -> None:
    root = all_four(tmp_path)
    sets = ["got10k", "trackingnet", "lasot", "coco-boxes"]
    planned = task(dataset="got10k", train_sets=sets).planned_fields(root)
    assert set(planned["manifests"]) == {f"{name}/official" for name in sets}
    assert planned["sizes"]["got10k/official"]["val"] == 16
    mine = task(dataset="lasot", evaluate="test", manifests={**planned["manifests"], "other/official": "a" * 64})
    assert set(mine.manifests) == {"lasot/official"}
    chosen = task(dataset="got10k", got10k_train="all").planned_fields(root)["manifests"]
    assert set(chosen) == {"got10k/all"}


def test_all_sets_that_are_missing_are_named(tmp_path: Path) -> None:
    lasot(tmp_path / "lasot")
    assert task(dataset="lasot", evaluate="test").missing_data(tmp_path) is None
    alone = task(dataset="got10k", train_sets=["got10k", "lasot"]).missing_data(tmp_path)
    several = task(dataset="got10k", train_sets=["got10k", "trackingnet", "lasot", "coco-boxes"]).missing_data(tmp_path)
    assert alone is not None
    assert alone.startswith("got10k: not found")
    assert several == f"{alone} Not there either: trackingnet, coco-boxes (`data ls` says how to get them)."


def test_another_number_of_sequences_than_published_is_noted_in_tables(tmp_path: Path) -> None:
    """Of the parts that are used, and not in the key: the manifests are in it."""
    root = all_four(tmp_path)
    fields = {"dataset": "got10k", "train_sets": ["lasot", "coco-boxes"]}
    planned = task(**fields).planned_fields(root)
    some = task(**fields, **planned)
    no_comparison = "compare with nothing published"
    assert some.caveats == (
        f"got10k: 2 of 180 published sequences of val: {no_comparison}",
        f"lasot: 3 of 1,120 published sequences of train: {no_comparison}",
        f"coco-boxes: 4 of 117,266 published sequences of train: {no_comparison}",
    )
    assert task(**fields).caveats == task(**fields, manifests=planned["manifests"]).caveats == ()
    plain = task(**fields, manifests=planned["manifests"])
    assert some.key_content(key_content(some)) == plain.key_content(key_content(plain))
    mine = described(own(tmp_path / "own"))
    assert task(dataset=mine, **task(dataset=mine).planned_fields(root)).caveats == ()


def opened(some: Tracking, root: Path, **context: Any) -> TrackingLoaders:
    place = DataContext(root, (64, 64), "cpu", **{"seed": 5, "batch": 8, **context})
    loaders = some.loaders(place)
    assert isinstance(loaders, TrackingLoaders)
    return loaders


def test_data_that_are_not_those_of_the_plan_are_refused(tmp_path: Path) -> None:
    base = own(tmp_path / "own")
    fields = {"dataset": described(base)}
    planned = task(**fields, manifests=task(**fields).planned_fields(tmp_path)["manifests"])
    opened(planned, tmp_path)
    (base / "train" / "boat" / "boxes.txt").write_text("1,1,5,5\n" * 8)
    with pytest.raises(DataError, match="own: the sequences are not those that the trial was planned with"):
        opened(planned, tmp_path)


def test_test_is_opened_by_trials_that_may_alone(tmp_path: Path) -> None:
    some = task(dataset=described(shared_sequences()), evaluate="test")
    with pytest.raises(DataError, match="test images are opened only by trials that come after every choice"):
        opened(some, tmp_path)
    opened(some, tmp_path, may_test=True)


@pytest.mark.parametrize("name", ["got10k", "trackingnet", "lasot"])
def test_the_published_layouts_train_and_are_tracked(name: str, tmp_path: Path) -> None:
    """With COCO's still pairs beside them; where boxes are not public the trial ends with a submission."""
    some = task(dataset=name, train_sets=[name, "coco-boxes"], evaluate="test")
    root = all_four(tmp_path)
    loaders = opened(some, root, may_test=True)
    torch.manual_seed(0)
    model = some.build(TINY, None)
    for batch in loaders.epoch(0):
        terms, below = some.loss(model, batch), some.denominators(batch)
        assert all(torch.isfinite(terms[key]) and below[key] > 0 for key in ("varifocal", "giou"))
    summary = some.summarize(list(some.measure(model.eval(), loaders.evaluation())))
    if name == "lasot":
        assert summary.submission is None
        assert set(summary.figures) == {metric.name for metric in some.metrics}
        return
    assert summary.figures == {}
    assert summary.submission is not None
    file, content = summary.submission
    assert file == f"{name}-test.zip"
    names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    assert len(names) == {"got10k": 4, "trackingnet": 2}[name]
    assert some.pictures(model, loaders).keys() == {"tracks"}  # no overlap is known


def test_got10k_takes_the_sequences_that_are_asked_for(tmp_path: Path) -> None:
    root = all_four(tmp_path)
    loaders = opened(task(dataset="got10k"), root)
    assert len(loaders._evaluated) == 2
    trained, _ = task(dataset="got10k", got10k_train="all")._data.read(root)
    assert len(trained[0]) == len(GOT10K_TRAIN)


def test_figures_and_rows_of_an_evaluation(tmp_path: Path) -> None:
    some = task(dataset=described(shared_sequences()), baselines=True)
    loaders = opened(some, tmp_path)
    torch.manual_seed(0)
    model = some.build(TINY, None).eval()
    parts = json.loads(json.dumps(list(some.measure(model, loaders.evaluation()))))  # as a later attempt reads them
    summary = some.summarize(parts)
    rows = list(summary.measurements)
    assert [metric.name for metric in some.metrics][:2] == ["success_mean", "precision"]
    assert [metric.title for metric in some.metrics][-2:] == [
        "SUC of a box that never moves", "SUC of cross-correlation",
    ]  # fmt: skip
    own_rows = [row.value for row in rows if row.figure == "success_mean"]
    assert {row.item for row in rows if row.figure == "ao"} == {"bird", "cup"}
    assert summary.figures["success_mean"] == pytest.approx(np.mean(own_rows))
    curve = {row.layer: row.value for row in rows if row.figure == "success"}
    assert list(curve) == [*range(0, 101, 5)]
    assert np.mean(list(curve.values())) == pytest.approx(summary.figures["success_mean"])
    assert set(some.measured_figures) == {row.figure for row in rows}
    assert 0 < summary.figures["still"] < 1
    assert some.facts(model)["tracking"]["frames"] == 16
    again = dict(some.summarize(list(some.measure(model, loaders.evaluation()))).figures)
    assert again == summary.figures


def test_figures_with_another_template_are_asked_for(tmp_path: Path) -> None:
    fields = {"dataset": described(shared_sequences())}
    some, plain = task(**fields, other_template=True, baselines=True), task(**fields)
    assert "other_template" in some.key_content(key_content(some))
    assert "other_template" not in plain.key_content(key_content(plain))
    loaders = opened(some, tmp_path)
    torch.manual_seed(0)
    model = some.build(TINY, None).eval()
    parts = json.loads(json.dumps(list(some.measure(model, loaders.evaluation()))))
    assert some.facts(model)["tracking"]["frames"] == 16
    found = some.summarize(parts).figures
    assert list(found)[-3:] == ["still", "match", "other"]
    assert [metric.title for metric in some.metrics][-1] == "SUC with another's template"
    before = plain.summarize(list(plain.measure(model, loaders.evaluation()))).figures
    assert {name: found[name] for name in before} == before


def test_a_sequence_that_does_not_show_its_object_at_first_is_refused() -> None:
    with pytest.raises(
        DataError, match=r"squares: sequence square 0 cannot be tracked: its first box .* has no area, or is marked"
    ):
        Tracked(Squares(1, hidden={0: [0]}), 0)
