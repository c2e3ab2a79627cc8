"""Formats numbers, times and aligned tables for every form of the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from orchestrator.printable import printable
from orchestrator.records.recorded_spec import label


def duration(seconds: float) -> str:
    """4.2 s, 40 s, 12 min, 3 h 20 min, 12.0 days"""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"
    return f"{minutes / 1440:.1f} days"


def moment(seconds: float | None) -> str:
    """A time of the store (seconds since 1970) as ISO 8601 in UTC; empty for None."""
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def short(value: Any) -> str:
    """A setting in at most four digits, as narrow as may be: 1.18e-3, 0.75."""
    if not isinstance(value, float):
        return label(value)
    if not 0 < abs(value) < 0.01:
        return f"{value:.4g}"
    mantissa, _, exponent = f"{value:.3e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def varied(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The paths in which these settings differ, in the order in which they come."""
    paths = dict.fromkeys(path for each in settings for path in each)
    return [path for path in paths if len({label(each.get(path)) for each in settings}) > 1]


def finite(value: float | None) -> float | None:
    """The value; None for one that is not finite."""
    return value if value is not None and math.isfinite(value) else None


def printable_lines(text: str) -> str:
    """A text of several lines, each printable; line ends stay as they are, those of CSV too."""
    return "\r\n".join(printable(line, lines=True) for line in text.split("\r\n"))


WIDTH = 110
"""Columns that tables keep to where they can."""


def aligned(header: Sequence[str], body: Sequence[Sequence[str]], width: int) -> list[str]:
    """Aligned columns. A header may have several lines; columns that do not fit the width go on below, with the first
    column repeated."""
    heads = [text.split("\n") for text in header]
    height = max(map(len, heads))
    top = list(zip(*([""] * (height - len(lines)) + lines for lines in heads), strict=True))
    sizes = [max(len(row[i]) for row in [*top, *body]) for i in range(len(header))]
    numbers = [any(row[i][:1].isdigit() for row in body) for i in range(len(header))]
    lines: list[str] = []
    start = 1
    while start < len(header) or start == 1:
        end, used = start, sizes[0]
        while end < len(header) and (end == start or used + 2 + sizes[end] <= width):
            used += 2 + sizes[end]
            end += 1
        shown = [0, *range(start, end)]
        lines += [""] if lines else []
        texts = [
            [row[i].rjust(sizes[i]) if i and numbers[i] else row[i].ljust(sizes[i]) for i in shown]
            for row in [*(line for line in top if any(line[i] for i in shown)), *body]
        ]
        part = ["  ".join(row).rstrip() for row in texts]
        part.insert(len(part) - len(body), "-" * (sum(sizes[i] for i in shown) + 2 * (len(shown) - 1)))
        lines += part
        start = max(end, start + 1)
    return lines
