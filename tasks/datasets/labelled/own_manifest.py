"""Cuts described data into train, val and test, and makes their manifest: files with their contents, labels, parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.datasets.contents import remembered_in
from tasks.datasets.files import first_few, repeated
from tasks.datasets.labelled.card import LabelledCard, OwnImages, SplitSpec, held_out_images
from tasks.datasets.labelled.listing import Listing, Sizes
from tasks.datasets.manifest import Manifest
from tasks.errors import DataError

if TYPE_CHECKING:
    from tasks.datasets.labelled.parts import Images


def read_listing(own: OwnImages, root: Path) -> Listing:
    """The images of described data. Raises DataError when they are missing or not as the kind wants them, and for an
    image that is listed twice."""
    problem = own.missing(root)
    if problem:
        raise DataError(problem)
    try:
        listing = own.listing(root)
    except DataError:
        raise
    except Exception as error:  # whatever pyarrow, json and csv raise on damaged files
        said = isinstance(error, OSError | ValueError) and str(error)
        reason = " ".join((str(error) if said else f"{type(error).__name__}: {error}").split()).rstrip(".")
        raise DataError(f"{own.name}: {reason}. {own.path} must be {own.layout}") from error
    if not listing.images:
        raise DataError(f"{own.name}: no images. {own.path} must be {own.layout}")
    if len(set(listing.images)) < len(listing.images):
        _refuse_twice(own, listing)
    return listing


def _refuse_twice(own: OwnImages, listing: Listing) -> None:
    """Raises DataError for images that are listed more than once: they may come into two parts."""
    twice = repeated(listing.images)
    labels: dict[str, list[Any]] = {name: [] for name in twice}
    for name, label in zip(listing.images, listing.labels, strict=True):
        if name in labels and label not in labels[name]:
            labels[name].append(label)
    torn = [name for name, found in labels.items() if len(found) > 1]
    if torn:
        raise DataError(
            f"{own.name}: {len(torn):,} images are listed with two labels: {first_few(torn)}; keep the right one of "
            "each (an image of several classes needs a column of `labels`)"
        )
    raise DataError(f"{own.name}: {len(twice):,} images are listed twice: {first_few(twice)}; keep one of each")


def make(
    card: LabelledCard, root: Path, split: SplitSpec, folders: Sequence[Path] = (), listing: Listing | None = None
) -> Manifest:
    """The manifest of described data. The first time it reads every file once (as fast as the disk gives them: minutes
    for 100 GB), after that only those that were changed; a listing and a look at each file takes seconds for a million.

    `folders`: where, beside root/splits, digests of files are remembered. `listing`: as `read_listing` gave it just
    now. Raises DataError.
    """
    own = card.own
    assert own is not None
    listing = listing or read_listing(own, root)
    parts = cut(own, listing, split)
    found = own.contents(root, listing.images, remembered_in(root, folders))
    _check_packed(own, root, listing)
    return Manifest(
        split.rule(card), listing.images, listing.labels, parts, len(listing.names), rule=card.split,
        contents=tuple(found), names=tuple(listing.names),
    )  # fmt: skip


def _check_packed(own: OwnImages, root: Path, listing: Listing) -> None:
    """Raises DataError for images that were changed after they were packed: trials would read the packed ones."""
    from tasks.datasets.images.shards import FOLDER, INDEX

    folder = own.base(root) / FOLDER
    if not (folder / INDEX).is_file():
        return
    packed = (folder / INDEX).stat().st_mtime_ns
    changed = [name for name in listing.images if (own.base(root) / name).stat().st_ctime_ns > packed]
    if changed:
        raise DataError(
            f"{own.name}: {len(changed):,} images were changed since they were packed into {folder}: "
            f"{first_few(changed)}; remove that folder (`data pack` makes it anew)"
        )


def sizes_of(own: OwnImages, listing: Listing, split: SplitSpec | None = None) -> Sizes:
    """Classes and images of the parts. `split`: how val is cut; without it, `held_out` stays None for whole groups too.
    Raises DataError."""
    counts = Counter(_named_parts(own, listing))
    val = counts["val"] if counts["val"] else None
    by_groups = val is None and (listing.groups is not None or own.several_labels)
    held_out = Counter(cut(own, listing, split))["val"] if split and by_groups else None
    return Sizes(
        classes=len(listing.names), train=counts["train"] + counts["trainval"], val=val, test=counts["test"],
        held_out=held_out,
    )  # fmt: skip


def cut(own: OwnImages, listing: Listing, split: SplitSpec) -> list[str]:
    """train, val or test for each image: as the data say, and drawn where they name none. Raises DataError for an empty
    part, and for a class that is in test and never trained."""
    parts = _named_parts(own, listing)
    if split.official_val == "test" and "val" in parts:
        parts = ["test" if part == "val" else "trainval" for part in parts]
    pool = [i for i, part in enumerate(parts) if part == "trainval"]
    if pool:
        wanted = held_out_images(len(pool), split.val_fraction)
        split.check_held_out(own.name, len(pool))
        for index in _drawn(own, listing, pool, wanted, split.split_seed):
            parts[index] = "val"
        parts = ["train" if part == "trainval" else part for part in parts]
        if not {"train", "val"} <= set(parts):
            lacks = "to train on" if "train" not in parts else "in val"
            raise DataError(
                f"{own.name}: task.val_fraction {split.val_fraction:g} of {len(pool):,} images"
                f"{_of_groups(listing, pool)} leaves none {lacks}; choose it so that both have some"
            )
    return parts


def _named_parts(own: OwnImages, listing: Listing) -> list[str]:
    """train, trainval (from which val is still to be held out), val or test for each image."""
    if listing.parts is None:
        parts = ["trainval"] * len(listing.images)
        if own.test_fraction:
            every = list(range(len(parts)))
            wanted = held_out_images(len(parts), own.test_fraction)
            for index in _drawn(own, listing, every, wanted, own.test_seed):
                parts[index] = "test"
            if not {"test", "trainval"} <= set(parts):
                raise DataError(
                    f"{own.name}: test_fraction {own.test_fraction:g} of {len(parts):,} images"
                    f"{_of_groups(listing, every)} leaves none {'in test' if 'test' not in parts else 'to train on'}; "
                    "choose it so that both have some"
                )
    else:
        _check_given(own, listing)
        parts = listing.parts
        if "val" not in parts:
            parts = ["trainval" if part == "train" else part for part in parts]
    _check_classes(own, listing, parts)
    return parts


def _check_given(own: OwnImages, listing: Listing) -> None:
    """Raises DataError for parts that the data name and that cannot be used."""
    parts = listing.parts or []
    there = [part for part in ("train", "val", "test") if part in parts]
    if own.test_fraction:
        raise DataError(
            f"{own.name}: test_fraction cuts data that name no parts, and these name {', '.join(there)}; leave it out"
        )
    if "train" not in there:
        raise DataError(f"{own.name}: no image of part train; the parts that the data name: {', '.join(there)}")
    of_group: dict[str, str] = {}
    for group, part in zip(listing.groups or [], parts, strict=False):
        if of_group.setdefault(group, part) != part:
            raise DataError(
                f"{own.name}: group {group!r} is in {of_group[group]} and in {part}; a group must be in one part, so "
                "correct the parts, or leave them to be cut"
            )


def _check_classes(own: OwnImages, listing: Listing, parts: Sequence[str]) -> None:
    """Raises DataError for classes that occur in test, or in a val that the data name, and not in training images."""
    in_part: dict[str, set[int]] = {}
    for label, part in zip(listing.labels, parts, strict=True):
        in_part.setdefault(part, set()).update(_classes(label))
    learnt = in_part.get("train", set()) | in_part.get("trainval", set())
    for part in ("val", "test"):
        never = sorted(in_part.get(part, set()) - learnt)
        if never:
            remedy = "give each some images to train on, or leave it out"
            if listing.parts is None:
                remedy += ", or draw another test (test_seed, test_fraction)"
            names = first_few([listing.names[number] for number in never])
            raise DataError(f"{own.name}: {len(never):,} classes are in {part} and never trained: {names}; {remedy}")


def _drawn(own: OwnImages, listing: Listing, pool: list[int], count: int, seed: int) -> list[int]:
    """About `count` rows of the pool, as `stratified` draws them, or as `grouped` does where groups stay whole."""
    from tasks.datasets.splits import grouped, stratified

    labels = [listing.labels[i] for i in pool]
    if listing.groups is None and not own.several_labels:
        drawn = stratified(labels, [len(pool) - count, count], seed)[1]
    else:
        groups = [listing.groups[i] if listing.groups else listing.images[i] for i in pool]
        drawn = grouped(groups, [_classes(label) for label in labels], count, seed)
    return [pool[row] for row in drawn.tolist()]


def _classes(label: Any) -> list[int]:
    return [number for number, value in enumerate(label) if value == 1] if isinstance(label, list) else [label]


def _of_groups(listing: Listing, pool: Sequence[int]) -> str:
    """Says how many groups there are, for messages."""
    return f" in {len({listing.groups[i] for i in pool}):,} groups" if listing.groups else ""


def opened(card: LabelledCard, root: Path, manifest: Manifest, rows: Sequence[int]) -> Images:
    """The images of these rows. Raises DataError for files that have another size than when the trial was planned
    (files that are missing are found, and counted, when they are read)."""
    own = card.own
    assert own is not None
    base, names = own.base(root), [str(manifest.images[row]) for row in rows]
    images: Images = own.opened(base, names)
    if manifest.contents:
        sizes = zip(names, own.bytes_now(images), (manifest.contents[row][0] for row in rows), strict=True)
        changed = [name for name, now, planned in sizes if now not in (None, planned)]
        if changed:
            raise DataError(
                f"{card.name}: {len(changed):,} of {len(names):,} images were changed since this trial was planned: "
                f"{first_few(changed)}; submit again"
            )
    return images
