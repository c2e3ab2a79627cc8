"""Opens the images that need no download: photographs inside packages, drawn signs, and generated scenes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.datasets.labelled.card import LabelledCard
from tasks.datasets.scenes import crops
from tasks.datasets.scenes.made import made, recipe
from tasks.datasets.splits import Indices, stratified
from tasks.errors import DataError

SPLIT_SEED = 0
"""Seed of the fixed splits below; a part of these data sets, so no option."""
PATCH = 32
"""Side of the patches of photographs, in pixels."""


@dataclass(frozen=True)
class Part:
    """Images of one data set, with its fixed split."""

    images: NDArray[np.uint8]
    """(n, height, width), grey; or (n, height, width, 3)."""
    labels: NDArray[np.int64]
    train: Indices
    val: Indices
    test: Indices


@cache
def load_bundled(card: LabelledCard, root: Path) -> Part:
    """Opens a data set of source `wheel` or `made`; kept in memory for the next trial of this process. `root`: the data
    root, below which large generated sets are kept.

    Raises DataError when the counts in the package are not those of the card, and as `scenes.made.made` does.
    """
    part = _scene_crops(root) if card.name == crops.NAME else _OPENERS[card.name](card)
    expected, count = card.trainval + card.test, len(part.labels)
    if count != expected or len(np.unique(part.labels)) != card.classes:
        raise DataError(
            f"{card.name}: {count} images of {len(np.unique(part.labels))} classes in the installed package, "
            f"expected {expected} of {card.classes}; install the versions that pyproject.toml asks for"
        )
    return part


def _stratified(card: LabelledCard, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Part:
    counts = [card.train, card.val, card.test]
    if sum(counts) != len(labels):  # reported by `load_bundled`
        return Part(images, labels, *np.split(np.arange(len(labels)), [0, 0]))
    return Part(images, labels, *stratified(labels, counts, SPLIT_SEED))


def _digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """1,797 digits of 8 x 8 pixels; the 17 grey levels are spread over 0..255."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return np.rint(data.images * (255 / 16)).astype(np.uint8), data.target.astype(np.int64)


def _half_of_digits(second: bool) -> Callable[[LabelledCard], Part]:
    def half(card: LabelledCard) -> Part:
        images, labels = _digits()
        chosen = stratified(labels, [899, 898], SPLIT_SEED)[int(second)]
        return _stratified(card, images[chosen], labels[chosen])

    return half


def _faces(card: LabelledCard) -> Part:
    """100 faces (label 1), then 100 crops without a face (label 0), of 25 x 25 pixels."""
    from skimage.data import lfw_subset

    images = np.rint(lfw_subset() * 255).astype(np.uint8)
    return _stratified(card, images, np.repeat(np.array([1, 0], dtype=np.int64), 100))


def _textures(card: LabelledCard) -> Part:
    """Three photographs of surfaces, 512 x 512 pixels: 6, 5 and 5 columns of 16 patches for train, val and test."""
    from skimage import data

    return _patches([data.brick(), data.grass(), data.gravel()], rows=16, columns=(6, 5, 5))


def _photos(card: LabelledCard) -> Part:
    """The middle of nine photographs, grey: 9 rows of 4 patches for each of train, val and test.

    Only those stored as PNG: JPEG is decoded a little differently from one release of its library to the next.
    """
    from skimage import data

    photos = [
        data.astronaut(), data.camera(), data.cell(), data.chelsea(), data.coffee(), data.coins(),
        data.immunohistochemistry(), data.moon(), data.stereo_motorcycle()[0],
    ]  # fmt: skip
    return _patches([_grey(photo) for photo in photos], rows=9, columns=(4, 4, 4))


def _grey(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luma of ITU-R BT.601 in whole numbers, so that it is the same on every machine."""
    if photo.ndim == 2:
        return photo
    red, green, blue = np.moveaxis(photo[..., :3].astype(np.int64), -1, 0)
    luma: NDArray[np.int64] = (299 * red + 587 * green + 114 * blue + 500) // 1000
    return luma.astype(np.uint8)


def _patches(photos: list[NDArray[np.uint8]], rows: int, columns: tuple[int, int, int]) -> Part:
    """The middle of each photograph as patches, row by row; the photograph is the label. Columns of patches, from the
    left, are train, val and test: no pixel is in two parts."""
    images, labels, column = [], [], []
    for label, photo in enumerate(photos):
        wide = sum(columns)
        top, left = (photo.shape[0] - rows * PATCH) // 2, (photo.shape[1] - wide * PATCH) // 2
        middle = photo[top : top + rows * PATCH, left : left + wide * PATCH]
        images.append(middle.reshape(rows, PATCH, wide, PATCH).swapaxes(1, 2).reshape(-1, PATCH, PATCH))
        labels += [label] * (rows * wide)
        column += list(range(wide)) * rows
    ends = np.cumsum(columns)
    part = np.searchsorted(ends, np.array(column), side="right")
    cut = (np.flatnonzero(part == i).astype(np.int64) for i in range(3))
    return Part(np.concatenate(images), np.array(labels, dtype=np.int64), *cut)


def _drawn(level: int) -> Callable[[LabelledCard], Part]:
    """Images are drawn one after the other, classes in turn: the first are train, then val, then test."""

    def draw(card: LabelledCard) -> Part:
        from tasks.datasets.labelled.synthetic import CLASSES, signs

        images, labels = signs(level, (card.trainval + card.test) // CLASSES)
        return Part(images, labels, *np.split(np.arange(len(labels)), [card.train, card.trainval]))

    return draw


def _scene_crops(root: Path) -> Part:
    """The generated crops, train first."""
    path = made(crops.NAME, root) / crops.FILE
    try:
        images = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{crops.NAME}: {path} cannot be read ({error}); remove its folder: it is made again"
        ) from error
    train, val = (count for _, count in crops.COUNTS.values())
    labels = [crops.label_of(index) for _, count in crops.COUNTS.values() for index in range(count)]
    rows = np.arange(train + val)
    return Part(images, np.array(labels, np.int64), rows[:train], rows[train:], rows[:0])


def content(card: LabelledCard, root: Path) -> str:
    """SHA-256 of the pixels, in their order; of generated scenes, of what they are generated from (see
    `scenes.made.recipe`)."""
    if card.name == crops.NAME:
        return recipe(crops.NAME)
    return hashlib.sha256(load_bundled(card, root).images.tobytes()).hexdigest()


_OPENERS: dict[str, Callable[[LabelledCard], Part]] = {
    "digits": _half_of_digits(second=False),
    "digits-pretrain": _half_of_digits(second=True),
    "faces": _faces,
    "textures": _textures,
    "photos": _photos,
    "cog-small-seen": _drawn(0),
    **{f"cog-small-l{level}": _drawn(level) for level in range(1, 6)},
}
