"""Draws heat maps as SVG that can be read without colour and without script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from orchestrator.report import figures
from orchestrator.report.drawings import HeatCell, HeatMap, Scale
from orchestrator.report.formatting import short
from orchestrator.report.groups import heat_map as find_heat_map
from orchestrator.report.model import Choice, GroupReport
from orchestrator.report.svg.elements import FONT, text
from orchestrator.report.wording import edge_text, seeds_text, spread_text

if TYPE_CHECKING:
    from orchestrator.records.rows import PlacedRow

VIRIDIS = ("440154", "482878", "3e4a89", "31688e", "26828e", "1f9e89", "35b779", "6ece58", "b5de2b", "fde725")
"""matplotlib's viridis at ten places: rises evenly in lightness, so it survives colour blindness and a grey print."""

_HATCH = (
    '<pattern id="{id}" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect width="7" height="7" fill="#8b8f97"/><rect width="2.2" height="7" fill="#5c6068"/></pattern>'
)

_WORDS = {"diverged": "diverged", "failed": "failed", "cancelled": "cancelled", "running": "running", "pending": "…"}

_LEFT, _TOP, _WIDE, _HIGH = 62, 26, 66, 42


def colour(part: float) -> tuple[str, str]:
    """Fill at `part` (see `part_of`) of the scale, and the colour of text on it."""
    at = min(max(part, 0.0), 1.0) * (len(VIRIDIS) - 1)
    low = min(int(at), len(VIRIDIS) - 2)
    pair = [[int(stop[i : i + 2], 16) for i in (0, 2, 4)] for stop in VIRIDIS[low : low + 2]]
    mixed = [round(a + (b - a) * (at - low)) for a, b in zip(*pair, strict=True)]
    linear = [c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in mixed]  # WCAG 2 luminance
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#{:02x}{:02x}{:02x}".format(*mixed), "#ffffff" if luminance < 0.179 else "#000000"


def part_of(value: float, scale: Scale) -> float:
    """The position of a value on its scale: 0 worst, 1 best; 0 lowest, 1 highest where neither is better."""
    if scale.low is None or scale.high is None or scale.high == scale.low:
        return 1.0
    part = (value - scale.low) / (scale.high - scale.low)
    return 1 - part if scale.figure.better == "lower" else part


def picture(trials: Sequence[PlacedRow], chosen: set[str]) -> str | None:
    """The heat map of one stage and group from its rows alone, as a file for the tracking server: white ground, title,
    scale of its own.

    None when no numeric setting was varied. `chosen`: keys to mark.
    """
    drawn = find_heat_map(trials[0].stage, trials, chosen)
    if drawn is None:
        return None
    values = [cell.value for cell in drawn.cells if cell.value is not None]
    scale = Scale("", drawn.figure, min(values, default=None), max(values, default=None))
    name = trials[0].group
    title = f"{name}, stage {drawn.stage}: {figures.title(drawn.figure)} on {drawn.split}"
    title += "; mean over seeds, below it smallest–largest" if drawn.replicated else ""
    body, width, height = heat_map(GroupReport(name, name, "", drawn.figure), drawn, scale, "alone")
    total = max(width, 360, 9 * len(title)) + 24
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="{height + 92}" '
        f'viewBox="0 0 {total} {height + 92}" style="color:#14171f" {FONT}>'
        f'<rect width="100%" height="100%" fill="#ffffff"/>'
        f'<text x="12" y="24" font-size="15" font-weight="600" fill="currentColor">{escape(title)}</text>'
        f'<svg x="12" y="36" width="{width}" height="{height}">{body}</svg>'
        f'<svg x="12" y="{height + 48}" width="340" height="36">{scale_bar(scale)}</svg></svg>'
    )


def heat_map_inline(group: GroupReport, drawn: HeatMap, scale: Scale, name: str) -> str:
    """A heat map for a page: no ground, text in the page's colour. `name` makes the ids in it unique on the page."""
    body, width, height = heat_map(group, drawn, scale, name)
    return (
        f'<svg class="map" viewBox="0 0 {width} {height}" style="max-width:{round(1.2 * width)}px" role="img" {FONT} '
        f'aria-label="{escape(f"{group.row} on {group.column}: {_in_words(drawn, scale)}")}">{body}</svg>'
    )


def _in_words(drawn: HeatMap, scale: Scale) -> str:
    """15 of 15 settings of learning rate and layer decay have a value, from 17.4 to 50.2; chosen learning rate .."""
    values = [(cell.value, cell) for cell in drawn.cells if cell.value is not None]
    axes = " and ".join(_axis_name(path) for path in (drawn.x_path, drawn.y_path) if path)
    words = f"{figures.title(scale.figure)} on {drawn.split}, {len(values)} of {len(drawn.cells)} settings of {axes}"
    words += " have a value"
    if values:
        low, high = min(value for value, _ in values), max(value for value, _ in values)
        words += f", from {figures.text(low, scale.figure)} to {figures.text(high, scale.figure)}"
    if chosen := next((pair for pair in values if pair[1].chosen), None):
        value, cell = chosen
        at = f"{_axis_name(drawn.x_path)} {short(cell.x)}"
        at += f", {_axis_name(drawn.y_path)} {short(cell.y)}" if drawn.y_path else ""
        words += f"; chosen {at} with {figures.text(value, scale.figure)}"
    return words


def heat_map(group: GroupReport, drawn: HeatMap, scale: Scale, name: str) -> tuple[str, int, int]:
    """Inner SVG, width and height. Larger y lies higher; the best is bright, or the highest where neither is
    better."""
    rows = drawn.ys[::-1]
    wide, high = _WIDE * len(drawn.xs), _HIGH * len(rows)
    width, height = _LEFT + wide + 14, _TOP + high + 44
    parts = [f"<defs>{_HATCH.format(id=f'hatch-{name}')}</defs>"]
    at = {(cell.x, cell.y): cell for cell in drawn.cells}
    for j, y in enumerate(rows):
        parts += [_square(at[x, y], i, j, drawn, scale, name) for i, x in enumerate(drawn.xs)]
        if drawn.y_path:
            parts.append(text(_LEFT - 8, _TOP + _HIGH * (j + 0.5) + 4, short(y), 12, "end"))
    for i, x in enumerate(drawn.xs):
        parts.append(text(_LEFT + _WIDE * (i + 0.5), _TOP + high + 17, short(x), 12))
    parts.append(text(_LEFT + wide / 2, _TOP + high + 36, _axis_name(drawn.x_path), 12, weight="600"))
    if drawn.y_path:
        parts.append(text(2, 14, f"{_axis_name(drawn.y_path)} ↑", 12, "start", weight="600"))
    parts += [_outline(at[x, y], i, j) for j, y in enumerate(rows) for i, x in enumerate(drawn.xs)]
    if group.choices:
        parts += _edge_bars(group.choices[-1], drawn, wide, high)
    return "".join(parts), width, height


def _axis_name(path: str) -> str:
    return {"optim.lr": "learning rate"}.get(path, path.rpartition(".")[2].replace("_", " "))


def _square(cell: HeatCell, i: int, j: int, drawn: HeatMap, scale: Scale, name: str) -> str:
    x, y = _LEFT + _WIDE * i, _TOP + _HIGH * j
    where = f"{_axis_name(drawn.x_path)} {short(cell.x)}"
    where += f", {_axis_name(drawn.y_path)} {short(cell.y)}" if drawn.y_path else ""
    extra = "".join(f", {n} {word}" for n, word in ((cell.diverged, "diverged"), (cell.failed, "failed")) if n)
    if cell.value is not None:
        fill, ink = colour(part_of(cell.value, scale))
        value = figures.text(cell.value, scale.figure)
        unit = scale.figure.unit if scale.figure.unit == "%" else f" {scale.figure.unit}".rstrip()
        tip = f"{where}: {value}{unit}{extra}{', chosen' if cell.chosen else ''}"
        tip += f", best of {cell.settings}" if cell.settings > 1 else ""
        spread = spread_text(cell, scale.figure)
        tip += f", mean of {len(cell.seeds)} seeds, smallest–largest {spread}" if spread else ""
        middle = y + _HIGH / 2 + (-1 if spread else 5)
        return (
            f'<g data-tip="{escape(tip)}"><title>{escape(tip)}</title>'
            f'<rect x="{x}" y="{y}" width="{_WIDE - 1}" height="{_HIGH - 1}" fill="{fill}"/>'
            + text(x + _WIDE / 2, middle, value, 14, fill=ink, weight="700" if cell.chosen else "400")
            + (text(x + _WIDE / 2, y + _HIGH - 9, spread, 10, fill=ink) if spread else "")
            + "</g>"
        )
    fill = f"url(#hatch-{name})" if cell.state == "diverged" else "none"
    word = "" if cell.state == "absent" else _WORDS.get(cell.state, cell.state)
    tip = f"{where}: {cell.state if word else 'not in the grid'}"
    if cell.state == "diverged" and cell.wanted > 1:
        tip += f" in {cell.wanted - len(cell.values)} of {cell.wanted} seeds"
        tip += f", the others {seeds_text(cell.values, cell.seeds, scale.figure)}" if cell.values else ""
    ink = "#ffffff" if cell.state == "diverged" else "currentColor"
    halo = ' stroke="#3b3e45" stroke-width="3" paint-order="stroke"' if cell.state == "diverged" else ""
    lost = spread_text(cell, scale.figure)
    cross = "✕ " if cell.state in ("failed", "cancelled") else ""
    return (
        f'<g data-tip="{escape(tip)}"><title>{escape(tip)}</title>'
        f'<rect x="{x + 0.5}" y="{y + 0.5}" width="{_WIDE - 2}" height="{_HIGH - 2}" fill="{fill}" '
        'stroke="currentColor" stroke-opacity=".35" stroke-dasharray="3 3"/>'
        + text(x + _WIDE / 2, y + _HIGH / 2 + (-2 if lost else 4), cross + word, 11, fill=ink, extra=halo)
        + (text(x + _WIDE / 2, y + _HIGH - 9, lost, 10, fill=ink, extra=halo) if lost else "")
        + "</g>"
    )


def _outline(cell: HeatCell, i: int, j: int) -> str:
    """Marks what was chosen: dark and light line together, so that it shows on every colour, and a star."""
    if not cell.chosen:
        return ""
    x, y = _LEFT + _WIDE * i, _TOP + _HIGH * j
    box = f'x="{x + 1.5}" y="{y + 1.5}" width="{_WIDE - 4}" height="{_HIGH - 4}" fill="none"'
    return (
        f'<rect {box} stroke="#10131a" stroke-width="5"/><rect {box} stroke="#ffffff" stroke-width="2"/>'
        f'<g pointer-events="none">{_star(x + _WIDE - 10, y + 10)}</g>'
    )


def _star(x: float, y: float) -> str:
    tips = [
        (x + r * math.sin(math.pi * k / 5), y - r * math.cos(math.pi * k / 5))
        for k in range(10)
        for r in [6.5 if k % 2 == 0 else 2.8]
    ]
    places = " ".join(f"{a:.1f},{b:.1f}" for a, b in tips)
    return f'<polygon points="{places}" fill="#ffffff" stroke="#10131a" stroke-width="1.4"/>'


def _edge_bars(choice: Choice, drawn: HeatMap, wide: float, high: float) -> list[str]:
    """A bar along each side of the map that the chosen setting lies on (or beyond)."""
    bars: list[tuple[float, float, float, float, str]] = []
    for edge in choice.edges:
        tip = escape(edge_text(edge))
        if edge.path == drawn.x_path:
            x = _LEFT - 5 if edge.side == "low" else _LEFT + wide + 2
            bars.append((x, _TOP, 3, high - 1, tip))
        elif edge.path == drawn.y_path:
            y = _TOP + high + 1 if edge.side == "low" else _TOP - 5
            bars.append((_LEFT, y, wide - 1, 3, tip))
    return [
        f'<rect x="{x}" y="{y}" width="{w}" height="{h}" fill="#d55e00" data-tip="{tip}"><title>{tip}</title></rect>'
        for x, y, w, h, tip in bars
    ]


def scale_bar(scale: Scale) -> str:
    """Inner SVG, 340 by 36: the colour scale with its ends in words."""
    if scale.low is None or scale.high is None:
        return ""
    low, high = (scale.high, scale.low) if scale.figure.better == "lower" else (scale.low, scale.high)
    stops = "".join(
        f'<rect x="{2 + 12 * n}" y="2" width="12.5" height="12" fill="{colour(n / 19)[0]}"/>' for n in range(20)
    )
    unit = f" {scale.figure.unit}".rstrip()
    dark, bright = ("lowest", "highest") if scale.figure.better == "neither" else ("worst", "best")
    dark, bright = f"{dark} {figures.text(low, scale.figure)}", f"{bright} {figures.text(high, scale.figure)}{unit}"
    return stops + text(2, 29, dark, 12, "start") + text(242, 29, bright, 12, "end")
