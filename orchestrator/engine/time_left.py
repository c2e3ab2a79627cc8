"""Estimates when a driver's job ends, from how long its trials take beside what was estimated for them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.plan.planner import Planner
from orchestrator.plan.trials import PlannedTrial
from orchestrator.records.writes import Finished, Reported, Write

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
    done: int
    """Rounds done by the last report."""
    reported: float
    """When that came."""

    @property
    def took(self) -> tuple[float, float]:
        """Seconds of the rounds that this driver has seen, and what was estimated for them."""
        return self.reported - self.began, self.estimated * (self.done - self.first) / self.rounds


class TimeLeft:
    """Wall time of trials against estimates, by stage; and from that the end of the job.

    Time on a slot counts whole: the start of a trial, its evaluations, its checkpoints. This is the one estimate of the
    time left: the live table shows it, the driver records it with every heartbeat, and `status` reads it.
    """

    def __init__(self, planner: Planner, clock: Callable[[], float] = time.monotonic) -> None:
        self._planner, self._clock = planner, clock
        self._running: dict[str, _Run] = {}
        self._ended: dict[str, tuple[float, float]] = {}
        """Stage -> (seconds that trials took, what was estimated for them)."""
        self._estimate: tuple[float, float | None] = (-math.inf, None)
        """When the time left was last worked out, and what it was."""

    def begin(self, planned: PlannedTrial, rounds_done: int) -> None:
        """An attempt begins, or is first seen, after so many rounds of the trial's schedule."""
        first = planned.spec.first_round
        rounds = max(1, planned.spec.last_round - first)
        done, now = max(0, rounds_done - first), self._clock()
        self._running[planned.key] = _Run(planned.stage, planned.seconds, rounds, done, now, done, now)

    def heard(self, writes: Sequence[Write], planned: Mapping[str, PlannedTrial]) -> None:
        """Trials have reported or ended. `planned`: the job's trials, by key; those of other jobs do not count."""
        for write in writes:
            if isinstance(write, Reported):
                if write.key in planned:
                    self._report(planned[write.key], write.epoch)
            elif (run := self._running.pop(write.key, None)) is not None:
                if isinstance(write, Finished):
                    run.done, run.reported = run.rounds, self._clock()
                self._ended[run.stage] = _sum([self._ended.get(run.stage, (0.0, 0.0)), run.took])

    def _report(self, planned: PlannedTrial, round_: int) -> None:
        run = self._running.get(planned.key)
        if run is None:  # taken over from another driver: its earlier rounds were not seen
            self.begin(planned, round_)
        elif (done := round_ - planned.spec.first_round) > run.done:
            run.done, run.reported = done, self._clock()

    def pace(self, stage: str) -> float | None:
        """Seconds that trials of a stage take for each estimated one: as those of this stage so far, else as those of
        all; None while nothing is known."""
        every = [*self._ended.items(), *((run.stage, run.took) for run in self._running.values())]
        own = _sum([took for name, took in every if name == stage])
        took, estimated = own if own[1] > 0 else _sum([took for _, took in every])
        return took / estimated if estimated > 0 else None

    def seconds(self, slots: int) -> float | None:
        """Seconds until the job ends, while it has so many slots; None while no trial has shown how fast it is. Worked
        out every ESTIMATE_S seconds; in between it counts down."""
        at, left = self._estimate
        now = self._clock()
        if now - at >= ESTIMATE_S or left is None:
            paces = {stage.name: self.pace(stage.name) for stage in self._planner.job.stages}
            known = {stage: pace for stage, pace in paces.items() if pace is not None}
            left = self._planner.seconds_left(slots, known.__getitem__, self._begun(known)) if known else None
            at, self._estimate = now, (now, left)
        return None if left is None else max(0.0, left - (now - at))

    def _begun(self, paces: Mapping[str, float]) -> dict[str, float]:
        """Key of each running trial -> seconds that it still takes."""
        now = self._clock()
        return {
            key: max(0.0, run.estimated * paces[run.stage] * (run.rounds - run.done) / run.rounds - now + run.reported)
            for key, run in self._running.items()
        }


def _sum(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
