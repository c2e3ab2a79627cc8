"""Described images that a CSV, JSON lines or Parquet table lists."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal

from tasks.bounds import FilePath
from tasks.datasets.files import LARGEST_LIST, list_lines, open_regular, plain, read_list
from tasks.datasets.labelled.columns import Column, ColumnsDescription
from tasks.datasets.labelled.listing import Listing
from tasks.errors import DataError

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_LINES = (".jsonl", ".ndjson")
SUFFIXES = (*_DELIMITERS, *_LINES, ".parquet")


class ImageTable(ColumnsDescription):
    """A table with a row for each image: its file, its label or labels, and, if there are such columns, its part
    (train, val, test) and its group. Without parts, test (by test_fraction) and val are cut; groups stay whole.

    Files are named below the folder of the table (or `images`), or by absolute paths in it.
    """

    layout: ClassVar[str] = "a table (.csv, .tsv, .jsonl or .parquet) with a row for each image"

    kind: Literal["table"]
    image: Column = "path"
    """Column of the image's file."""
    images: FilePath | None = None
    """Folder that files are named below: absolute, below the home folder, or below the data root; none: that of the
    table. Absolute paths in the table must lie in it."""

    covered: ClassVar[frozenset[str]] = ColumnsDescription.covered | {"images"}

    def table(self, root: Path) -> Path:
        return super().base(root)

    def base(self, root: Path) -> Path:
        """The folder of the images."""
        return self.table(root).parent if self.images is None else root / Path(os.path.expanduser(self.images))

    def missing(self, root: Path) -> str | None:
        path = self.table(root)
        if path.is_dir():
            return f"{self.name}: {path} is a folder, and kind table reads a file; folders are of kind folder"
        if not path.exists():
            return f"{self.name}: no table {path}; task.dataset.path is absolute or below the data root {root}"
        if not self.base(root).is_dir():
            return f"{self.name}: no folder {self.base(root)}; task.dataset.images is absolute or below the data root"
        return None

    def listing(self, root: Path) -> Listing:
        path, base = self.table(root), self.base(root)
        suffix = path.suffix.lower()
        if suffix not in SUFFIXES:
            raise DataError(f"{self.name}: {path} is no table that is read; known: {', '.join(SUFFIXES)}")
        columns = _parquet(path, self.wanted) if suffix == ".parquet" else self._of_text(path, suffix)
        names = [self._file(cell, row, base) for row, cell in enumerate(columns.pop("image"))]
        return self.of_columns(names, columns)

    def _of_text(self, path: Path, suffix: str) -> dict[str, list[Any]]:
        """Role -> cells."""
        table = _lines(path) if suffix in _LINES else _delimited(path, _DELIMITERS[suffix])
        if not table:
            raise ValueError(f"no images: {path} is empty")
        return {role: table[column] for role, column in self.wanted(list(table)).items()}

    def _file(self, cell: Any, row: int, base: Path) -> str:
        """The name of a row's image below `base`."""
        if not isinstance(cell, str) or not cell.strip():
            raise self._wrong(row, self.image, "names no file", "give the path of an image")
        try:
            path = PurePosixPath(cell)
            return plain(path.relative_to(base.absolute().as_posix()).as_posix() if path.is_absolute() else cell)
        except ValueError:
            remedy = "task.dataset.images names the folder that all files lie below"
            raise self._wrong(row, self.image, f"names {cell!r}, outside {base}", remedy) from None


def _delimited(path: Path, delimiter: str) -> dict[str, list[Any]]:
    """Column -> cells, all text. Raises OSError, and ValueError with the line of a fault."""
    reader = csv.reader(io.StringIO(read_list(path), newline=""), delimiter=delimiter, strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        if len(set(names)) < len(names):
            raise ValueError(f"{path}: two columns have one name; its columns: {', '.join(names)}")
        rows = []
        for row in reader:
            if row and len(row) != len(names):
                raise ValueError(f"{path}: line {reader.line_num} has {len(row)} cells, and the first {len(names)}")
            rows += [row] if row else []
    except csv.Error as error:
        raise ValueError(f"{path}: line {reader.line_num}: {error}") from error
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def _lines(path: Path) -> dict[str, list[Any]]:
    """Column -> cells; None where a line lacks one. Raises OSError, and ValueError with the line of a fault."""
    rows: list[dict[str, Any]] = []
    for number, line in list_lines(path):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}: line {number} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path}: line {number} is no JSON object with a value for each column")
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _parquet(path: Path, wanted: Callable[[list[str]], dict[str, str]]) -> dict[str, list[Any]]:
    """Role -> cells. Raises OSError, ValueError (pyarrow's errors are such), and DataError as `wanted` does."""
    from pyarrow import parquet

    with open_regular(path) as file:
        if file.seek(0, io.SEEK_END) > LARGEST_LIST:
            raise ValueError(f"{path} is larger than {LARGEST_LIST / 2**30:g} GiB: no list of images")
        table = parquet.ParquetFile(file)
        roles = wanted(table.schema_arrow.names)
        read = table.read(columns=list(dict.fromkeys(roles.values())))
        return {role: read.column(column).to_pylist() for role, column in roles.items()}
