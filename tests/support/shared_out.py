"""How `pytest -n` shares the tests out: by file, and those that run commands on a cluster to one process."""

from __future__ import annotations

from typing import Any

import pytest
from cluster_tests import FOLDER, on_cluster
from xdist.scheduler import LoadScopeScheduling


class ByFile(LoadScopeScheduling):
    """Gives a process the next file when it is nearly done with the one before, in the order of the collection.

    Tests on the session's cluster kill processes, too: one after the other, in the order in which `pytest` alone runs
    them.
    """

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        config.option.loadscopereorder = False  # the file with the most tests is not the one that takes longest
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return FOLDER if on_cluster(nodeid) else nodeid.partition("::")[0]
