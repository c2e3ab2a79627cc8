"""Draws one number of the table's trials against another as an SVG panel in the page's colours."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from orchestrator.report.drawings import Scatter, ScatterPoint
from orchestrator.report.svg.elements import FONT, diamond, nice, rule, text

_W, _H, _LEFT, _RIGHT, _TOP, _BOTTOM = 520, 300, 52, 130, 28, 40
_COLOUR = ' style="fill: var(--{})"'
"""Of an axis: that of its marks."""
LOOKS = 6
"""Colours, with dashes of their own, that the style sheet has for curves (.c0, .c1, ..)."""
_ASIDE = 6.0
"""Distance of the first curve of a plot from the last, where they are at the same place."""
_NAME = 13.0
"""Least distance of two names, one below the other."""


def _second(plot: Scatter, x: Callable[[float], float]) -> list[str]:
    """Diamonds of the second figure, with its axis at the right; its title begins with the mark, as the first's does,
    and has its colour."""
    if not plot.second:
        return []
    ticks = nice(min(dot.y for dot in plot.second), max(dot.y for dot in plot.second))

    def y(value: float) -> float:
        return _H - _BOTTOM - (_H - _TOP - _BOTTOM) * (value - ticks[0]) / (ticks[-1] - ticks[0])

    colour = _COLOUR.format("final")
    parts = [text(_W - 2, 14, f"◇ {plot.second_name}", 12, "end", weight="600", extra=colour)]
    parts += [text(_W - 4, y(tick) + 4, f"{tick:g}", 11, "end", extra=colour) for tick in ticks]
    for dot in plot.second:
        tip = f"{dot.name}: {plot.x_name} {dot.x:.4g}, {plot.second_name} {dot.y:.4g}"
        parts.append(diamond(x(dot.x), y(dot.y), tip))
    return parts


def scatter_svg(plot: Scatter, words: str = "") -> str:
    """Dots with their names beside them, or curves with a name at their ends, each in its colour, and a whisker for the
    95 % interval of a dot; name and numbers when pointed at. Empty without dots. `words`: what it shows, for readers
    who do not see it."""
    if not plot.dots:
        return ""
    null = {dot.x: dot.x_word for dot in plot.dots if dot.x_word}
    numbers = [dot.x for dot in plot.dots if not dot.x_word] or [dot.x for dot in plot.dots]
    ticks = _ticks(plot.curves, numbers)
    left, right = min([ticks[0], *null]), ticks[-1]
    ends = [dot.y + sign * (dot.interval or 0.0) for dot in plot.dots for sign in (-1, 1)]
    y_ticks = nice(min(ends), max(ends))

    inset = 1.5 * _ASIDE if plot.curves else 0.0

    def x(value: float) -> float:
        return _LEFT + inset + (_W - _LEFT - _RIGHT - 2 * inset) * (value - left) / (right - left)

    def y(value: float) -> float:
        return _H - _BOTTOM - (_H - _TOP - _BOTTOM) * (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])

    named = (f"○ {plot.y_name}", _COLOUR.format("chosen")) if plot.second else (plot.y_name, "")
    parts = [text(2, 14, named[0], 12, "start", weight="600", extra=named[1])]
    parts += [rule(y(tick), tick, _LEFT, _W - _RIGHT) for tick in y_ticks]
    shown = [*null.items(), *((tick, f"{tick:g}") for tick in ticks if tick not in null)]
    parts += [text(x(at), _H - _BOTTOM + 16, word, 11) for at, word in shown]
    parts.append(text((_LEFT + _W - _RIGHT) / 2, _H - 4, plot.x_name, 12))
    if plot.curves:
        parts += _curves(plot, x, y)
    for dot in () if plot.curves else plot.dots:
        parts.append(_dot(plot, dot, x(dot.x), y(dot.y), "chosen"))
        parts.append(text(x(dot.x) + 8, y(dot.y) + 4, dot.name, 11, "start"))
    parts += _second(plot, x)
    inner = "".join(parts)
    title = escape(words or plot.title or f"{plot.y_name} against {plot.x_name}")
    return f'<svg class="scatter" viewBox="0 0 {_W} {_H}" role="img" aria-label="{title}" {FONT}>{inner}</svg>'


def _curves(plot: Scatter, x: Callable[[float], float], y: Callable[[float], float]) -> list[str]:
    """Lines, whiskers, dots, and the names at the ends, of the first curve to the last: each in a look of its own and a
    little beside the others, so that no whisker hides another."""
    names = list(dict.fromkeys(dot.name for dot in plot.dots))
    parts, labels = [], {}
    for number, name in enumerate(names):
        look = f"of c{number % LOOKS}"
        aside = _ASIDE * (number - (len(names) - 1) / 2) / max(len(names) - 1, 1)
        dots = [dot for dot in plot.dots if dot.name == name]
        places = [(x(dot.x) + aside, y(dot.y)) for dot in dots]
        parts.append(f'<polyline class="line {look}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in places)}"/>')
        for dot, (at, height) in zip(dots, places, strict=True):
            if dot.interval:
                parts.append(_whisker(look, at, y(dot.y - dot.interval), y(dot.y + dot.interval)))
            parts.append(_dot(plot, dot, at, height, look))
        labels[name] = (*places[-1], look)
    right = max(at for at, _, _ in labels.values()) + 10
    heights = _apart([height for _, height, _ in labels.values()])
    for (name, (_, _, look)), height in zip(labels.items(), heights, strict=True):
        parts.append(text(right, height + 4, name, 11, "start", extra=f' class="{look}"'))
    return parts


def _apart(heights: list[float]) -> list[float]:
    """Heights of names, moved down where two would touch, and all up where the last would leave the picture."""
    moved = list(heights)
    low = -float("inf")
    for index in sorted(range(len(heights)), key=heights.__getitem__):
        moved[index] = low = max(heights[index], low + _NAME)
    over = max(0.0, low - (_H - 6))
    return [height - over for height in moved]


def _whisker(look: str, at: float, low: float, high: float) -> str:
    caps = f"M{at - 3:.1f} {low:.1f}h6M{at - 3:.1f} {high:.1f}h6"
    return f'<path class="whisker {look}" d="M{at:.1f} {low:.1f}V{high:.1f}{caps}"/>'


def _dot(plot: Scatter, dot: ScatterPoint, at: float, height: float, look: str) -> str:
    tip = escape(f"{dot.name}: {plot.x_name} {dot.x_word or f'{dot.x:.4g}'}, {plot.y_name} {dot.height}")
    circle = f'<circle class="dot {look}" cx="{at:.1f}" cy="{height:.1f}" r="4.5"/>'
    return f'<g data-tip="{tip}"><title>{tip}</title>{circle}</g>'


def _ticks(curves: bool, numbers: list[float]) -> list[float]:
    """Ticks of the x axis: the values themselves where a curve is over a few whole numbers, else round numbers."""
    values = sorted(set(numbers))
    if curves and 2 <= len(values) <= 12 and all(value.is_integer() for value in values):
        return values
    return nice(values[0], values[-1])
