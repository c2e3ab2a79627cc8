"""Judges whether a cluster, an actor or a trial is lost, by what has answered and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from workers.errors import LIMIT_GRACE_S

NO_NODE_S = 5.0
"""A cluster without a living node for so long is lost. Ray itself needs half a minute to notice a frozen node."""
HEAD_SILENT_S = 60.0
"""The local cluster is given up when its GCS has not answered its own head for so long."""
FROZEN_SAID_S = 60.0
"""After so long without an answer of an actor's process, the user is told."""
FROZEN_S = 180.0
"""An actor's process that answers no call for so long is ended; its trial resumes from its last checkpoint. A process
that trains answers within 10 s, because calls run in threads of their own."""
QUIET_S = 600.0
QUIET_ROUNDS = 20
"""A trial that has reported nothing for QUIET_S, and for as long as so many of its usual rounds, is mentioned."""
STOP_S = 120.0
"""Trials that were asked to stop have so long for their checkpoint; then their processes are ended."""


class HeadWatch:
    """Judges the local cluster from its own head process."""

    def __init__(self, now: float) -> None:
        self._answered = now
        self._with_node = now
        self._leaves_by: float | None = None

    def answered(self, nodes: int, now: float) -> None:
        """The GCS has answered, and knows of so many living nodes."""
        self._answered = now
        if nodes:
            self._with_node = now

    def leaving(self, by: float) -> None:
        """The cluster is being shut down, which must be over at time `by`."""
        self._leaves_by = by

    def verdict(self, ended: Sequence[str], now: float) -> str | None:
        """Why the cluster is to be given up, or None. `ended`: names of those of its processes that have ended."""
        if self._leaves_by is not None:
            return "its shutdown takes too long" if now > self._leaves_by else None
        if ended:
            return f"its process {ended[0]} has ended"
        if now - self._answered > HEAD_SILENT_S:
            return f"its GCS has not answered for {HEAD_SILENT_S:.0f} s"
        if self._answered - self._with_node > NO_NODE_S:
            return "its node is dead"
        return None


class ClusterWatch:
    """Judges a cluster from a driver that is connected to it."""

    def __init__(self) -> None:
        self._without_node: float | None = None

    def verdict(self, nodes: int, now: float) -> str | None:
        """Why the cluster is lost, or None, by the number of its living nodes now."""
        if nodes:
            self._without_node = None
            return None
        if self._without_node is None:
            self._without_node = now
        return "no node of it is left" if now - self._without_node >= NO_NODE_S else None


@dataclass(frozen=True)
class Silence:
    """What is to be done about an actor whose process does not answer."""

    say: bool
    """It is time to tell the user."""
    end: bool
    """It is time to end the process."""


class AnswerWatch:
    """Judges whether one actor's process still answers."""

    def __init__(self, now: float) -> None:
        self._since, self._said = now, False

    def answered(self, now: float) -> None:
        """The process has answered a call, or has been given a new one after it was idle."""
        self._since, self._said = now, False

    def verdict(self, now: float) -> Silence:
        """What to do now. `say` is true once for each silence."""
        silent = now - self._since
        say = silent >= FROZEN_SAID_S and not self._said
        self._said = self._said or say
        return Silence(say, silent >= FROZEN_S)


@dataclass
class _Attempt:
    begun: float
    limit_s: float | None
    round_s: float
    """The longest round so far; at first the planner's guess."""
    reported: float
    mentioned: bool = False


@dataclass(frozen=True)
class TrialVerdict:
    """What is to be done about a running attempt: `text` says why. `end`: end its process, as timed out."""

    key: str
    token: int
    text: str
    end: bool


@dataclass
class TrialWatch:
    """Judges running attempts by their time limits and by when they last reported."""

    _attempts: dict[tuple[str, int], _Attempt] = field(default_factory=dict)

    def heard(
        self, key: str, token: int, rounds: Sequence[float], now: float, limit_s: float | None, guess_s: float
    ) -> None:
        """The attempt has answered, with reports of rounds that took so many seconds. `guess_s`: a usual round."""
        attempt = self._attempts.setdefault((key, token), _Attempt(now, limit_s, guess_s, now))
        if rounds:
            attempt.reported, attempt.mentioned = now, False
            attempt.round_s = max(attempt.round_s, *rounds)

    def ended(self, key: str, token: int) -> None:
        """The attempt is over."""
        self._attempts.pop((key, token), None)

    def verdicts(self, now: float) -> list[TrialVerdict]:
        """The attempts about which something is to be done now."""
        found = []
        for (key, token), attempt in self._attempts.items():
            quiet = now - attempt.reported
            if attempt.limit_s is not None and now - attempt.begun > attempt.limit_s + LIMIT_GRACE_S:
                text = f"ran longer than {attempt.limit_s:g} s and did not end itself {LIMIT_GRACE_S:.0f} s later"
                found.append(TrialVerdict(key, token, text, True))
            elif quiet > max(QUIET_S, QUIET_ROUNDS * attempt.round_s) and not attempt.mentioned:
                attempt.mentioned = True
                usual = f"; its rounds take about {attempt.round_s:.0f} s" if attempt.round_s else ""
                text = f"has reported nothing for {quiet / 60:.0f} min{usual}: see its log, or cancel the job"
                found.append(TrialVerdict(key, token, text, False))
        return found
