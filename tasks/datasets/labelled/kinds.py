"""The field that takes a data set of labelled images: a name, or a description of one of the kinds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

from pydantic import Tag

from tasks.bounds import Label
from tasks.datasets.described import by_kind
from tasks.datasets.labelled.described import LabelledDescription
from tasks.datasets.labelled.folder import ImageFolder
from tasks.datasets.labelled.huggingface import SPLITS, STATE, SavedDataset
from tasks.datasets.labelled.table import SUFFIXES, ImageTable

LabelledField: TypeAlias = Annotated[
    Annotated[Label, Tag("name")]
    | Annotated[ImageFolder, Tag("folder")]
    | Annotated[ImageTable, Tag("table")]
    | Annotated[SavedDataset, Tag("huggingface")],
    by_kind("folder, table or huggingface"),
]
"""A data set by name, or a description. A new kind joins the union here, and `KINDS`."""

KINDS: dict[str, type[LabelledDescription]] = {
    "folder": ImageFolder, "table": ImageTable, "huggingface": SavedDataset,
}  # fmt: skip


def kind_of_path(path: Path) -> str:
    """What the data at a path look like."""
    if path.is_file() or path.suffix.lower() in SUFFIXES:
        return "table"
    return "huggingface" if any((path / name).is_file() for name in (STATE, SPLITS)) else "folder"
