"""Described images in one folder per class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeAlias

from pydantic import Discriminator, Tag

from tasks.bounds import Label
from tasks.datasets.described import kind_of
from tasks.datasets.files import SUFFIXES, ignored
from tasks.datasets.labelled.described import LabelledDescription

if TYPE_CHECKING:
    from tasks.datasets.labelled.parts import Part, Read

_PARTS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""What people call folders of parts -> the name that is read."""


class ImageFolder(LabelledDescription):
    """Images in one folder per class, at any depth in it. Folders train, val and test above these are the parts;
    without val, a share of train is held out; without train, all images are for training, and there is no test."""

    layout: ClassVar[str] = "one folder per class with images, or folders train, val and test of such folders"

    kind: Literal["folder"]

    def parts(self, base: Path) -> tuple[Part, ...]:
        if not (base / "train").is_dir():
            return ("trainval",)
        learnt: tuple[Part, ...] = ("train", "val") if (base / "val").is_dir() else ("trainval",)
        return (*learnt, "test") if (base / "test").is_dir() else learnt

    def listed(self, base: Path, part: Part) -> Read:
        """A label is the rank of its folder among those of the training images, in every part."""
        _check_names(base)
        training = base / "train" if (base / "train").is_dir() else base
        folder = base / part if part in ("val", "test") else training
        if part == "test" and not folder.is_dir():  # `official_val: test`
            folder = base / "val"
        ranks = {name: rank for rank, name in enumerate(_folders(training))}
        unknown = sorted(set(_folders(folder)) - set(ranks))
        if unknown:
            raise ValueError(f"{folder}: {len(unknown)} folders that are no classes of {training}: {unknown[0]}")
        files = {name: list(_images(folder / name)) for name in _folders(folder)}
        empty = [name for name, paths in files.items() if not paths]
        if empty or not files:
            raise ValueError(f"{folder}: no images in {empty[0] if empty else 'it, and no folders'}")
        pairs = [(path, ranks[name]) for name, paths in files.items() for path in paths]
        return [path for path, _ in pairs], [label for _, label in pairs]


def _check_names(base: Path) -> None:
    """Raises ValueError where folders of parts have other names than those that are read: they would be classes."""
    folders = sorted(entry.name for entry in os.scandir(base) if entry.is_dir() and not ignored(entry.name))
    parts = {name: _PARTS[name.lower()] for name in folders if name.lower() in _PARTS}
    wrong = [name for name, part in parts.items() if name != part]
    if wrong and ("train" in folders or len(parts) == len(folders)):
        raise ValueError(f"{base}: folder {wrong[0]!r} is read as no part; call it {parts[wrong[0]]!r}, or remove it")


def _folders(folder: Path) -> list[str]:
    """The folders in it. Raises ValueError for images that lie beside them: they would be in no class."""
    with os.scandir(folder) as entries:
        kept = [entry for entry in entries if not ignored(entry.name)]
    loose = sorted(entry.name for entry in kept if entry.name.lower().endswith(SUFFIXES) and not entry.is_dir())
    if loose:
        raise ValueError(f"{folder}: {len(loose)} images lie in it, and not in the folder of their class: {loose[0]}")
    return sorted(entry.name for entry in kept if entry.is_dir())


def _images(folder: Path) -> Iterator[Path]:
    """All images at any depth, in an order that is the same on every machine."""
    seen: set[tuple[int, int]] = set()
    for path, folders, files in os.walk(folder, followlinks=True):
        stat = os.stat(path)
        if (stat.st_dev, stat.st_ino) in seen:
            raise ValueError(f"{path} is a link to a folder that is read already: its images would count twice")
        seen.add((stat.st_dev, stat.st_ino))
        folders[:] = sorted(name for name in folders if not ignored(name))
        images = (name for name in sorted(files) if name.lower().endswith(SUFFIXES) and not ignored(name))
        yield from (Path(path) / name for name in images)


LabelledField: TypeAlias = Annotated[
    Annotated[Label, Tag("name")] | Annotated[ImageFolder, Tag("folder")],
    Discriminator(
        kind_of,
        custom_error_type="dataset",
        custom_error_message="must be the name of a data set, or {kind: folder, path: ..}",
    ),
]
"""A data set by name, or a description. A new kind joins the union here."""
