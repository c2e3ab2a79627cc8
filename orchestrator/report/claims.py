"""Judges the claims of a job by its recorded results, and says whether each was written before them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from orchestrator.records.claims import digest
from orchestrator.report.claim_model import ClaimReport, Sensitivity, Verdict
from orchestrator.report.claim_values import ClaimValues, Reading
from orchestrator.report.formatting import moment
from orchestrator.report.judgement import (
    ALPHA,
    MIN_RUNS,
    RESAMPLES,
    OfImages,
    OfRuns,
    Says,
    assess,
    difference,
    holm,
    seed_of,
)

if TYPE_CHECKING:
    from orchestrator.records.rows import MetricRow
    from orchestrator.report.job_results import JobResults
    from orchestrator.store.store import Store


@dataclass(frozen=True)
class Judged:
    """A claim's numbers before Holm's adjustment."""

    left: Reading
    right: Reading
    sample: OfRuns | OfImages | None
    """None: no pair."""
    p: float | None = None
    says: Says | None = None
    """What a small p says."""
    verdict: Verdict = "undecided"
    """Where there is no p."""
    reason: str = ""
    scope: str = ""

    @property
    def figure(self) -> MetricRow:
        """The figure of the side that reads trials."""
        return self.left.figure if self.left.values is not None else self.right.figure

    @property
    def n(self) -> int:
        return 0 if self.sample is None else len(self.sample.differences)


def reads(store: Store, job_id: str) -> dict[str, list[str]]:
    """Digest of each claim of a job -> keys of the placed trials that it reads."""
    from orchestrator.report.job_results import JobResults

    spec = store.jobs.spec(job_id)
    if not spec.get("claims"):
        return {}
    values = ClaimValues(JobResults(store, job_id, full=False))
    return {digest(spec, claim): values.keys(claim) for claim in spec["claims"]}


def claims(results: JobResults) -> tuple[ClaimReport, ...]:
    """The job's claims in the order of its spec, each with its verdict."""
    listed: Sequence[Mapping[str, Any]] = results.spec.get("claims") or ()
    if not listed:
        return ()
    values = ClaimValues(results)
    keys = [values.keys(claim) for claim in listed]
    weights = results.store.claims.initial_weights({key for some in keys for key in some})
    judged = [judge(claim, values, weights) for claim in listed]
    counted = [i for i, claim in enumerate(listed) if not _against_paper(claim)]
    adjusted = dict(zip(counted, holm([_p(judged[i]) for i in counted]), strict=True))
    recorded = results.store.claims.of(results.job.name, results.job.profile)
    first = results.store.claims.first_results({key for some in keys for key in some})
    shown = []
    for i, (claim, each) in enumerate(zip(listed, judged, strict=True)):
        report = _report(claim, each, values, weights)
        if each.p is not None and each.says is not None:
            decided = adjusted[i].p < ALPHA
            verdict: Verdict = each.says if decided else "undecided"
            level = adjusted[i].level
            if claim["relation"] == "within" and each.says == "held":
                level = 2 * level - 1  # two one-sided tests: 90 % where the interval of a difference has 95 %
            report = replace(report, verdict=verdict, p=each.p, adjusted_p=adjusted[i].p, level=level)
        row = recorded.get(digest(results.spec, claim))
        if row is not None:
            before = sum(first[key] <= row.submitted for key in keys[i] if key in first)
            own = row.ended if row.job_id == results.job.id else 0
            report = replace(report, submitted=moment(row.submitted), ended_before=max(before, own))
        shown.append(replace(report, reads=max(len(keys[i]), report.ended_before)))
    return tuple(shown)


def judge(claim: Mapping[str, Any], values: ClaimValues, weights: Mapping[str, str], figure: str = "") -> Judged:
    """A claim before Holm's adjustment. `weights`: key -> the weights that a trial starts from, where it has any;
    `figure`: read this one in place of the claim's."""
    of_images = claim["over"] == "images"
    left, right = (values.read(claim[name], figure, of_images) for name in ("left", "right"))
    sample: OfRuns | OfImages | None
    if of_images:
        sample, reason = _of_images(left, right, claim["name"])
        scope = "for these weights"
    else:
        sample, reason = _of_runs(left, right)
        scope = _scope((left, right), weights)
    judged = Judged(left, right, sample, scope=scope)
    if _against_paper(claim):
        return replace(judged, verdict="no verdict", reason="one run there", scope="")
    # What is still to come, or can never come, before what went wrong.
    if reason := left.reason or right.reason or reason:
        return replace(judged, verdict="not judged", reason=reason)
    if reason := left.diverged or right.diverged:
        return replace(judged, verdict="undecided", reason=reason)
    runs = judged.n if of_images else min(judged.n, *(_independent(side, weights) for side in (left, right)))
    what = "image" if of_images else "run"
    if runs < MIN_RUNS or sample is None:
        same = f"; {judged.n} seeds gave the same values from one checkpoint" if runs < judged.n else ""
        return replace(judged, verdict="not judged", reason=f"{runs} {what}{'' if runs == 1 else 's'}{same}")
    p, says = assess(sample, claim["relation"], claim["margin"])
    return replace(judged, p=p, says=says)


def _p(judged: Judged) -> float:
    """A claim without data counts with p = 1, so that the levels are those of all claims from the first on."""
    return 1.0 if judged.p is None else judged.p


def _against_paper(claim: Mapping[str, Any]) -> bool:
    return any(isinstance(claim[name], Mapping) and claim[name].get("published") for name in ("left", "right"))


def _of_runs(left: Reading, right: Reading) -> tuple[OfRuns | None, str]:
    """The paired differences; and why they are not those of the same chains, if so."""
    pairs, reason = _pairs(left, right)
    found = tuple(difference(a, b) for a, b in pairs)
    return (OfRuns(found) if found else None), reason


def _pairs(left: Reading, right: Reading) -> tuple[list[tuple[float, float]], str]:
    """Values of the same seed. Where the sides are of stages with other seeds, as many on each side, they are paired by
    their order: as weights pass from one stage to the next, by equal index."""
    if left.values is None or right.values is None:
        number = left.side.value if left.values is None else right.side.value
        if number is None:
            return [], ""
        if left.values is None:
            return [(number, value) for value in (right.values or {}).values()], ""
        return [(value, number) for value in left.values.values()], ""
    a, b = ([trial.seed for trial in side.trials] for side in (left, right))
    if not a or not b or len(set(a)) < len(a) or len(set(b)) < len(b):
        return [], ""  # the side says why
    if set(a) == set(b):
        partner = dict(zip(a, a, strict=True))
    elif len(a) == len(b) and (left.trials[0].stage != right.trials[0].stage):
        partner = dict(zip(a, b, strict=True))
    else:
        both = [seed for seed in a if seed in b]
        pairs = [(left.values[s], right.values[s]) for s in both if s in left.values and s in right.values]
        return pairs, f"seeds {_listed(a)} against {_listed(b)}: no pairs"
    return [
        (value, right.values[partner[seed]]) for seed, value in left.values.items() if partner[seed] in right.values
    ], ""


def _of_images(left: Reading, right: Reading, name: str) -> tuple[OfImages | None, str]:
    """The differences of each image, in the order of the left side (or the only one that has images)."""
    seed = seed_of(name)
    if left.values is None or right.values is None:
        number = left.side.value if left.values is None else right.side.value
        images = right.images if left.values is None else left.images
        if number is None or not images:
            return None, ""
        sign = -1 if left.values is None else 1
        return OfImages(tuple(sign * difference(value, number) for value in images.values()), seed), ""
    if not left.images or not right.images:
        return None, ""
    common = [image for image in left.images if image in right.images]
    found = tuple(difference(left.images[image], right.images[image]) for image in common)
    other = max(len(left.images), len(right.images)) - len(common)
    were = f"{other} image was" if other == 1 else f"{other} images were"
    reason = f"{were} measured on one side alone" if other else ""
    return (OfImages(found, seed) if found else None), reason


def _independent(side: Reading, weights: Mapping[str, str]) -> int:
    """Runs of a side that are not one and the same: a trial that only measures gives the same at every seed."""
    if side.values is None:
        return len(side.trials) or 10**9
    origins = {weights.get(trial.key, "") for trial in side.trials}
    same = len(set(side.values.values())) == 1 and len(origins) == 1 and "" not in origins
    return 1 if same else len(side.values)


def _scope(sides: Iterable[Reading], weights: Mapping[str, str]) -> str:
    """Which sides start all their seeds from one checkpoint: their chains differ in fine-tuning alone."""
    single = []
    for side in sides:
        origins = {weights.get(trial.key, "") for trial in side.trials}
        if len(side.trials) > 1 and len(origins) == 1 and "" not in origins:
            single.append(side.side.text.partition(",")[0])
    return f"one checkpoint of {' and of '.join(dict.fromkeys(single))}" if single else ""


def _report(claim: Mapping[str, Any], judged: Judged, values: ClaimValues, weights: Mapping[str, str]) -> ClaimReport:
    of_images = isinstance(judged.sample, OfImages)
    sensitivity = tuple(_sensitivity(claim, values, weights, figure) for figure in claim["sensitivity"])
    anchor = None
    if claim["anchor"]:
        sides = (claim["left"], claim["right"])
        side = next(side for side in sides if isinstance(side, Mapping) and not side.get("published"))
        anchor = values.read(side, row=claim["anchor"]).side
    return ClaimReport(
        name=claim["name"],
        text=claim["text"],
        relation=claim["relation"],
        margin=claim["margin"],
        over=claim["over"],
        left=judged.left.side,
        right=judged.right.side,
        figure=judged.figure,
        verdict=judged.verdict,
        reason=judged.reason,
        scope=judged.scope,
        n=judged.n,
        differences=() if of_images or judged.sample is None else tuple(judged.sample.differences),
        difference=None if judged.sample is None else judged.sample.mean,
        interval=_interval(claim, judged),
        resamples=RESAMPLES if of_images else 0,
        resample_seed=seed_of(claim["name"]) if of_images else None,
        sensitivity=sensitivity,
        anchor=anchor,
    )


def _interval(claim: Mapping[str, Any], judged: Judged) -> tuple[float, float] | None:
    """At 95 %; None for fewer runs than are judged, whose interval would be read as a verdict."""
    if judged.sample is None or judged.n < MIN_RUNS or _against_paper(claim) or judged.verdict == "not judged":
        return None
    return judged.sample.interval(1 - ALPHA)


def _sensitivity(claim: Mapping[str, Any], values: ClaimValues, weights: Mapping[str, str], figure: str) -> Sensitivity:
    judged = judge(claim, values, weights, figure)
    alone: Verdict = judged.verdict
    if judged.p is not None and judged.says is not None and judged.p < ALPHA:
        alone = judged.says
    mean = None if judged.sample is None else judged.sample.mean
    return Sensitivity(judged.figure, mean, _interval(claim, judged), judged.n, alone, judged.reason)


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
