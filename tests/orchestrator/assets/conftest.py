"""A web server for the tests of downloads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from file_server import serving


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with serving(monkeypatch) as address:
        yield address
