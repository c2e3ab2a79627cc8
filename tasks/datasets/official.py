"""Data sets whose parts their makers fix: named, generated when first used, or described in a spec."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.datasets.described import DatasetDescription
from tasks.datasets.info import DatasetInfo
from tasks.datasets.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class OfficialDataset(DatasetInfo):
    """Files below one folder, and one manifest of all parts."""

    folder: str = ""
    """Below the data root; of a generated set empty."""
    own: DatasetDescription | None = field(default=None, compare=False)
    """Where the data are described in a spec: the description."""

    @property
    def made(self) -> bool:
        """Generated: its folder is written below the data root when it is first asked for."""
        return self.source == "made"

    def base(self, root: Path) -> Path:
        """The folder that names of files are below. A generated set is made first. Raises DataError."""
        if self.own is not None:
            return self.own.base(root)
        if self.made:
            from tasks.datasets.scenes.made import made

            return Path(made(self.name, root))
        return root / self.folder

    def recipe(self) -> str:
        """SHA-256 of what a generated set is made from, which stands for its content before it is made."""
        from tasks.datasets.scenes.made import recipe

        return str(recipe(self.name))

    def missing(self, root: Path) -> str | None:
        if self.made:
            return None
        return super().missing(root) if self.own is None else self.own.missing(root)

    @property
    def manifest_file(self) -> str:
        return f"{self.name}-official.jsonl"

    @abstractmethod
    def manifest_of(self, root: Path) -> Manifest:
        """Every image of the parts that are there, with a digest of its annotations. Raises DataError."""

    def manifest(self, root: Path, choices: Mapping[str, Any]) -> tuple[Manifest, str]:
        return self.manifest_of(root), self.manifest_file
