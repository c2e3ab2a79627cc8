"""A task over one data set: what follows from the data alone, whatever the task makes of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from pydantic import ValidationInfo, field_validator

from tasks.base import DataContext, Task
from tasks.errors import DataError


class TaskData(Protocol):
    """A data set and what a task uses of it, by the options of the task."""

    @property
    def name(self) -> str:
        """Of the data set."""

    @property
    def caveats(self) -> tuple[str, ...]:
        """See Task.caveats."""

    @property
    def manifest_names(self) -> tuple[str, ...]:
        """See Task.manifest_names."""

    def opens(self, reads_test: bool) -> Mapping[str, str]:
        """See Task.opens. `reads_test`: the task measures on test, so that nothing is learnt from it by others."""

    def missing(self, root: Path) -> str | None:
        """See Task.missing_data."""

    def planned(self, root: Path, folders: Sequence[Path]) -> Mapping[str, Mapping[str, Any]]:
        """See Task.planned_fields."""


Data = TypeVar("Data", bound=TaskData)


class OneDataSet(Task, Generic[Data]):
    """A task with a field `dataset`, and fields `manifests` and `sizes` that planning fills in from the data."""

    part_fields: ClassVar[tuple[str, ...]] = ()
    """Fields besides `dataset`, as far as the task has them, that say which of the data are used."""

    @classmethod
    @abstractmethod
    def data_of(cls, fields: Mapping[str, Any]) -> Data:
        """The data by the fields of the task. Without `manifests` and `sizes`: before they are planned."""

    @property
    def _data(self) -> Data:
        return self.data_of(dict(self))

    @field_validator("manifests", "sizes", check_fields=False)
    @classmethod
    def _own_entries(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        """Every task of a job is given the entries of all, and keeps its own."""
        if not value or {"dataset", *cls.part_fields} & cls.model_fields.keys() - info.data.keys():
            return value  # nothing to keep; or another field is wrong, and is reported
        names = cls.data_of(info.data).manifest_names
        return {name: entry for name, entry in value.items() if name in names}

    @property
    def caveats(self) -> tuple[str, ...]:
        return self._data.caveats

    @property
    def reads_test(self) -> bool:
        return self.split == "test"

    @property
    def opens(self) -> Mapping[str, str]:
        return self._data.opens(self.reads_test)

    def missing_data(self, root: Path) -> str | None:
        return self._data.missing(root)

    @property
    def manifest_names(self) -> tuple[str, ...]:
        return self._data.manifest_names

    def data_manifests(self, root: Path, folders: Sequence[Path] = ()) -> Mapping[str, str]:
        return self.planned_fields(root, folders).get("manifests", {})

    def planned_fields(self, root: Path, folders: Sequence[Path] = ()) -> Mapping[str, Mapping[str, Any]]:
        return self._data.planned(root, folders)

    def key_content(self, content: dict[str, Any]) -> dict[str, Any]:
        """The base's, without counts."""
        return super().key_content({name: value for name, value in content.items() if name != "sizes"})

    def check_may_test(self, context: DataContext) -> None:
        """Raises DataError when this trial would open test data and was not planned as one that may."""
        if self.reads_test and not context.may_test:
            raise DataError(
                f"{self._data.name}: test images are opened only by trials that come after every choice; "
                "this one was not planned as such"
            )
