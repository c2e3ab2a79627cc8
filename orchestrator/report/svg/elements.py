"""Text, fonts, axis ticks, rules and marks that SVG pictures share."""

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


def rule(y: float, value: float, left: float, right: float) -> str:
    """A line across a plot, at the height of a tick, with the tick's value at its left."""
    line = f'<line class="rule" x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
    return line + text(left - 6, y + 4, f"{value:g}", 11, "end")


def diamond(x: float, y: float, tip: str) -> str:
    """The mark of a figure that a trial ended with; says `tip` when pointed at."""
    tip = escape(tip)
    return (
        f'<g data-tip="{tip}"><title>{tip}</title><rect class="dot final" x="{x - 4:.1f}" '
        f'y="{y - 4:.1f}" width="8" height="8" transform="rotate(45 {x:.1f} {y:.1f})"/></g>'
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
