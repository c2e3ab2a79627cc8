"""Described images that the library `datasets` of Hugging Face saved to disk; the library itself is not needed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from tasks.datasets.contents import Content, contents, digest_of
from tasks.datasets.files import plain, read_list
from tasks.datasets.labelled.columns import Column, ColumnsDescription
from tasks.datasets.labelled.listing import PART_NAMES, Listing
from tasks.errors import DataError

if TYPE_CHECKING:
    from tasks.datasets.images.arrow import ArrowImages

STATE, INFO, SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"
"""Files that `save_to_disk` writes."""


class SavedDataset(ColumnsDescription):
    """A folder as `save_to_disk` of Hugging Face's `datasets` writes it: a Dataset, or a DatasetDict, whose splits are
    the parts (validation is val). Images are a column with their bytes, as `save_to_disk` stores the type Image;
    classes are a column of type ClassLabel (several: a list of them), text or whole numbers."""

    layout: ClassVar[str] = "a folder that `save_to_disk` of the library `datasets` wrote"

    kind: Literal["huggingface"]
    image: Column = "image"
    """Column of the images."""

    def missing(self, root: Path) -> str | None:
        base = self.base(root)
        problem = super().missing(root)
        if problem or any((base / name).is_file() for name in (STATE, SPLITS)):
            return problem
        what = f"no {SPLITS} or {STATE} in it" if base.is_dir() else "it is a file"
        return f"{self.name}: {base} is not {self.layout}: {what}; folders of image files are of kind folder"

    def row_name(self, row: int) -> str:
        """Rows of a DatasetDict are counted over train, validation and test."""
        return f"{super().row_name(row)} (splits one after the other)"

    def listing(self, root: Path) -> Listing:
        from tasks.datasets.images.arrow import read_stream

        base = self.base(root)
        splits = _splits(base)
        images: list[str] = []
        parts: list[str] = []
        columns: dict[str, list[Any]] = {}
        class_names: Mapping[str, str] = {}
        for split, part in splits.items():
            for number, file in enumerate(_files(base, split)):
                table = read_stream(base / file)
                roles = self.wanted(table.column_names)
                if number == 0:
                    class_names = self._class_names(base, split, roles, class_names)
                images += [f"{file}/{row}" for row in range(table.num_rows)]
                parts += [part] * table.num_rows
                for role, column in roles.items():
                    if role != "image":
                        cells = table.column(column).to_pylist()
                        unknown = role == "label" and class_names  # `datasets` writes -1 for a label that is not known
                        columns.setdefault(role, []).extend(None if unknown and each == -1 else each for each in cells)
        if any(splits.values()):
            if self.split:
                raise DataError(f"{self.name}: {base} has its splits in folders; leave out task.dataset.split")
            columns["split"] = parts
        return self.of_columns(images, columns, class_names)

    def _class_names(
        self, base: Path, split: str, roles: Mapping[str, str], before: Mapping[str, str]
    ) -> Mapping[str, str]:
        """Number -> name of the classes, of a column of type ClassLabel. Raises DataError where splits differ."""
        info = _json(base / split / INFO)
        feature: Any = info.get("features", {}).get(roles.get("labels") or roles.get("label") or "", {})
        if isinstance(feature, list):  # older versions write a list of a type so, newer ones as a mapping
            feature = feature[0]
        feature = feature.get("feature", feature)
        if "names" not in feature:
            return before
        names = {str(number): str(name) for number, name in enumerate(feature["names"])}
        if before and names != before:
            raise DataError(f"{self.name}: the splits of {base} have other names of classes: their numbers differ")
        return names

    def opened(self, base: Path, names: Sequence[str]) -> ArrowImages:
        from tasks.datasets.images.arrow import ArrowImages

        rows = ((file, int(row)) for file, _, row in (name.rpartition("/") for name in names))
        return ArrowImages(self.name, base, self.image, list(rows))

    def contents(self, root: Path, names: Sequence[str], folders: Sequence[Path]) -> list[Content]:
        files = list(dict.fromkeys(name.rpartition("/")[0] for name in names))
        found = contents(self.name, self.base(root), files, folders, self._rows, self.image)
        rows = dict(zip(files, found, strict=True))
        return [rows[file][int(row)] for file, _, row in (name.rpartition("/") for name in names)]

    def bytes_now(self, images: Any) -> list[int | None]:
        return [*images.lengths()]

    def _rows(self, path: Path) -> list[Content]:
        """The contents of every image in an Arrow file. Raises DataError."""
        from tasks.datasets.images.arrow import encoded, read_stream

        found = []
        for row, cell in enumerate(read_stream(path).column(self.image)):
            try:
                found.append(digest_of(encoded(cell.as_py())))
            except ValueError as error:
                raise DataError(
                    f"{self.name}: {path}, row {row + 1}: column {self.image!r}: {error}; cast the column to "
                    "datasets.Image() and save the data set again"
                ) from error
        return found


def _splits(base: Path) -> dict[str, str]:
    """Folder of a split ("": that of the data) -> its part ("": none). Raises ValueError, OSError."""
    if not (base / SPLITS).is_file():
        return {"": ""}
    names = [plain(str(name)) for name in _json(base / SPLITS).get("splits", [])]
    parts = {name: PART_NAMES.get(name.lower(), "") for name in names}
    wrong = [name for name, part in parts.items() if not part]
    if wrong or len(set(parts.values())) < len(parts):
        raise ValueError(
            f"{base}: splits {', '.join(names)} are not read; a split is train, validation or test, each once"
        )
    return dict(sorted(parts.items(), key=lambda item: ("train", "val", "test").index(item[1])))


def _files(base: Path, split: str) -> list[str]:
    """The Arrow files of a split, below `base`. Raises ValueError for rows that were filtered or shuffled by a list of
    indices beside them, as older versions wrote it."""
    state = _json(base / split / STATE)
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise ValueError(f"{base / split} was saved with a list of indices; call flatten_indices() and save it again")
    return [plain("/".join(filter(None, (split, str(each["filename"]))))) for each in state["_data_files"]]


def _json(path: Path) -> dict[str, Any]:
    read = json.loads(read_list(path))
    if not isinstance(read, dict):
        raise ValueError(f"{path} is not as `save_to_disk` writes it")
    return read
