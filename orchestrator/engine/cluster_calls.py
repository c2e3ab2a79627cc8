"""Asks a Ray cluster questions that end, even if the cluster does not answer any more."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from orchestrator.engine.watch import ClusterWatch
from orchestrator.errors import ClusterLost

ANSWER_S = 30.0
"""A cluster that does not answer a question for so long counts as lost."""
LOOK_S = 2.0
"""Seconds between two looks at the cluster's nodes."""
T = TypeVar("T")


class ClusterCalls:
    """The calls of one driver to its cluster's GCS, for whose answer Ray itself would wait without end."""

    def __init__(self, gone: Callable[[], str | None]) -> None:
        """`gone`: why the cluster is known to be gone, without asking Ray; None if that is not known."""
        self._gone = gone
        self._watch = ClusterWatch()
        self._looked = float("-inf")

    def ask(self, question: Callable[[], T]) -> T:
        """The answer to a question. Raises ClusterLost if the cluster is gone, or is silent for ANSWER_S seconds."""
        answers: list[T] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                answers.append(question())
            except BaseException as error:  # it belongs to the thread that asks
                errors.append(error)

        asking = threading.Thread(target=work, daemon=True)
        asking.start()
        deadline = time.monotonic() + ANSWER_S
        while True:
            asking.join(0.5)
            if answers:
                return answers[0]
            if errors:
                raise errors[0]
            if reason := self._gone():
                raise ClusterLost(f"the Ray cluster is gone: {reason}")
            if time.monotonic() > deadline:
                raise ClusterLost(f"the Ray cluster has not answered for {ANSWER_S:.0f} s")

    def look(self, nodes: Callable[[], int], after_death: bool = False) -> None:
        """Counts the living nodes with `nodes`, every LOOK_S seconds. Raises ClusterLost if there is none any more.

        `after_death`: an actor's process has died, so a cluster without a node is lost now: it took its actors along,
        and that is no death of a trial, which has a limited number of them.
        """
        now = time.monotonic()
        if now - self._looked < LOOK_S and not after_death:
            return
        self._looked = now
        reason = self._gone()
        if reason is None:
            count = nodes()
            reason = self._watch.verdict(count, now) or ("its last node died" if after_death and not count else None)
        if reason:
            raise ClusterLost(f"the Ray cluster is gone: {reason}")
