"""Estimates when a driver's job ends, from how long its trials take beside what was estimated for them."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.plan.planner import Planner
from orchestrator.plan.trials import PlannedTrial
from orchestrator.records.writes import Attempt, Finished, Reported, Write

ESTIMATE_S = 3.0
"""Seconds between two estimates of the time left: one of 12,000 trials takes 0.06 s."""


@dataclass
class _Run:
    """One attempt at a trial, as far as this driver has seen it."""

    stage: str
    estimated: float
    """Seconds that the whole trial was estimated to take."""
    rounds: int
    """Of the whole trial."""
    first: int
    """Rounds that were done when this driver first saw the attempt."""
    began: float
    whole: bool
    """True if this driver saw it begin."""
    done: int
    """Rounds done by the last report."""
    reported: float
    """When that came."""
    took_s: float = 0.0
    """Wall time of the rounds that this driver has seen, as they reported it."""

    @property
    def took(self) -> tuple[float, float]:
        """Seconds of the rounds that this driver has seen, and what was estimated for them."""
        return self.took_s, self.estimated * (self.done - self.first) / self.rounds


class TimeLeft:
    """Wall time of trials against estimates, by stage; and from that the end of the job.

    A trial takes its rounds, at the pace of those that reported so far, evaluations and checkpoints included; and its
    start (model, data), as it took others. The first trials on each slot, which start their process too, do not count
    for that. This is the one estimate of the time left: the live table shows it, the driver records it with every
    heartbeat, and `status` and the page read it.
    """

    def __init__(self, planner: Planner, clock: Callable[[], float] = time.monotonic) -> None:
        self._planner, self._clock = planner, clock
        self._running: dict[str, _Run] = {}
        self._reached: dict[str, int] = {}
        """Key of a trial -> the last round of its schedule that it has reported, to whichever driver."""
        self._ended: dict[str, tuple[float, float]] = {}
        """Stage -> (seconds that trials took, what was estimated for them)."""
        self._starts: list[float] = []
        """Seconds of each attempt that ended with a result, besides its rounds, in the order in which they ended."""
        self._estimate: tuple[float, float | None] = (-math.inf, None)
        """When the time left was last worked out, and what it was."""

    def reached(self, key: str, epoch: int) -> None:
        """The trial's reports go up to this round of its schedule: an attempt that begins goes on from there."""
        self._reached[key] = max(epoch, self._reached.get(key, 0))

    def begin(self, planned: PlannedTrial, whole: bool = True) -> None:
        """An attempt begins, or (not `whole`) is first seen, after the last round that the trial has reported."""
        first = planned.spec.first_round
        rounds = max(1, planned.spec.last_round - first)
        done, now = max(0, self._reached.get(planned.key, 0) - first), self._clock()
        self._running[planned.key] = _Run(planned.stage, planned.seconds, rounds, done, now, whole, done, now)

    def heard(
        self, writes: Sequence[Write], planned: Mapping[str, PlannedTrial], lost: Container[Attempt] = ()
    ) -> None:
        """Trials have reported or ended. `planned`: the job's trials, by key; those of other jobs do not count, and
        neither do `lost` attempts."""
        for write in writes:
            if write.attempt in lost:
                self._running.pop(write.key, None)
            elif isinstance(write, Reported):
                if write.key in planned:
                    self._report(planned[write.key], write)
            elif (run := self._running.pop(write.key, None)) is not None:
                self._ended[run.stage] = _sum([self._ended.get(run.stage, (0.0, 0.0)), run.took])
                if isinstance(write, Finished) and run.whole:
                    self._starts.append(max(0.0, self._clock() - run.began - run.took_s))

    def _report(self, planned: PlannedTrial, report: Reported) -> None:
        run = self._running.get(planned.key)
        self.reached(planned.key, report.epoch)
        if run is None:  # taken over from another driver: its earlier rounds were not seen
            self.begin(planned, whole=False)
        elif (done := report.epoch - planned.spec.first_round) > run.done:
            run.done, run.reported = done, self._clock()
            run.took_s += report.seconds

    def pace(self, stage: str) -> float | None:
        """Seconds that trials of a stage take for each estimated one: as those of this stage so far, else as those of
        all; None while nothing is known."""
        every = [*self._ended.items(), *((run.stage, run.took) for run in self._running.values())]
        own = _sum([took for name, took in every if name == stage])
        took, estimated = own if own[1] > 0 else _sum([took for _, took in every])
        return took / estimated if estimated > 0 else None

    def start_seconds(self, slots: int) -> float:
        """What a trial takes besides its rounds; 0 until more trials have ended than there are slots."""
        warm = self._starts[slots:]
        return statistics.median(warm) if warm else 0.0

    def seconds(self, slots: int) -> float | None:
        """Seconds until the job ends, while it has so many slots; None while no trial has shown how fast it is. Worked
        out every ESTIMATE_S seconds; in between it counts down."""
        at, left = self._estimate
        now = self._clock()
        if now - at >= ESTIMATE_S or left is None:
            paces = {stage.name: self.pace(stage.name) for stage in self._planner.job.stages}
            known = {stage: pace for stage, pace in paces.items() if pace is not None}
            start_s = self.start_seconds(slots)
            begun = self._begun(known, start_s) if known else {}
            left = self._planner.seconds_left(slots, known.__getitem__, begun, start_s) if known else None
            at, self._estimate = now, (now, left)
        return None if left is None else max(0.0, left - (now - at))

    def _begun(self, paces: Mapping[str, float], start_s: float) -> dict[str, float]:
        """Key of each running trial -> seconds that it still takes."""
        now = self._clock()
        found = {}
        for key, run in self._running.items():
            rest = run.estimated * paces[run.stage] * (run.rounds - run.done) / run.rounds
            found[key] = max(0.0, rest + (start_s if run.done == run.first else 0.0) - (now - run.reported))
        return found


def _sum(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
