"""Described images in one folder per class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

from tasks.datasets.files import SUFFIXES, below, ignored
from tasks.datasets.labelled.card import Metric
from tasks.datasets.labelled.described import LabelledDescription
from tasks.datasets.labelled.listing import PART_NAMES, Listing


class ImageFolder(LabelledDescription):
    """Images in one folder per class, at any depth in it, as torchvision's ImageFolder reads them. Folders train, val
    and test above these are the parts; without val, a share of train is held out; without train, the whole folder is
    cut: test by test_fraction, and val."""

    layout: ClassVar[str] = "one folder per class with images, or folders train, val and test of such folders"

    kind: Literal["folder"]
    metric: Literal["top1", "mean_per_class"] = "top1"
    """Trials are chosen by the share of images that is classified correctly, or by its mean over classes."""

    @property
    def chosen_by(self) -> Metric:
        return self.metric

    def missing(self, root: Path) -> str | None:
        base = self.base(root)
        if base.is_file():
            return f"{self.name}: {base} is a file, and kind folder reads folders; tables are of kind table"
        return super().missing(root)

    def listing(self, root: Path) -> Listing:
        """A label is the rank of its folder among those of the training images, in every part."""
        base = self.base(root)
        _check_names(base)
        apart = (base / "train").is_dir()
        training = base / "train" if apart else base
        names = _folders(training)
        ranks = {name: rank for rank, name in enumerate(names)}
        images: list[str] = []
        labels: list[int] = []
        parts: list[str] = []
        for part in ("train", "val", "test"):
            folder = base / part if apart else base
            if (part == "train" or apart) and folder.is_dir():
                found = _classes(folder, names, training)
                paths = [(path, ranks[name]) for name, of_class in found.items() for path in of_class]
                images += below(base, [path for path, _ in paths])
                labels += [label for _, label in paths]
                parts += [part] * len(paths)
        return Listing(images, labels, names, parts if apart else None)


def _classes(folder: Path, known: list[str], training: Path) -> dict[str, list[Path]]:
    """The images of each class of a part. Raises ValueError for one that is none of training, or has none."""
    names = _folders(folder)
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise ValueError(f"{folder}: {len(unknown)} folders that are no classes of {training}: {unknown[0]}")
    files = {name: list(_images(folder / name)) for name in names}
    empty = [name for name, paths in files.items() if not paths]
    if empty or not files:
        raise ValueError(f"{folder}: no images in {empty[0] if empty else 'it, and no folders'}")
    return files


def _check_names(base: Path) -> None:
    """Raises ValueError where folders of parts have other names than those that are read: they would be classes."""
    folders = sorted(entry.name for entry in os.scandir(base) if entry.is_dir() and not ignored(entry.name))
    parts = {name: PART_NAMES[name.lower()] for name in folders if name.lower() in PART_NAMES}
    wrong = [name for name, part in parts.items() if name != part]
    if wrong and ("train" in folders or len(parts) == len(folders)):
        raise ValueError(f"{base}: folder {wrong[0]!r} is read as no part; call it {parts[wrong[0]]!r}, or remove it")


def _folders(folder: Path) -> list[str]:
    """The folders in it, without that of packed copies. Raises ValueError for images that lie beside them: they would
    be in no class."""
    from tasks.datasets.images.shards import FOLDER, INDEX

    with os.scandir(folder) as entries:
        kept = [entry for entry in entries if not ignored(entry.name)]
    loose = sorted(entry.name for entry in kept if entry.name.lower().endswith(SUFFIXES) and not entry.is_dir())
    if loose:
        raise ValueError(f"{folder}: {len(loose)} images lie in it, and not in the folder of their class: {loose[0]}")
    packed = FOLDER if (folder / FOLDER / INDEX).is_file() else ""
    return sorted(entry.name for entry in kept if entry.is_dir() and entry.name != packed)


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
