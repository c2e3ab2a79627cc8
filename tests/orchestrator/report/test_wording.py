"""The words of a report."""

from __future__ import annotations

import pytest

from orchestrator.records.rows import Edge
from orchestrator.report.wording import edge_text


@pytest.mark.parametrize(
    ("edge", "text"),
    [
        (Edge("optim.layer_decay", "high", False, 0.95, 0.95), "layer decay high (0.95)"),
        (Edge("optim.lr", "low", True, 7e-5, 1e-4), "lr beyond low (7e-05 below 0.0001)"),
        (Edge("optim.batch", "high", True, 80, 64), "batch beyond high (80 above 64)"),
        (Edge("optim.lr", "high", False, 9e-3, 1e-2), "lr high (0.009, its range ends at 0.01)"),
        (Edge("optim.lr", "low", False, 1.00000001e-4, 1e-4), "lr low (0.0001)"),
    ],
)
def test_edges_are_worded(edge: Edge, text: str) -> None:
    assert edge_text(edge) == text
