"""Draws learning curves as SVG panels that take their colours from the page (CSS classes)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from orchestrator.report.drawings import Curve
from orchestrator.report.figures import title
from orchestrator.report.model import GroupReport
from orchestrator.report.svg.elements import FONT, diamond, nice, rule, text

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


@dataclass(frozen=True)
class _Axes:
    """Where epochs and values lie in a panel."""

    first: int
    last: int
    ticks: Sequence[float]
    """Of the values, from the lowest to the highest."""

    def x(self, epoch: float) -> float:
        return _PAD_LEFT + (_W - _PAD_LEFT - _PAD_RIGHT) * ((epoch - self.first) / max(self.last - self.first, 1))

    def y(self, value: float) -> float:
        low, high = self.ticks[0], self.ticks[-1]
        return _H - _PAD_BOTTOM - (_H - _PAD_TOP - _PAD_BOTTOM) * ((value - low) / (high - low))

    def drawn(self) -> Iterator[str]:
        for tick in self.ticks:
            yield rule(self.y(tick), tick, _PAD_LEFT, _W - _PAD_RIGHT)
        for epoch in _epochs(self.first, self.last):
            yield text(self.x(epoch), _H - _PAD_BOTTOM + 16, f"{epoch:g}", 11)
        yield text((_PAD_LEFT + _W - _PAD_RIGHT) / 2, _H - 3, "epoch", 11)

    def curve(self, look: str, runs: Iterable[Sequence[tuple[int, float]]]) -> list[str]:
        return [_line(look, [(self.x(epoch), self.y(value)) for epoch, value in run]) for run in runs]


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
    first, last = min(1, min(curve.epochs[0] for curve in drawn)), max(curve.epochs[-1] for curve in drawn)
    axes = _Axes(first, last, nice(min([*known, *ends]), max([*known, *ends])))
    parts = [text(2, 13, heading, 12, "start", weight="600"), *axes.drawn()]
    roles = Counter(curve.role for curve in drawn)
    for curve, line, broken in zip(drawn, values, gaps, strict=True):
        look = f"{curve.role} seed" if roles[curve.role] > 1 else curve.role
        parts += axes.curve(look, _runs(curve.epochs, line, broken))
    for role in (role for role, count in roles.items() if count > 1):
        epochs, means = mean_curve(
            [
                dict(zip(curve.epochs, line, strict=True))
                for curve, line in zip(drawn, values, strict=True)
                if curve.role == role
            ]
        )
        parts += axes.curve(role, _runs(epochs, means, set[int]().union(*gaps)))
    parts += [diamond(axes.x(last), axes.y(end), f"final: {end:.4g}") for end in ends]
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
