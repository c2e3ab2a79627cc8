"""A page in Chromium, for tests that look at what a script draws; they skip where there is no browser."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def chromium() -> Iterator[Any]:
    """Playwright's browser, started without a window: the system's Chromium, else the one that Playwright installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
    with playwright.sync_playwright() as started:
        found = next((path for name in NAMES if (path := shutil.which(name))), started.chromium.executable_path)
        if not Path(found).exists():
            pytest.skip("no Chromium: install the system's, or run `playwright install chromium`")
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(browser: Any, file: Path, **options: Any) -> Iterator[Any]:
    """The page of a file; at the end, that it asked no network for anything and logged no error."""
    context = browser.new_context(offline=True, **options)
    page = context.new_page()
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: problems.append(request.url) if request.url.startswith("http") else None)
    page.goto(file.as_uri())
    yield page
    context.close()
    assert problems == []
