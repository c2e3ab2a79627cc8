"""Data sets of images with class maps: where their files lie, how they are split, and whether they are whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.datasets.annotated import PARTS, AnnotatedDataset, ImageCounts, Part
from tasks.datasets.info import Finding, Watch
from tasks.datasets.manifest import Manifest
from tasks.errors import DataError

if TYPE_CHECKING:
    from tasks.datasets.class_maps.types import ClassMapSet, Pixels

ADE20K_PARTS: Mapping[Part, str] = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class ClassMapDataset(AnnotatedDataset):
    """Images with a map each, of the same name but for the ending. `{part}` in a folder stands for a part's name."""

    images: str = "images/{part}"
    maps: str = "annotations/{part}"
    """Folders below that of the data set."""
    part_names: Mapping[Part, str] = field(default_factory=lambda: ADE20K_PARTS)
    zero_ignored: bool = True
    """0 in a map is no class, and 1 the first one, as in ADE20K; else 0 is the first class."""
    names: tuple[str, ...] = ()
    """Of the classes; empty: `names_file` has them."""
    colours: tuple[str, ...] = ()
    """rrggbb of each."""
    names_file: str = ""
    """List of the classes, below the folder of the data set."""
    metric: str = "mIoU"

    @property
    def statable_classes(self) -> int:
        return len(self.names)

    def classes(self, root: Path) -> tuple[tuple[str, ...], Pixels]:
        """Names and colours (classes, 3). Raises DataError."""
        from tasks.datasets.class_maps.names import MOST_CLASSES, palette_of, read_names

        if self.names:
            return self.names, palette_of(self.colours)
        return read_names(self.base(root) / self.names_file, self.name, MOST_CLASSES - self.zero_ignored)

    def class_names(self, root: Path) -> Sequence[str]:
        return self.classes(root)[0]

    def _folder(self, pattern: str, part: Part) -> str:
        return pattern.format(part=self.part_names.get(part, part))

    def place(self, base: Path, part: Part) -> Path:
        return base / self._folder(self.maps, part)

    def has(self, base: Path, part: Part) -> bool:
        return self.place(base, part).is_dir()

    def pairs(self, base: Path, part: Part) -> tuple[list[str], list[str]]:
        """The files of images and maps of a part, below the base folder, by name. Raises DataError for an image without
        a map, and for a map without an image."""
        from tasks.datasets.class_maps.opened import pairs

        return pairs(self.name, base, self._folder(self.images, part), self._folder(self.maps, part))

    def entries(self, root: Path, part: Part, folders: Sequence[Path]) -> tuple[Sequence[str], Sequence[Any]]:
        from tasks.datasets.contents import contents

        base = self.base(root)
        images, maps = self.pairs(base, part)
        digests = [digest for [(_, digest)] in contents(self.name, base, maps, folders)]
        return images, [{"map": name, "of_map": digest} for name, digest in zip(maps, digests, strict=True)]

    def image_counts(self, root: Path, made: Manifest) -> ImageCounts:
        return ImageCounts(**made.counts, learnt=made.counts["train"])

    def open(self, root: Path, part: Part) -> ClassMapSet:
        """Raises DataError for a part or list of classes that is missing, and for images without a map."""
        from tasks.datasets.class_maps.opened import OpenedMaps

        base = self.base(root)
        if not self.has(base, part):
            raise DataError(f"{self.name}: no {self.place(base, part)}, the maps of {part}. {self.how_to_get}")
        names, palette = self.classes(root)
        return OpenedMaps(self.name, base, part, self.pairs(base, part), names, palette, self.zero_ignored)

    def look(self, root: Path, made: Manifest, finding: Finding, images: bool, watch: Watch) -> None:
        from tasks.datasets.class_maps.checks import look_at_maps

        if images:
            finding.opened = 0
        for part in PARTS:
            if made.counts[part]:
                look_at_maps(self.open(root, part), images, finding, watch)

    def files(self, root: Path) -> tuple[list[Path], list[int] | None]:
        """Raises DataError: `data pack` has nothing to do here."""
        raise DataError(f"{self.name}: images and class maps are read from single files, and are not packed")
