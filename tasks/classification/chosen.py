"""Which figures of plugins a classification has, and which of all its figures trials are chosen by."""

from __future__ import annotations

from collections.abc import Sequence

from tasks import plugged
from tasks.metrics import Metric
from tasks.spelling import nearest


def of_plugins(names: Sequence[str]) -> tuple[Metric, ...]:
    """The figures of these names that the job's plugins define; unknown names are left out."""
    return tuple(plugged.METRICS[name][1].metric for name in names if name in plugged.METRICS)


def ordered(metrics: tuple[Metric, ...], first: str) -> tuple[Metric, ...]:
    """The metrics with the one of this name first; as they are where none has it."""
    return tuple(sorted(metrics, key=lambda metric: metric.name != first)) if first else metrics


def check_chosen(names: Sequence[str], choose_by: str, metrics: Sequence[Metric], by_knn: bool) -> None:
    """Raises ValueError for names that no plugin of the job defines, a figure twice, and a choice that cannot be made.

    `metrics`: all figures of the task. `by_knn`: `knn.choose` names one too.
    """
    for name in names:
        if name not in plugged.METRICS:
            known = ", ".join(sorted(plugged.METRICS)) or "none"
            near = "".join(f"; nearest: {each}" for each in nearest(name, sorted(plugged.METRICS))[:1])
            raise ValueError(
                f"plugin_metrics: {name}: no plugin of this job has this metric; their METRICS: {known}{near} "
                "(a plugin is named in `plugins`)"
            )
        if names.count(name) > 1:
            raise ValueError(f"plugin_metrics: {name} stands there twice: remove one")
    if not choose_by:
        return
    if by_knn:
        raise ValueError(f"choose_by {choose_by} and knn.choose both say what trials are chosen by: leave one out")
    chosen = next((metric for metric in metrics if metric.name == choose_by), None)
    if chosen is None:
        listed = ", ".join(metric.name for metric in metrics)
        raise ValueError(f"choose_by: {choose_by}: no such figure of this task; figures: {listed}")
    if chosen.better == "neither":
        raise ValueError(f"choose_by: {choose_by}: no value of it is better than another: set better in its Metric")
