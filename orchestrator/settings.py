"""Addresses and folders, from flags and the environment: store, tracking server, data, cluster."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from orchestrator.errors import BadInput, NotFound


@dataclass(frozen=True)
class Settings:
    """Addresses and folders of one installation. Precedence: flag, environment, default."""

    folder: Path
    """Everything is written here unless an address names another place (default: runs/)."""
    database_url: str
    tracking_uri: str
    data_root: Path
    storage: Path
    """Folder of checkpoints and weights; every node must have it under this path."""
    address: str | None
    """Address of a Ray cluster; None: the local one of `folder`, which is started if needed."""


def settings(
    folder: str | Path | None = None,
    database_url: str | None = None,
    tracking_uri: str | None = None,
    data_root: str | Path | None = None,
    storage: str | Path | None = None,
    address: str | None = None,
) -> Settings:
    """Takes what is not given from ORCHESTRATOR_RUNS, DATABASE_URL, MLFLOW_TRACKING_URI, DATA_ROOT,
    ORCHESTRATOR_STORAGE and RAY_ADDRESS, then from defaults under `folder`. Writes nothing.

    A folder's leading ~ becomes the home folder, as in sqlite:///~/store.db, because no shell does so for a .env file
    or `--runs=~/runs`. $NAME is taken as it stands: a folder's name may have a dollar sign. Raises BadInput for a
    folder that cannot be used, and NotFound if the working directory no longer exists.
    """
    env = os.environ
    home = absolute(folder or env.get("ORCHESTRATOR_RUNS") or "runs")
    return Settings(
        folder=home,
        database_url=with_home(database_url or env.get("DATABASE_URL") or "") or sqlite_url(home / "store.db"),
        tracking_uri=with_home(tracking_uri or env.get("MLFLOW_TRACKING_URI") or "") or sqlite_url(home / "mlflow.db"),
        data_root=absolute(data_root or env.get("DATA_ROOT") or "data"),
        storage=absolute(storage or env.get("ORCHESTRATOR_STORAGE") or home / "storage"),
        address=address or env.get("RAY_ADDRESS") or None,
    )


def absolute(folder: str | Path) -> Path:
    """The folder's absolute path, its leading ~ or ~USER replaced by the home folder.

    Raises BadInput for an unknown user, or a name with NUL or bytes that are not UTF-8: SQL keeps paths as text.
    """
    text = str(folder)
    try:
        text.encode()
        if "\0" in text:
            raise ValueError
    except ValueError:
        raise BadInput(f"the folder {text!r} has a name that is not UTF-8 text: choose another folder") from None
    try:
        return Path(_expanded(text)).absolute()
    except FileNotFoundError:
        raise NotFound("the working directory no longer exists: change to another one") from None


def _expanded(text: str) -> str:
    path = os.path.expanduser(text)
    if path.startswith("~"):
        raise BadInput(f"{text!r}: the home folder that ~ stands for is unknown; write the whole path")
    return path


def with_home(address: str) -> str:
    """The address with ~ replaced where it is the path of a SQLite file, or the address itself is a path."""
    match = re.match(r"(sqlite(?:\+\w+)?:///)?(~[^/]*)", address)
    if match is None:
        return address
    home = _expanded(match[2])
    return (match[1] or "") + (quote(home, safe=_PLAIN) if match[1] else home) + address[match.end() :]


_PLAIN = " +/"
"""Kept in the path of an address, as SQLAlchemy's URL keeps them, beside letters, digits and _.-~"""


def sqlite_url(file: Path) -> str:
    """The address of a SQLite file: what sqlalchemy.URL.create makes of its path, whatever characters that has.

    SQLAlchemy is not imported here because commands that open no store start faster without it; a test compares both.
    """
    return f"sqlite:///{quote(str(file), safe=_PLAIN)}"


def private_folder(folder: Path) -> Path:
    """Makes the folder if it is missing, so that no other user can enter it. One that exists is left as it is, because
    its owner may share it on purpose. Raises OSError."""
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def private_file(file: Path) -> Path:
    """Makes the file, empty, if it is missing, so that no other user can read or write it. Raises OSError."""
    if not file.exists():
        os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
    return file


def masked(text: str, address: str = "") -> str:
    """The text without passwords and tokens: those in any address in it, and those of `address` and the environment."""
    text = re.sub(r"(?<=://)(?!/)\S*@", "***@", text)
    text = re.sub(rf"(?i)\b({_SECRET_WORDS})=[^&\s'\"]+", r"\1=***", text)
    secrets = [os.environ.get(name, "") for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")]
    # The password ends at the last @, even if an @ or / in it was not written as %40 or %2F.
    written = re.match(r"[^:/]+://[^:@/]*:(.*)@", address, re.DOTALL)
    if written:
        secrets += [written[1], unquote(written[1]), *re.split(r"[@/?#:\s]", written[1])]
    for option in re.finditer(rf"(?i)\b(?:{_SECRET_WORDS})=([^&]+)", address):
        secrets += [option[1], unquote(option[1])]
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) > 2:
            text = text.replace(secret, "***")
    return text


_SECRET_WORDS = "password|passwd|sslpassword|token|secret|api_key"


def shown(address: str) -> str:
    """The address as it may be printed: *** stands for user and password, and for secrets among its options."""
    return masked(re.sub(r"(?s)(?<=://)(?!/).*@", "***@", address))


def without_secrets(address: str) -> str:
    """The address without user and password, for links in a report."""
    return re.sub(r"(?s)(?<=://)(?!/).*@", "", address)
