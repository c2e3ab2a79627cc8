"""How many examples the tests with made-up inputs try: few in `make test`, as many as asked in a longer run."""

from __future__ import annotations

import os


def examples(default: int) -> int:
    """FUZZ_EXAMPLES if it is set, else `default`."""
    return int(os.environ.get("FUZZ_EXAMPLES", default))
