"""The list of parts and their checks, with the time that each may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """A function of the part's module, called in a child process."""

    name: str
    """Of the function."""
    most: float
    """Seconds that it may take, of a budget of 300; what another check has left is not added to it."""


@dataclass(frozen=True)
class Part:
    name: str
    """Of its module in this package."""
    share: float
    """Seconds of a budget of 300."""
    checks: tuple[Check, ...]


TOTAL = 300.0

PARTS = (
    Part(
        "correctness", 90,
        (
            Check("families", 25), Check("accumulation", 15), Check("channels_last", 15), Check("out_of_memory", 20),
            Check("one_process", 20), Check("precision", 30), Check("resume", 40), Check("compiled", 40),
        ),
    ),
    Part(
        "speed", 150,
        (
            Check("ceilings", 10), Check("swinv2_b", 25), Check("finetune", 30), Check("vit_b", 20),
            Check("swinv2_l", 25), Check("replknet", 20), Check("channels_last", 15), Check("adamw", 10),
            Check("half_batch", 15), Check("double_batch", 15), Check("compiled", 90),
        ),
    ),
    Part("many", 60, (Check("at_once", 60),)),
)  # fmt: skip
"""In the order in which they run; what may be cut off stands last."""
