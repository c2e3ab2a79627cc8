"""Measures classifiers: what each evaluation batch gives, and the figures that all of them amount to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.base import Batch
from tasks.classification.nearest import classified, unit
from tasks.classification.plugin_metrics import of_plugin
from tasks.classification.probe import features_of, forward
from tasks.classification.voc_precision import average_precision
from tasks.metrics import Measurement, Summary

if TYPE_CHECKING:
    from tasks.classification.neighbours import NearestNeighbours
    from tasks.datasets.labelled.card import LabelledCard


@dataclass(frozen=True)
class Features:
    """Features of images, (n, channels) of length 1, and their labels (n,); both on the CPU."""

    features: Tensor
    labels: Tensor
    reference: bool
    """True for training images, which vote; false for those to evaluate on."""


@dataclass(frozen=True)
class Answers:
    """What the classifier made of a batch."""

    right: Tensor
    """(classes,): images of each class that were classified correctly; with several labels logits (n, classes)."""
    labels: Tensor
    """(classes,): images of each class; with several labels (n, classes)."""
    loss: float
    """Summed over the images."""
    names: Sequence[str]
    """Of the classes, where the data have them."""
    outputs: tuple[Tensor, Tensor] | None = None
    """Logits (n, classes) in fp32 and labels of the images, on the CPU; None where no plugin's metric needs them."""


def measured(
    model: nn.Module, batches: Iterable[Batch], card: LabelledCard, headless: bool, knn: bool, outputs: bool = False
) -> Iterator[tuple[str, tuple[Answers | None, Features | None]]]:
    """The part of each batch, see `Task.measure`. `headless`: the model has no classifier and gives features.
    `outputs`: keep all logits."""
    with features_of(model) if knn and not headless else nullcontext() as kept:
        for batch in batches:
            output, labels = forward(model, batch["images"]) if knn else model(batch["images"]), batch["labels"]
            features = None
            if knn:
                pooled = output.flatten(1) if kept is None else kept.take()
                features = Features(unit(pooled), labels.cpu(), bool(batch.get("reference")))
            asked = not headless and not batch.get("reference")
            answers = _answers(output.float(), batch, card) if asked else None
            if answers is not None and outputs:
                answers = replace(answers, outputs=(output.float().cpu(), labels.cpu()))
            yield batch["item"], (answers, features)


def _answers(logits: Tensor, batch: Batch, card: LabelledCard) -> Answers:
    labels, names = batch["labels"], batch.get("class_names", ())
    if card.several_labels:
        return Answers(logits.cpu(), labels.cpu(), 0.0, names)
    right = labels[logits.argmax(1) == labels]
    counts = [each.bincount(minlength=card.classes).cpu() for each in (right, labels)]
    return Answers(counts[0], counts[1], functional.cross_entropy(logits, labels, reduction="sum").item(), names)


def summarized(
    parts: Sequence[tuple[Answers | None, Features | None]],
    card: LabelledCard,
    knn: NearestNeighbours | None,
    metrics: Sequence[str] = (),
) -> Summary:
    """The figures of all parts; see `Classify.summarize`. `metrics`: names of those of plugins to compute too."""
    answers = [answer for answer, _ in parts if answer is not None]
    summary = Summary({})
    if answers:
        summary = _several(answers) if card.several_labels else _single(answers)
    kept = [answer.outputs for answer in answers if answer.outputs is not None]
    if metrics and kept:
        logits, labels = (torch.cat([pair[n] for pair in kept]) for n in (0, 1))
        more = {name: of_plugin(name, logits, labels) for name in metrics}
        summary = replace(summary, figures={**summary.figures, **more})
    if knn is None:
        return summary
    features = [each for _, each in parts if each is not None]
    figures, shares = _nearest(features, knn)
    return Summary({**summary.figures, **figures}, summary.measurements, {**summary.shares, **shares})


def _single(answers: Sequence[Answers]) -> Summary:
    right, labels = (torch.stack([getattr(answer, name) for answer in answers]).sum(0) for name in ("right", "labels"))
    present, total = labels > 0, labels.sum().item()
    of_class = right[present].double() / labels[present]
    rows = zip(present.nonzero().flatten().tolist(), of_class.tolist(), strict=True)
    return Summary(
        {
            "top1": right.sum().item() / total,
            "mean_per_class": of_class.mean().item(),
            "loss": sum(answer.loss for answer in answers) / total,
        },
        [Measurement("mean_per_class", value, class_name(number, answers[0].names)) for number, value in rows],
        shares={"top1": int(total)},
    )


def class_name(number: int, names: Sequence[str]) -> str:
    """The name of a class; its number where the data have no names."""
    return names[number] if names else str(number)


def _several(answers: Sequence[Answers]) -> Summary:
    logits, labels = (torch.cat([getattr(answer, name) for answer in answers]) for name in ("right", "labels"))
    each = [average_precision(logits[:, n].numpy(), labels[:, n].numpy()) for n in range(labels.shape[1])]
    shown = {number: value for number, value in enumerate(each) if not np.isnan(value)}
    rows = [Measurement("map11", value, class_name(number, answers[0].names)) for number, value in shown.items()]
    precision = float(np.mean(list(shown.values()))) if shown else float("nan")
    return Summary({"map11": precision, "loss": binary_loss(logits, labels).item()}, rows)


def _nearest(parts: Sequence[Features], knn: NearestNeighbours) -> tuple[dict[str, float], dict[str, int]]:
    """The figure `knn`, and the number of images that it is a share of."""
    bank, queries = ([part for part in parts if part.reference is wanted] for wanted in (True, False))
    labels, wanted = (torch.cat([part.labels for part in some]) for some in (bank, queries))
    voted = classified(
        torch.cat([part.features for part in queries]), torch.cat([part.features for part in bank]), labels,
        int(labels.max()) + 1, knn.k, knn.temperature,
    )  # fmt: skip
    return {"knn": (voted == wanted).double().mean().item()}, {"knn": len(wanted)}


def binary_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean binary cross entropy over images and classes, (n, classes) both; labels of -1 do not count."""
    counted = labels >= 0
    return functional.binary_cross_entropy_with_logits(logits[counted], labels[counted].to(logits.dtype))
