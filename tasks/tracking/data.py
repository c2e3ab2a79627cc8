"""The sequences of a task: those that pairs are drawn from, of one or several data sets, and those that are tracked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.datasets import find_dataset
from tasks.datasets.manifest import check_planned, folders_of, is_saved
from tasks.datasets.manifest import save as save_manifest
from tasks.datasets.sequences.dataset import PARTS, TAKEN_OPTION, FolderSequences, SequenceDataset, StillImages
from tasks.datasets.sequences.described import SequencesDescription
from tasks.errors import DataError

if TYPE_CHECKING:
    from tasks.datasets.sequences.types import Protocol, SequenceSet

Measured = Literal["val", "test"]
PART_FIELDS = ("train_sets", "evaluate", "got10k_train")
"""Fields of a task, besides `dataset`, that say which sequences are used."""
KINDS = (FolderSequences, StillImages)
"""Data sets that are known by name."""


class FrameCounts(BaseModel):
    """Frames of each part, as planning found them."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    train: int = Field(default=0, ge=0, le=10**11)
    val: int = Field(default=0, ge=0, le=10**11)
    test: int = Field(default=0, ge=0, le=10**11)
    unlike: dict[Literal["train", "val", "test"], Annotated[int, Field(ge=0, le=10**9)]] = Field(default={})
    """Sequences of the parts of which another number was published."""


@dataclass(frozen=True)
class TrackingData:
    """The data sets of a task and what it uses of them."""

    whole: SequenceDataset
    """The one that is evaluated."""
    trained: tuple[SequenceDataset, ...]
    evaluate: Measured
    manifests: Mapping[str, str]
    sizes: Mapping[str, FrameCounts]

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> TrackingData:
        """`options`: fields of the task, by name. Raises ValueError for an unknown name."""
        taken = options["got10k_train"]
        whole = resolved(options["dataset"], taken)
        named = options["train_sets"]
        trained = (whole,) if named is None else tuple(resolved(each, taken) for each in named)
        planned = {name: options.get(name, {}) for name in ("manifests", "sizes")}
        return cls(whole, trained, options["evaluate"], **planned)

    @property
    def name(self) -> str:
        return self.whole.name

    @property
    def all(self) -> dict[str, SequenceDataset]:
        """Every set by the name of its manifest, the evaluated one first."""
        return {_manifest_name(each): each for each in (self.whole, *self.trained)}

    @property
    def protocol(self) -> Protocol:
        """How trackers are measured on the evaluated part."""
        return self.whole.protocol(self.evaluate)

    @property
    def caveats(self) -> tuple[str, ...]:
        """See Task.caveats."""
        made = [each.caveat for each in self.all.values() if each.caveat]
        used = [(self.whole, self.evaluate), *[(each, "train") for each in self.trained]]
        counts = [(each, part, self._entry(each).unlike) for each, part in used]
        other = [each.unlike_published(part, found[part]) for each, part, found in counts if part in found]
        return tuple(dict.fromkeys([*made, *filter(None, other)]))

    def _entry(self, dataset: SequenceDataset) -> FrameCounts:
        """What planning found of one of the data sets; zeros before."""
        return self.sizes.get(_manifest_name(dataset), FrameCounts())

    @property
    def manifest_names(self) -> tuple[str, ...]:
        """See Task.manifest_names."""
        return tuple(self.all)

    def opens(self, reads_test: bool) -> Mapping[str, str]:
        """See TaskData.opens."""
        own = {place_of(each): "the makers' parts" for each in self.all.values()}
        shown = {name: why for each in self.all.values() for name, why in each.shown.items()}
        return own if reads_test else {**shown, **own}

    @property
    def evaluation_samples(self) -> int:
        """Frames to track, as planning found them, or else as they are published (0 of described data)."""
        if _manifest_name(self.whole) not in self.sizes:
            return self.whole.frames.get(self.evaluate, 0)
        return int(getattr(self._entry(self.whole), self.evaluate))

    def missing(self, root: Path) -> str | None:
        """See Task.missing_data."""
        absent = [(each.name, problem) for each in self.all.values() if (problem := each.missing(root))]
        if not absent:
            return None
        (_, problem), *others = absent
        names = ", ".join(name for name, _ in others)
        return f"{problem} Not there either: {names} (`data ls` says how to get them)." if others else problem

    def planned(self, root: Path, folders: Sequence[Path]) -> Mapping[str, Mapping[str, Any]]:
        """See Task.planned_fields: `manifests`, and `sizes`. Nothing of a set that is missing, unless described."""
        manifests, sizes = dict[str, str](), dict[str, dict[str, Any]]()
        for name, each in self.all.items():
            if each.made:  # not made here: that takes minutes, and a plan none
                manifests[name] = each.recipe()
                continue
            problem = each.missing(root)
            if problem and each.own is not None:
                raise DataError(problem)
            if problem:
                continue
            made = each.manifest_of(root, folders)
            manifests[name], places = made.digest, folders_of(root, folders)
            lengths = [(part, entry["frames"]) for part, entry in zip(made.parts, made.annotations, strict=True)]
            sizes[name] = {each: sum(frames for part, frames in lengths if part == each) for each in PARTS}
            if unlike := {part: made.counts[part] for part in PARTS if each.unlike_published(part, made.counts[part])}:
                sizes[name]["unlike"] = unlike
            if each.own is None and not any(is_saved(folder / each.manifest_file, made.digest) for folder in places):
                save_manifest(made, each.manifest_file, places)
        return {key: value for key, value in (("manifests", manifests), ("sizes", sizes)) if value}

    def submission(self, parts: Sequence[Mapping[str, Any]]) -> tuple[str, bytes]:
        """Name and content of the file for the makers' server. `parts`: see `measuring.part_of`. Raises DataError for
        tracks that the server would refuse."""
        import tempfile

        import numpy as np

        from tasks.datasets.sequences.submission import Tracked, check_submission, write_submission
        from tasks.datasets.sequences.types import Sequence as Frames

        results, given = dict[str, Tracked](), dict[str, Frames]()
        for part in parts:
            boxes, seconds = (np.array(part[name], np.float64) for name in ("boxes", "seconds"))
            results[part["name"]] = Tracked(boxes, seconds)
            shown = np.ones(len(boxes), np.bool_)
            given[part["name"]] = Frames(part["name"], ("",) * len(boxes), boxes[:1], shown, shown, 1.0)
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / f"{self.name}-{self.evaluate}"
            packed = write_submission(self.whole, results, folder)
            faults = check_submission(self.whole, given, folder)
            if faults:
                raise DataError(f"{self.name}: the server would refuse the tracks: {'; '.join(faults)}")
            return packed.name, packed.read_bytes()

    def read(self, root: Path) -> tuple[list[SequenceSet], SequenceSet]:
        """What pairs are drawn from, and what is tracked. Raises DataError when data are missing, or not those that
        the trial was planned with."""
        problem = self.missing(root)
        if problem:
            raise DataError(problem)
        for name, each in self.all.items():
            if name in self.manifests:
                found = each.recipe() if each.made else each.manifest_of(root).digest
                check_planned(each.name, "sequences", self.manifests[name], found)
        return [each.open(root, "train") for each in self.trained], self.whole.open(root, self.evaluate)


def _manifest_name(dataset: SequenceDataset) -> str:
    return f"{place_of(dataset)}/{dataset.cut}"


def place_of(dataset: SequenceDataset) -> str:
    """Its path where it is described, else its name."""
    return dataset.own.path if dataset.own else dataset.name


def resolved(dataset: str | SequencesDescription, taken: str) -> SequenceDataset:
    """The known data set of this name, or the described one; of GOT-10k the sequences `taken` of train."""
    whole: SequenceDataset = find_dataset(dataset, *KINDS) if isinstance(dataset, str) else dataset.dataset()
    chosen = any(option.name == TAKEN_OPTION.name for option in whole.options) and taken != TAKEN_OPTION.default
    return whole.with_choices({TAKEN_OPTION.name: taken}) if chosen else whole
