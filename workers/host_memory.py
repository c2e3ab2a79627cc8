"""Keeps host memory that tensors gave back for the tensors that come next, instead of returning it to the kernel."""

from __future__ import annotations

import ctypes
from functools import lru_cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt, from glibc's malloc.h
_KEPT = 2**30
"""Bytes free at the end of the heap up to which none go back."""
_LARGEST = 32 * 2**20
"""Bytes from which a block is a mapping of its own: the most that glibc takes before version 2.35."""


def keep_freed() -> bool:
    """From now on memory that is freed in this process stays in it. False where the C library has no such setting
    (glibc has; musl and macOS have not), and nothing changes.

    A training step frees its activations and asks for as much again. By itself glibc returns large blocks at once, and
    the kernel hands out each page anew, filled with zeros: on a CPU that was a sixth of the time of a step of
    specs/depth.yaml's laptop profile (benchmarks/dense.py). PyTorch's tuning guide advises another allocator for this,
    which would have to be installed. No number changes.
    """
    library = _glibc()
    if library is None:
        return False
    # either of the two ends glibc's own search for thresholds, so both are set
    return bool(library.mallopt(_MMAP_THRESHOLD, _LARGEST) and library.mallopt(_TRIM_THRESHOLD, _KEPT))


def give_back() -> None:
    """Returns what is free now: an idle process should not hold the memory of the trial that it ran."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


@lru_cache(maxsize=1)
def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
