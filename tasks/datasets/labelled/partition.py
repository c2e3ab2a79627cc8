"""Cuts a labelled data set into train, val and test, and reads the parts back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.datasets.labelled.card import LabelledCard, SplitSpec, held_out_images
from tasks.datasets.manifest import FOLDER, Manifest, load, save, saved_digest
from tasks.errors import DataError

if TYPE_CHECKING:
    from tasks.datasets.labelled.readers import LabelledPart, Part


def file_name(card: LabelledCard, cut: SplitSpec) -> str:
    """For example pets-0.2-0.jsonl."""
    return cut.name(card).replace("/", "-") + ".jsonl"


def make(card: LabelledCard, root: Path, cut: SplitSpec) -> Manifest:
    """From the data set's own lists, without opening an image: as they name them, complete or not.

    Takes about 25 microseconds an image, and for sets that are folders of files (ImageNet, Caltech-101) one listing of
    each folder. Raises DataError when lists are missing or damaged.
    """
    from tasks.datasets.labelled.readers import listed

    of = cut.of(card)
    if of.source != "folder":
        return _of_memory(of, cut)
    names: list[Part] = ["train", "val"] if of.official_val else ["trainval"]
    reads = [(name, listed(of, root, name, cut.split_seed)) for name in names]
    if of.test:
        reads.append(("test", listed(of, root, "test", cut.split_seed)))
    images: list[str | int] = []
    labels: list[Any] = []
    parts: list[str] = []
    for name, (found, its_labels) in reads:
        images += _names(found, root, len(images))
        parts += _held_out(its_labels, cut) if name == "trainval" else [name] * len(its_labels)
        labels += its_labels
    return Manifest(cut.name(card), images, labels, parts, of.classes, rule=of.split)


def _names(images: Any, root: Path, first: int) -> Iterable[str | int]:
    if not isinstance(images, list):
        return range(first, first + len(images))
    start = len(root.as_posix().rstrip("/")) + 1
    return [path.as_posix()[start:] for path in images]


def _held_out(labels: list[Any], cut: SplitSpec) -> list[str]:
    from tasks.datasets.splits import stratified

    held_out = held_out_images(len(labels), cut.val_fraction)
    parts = ["train"] * len(labels)
    for index in stratified(labels, [len(labels) - held_out, held_out], cut.split_seed)[1]:
        parts[index] = "val"
    return parts


def _of_memory(card: LabelledCard, cut: SplitSpec) -> Manifest:
    from tasks.datasets.labelled import bundled_images

    part = bundled_images.load_bundled(card)
    parts = [""] * len(part.labels)
    for name in ("train", "val", "test"):
        for index in getattr(part, name):
            parts[index] = name
    images = range(len(parts))
    content = bundled_images.content(card)
    return Manifest(cut.name(card), images, part.labels.tolist(), parts, card.classes, content, card.split)


def read_both(
    card: LabelledCard,
    root: Path,
    cut: SplitSpec,
    train: Literal["train", "trainval"],
    evaluate: Literal["val", "test"],
    expected: str = "",
    any_count: bool = False,
) -> tuple[LabelledPart, LabelledPart]:
    """What to train on and what to evaluate on: images (files, or arrays) and labels; images of no other part are
    opened. `expected`: the digest of the manifest that the trial was planned with (empty: none was).

    Raises DataError when what is here has another digest, and for missing files, wrong counts and wrong classes.
    """
    from tasks.datasets.labelled.readers import checked

    of = cut.of(card)
    problem = of.missing(root)
    if problem:
        raise DataError(problem)
    manifest = _here(card, root, cut, expected) if expected else make(card, root, cut)
    checks: list[Part] = ["trainval", "test"]
    if of.official_val:
        checks = ["train", "val"] if train == "trainval" else ["train"]
        checks += [evaluate] if evaluate not in checks else []
    elif evaluate == "val":
        checks = ["trainval"]
    for part in checks:
        checked(of, root, part, [manifest.annotations[i] for i in _indices(manifest, part)], any_count)
    first, second = _indices(manifest, train), _indices(manifest, evaluate)
    return _some(of, root, manifest, first), _some(of, root, manifest, second)


def _indices(manifest: Manifest, part: str) -> list[int]:
    wanted = ("train", "val") if part == "trainval" else (part,)
    return [i for i, name in enumerate(manifest.parts) if name in wanted]


def _some(card: LabelledCard, root: Path, manifest: Manifest, indices: list[int]) -> LabelledPart:
    from tasks.datasets.labelled.readers import LabelledPart, listed

    labels = [manifest.annotations[i] for i in indices]
    chosen = [manifest.images[i] for i in indices]
    if all(isinstance(name, str) for name in chosen):
        return LabelledPart([root / str(name) for name in chosen], labels)
    import numpy as np

    positions = np.array(chosen)
    before = len(_indices(manifest, "trainval"))
    is_test = bool(len(positions)) and bool(positions[0] >= before)
    pixels: Any = listed(card, root, "test" if is_test else "trainval", 0)[0]
    return LabelledPart(pixels[positions - (before if is_test else 0)], labels)


@lru_cache(maxsize=2)
def _here(card: LabelledCard, root: Path, cut: SplitSpec, expected: str) -> Manifest:
    """The manifest under the data root when there is one, else made from the lists; kept for this process's next
    trial of the same data."""
    path = root / FOLDER / file_name(card, cut)
    found = load(path) if path.exists() else make(card, root, cut)
    check(card, cut, found.digest, expected, str(path) if path.exists() else f"the lists under {root}")
    return found


def check(card: LabelledCard, cut: SplitSpec, found: str, expected: str, where: str) -> None:
    """Raises DataError when the digest is not the one the trial was planned with."""
    if not expected or found == expected:
        return
    remedy = "compare the two manifests, or submit again here"
    if card.source != "folder":
        remedy = "install the versions of packages that pyproject.toml asks for"
    raise DataError(
        f"{card.name}: the split {cut.name(card)} of {where} has SHA-256 {found}, and this trial was planned for "
        f"{expected}: other data than where the job was submitted; {remedy}"
    )


def check_memory(card: LabelledCard, cut: SplitSpec, expected: str) -> None:
    """`check` for a data set that lies under no data root."""
    if expected:
        check(card, cut, _of_memory(card, cut).digest, expected, "the installed packages")


def digest(card: LabelledCard, root: Path, cut: SplitSpec, others: Sequence[Path] = ()) -> str | None:
    """The digest of what lies under the data root; None when the data set is not there.

    Looked for in `root`/splits, then in `others`; when none of them has it, it is made from the lists and written into
    the first of these folders that can be written, so that the next to ask need not scan. Raises DataError.
    """
    if card.source != "folder":
        return card.digest
    if cut.of(card).missing(root):
        return None
    folders = [root / FOLDER, *others]
    name = file_name(card, cut)
    for folder in folders:
        if (folder / name).exists():
            return saved_digest(folder / name)
    manifest = make(card, root, cut)
    save(manifest, name, folders)
    return manifest.digest
