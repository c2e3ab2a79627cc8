"""Reads the data sets of labelled images as they lie on disk: files, labels and parts, by their own lists."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from tasks.datasets.files import below
from tasks.datasets.labelled.card import LabelledCard
from tasks.datasets.labelled.imagenet_lists import IMAGENET_READERS
from tasks.datasets.labelled.kornblith12_lists import K12_READERS
from tasks.datasets.labelled.parts import Part, Read, Reader
from tasks.errors import DataError


def read(card: LabelledCard, root: Path, part: Part, split_seed: int, any_count: bool = False) -> Read:
    """Images and labels of a part as its makers split it: train, val, test where val is official, else trainval, test.

    Raises DataError when files are missing, or when counts or classes are not as the card states (with `any_count`,
    only when classes are impossible).
    """
    images, labels = listed(card, root, part, split_seed)
    checked(card, root, part, labels, any_count)
    return images, labels


def listed(card: LabelledCard, root: Path, part: Part, split_seed: int) -> Read:
    """`read` without checking counts. Raises DataError when files are missing, when lists are damaged, and when they
    name a file that is not below the folder of the data."""
    problem = card.missing(root)
    if problem:
        raise DataError(problem)
    try:
        images, labels = _READERS[card.name](card, root, part, split_seed)
        if isinstance(images, list):
            for _ in below(root, images):
                pass
        return images, labels
    except Exception as error:  # whatever json, scipy, torchvision and expat raise on a damaged list
        said = isinstance(error, OSError | ValueError | RuntimeError) and str(error)
        reason = error if said else f"{type(error).__name__}: {error}"
        raise DataError(f"{card.name}: lists under {root} cannot be read: {reason}. {card.how_to_get}") from error


def checked(card: LabelledCard, root: Path, part: Part, labels: list[Any], any_count: bool) -> None:
    """Raises DataError as `read` does, for a part of these labels."""
    problem = wrong_counts(card, part, labels)
    if problem and not any_count:
        raise DataError(
            f"{card.name}: {problem[0]} under {root}, expected {problem[1]}; get the missing ones "
            f"({card.how_to_get}) or set task.counts: any, and call the result not comparable"
        )
    classes = classes_of(labels)
    if not labels or not classes <= set(range(card.classes)) or (len(classes) < card.classes and not any_count):
        raise DataError(f"{card.name}: {len(classes)} classes in {part} under {root}, expected {card.classes}")


def wrong_counts(card: LabelledCard, part: Part, labels: list[Any]) -> tuple[str, str] | None:
    """(counts on disk, counts expected) in words, when they differ; else None."""
    if card.per_class is None or part == "test":
        expected = getattr(card, part)
        return (f"{len(labels)} images in {part}", str(expected)) if len(labels) != expected else None
    low, high = card.per_class
    odd = [(label, count) for label, count in sorted(Counter(labels).items()) if not low <= count <= high]
    if not odd:
        return None
    label, count = odd[0]
    more = f" (and {len(odd) - 1} other classes)" if len(odd) > 1 else ""
    return f"{count} images in {part} of class {label}{more}", f"{low} to {high}"


def classes_of(labels: list[Any]) -> set[int]:
    """The classes that occur."""
    if labels and isinstance(labels[0], list):
        return {number for row in labels for number, there in enumerate(row) if there == 1}
    return set(labels)


_READERS: dict[str, Reader] = {**K12_READERS, **IMAGENET_READERS}
