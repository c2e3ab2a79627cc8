"""Says in words, with its numbers, what each picture of the page shows: its alternative text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from orchestrator.report import figures
from orchestrator.report.drawings import Scatter, SearchReport
from orchestrator.report.formatting import short
from orchestrator.report.importance import FEW, FEWEST
from orchestrator.report.layer_panels import LayerFigure
from orchestrator.report.layer_words import LINES
from orchestrator.report.model import GroupReport
from orchestrator.report.page.data import at_words, curve_name, leading_settings
from orchestrator.report.wording import field_title


def loss_words(group: GroupReport) -> str:
    """Training loss of RAND on digits, epochs 1 to 24: chosen from 2.3 to 0.41; 14 others end between 0.38 and 2.2"""
    told = _roles(group, [curve.train_loss for curve in group.curves], lambda value: f"{value:.3g}")
    return f"Training loss of {group.row} on {group.column}, {_epochs(group)}: {told}"


def metric_words(group: GroupReport) -> str:
    """The same of the metric, with the figures that the trials of the table ended with."""
    told = _roles(group, [curve.metric for curve in group.curves], lambda value: figures.text(value, group.figure))
    ends = [curve for curve in group.curves if curve.role == "final" and curve.end is not None]
    marked = [
        f"{curve_name(curve, len(ends) > 1, ended=True)} {figures.text(curve.end or 0.0, group.figure)}"
        for curve in ends
    ]
    parts = "; ".join(filter(None, (told, f"marked: {', '.join(marked)}" if marked else "")))
    return f"{figures.title(group.figure)} of {group.row} on {group.column}, {_epochs(group)}: {parts}"


def _epochs(group: GroupReport) -> str:
    epochs = [epoch for curve in group.curves for epoch in curve.epochs]
    return f"epochs {min(epochs)} to {max(epochs)}" if epochs else "no epoch"


def _roles(group: GroupReport, values: Sequence[Sequence[float | None]], text: Callable[[float], str]) -> str:
    """From where to where the curves of the chosen and the final trials go, and where those of the others end."""
    parts, others = [], []
    count = Counter(curve.role for curve in group.curves)
    for curve, line in zip(group.curves, values, strict=True):
        known = [value for value in line if value is not None]
        if known and curve.role == "other":
            others.append(known[-1])
        elif known:
            name = curve_name(curve, count[curve.role] > 1)
            parts.append(f"{name} from {text(known[0])} to {text(known[-1])}")
    if len(others) == 1:
        parts.append(f"1 other trial ends at {text(others[0])}")
    elif others:
        parts.append(f"{len(others)} other trials end between {text(min(others))} and {text(max(others))}")
    return "; ".join(parts) or "no number"


def plot_words(plot: Scatter) -> str:
    """A plot's title, then each of its points: Error rate against mean attention distance; RAND (0.31, 12.4), .."""
    dots = [f"{dot.name} ({dot.x_word or f'{dot.x:.4g}'}, {dot.height})" for dot in plot.dots]
    told = f"{plot.title or f'{plot.y_name} against {plot.x_name}'}. {plot.x_name}, {plot.y_name} of {'; '.join(dots)}"
    second = [f"{dot.name} {dot.y:.4g}" for dot in plot.second]
    return f"{told}. {plot.second_name}: {'; '.join(second)}" if second else told


def layer_words(figure: LayerFigure) -> str:
    """The figure's title, and of each panel the mean of its first and of its last layer, or epoch; then the same of the
    figures beside it."""
    at = figure.axis if figure.form in LINES else "layer"
    told = [
        f"{figures.title(each.figure)} of each {at}. {_panels_words(each, at)}" for each in (figure, *figure.beside)
    ]
    return f"{figure.title}: {'. '.join(told)}"


def _panels_words(figure: LayerFigure, at: str) -> str:
    told = []
    for panel in figure.panels:
        means = {layer: mean for layer in panel.layers if (mean := panel.mean(layer)) is not None}
        if means:
            first, last = min(means), max(means)
            told.append(f"{panel.row}: {at} {first} {means[first]:.4g}, {at} {last} {means[last]:.4g}")
        else:
            told.append(f"{panel.row}: {panel.reason or 'no number'}")
    return "; ".join(told)


def search_words(search: SearchReport) -> str:
    """What the search tried and found, in a sentence or two."""
    lost = [each for each in search.settings if each.value is None]
    counts = [f"{len(search.in_full)} of {len(search.settings)} settings ran in full"]
    parts = parts_of_members(search)
    stopped = len(search.not_in_full) - parts
    counts += [f"{stopped} were stopped early"] if stopped else []
    counts += [f"{parts} are parts of members of a population"] if parts else []
    counts += [f"{len(lost)} have no value ({', '.join(dict.fromkeys(each.state for each in lost))})"] if lost else []
    best = search.best
    if best is None or best.value is None:
        return f"{', '.join(counts)}."
    extreme = "Highest" if search.figure.better == "higher" else "Lowest"
    value = figures.with_unit(best.value, search.figure)
    found = f"{extreme} {search.figure.title} on {search.split}: {value}, setting {best.number}"
    return f"{', '.join(counts)}. {found} ({', '.join(at_words(search, best))})."


def parts_of_members(search: SearchReport) -> int:
    """How many settings of a population were trained on by others, so that no trial ended with them."""
    return sum(each.state != "stopped" for each in search.not_in_full)


def so_far_words(search: SearchReport) -> str:
    """Each improvement: setting 1 68.8, setting 4 73.8"""
    steps, last = [], None
    for each in search.settings:
        if each.best is not None and each.best != last:
            steps.append(f"setting {each.number} {figures.text(each.best, search.figure)}")
            last = each.best
    title = f"Best {search.figure.title}{_of(search)} so far, after each of {len(search.settings)} settings"
    return f"{title}: {', '.join(steps) or 'none yet'}"


def field_words(search: SearchReport, place: int) -> str:
    """Over which values of a field the search went, where the best one lies, and where the best quarter."""
    field = search.fields[place]
    name = field_title(field.path)
    tried = [value for each in search.settings if (value := each.at[place]) is not None]
    start = f"{figures.title(search.figure)} on {search.split} against {name}"
    if not tried:
        return f"{start}: no value"

    def told(values: Sequence[float]) -> str:
        if field.form == "choice":
            return ", ".join(field.choices[int(value)] for value in sorted(set(values)))
        low, high = short(min(values)), short(max(values))
        return low if low == high else f"{low} to {high}"

    words = f"{start}, tried {told(tried)}"
    best, leading = search.best, leading_settings(search)
    top = [value for each in search.settings if each.number in leading and (value := each.at[place]) is not None]
    if best is not None and (at := best.at[place]) is not None:
        words += f"; the best at {told([at])}"
        words += f", the best {len(top)} at {told(top)}" if len(top) > 1 else ""
    return words


def parallel_words(search: SearchReport) -> str:
    """What the lines of the best quarter of the settings run through."""
    numbers = leading_settings(search)
    leading = [each for each in search.settings if each.number in numbers]
    lines = [
        f"setting {each.number} ({', '.join(at_words(search, each))}) {figures.text(each.value or 0.0, search.figure)}"
        for each in leading[:8]
    ]
    start = f"Each setting as a line through its value of each field and its {search.figure.title}"
    return f"{start}; the best quarter: {'; '.join(lines)}" if lines else start


def importance_note(search: SearchReport) -> str:
    """From what the shares are computed, or why there are none."""
    full = len(search.in_full)
    if not search.importance:
        why = f"it needs {FEWEST} settings in full, there are {full}" if full < FEWEST else "all settings ended alike"
        return f"Not computed: {why}."
    few = f"; of fewer than {FEW} settings a hint, no more" if full < FEW else ""
    return f"{search.importance_by}, from {full} settings in full{few}."


def _of(search: SearchReport) -> str:
    return f" on {search.split}" if search.split else ""
