"""Results in SQL."""

from orchestrator.store.store import Store, open_store

__all__ = ["Store", "open_store"]
