"""The only place that tells where a trial comes from: back over choices and weights to where its pre-training began."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.records.recorded_spec import label
from orchestrator.report.wording import edge_text

if TYPE_CHECKING:
    from orchestrator.records.rows import ChoiceRow, ResolvedWeightsRow, TrialRow
    from orchestrator.store.store import Store

LISTED = 8
"""Children that are named; the others are counted."""

Step = dict[str, Any]


def lineage(store: Store, trial: TrialRow) -> list[Step]:
    """Every trial that `trial` follows from, nearest first, each once; and what the first of them began from.

    A step has `of` (key of the trial that follows from it); `link` (settings: `of` repeats it, with overrides;
    neighbourhood: `of` was tried around it; weights: `of` starts from its weights; state: `of` goes on with its
    training); `decision` (by which it was taken, where one was made); and `kind`: `trial` with what the store knows of
    it; or `file`, `timm` or `none` (drawn from the seed).
    """
    steps: list[Step] = []
    waiting, seen = [(trial, "weights")], {trial.key}
    while waiting:
        child, by = waiting.pop(0)
        for link, key, decision in _before(store, child):
            if key in seen:
                continue
            seen.add(key)
            ancestor = store.trials.get(key)
            steps.append({"link": link, "of": child.key, "decision": decision, **_facts(ancestor)})
            waiting.append((ancestor, link))
        if child.parent is None and by in ("weights", "state"):
            steps.append({"link": "weights", "of": child.key, "decision": None, **beginning(child)})
    return steps


def _before(store: Store, trial: TrialRow) -> Iterator[tuple[str, str, Step | None]]:
    """(link, key, decision) of the trials that this one follows from at once."""
    places = [place[:3] for place in trial.placed]
    for job_id, winner in store.lineage.decisions(places):
        link = "neighbourhood" if "neighbourhood" in winner.rule else "settings"
        yield link, winner.key, _decision(job_id, winner.stage, winner)
    if trial.parent is None:
        return
    if (trial.spec.get("span") or {}).get("first_epoch"):
        yield "state", trial.parent, None
        return
    takers = {(job, f"{stage}: weights of ") for job, stage, _ in places}
    for job_id, winner in store.lineage.chosen(trial.parent):
        if any(job_id == job and winner.stage.startswith(start) for job, start in takers):
            yield "weights", trial.parent, _decision(job_id, winner.stage, winner)
    for job_id, origin in store.lineage.origins_of({job for job, _, _ in places}):
        if origin.key == trial.parent:
            yield "weights", trial.parent, _from_elsewhere(job_id, origin)
    yield "weights", trial.parent, None


def _decision(job_id: str, by: str, winner: ChoiceRow) -> Step:
    return {
        "job": job_id, "by": by, "group": winner.group, "sources": list(winner.sources), "metric": winner.metric,
        "value": winner.value, "candidates": winner.candidates, "edges": list(winner.edges),
    }  # fmt: skip


def _from_elsewhere(job_id: str, origin: ResolvedWeightsRow) -> Step:
    return {
        "job": job_id, "by": "its spec", "group": origin.group, "sources": [origin.stage],
        "from_job": origin.from_job, "metric": origin.metric, "value": origin.value, "candidates": origin.candidates,
        "edges": [],
    }  # fmt: skip


def _facts(trial: TrialRow) -> Step:
    task = trial.spec.get("task", {})
    job, stage, group, name = trial.placed[0] if trial.placed else (None, None, None, "trial")
    return {
        "kind": "trial", "key": trial.key, "name": name, "job": job, "stage": stage, "group": group,
        "jobs": sorted({place[0] for place in trial.placed}), "state": str(trial.state), "task": task.get("kind"),
        "dataset": label(task["dataset"]) if "dataset" in task else None, "evaluate": task.get("evaluate"),
        "epochs": trial.epochs, "metric": trial.metric, "value": trial.value, "parent": trial.parent,
        "weights": {"path": trial.weights[0], "sha256": trial.weights[1]} if trial.weights else None,
    }  # fmt: skip


def beginning(trial: TrialRow) -> Step:
    """What a trial without a parent starts from: a file or a tag with its SHA-256, or a seed for random weights."""
    init = trial.spec.get("backbone", {}).get("init") or {}
    kind, found = init.get("kind", "none"), {"kind": init.get("kind", "none"), "name": init.get("name")}
    if kind == "file":
        return {**found, "path": init["path"], "sha256": init["sha256"]}
    if kind == "timm":
        return {**found, "tag": init["tag"], "sha256": init.get("sha256") or _noted_digest(trial, init["tag"])}
    return {**found, "seed": trial.seed}


def _noted_digest(trial: TrialRow, tag: str) -> str | None:
    """The SHA-256 that the trial noted of what the hub gave it; None: it has not begun."""
    for note in trial.facts.get("notes") or ():
        if found := re.fullmatch(rf"weights: {re.escape(tag)} of timm, SHA-256 ([0-9a-f]{{64}})", str(note)):
            return found[1]
    return None


def lines(key: str, steps: list[Step]) -> list[str]:
    """The steps as text, each below the trial that follows from it."""
    text: list[str] = []
    for step in steps:
        if step["of"] == key:
            text += [f"  {line}" for line in _told(step)]
            if step["kind"] == "trial":
                text += [f"  {line}" for line in lines(step["key"], steps)]
    return text


_LINKS = {
    "weights": "weights from",
    "settings": "settings from",
    "neighbourhood": "tried around",
    "state": "goes on from",
}


def _told(step: Step) -> list[str]:
    if step["kind"] != "trial":
        return [_told_beginning(step)]
    where = f" (job {step['job']})" if step["job"] else ""
    told = [f"{_LINKS[step['link']]} {step['name']} {step['key'][:12]}{where}"]
    if decision := step["decision"]:
        told.append(f"  {_told_decision(decision)}")
    value = "no figure yet" if step["value"] is None else f"{step['metric']} {step['value']:.6g}"
    on = f" on {step['evaluate']}" if step["evaluate"] else ""
    what = " of ".join(part for part in (step["task"], step["dataset"]) if part)
    state = "" if step["state"] == "done" else f", {step['state']}"
    told.append(f"  {', '.join(part for part in (what, _epochs(step['epochs']), value + on) if part)}{state}")
    if weights := step["weights"]:
        told.append(f"  weights {weights['path']} (SHA-256 {weights['sha256']})")
    elif step["link"] in ("weights", "state"):
        told.append("  its weights are not kept: they are made again when they are needed")
    return told


def _told_decision(decision: Step) -> str:
    rivals = f"best of {decision['candidates']}" if decision["candidates"] > 1 else "the only one"
    value = [f"{decision['metric']} {decision['value']:.6g}", *map(edge_text, decision["edges"])]
    if "from_job" in decision:
        where = f"stage {decision['sources'][0]}, {decision['group']}, of job {decision['from_job']}"
        return f"meant by {where}: {rivals}, {'; '.join(value)}"
    return f"taken by {decision['by']}: {rivals} in {', '.join(decision['sources'])}, {'; '.join(value)}"


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' * (count != 1)}"


def _told_beginning(step: Mapping[str, Any]) -> str:
    if step["kind"] == "file":
        return f"weights from file {step['path']} (SHA-256 {step['sha256'] or 'not filled in'})"
    if step["kind"] == "timm":
        return f"weights from timm {step['tag']} (SHA-256 {step['sha256'] or 'not known before it runs'})"
    return f"random initial weights, drawn from seed {step['seed']}"


def offspring(store: Store, key: str) -> Step:
    """What follows from a trial: how many start from its weights, the first of them, and who took its settings."""
    return {
        "count": len(store.lineage.children(key)),
        "first": [
            {"key": child.key, "name": child.name, "state": str(child.state), "metric": child.metric,
             "value": child.value}
            for child in store.lineage.first_children(key, LISTED)
        ],
        "taken": [_decision(job_id, winner.stage, winner) for job_id, winner in store.lineage.chosen(key)],
    }  # fmt: skip


def offspring_lines(found: Step) -> list[str]:
    """As text; none when nothing follows."""
    text = []
    if found["count"]:
        text.append(f"{found['count']} trial{'s' * (found['count'] != 1)} start from its weights")
        text += [f"  {child['name']} {child['key'][:12]} ({child['state']})" for child in found["first"]]
        more = found["count"] - len(found["first"])
        text += [f"  and {more} more"] if more else []
    return text + [f"{_told_decision(taken)} (job {taken['job']}, {taken['group']})" for taken in found["taken"]]
