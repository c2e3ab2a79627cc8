"""Reads the address of a store: which database it names, and how it is shown without passwords."""

from __future__ import annotations

import re
from pathlib import Path

import sqlalchemy as sa

from orchestrator.errors import BackendUnreachable
from orchestrator.settings import shown, with_home

FORMS = "write sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/NAME"


def parse(address: str) -> sa.URL:
    """The parts of DATABASE_URL or --database-url; a SQLite file as an absolute path.

    Raises BackendUnreachable for an address that cannot be one of a store. Nothing between :// and the last @ is
    printed, because a password may be in it.
    """
    # First, because what stands before the first @ alone would be taken for the password, and the rest printed.
    if not address.startswith("sqlite") and re.search(r"://.*@.*@", address, re.DOTALL):
        raise BackendUnreachable(
            "DATABASE_URL has more than one @: write an @ within user, password or options as %40 "
            "(and / as %2F, : as %3A, ? as %3F, # as %23)"
        )
    try:
        parsed = sa.make_url(with_home(address))
    except (sa.exc.ArgumentError, ValueError) as error:
        # make_url takes what stands after the last colon of the host for the port.
        why = "its port is not a number" if isinstance(error, ValueError) else "it is not a database address"
        raise BackendUnreachable(f"DATABASE_URL cannot be used: {why}; {FORMS}, and an IPv6 HOST as [::1]") from None
    if parsed.get_backend_name() in ("postgres", "postgresql"):
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite") or parsed.database in (None, "", ":memory:"):
        raise BackendUnreachable(f"cannot keep a store at {shown(address)!r}: {FORMS}")
    return _sqlite(parsed)


def _sqlite(parsed: sa.URL) -> sa.URL:
    if parsed.query or parsed.host:
        raise BackendUnreachable(
            f"DATABASE_URL names a SQLite file with a host or options, which are not used: write sqlite:///FILE; a ? "
            f"in the file's name is written %3F ({shown(str(parsed))!r})"
        )
    name = str(parsed.database)
    if "\0" in name or "\ufffd" in name:
        raise BackendUnreachable(f"DATABASE_URL: the file {name!r} has a name that is not UTF-8 text: {FORMS}")
    return parsed.set(database=str(Path(name).absolute()))


def display(url: sa.URL) -> str:
    """The address without user, password and options: for messages."""
    if url.get_backend_name() == "sqlite":
        return f"store sqlite:///{url.database}"
    host = url.host or url.query.get("host") or "localhost"
    host = ",".join(host) if isinstance(host, tuple) else host
    return f"store postgresql://{host}{f':{url.port}' if url.port else ''}/{url.database or ''}"


def sqlite_file(address: str) -> Path | None:
    """The file that a SQLite address names, as SQLAlchemy reads it; None for every other address."""
    if not address.startswith("sqlite"):
        return None
    parsed = sa.make_url(with_home(address))
    return Path(parsed.database).absolute() if parsed.database not in (None, "", ":memory:") else None
