"""Data sets of images with annotations for dense prediction: named, generated or described; parts, counts, manifest."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from tasks.datasets.checks import compare_manifest
from tasks.datasets.info import Finding, Watch, unwatched
from tasks.datasets.manifest import FOLDER, Manifest, check_planned, folders_of, saved_digest
from tasks.datasets.manifest import save as save_manifest
from tasks.datasets.official import OfficialDataset
from tasks.errors import DataError

Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")
Evaluated = Literal["val", "test"]


class ImageCounts(BaseModel):
    """Images of each part, as planning found them."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    train: int = Field(default=0, ge=0, le=10**10)
    val: int = Field(default=0, ge=0, le=10**10)
    test: int = Field(default=0, ge=0, le=10**10)
    learnt: int = Field(default=0, ge=0, le=10**10)
    """Images of train that show something to learn from; the others have no object."""
    classes: int = Field(default=0, ge=0, le=10**6)


@dataclass(frozen=True, kw_only=True)
class AnnotatedDataset(OfficialDataset):
    """Images with annotations in files beside them, by parts."""

    counts: Mapping[Part, int]
    """Images of each part, as its makers publish them; empty for data that a spec describes."""
    learnt: int = 0
    """See ImageCounts."""
    metric: str
    caveat: str = ""
    """Why nothing that is measured on it compares with published figures."""

    @abstractmethod
    def has(self, base: Path, part: Part) -> bool:
        """True if the annotations of a part are there. `base`: the set's folder."""

    @abstractmethod
    def place(self, base: Path, part: Part) -> Path:
        """Where the annotations of a part lie or should lie."""

    @abstractmethod
    def entries(self, root: Path, part: Part, folders: Sequence[Path]) -> tuple[Sequence[str], Sequence[Any]]:
        """The images of a part and what the manifest says of each. Raises DataError."""

    @abstractmethod
    def class_names(self, root: Path) -> Sequence[str]:
        """Raises DataError."""

    @abstractmethod
    def image_counts(self, root: Path, made: Manifest) -> ImageCounts:
        """What planning notes of the data whose manifest this is. Raises DataError."""

    @abstractmethod
    def look(self, root: Path, made: Manifest, finding: Finding, images: bool, watch: Watch) -> None:
        """Adds the faults of files; with `images` also of those that cannot be read."""

    @property
    def statable_classes(self) -> int:
        """Classes, where they are known before the data are there; else 0."""
        return 0

    def facts(self) -> Mapping[str, Any]:
        counts: dict[str, Any] = {part: self.counts.get(part, 0) for part in PARTS}
        classes = {"classes": self.statable_classes} if self.statable_classes else {}
        return {**counts, **classes, "metric": self.metric, "split": self.split}

    def manifest_of(self, root: Path, folders: Sequence[Path] = ()) -> Manifest:
        """Every image of the parts that are there, with a digest of its annotations. `folders`: where digests of files
        are remembered. Raises DataError, also for an image that two parts have."""
        from tasks.datasets.files import first_few, repeated

        base = self.base(root)
        images: list[str | int] = []
        annotations: list[Any] = []
        parts: list[str] = []
        for part in PARTS:
            if self.has(base, part):
                names, about = self.entries(root, part, folders)
                images += names
                annotations += about
                parts += [part] * len(names)
        if not images:
            raise DataError(f"{self.name}: no annotations of any part: {self.place(base, 'train')}. {self.how_to_get}")
        if twice := repeated(images):
            raise DataError(
                f"{self.name}: {len(twice):,} images are in two parts, so that the model would be measured on what it "
                f"learnt from: {first_few(twice)}"
            )
        names = self.class_names(root)
        return Manifest(
            f"{self.name}/official", images, annotations, parts, len(names), rule=self.split, names=tuple(names)
        )

    def check(
        self, root: Path, choices: Mapping[str, Any], folders: Sequence[Path], images: bool, watch: Watch = unwatched
    ) -> Finding:
        """Annotations and files of every part, and the counts that the makers state; with `images` reads all files."""
        finding = Finding()
        problem = self.missing(root)
        if problem:
            finding.problems.append(self.short(problem))
            return finding
        folders = [root / FOLDER, *folders]
        try:
            made = self.manifest_of(root, folders)
        except DataError as error:
            finding.problems.append(self.short(error))
            return finding
        finding.counts, finding.digest, finding.split, finding.classes = (
            made.counts,
            made.digest,
            made.cut,
            made.classes,
        )
        for part, wanted in self.counts.items():
            if made.counts[part] != wanted:
                finding.problems.append(f"{made.counts[part]:,} images of {part}, expected {wanted:,}")
        finding.expected = sum(self.counts.values()) or None
        compare_manifest(self.name, self.manifest_file, folders, finding)
        self.look(root, made, finding, images, watch)
        return finding

    def short(self, problem: DataError | str) -> str:
        return str(problem).removeprefix(f"{self.name}: ")


@dataclass(frozen=True)
class AnnotatedData:
    """A data set by the options of a task: what both detection and segmentation make of it. See TaskData."""

    whole: AnnotatedDataset
    evaluate: Evaluated
    digest: str = ""
    """SHA-256 of the manifest that the trial was planned with; empty: it was planned without one."""
    sizes: ImageCounts | None = None

    @classmethod
    def of(cls, dataset: Any, options: Mapping[str, Any]) -> Self:
        """`dataset`: a data set, or a description that makes one. `options`: fields of the task, by name: `evaluate`,
        and `manifests` and `sizes` where planned."""
        whole = dataset if isinstance(dataset, AnnotatedDataset) else dataset.dataset()
        digests, sizes = (list(options.get(name, {}).values()) for name in ("manifests", "sizes"))
        return cls(whole, options["evaluate"], digests[0] if digests else "", sizes[0] if sizes else None)

    @property
    def name(self) -> str:
        return self.whole.name

    @property
    def place(self) -> str:
        return self.whole.own.path if self.whole.own else self.whole.name

    @property
    def manifest_names(self) -> tuple[str, ...]:
        return (f"{self.place}/official",)

    @property
    def caveats(self) -> tuple[str, ...]:
        return (self.whole.caveat,) if self.whole.caveat else ()

    def opens(self, reads_test: bool) -> Mapping[str, str]:
        own = {self.place: "the makers' parts"}
        return own if reads_test else {**self.whole.shown, **own}

    def samples(self, part: Part) -> int:
        """Images of a part, as planning found them, or else as they are published; 0 while nothing is known."""
        return int(getattr(self.sizes, part)) if self.sizes else self.whole.counts.get(part, 0)

    @property
    def learnt(self) -> int:
        """Images of train that show something to learn from, likewise."""
        return (self.sizes.learnt if self.sizes else self.whole.learnt) or self.samples("train")

    @property
    def classes(self) -> int:
        """Classes, likewise."""
        return (self.sizes.classes if self.sizes else 0) or self.whole.statable_classes

    def missing(self, root: Path) -> str | None:
        problem = self.whole.missing(root)
        if problem or self.whole.made:
            return problem
        base = self.whole.base(root)
        needed: tuple[Part, ...] = ("train", self.evaluate)
        for part in needed:
            if not self.whole.has(base, part):
                path = self.whole.place(base, part)
                return f"{self.name}: no {path}, the annotations of {part}. {self.whole.how_to_get}"
        return None

    def planned(self, root: Path, folders: Sequence[Path]) -> Mapping[str, Mapping[str, Any]]:
        """`manifests`, and `sizes` of described data.

        The manifest of a named set is made and written once, and then believed; described data may change and are
        always read.
        """
        names = self.manifest_names
        if self.whole.made:  # not made here: that takes a minute, and a plan none
            return {"manifests": dict.fromkeys(names, self.whole.recipe())}
        problem = self.missing(root)
        if problem:
            if self.whole.own is not None:
                raise DataError(problem)
            return {}
        folders = folders_of(root, folders)
        saved = next((path for each in folders if (path := each / self.whole.manifest_file).exists()), None)
        if saved is not None and self.whole.own is None:
            return {"manifests": dict.fromkeys(names, saved_digest(saved))}
        made = self.whole.manifest_of(root, folders)
        if self.whole.own is None:
            save_manifest(made, self.whole.manifest_file, folders)
            return {"manifests": dict.fromkeys(names, made.digest)}
        counts = {**self.whole.image_counts(root, made).model_dump(), "classes": made.classes}
        return {"manifests": dict.fromkeys(names, made.digest), "sizes": dict.fromkeys(names, counts)}

    def check_planned(self, root: Path, folders: Sequence[Path]) -> None:
        """Raises DataError when the data are missing, or are not those that the trial was planned with."""
        problem = self.missing(root)
        if problem:
            raise DataError(problem)
        if not self.digest:
            return
        found = (
            self.whole.recipe() if self.whole.made else self.whole.manifest_of(root, folders_of(root, folders)).digest
        )
        check_planned(self.name, "annotations", self.digest, found)
