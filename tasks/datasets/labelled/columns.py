"""Described images that are rows of a table: columns of labels, parts and groups, and what may be wrong in them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field, model_validator

from tasks.bounds import MAX_LABEL, ONE_LINE
from tasks.datasets.files import first_few
from tasks.datasets.labelled.card import Metric
from tasks.datasets.labelled.described import LabelledDescription
from tasks.datasets.labelled.listing import PART_NAMES, Listing
from tasks.errors import DataError

Column = Annotated[str, Field(max_length=MAX_LABEL, pattern=ONE_LINE)]
Cells: TypeAlias = Sequence[Any]
"""Of one column: text, whole numbers, lists of these, or None."""
Columns: TypeAlias = Mapping[str, Cells]


class ColumnsDescription(LabelledDescription):
    """Rows with an image, its label or labels, and, if there are such columns, its part and its group."""

    image: Column
    label: Column | None = None
    """Column of the class; none: the column `label`. Empty text: no labels, for tasks that need none."""
    labels: Column | None = None
    """Column of several classes of each image (or none), instead of `label`: a list, or text with `separator` between
    them. Such data are measured by 11-point mAP, as VOC 2007."""
    separator: str = Field(default=";", min_length=1, max_length=10, pattern=ONE_LINE)
    """Stands between several labels in one text."""
    split: Column | None = None
    """Column with train, val or test; none: the column `split`, if there is one. Empty text: it is not read."""
    group: Column | None = None
    """Column of what images have in common (a patient, an animal, a scene): images of one group are all in one part.
    None: the column `group`, if there is one. Empty text: it is not read."""
    metric: Literal["top1", "mean_per_class", "map11"] | None = None
    """Trials are chosen by it: top1, mean_per_class, or, with `labels`, map11. None: top1, or map11."""

    covered: ClassVar[frozenset[str]] = LabelledDescription.covered | {
        "image", "label", "labels", "separator", "split", "group",
    }  # fmt: skip

    @model_validator(mode="after")
    def _one_kind_of_label(self) -> ColumnsDescription:
        if self.labels is not None and self.label is not None:
            raise ValueError("label is for one class per image, labels for several: give one of the two")
        if self.labels == "":
            raise ValueError("labels: name a column, or leave it out")
        if self.metric is not None and (self.metric == "map11") != self.several_labels:
            other = "map11 is for several labels per image (labels)" if self.metric == "map11" else "labels needs map11"
            raise ValueError(f"metric {self.metric}: {other}; leave metric out")
        return self

    @property
    def several_labels(self) -> bool:
        return self.labels is not None

    @property
    def chosen_by(self) -> Metric:
        return self.metric or ("map11" if self.several_labels else "top1")

    def row_name(self, row: int) -> str:
        """What a row is called in messages, by its position."""
        return f"row {row + 1} of {self.path}"

    def wanted(self, there: Sequence[str]) -> dict[str, str]:
        """Role (image, label, labels, split, group) -> its column, of the columns that are there. Raises DataError."""
        roles = {"image": self.image, **({"labels": self.labels} if self.labels is not None else {})}
        if self.labels is None and self.label != "":
            roles["label"] = self.label or "label"
        for role, given in (("split", self.split), ("group", self.group)):
            if given or (given is None and role in there and role not in roles.values()):
                roles[role] = given or role
        for role, column in roles.items():
            if column not in there:
                raise DataError(
                    f"{self.name}: no column {column!r} in {self.path}; its columns: {first_few(list(there), 12)}; "
                    f"task.dataset.{role} names another"
                )
        return roles

    def of_columns(self, images: list[str], columns: Columns, class_names: Mapping[str, str] | None = None) -> Listing:
        """The listing of these images. `columns`: by their role. `class_names`: of labels that are numbers of classes.
        Raises DataError for a cell that cannot be used."""
        parts = self._parts(columns["split"]) if "split" in columns else None
        groups = self._groups(columns["group"]) if "group" in columns else None
        if self.several_labels:
            rows = [self._several(cell, i) for i, cell in enumerate(columns["labels"])]
        elif "label" in columns:
            rows = [[self._label(cell, i)] for i, cell in enumerate(columns["label"])]
        else:
            rows = [["image"]] * len(images)
        learnt = [i for i in range(len(rows)) if parts is None or parts[i] == "train"]
        classes = _in_order({value for i in learnt or range(len(rows)) for value in rows[i]})
        self._refuse_one_number_twice(classes)
        ranks = {value: rank for rank, value in enumerate(classes)}
        self._refuse_unknown(rows, parts, ranks)
        names = [(class_names or {}).get(value, value) for value in classes]
        if not self.several_labels:
            return Listing(images, [ranks[value] for (value,) in rows], names, parts, groups)
        if not classes:
            raise DataError(f"{self.name}: no image has a label in column {self.labels!r}")
        numbers = [{ranks[value] for value in row} for row in rows]
        return Listing(images, [[int(n in row) for n in range(len(names))] for row in numbers], names, parts, groups)

    def _refuse_one_number_twice(self, classes: Sequence[str]) -> None:
        """Raises DataError for a class that a table writes as 1 and as 1.0, as programs do to a column with a gap: its
        images would be of two classes."""
        written: dict[str, str] = {}
        for value in classes:
            number = _WHOLE.fullmatch(value)
            if number and written.setdefault(number[1], value) != value:
                raise DataError(
                    f"{self.name}: labels {written[number[1]]!r} and {value!r} of {self.path} are one number; write "
                    "every label in one way"
                )

    def _refuse_unknown(self, rows: list[list[str]], parts: list[str] | None, ranks: Mapping[str, int]) -> None:
        """Raises DataError for labels of val and test that no training image has."""
        for part in ("val", "test"):
            of_part = {value for i, row in enumerate(rows) if parts and parts[i] == part for value in row}
            never = _in_order(of_part - ranks.keys())
            if never:
                raise DataError(
                    f"{self.name}: {len(never):,} classes are in {part} and never trained: {first_few(never)}; give "
                    "each some images to train on, or leave it out"
                )

    def _label(self, cell: Any, row: int) -> str:
        column = self.label or "label"
        if isinstance(cell, list):
            raise self._wrong(row, column, "holds a list", "name the column as `labels` for several labels per image")
        return self._value(cell, row, column)

    def _several(self, cell: Any, row: int) -> list[str]:
        if cell is None:
            raise self._wrong(row, self.labels, "is empty", "an image without labels has an empty list or empty text")
        if isinstance(cell, str):
            cell = [part for part in cell.split(self.separator) if part.strip()]
        return [self._value(value, row, self.labels) for value in (cell if isinstance(cell, list) else [cell])]

    def _value(self, cell: Any, row: int, column: str | None) -> str:
        """A label as text, without blanks at its ends. Tables differ in what they call a number."""
        value = cell.strip() if isinstance(cell, str) else cell
        if value is None or value == "" or value != value:
            raise self._wrong(row, column, "has no label", "give every image its label, or leave it out")
        if not isinstance(value, str | int):
            raise self._wrong(row, column, f"holds {value!r}", "a class is text or a whole number")
        return str(value).lower() if isinstance(value, bool) else str(value)

    def _parts(self, cells: Cells) -> list[str]:
        found = []
        for row, cell in enumerate(cells):
            value = cell.strip() if isinstance(cell, str) else cell
            if value not in ("train", "val", "test"):
                meant = PART_NAMES.get(str(value).lower())
                remedy = f"write {meant}" if meant else "a part is train, val or test"
                raise self._wrong(row, self.split or "split", f"holds {value!r}", remedy)
            found.append(str(value))
        return found

    def _groups(self, cells: Cells) -> list[str]:
        found = []
        for row, cell in enumerate(cells):
            value = cell.strip() if isinstance(cell, str) else cell
            if value is None or value == "" or value != value:
                remedy = "an image that belongs to no group needs one of its own"
                raise self._wrong(row, self.group or "group", "is empty", remedy)
            found.append(str(value))
        return found

    def _wrong(self, row: int, column: str | None, what: str, remedy: str) -> DataError:
        return DataError(f"{self.name}: {self.row_name(row)}: column {column!r} {what}; {remedy}")


_WHOLE = re.compile(r"([+-]?\d+)(?:\.0*)?")
"""A whole number as tables write it, with or without a point."""


def _in_order(values: set[str]) -> list[str]:
    """By their value, if all are whole numbers; else by their text."""
    if all(value.isascii() and value.isdigit() for value in values):
        return sorted(values, key=lambda value: (int(value), value))
    return sorted(values)
