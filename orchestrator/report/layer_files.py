"""The files of figures over layers: SVG, PNG, and the data behind them as CSV."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from orchestrator.report import layer_words, plotting
from orchestrator.report.formatting import printable_lines
from orchestrator.report.job_results import JobResults
from orchestrator.report.layer_figures import layer_figures

if TYPE_CHECKING:
    from orchestrator.report.layer_panels import LayerFigure
    from orchestrator.store.store import Store


def files(figures: Iterable[LayerFigure]) -> Iterator[tuple[str, bytes]]:
    """(name, content) of every file of these figures."""
    for figure in figures:
        yield f"{figure.name}.svg", plotting.svg(figure)
        yield f"{figure.name}.png", plotting.png(figure)
        yield f"{figure.name}.csv", printable_lines(layer_words.values_csv(figure)).encode()


def files_of_stage(store: Store, job_id: str, stage: str) -> Mapping[str, bytes]:
    """The files of the figures that the job's report draws from the trials of a stage, by name."""
    return dict(
        files(figure for figure in layer_figures(JobResults(store, job_id, full=False)) if figure.stage == stage)
    )
