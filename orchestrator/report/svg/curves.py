"""Draws learning curves as SVG panels that take their colours from the page (CSS classes)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape

from orchestrator.report.drawings import Curve
from orchestrator.report.figures import title
from orchestrator.report.model import GroupReport
from orchestrator.report.svg.elements import FONT, nice, text

LOSS = "training loss"

_W, _H, _PAD_LEFT, _PAD_RIGHT, _PAD_TOP, _PAD_BOTTOM = 260, 170, 40, 10, 26, 34


def curves_svg(group: GroupReport, words: Mapping[str, str]) -> dict[str, str]:
    """`loss` and `metric` -> training loss, and the metric on its split, over epochs, of the chosen trial and those of
    the table: of several seeds a thin line each, and their mean. Without those that nothing was reported of.
    `words`: what each shows, for readers who do not see it."""
    drawn = [curve for curve in group.curves if curve.epochs and curve.role != "other"]
    if not drawn:
        return {}
    ends = [curve.end for curve in drawn if curve.role == "final" and curve.end is not None]
    panels = {
        "loss": _panel(
            LOSS, words["loss"], drawn, [curve.train_loss for curve in drawn], [], [curve.epochs for curve in drawn]
        ),
        "metric": _panel(
            metric_heading(group), words["metric"], drawn, [curve.metric for curve in drawn], ends,
            [curve.broken for curve in drawn],
        ),
    }  # fmt: skip
    return {name: panel for name, panel in panels.items() if panel}


def metric_heading(group: GroupReport) -> str:
    """top-1 accuracy (%) on val; of curves on several splits with all of them."""
    drawn = [curve for curve in group.curves if any(value is not None for value in curve.metric)]
    splits = " / ".join(dict.fromkeys(curve.split for curve in drawn or group.curves if curve.split))
    return f"{title(group.figure)} on {splits}" if splits else title(group.figure)


def _panel(
    heading: str,
    words: str,
    drawn: Sequence[Curve],
    values: Sequence[Sequence[float | None]],
    ends: list[float],
    gaps: Sequence[Collection[int]],
) -> str:
    """`gaps`: for each curve the epochs over which no line goes where they have no number: of the loss, which every
    epoch reports, all of them."""
    known = [value for line in values for value in line if value is not None]
    if not known:
        return ""
    last = max(curve.epochs[-1] for curve in drawn)
    first = min(1, min(curve.epochs[0] for curve in drawn))
    ticks = nice(min([*known, *ends]), max([*known, *ends]))
    low, high = ticks[0], ticks[-1]

    def x(epoch: float) -> float:
        return _PAD_LEFT + (_W - _PAD_LEFT - _PAD_RIGHT) * ((epoch - first) / max(last - first, 1))

    def y(value: float) -> float:
        return _H - _PAD_BOTTOM - (_H - _PAD_TOP - _PAD_BOTTOM) * ((value - low) / (high - low))

    parts = [text(2, 13, heading, 12, "start", weight="600")]
    for tick in ticks:
        at = f"{y(tick):.1f}"
        parts.append(f'<line class="rule" x1="{_PAD_LEFT}" x2="{_W - _PAD_RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(text(_PAD_LEFT - 6, y(tick) + 4, f"{tick:g}", 11, "end"))
    for epoch in _epochs(first, last):
        parts.append(text(x(epoch), _H - _PAD_BOTTOM + 16, f"{epoch:g}", 11))
    parts.append(text((_PAD_LEFT + _W - _PAD_RIGHT) / 2, _H - 3, "epoch", 11))
    roles = Counter(curve.role for curve in drawn)
    for curve, line, broken in zip(drawn, values, gaps, strict=True):
        look = f"{curve.role} seed" if roles[curve.role] > 1 else curve.role
        runs = _runs(curve.epochs, line, broken)
        parts += [_line(look, [(x(epoch), y(value)) for epoch, value in run]) for run in runs]
    for role in (role for role, count in roles.items() if count > 1):
        lines = [
            dict(zip(curve.epochs, line, strict=True))
            for curve, line in zip(drawn, values, strict=True)
            if curve.role == role
        ]
        epochs, means = mean_curve(lines)
        parts += [
            _line(role, [(x(epoch), y(value)) for epoch, value in run])
            for run in _runs(epochs, means, set[int]().union(*gaps))
        ]
    for end in ends:
        left, top = x(last), y(end)
        parts.append(
            f'<g data-tip="final: {end:.4g}"><title>final: {end:.4g}</title><rect class="dot final" x="{left - 4:.1f}" '
            f'y="{top - 4:.1f}" width="8" height="8" transform="rotate(45 {left:.1f} {top:.1f})"/></g>'
        )
    inner = "".join(parts)
    return f'<svg class="curve" viewBox="0 0 {_W} {_H}" role="img" aria-label="{escape(words)}" {FONT}>{inner}</svg>'


def mean_curve(lines: Sequence[Mapping[int, float | None]]) -> tuple[list[int], list[float | None]]:
    """The mean over several curves at each epoch; None where one of them has no number."""
    epochs = sorted(set[int]().union(*lines))
    numbers = [[line.get(epoch) for line in lines] for epoch in epochs]
    known = [[value for value in each if value is not None] for each in numbers]
    return epochs, [math.fsum(each) / len(each) if len(each) == len(lines) else None for each in known]


def _runs(
    epochs: Sequence[int], values: Sequence[float | None], broken: Collection[int]
) -> Iterable[list[tuple[int, float]]]:
    """Unbroken pieces: a line goes through epochs in which nothing was evaluated, but not through one whose value is no
    number (`broken`)."""
    run: list[tuple[int, float]] = []
    for epoch, value in zip(epochs, values, strict=True):
        if value is not None:
            run.append((epoch, value))
        elif run and epoch in broken:
            yield run
            run = []
    if run:
        yield run


def _line(role: str, places: Sequence[tuple[float, float]]) -> str:
    if len(places) == 1:
        return f'<circle class="dot {role}" cx="{places[0][0]:.1f}" cy="{places[0][1]:.1f}" r="3"/>'
    return f'<polyline class="line {role}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in places)}"/>'


def _epochs(first: int, last: int) -> list[int]:
    step = max(1, round(nice(0, max(last, 1))[1]))
    shown = sorted({first, *range(step, last + 1, step), last})
    return [epoch for epoch in shown if epoch in (first, last) or min(epoch - first, last - epoch) >= step * 0.6]
