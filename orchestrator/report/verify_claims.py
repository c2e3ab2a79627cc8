"""Checks the claims of a report against the recorded figures, and each verdict against its differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from orchestrator.report.claim_model import ClaimReport, ClaimSide
from orchestrator.report.figures import scaled
from orchestrator.report.judgement import ALPHA, MIN_RUNS, OfRuns, assess, difference, holm
from orchestrator.report.model import Report

Figures = Mapping[str, Mapping[str, float]]
"""Trial key -> its recorded figures by name."""


def claim_differences(report: Report, spec: Mapping[str, Any], figures: Figures) -> Iterable[str]:
    """A line for each claim whose values, differences or verdict do not follow from the recorded figures, or that the
    store does not know to have been submitted.

    Values per layer and bootstraps are not computed a second way here: a saved report is compared with a new one, which
    reads them anew.
    """
    listed = {claim["name"]: claim for claim in spec.get("claims") or ()}
    for claim in report.claims:
        what = f"claim {claim.name}"
        if not claim.submitted:
            yield f"{what}: it is not recorded when it was first submitted"
        for name, side in (("left", claim.left), ("right", claim.right)):
            written = listed[claim.name][name]
            if isinstance(written, Mapping):
                yield from _side(f"{what}, {name}", claim, side, written, figures)
        yield from _from_its_values(what, claim)
    yield from _verdicts([claim for claim in report.claims if claim.verdict != "no verdict"])


def _side(
    what: str, claim: ClaimReport, side: ClaimSide, written: Mapping[str, Any], figures: Figures
) -> Iterable[str]:
    parts = written["layer"] is not None or written["pairs"] != "all"
    if parts or written["published"] or any(written[name] for name in ("layers", "item", "reduce")):
        return
    recorded = [figures[key].get(claim.figure.name) for key in side.keys if key in figures]
    values = [value for number in recorded if (value := scaled(number, claim.figure)) is not None]
    if side.values and values and values != list(side.values):  # else of rows in `measurements`
        yield f"{what}: shown from {list(side.values)}, its trials have {values}"


def _from_its_values(what: str, claim: ClaimReport) -> Iterable[str]:
    """Of sides of the same seeds, the differences are those of their values."""
    left, right = claim.left, claim.right
    if claim.over == "seeds" and left.values and left.seeds == right.seeds:
        found = [difference(a, b) for a, b in zip(left.values, right.values, strict=True)]
        if found != list(claim.differences):
            yield f"{what}: differences {list(claim.differences)}, its values have {found}"


def _verdicts(claims: list[ClaimReport]) -> Iterable[str]:
    """Every verdict over seeds follows from the differences, by Holm over the job's claims."""
    adjusted = holm([1.0 if claim.p is None else claim.p for claim in claims])
    for claim, by_holm in zip(claims, adjusted, strict=True):
        if claim.p is None:
            if claim.verdict in ("held", "contradicted"):
                yield f"claim {claim.name}: {claim.verdict} without a p value"
            continue
        if claim.over == "seeds":
            if len(claim.differences) < MIN_RUNS:
                yield f"claim {claim.name}: judged by {len(claim.differences)} runs"
                continue
            p, says = assess(OfRuns(claim.differences), claim.relation, claim.margin)
            verdict = says if by_holm.p < ALPHA else "undecided"
            if p != claim.p or verdict != claim.verdict:
                yield f"claim {claim.name}: {claim.verdict} with p {claim.p}, its differences say {verdict} with p {p}"
        if by_holm.p != claim.adjusted_p:
            yield f"claim {claim.name}: adjusted p {claim.adjusted_p}, by Holm it is {by_holm.p}"
