"""Pure rules over results: which trial wins, which weights are kept."""

from orchestrator.rules.retention import reasons
from orchestrator.rules.selection import best, edges

__all__ = ["best", "edges", "reasons"]
