"""Types of columns that keep what Python gives them on both databases, and name a row that somebody damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import BigInteger, Dialect, Double, Integer, String, Text, TypeDecorator

from orchestrator.errors import BackendUnreachable, SpecError


def damaged(what: str, value: object, fault: str = "is") -> BackendUnreachable:
    """The error for a value that no version of this program writes. `what`: the table, column or row, in words."""
    shown = repr(value)[:60]
    return BackendUnreachable(
        f"the store is damaged: {what} {fault} {shown}, which this program never writes: restore a copy of it"
    )


LARGEST = 2**63 - 1
"""Both databases keep whole numbers of 64 bits."""


def refuse_what_does_not_fit(value: Any, what: str) -> None:
    """Raises SpecError, one line a mistake, if a text in a value of JSON has a NUL or is half of a UTF-16 pair, or if a
    whole number has more than 64 bits: before a job is recorded, of which such a trial could not be."""
    problems = list(_unfit(value, what))
    if problems:
        raise SpecError(problems)


def _unfit(value: Any, what: str) -> Iterator[str]:
    if isinstance(value, str):
        if storable(value) != value:
            yield f"{what}: {value!r} cannot be recorded: a NUL or half of a UTF-16 pair is in it; remove that"
    elif isinstance(value, int):
        if not -LARGEST <= value <= LARGEST:
            digits = f"{value:.6g}" if abs(value) < 10**300 else "it"
            yield f"{what}: {digits} cannot be recorded: the largest number is {LARGEST}"
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _unfit(name, f"a name in {what}")
            yield from _unfit(part, f"{what}.{name}")
    elif isinstance(value, Sequence):
        for number, part in enumerate(value):
            yield from _unfit(part, f"{what}.{number}")


class Number(TypeDecorator[float]):
    """A double that keeps NaN.

    SQLite would store NaN as NULL, so there it is the text 'nan', which sorts above every number, as NaN does in
    PostgreSQL.
    """

    impl = Double
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[float | None], Any] | None:
        if dialect.name != "sqlite":
            return None
        return lambda value: "nan" if value is not None and value != value else value

    def result_processor(self, dialect: Dialect, coltype: Any) -> Callable[[Any], float | None] | None:
        return _number if dialect.name == "sqlite" else None


def _number(value: Any) -> float | None:
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        raise damaged("a number", value) from None


class Whole(TypeDecorator[int]):
    """A whole number of 64 bits: what a spec may say (seed, epochs, priority), and what is counted in steps.

    SQLite's INTEGER has 64 bits, and takes a text without a word.
    """

    impl = BigInteger
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        return dialect.type_descriptor(Integer() if dialect.name == "sqlite" else BigInteger())

    def result_processor(self, dialect: Dialect, coltype: Any) -> Callable[[Any], int | None] | None:
        return _whole if dialect.name == "sqlite" else None


def _whole(value: Any) -> int | None:
    if value is None or isinstance(value, int):
        return value
    raise damaged("a whole number", value)


class Words(TypeDecorator[str]):
    """A text. PostgreSQL keeps no NUL, and neither database half of a UTF-16 pair: both are written as escapes, so that
    what others said (error texts, file names) can always be recorded. What a spec names is refused instead, by
    `refuse_what_does_not_fit`, before anything of the job is recorded."""

    impl = String
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> Callable[[str | None], str | None] | None:
        return storable

    def result_processor(self, dialect: Dialect, coltype: Any) -> Callable[[Any], str | None] | None:
        return _words if dialect.name == "sqlite" else None


class LongWords(Words):
    """A text of any length."""

    impl = Text
    cache_ok = True


def storable(text: str | None) -> str | None:
    """The text with NUL and lone surrogates escaped. In JSON both are escapes already, or become one: its meaning
    stays."""
    if text is None or (text.isascii() and "\0" not in text):
        return text
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def _words(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise damaged("a text", value)
