"""The only place that says what early stopping saved, and what it could have cost: how well the order of trials on the
way agrees with that at the end."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.report.model import EpochsSaved, RankAgreement
from orchestrator.report.statistics import kendall

if TYPE_CHECKING:
    from orchestrator.records.rows import PlacedRow, ReportRow, SearchEvent

FEWEST = 4
"""Trials that ran in full from which an order is spoken of."""

Members = Mapping[tuple[str, str], Sequence["PlacedRow"]]
"""(stage, group) -> its trials."""

Events = Mapping[tuple[str, str], Sequence["SearchEvent"]]


def saved(members: Members, events: Events) -> tuple[EpochsSaved, ...]:
    """Of each group of a search: epochs that its trials were asked for, and those that were run. What a stopped trial
    ran further in another stage or job does not count."""
    found = []
    for place, told in events.items():
        if any("member" in event.body for event in told):
            continue  # a population stops nobody
        stopped = {event.key: int(event.body["epoch"]) for event in told if event.kind == "stopped"}
        trials = members.get(place, ())
        found.append(
            EpochsSaved(
                stage=place[0],
                group=place[1],
                trials=len(trials),
                stopped=len(stopped),
                epochs_asked=sum(trial.epochs for trial in trials),
                epochs_run=sum(_run(trial, stopped.get(trial.key)) for trial in trials),
            )
        )
    return tuple(found)


def _run(trial: PlacedRow, stopped_at: int | None) -> int:
    """Epochs of a trial; one that was told to stop may have run a little longer before it heard of that."""
    if trial.state == "stopped" or stopped_at is None:
        return trial.epochs if trial.state == "done" else trial.epoch
    return stopped_at


def agreement(
    members: Members, events: Events, reports: Mapping[str, Sequence[ReportRow]], rule: Mapping[str, int] | None = None
) -> tuple[RankAgreement, ...]:
    """Of each group whose trials all ran in full, at each epoch before the last at which all were evaluated: Kendall's
    tau-b of the metric there and at the end, whether the best there is best at the end, and whether the best at the end
    was among the best 1/factor there. `rule`: successive halving's grace_epochs and reduction_factor; then only its
    rungs are looked at (none: every epoch, and a factor of 3). Diverged trials are left out."""
    found = []
    factor = rule["reduction_factor"] if rule else 3
    for place, trials in members.items():
        stopped = any(event.kind == "stopped" for event in events.get(place, ()))
        done = [trial for trial in trials if trial.state == "done" and trial.value is not None]
        if stopped or len(done) < FEWEST or not all(trial.state in ("done", "diverged") for trial in trials):
            continue
        if len({trial.epochs for trial in done}) > 1:
            continue  # parts of a population's members
        sign = 1.0 if done[0].mode == "max" else -1.0
        end = [sign * _number(trial.value) for trial in done]
        curves = [_curve(reports.get(trial.key, ()), trial.metric, sign) for trial in done]
        last = max(trial.epochs for trial in done)
        common = set.intersection(*(set(curve) for curve in curves))
        if rule:
            common &= {rule["grace_epochs"] * factor**k for k in range(last)}
        for epoch in sorted(epoch for epoch in common if epoch < last):
            here = [curve[epoch] for curve in curves]
            best = max(range(len(end)), key=lambda n: (end[n], -n))
            ahead = sum(value > here[best] for value in here)
            found.append(
                RankAgreement(
                    stage=place[0],
                    group=place[1],
                    epoch=epoch,
                    epochs=last,
                    trials=len(done),
                    tau=kendall(here, end),
                    best_is_best=ahead == 0,
                    best_is_kept=ahead < max(1, len(done) // factor),
                    factor=factor,
                )
            )
    return tuple(found)


def _curve(reports: Iterable[ReportRow], metric: str, sign: float) -> dict[int, float]:
    """Epoch -> the metric, larger is better, where it was evaluated."""
    return {report.epoch: sign * _number(report.values[metric]) for report in reports if metric in report.values}


def _number(value: float | None) -> float:
    return -math.inf if value is None or math.isnan(value) else value


def lines(said: Sequence[EpochsSaved], agreed: Sequence[RankAgreement]) -> list[str]:
    """For people: a line on each search, and one on each epoch over all groups that ran in full."""
    found = []
    for stage in dict.fromkeys(one.stage for one in said if one.stopped):
        mine = [one for one in said if one.stage == stage]
        asked, run = sum(one.epochs_asked for one in mine), sum(one.epochs_run for one in mine)
        trials, stopped = sum(one.trials for one in mine), sum(one.stopped for one in mine)
        part = f"{run} of {asked} epochs ({100 * run / asked:.0f} %)"
        found.append(f"{stage}: {stopped} of {trials} trials stopped early; {part} were run")
    by_epoch: dict[tuple[int, int], list[RankAgreement]] = {}
    for one in agreed:
        by_epoch.setdefault((one.epoch, one.epochs), []).append(one)
    for (epoch, epochs), some in sorted(by_epoch.items()):
        taus = [one.tau for one in some if one.tau is not None]
        mean = f"tau {sum(taus) / len(taus):.2f}" if taus else "no order"
        same, kept = sum(one.best_is_best for one in some), sum(one.best_is_kept for one in some)
        groups = f"{len(some)} group{'s' if len(some) > 1 else ''} that ran in full"
        found.append(
            f"order after epoch {epoch} against that after {epochs}, {groups}: {mean}; best there is best at the end "
            f"in {same}, best at the end among the first 1/{some[0].factor} there in {kept}"
        )
    if any(one.stopped for one in said) and not agreed:
        found.append(
            "what stopping may have cost is not known: no group of this job ran in full (stopping: none runs one)"
        )
    return found
