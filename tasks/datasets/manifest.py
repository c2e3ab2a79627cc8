"""The only place that writes and reads split manifests: which image is train, val or test, and the digest of that."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.errors import DataError

if TYPE_CHECKING:
    pass

VERSION = 1

FOLDER = "splits"
"""Below the data root (or, where that cannot be written, below the folder of everything we write)."""


@dataclass(frozen=True)
class Manifest:
    """One entry per image, in the order in which the data set's own lists name them; training keeps that order.

    On disk: JSON lines, the first a header; then {"file" or "index", "label" or "labels" and "ignored", "part"}.
    """

    cut: str
    """`Cut.name`."""
    classes: int
    images: Sequence[str | int]
    """Files below the data root; or, of sets stored as arrays, positions (test images after all others)."""
    labels: Sequence[Any]
    parts: Sequence[str]
    pixels: str = ""
    """SHA-256 of the pixels, of the small sets that are the same for everybody."""
    rule: str = ""
    """In words; no part of the digest."""

    @property
    def counts(self) -> dict[str, int]:
        return {part: self.parts.count(part) for part in ("train", "val", "test")}

    @cached_property
    def body(self) -> bytes:
        rows = zip(self.images, self.labels, self.parts, strict=True)
        return "".join(_line(image, label, part) for image, label, part in rows).encode()

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the cut's name, the counts, and every entry in order; what enters a trial's key."""
        return _digest(self.cut, self.classes, self.counts, self.pixels, self.body)

    def write(self, path: Path) -> None:
        """All or nothing. Raises OSError."""
        header = {
            "manifest": VERSION, "cut": self.cut, "rule": self.rule, "classes": self.classes, "counts": self.counts,
            "pixels": self.pixels, "sha256": self.digest,
        }  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        part.write_bytes(json.dumps(header, ensure_ascii=False).encode() + b"\n" + self.body)
        part.replace(path)


def _line(image: str | int, label: Any, part: str) -> str:
    entry: dict[str, Any] = {"file": image} if isinstance(image, str) else {"index": image}
    if isinstance(label, list):
        entry["labels"] = [number for number, there in enumerate(label) if there == 1]
        entry["ignored"] = [number for number, there in enumerate(label) if there == -1]
    else:
        entry["label"] = label
    return json.dumps({**entry, "part": part}, ensure_ascii=False, separators=(",", ":")) + "\n"


def _digest(cut: str, classes: int, counts: dict[str, int], pixels: str, body: bytes) -> str:
    head = json.dumps([VERSION, cut, classes, sorted(counts.items()), pixels], separators=(",", ":"))
    return hashlib.sha256(head.encode() + b"\n" + body).hexdigest()


def saved_digest(path: Path) -> str:
    """The digest of a manifest on disk, its content compared with it. Raises DataError when they differ."""
    return _opened(path)[0]["sha256"]  # type: ignore[no-any-return]


def _opened(path: Path) -> tuple[dict[str, Any], bytes]:
    remedy = "remove it, or write it again with `data split`"
    try:
        first, _, body = path.read_bytes().partition(b"\n")
        header = json.loads(first)
        found = _digest(header["cut"], header["classes"], header["counts"], header["pixels"], body)
        said = header["sha256"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no split manifest ({error}); {remedy}") from error
    if header["manifest"] != VERSION:
        raise DataError(f"{path} is of version {header['manifest']}, not {VERSION}; {remedy}")
    if said != found:
        raise DataError(f"{path} was changed: it says SHA-256 {said} and has {found}; {remedy}")
    return header, body


def load(path: Path) -> Manifest:
    """A manifest from disk. Raises DataError when it is none or was changed."""
    header, body = _opened(path)
    entries = [json.loads(line) for line in body.splitlines()]
    classes = header["classes"]
    return Manifest(
        header["cut"],
        classes,
        [entry["file"] if "file" in entry else entry["index"] for entry in entries],
        [entry["label"] if "label" in entry else _row(entry, classes) for entry in entries],
        [entry["part"] for entry in entries],
        header["pixels"],
        header["rule"],
    )


def _row(entry: dict[str, Any], classes: int) -> list[int]:
    row = [0] * classes
    for value, numbers in ((1, entry["labels"]), (-1, entry["ignored"])):
        for number in numbers:
            row[number] = value
    return row


def save(manifest: Manifest, name: str, folders: Sequence[Path]) -> Path | None:
    """Writes it into the first folder that can be written; its path, or None when there is none."""
    for folder in folders:
        with contextlib.suppress(OSError):
            manifest.write(folder / name)
            return folder / name
    return None
