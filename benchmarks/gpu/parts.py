"""The list of parts and their checks, with the time that each may take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """A function of the part's module, called in a child process."""

    name: str
    """Of the function."""
    most: float
    """Seconds that it may take, of a budget of `TOTAL`; what another check has left is not added to it."""


@dataclass(frozen=True)
class Part:
    name: str
    """Of its module in this package."""
    share: float
    """Seconds of a budget of `TOTAL`."""
    checks: tuple[Check, ...]


TOTAL = 360.0

PARTS = (
    Part(
        "correctness", 100,
        (
            Check("families", 15), Check("accumulation", 20), Check("channels_last", 10), Check("out_of_memory", 15),
            Check("one_process", 20), Check("curve", 25), Check("resume", 45), Check("compiled", 60),
        ),
    ),
    Part(
        "speed", 140,
        (
            Check("ceilings", 10), Check("swinv2_b", 25), Check("profile", 30), Check("finetune", 40),
            Check("vit_b", 20), Check("swinv2_l", 25), Check("replknet", 20), Check("channels_last", 15),
            Check("adamw", 10), Check("half_batch", 15), Check("double_batch", 15), Check("compiled", 120),
            Check("graphs", 120), Check("finetune_compiled", 110),
        ),
    ),
    Part("many", 60, (Check("at_once", 120),)),
    Part(
        "dense", 60,
        (
            Check("pose", 30), Check("depth", 45), Check("tracking", 30), Check("detection", 45),
            Check("segmentation", 60),
        ),
    ),
)  # fmt: skip
"""In the order in which they run; what may be cut off stands last."""


def chosen(names: Sequence[str]) -> tuple[Part, ...]:
    """These checks (`part.check`) in this order, as parts with the time that they take; empty if one is unknown."""
    checks = {f"{part.name}.{check.name}": (part.name, check) for part in PARTS for check in part.checks}
    if not set(names) <= checks.keys():
        return ()
    parts: list[Part] = []
    for name, check in (checks[each] for each in names):
        if parts and parts[-1].name == name:
            last = parts.pop()
            parts.append(Part(name, last.share + check.most, (*last.checks, check)))
        else:
            parts.append(Part(name, check.most, (check,)))
    return tuple(parts)
