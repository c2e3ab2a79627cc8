"""Reads YAML text into values that keep the line and column where they are written."""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from orchestrator.printable import printable
from tasks.bounds import control_character

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_VALUES = 100_000
"""Values after aliases are expanded: a few lines of nested aliases can expand to billions."""

MAX_TEXT = 10_000
"""Characters of one text; a caption has some hundreds."""
MAX_KEY = 300
"""Characters of a key: the longest are dotted paths."""
MAX_INT = 2**63 - 1
"""What databases and torch count to. Whole numbers go from -MAX_INT - 1 to MAX_INT."""
MAX_MESSAGE = 1_000
"""Characters of a problem."""

Scalar = str | int | float | bool | None

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where PyYAML was built with it: 10 x faster

# YAML 1.2 core schema, section 10.3.2. PyYAML follows YAML 1.1, where 1e-4 is text, `no` is false and 12:30 is 750.
_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_TAGS: dict[str, type | tuple[type, ...]] = {
    "str": str, "int": int, "float": float, "bool": bool, "null": type(None), "seq": list, "map": dict,
}  # fmt: skip
"""Tag of YAML's core schema -> what a value with it must be."""
_CORE = "tag:yaml.org,2002:"
_TEXT = f"{_CORE}str"


@dataclass(frozen=True)
class Location:
    """Where a value is written. Line and column count from 1; 0 if the source has none (an override)."""

    source: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        source = printable(self.source, 300)
        return f"{source}:{self.line}:{self.column}" if self.line else source


@dataclass(frozen=True)
class Problem:
    """One mistake in what a user wrote."""

    place: Location
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {printable(self.message, MAX_MESSAGE)}"


@dataclass(frozen=True)
class YamlNode:
    """A value with its place; for a mapping, also the place of each key. Made by `parse`, never changed."""

    place: Location
    value: Scalar | list[YamlNode] | dict[str, YamlNode]
    keys: dict[str, Location] = field(default_factory=dict)

    def plain(self) -> Any:
        """The value as dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def child(self, step: str | int) -> YamlNode | None:
        """The value under a key or an index, or None."""
        if isinstance(self.value, dict):
            return self.value.get(str(step))
        if isinstance(self.value, list) and isinstance(step, int) and -1 < step < len(self.value):
            return self.value[step]
        return None

    def find(self, steps: Sequence[str | int]) -> YamlNode | None:
        """The value at the end of the steps, or None."""
        node: YamlNode | None = self
        for step in steps:
            node = node.child(step) if node else None
        return node

    def place_of(self, steps: Sequence[str | int], key: bool = False) -> Location:
        """The place of the value at the end of the steps, or of the deepest value on the way that is written.

        Steps that lead nowhere are skipped (pydantic names the member of a union in its locations).
        `key`: the place of the last key instead of its value, for a key that is wrong itself.
        """
        node, place = self, self.place
        for i, step in enumerate(steps):
            child = node.child(step)
            if child is None:
                continue
            last = i == len(steps) - 1
            place = node.keys[str(step)] if key and last and str(step) in node.keys else child.place
            node = child
        return place


@dataclass(frozen=True)
class Document:
    """A parsed text and its problems; with problems, `root` holds the values that could be read."""

    root: YamlNode
    problems: list[Problem]


def read(path: str | Path) -> Document:
    """The document in a YAML file. A file that cannot be read is a problem, not an exception."""
    source = str(path)
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return _broken(source, "is not a file but a pipe or a device; give the path of a YAML file")
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return _broken(source, "no such file; give the path of a YAML file" + _neighbours(Path(path)))
    except IsADirectoryError:
        return _broken(source, "is a directory; give the path of a YAML file in it" + _neighbours(Path(path) / "x"))
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        return _broken(source, f"cannot be read: {getattr(error, 'strerror', None) or error}")
    if len(data) > MAX_BYTES:
        return _broken(source, f"larger than {MAX_BYTES >> 20} MiB; a spec is a few kilobytes of YAML")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        what = f"byte 0x{data[error.start]:02x} is not UTF-8: not a text file; a spec is YAML text in UTF-8"
        return _broken(source, what, line, column)
    return parse(text, source)


def _without_waiting(path: str, flags: int) -> int:
    """Opens a named pipe that nobody writes to at once; it is refused then."""
    return os.open(path, flags | os.O_NONBLOCK)


def parse(text: str, source: str) -> Document:
    """The document in a YAML text. Mistakes in the text are problems, never exceptions."""
    at = control_character(text.replace("\r\n", " \n"))
    if at is not None:
        column = at - text.rfind("\n", 0, at)
        what = f"{_named(text[at])}: a spec is YAML text in UTF-8 without control characters; remove it"
        return _broken(source, what, text.count("\n", 0, at) + 1, column)
    reader = _Reader(source)
    try:
        root = reader.document(yaml.parse(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.context, error.problem) if part)
        place = Location(source, mark.line + 1, mark.column + 1) if mark else Location(source, 1, 1)
        return Document(YamlNode(place, None), [Problem(place, f"not YAML: {what}")])
    except yaml.YAMLError as error:
        return _broken(source, "not YAML: " + " ".join(str(error).split()))
    except _Stop as stop:
        return Document(YamlNode(stop.problem.place, None), [stop.problem])
    return Document(root, reader.problems)


def parse_value(text: str, source: str) -> Document:
    """A value from the command line (`--set path=value`), by the rules of the file. Its places have no line."""
    document = parse(text, source) if text.strip() else Document(YamlNode(Location(source), None), [])
    unlined = [Problem(Location(source), problem.message) for problem in document.problems]
    return Document(_move(document.root, Location(source)), unlined)


def _named(character: str) -> str:
    return f"control character U+{ord(character):04X}"


def _move(node: YamlNode, place: Location) -> YamlNode:
    if isinstance(node.value, dict):
        moved = {key: _move(child, place) for key, child in node.value.items()}
        return YamlNode(place, moved, dict.fromkeys(moved, place))
    if isinstance(node.value, list):
        return YamlNode(place, [_move(child, place) for child in node.value])
    return YamlNode(place, node.value)


def _broken(source: str, message: str, line: int = 0, column: int = 0) -> Document:
    place = Location(source, line, column)
    return Document(YamlNode(place, None), [Problem(place, message)])


def _neighbours(path: Path) -> str:
    """The YAML files in the folder of a missing one, as the end of a message."""
    try:
        names = sorted(str(file) for file in path.parent.glob("*.y*ml"))[:10]
    except OSError:
        return ""
    return f"; there are: {', '.join(names)}" if names else ""


class _Stop(Exception):
    """The rest of the text cannot be read."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


class _Reader:
    """Builds nodes from PyYAML's events, so that no tag can construct an object and every place is kept."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.anchors: dict[str, tuple[YamlNode, int]] = {}  # with the number of values below, aliases expanded
        self.open: set[str] = set()
        self.trail: list[str] = []  # keys and indices of the value that is being read
        self.values = 0

    def document(self, events: Iterator[Any]) -> YamlNode:
        next(events)  # the stream starts
        first = next(events)
        if isinstance(first, yaml.StreamEndEvent):
            raise _Stop(Problem(Location(self.source, 1, 1), "empty file; a spec has at least name, trial and stages"))
        root = self._node(next(events), events, 0)
        next(events)  # the document ends
        after = next(events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise _Stop(Problem(self._place(after), "a second YAML document; a spec is one document (remove the ---)"))
        if root.value is None and not self.problems:
            raise _Stop(Problem(root.place, "empty file; a spec has at least name, trial and stages"))
        return root

    def _report(self, place: Location, message: str) -> None:
        field = ".".join(self.trail)
        self.problems.append(Problem(place, f"{field}: {message}" if field else message))

    def _place(self, event: Any) -> Location:
        return Location(self.source, event.start_mark.line + 1, event.start_mark.column + 1)

    def _count(self, place: Location, values: int = 1) -> None:
        self.values += values
        if self.values > MAX_VALUES:
            raise _Stop(Problem(place, f"more than {MAX_VALUES:,} values with aliases expanded; write fewer aliases"))

    def _node(self, event: Any, events: Iterator[Any], depth: int) -> YamlNode:
        place = self._place(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(str(event.anchor), place)
        if depth > MAX_DEPTH:
            raise _Stop(Problem(place, f"nested more than {MAX_DEPTH} levels deep"))
        before = self.values
        self._count(place)
        if event.anchor:
            self.open.add(event.anchor)
        if isinstance(event, yaml.ScalarEvent):
            node = YamlNode(place, self._scalar(event, place))
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(place, events, depth)
        else:
            node = self._mapping(place, events, depth)
        self._check_tag(event.tag, node)
        if event.anchor:
            self.open.discard(event.anchor)
            self.anchors[event.anchor] = (node, self.values - before)
        return node

    def _check_tag(self, tag: str | None, node: YamlNode) -> None:
        """A tag may say what a value is, but makes nothing else of it."""
        if tag is None or tag == "!":
            return
        name = tag.removeprefix(_CORE)
        if name == tag or name not in _TAGS:
            self._report(node.place, f"tag {printable(tag, 60)}: YAML tags are not supported; write a plain value")
        elif not isinstance(node.value, _TAGS[name]) or (name == "int" and isinstance(node.value, bool)):
            self._report(node.place, f"tag !!{name}: the value is something else; remove the tag")

    def _alias(self, name: str, place: Location) -> YamlNode:
        if name in self.open:
            raise _Stop(Problem(place, f"*{name} stands inside the value that it refers to; write the value out"))
        if name not in self.anchors:
            known = ", ".join(list(self.anchors)[:20]) or "none"
            raise _Stop(Problem(place, f"*{printable(name, 60)}: no such anchor; anchors so far: {known}"))
        node, values = self.anchors[name]
        self._count(place, values)
        return node

    def _sequence(self, place: Location, events: Iterator[Any], depth: int) -> YamlNode:
        items: list[YamlNode] = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            self.trail.append(str(len(items)))
            items.append(self._node(event, events, depth + 1))
            self.trail.pop()
        return YamlNode(place, items)

    def _mapping(self, place: Location, events: Iterator[Any], depth: int) -> YamlNode:
        values: dict[str, YamlNode] = {}
        keys: dict[str, Location] = {}
        merged: list[YamlNode] = []
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            where = self._place(event)
            key = self._key(event, where)
            self.trail.append(key)
            child = self._node(next(events), events, depth + 1)
            self.trail.pop()
            if key == "<<" and event.implicit[0]:
                merged += self._merge(child)
            elif key in keys:
                self._report(where, f"duplicate key {key!r}, first in line {keys[key].line}; keep one")
            else:
                values[key], keys[key] = child, where
        for source in merged:  # own keys win, then the earlier of several merged mappings
            assert isinstance(source.value, dict)
            for key, child in source.value.items():
                if key not in values:
                    values[key], keys[key] = child, source.keys[key]
        return YamlNode(place, values, keys)

    def _key(self, event: Any, place: Location) -> str:
        """A key is text even if it looks like a number."""
        if not isinstance(event, yaml.ScalarEvent) or event.tag not in (None, "!", _TEXT) or event.anchor:
            raise _Stop(Problem(place, "a key must be a plain word"))
        key = str(event.value)
        if len(key) > MAX_KEY:
            raise _Stop(Problem(place, f"{key[:40]}...: a key of {len(key):,} characters; at most {MAX_KEY}"))
        if (at := control_character(key.replace("\n", "\0"))) is not None:
            raise _Stop(Problem(place, f"{_named(key[at])} in a key; write a plain word"))
        return key

    def _merge(self, node: YamlNode) -> list[YamlNode]:
        sources = node.value if isinstance(node.value, list) else [node]
        wrong = [source for source in sources if not isinstance(source.value, dict)]
        for source in wrong:
            self._report(source.place, "<< takes a mapping or a list of mappings")
        return [source for source in sources if isinstance(source.value, dict)]

    def _scalar(self, event: Any, place: Location) -> Scalar:
        text = event.value
        if event.tag == "!" or (not event.implicit[0] and event.tag in (None, _TEXT)):
            return self._text(text, place)  # quoted, a block, or tagged as text
        if _NULL.fullmatch(text):
            return None
        if _BOOL.fullmatch(text):
            return bool(text[0] in "tT")
        if _INT.fullmatch(text) or _OCTAL.fullmatch(text) or _HEX.fullmatch(text):
            return self._int(text, place)
        number = float(text) if _FLOAT.fullmatch(text) else None
        if _NOT_FINITE.fullmatch(text) or (number is not None and not math.isfinite(number)):
            self._report(place, f"{printable(text, 60)}: not a finite number; write one, or quote it as text")
            return None
        return self._text(text, place) if number is None else number

    def _int(self, text: str, place: Location) -> int | None:
        # 64 digits hold every such number in every base, with some zeros in front; more are never converted
        number = int(text, 0 if text[:2] in ("0o", "0x") else 10) if len(text) <= 64 else MAX_INT + 1
        if -MAX_INT - 1 <= number <= MAX_INT:
            return number
        what = f"{printable(text, 60)}: whole numbers go from -2^63 to 2^63 - 1; write a smaller one"
        self._report(place, what)
        return None

    def _text(self, text: str, place: Location) -> str | None:
        at = control_character(text)
        if at is None and len(text) <= MAX_TEXT:
            return str(text)
        what = f"text of {len(text):,} characters; at most {MAX_TEXT:,}"
        if at is not None:
            what = f"{_named(text[at])} in a text; write plain text"
        self._report(place, what)
        return None
