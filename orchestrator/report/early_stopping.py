"""What early stopping saved, and what it may have cost: how well early rankings of trials agree with the final one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestrator.report.statistics import kendall

if TYPE_CHECKING:
    from orchestrator.records.rows import PlacedRow, ReportRow, SearchEvent


@dataclass(frozen=True)
class EpochsSaved:
    """The epochs that early stopping saved in one group of a search."""

    stage: str
    group: str
    trials: int
    stopped: int
    epochs_asked: int
    """If all its trials had run in full."""
    epochs_run: int


@dataclass(frozen=True)
class RankAgreement:
    """How well the ranking of a group's trials at an epoch agrees with the final one; all trials ran in full."""

    stage: str
    group: str
    epoch: int
    epochs: int
    trials: int
    tau: float | None
    """Kendall's tau-b; None if all trials are equal."""
    best_is_best: bool
    """True if no trial was ahead of the final winner."""
    best_is_kept: bool
    """True if the final winner was among the first 1/factor."""
    factor: int


FEWEST = 4
"""Trials that must have run in full for a ranking to be compared."""
MOST_TOLD = 4
"""Compared epochs that text has a line for each of."""

Members = Mapping[tuple[str, str], Sequence["PlacedRow"]]
"""(stage, group) -> its trials."""

Events = Mapping[tuple[str, str], Sequence["SearchEvent"]]


def saved(members: Members, events: Events) -> tuple[EpochsSaved, ...]:
    """For each group of a search: the epochs of its trials in full, and those that were run. Epochs that another stage
    or job ran of a stopped trial do not count."""
    groups = []
    for place, decisions in events.items():
        if any("member" in event.body for event in decisions):
            continue  # population-based training stops no trial
        stopped = {event.key: int(event.body["epoch"]) for event in decisions if event.kind == "stopped"}
        trials = members.get(place, ())
        groups.append(
            EpochsSaved(
                stage=place[0],
                group=place[1],
                trials=len(trials),
                stopped=len(stopped),
                epochs_asked=sum(trial.epochs for trial in trials),
                epochs_run=sum(_epochs_run(trial, stopped.get(trial.key)) for trial in trials),
            )
        )
    return tuple(groups)


def _epochs_run(trial: PlacedRow, stopped_at: int | None) -> int:
    """Epochs of a trial for its group. A stopped trial may run a little longer until the stop reaches it."""
    if trial.state == "stopped" or stopped_at is None:
        return trial.epochs if trial.state == "done" else trial.epoch
    return stopped_at


def agreement(
    members: Members, events: Events, reports: Mapping[str, Sequence[ReportRow]], rule: Mapping[str, int] | None = None
) -> tuple[RankAgreement, ...]:
    """How well early rankings agree with the final one, for each group whose trials all ran in full, at each epoch
    before the last at which all were evaluated.

    `rule`: grace_epochs and reduction_factor of successive halving; then only its rungs are compared. None: every
    epoch, with a factor of 3. Diverged trials are left out.
    """
    compared = []
    factor = rule["reduction_factor"] if rule else 3
    for place, trials in members.items():
        stopped = any(event.kind == "stopped" for event in events.get(place, ()))
        done = [trial for trial in trials if trial.state == "done" and trial.value is not None]
        if stopped or len(done) < FEWEST or not all(trial.state in ("done", "diverged") for trial in trials):
            continue
        if len({trial.epochs for trial in done}) > 1:
            continue  # parts of a population's members
        sign = 1.0 if done[0].mode == "max" else -1.0
        end = [_ranked(trial.value, sign) for trial in done]
        curves = [_curve(reports.get(trial.key, ()), trial.metric, sign) for trial in done]
        last = max(trial.epochs for trial in done)
        epochs = set.intersection(*(set(curve) for curve in curves))
        if rule:
            epochs &= {rule["grace_epochs"] * factor**k for k in range(last)}
        best = max(range(len(end)), key=lambda n: (end[n], -n))
        for epoch in sorted(epoch for epoch in epochs if epoch < last):
            early = [curve[epoch] for curve in curves]
            ahead = sum(value > early[best] for value in early)
            compared.append(
                RankAgreement(
                    stage=place[0],
                    group=place[1],
                    epoch=epoch,
                    epochs=last,
                    trials=len(done),
                    tau=kendall(early, end),
                    best_is_best=ahead == 0,
                    best_is_kept=ahead < max(1, len(done) // factor),
                    factor=factor,
                )
            )
    return tuple(compared)


def _curve(reports: Iterable[ReportRow], metric: str, sign: float) -> dict[int, float]:
    """Epoch -> the metric where it was evaluated; times `sign`, so that larger is better."""
    return {report.epoch: _ranked(report.values[metric], sign) for report in reports if metric in report.values}


def _ranked(value: float | None, sign: float) -> float:
    """The value times `sign`; one that is not finite is worse than all others, in either direction."""
    return sign * value if value is not None and math.isfinite(value) else -math.inf


def _told(epochs: Sequence[int], last: int) -> set[int]:
    """Those that text tells of: all of a few, else the nearest to a ninth, a third and two thirds of the last."""
    if len(epochs) <= MOST_TOLD:
        return set(epochs)
    return {min(epochs, key=lambda epoch: abs(epoch - share * last)) for share in (1 / 9, 1 / 3, 2 / 3)}


def lines(searches: Sequence[EpochsSaved], rankings: Sequence[RankAgreement]) -> list[str]:
    """As text: a line for each search that stopped trials, and one for each compared epoch (of many, for three) over
    all groups."""
    text = []
    for stage in dict.fromkeys(group.stage for group in searches if group.stopped):
        groups = [group for group in searches if group.stage == stage]
        full, run = sum(group.epochs_asked for group in groups), sum(group.epochs_run for group in groups)
        trials, stopped = sum(group.trials for group in groups), sum(group.stopped for group in groups)
        share = f"ran {run} of {full} epochs ({100 * run / full:.0f} %)"
        text.append(f"{stage}: stopped {stopped} of {trials} trials early, {share}")
    by_epoch: dict[tuple[int, int], list[RankAgreement]] = {}
    for ranking in rankings:
        by_epoch.setdefault((ranking.epoch, ranking.epochs), []).append(ranking)
    told = {last: _told([epoch for epoch, of in by_epoch if of == last], last) for _, last in by_epoch}
    for (epoch, last), compared in sorted(by_epoch.items()):
        if epoch not in told[last]:
            continue
        taus = [ranking.tau for ranking in compared if ranking.tau is not None]
        tau = f"tau {sum(taus) / len(taus):.2f}" if taus else "all trials equal"
        same, kept = (
            sum(ranking.best_is_best for ranking in compared),
            sum(ranking.best_is_kept for ranking in compared),
        )
        count = f"{len(compared)} group{'s' if len(compared) > 1 else ''}"
        text.append(
            f"ranking at epoch {epoch} vs. epoch {last}, {count} run in full: {tau}; same winner in {same} of {count}, "
            f"final winner in the first 1/{compared[0].factor} in {kept}"
        )
    if any(group.stopped for group in searches) and not rankings:
        text.append(
            "the cost of early stopping is unknown: no group of this job ran in full (stopping: none runs one so)"
        )
    return text
