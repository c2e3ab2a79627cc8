"""The only place for fixtures that the tests of tasks share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def without_image_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left in the node's folder; tests of the cache set one of their own."""
    monkeypatch.setenv("ORCHESTRATOR_CACHE", "off")
