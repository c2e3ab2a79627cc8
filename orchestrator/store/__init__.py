"""The store: results in SQL."""

from orchestrator.store.store import Store, open_existing, open_store

__all__ = ["Store", "open_existing", "open_store"]
