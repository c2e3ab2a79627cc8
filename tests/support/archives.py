"""Archives made byte by byte, as nobody's tools make them."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterable

Entry = tuple[str, bytes | None, dict[str, object]]
"""(name, content, other fields of its header)"""


def tar(entries: Iterable[Entry], zipped: bool = True, form: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar file. Content None: a folder, unless `type` says otherwise."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=form) as archive:
        for name, data, fields in entries:
            member = tarfile.TarInfo(name)
            member.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            member.size = len(data or b"")
            for field, value in fields.items():
                setattr(member, field, value)
            archive.addfile(member, io.BytesIO(data or b""))
    return gzip.compress(content.getvalue()) if zipped else content.getvalue()


def zipped(entries: Iterable[Entry]) -> bytes:
    """A zip file."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data, fields in entries:
            member = zipfile.ZipInfo(name)
            member.compress_type = zipfile.ZIP_DEFLATED
            for field, value in fields.items():
                setattr(member, field, value)
            archive.writestr(member, data or b"")
    return content.getvalue()
