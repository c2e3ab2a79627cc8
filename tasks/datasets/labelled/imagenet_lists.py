"""Reads ImageNet's folders and the lists of iNaturalist-18 and ImageNet-CoG: files, labels and parts."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from tasks.datasets.files import SUFFIXES, ignored, plain, text_of
from tasks.datasets.labelled.card import LabelledCard
from tasks.datasets.labelled.kornblith12_lists import read_json
from tasks.datasets.labelled.parts import Part, Read, Reader

_WNID = re.compile(r"n\d{8}")


def _inat(card: LabelledCard, root: Path, part: Part, split_seed: int) -> Read:
    """The lists name each file below the folder. A label is the rank of its category's id among those of train's list,
    for val too, whose own list may name fewer."""
    folder = root / "inat18"
    path = folder / "train2018.json"
    content = read_json(path)
    known = _categories(content, path)
    if part in ("val", "test"):  # val is test where the cut says so
        path = folder / "val2018.json"
        content = read_json(path)
        for number, name in _categories(content, path).items():
            if number not in known:
                raise ValueError(f"{path}: category {number!r} ({name!r}) is none of train2018.json")
            if name != known[number]:
                raise ValueError(f"{path}: category {number!r} is {name!r} here, {known[number]!r} in train2018.json")
    rank = {number: position for position, number in enumerate(sorted(known))}
    rows = _inat_rows(content, path, set(known))
    return [folder / name for name, _ in rows], [rank[category] for _, category in rows]


def _categories(content: Any, path: Path) -> dict[int, Any]:
    """Id -> name. Raises ValueError for an id with two names."""
    try:
        listed = [(row["id"], row.get("name")) for row in content["categories"]]
    except (LookupError, TypeError, AttributeError) as error:
        raise _not_inat(path, error) from error
    names: dict[int, Any] = {}
    for number, name in listed:
        if names.setdefault(number, name) != name:
            raise ValueError(f"{path}: category {number!r} has two names, {names[number]!r} and {name!r}")
    return names


def _inat_rows(content: Any, path: Path, known: set[int]) -> list[tuple[str, int]]:
    """(file, id of its category) of every image. Raises ValueError for an image without a known category, or of two."""
    try:
        annotations = [(row["image_id"], row["category_id"]) for row in content["annotations"]]
        images = [(row["id"], row["file_name"]) for row in content["images"]]
        category = dict(annotations)
    except (LookupError, TypeError) as error:
        raise _not_inat(path, error) from error
    of_two = [image for image, number in annotations if category[image] != number]
    if of_two:
        raise ValueError(f"{path}: image {of_two[0]!r} is of two categories, like {len(set(of_two)) - 1} others")
    lost = [name for number, name in images if category.get(number) not in known]
    if lost:
        raise ValueError(f"{path}: {len(lost)} images have no category of train2018.json: {lost[0]}")
    return [(plain(text_of(name, str(path))), category[number]) for number, name in images]


def _not_inat(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: not the lists of iNaturalist 2018 ({type(error).__name__}: {error})")


def _imagenet(card: LabelledCard, root: Path, part: Part, split_seed: int) -> Read:
    """A folder per WordNet id; the label is its rank among those of train, for val too, so that a class missing from
    val shifts no other. Tar files, if there are any, replace the folders (shards.py)."""
    base = root / "imagenet"
    folder = base / ("train" if part in ("train", "trainval") else "val")
    classes = _classes(root, base / "train")
    rank = {name: number for number, name in enumerate(sorted(classes))}
    own = classes if folder.name == "train" else _classes(root, folder)
    unknown = sorted(set(own) - set(rank))
    if unknown:
        raise ValueError(f"{folder}: {len(unknown)} folders that train has not: {unknown[0]}")
    pairs = [(name, file) for name in sorted(own) for file in sorted(_files(folder / name, own[name]))]
    return [folder / name / file for name, file in pairs], [rank[name] for name, _ in pairs]


def _classes(root: Path, folder: Path) -> dict[str, list[str] | None]:
    """The folders of classes, with their files where they are packed. Raises ValueError naming what is none."""
    from tasks.datasets.images.shards import packed_below

    packed = packed_below(root, folder)
    if packed is not None:
        classes: dict[str, list[str] | None] = {}
        for path in packed:
            files = classes.setdefault(path.parent.name, [])
            assert files is not None
            files.append(path.name)
        return classes
    entries = [entry for entry in os.scandir(folder) if not ignored(entry.name)]
    loose = sorted(entry.name for entry in entries if entry.name.lower().endswith(SUFFIXES) and not entry.is_dir())
    if loose:
        raise ValueError(
            f"{folder}: {len(loose)} images lie in it, and not in the folder of their class: {loose[0]}; "
            "sort them into folders as ImageNet of torchvision.datasets does"
        )
    names = sorted(entry.name for entry in entries if entry.is_dir())
    odd = [name for name in names if not _WNID.fullmatch(name)]
    if odd:
        raise ValueError(f"{folder}: {odd[0]!r} is no folder of a class (a WordNet id like n01440764); remove it")
    return dict.fromkeys(names)


def _files(folder: Path, packed: list[str] | None) -> list[str]:
    """The images of a class. Raises ValueError naming what is none."""
    names = [name for name in os.listdir(folder) if not ignored(name)] if packed is None else packed
    odd = sorted(name for name in names if not name.lower().endswith(SUFFIXES))
    if odd:
        raise ValueError(f"{folder / odd[0]} is no image; remove it")
    return names


def _cog(card: LabelledCard, root: Path, part: Part, split_seed: int) -> Read:
    """The lists that `data convert cog` wrote; a label is the rank of the WordNet id, for both parts of the level."""
    path = root / "cog" / f"{card.name.removeprefix('cog-')}.json"
    level, split = read_json(path), "train" if part == "trainval" else "test"
    if not isinstance(level, dict) or not all(
        isinstance(c, dict) and all(isinstance(c.get(name), list) for name in ("train", "test")) for c in level.values()
    ):
        raise ValueError(f"{path}: not what `data convert cog` writes; write it again")
    rows = [(plain(text_of(name, str(path))), i) for i, c in enumerate(sorted(level)) for name in level[c][split]]
    return [root / "imagenet21k" / name for name, _ in rows], [label for _, label in rows]


IMAGENET_READERS: dict[str, Reader] = {
    "imagenet": _imagenet,
    "inat18": _inat,
    **{f"cog-l{number}": _cog for number in range(1, 6)},
}
