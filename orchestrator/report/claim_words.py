"""The words of a job's claims, for every form of the report."""

from __future__ import annotations

from orchestrator.records.rows import MetricRow
from orchestrator.report import figures
from orchestrator.report.claim_model import ClaimReport, ClaimSide, Sensitivity
from orchestrator.report.model import Report

HEADER = ["claim", "left", "right", "difference", "95 % interval", "n", "adjusted p", "verdict", "written"]
"""The last two columns are words."""

SHORT = 24
"""Characters of a reason that stands in the table; a longer one is told below it."""


def title(report: Report) -> str:
    """What the table of claims shows, in a sentence."""
    counted = sum(claim.verdict != "no verdict" for claim in report.claims)
    levels = f"levels by Holm over {counted} claims" if counted > 1 else "at 95 %"
    return f"Difference: left less right; {levels}; the interval is not adjusted"


def rows(report: Report) -> list[list[str]]:
    """A row of texts for each claim, under `HEADER`."""
    return [row(claim) for claim in report.claims]


def row(claim: ClaimReport) -> list[str]:
    """The texts of one claim; never empty."""
    return [
        claim.name,
        value_text(claim.left, claim.figure),
        value_text(claim.right, claim.figure),
        "–" if claim.difference is None else figures.signed(claim.difference, claim.figure),
        interval_text(claim.interval, claim.figure),
        str(claim.n),
        p_text(claim.adjusted_p),
        verdict_text(claim),
        written_text(claim),
    ]


def statement(claim: ClaimReport) -> str:
    """MIM on food101, top-1 accuracy, above SUP on food101, top-1 accuracy, by more than 0.5"""
    unit = "points" if claim.figure.unit == "%" else claim.figure.unit
    margin = f"{claim.margin:g} {unit}".rstrip()
    if claim.relation == "within":
        return f"{claim.left.text}, within {margin} of {claim.right.text}"
    by = f", by more than {margin}" if claim.margin else ""
    return f"{claim.left.text}, {claim.relation} {claim.right.text}{by}"


def beside(claim: ClaimReport) -> list[str]:
    """What stands beside a claim in small print: a long reason, its bootstrap, other figures, its anchor."""
    lines = [f"{claim.verdict}: {claim.reason}"] if len(claim.reason) > SHORT else []
    if claim.resamples:
        lines.append(f"{claim.resamples:,} paired resamples of {claim.n} images, seed {claim.resample_seed}")
    lines += [f"sensitivity: {sensitivity_text(other)}" for other in claim.sensitivity]
    if claim.anchor is not None:
        lines.append(f"anchor: {claim.anchor.text}: {value_text(claim.anchor, claim.figure)}")
    return lines


def sensitivity_text(other: Sensitivity) -> str:
    """CKA, biased: −0.031 [−0.040, −0.022], n 3; alone: held"""
    if other.difference is None:
        return f"{figures.title(other.figure)}: {other.alone}{f' ({other.reason})' if other.reason else ''}"
    shown = "" if other.interval is None else f" {interval_text(other.interval, other.figure)}"
    word = f"{other.alone}{f' ({other.reason})' if other.reason else ''}"
    difference = figures.signed(other.difference, other.figure)
    return f"{figures.title(other.figure)}: {difference}{shown}, n {other.n}; alone: {word}"


def value_text(side: ClaimSide, figure: MetricRow) -> str:
    """The value of a side; – if it has none yet."""
    return "–" if side.value is None else figures.text(side.value, figure)


def interval_text(interval: tuple[float, float] | None, figure: MetricRow) -> str:
    """[+0.3, +1.5]"""
    if interval is None:
        return "–"
    return f"[{figures.signed(interval[0], figure)}, {figures.signed(interval[1], figure)}]"


def p_text(p: float | None) -> str:
    """0.012, or <0.001"""
    if p is None:
        return "–"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def verdict_text(claim: ClaimReport) -> str:
    """held; held, for these weights; not judged (2 runs)"""
    scope = f", {claim.scope}" if claim.scope and claim.verdict in ("held", "contradicted", "undecided") else ""
    reason = f" ({claim.reason})" if 0 < len(claim.reason) <= SHORT else ""
    return f"{claim.verdict}{scope}{reason}"


def written_text(claim: ClaimReport) -> str:
    """Whether the claim was first submitted before the results that it reads."""
    if not claim.submitted:
        return "not recorded when"
    if claim.ended_before:
        return f"after {claim.ended_before} of {claim.reads} results"
    return "written before"
