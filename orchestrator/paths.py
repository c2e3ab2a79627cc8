"""Makes paths from words of a spec or a store: always inside the folder they belong to."""

from __future__ import annotations

from pathlib import Path

from orchestrator.errors import BadInput
from orchestrator.printable import printable


def inside(folder: str | Path, *names: str) -> Path:
    """folder/name/name. Raises BadInput unless each is one name: no slash, no NUL, neither empty nor . nor .."""
    for name in names:
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise BadInput(
                f"'{printable(name, 60)}' is no name of a file or folder in {folder}: it would lie elsewhere"
            )
    return Path(folder).joinpath(*names)


def file_name(title: str) -> str:
    """The name of a figure's files, without their suffix: "Figure 2 (b)" -> figure-2-b."""
    words = "".join(sign if sign.isalnum() and sign.isascii() else " " for sign in title.lower()).split()
    return "-".join(words) or "figure"
