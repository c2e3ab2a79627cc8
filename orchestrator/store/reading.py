"""The only place that opens the store for commands that look: it brings in no spec, no task and no engine."""

from __future__ import annotations

from orchestrator.errors import NotFound
from orchestrator.settings import Settings
from orchestrator.store.store import Store, open_store


def read_only_store(where: Settings) -> Store:
    """The store, which must be there already. Raises NotFound or BackendUnreachable."""
    try:
        return open_store(where.database_url, create=False)
    except NotFound as error:
        raise NotFound(f"{error}\nNothing was submitted here yet; --runs and DATABASE_URL name places.") from error
