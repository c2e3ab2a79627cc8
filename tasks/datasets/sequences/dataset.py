"""Data sets of sequences: where they lie, what is in them as their makers state it, and whether they are whole."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from tasks.datasets.checks import compare_manifest
from tasks.datasets.info import NO_FOLDER, Finding, SplitOption, Watch, unwatched
from tasks.datasets.manifest import FOLDER, Manifest
from tasks.datasets.official import OfficialDataset
from tasks.datasets.sequences.got10k_lists import TAKEN
from tasks.errors import DataError

if TYPE_CHECKING:
    from tasks.datasets.sequences.layout import FolderLayout
    from tasks.datasets.sequences.opened import Objects, Surveyed
    from tasks.datasets.sequences.types import Part, Protocol, SequenceSet

PARTS: tuple[Part, ...] = ("train", "val", "test")
TAKEN_OPTION = SplitOption(
    "taken", "--got10k-train", "word", TAKEN[0],
    "Sequences of train: SwinTrack's, all but those that VOT forbids, or all.", TAKEN,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SequenceDataset(OfficialDataset):
    """Sequences of frames with a box in each; or images with boxes, as still ones."""

    counts: Mapping[Part, int]
    """Sequences (of COCO: images) of each part as they are published."""
    frames: Mapping[Part, int]
    """Frames of each part as they are published, for cost before data are there; 0: not stated."""
    metric: str = "SUC"
    """By which the paper reports trackers on its test part."""
    caveat: str = ""
    """Why nothing that is measured on it compares with published figures."""

    def missing(self, root: Path) -> str | None:
        if self.made or self.own is not None:
            return super().missing(root)
        path = root / self.folder
        if path.is_dir():
            return None
        return f"{self.name}: not found: {path}{'' if root.is_dir() else NO_FOLDER}. {self.how_to_get}"

    @abstractmethod
    def protocol(self, part: Part) -> Protocol:
        """How trackers are measured on a part."""

    @abstractmethod
    def surveyed(self, root: Path, part: Part, folders: Sequence[Path], whole: bool = True) -> Surveyed:
        """The sequences of a part; none where it is not there. `whole`: of data of one's own, which may change, also
        compares boxes with frames and reads every frame for the digests. Raises DataError."""

    @abstractmethod
    def open(self, root: Path, part: Part) -> SequenceSet:
        """The sequences of a part with their lengths; boxes are read when a sequence is loaded. Raises DataError when
        the part is not there."""

    @abstractmethod
    def look(self, root: Path, part: Part, found: Surveyed, finding: Finding, images: bool, watch: Watch) -> None:
        """Adds the faults of the frames and boxes of a part; with `images` also of those that cannot be decoded."""

    def with_choices(self, choices: Mapping[str, Any]) -> Self:
        """The same set with a choice of its parts (see `options`)."""
        return self

    def facts(self) -> Mapping[str, Any]:
        counts: dict[str, Any] = {part: self.counts.get(part, 0) for part in PARTS}
        frames = ", ".join(f"{part} {self.frames[part]:,}" for part in PARTS if self.frames.get(part))
        return {**counts, "metric": self.metric, "split": self.split, "frames": frames}

    def needed(self, part: Part) -> DataError:
        """Of a part that is not there."""
        parts = ", ".join(each for each in PARTS if self.counts.get(each)) or "train, val, test"
        return DataError(f"{self.name} has no sequences of {part} here (its parts: {parts}). {self.how_to_get}")

    def manifest_of(self, root: Path, folders: Sequence[Path] = ()) -> Manifest:
        """Every sequence of the parts that are there, with its frames and a digest of its annotations. Raises
        DataError."""
        return self.manifest_from({part: self.surveyed(root, part, folders) for part in PARTS})

    def manifest_from(self, found: Mapping[Part, Surveyed]) -> Manifest:
        """The manifest of parts that were surveyed."""
        images: list[str | int] = []
        annotations: list[Any] = []
        parts: list[str] = []
        for part, some in found.items():
            images += [f"{part}/{name}" for name in some.names]
            lengths = zip(some.lengths, some.digests, strict=True)
            annotations += [{"frames": int(length), "sequence": digest} for length, digest in lengths]
            parts += [part] * len(some.names)
        if not images:
            raise DataError(f"{self.name}: no sequences of any part. {self.how_to_get}")
        return Manifest(f"{self.name}/{self.cut}", images, annotations, parts, rule=self.split)

    def published(self) -> Mapping[Part, int]:
        """`counts` with the choices that were made."""
        return self.counts

    @property
    def cut(self) -> str:
        """Name of the rule of its parts."""
        return "official"

    @property
    def manifest_file(self) -> str:
        return f"{self.name}-{self.cut}.jsonl"

    def manifest(self, root: Path, choices: Mapping[str, Any]) -> tuple[Manifest, str]:
        chosen = self.with_choices(choices)
        return chosen.manifest_of(root), chosen.manifest_file

    def check(
        self, root: Path, choices: Mapping[str, Any], folders: Sequence[Path], images: bool, watch: Watch = unwatched
    ) -> Finding:
        """Looks at lists, counts, boxes and whether all frames are there; with `images` also opens every frame."""
        return self.with_choices(choices)._check(root, [root / FOLDER, *folders], images, watch)

    def _check(self, root: Path, folders: Sequence[Path], images: bool, watch: Watch) -> Finding:
        finding = Finding(what="sequences")
        problem = self.missing(root)
        if problem:
            finding.problems.append(self._short(problem))
            return finding
        found = self._surveyed(root, folders, finding, whole=False)
        finding.opened = 0 if images else None
        for part, some in found.items():
            if some.names:
                self.look(root, part, some, finding, images, watch)
        if not finding.problems and self.own is not None:
            found = self._surveyed(root, folders, finding, whole=True)
        self._compare(found, folders, finding)
        return finding

    def _surveyed(self, root: Path, folders: Sequence[Path], finding: Finding, whole: bool) -> dict[Part, Surveyed]:
        """The parts that can be read; a fault for each other one."""
        found: dict[Part, Surveyed] = {}
        for part in PARTS:
            try:
                found[part] = self.surveyed(root, part, folders, whole)
            except DataError as error:
                finding.problems += {self._short(error)}.difference(finding.problems)  # two parts may have one fault
        return found

    def _compare(self, found: Mapping[Part, Surveyed], folders: Sequence[Path], finding: Finding) -> None:
        """Adds the counts and the digest, and what does not agree with those that are published or were written."""
        try:
            made = self.manifest_from(found)
        except DataError as error:
            finding.problems += [] if finding.problems else [self._short(error)]
            return
        finding.counts, finding.digest, finding.split = made.counts, made.digest, made.cut
        stated = self.published()
        finding.expected = sum(stated.values()) or None
        for part, count in stated.items():
            if part in found and made.counts[part] != count:
                finding.problems.append(
                    f"{made.counts[part]:,} sequences of {part}, {count:,} published: unpack all files of the set"
                )
            elif part in found and not self.protocol(part).public_labels:
                self._compare_frames(part, sum(found[part].lengths), finding)
        if not finding.problems or self.own is None:
            compare_manifest(self.name, self.manifest_file, folders, finding)

    def _compare_frames(self, part: Part, frames: int, finding: Finding) -> None:
        """Of a part without boxes nothing else says that the last frames of a sequence are missing."""
        if frames != self.frames.get(part, frames):
            finding.notes.append(
                f"{part}: {frames:,} frames, {self.frames[part]:,} published; the makers' server refuses the tracks of "
                "a sequence whose last frames are missing"
            )

    def unlike_published(self, part: Part, sequences: int) -> str:
        """Says that another number of sequences is here than was published; empty when it is the same."""
        stated = self.published().get(part, sequences)
        if sequences == stated:
            return ""
        return f"{self.name}: {sequences:,} of {stated:,} published sequences of {part}: compare with nothing published"

    def _short(self, problem: DataError | str) -> str:
        return str(problem).removeprefix(f"{self.name}: ")

    def files(self, root: Path) -> tuple[list[Path], list[int] | None]:
        """Raises DataError: `data pack` has nothing to do here."""
        raise DataError(f"{self.name}: frames of sequences are read from single files, and are not packed")


@dataclass(frozen=True, kw_only=True)
class FolderSequences(SequenceDataset):
    """Sequences in folders."""

    form: Literal["Got10k", "TrackingNet", "Lasot", "Own"]
    """A class of layouts.py."""
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Of its layout."""

    @property
    def layout(self) -> FolderLayout:
        from tasks.datasets.sequences import layouts

        layout: FolderLayout = getattr(layouts, self.form)(self.name, **self.fields)
        return layout

    @property
    def options(self) -> tuple[SplitOption, ...]:
        return (TAKEN_OPTION,) if self.form == "Got10k" else ()

    def with_choices(self, choices: Mapping[str, Any]) -> Self:
        return replace(self, fields={**self.fields, **choices}) if choices else self

    @property
    def cut(self) -> str:
        taken = self.fields.get(TAKEN_OPTION.name, TAKEN[0])
        return "official" if taken == TAKEN[0] else str(taken)

    def published(self) -> Mapping[Part, int]:
        from tasks.datasets.sequences.got10k_lists import SEQUENCES, numbers_left_out

        if self.form != "Got10k":
            return self.counts
        return {**self.counts, "train": SEQUENCES - len(numbers_left_out(self.fields.get(TAKEN_OPTION.name, TAKEN[0])))}

    def protocol(self, part: Part) -> Protocol:
        return self.layout.protocol(part)

    def surveyed(self, root: Path, part: Part, folders: Sequence[Path], whole: bool = True) -> Surveyed:
        from tasks.datasets.sequences.opened import survey

        return survey(self.layout, self.base(root), root, part, folders, whole and self.own is not None)

    def open(self, root: Path, part: Part) -> SequenceSet:
        from tasks.datasets.sequences.opened import FolderSet

        found = self.surveyed(root, part, (), whole=False)
        if not found.names:
            raise self.needed(part)
        return FolderSet(self.layout, self.base(root), part, found)

    def look(self, root: Path, part: Part, found: Surveyed, finding: Finding, images: bool, watch: Watch) -> None:
        from tasks.datasets.sequences.checks import look_at_folders

        look_at_folders(self.layout, self.base(root), part, found, finding, images, watch)


@dataclass(frozen=True, kw_only=True)
class StillImages(SequenceDataset):
    """Images with boxes as COCO 2017 has them, each object a still sequence."""

    annotations: str = "annotations/instances_{part}2017.json"
    images: str = "{part}2017"

    def protocol(self, part: Part) -> Protocol:
        from tasks.datasets.sequences.types import Protocol

        return Protocol("otb", True)

    def _read(self, root: Path, part: Part) -> Objects | None:
        """Its objects; None where there are no annotations of the part."""
        from tasks.datasets.sequences.coco import known_objects

        path = self.base(root) / self.annotations.format(part=part)
        return known_objects(path, self.images.format(part=part), self.name) if path.exists() else None

    def surveyed(self, root: Path, part: Part, folders: Sequence[Path], whole: bool = True) -> Surveyed:
        from tasks.datasets.sequences.opened import Surveyed

        objects = self._read(root, part)
        if objects is None:
            return Surveyed((), (), ())
        digests = [objects.digest(image) for image in range(len(objects.files))]
        return Surveyed(objects.files, objects.lengths.tolist(), digests)

    def open(self, root: Path, part: Part) -> SequenceSet:
        from tasks.datasets.sequences.opened import StillSet

        objects = self._read(root, part)
        if objects is None:
            raise self.needed(part)
        return StillSet(self.name, self.base(root), part, objects)

    def look(self, root: Path, part: Part, found: Surveyed, finding: Finding, images: bool, watch: Watch) -> None:
        from tasks.datasets.sequences.checks import look_at_stills

        look_at_stills(self.name, self.base(root), part, found, finding, images, watch)
