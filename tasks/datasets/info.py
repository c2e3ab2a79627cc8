"""What every data set states about itself, whatever its labels are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Download:
    """A file that `data fetch` gets, and where it goes."""

    url: str
    md5: str | None
    """As torchvision 0.29 states it; None where nobody publishes one."""
    folder: str
    """Below the data root; an archive is unpacked there."""
    unpack: bool = True
