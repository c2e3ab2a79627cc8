"""A data set that a spec describes instead of naming a known one."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, model_validator

from tasks.bounds import ONE_LINE, FilePath

if TYPE_CHECKING:
    from tasks.datasets.info import DatasetInfo


PART = "{part}"
"""In the name of a file or folder: stands for train, val and test."""


def _below_path(value: str) -> str:
    other = value.replace(PART, "")
    if "{" in other or "}" in other or value.startswith(("/", "~")) or ".." in value.split("/"):
        raise ValueError(f"{value!r} must lie below path; the one name in braces is {PART}")
    return value


def _names_the_part(value: str) -> str:
    if PART not in value:
        raise ValueError(f"{value!r} must name the part: write {PART} where train, val or test stands")
    return value


PathBelow = Annotated[FilePath, AfterValidator(_below_path)]
"""A file or folder below `path`."""
PartPath = Annotated[PathBelow, AfterValidator(_names_the_part)]
"""The same of each part: it has {part} in it."""


class DatasetDescription(BaseModel, ABC):
    """Place and form (`kind`) of a data set of the user's own; each kind is a subclass.

    `name` and the fields in `covered` do not enter a trial's key: the digest of the data's manifest says what they are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    covered: ClassVar[frozenset[str]] = frozenset({"path"})
    """Fields that say which data are read, and from where: the manifest's digest holds what they come to."""

    kind: str
    path: FilePath
    """Absolute, below the home folder (~), or below the data root."""
    name: str = Field(default="", max_length=100, pattern=ONE_LINE.replace("[^", "[^/"))
    """Column in tables; none: the last part of the path."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, fields: Any) -> Any:
        if isinstance(fields, Mapping) and not fields.get("name") and isinstance(fields.get("path"), str):
            return {**fields, "name": PurePath(fields["path"]).name}
        return fields

    def base(self, root: Path) -> Path:
        """Where the data lie. `root`: the data root."""
        return root / Path(os.path.expanduser(self.path))

    @abstractmethod
    def info(self, root: Path) -> DatasetInfo:
        """The data set for the `data` commands. `root`: the data root."""

    def missing(self, root: Path) -> str | None:
        """None when the data are there; else what is missing, and what to do."""
        base = self.base(root)
        if base.exists():
            return None
        return f"{self.name}: no folder {base}; task.dataset.path is absolute or below the data root {root}"


def by_kind(kinds: str) -> Discriminator:
    """Of a field that takes the name of a data set or a description; `kinds`: those that it may be of, in words."""
    words = f"must be the name of a data set, or {{kind: {kinds}, path: ..}}"
    return Discriminator(_kind_of, custom_error_type="dataset", custom_error_message=words)


def _kind_of(dataset: Any) -> str | None:
    """Tells a data set's name from the kinds of descriptions."""
    if isinstance(dataset, str):
        return "name"
    kind = dataset.get("kind") if isinstance(dataset, Mapping) else getattr(dataset, "kind", None)
    return kind if isinstance(kind, str) else None
