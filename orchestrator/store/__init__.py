"""The store: results in SQL."""

from orchestrator.store.store import Store, open_existing, open_store, open_to_look

__all__ = ["Store", "open_existing", "open_store", "open_to_look"]
