"""Sequences that a spec describes, and the field that takes a name or such a description."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, Tag

from tasks.bounds import Label
from tasks.datasets.described import DatasetDescription, by_kind
from tasks.datasets.sequences.dataset import FolderSequences


class SequencesDescription(DatasetDescription):
    """Sequences of your own: folders train, val and test below `path`, each with a folder a sequence. In it lie the
    frames, whose names end in consecutive numbers, boxes.txt (x,y,width,height in pixels, a line a frame) and perhaps
    visible.txt (1 or 0 a line). A part that is not there does not exist."""

    covered: ClassVar[frozenset[str]] = frozenset({"path"})

    kind: Literal["sequences"]
    fps: float = Field(default=30.0, gt=0, le=10_000)
    """Frames a second of all sequences: the gap between the two frames of a pair is scaled by it."""
    protocol: Literal["otb", "got10k"] = "otb"
    """Which frames figures are over: `otb`: all in which the object shows; `got10k`: these without the first one."""

    def info(self, root: Path) -> FolderSequences:
        return self.dataset()

    def dataset(self) -> FolderSequences:
        """The data as a data set like the named ones, without counts."""
        return FolderSequences(
            name=self.name, title=self.name, source="folder", counts={}, frames={}, licence="",
            split="by the folders train, val and test", metric="SUC" if self.protocol == "otb" else "AO",
            how_to_get=f"{self.path} needs a folder of that name, with a folder for each sequence", form="Own",
            fields={"fps": self.fps, "kind": self.protocol}, own=self,
        )  # fmt: skip


SequencesField: TypeAlias = Annotated[
    Annotated[Label, Tag("name")] | Annotated[SequencesDescription, Tag("sequences")],
    by_kind("sequences"),
]
"""A data set by name, or a description."""
