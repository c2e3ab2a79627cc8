"""What the seeds of a cell share before their own training: one checkpoint, one pre-training run, or nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from orchestrator.records.rows import StartRow
    from orchestrator.store.store import Store

Pretraining = Literal["random", "own", "checkpoint", "run", "partly"]
"""`random`: each seed draws its own initial weights. `own`: each seed has its own pre-training, up to the beginning.
`checkpoint`: all start from the same given weights (a file, a tag of timm). `run`: all start from the same trial.
`partly`: anything between."""

Starts = Mapping[str, "StartRow"]
"""Trial key -> the weights that it starts from."""

WORDS: Mapping[Pretraining, str] = {
    "own": "each seed has its own pre-training (whole chains)",
    "checkpoint": "one checkpoint: seeds vary fine-tuning alone",
    "run": "one pre-training run: seeds vary fine-tuning alone",
    "partly": "seeds share part of their pre-training",
}
"""What a caption says of it."""


def starts_of(store: Store, keys: Iterable[str]) -> Starts:
    """The starts of these trials and of all that they follow from through weights, read level by level."""
    known: dict[str, StartRow] = {}
    wanted = set(keys)
    while wanted:
        known |= store.lineage.starts(wanted)
        wanted = {parent for key in wanted if key in known for parent in known[key].parents} - known.keys()
    return known


def pretraining(keys: Sequence[str], starts: Starts) -> Pretraining:
    """Of trials that differ in their seed alone, by what is recorded of each."""
    lines: list[Collection[str]] = [[key] for key in keys]
    level = 0
    while True:
        above = [{parent for key in line if key in starts for parent in starts[key].parents} for line in lines]
        if not any(above):
            break
        apart = len(set[str]().union(*above)) == sum(map(len, above)) and all(above)
        if not apart:
            return "run" if level == 0 and all(each == above[0] for each in above) else "partly"
        lines = [sorted(each) for each in above]
        level += 1
    given = any(starts[key].given for line in lines for key in line if key in starts)
    if given:
        return "partly" if level else "checkpoint"
    return "own" if level else "random"
