"""Tells the claims of a recorded job apart by what they say, and holds when each was first submitted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NOT_CLAIMED = ("name", "text", "sensitivity", "anchor")
"""Fields of a claim that say nothing of its verdict: changing them does not make it another claim. (The name does set
the draw of a bootstrap.)"""


@dataclass(frozen=True)
class ClaimRow:
    """When a claim was first submitted."""

    digest: str
    job_id: str
    """The first job with the claim."""
    submitted: float
    """Seconds since 1970 by the database's clock."""
    ended: int
    """Of the trials that the claim reads, the number that had ended by then."""
    total: int
    """The trials that it reads, as far as they were known then."""


def digest(spec: Mapping[str, Any], claim: Mapping[str, Any]) -> str:
    """What a claim says, as a hash: all its fields but `NOT_CLAIMED`, with the stage and the figure that it reads and
    the fields of the rows and columns that it names. A field at an empty default does not count, so that later fields
    change none; 0 is not empty, since layer 0 is a layer.

    `spec`: the job's JSON; `claim`: one of its claims.
    """
    report = spec["report"]
    stage = report.get("stage") or spec["stages"][-1]["name"]
    figure = next(iter(report.get("figures") or ()), "")
    said: dict[str, Any] = {name: value for name, value in claim.items() if name not in NOT_CLAIMED}
    for name in ("left", "right"):
        side = said[name]
        if isinstance(side, Mapping):
            said[name] = _set({**side, "stage": side.get("stage") or stage, "figure": side.get("figure") or figure})
    said["fields"] = [report["rows"], report["columns"]]
    text = json.dumps(_set(said), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _set(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are not empty."""
    return {name: value for name, value in fields.items() if value is not False and value not in (None, "", [], {})}
