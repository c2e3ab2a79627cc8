"""Metrics of plugins: what their functions get, how a task names and chooses them, and what they may not return."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from task_figures import figures_of
from torch import Tensor, nn

from tasks import plugged
from tasks.classification.plugin_metrics import of_plugin
from tasks.classification.task import Classify
from tasks.datasets.augment import Augment
from tasks.errors import PluginError
from tasks.metrics import FromLogits, Metric

SEEN: list[tuple[Tensor, Tensor]] = []


def second(logits: Tensor, labels: Tensor) -> Tensor:
    """How often the label is the second guess; spoils what it got, which nobody else may notice."""
    SEEN.append((logits.clone(), labels.clone()))
    right = logits.topk(2).indices[:, 1] == labels if labels.ndim == 1 else labels[labels >= 0]
    logits.zero_()
    return right.double().mean()


@pytest.fixture(autouse=True)
def metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    SEEN.clear()
    for better in ("higher", "lower", "neither"):
        metric = Metric(f"second_{better}", f"second guess, {better}", better)  # type: ignore[arg-type]
        monkeypatch.setitem(plugged.METRICS, metric.name, ("plug_y", FromLogits(metric, second)))


def classify(dataset: str = "digits", **fields: Any) -> Classify:
    return Classify.model_validate({"kind": "classify", "dataset": dataset, "augment": Augment.none(), **fields})


class AsGiven(nn.Module):
    """Its images are the logits."""

    def forward(self, images: Tensor) -> Tensor:
        return images


def batches(logits: Tensor, labels: Tensor, size: int) -> list[dict[str, Any]]:
    return [
        {"images": logits[start : start + size], "labels": labels[start : start + size], "item": f"{start:05}"}
        for start in range(0, len(labels), size)
    ]


def test_the_function_gets_all_images_in_order_whatever_the_batches() -> None:
    draw = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(23, 10, generator=draw).double(), torch.randint(10, (23,), generator=draw)
    task = classify(plugin_metrics=["second_lower", "second_higher"])
    plain = figures_of(classify(), AsGiven(), batches(logits, labels, 23))
    expected = (logits.argsort(1, descending=True)[:, 1] == labels).double().mean().item()
    for size in (23, 5):
        found = figures_of(task, AsGiven(), batches(logits, labels, size))
        assert {name: found[name] for name in plain} == pytest.approx(plain)
        assert [found[name] for name in ("second_lower", "second_higher")] == [expected, expected]
    for given, known in SEEN:
        assert torch.equal(given, logits.float())
        assert (given.dtype, known.dtype, known.shape) == (torch.float32, torch.int64, (23,))
        assert torch.equal(known, labels)


def test_of_several_labels_it_gets_a_row_for_each_image() -> None:
    labels = torch.tensor([[1.0, 0.0, -1.0] + [0.0] * 17, [0.0, 1.0, 0.0] + [-1.0] * 17])
    task = classify("voc2007", plugin_metrics=["second_higher"])
    figures = figures_of(task, AsGiven(), batches(torch.randn(2, 20), labels, 1))
    assert figures["second_higher"] == pytest.approx(labels[labels >= 0].mean().item())
    ((logits, known),) = SEEN
    assert logits.shape == known.shape == (2, 20)
    assert torch.equal(known, labels)


def test_trials_are_chosen_by_what_the_spec_names() -> None:
    assert classify(plugin_metrics=["second_higher"]).metric == "top1"
    chosen = classify(plugin_metrics=["second_lower"], choose_by="second_lower")
    assert (chosen.metric, chosen.mode) == ("second_lower", "min")
    assert [metric.name for metric in chosen.metrics] == ["second_lower", "top1", "mean_per_class", "loss"]
    assert (classify(choose_by="loss").metric, classify(choose_by="loss").mode) == ("loss", "min")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"plugin_metrics": ["second_highr"]}, r"second_highr: no plugin of this job has .*nearest: second_hi"),
        ({"plugin_metrics": ["second_lower"] * 2}, "second_lower stands there twice"),
        ({"choose_by": "second_lower"}, "choose_by: second_lower: no such figure of this task; figures: top1, mea"),
        ({"plugin_metrics": ["second_neither"], "choose_by": "second_neither"}, "no value of it is better"),
        ({"choose_by": "top1", "knn": {"choose": True}}, r"choose_by top1 and knn\.choose both say"),
        ({"probe": "knn", "plugin_metrics": ["second_lower"]}, "probe knn has no classifier, and plugin_metrics"),
    ],
)  # fmt: skip
def test_wrong_names_and_choices_are_told(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        classify(**fields)


def raises(logits: Tensor, labels: Tensor) -> float:
    raise KeyError("no such\nclass")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda logits, labels: math.nan, r"its function <lambda> \(.*test_plugin_metrics\.py\) returned nan"),
        (lambda logits, labels: logits.sum() / 0, "returned inf: return a finite number for every model"),
        (lambda logits, labels: logits.argmax(1) == labels, r"returned a tensor of shape \(4,\): return one number"),
        (lambda logits, labels: "0.5", r"returned str: return one number \(a float\)"),
        (lambda logits, labels: None, "returned NoneType: return one number"),
        (lambda logits, labels: True, "returned bool: return one number"),
        (raises, r"raised KeyError: 'no such\\nclass' \(.*test_plugin_metrics\.py, line \d+\) for logits"),
    ],
)  # fmt: skip
def test_what_is_no_finite_number_names_the_function(
    function: Callable[[Tensor, Tensor], Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = FromLogits(Metric("odd", "odd", "higher"), function)
    monkeypatch.setitem(plugged.METRICS, "odd", ("plug_y.odd", odd))
    with pytest.raises(PluginError, match=message) as caught:
        of_plugin("odd", torch.ones(4, 3), torch.zeros(4, dtype=torch.int64))
    assert str(caught.value).startswith("plugin plug_y.odd: METRICS: odd: ")
    assert "\n" not in str(caught.value)


def test_logits_that_are_not_finite_are_named_as_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    mean = FromLogits(Metric("mean", "mean", "higher"), lambda logits, labels: logits.mean().item())
    monkeypatch.setitem(plugged.METRICS, "mean", ("plug_y", mean))
    assert of_plugin("mean", torch.ones(4, 3), torch.zeros(4)) == 1
    with pytest.raises(PluginError, match="for every model; not all logits are finite"):
        of_plugin("mean", torch.full((4, 3), math.nan), torch.zeros(4))


@pytest.mark.parametrize("value", [np.float32(0.5), np.array([0.5]), torch.tensor([0.5]), np.float64(0.5)])
def test_one_number_of_numpy_or_torch_is_one_number(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    half = FromLogits(Metric("half", "half", "higher"), lambda logits, labels: value)
    monkeypatch.setitem(plugged.METRICS, "half", ("plug_y", half))
    assert of_plugin("half", torch.ones(4, 3), torch.zeros(4)) == 0.5
