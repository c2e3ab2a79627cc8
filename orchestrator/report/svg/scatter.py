"""Draws one number of the table's trials against another as an SVG panel in the page's colours."""

from __future__ import annotations

from html import escape

from orchestrator.report.drawings import Scatter
from orchestrator.report.svg.elements import FONT, nice, text

_W, _H, _LEFT, _RIGHT, _TOP, _BOTTOM = 520, 300, 52, 130, 28, 40


def scatter_svg(plot: Scatter) -> str:
    """Dots with their names beside them, or curves with a name at their ends; name and numbers when pointed at. Empty
    without dots."""
    if not plot.dots:
        return ""
    x_ticks = nice(min(dot.x for dot in plot.dots), max(dot.x for dot in plot.dots))
    y_ticks = nice(min(dot.y for dot in plot.dots), max(dot.y for dot in plot.dots))

    def x(value: float) -> float:
        return _LEFT + (_W - _LEFT - _RIGHT) * (value - x_ticks[0]) / (x_ticks[-1] - x_ticks[0])

    def y(value: float) -> float:
        return _H - _BOTTOM - (_H - _TOP - _BOTTOM) * (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])

    parts = [text(2, 14, plot.y_name, 12, "start", weight="600")]
    for tick in y_ticks:
        at = f"{y(tick):.1f}"
        parts.append(f'<line class="rule" x1="{_LEFT}" x2="{_W - _RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(text(_LEFT - 6, y(tick) + 4, f"{tick:g}", 11, "end"))
    parts += [text(x(tick), _H - _BOTTOM + 16, f"{tick:g}", 11) for tick in x_ticks]
    parts.append(text((_LEFT + _W - _RIGHT) / 2, _H - 4, plot.x_name, 12))
    for name in dict.fromkeys(dot.name for dot in plot.dots) if plot.curves else ():
        points = " ".join(f"{x(dot.x):.1f},{y(dot.y):.1f}" for dot in plot.dots if dot.name == name)
        parts.append(f'<polyline class="line chosen" points="{points}"/>')
    last = {dot.name: dot for dot in plot.dots}
    for dot in plot.dots:
        tip = f"{dot.name}: {plot.x_name} {dot.x:.4g}, {plot.y_name} {dot.y:.4g}"
        parts.append(
            f'<g data-tip="{escape(tip)}"><title>{escape(tip)}</title>'
            f'<circle class="dot chosen" cx="{x(dot.x):.1f}" cy="{y(dot.y):.1f}" r="4.5"/></g>'
        )
        if not plot.curves or dot is last[dot.name]:
            parts.append(text(x(dot.x) + 8, y(dot.y) + 4, dot.name, 11, "start"))
    inner = "".join(parts)
    title = escape(plot.title or f"{plot.y_name} against {plot.x_name}")
    return f'<svg class="scatter" viewBox="0 0 {_W} {_H}" role="img" aria-label="{title}" {FONT}>{inner}</svg>'
