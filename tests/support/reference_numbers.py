"""Opens the files of tests/data that hold the numbers of public reference code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DATA = Path(__file__).parents[1] / "data"


def reference_numbers(name: str) -> dict[str, NDArray[Any]]:
    """Every array of a file below tests/data, by its name there."""
    with np.load(DATA / name, allow_pickle=False) as file:
        return dict(file)
