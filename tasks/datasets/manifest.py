"""Writes and reads split manifests: which image is train, val or test, and the digest of that."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import repeat
from pathlib import Path
from typing import Any

from tasks.datasets.files import plain
from tasks.errors import DataError

VERSION = 2
"""Of the rules that manifests are made by: raise it when they change, so that none made by earlier ones is believed.

1: Birdsnap's first test image in train, labels of val by val's own categories, shares off by several images.
"""
DIGEST_VERSION = 1
"""Enters every digest, and so every key: raise it only when the digest is made otherwise."""

FOLDER = "splits"
"""Below the data root (or, where that cannot be written, below the folder of everything we write)."""
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Manifest:
    """One entry per image, in the order in which the data set's own lists name them; training keeps that order.

    On disk: JSON lines, the first a header; then {"file" or "index", what belongs to the image, "part"}, and of data
    that a spec describes also "bytes" and "sha256" (its first half).
    """

    cut: str
    """Name of the split rule."""
    images: Sequence[str | int]
    """Files below the data root; or, of sets stored as arrays, positions (test images after all others)."""
    annotations: Sequence[Any]
    """One for each image: a class number ("label"); a row of 1, 0 and -1, one value per class ("labels" and "ignored");
    a mapping of JSON values (its keys); or None."""
    parts: Sequence[str]
    classes: int = 0
    """0 for data without classes."""
    pixels: str = ""
    """SHA-256 of the pixels, of the small sets that are the same for everybody."""
    rule: str = ""
    """In words; no part of the digest."""
    contents: Sequence[tuple[int, str]] = ()
    """Of data that a spec describes, which may change: bytes of each image, and the first half of their SHA-256."""
    names: Sequence[str] = ()
    """Of the classes, where the data give them."""

    @property
    def counts(self) -> dict[str, int]:
        return {part: self.parts.count(part) for part in PARTS}

    @cached_property
    def body(self) -> bytes:
        contents = self.contents or repeat(None, len(self.images))
        rows = zip(self.images, self.annotations, self.parts, contents, strict=True)
        lines = "".join(_line(image, annotation, part, content) for image, annotation, part, content in rows)
        return lines.encode(errors="backslashreplace")  # bytes of a name that are no UTF-8 become JSON's own escapes

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the cut's name, the counts, the names of classes, and every entry in order; what enters a
        trial's key."""
        return _digest(self.cut, self.classes, self.counts, self.pixels, self.body, self.names)

    def write(self, path: Path) -> None:
        """All or nothing. Raises OSError."""
        header = {
            "manifest": VERSION, "cut": self.cut, "rule": self.rule, "classes": self.classes, "counts": self.counts,
            "pixels": self.pixels, "sha256": self.digest, **({"names": list(self.names)} if self.names else {}),
        }  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with part.open("wb") as file:
                file.write(json.dumps(header, ensure_ascii=False).encode(errors="backslashreplace") + b"\n" + self.body)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _line(image: str | int, annotation: Any, part: str, content: tuple[int, str] | None) -> str:
    entry: dict[str, Any] = {"file": image} if isinstance(image, str) else {"index": image}
    if isinstance(annotation, list):
        entry["labels"] = [number for number, value in enumerate(annotation) if value == 1]
        entry["ignored"] = [number for number, value in enumerate(annotation) if value == -1]
    elif isinstance(annotation, Mapping):
        entry.update(annotation)
    elif annotation is not None:
        entry["label"] = annotation
    if content is not None:
        entry["bytes"], entry["sha256"] = content
    return json.dumps({**entry, "part": part}, ensure_ascii=False, separators=(",", ":")) + "\n"


def _annotation(entry: dict[str, Any], classes: int) -> Any:
    """The annotation that `_line` wrote."""
    if "label" in entry:
        return entry["label"]
    if "labels" not in entry:
        return {name: value for name, value in entry.items() if name not in ("file", "index", "part")} or None
    row = [0] * classes
    for value, numbers in ((1, entry["labels"]), (-1, entry["ignored"])):
        for number in numbers:
            row[number] = value
    return row


def _digest(cut: str, classes: int, counts: dict[str, int], pixels: str, body: bytes, names: Sequence[str] = ()) -> str:
    start = [DIGEST_VERSION, cut, classes, sorted(counts.items()), pixels, *([list(names)] if names else [])]
    head = json.dumps(start, separators=(",", ":"))
    return hashlib.sha256(head.encode() + b"\n" + body).hexdigest()


def saved_digest(path: Path) -> str:
    """The digest of a manifest on disk, which is compared with its content. Raises DataError when they differ."""
    try:
        stat = path.stat()
    except OSError as error:
        raise _damaged(path, error) from error
    return _saved_digest(path, stat.st_mtime_ns, stat.st_size, stat.st_ino)


def is_saved(path: Path, digest: str) -> bool:
    """True if there is a manifest with this digest, and it is whole."""
    try:
        return saved_digest(path) == digest
    except DataError:
        return False


def check_planned(name: str, what: str, planned: str, found: str) -> None:
    """Raises DataError when `what` of the data set `name` has another digest than the trial was planned with."""
    if planned != found:
        raise DataError(
            f"{name}: the {what} are not those that the trial was planned with (SHA-256 {planned[:12]}.., now "
            f"{found[:12]}..): put those back, or submit the job again to run with these"
        )


def folders_of(root: Path, others: Sequence[Path]) -> list[Path]:
    """Where manifests lie: in the data root, if it is there, and in the others."""
    return [*([root / FOLDER] if root.is_dir() else []), *others]


@lru_cache(maxsize=64)
def _saved_digest(path: Path, *version: int) -> str:
    """Read once per version of the file: a job asks for it once per task, and that of ImageNet is large."""
    return str(_opened(path)[0]["sha256"])


def _opened(path: Path) -> tuple[dict[str, Any], bytes]:
    """Header and body, compared with each other."""
    try:
        first, _, body = path.read_bytes().partition(b"\n")
        header = json.loads(first)
        names = header.get("names", ())
        digest = _digest(header["cut"], header["classes"], header["counts"], header["pixels"], body, names)
        stated, version = header["sha256"], header["manifest"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error
    if version != VERSION:
        raise DataError(
            f"{path} is of version {version}, not {VERSION}: its labels and parts may follow other rules; {_REMEDY}"
        )
    if stated != digest:
        raise DataError(f"{path} was changed: it says SHA-256 {stated} and has {digest}; {_REMEDY}")
    return header, body


_REMEDY = "remove it, or write it again with `data split`"


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path} is no split manifest ({error}); {_REMEDY}")


def load(path: Path) -> Manifest:
    """A manifest from disk. Raises DataError when it is none or was changed."""
    header, body = _opened(path)
    try:
        entries = [json.loads(line) for line in body.splitlines()]
        return Manifest(
            header["cut"],
            [plain(entry["file"]) if "file" in entry else entry["index"] for entry in entries],
            [_annotation(entry, header["classes"]) for entry in entries],
            [entry["part"] for entry in entries],
            header["classes"],
            header["pixels"],
            header["rule"],
            tuple((entry["bytes"], entry["sha256"]) for entry in entries if "bytes" in entry),
            tuple(header.get("names", ())),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error


def save(manifest: Manifest, name: str, folders: Sequence[Path]) -> Path | None:
    """Writes it into the first folder that can be written; its path, or None when there is none."""
    for folder in folders:
        with contextlib.suppress(OSError):
            manifest.write(folder / name)
            return folder / name
    return None
