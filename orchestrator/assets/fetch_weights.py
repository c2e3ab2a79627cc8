"""Downloads a weights file, by its address and digest."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.assets.convert_weights import digest
from orchestrator.assets.http import http_download
from orchestrator.errors import BadInput
from tasks.backbones.spec import fetched


def download(uri: str, sha256: str, data_root: Path) -> Path:
    """Downloads the file to where specs that name its address find it; returns that path.

    Does nothing if the file is there with this SHA-256. Raises BadInput for an invalid address or digest, and for
    another content; BackendUnreachable if the address does not answer or the disk refuses the file.
    """
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise BadInput(f"--sha256 {sha256}: 64 digits 0-9a-f")
    if urlsplit(uri).scheme not in ("https", "http", "file"):
        raise BadInput(f"{uri}: https://, http:// or file://")
    path = fetched(uri, sha256, data_root)

    def check(part: Path) -> None:
        if (actual := digest(part)) != sha256:
            size = part.stat().st_size
            raise BadInput(f"{uri} gave {size:,} bytes with SHA-256 {actual}, not {sha256}: nothing was kept")

    if not (path.is_file() and digest(path) == sha256):
        http_download(uri, path, check, f"get it by other means and put it at {path}")
    return path
