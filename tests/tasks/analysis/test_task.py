"""The analysis task: its options, the images it takes, a trial that is interrupted, two models, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from analysed_models import ATTENTIVE, REPLKNET, RESNET, sharpen
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save
from task_figures import figures_of
from tiny_task import run

from tasks.analysis.images import Choice
from tasks.analysis.task import Analyse
from tasks.backbones.spec import BackboneSpec
from tasks.base import DataContext
from tasks.classification.task import Classify
from tasks.errors import DataError
from workers.checkpoint import load_weights
from workers.errors import Stopped, TrialError
from workers.messages import Outcome, Weights
from workers.trial import TrialSpec

VIT = ATTENTIVE["vit"]
SMALL: dict[str, Any] = {"dataset": "digits", "normalize": "half", "images": 20, "cka_batch": 10, "batch": 4}


def task(**options: Any) -> Analyse:
    return Analyse(**{**SMALL, **options})


def trial(backbone: BackboneSpec = VIT, **options: Any) -> TrialSpec:
    return TrialSpec(task=task(**options), backbone=backbone)


def values(outcome: Outcome, folder: Path) -> dict[tuple[str, int, int | None, str], float]:
    """The rows that a trial wrote."""
    assert outcome.measurements is not None
    rows = [json.loads(line) for line in (folder / outcome.measurements).read_text().splitlines()]
    return {(row["figure"], row["layer"], row["head"], row["item"]): row["value"] for row in rows}


def test_a_trial_that_was_stopped_measures_only_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.analysis.measuring import Subject

    whole, reports = run(trial(), tmp_path / "whole")
    assert [report.epoch for report in reports] == [1]
    chunks: list[int] = []
    of_chunk = Subject.chunk

    def counted(self: Subject, images: torch.Tensor) -> dict[str, Any]:
        chunks.append(len(images))
        return of_chunk(self, images)

    monkeypatch.setattr(Subject, "chunk", counted)
    with pytest.raises(Stopped):
        run(trial(), tmp_path / "parts", lambda: bool(chunks))
    assert chunks == [10]
    parts, _ = run(trial(), tmp_path / "parts")
    assert chunks == [10, 10]
    assert parts.figures == whole.figures
    assert values(parts, tmp_path / "parts") == values(whole, tmp_path / "whole")
    written = values(whole, tmp_path / "whole")
    assert len(written) == 2 * (2 * 4 + 12 + 2) + 4
    assert written["cka", 0, None, "0"] == pytest.approx(1)


def test_everything_that_was_decided_is_recorded(tmp_path: Path) -> None:
    outcome, _ = run(trial(sensitivity=["biased"], images=21), tmp_path)
    facts = outcome.facts["analysis"]
    assert facts["cka_batches"] == [7, 7, 7]
    assert [layer["features"] for layer in facts["cka_layers"]] == [65 * 32] * 2
    assert facts["attention_layers"][0] == {
        "name": "blocks.0", "heads": 4, "attends_over": [8, 8], "pixels": [4, 4], "prefix_tokens": 1, "shifted": False
    }  # fmt: skip
    assert {name: facts[name] for name in ("cls_rule", "eps", "cka", "pooled", "images", "image_seed")} == {
        "cls_rule": "drop_renormalise", "eps": 1e-8, "cka": "unbiased", "pooled": False, "images": 21, "image_seed": 0
    }  # fmt: skip
    assert outcome.facts["preprocessing"] == {
        "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "eval_crop": 0.875
    }  # fmt: skip
    assert set(outcome.figures) == {metric.name for metric in task(sensitivity=["biased"]).metrics}
    json.dumps(outcome.facts, allow_nan=False)


def test_defaults_are_those_of_the_paper_or_stated() -> None:
    whole = Analyse()
    assert (whole.dataset, whole.evaluate, whole.images, whole.cka_batch) == ("imagenet", "val", 1024, 256)
    assert whole.evaluation_samples == 1024
    assert whole.train_samples == 0
    assert [metric.name for metric in whole.metrics] == [
        "attention_distance", "attention_entropy", "head_divergence", "uniform_distance", "uniform_entropy",
        "cka_mean", "cka_min",
    ]  # fmt: skip
    assert [metric.name for metric in task(measures=["cka"], sensitivity=["biased"]).metrics] == [
        "cka_mean", "cka_min", "cka_biased_mean", "cka_biased_min"
    ]  # fmt: skip
    assert whole.metric == "attention_distance"


def test_no_value_of_its_figures_is_better_than_another() -> None:
    assert {metric.better for metric in task(sensitivity=["biased"]).metrics} == {"neither"}
    assert task().mode == "max", "a mode is recorded, and decides nothing"


def test_the_number_and_the_seed_choose_the_images() -> None:
    assert sorted(Choice(None, 5, 4).of(9)) == list(range(9))
    chosen = Choice(5, 0, 4).of(100)
    assert len(set(chosen)) == 5
    assert set(chosen) <= set(range(100))
    assert Choice(5, 0, 4).of(100) == chosen
    assert Choice(5, 1, 4).of(100) != chosen
    with pytest.raises(DataError, match=r"task\.images 5 is more than the 4 images there are"):
        Choice(5, 0, 4).of(4)


@pytest.mark.parametrize("images", [None, 1024])
def test_batches_of_cka_hold_images_of_all_classes(images: int | None) -> None:
    """Of a data set that lies sorted by class: else every batch would be of a few classes, and CKA another number."""
    choice = Choice(images, 0, 256)
    classes = [position // 100 for position in choice.of(2000)]
    batches = [set(classes[chunk]) for chunk in choice.chunks(len(classes))]
    assert len(batches) == (8 if images is None else 4)
    assert batches == [set(range(20))] * len(batches)


@pytest.mark.parametrize(("images", "batch", "sizes"), [
    (1024, 256, [256] * 4), (1000, 256, [250] * 4), (257, 256, [128, 129]), (10, 256, [10]), (7, 3, [2, 2, 3]),
])  # fmt: skip
def test_no_batch_is_much_smaller_than_the_others(images: int, batch: int, sizes: list[int]) -> None:
    chunks = Choice(None, 0, batch).chunks(images)
    assert [chunk.stop - chunk.start for chunk in chunks] == sizes
    assert [i for chunk in chunks for i in range(images)[chunk]] == list(range(images))


def test_images_are_those_that_classification_evaluates(tmp_path: Path) -> None:
    """In memory, and from files: the same pixels as `classify` sees on the same part."""
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / "own" / label).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "own" / label / f"{number}.png")
    own = {"kind": "folder", "path": "own"}
    context = DataContext(tmp_path, (32, 32), device="cpu", seed=0, batch=1)
    for dataset in ("digits", own):
        data = {"dataset": dataset, "normalize": "half"}
        asked = Classify.model_validate(data)
        planned = asked.planned_fields(tmp_path)
        asked = Classify.model_validate({**data, **planned})
        whole = torch.cat([batch["images"] for batch in asked.loaders(
            DataContext(tmp_path, (32, 32), device="cpu", seed=0, batch=4)).evaluation()])  # fmt: skip
        mine = Analyse.model_validate({**data, **planned, "images": None, "cka_batch": 5})
        assert mine.evaluation_samples == len(whole)
        loaders = mine.loaders(context)
        batches = list(loaders.evaluation())
        assert max(len(batch["images"]) for batch in batches) <= 5
        order = Choice(None, 0, 5).of(len(whole))
        torch.testing.assert_close(torch.cat([batch["images"] for batch in batches]), whole[order])
        few = Analyse.model_validate({**data, **planned, "images": 6, "cka_batch": 6})
        chosen = torch.cat([batch["images"] for batch in few.loaders(context).evaluation()])
        torch.testing.assert_close(chosen, whole[Choice(6, 0, 6).of(len(whole))])
        assert few.loaders(context).digest != loaders.digest


def kept(spec: TrialSpec, folder: Path) -> tuple[Outcome, Weights]:
    outcome, _ = run(spec, folder)
    assert outcome.weights is not None
    return outcome, outcome.weights


def learnt(folder: Path, seed: int, backbone: BackboneSpec = VIT) -> tuple[str, Weights]:
    """Key and weights of a short classification trial."""
    spec = TrialSpec.model_validate({
        "task": {"kind": "classify", "dataset": "digits", "augment": {"rand_augment": "none", "color_jitter": 0}},
        "backbone": backbone.model_dump(),
        "optim": {"lr": 0.003, "batch": 64, "epochs": 1, "warmup_epochs": 0},
        "seed": seed,
    })  # fmt: skip
    return spec.key, kept(spec, folder)[1]


def test_weights_of_two_trials_are_compared(tmp_path: Path) -> None:
    """The other model's weights are those that are named: it is like itself, and another seed's is not."""
    (one, first), (two, second) = learnt(tmp_path / "1", 1), learnt(tmp_path / "2", 2)
    parents = {one: first, two: second}

    def compared(other: str, name: str) -> dict[tuple[str, int, int | None, str], float]:
        of, other_backbone = (
            {**VIT.model_dump(), "init": {"kind": "trial", "name": "any", "trial": key}} for key in (one, other)
        )
        spec = TrialSpec.model_validate(
            {"task": {**SMALL, "kind": "analysis", "other": {"backbone": other_backbone}}, "backbone": of}
        )
        assert spec.parents == ((one, two) if other == two else (one,))
        outcome, _ = run(spec, tmp_path / name, parents=parents)
        return values(outcome, tmp_path / name)

    same, differs = compared(one, "same"), compared(two, "differs")
    assert [same["cka", i, None, str(i)] for i in range(2)] == pytest.approx([1, 1])
    assert differs["cka", 1, None, "1"] < 0.999
    assert [same[key] for key in same if key[0] != "cka"] == [differs[key] for key in differs if key[0] != "cka"]


def test_weights_of_the_other_model_that_are_no_numbers_are_one_line(tmp_path: Path) -> None:
    key, weights = learnt(tmp_path / "1", 1)
    tensors = load_weights(weights)
    tensors["blocks.0.norm1.weight"][0] = math.nan
    Path(weights.path).write_bytes(save(dict(tensors)))
    broken = Weights(weights.path, hashlib.sha256(Path(weights.path).read_bytes()).hexdigest())
    other = {**VIT.model_dump(), "init": {"kind": "trial", "name": "MIM", "trial": key}}
    spec = TrialSpec.model_validate(
        {"task": {**SMALL, "kind": "analysis", "other": {"backbone": other}}, "backbone": VIT.model_dump()}
    )
    with pytest.raises(TrialError, match=r"weights MIM: 1 of them are not finite .*'blocks\.0\.norm1\.weight'"):
        run(spec, tmp_path / "broken", parents={key: broken})


def test_weights_of_a_trial_are_those_that_are_measured(tmp_path: Path) -> None:
    """RAND and learnt weights differ, and a checkpoint of another model is one line."""
    key, weights = learnt(tmp_path / "parent", 1)
    init = {"kind": "trial", "name": "SUP", "trial": key}
    spec = TrialSpec.model_validate(
        {"task": {**SMALL, "kind": "analysis"}, "backbone": {**VIT.model_dump(), "init": init}}
    )
    outcome, _ = run(spec, tmp_path / "learnt", parents={key: weights})
    rand, _ = run(trial(), tmp_path / "rand")
    assert outcome.figures["attention_entropy"] != rand.figures["attention_entropy"]
    model = spec.task.build(VIT, load_weights(weights)).eval()
    loaders = spec.task.loaders(DataContext(tmp_path, (32, 32), device="cpu", seed=0, batch=1))
    with torch.no_grad():
        assert figures_of(spec.task, model, loaders.evaluation()) == pytest.approx(outcome.figures)
    with pytest.raises(ValueError, match=r"initial weights do not fit the backbone: .*missing"):
        spec.task.build(ATTENTIVE["swinv2"], load_weights(weights))


def test_windows_of_the_other_model_are_not_those_of_the_first() -> None:
    """Weights with recorded windows are checked against the trial's own backbone alone."""
    from tasks.backbones.swin_windows import reference_windows

    wide = ATTENTIVE["swinv2"].model_copy(update={"args": {**ATTENTIVE["swinv2"].args, "window_size": 8}})
    model = task(other={"backbone": wide}).build(ATTENTIVE["swinv2"], None)
    assert reference_windows(model) == ((4, 4), (4, 4))


@pytest.mark.parametrize("backbone", [ATTENTIVE["swinv2"], ATTENTIVE["beit"], REPLKNET], ids=lambda spec: spec.model)
def test_every_family_runs_whole(backbone: BackboneSpec, tmp_path: Path) -> None:
    outcome, _ = run(trial(backbone, re_param=True), tmp_path)
    assert set(outcome.figures) == {metric.name for metric in task().metrics}
    assert outcome.facts["analysis"]["re_param"] is True


def test_cka_needs_no_attention_and_no_images_of_labels(tmp_path: Path) -> None:
    outcome, _ = run(trial(RESNET, measures=["cka"]), tmp_path)
    assert set(outcome.figures) == {"cka_mean", "cka_min"}


def test_results_do_not_depend_on_the_batch_and_do_on_the_draw(tmp_path: Path) -> None:
    spec = trial(ATTENTIVE["swinv2"])
    one, few, others = (
        run(trial(ATTENTIVE["swinv2"], **options), tmp_path / str(number))[0].figures
        for number, options in enumerate(({}, {"batch": 1}, {"image_seed": 1}))
    )
    assert few == pytest.approx(one, rel=1e-5)
    assert others != pytest.approx(one, rel=1e-5)
    assert trial(ATTENTIVE["swinv2"], image_seed=1).key != spec.key
    assert trial(ATTENTIVE["swinv2"], image_seed=0).key == spec.key


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": 1}, "images 1: unbiased CKA needs at least 4 images in a batch"),
        ({"cka_batch": 3}, "cka_batch 3: unbiased CKA needs at least 4"),
        ({"cka_batch": 4, "images": 9}, "cka_batch 4: it divides 9 images into batches of which one has 3"),
        ({"cka_batch": 2, "images": 3, "cka": "biased"}, "of which one has 1, and biased CKA needs at least 2; raise"),
        ({"cka": "biased", "sensitivity": ["unbiased"], "images": 3}, "images 3: unbiased CKA needs at least 4"),
        ({"cka": "biased", "images": 1}, "images 1: biased CKA needs at least 2"),
        ({"images": 100000}, r"images 100000 is more than the \d+ val images of digits: lower it, or set it to null"),
        ({"sensitivity": ["unbiased"]}, "names an estimator that is measured already"),
        ({"measures": ["attention"], "sensitivity": ["biased"]}, "sensitivity is about CKA: add cka to measures"),
        ({"measures": ["attention"], "other": {"backbone": VIT}}, "other is about CKA: add cka to measures"),
        ({"measures": ["cka", "cka"]}, "names one twice"),
        ({"measures": []}, "at least 1 item"),
        ({"dataset": "digitz"}, "digitz"),
        ({"eps": 0}, "greater than 0"),
    ],
)
def test_options_that_cannot_be_had_are_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        task(**options)
    assert len(caught.value.errors()) == 1


def test_one_image_is_enough_for_attention(tmp_path: Path) -> None:
    outcome, _ = run(trial(images=1, measures=["attention"]), tmp_path)
    assert outcome.figures["uniform_distance"] > 0


def test_models_that_cannot_be_had_are_one_line() -> None:
    with pytest.raises(ValueError, match=r"ResNet has no attention that this analysis knows .*task\.measures"):
        task().build(RESNET, None)
    odd = ATTENTIVE["swinv2"].model_copy(update={"image_size": 40})
    with pytest.raises(ValueError, match="window 4 does not divide a map of 10 x 10 tokens"):
        task().build(odd, None)
    other = VIT.model_copy(update={"image_size": 64})
    with pytest.raises(ValidationError, match=r"task\.other\.backbone\.image_size 64 is not backbone\.image_size 32"):
        trial(other={"backbone": other})
    with pytest.raises(ValidationError, match=r"task\.preprocessing weights is what timm states"):
        trial(preprocessing="weights")
    merged = REPLKNET.model_copy(update={"args": {**REPLKNET.args, "merged": True}})
    with pytest.raises(ValueError, match=r"hold merged kernels alone.*task\.re_param to true"):
        task().build(merged, None)
    task(re_param=True).build(merged, None)


def test_models_are_checked_without_memory() -> None:
    with torch.device("meta"):
        for spec in (*ATTENTIVE.values(), REPLKNET):
            task(re_param=True).build(spec, None)
        with pytest.raises(ValueError, match="no attention"):
            task().build(RESNET, None)


def test_test_images_stay_closed_before_the_choice(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="asks for test data before selection"):
        trial(evaluate="test")
    context = DataContext(tmp_path, (32, 32), device="cpu", seed=0, batch=1)
    with pytest.raises(DataError, match="test images are opened only by trials that come after every choice"):
        task(evaluate="test").loaders(context)


def test_two_trials_of_one_process_do_not_disturb_each_other(tmp_path: Path) -> None:
    """A classification trial after an analysis has the figures that it has without one."""
    _, alone = learnt(tmp_path / "alone", 3)
    run(trial(), tmp_path / "analysis")
    _, after = learnt(tmp_path / "after", 3)
    assert after.sha256 == alone.sha256


def test_sharp_heads_have_low_entropy_and_diverge(tmp_path: Path) -> None:
    """The figures see what was done to the weights."""
    spec = task(measures=["attention"])
    model = spec.build(VIT, None).eval()
    loaders = spec.loaders(DataContext(tmp_path, (32, 32), device="cpu", seed=0, batch=1))
    with torch.no_grad():
        flat = figures_of(spec, model, loaders.evaluation())
        sharpen(model)
        sharp = figures_of(spec, model, loaders.evaluation())
    assert flat["attention_entropy"] == pytest.approx(flat["uniform_entropy"], rel=0.01)
    assert flat["attention_distance"] == pytest.approx(flat["uniform_distance"], rel=0.01)
    assert sharp["attention_entropy"] < 0.9 * flat["attention_entropy"]
    assert sharp["head_divergence"] > 10 * flat["head_divergence"]


def test_a_compiled_model_is_measured_like_any_other(tmp_path: Path) -> None:
    """Hooks see nothing of a compiled graph: the layers themselves are run."""
    spec = task(measures=["attention"])
    model = spec.build(VIT, None).eval()
    loaders = spec.loaders(DataContext(tmp_path, (32, 32), device="cpu", seed=0, batch=1))
    with torch.no_grad():
        plain = figures_of(spec, model, loaders.evaluation())
        model.compile(backend="eager")
        assert figures_of(spec, model, loaders.evaluation()) == plain
