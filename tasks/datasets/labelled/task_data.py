"""The data set and split of a task on labelled images, from the options of the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tasks.datasets.labelled import own_manifest, partition
from tasks.datasets.labelled.card import SplitSpec, held_out_images
from tasks.datasets.labelled.dataset import LabelledDataset
from tasks.datasets.labelled.described import LabelledDescription
from tasks.datasets.labelled.listing import Sizes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tasks.datasets.labelled.bundled_images import Part
    from tasks.datasets.labelled.loaders import LabelledImages

Learnt = Literal["train", "trainval"]
Measured = Literal["val", "test"]

ANY_COUNT = "fewer or more images than published may have been used (task.counts any): not comparable"


SPLIT_FIELDS = tuple(field.name for field in fields(SplitSpec) if field.name != "dataset")
"""Fields of a task that say which images are in which part."""


@dataclass(frozen=True)
class LabelledData:
    """A data set of labelled images and its split, by the options of a task."""

    whole: LabelledDataset
    """The data set as it is listed, before the split."""
    split: SplitSpec
    any_count: bool = False
    """Accept other counts of images than the published ones."""
    digest: str = ""
    """SHA-256 of the manifest that the trial was planned with; empty: it was planned without one."""
    held_out: int | None = None
    """Images that are held out as val, where planning counted them; None: as many as val_fraction says."""

    @classmethod
    def of(cls, dataset: LabelledDataset | LabelledDescription, options: Mapping[str, Any]) -> LabelledData:
        """`options`: fields of the task, by name; of these `SPLIT_FIELDS`, `counts`, `manifests` and `sizes` count."""
        chosen = {name: options[name] for name in SPLIT_FIELDS if name in options}
        any_count, digests = options.get("counts") == "any", list(options.get("manifests", {}).values())
        held_out = None
        if isinstance(dataset, LabelledDescription):
            sizes: list[Sizes] = list(options.get("sizes", {}).values())
            held_out = sizes[0].held_out if sizes else None
            dataset = dataset.dataset(sizes[0] if sizes else None)
        return cls(dataset, SplitSpec(dataset.name, **chosen), any_count, digests[0] if digests else "", held_out)

    @property
    def name(self) -> str:
        return self.whole.name

    @property
    def card(self) -> LabelledDataset:
        """The data set with the counts and classes that the split has of it."""
        return self.split.of(self.whole)

    def samples(self, part: Learnt | Measured) -> int:
        """Images of a part, as stated."""
        card = self.card
        if part == "test":
            return card.test
        drawn = held_out_images(card.trainval, self.split.val_fraction) if self.held_out is None else self.held_out
        val = card.val if card.official_val else drawn
        return {"val": val, "train": card.trainval - val, "trainval": card.trainval}[part]

    @property
    def known(self) -> bool:
        """False for described data before the job is planned: classes and counts are then 0."""
        return self.whole.known

    def require_known(self) -> None:
        """Raises ValueError while nothing is known of the data."""
        if not self.known:
            raise ValueError(
                f"classes and images of {self.whole.name} are read from its folder when a job is planned: "
                "this trial was not planned"
            )

    def opens(self, reads_test: bool) -> Mapping[str, str]:
        """See TaskData.opens."""
        own = {self.whole.own.path if self.whole.own else self.whole.name: self.split.test_rule(self.whole)}
        return own if reads_test else {**self.whole.shown, **own}

    @property
    def caveats(self) -> tuple[str, ...]:
        """See Task.caveats."""
        return (ANY_COUNT,) if self.any_count else ()

    def missing(self, root: Path) -> str | None:
        """See Task.missing_data."""
        return self.whole.missing(root)

    @property
    def manifest_names(self) -> tuple[str, ...]:
        """See Task.manifest_names."""
        return (self.split.name(self.whole),)

    def planned(self, root: Path, folders: Sequence[Path]) -> Mapping[str, Mapping[str, Any]]:
        """See Task.planned_fields: `manifests`, and for described data also `sizes`."""
        whole, sizes, listing = self.whole, None, None
        if isinstance(whole.own, LabelledDescription):
            listing = own_manifest.read_listing(whole.own, root)
            sizes = own_manifest.sizes_of(whole.own, listing, self.split)
            whole = whole.own.dataset(sizes)
        digest = partition.digest(whole, root, self.split, folders, listing)
        if digest is None:
            return {}
        manifests = dict.fromkeys(self.manifest_names, digest)
        if sizes is None:
            return {"manifests": manifests}
        return {"manifests": manifests, "sizes": dict.fromkeys(self.manifest_names, sizes.model_dump())}

    def class_names(self, root: Path) -> tuple[str, ...]:
        """Names of the classes by number: those of the list of described data, else of the folders of the images; empty
        where they have none. Opens no image, and nothing of test. Raises DataError."""
        from tasks.datasets.labelled.loaders import class_names

        if isinstance(self.whole.own, LabelledDescription):
            return tuple(own_manifest.read_listing(self.whole.own, root).names)
        return class_names(self.read(root, "train", "val").train)

    def read(self, root: Path, train: Learnt, evaluate: Measured) -> LabelledImages:
        """The two parts; images of no other are opened. Raises DataError when they are not those that the trial was
        planned with, or not as stated."""
        from tasks.datasets.labelled import bundled_images
        from tasks.datasets.labelled.loaders import LabelledImages
        from tasks.datasets.labelled.parts import LabelledPart

        card = self.card
        if card.source == "folder":
            both = partition.read_both(self.whole, root, self.split, train, evaluate, self.digest, self.any_count)
            return LabelledImages(card.name, card.files_root(root), *both)
        partition.check_memory(card, root, self.split, self.digest)
        part = bundled_images.load_bundled(card, root)
        first, second = (LabelledPart(part.images[rows], part.labels[rows]) for rows in
                         (_rows(part, train), _rows(part, evaluate)))  # fmt: skip
        return LabelledImages(card.name, root, first, second, small=True)


def _rows(part: Part, name: Learnt | Measured) -> NDArray[np.int64]:
    import numpy as np

    if name == "trainval":
        return np.sort(np.concatenate([part.train, part.val]))
    rows: NDArray[np.int64] = getattr(part, name)
    return rows
