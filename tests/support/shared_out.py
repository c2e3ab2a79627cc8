"""How `pytest -n` shares the tests out: by file, and those that run commands on a cluster to one process."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

TOGETHER = "tests/end_to_end/"
"""These share a cluster and kill processes: one after the other, in the order in which `pytest` alone runs them."""


class ByFile(LoadScopeScheduling):
    """Gives a process the next file when it is nearly done with the one before, in the order of the collection."""

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        config.option.loadscopereorder = False  # the file with the most tests is not the one that takes longest
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return TOGETHER if nodeid.startswith(TOGETHER) else nodeid.partition("::")[0]
