"""Search algorithms, early stopping and population-based training."""

from orchestrator.search.searches import Searches

__all__ = ["Searches"]
