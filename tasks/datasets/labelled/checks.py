"""The only place that holds a data set on disk against what is stated of it: every fault in one line."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.datasets import manifest as manifests
from tasks.datasets.labelled import partition
from tasks.datasets.labelled.card import LabelledDataset, SplitSpec
from tasks.errors import DataError

if TYPE_CHECKING:
    from tasks.datasets.images.source import Source
    from tasks.datasets.labelled.readers import Part

Watch = Callable[[Iterable[Any], int], Iterable[Any]]
"""Is given what is gone through and its length, and gives it back."""
SHOWN = 3
"""Files that a line names; the others are counted."""


@dataclass
class Finding:
    """What was found; without problems it is what the card says."""

    problems: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    """Images of train, val and test."""
    balance: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Fewest and most images of a class, in train + val and in test."""
    digest: str = ""
    """SHA-256 of the split manifest as the lists give it."""
    manifest: Path | None = None
    """Where it is written, if it is."""
    opened: int | None = None
    """Images that were decoded."""


def check(
    card: LabelledDataset,
    root: Path,
    cut: SplitSpec,
    others: Sequence[Path] = (),
    images: bool = False,
    watch: Watch = lambda items, total: items,
) -> Finding:
    """Looks at lists, counts, classes and files; with `images` also opens every image (minutes to hours).

    `others`: where its manifest may lie beside root/splits.
    """
    found, of = Finding(), cut.of(card)
    if of.missing(root):
        found.problems += [f"{root / name} is not there" for name in of.needs if not (root / name).exists()]
        return found
    try:
        manifest = partition.make(card, root, cut)
    except DataError as error:
        found.problems.append(str(error).removeprefix(f"{card.name}: "))
        return found
    found.counts, found.digest = manifest.counts, manifest.digest
    _count(of, manifest, found)
    if of.source != "folder":
        if found.digest != card.digest:
            found.problems.append(f"the packages hold other images: SHA-256 {found.digest}, expected {card.digest}")
        return found
    _compare(card, root, cut, others, found)
    _look_at_files(card, root, manifest, images, watch, found)
    return found


def _look_at_files(
    card: LabelledDataset, root: Path, manifest: manifests.Manifest, images: bool, watch: Watch, found: Finding
) -> None:
    """Files that the lists name and that are not there (of sets that are arrays or tar files there are none); with
    `images`, those that cannot be decoded."""
    from tasks.datasets.images.open import open_images
    from tasks.datasets.images.source import Files

    paths = [root / name for name in manifest.images if isinstance(name, str)]
    if not paths:
        return
    try:
        source = open_images(card.name, root, paths)
    except DataError as error:
        found.problems.append(str(error).removeprefix(f"{card.name}: "))
        return
    absent = [i for i, path in enumerate(paths) if not _has_content(path)] if isinstance(source, Files) else []
    if absent:
        names = [str(manifest.images[i]) for i in absent]
        found.problems.append(f"{_of(absent, paths)} images that the lists name are not there or empty: {_list(names)}")
    if not images:
        return
    gone = set(absent)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding lets other threads run
        there = [i for i in range(len(paths)) if i not in gone]
        faults = [fault for fault in watch(pool.map(lambda i: _fault(source, i, root), there), len(there)) if fault]
    found.opened = len(there)
    if faults:
        found.problems.append(f"{_of(faults, paths)} images cannot be read: {_list(faults)}")


def _fault(source: Source, index: int, root: Path) -> str:
    """Which image and why, where it cannot be decoded; else empty."""
    try:
        source.image(index)
    except DataError as error:
        return str(error).partition("cannot read image ")[2].rpartition("; ")[0].replace(f"{root}/", "")
    return ""


def _count(card: LabelledDataset, manifest: manifests.Manifest, found: Finding) -> None:
    from tasks.datasets.labelled.readers import classes_of, wrong_counts

    parts: list[Part] = ["train", "val"] if card.official_val else ["trainval"]
    by_part: dict[Part, list[Any]] = {}
    for part in [*parts, *(["test"] if card.test else [])]:
        wanted = ("train", "val") if part == "trainval" else (part,)
        labels = [label for label, own in zip(manifest.labels, manifest.parts, strict=True) if own in wanted]
        by_part[part] = labels  # type: ignore[index]
        wrong = wrong_counts(card, part, labels)  # type: ignore[arg-type]
        if wrong:
            found.problems.append(f"{wrong[0]}, expected {wrong[1]}")
        classes = classes_of(labels)
        odd = classes - set(range(card.classes))
        if card.draws_test and len(classes) != card.classes:  # labels count folders: they do not tell which one it is
            found.problems.append(f"{len(classes)} folders of classes with images in {part}, expected {card.classes}")
            continue
        if odd:
            found.problems.append(f"{part} has labels beyond the {card.classes} classes: {sorted(odd)[:SHOWN]}")
        if len(classes - odd) < card.classes:
            absent = sorted(set(range(card.classes)) - classes)
            found.problems.append(f"{len(absent)} of {card.classes} classes have no image in {part}: {_list(absent)}")
    learnt = [label for part in parts for label in by_part[part]]
    for name, labels in (("train + val", learnt), ("test", by_part.get("test", []))):
        numbers = Counter(number for label in labels for number in _classes(label))
        if numbers:
            found.balance[name] = min(numbers.values()), max(numbers.values())
    twice = [name for name, times in Counter(manifest.images).items() if times > 1]
    if twice:
        found.problems.append(f"{len(twice)} images are listed twice: {_list(twice)}")


def _classes(label: Any) -> list[int]:
    return [number for number, there in enumerate(label) if there == 1] if isinstance(label, list) else [label]


def _compare(card: LabelledDataset, root: Path, cut: SplitSpec, others: Sequence[Path], found: Finding) -> None:
    name = partition.file_name(card, cut)
    paths = [folder / name for folder in (root / manifests.FOLDER, *others)]
    found.manifest = next((path for path in paths if path.exists()), None)
    if found.manifest is None:
        return
    try:
        written = manifests.saved_digest(found.manifest)
    except DataError as error:
        found.problems.append(str(error))
        return
    if written != found.digest:
        found.problems.append(
            f"{found.manifest} was written for other data: SHA-256 {written}; what is here gives {found.digest}; "
            f"`data split {card.name}` writes it anew, and trials on it then run again"
        )


def _has_content(path: Path) -> bool:
    try:
        return os.stat(path).st_size > 0
    except OSError:
        return False


def _of(part: Sequence[Any], whole: Sequence[Any]) -> str:
    return f"{len(part):,} of {len(whole):,}"


def _list(items: Sequence[Any]) -> str:
    more = f", and {len(items) - SHOWN:,} others" if len(items) > SHOWN else ""
    return ", ".join(map(str, items[:SHOWN])) + more
