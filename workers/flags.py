"""Flags that the ranks of a trial set for each other without waiting in a collective."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store

from workers.errors import ErrorClass, TrialError

LONGEST_SLEEP_S = 0.2
FAILED = "failed"


class Flags:
    """Flags in the key-value store that the process group was made with; once set they stay.

    A rank that waits for others in a collective is ended by the process group's time limit (30 minutes by default).
    One that looks for their flags may wait as long as they take, and do something else in between.
    """

    def __init__(self, world: int, name: str) -> None:
        """`name`: the same on every rank, and never used before in this process group."""
        store = _get_default_store() if world > 1 else dist.HashStore()  # type: ignore[attr-defined]
        self._store = dist.PrefixStore(name, store)  # type: ignore[attr-defined]

    def set(self, flag: str) -> None:
        self._store.set(flag, "1")

    def is_set(self, flag: str) -> bool:
        return bool(self._store.check([flag]))

    def wait(self, flags: list[str], meanwhile: Callable[[], object] = lambda: None) -> None:
        """Returns when all are set; calls `meanwhile` now and then. Raises TrialError (node_lost) when a rank has set
        FAILED."""
        pause = 0.001
        while not self._store.check(flags):
            if self.is_set(FAILED):
                raise TrialError(ErrorClass.node_lost, "another worker of the trial failed during the evaluation")
            meanwhile()
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_SLEEP_S)
