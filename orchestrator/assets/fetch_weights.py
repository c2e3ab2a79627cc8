"""The only place that downloads weights, when a user asks for it by address and digest."""

from __future__ import annotations

import hashlib
import os
import re
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.assets.convert_weights import digest
from orchestrator.errors import BackendUnreachable, BadInput
from tasks.backbones.spec import fetched

_CHUNK = 1 << 20
_SILENCE_S = 60


def download(uri: str, sha256: str, data_root: Path) -> Path:
    """The file below the data root; fetched unless it is there already. Its content has this SHA-256.

    Raises BadInput for an address or digest that is none, or another content; BackendUnreachable when nothing answers.
    """
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise BadInput(f"--sha256 {sha256}: 64 digits 0-9a-f")
    if urlsplit(uri).scheme not in ("https", "http", "file"):
        raise BadInput(f"{uri}: https://, http:// or file://")
    path = fetched(uri, sha256, data_root)
    if path.is_file() and digest(path) == sha256:
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        try:
            found, size = _copy(uri, temporary)
            if found != sha256:
                raise BadInput(f"{uri} gave {size} bytes with SHA-256 {found}, not {sha256}: nothing was kept")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise BackendUnreachable(f"{uri}: {reason}; fetch it elsewhere and put it at {path}") from error
    except OSError as error:
        raise BackendUnreachable(f"cannot write to {path.parent}: {error.strerror}") from error
    return path


def _copy(uri: str, target: Path) -> tuple[str, int]:
    """SHA-256 and size of what came."""
    hashed, size = hashlib.sha256(), 0
    with urllib.request.urlopen(uri, timeout=_SILENCE_S) as source, target.open("wb") as file:
        while chunk := source.read(_CHUNK):
            hashed.update(chunk)
            size += file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return hashed.hexdigest(), size
