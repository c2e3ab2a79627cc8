"""Words one line of a trial's log for each round: loss, learning rate, speed, figure, time left."""

from __future__ import annotations

import math
from collections.abc import Sequence

from workers.messages import Report
from workers.trial import TrialSpec


def epoch_line(trial: TrialSpec, reports: Sequence[Report]) -> str:
    """epoch 12/100: loss 2.314, lr 1.2e-3, 1,240 images/s, val top-1 accuracy 54.2 %, 3 min left

    `reports`: of all rounds so far, the last of which the line is about. Where the length is in iterations it counts
    rounds. The figure is the one that trials are chosen by, in its unit; a round without an evaluation has none. The
    time left: the rounds to come, each at the mean time of those so far.
    """
    report = reports[-1]
    values = report.values
    word = "epoch" if trial.optim.iterations is None else "round"
    parts = []
    if "train_loss" in values:
        parts.append(f"loss {values['train_loss']:.4g}")
    if "lr" in values:
        parts.append(f"lr {_short(values['lr'])}")
    if "system_images_per_second" in values:
        parts.append(f"{values['system_images_per_second']:,.0f} images/s")
    metric = trial.metrics[0]
    if metric.name in values:
        value = f"{values[metric.name] * metric.scale:.{metric.digits}f} {metric.unit}".rstrip()
        parts.append(f"{trial.task.split} {metric.title} {value}")
    left = trial.last_round - report.epoch
    if left > 0:
        parts.append(f"{_duration(left * math.fsum(each.seconds for each in reports) / len(reports))} left")
    return f"{word} {report.epoch}/{trial.last_round}: {', '.join(parts) or 'ended'}"


def _short(value: float) -> str:
    """1.2e-3"""
    mantissa, _, exponent = f"{value:.3e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}" if value else "0"


def _duration(seconds: float) -> str:
    """40 s, 12 min, 3 h 20 min"""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    return f"{minutes} min" if not hours else f"{hours} h {rest} min" if rest else f"{hours} h"
