"""Text, fonts and axis ticks that all SVG pictures share."""

from __future__ import annotations

import math
from html import escape

FONT = "font-family=\"system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif\""


def text(
    x: float,
    y: float,
    words: str,
    size: float,
    anchor: str = "middle",
    fill: str = "currentColor",
    weight: str = "400",
    extra: str = "",
) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="{fill}"{extra}>{escape(words)}</text>'
    )


def nice(low: float, high: float) -> list[float]:
    """Three to six round numbers that cover [low, high]."""
    if high <= low:
        low, high = (low - 0.5, high + 0.5) if low == 0 else (low - abs(low) * 0.1, high + abs(high) * 0.1)
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    start, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{n * step:.10g}") for n in range(start, end + 1)]
