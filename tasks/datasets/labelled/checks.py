"""Compares a data set of labelled images on disk with what is stated of it: a line for each fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.datasets.checks import compare_manifest, look_at_files
from tasks.datasets.files import SHOWN, first_few
from tasks.datasets.info import Finding, Watch, unwatched
from tasks.datasets.labelled import partition
from tasks.datasets.labelled.card import LabelledCard, SplitSpec
from tasks.datasets.manifest import FOLDER, Manifest
from tasks.errors import DataError

if TYPE_CHECKING:
    from tasks.datasets.labelled.parts import Part

LOST = "results on other images than the published ones cannot be compared with them (task.counts: any)"


def check(
    card: LabelledCard,
    root: Path,
    split: SplitSpec,
    folders: Sequence[Path] = (),
    images: bool = False,
    watch: Watch = unwatched,
) -> Finding:
    """Looks at lists, counts, classes and files; with `images` also opens every image (minutes to hours).

    `folders`: where its manifest may lie beside root/splits.
    """
    finding, of = Finding(), split.of(card)
    problem = of.missing(root)
    if problem and of.own:
        finding.problems.append(problem.removeprefix(f"{card.name}: "))
        return finding
    if problem:
        finding.problems += [f"{root / name} is not there" for name in of.needs if not (root / name).exists()]
        return finding
    try:
        manifest = partition.make(card, root, split, folders)
    except DataError as error:
        finding.problems.append(str(error).removeprefix(f"{card.name}: "))
        return finding
    finding.counts, finding.digest = manifest.counts, manifest.digest
    finding.split, finding.classes = split.name(card), of.classes
    finding.expected = of.trainval + of.test if of.per_class is None else None
    if of.partly_lost and sum(finding.counts.values()) != finding.expected:
        finding.notes.append(LOST)
    _count(of, manifest, finding)
    if of.source != "folder":
        if finding.digest != card.digest:
            what = f"the packages hold other images: SHA-256 {finding.digest}, expected {card.digest}"
            finding.problems.append(what)
        return finding
    paths = None
    if of.own is None:
        compare_manifest(card.name, partition.file_name(card, split), [root / FOLDER, *folders], finding)
    else:  # planning lists them anew and writes another manifest
        finding.notes += _same_bytes(manifest)
        if of.classes == 1 and not of.several_labels:
            finding.notes.append("one class only: for tasks that read no labels (pretrain, analysis)")
        paths = of.own.opened(of.base(root), [str(image) for image in manifest.images])
    look_at_files(card.name, of.files_root(root), manifest, images, watch, finding, paths)
    return finding


def _same_bytes(manifest: Manifest) -> list[str]:
    """Says how many images of val and test are, byte for byte, among those to train on."""
    by_part: dict[str, set[str]] = {}
    for (_, digest), part in zip(manifest.contents, manifest.parts, strict=True):
        by_part.setdefault(part, set()).add(digest)
    pairs = [("test", "train"), ("test", "val"), ("val", "train")]
    both = {(a, b): len(by_part.get(a, set()) & by_part.get(b, set())) for a, b in pairs}
    return [f"{many:,} images of {a} have the very bytes of images of {b}" for (a, b), many in both.items() if many]


def _count(card: LabelledCard, manifest: Manifest, finding: Finding) -> None:
    """Images of each part, and classes of each part."""
    parts: list[Part] = ["train", "val"] if card.official_val else ["trainval"]
    by_part: dict[Part, list[Any]] = {}
    for part in [*parts, *(["test"] if card.test else [])]:
        wanted = ("train", "val") if part == "trainval" else (part,)
        labels = [label for label, own in zip(manifest.annotations, manifest.parts, strict=True) if own in wanted]
        by_part[part] = labels  # type: ignore[index]
        finding.problems += _faults_of_part(card, part, labels)  # type: ignore[arg-type]
    learnt = [label for part in parts for label in by_part[part]]
    for name, labels in (("train + val", learnt), ("test", by_part.get("test", []))):
        numbers = Counter(number for label in labels for number in _classes(label))
        if numbers:
            finding.balance[name] = min(numbers.values()), max(numbers.values())


def _faults_of_part(card: LabelledCard, part: Part, labels: list[Any]) -> list[str]:
    from tasks.datasets.labelled.readers import classes_of, wrong_counts

    faults = []
    wrong = wrong_counts(card, part, labels)
    if wrong:
        faults.append(f"{wrong[0]}, expected {wrong[1]}")
    classes = classes_of(labels)
    odd = classes - set(range(card.classes))
    if card.draws_test and len(classes) != card.classes:  # labels count folders: they do not tell which one it is
        return [*faults, f"{len(classes)} folders of classes with images in {part}, expected {card.classes}"]
    if odd:
        faults.append(f"{part} has labels beyond the {card.classes} classes: {sorted(odd)[:SHOWN]}")
    if len(classes - odd) < card.classes and not (
        card.own and part in ("val", "test")
    ):  # these need not have every one
        absent = sorted(set(range(card.classes)) - classes)
        faults.append(f"{len(absent)} of {card.classes} classes have no image in {part}: {first_few(absent)}")
    return faults


def _classes(label: Any) -> list[int]:
    return [number for number, value in enumerate(label) if value == 1] if isinstance(label, list) else [label]
