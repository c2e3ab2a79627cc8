"""The depth data of a task, named or described: counts, manifest, and the pairs of its parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tasks.datasets.depth_pairs.dataset import DepthDataset, MadeRooms
from tasks.datasets.depth_pairs.described import DepthPairs, PairCounts
from tasks.datasets.depth_pairs.layout import DepthFormat, DepthLayout, Part
from tasks.datasets.depth_pairs.pairs import Pairs, file_name, manifest, read_pairs
from tasks.datasets.manifest import Manifest, folders_of, is_saved, save
from tasks.errors import DataError

Evaluated = Literal["val", "test"]


@dataclass(frozen=True)
class OpenedPairs:
    """The pairs that a trial opens."""

    layout: DepthLayout
    train: Pairs
    evaluation: Pairs
    apart: Pairs | None = None


@dataclass(frozen=True)
class DepthData:
    """A depth data set by the options of a task."""

    whole: DepthDataset | DepthPairs
    evaluate: Evaluated
    digest: str = ""
    """SHA-256 of the manifest that the trial was planned with; empty: it was planned without one."""
    sizes: PairCounts | None = None

    @classmethod
    def of(cls, dataset: DepthDataset | DepthPairs, options: Mapping[str, Any]) -> DepthData:
        """`options`: fields of the task, by name; of these `evaluate`, `manifests` and `sizes` count."""
        digests, sizes = (list(options.get(name, {}).values()) for name in ("manifests", "sizes"))
        return cls(dataset, options["evaluate"], digests[0] if digests else "", sizes[0] if sizes else None)

    @property
    def name(self) -> str:
        return self.whole.name

    @property
    def format(self) -> DepthFormat:
        return self.whole.format

    @property
    def manifest_names(self) -> tuple[str, ...]:
        """See Task.manifest_names."""
        return (f"{self.name}/lists",)

    def opens(self, reads_test: bool) -> Mapping[str, str]:
        """See TaskData.opens."""
        if isinstance(self.whole, DepthPairs):
            return {self.whole.path: "the lists of pairs"}
        return {**({} if reads_test else self.whole.shown), self.name: "the lists of pairs"}

    def samples(self, part: Part) -> int:
        """Pairs of a part, as planning found them, or else as they are published (0 of described data)."""
        if self.sizes is not None:
            return int(getattr(self.sizes, part))
        return self.whole.counts.get(part, 0) if isinstance(self.whole, DepthDataset) else 0

    def missing(self, root: Path) -> str | None:
        """None when the lists of train and of the part that is evaluated are there."""
        problem = self.whole.missing(root)
        if problem or isinstance(self.whole, MadeRooms):
            return problem
        layout = self.whole.layout(root)
        absent = [layout.list_path(part) for part in ("train", self.evaluate) if part not in layout.parts]
        if not absent:
            return None
        remedy = f"write a list of pairs, or evaluate on {'test' if self.evaluate == 'val' else 'val'}"
        return f"{self.name}: no list {absent[0]}; {remedy}"

    def planned(self, root: Path, folders: Sequence[Path]) -> Mapping[str, Mapping[str, Any]]:
        """See Task.planned_fields: `manifests`, and `sizes` of data whose lists are the user's."""
        whole = self.whole
        if isinstance(whole, MadeRooms):
            return {"manifests": dict.fromkeys(self.manifest_names, whole.digest)}
        problem = whole.missing(root)
        if problem and isinstance(whole, DepthPairs):
            raise DataError(problem)
        if problem:
            return {}
        made = manifest(whole.layout(root))
        folders = folders_of(root, folders)
        if not any(is_saved(folder / file_name(self.name), made.digest) for folder in folders):
            save(made, file_name(self.name), folders)
        names = self.manifest_names
        return {"manifests": dict.fromkeys(names, made.digest), "sizes": dict.fromkeys(names, made.counts)}

    def read(self, root: Path, apart: bool) -> OpenedPairs:
        """The pairs of train and of a part to evaluate on; `apart`: also those of the list that stands apart. Raises
        DataError when lists are missing or are not those that the trial was planned with."""
        problem = self.missing(root)
        if problem:
            raise DataError(problem)
        layout = self.whole.layout(root)
        self._check_digest(manifest(layout))
        lists = [layout.lists["train"], layout.lists[self.evaluate]]
        if apart and isinstance(self.whole, DepthDataset) and self.whole.apart:
            lists.append(self.whole.apart)
        return OpenedPairs(layout, *(read_pairs(self.name, layout.base, each) for each in lists))

    def _check_digest(self, made: Manifest) -> None:
        found = self.whole.digest if isinstance(self.whole, MadeRooms) else made.digest
        if self.digest and found != self.digest:
            raise DataError(
                f"{self.name}: the lists here have SHA-256 {found}, and this trial was planned for {self.digest}: "
                "other data than where the job was submitted; compare the lists, or submit again here"
            )

    @property
    def caveats(self) -> tuple[str, ...]:
        """See Task.caveats."""
        if isinstance(self.whole, DepthPairs):
            return ()
        if self.whole.caveat:
            return (self.whole.caveat,)
        stated, found = self.whole.counts.get("test", 0), self.samples("test")
        if found == stated:
            return ()
        return (
            f"{found:,} test images of {self.whole.title} in the list that was used, {stated:,} in the published one",
        )
