"""Draws one number of the table's trials against another as an SVG panel in the page's colours."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from orchestrator.report.drawings import Scatter
from orchestrator.report.svg.elements import FONT, diamond, nice, rule, text

_W, _H, _LEFT, _RIGHT, _TOP, _BOTTOM = 520, 300, 52, 130, 28, 40
_COLOUR = ' style="fill: var(--{})"'
"""Of an axis: that of its marks."""


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
    """Dots with their names beside them, or curves with a name at their ends; name and numbers when pointed at. Empty
    without dots. `words`: what it shows, for readers who do not see it."""
    if not plot.dots:
        return ""
    null = {dot.x: dot.x_word for dot in plot.dots if dot.x_word}
    numbers = [dot.x for dot in plot.dots if not dot.x_word] or [dot.x for dot in plot.dots]
    ticks = _ticks(plot.curves, numbers)
    left, right = min([ticks[0], *null]), ticks[-1]
    y_ticks = nice(min(dot.y for dot in plot.dots), max(dot.y for dot in plot.dots))

    def x(value: float) -> float:
        return _LEFT + (_W - _LEFT - _RIGHT) * (value - left) / (right - left)

    def y(value: float) -> float:
        return _H - _BOTTOM - (_H - _TOP - _BOTTOM) * (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])

    named = (f"○ {plot.y_name}", _COLOUR.format("chosen")) if plot.second else (plot.y_name, "")
    parts = [text(2, 14, named[0], 12, "start", weight="600", extra=named[1])]
    parts += [rule(y(tick), tick, _LEFT, _W - _RIGHT) for tick in y_ticks]
    shown = [*null.items(), *((tick, f"{tick:g}") for tick in ticks if tick not in null)]
    parts += [text(x(at), _H - _BOTTOM + 16, word, 11) for at, word in shown]
    parts.append(text((_LEFT + _W - _RIGHT) / 2, _H - 4, plot.x_name, 12))
    for name in dict.fromkeys(dot.name for dot in plot.dots) if plot.curves else ():
        points = " ".join(f"{x(dot.x):.1f},{y(dot.y):.1f}" for dot in plot.dots if dot.name == name)
        parts.append(f'<polyline class="line chosen" points="{points}"/>')
    last = {dot.name: dot for dot in plot.dots}
    for dot in plot.dots:
        tip = f"{dot.name}: {plot.x_name} {dot.x_word or f'{dot.x:.4g}'}, {plot.y_name} {dot.y:.4g}"
        parts.append(
            f'<g data-tip="{escape(tip)}"><title>{escape(tip)}</title>'
            f'<circle class="dot chosen" cx="{x(dot.x):.1f}" cy="{y(dot.y):.1f}" r="4.5"/></g>'
        )
        if not plot.curves or dot is last[dot.name]:
            parts.append(text(x(dot.x) + 8, y(dot.y) + 4, dot.name, 11, "start"))
    parts += _second(plot, x)
    inner = "".join(parts)
    title = escape(words or plot.title or f"{plot.y_name} against {plot.x_name}")
    return f'<svg class="scatter" viewBox="0 0 {_W} {_H}" role="img" aria-label="{title}" {FONT}>{inner}</svg>'


def _ticks(curves: bool, numbers: list[float]) -> list[float]:
    """Ticks of the x axis: the values themselves where a curve is over a few whole numbers, else round numbers."""
    values = sorted(set(numbers))
    if curves and 2 <= len(values) <= 12 and all(value.is_integer() for value in values):
        return values
    return nice(values[0], values[-1])
