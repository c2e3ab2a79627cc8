"""A data set of labelled images, as the `data` commands and tasks take it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.datasets.info import Finding, Watch, unwatched
from tasks.datasets.labelled import checks, partition
from tasks.datasets.labelled.card import LabelledCard, SplitSpec
from tasks.datasets.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class LabelledDataset(LabelledCard):
    """Labelled images with what the `data` commands do with them."""

    def manifest(self, root: Path, choices: Mapping[str, Any]) -> tuple[Manifest, str]:
        spec = SplitSpec(self.name, **choices)
        return partition.make(self, root, spec), partition.file_name(self, spec)

    def check(
        self, root: Path, choices: Mapping[str, Any], folders: Sequence[Path], images: bool, watch: Watch = unwatched
    ) -> Finding:
        return checks.check(self, root, SplitSpec(self.name, **choices), folders, images, watch)

    def files(self, root: Path) -> tuple[list[Path], list[int] | None]:
        manifest = partition.make(self, root, SplitSpec(self.name))
        if self.own is None:
            paths = [root / image for image in manifest.images if isinstance(image, str)]
        else:
            images = self.own.opened(self.base(root), [str(image) for image in manifest.images])
            paths = images if isinstance(images, list) else []
        return paths, None if self.several_labels else list(manifest.annotations)
