"""The page between reports and MLflow's UI: links of reports lead to it, and it leads on to where `ui` serves."""

from __future__ import annotations

import html
import json
import os
import shlex
from pathlib import Path

from orchestrator.settings import private_folder

NAME = "mlflow.html"
"""In the folder of everything that is written, two folders above a job's report."""


def to_ui(folder: Path, address: str) -> None:
    """Makes the page lead to a UI that is served at this address, token included: until `to_nobody`, whoever may read
    the file may use the UI, and that is its owner alone. What comes after # in the link is passed on."""
    target = json.dumps(address).replace("<", "\\u003c")
    _write(
        folder,
        f'<!doctype html><meta charset="utf-8"><title>MLflow</title><script>location.replace({target} + '
        f'location.hash)</script><p>MLflow is served at <a href="{html.escape(address)}">this address</a>.\n',
    )


def to_nobody(folder: Path) -> None:
    """Makes the page say how the UI is started."""
    command = f"python -m orchestrator ui --runs {shlex.quote(str(folder))}"
    text = (
        f"MLflow's UI is not running. To start it, and then load this page again: <code>{html.escape(command)}</code>"
    )
    _write(folder, f'<!doctype html><meta charset="utf-8"><title>MLflow</title><p>{text}\n')


def made(folder: Path) -> None:
    """Makes the page if there is none. Raises OSError."""
    if not (folder / NAME).exists():
        to_nobody(folder)


def _write(folder: Path, text: str) -> None:
    private_folder(folder)
    new = folder / f".{NAME}.new"
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(folder / NAME)
