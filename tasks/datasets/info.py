"""DatasetInfo: what every data set states about itself and offers to the `data` commands, whatever its labels are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tasks.datasets.manifest import Manifest


@dataclass(frozen=True)
class Download:
    """A file that `data fetch` gets, and where it goes."""

    url: str
    md5: str | None
    """From torchvision 0.29; None where nobody publishes one."""
    folder: str
    """Below the data root; an archive is unpacked there."""
    unpack: bool = True


@dataclass(frozen=True)
class SplitOption:
    """A choice that a data set's split leaves open, and how the `data` commands offer it."""

    name: str
    """Key of the choice: val_fraction."""
    flag: str
    """--val-fraction"""
    kind: Literal["fraction", "count", "word", "switch"]
    """fraction: between 0 and 1; count: from 0 to `most`; word: one of `words`; switch: given, it means `not
    default`."""
    default: Any
    help: str = ""
    words: tuple[str, ...] = ()
    most: int | None = None


@dataclass(frozen=True)
class Conversion:
    """Turns files as the makers of data sets publish them into lists that anyone can read (`data convert`)."""

    name: str
    help: str
    run: Callable[[Sequence[Path], Path, bool], list[Path]]
    """(files, data root, any_count) -> files written. `any_count`: accept other counts than the published ones. Raises
    DataError."""


Watch = Callable[[Iterable[Any], int], Iterable[Any]]
"""Takes items and their number, and yields the items while it shows progress."""


def unwatched(items: Iterable[Any], total: int) -> Iterable[Any]:
    return items


@dataclass
class Finding:
    """Result of `check`; without problems the data are as stated."""

    problems: list[str] = field(default_factory=list)
    what: str = "images"
    """What `counts` counts."""
    counts: dict[str, int] = field(default_factory=dict)
    """Images of train, val and test; empty when the lists could not be read."""
    balance: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Fewest and most images of a class, in train + val and in test."""
    digest: str = ""
    """SHA-256 of the split manifest as the lists give it."""
    manifest: Path | None = None
    """Where it is written, if it is."""
    opened: int | None = None
    """Images that were decoded."""
    split: str = ""
    """Name of the split rule."""
    expected: int | None = None
    """Images that there should be; None where no total is published."""
    classes: int | None = None
    """None for data without classes."""
    notes: list[str] = field(default_factory=list)
    """Further lines for the user, which are not faults."""


@dataclass(frozen=True, kw_only=True)
class DatasetInfo(ABC):
    """Facts about a data set before it is opened."""

    name: str
    title: str
    """Heading of its column in the paper's tables."""
    source: Literal["wheel", "made", "folder"]
    """`wheel`: the images ship inside a Python package that we depend on. `made`: drawn by this project, synthetic.
    `folder`: files under the data root."""
    split: str
    """The rule of the split, in a sentence."""
    how_to_get: str
    licence: str
    shows: tuple[str, ...] = ()
    """Other sets whose test images show what images of this one show too: weights trained here are not measured
    there."""
    needs: tuple[str, ...] = ()
    """Files and folders, under the data root, that must be there; a quick look, not a count."""
    downloads: tuple[Download, ...] = ()
    """Empty where the makers give no address that a program may use: then `how_to_get` is all there is."""
    conversion: Conversion | None = None
    """How its published lists are made readable, where they are not."""

    @property
    def options(self) -> tuple[SplitOption, ...]:
        """Choices that the split leaves open. The methods below take them as `choices`, by name."""
        return ()

    @property
    def shown(self) -> Mapping[str, str]:
        """`shows` as a task that trains on this set and reads no test images adds it to Task.opens."""
        return dict.fromkeys(self.shows, f"dataset: {self.name}")

    def missing(self, root: Path) -> str | None:
        """None when everything it needs is under `root`; else what is missing, and how to get it."""
        missing = [name for name in self.needs if not (root / name).exists() and not _packed(root, name)]
        if not missing:
            return None
        place = f"{root}{'' if root.is_dir() else NO_FOLDER}"
        return f"{self.name}: not found under {place}: {', '.join(missing)}. {self.how_to_get}"

    def files_root(self, root: Path) -> Path:
        """The folder that files are named below where they are packed. `root`: the data root."""
        return root

    @abstractmethod
    def facts(self) -> Mapping[str, Any]:
        """Further columns of `data ls`: images in train, val and test, split, classes."""

    @abstractmethod
    def manifest(self, root: Path, choices: Mapping[str, Any]) -> tuple[Manifest, str]:
        """Which image is train, val or test, from the data as they are now; and the name of the file for it. Raises
        DataError."""

    @abstractmethod
    def check(
        self, root: Path, choices: Mapping[str, Any], folders: Sequence[Path], images: bool, watch: Watch = unwatched
    ) -> Finding:
        """Compares what lies under `root` with what is stated: lists, counts, files; with `images` also opens every
        image. `folders`: where else the split manifest may lie."""

    def files(self, root: Path) -> tuple[list[Path], list[int] | None]:
        """Its image files and their labels (None: not one class each), for `data pack`; empty for images in arrays.
        Raises DataError."""
        return [], None


NO_FOLDER = " (no such folder on this machine; another with --data-root or DATA_ROOT)"


def _packed(root: Path, name: str) -> bool:
    """True if a folder of images may be in the set's tar files instead (see shards.py; a list of images never is)."""
    path = root / name
    return not path.suffix and (root / Path(name).parts[0] / "shards" / "index.npz").is_file()
