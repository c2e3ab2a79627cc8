"""Splits a labelled data set into train, val and test, and reads the parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.datasets.files import below, first_few, repeated
from tasks.datasets.labelled import own_manifest
from tasks.datasets.labelled.card import LabelledCard, SplitSpec, held_out_images
from tasks.datasets.labelled.listing import Listing
from tasks.datasets.manifest import FOLDER, PARTS, Manifest, folders_of, is_saved, load, save, saved_digest
from tasks.errors import DataError

if TYPE_CHECKING:
    from tasks.datasets.labelled.parts import LabelledPart, Part


def file_name(card: LabelledCard, split: SplitSpec) -> str:
    """For example pets-0.2-0.jsonl."""
    return split.name(card).replace("/", "-") + ".jsonl"


def make(
    card: LabelledCard, root: Path, split: SplitSpec, folders: Sequence[Path] = (), listing: Listing | None = None
) -> Manifest:
    """The manifest by the data set's own lists, without opening an image: every image they name, present or not.

    Takes about 25 microseconds an image, and for sets that are folders of files (ImageNet, Caltech-101) one listing of
    each folder; of described data see `own_manifest.make`, which takes `folders` and `listing`. Raises DataError when
    lists are missing or damaged, name a file twice, or leave a part empty.
    """
    from tasks.datasets.labelled.readers import listed

    of = split.of(card)
    if of.own is not None:
        return own_manifest.make(of, root, split, folders, listing)
    if of.source != "folder":
        return _of_memory(of, root, split)
    names: list[Part] = ["train", "val"] if of.official_val else ["trainval"]
    names += ["test"] if of.test else []
    images: list[str | int] = []
    labels: list[Any] = []
    parts: list[str] = []
    for name in names:
        its_images, its_labels = listed(of, root, name, split.split_seed)
        images += _names(its_images, root, len(images))
        parts += _held_out(its_labels, split) if name == "trainval" else [name] * len(its_labels)
        labels += its_labels
    made = Manifest(split.rule(card), images, labels, parts, of.classes, rule=of.split)
    _check_parts(of, made, split)
    return made


def _names(images: Any, base: Path, first: int) -> Iterable[str | int]:
    """Files by their paths below `base`, images in arrays by their positions."""
    return below(base, images) if isinstance(images, list) else range(first, first + len(images))


def _check_parts(card: LabelledCard, made: Manifest, split: SplitSpec) -> None:
    """Raises DataError for an image that is listed twice, which may put it into two parts, and for an empty part."""
    if len(set(made.images)) < len(made.images):
        twice = repeated(made.images)
        raise DataError(f"{card.name}: {len(twice)} images are listed twice: {first_few(twice)}")
    counts = made.counts
    if not card.official_val:
        split.check_held_out(card.name, counts["train"] + counts["val"])


def _held_out(labels: list[Any], split: SplitSpec) -> list[str]:
    """The part of each training image."""
    from tasks.datasets.splits import stratified

    held_out = held_out_images(len(labels), split.val_fraction)
    parts = ["train"] * len(labels)
    for index in stratified(labels, [len(labels) - held_out, held_out], split.split_seed)[1]:
        parts[index] = "val"
    return parts


def _of_memory(card: LabelledCard, root: Path, split: SplitSpec) -> Manifest:
    from tasks.datasets.labelled import bundled_images

    part = bundled_images.load_bundled(card, root)
    parts = [""] * len(part.labels)
    for name in PARTS:
        for index in getattr(part, name):
            parts[index] = name
    images = range(len(parts))
    content = bundled_images.content(card, root)
    return Manifest(split.rule(card), images, part.labels.tolist(), parts, card.classes, content, card.split)


def read_both(
    card: LabelledCard,
    root: Path,
    split: SplitSpec,
    train: Literal["train", "trainval"],
    evaluate: Literal["val", "test"],
    expected: str = "",
    any_count: bool = False,
) -> tuple[LabelledPart, LabelledPart]:
    """Training and evaluation images (files or arrays) with their labels; images of no other part are opened.

    `expected`: the digest of the manifest that the trial was planned with (empty: planned without). Raises DataError
    when the data here have another digest, and for missing files, wrong counts and wrong classes.
    """
    from tasks.datasets.labelled.readers import checked

    of = split.of(card)
    problem = of.missing(root)
    if problem:
        raise DataError(problem)
    manifest = _planned(card, root, split, expected) if expected else make(card, root, split)
    checks: list[Part] = ["trainval", "test"]
    if of.official_val:
        checks = ["train", "val"] if train == "trainval" else ["train"]
        checks += [evaluate] if evaluate not in checks else []
    elif evaluate == "val":
        checks = ["trainval"]
    for part in checks:
        labels = [manifest.annotations[i] for i in _indices(manifest, part)]
        # described data state no counts of their own to compare with
        checked(of, root, part, labels, any_count or card.own is not None)
    first, second = _indices(manifest, train), _indices(manifest, evaluate)
    return _images_of(of, root, manifest, first), _images_of(of, root, manifest, second)


def _indices(manifest: Manifest, part: str) -> list[int]:
    wanted = ("train", "val") if part == "trainval" else (part,)
    return [i for i, name in enumerate(manifest.parts) if name in wanted]


def _images_of(card: LabelledCard, root: Path, manifest: Manifest, indices: list[int]) -> LabelledPart:
    from tasks.datasets.labelled.parts import LabelledPart
    from tasks.datasets.labelled.readers import listed

    labels = [manifest.annotations[i] for i in indices]
    if card.own is not None:
        return LabelledPart(own_manifest.opened(card, root, manifest, indices), labels)
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
def _planned(card: LabelledCard, root: Path, split: SplitSpec, expected: str) -> Manifest:
    """The manifest that the trial was planned with: the saved one below the data root, else one made from the lists;
    kept for this process's next trial of the same data. Raises DataError when it has another digest."""
    path = root / FOLDER / file_name(card, split)
    saved = load(path) if path.exists() else None
    if saved and (card.own is None or saved.digest == expected):  # own data may have changed since it was written
        check(card, split, saved.digest, expected, str(path))
        return saved
    made = make(card, root, split)
    check(card, split, made.digest, expected, f"the lists under {card.base(root)}")
    return made


def check(card: LabelledCard, split: SplitSpec, digest: str, expected: str, where: str) -> None:
    """Raises DataError when the digest is not the one that the trial was planned with."""
    if not expected or digest == expected:
        return
    remedy = "compare the two manifests, or submit again here"
    if card.source != "folder":
        remedy = "install the versions of packages that pyproject.toml asks for"
    raise DataError(
        f"{card.name}: the split {split.name(card)} of {where} has SHA-256 {digest}, and this trial was planned for "
        f"{expected}: other data than where the job was submitted; {remedy}"
    )


def check_memory(card: LabelledCard, root: Path, split: SplitSpec, expected: str) -> None:
    """`check` for images inside packages, and for generated ones."""
    if expected:
        check(card, split, _of_memory(card, root, split).digest, expected, "the installed packages")


def digest(
    card: LabelledCard, root: Path, split: SplitSpec, others: Sequence[Path] = (), listing: Listing | None = None
) -> str | None:
    """The digest of the manifest of the data under `root`; None when the data set is missing.

    A saved manifest in `root`/splits or in `others` counts. Without one, it is made from the lists and saved in the
    first of these folders that can be written. Described data are always listed, because they change (`listing`: as
    they were listed just now). Raises DataError.
    """
    if card.source != "folder":
        return card.digest
    if split.of(card).missing(root):
        return None
    folders = folders_of(root, others)
    name = file_name(card, split)
    saved = next((folder / name for folder in folders if (folder / name).exists()), None)
    if saved and card.own is None:
        return saved_digest(saved)
    manifest = make(card, root, split, others, listing)
    if saved is None or not is_saved(saved, manifest.digest):
        save(manifest, name, folders)
    return manifest.digest
