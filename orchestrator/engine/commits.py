"""Records what attempts did, and finds those that other drivers have taken over."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from orchestrator.errors import LeaseLost
from orchestrator.records.writes import Attempt, Reported, Write
from orchestrator.store.store import Store
from workers.fault_injection import fault_point

log = logging.getLogger(__name__)


def commit(store: Store, driver_id: str, writes: Sequence[Write], name: Callable[[str], str]) -> set[Attempt]:
    """Commits in one transaction. Leaves out, and returns, the attempts that this driver does not hold any more.

    Each attempt counts by itself: a driver may still hear an old one of a trial whose later one it has taken over.
    `name`: display name of a trial by its key.
    """
    if not writes:
        return set()
    ends = any(not isinstance(write, Reported) for write in writes)
    if ends:
        fault_point("before_result_commit")
    lost: set[Attempt] = set()
    try:
        store.trials.commit(driver_id, writes)
    except LeaseLost:
        for attempt in dict.fromkeys(write.attempt for write in writes):
            try:
                store.trials.commit(driver_id, [write for write in writes if write.attempt == attempt])
            except LeaseLost:
                log.info("%s: taken over by another driver, which records its results", name(attempt.key))
                lost.add(attempt)
    fault_point("after_result_commit" if ends else "after_report")
    return lost
