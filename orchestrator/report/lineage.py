"""Traces a trial back over choices and weights to the start of its pre-training, and forward to what used it."""

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
"""Trials named of those that start from a trial's weights; the others are counted."""

Step = dict[str, Any]


def lineage(store: Store, trial: TrialRow) -> list[Step]:
    """Every trial that `trial` follows from, nearest first, each once; and the initial weights of the first of them.

    A step has `of`, the key of the trial that follows from it; `link` (settings: `of` repeats it, with overrides;
    neighbourhood: `of` was tried around it; weights: `of` starts from its weights; state: `of` resumes its training);
    `decision`, by which it was taken, if there was one; and `kind`: `trial`, with what is recorded of it; or `file`,
    `timm` or `none` (random weights).
    """
    steps: list[Step] = []
    queue, seen = [(trial, "weights")], {trial.key}
    while queue:
        child, by = queue.pop(0)
        for link, key, decision in _before(store, child):
            if key in seen:
                continue
            seen.add(key)
            ancestor = store.trials.get(key)
            steps.append({"link": link, "of": child.key, "decision": decision, **_facts(ancestor)})
            queue.append((ancestor, link))
        if child.parent is None and by in ("weights", "state"):
            steps.append({"link": "weights", "of": child.key, "decision": None, **beginning(child)})
    return steps


def _before(store: Store, trial: TrialRow) -> Iterator[tuple[str, str, Step | None]]:
    """(link, key, decision) of the trials that this one follows from directly."""
    places = [place[:3] for place in trial.placed]
    for job_id, winner in store.lineage.decisions(places):
        link = "neighbourhood" if "neighbourhood" in winner.rule else "settings"
        yield link, winner.key, _decision(job_id, winner.stage, winner)
    if trial.parent is None:
        return
    if (trial.spec.get("span") or {}).get("first_epoch"):
        yield "state", trial.parent, None
        return
    consumers = {(job, f"{stage}: weights of ") for job, stage, _ in places}
    for job_id, winner in store.lineage.chosen(trial.parent):
        if any(job_id == job and winner.stage.startswith(start) for job, start in consumers):
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
        "dataset": label(task["dataset"]) if "dataset" in task else None, "split": trial.split, "epochs": trial.epochs,
        "metric": trial.metric, "value": trial.value, "parent": trial.parent,
        "weights": {"path": trial.weights[0], "sha256": trial.weights[1]} if trial.weights else None,
    }  # fmt: skip


def beginning(trial: TrialRow) -> Step:
    """Initial weights of a trial without a parent: a file or a tag with its SHA-256, or the seed of random weights."""
    init = trial.spec.get("backbone", {}).get("init") or {}
    kind = init.get("kind", "none")
    source = {"kind": kind, "name": init.get("name")}
    if kind == "file":
        return {**source, "path": init["path"], "sha256": init["sha256"]}
    if kind == "timm":
        return {**source, "tag": init["tag"], "sha256": init.get("sha256") or _noted_digest(trial, init["tag"])}
    return {**source, "seed": trial.seed}


def _noted_digest(trial: TrialRow, tag: str) -> str | None:
    """The SHA-256 that the trial noted of the weights it got from the hub; None if it has not started."""
    for note in trial.facts.get("notes") or ():
        if match := re.fullmatch(rf"weights: {re.escape(tag)} of timm, SHA-256 ([0-9a-f]{{64}})", str(note)):
            return match[1]
    return None


def lines(key: str, steps: list[Step]) -> list[str]:
    """The steps as text, each below the trial that follows from it."""
    text: list[str] = []
    for step in steps:
        if step["of"] == key:
            text += [f"  {line}" for line in _step_lines(step)]
            if step["kind"] == "trial":
                text += [f"  {line}" for line in lines(step["key"], steps)]
    return text


_LINKS = {
    "weights": "weights from",
    "settings": "settings from",
    "neighbourhood": "tried around",
    "state": "resumes",
}


def _step_lines(step: Step) -> list[str]:
    if step["kind"] != "trial":
        return [_beginning_text(step)]
    where = f" (job {step['job']})" if step["job"] else ""
    text = [f"{_LINKS[step['link']]} {step['name']} {step['key'][:12]}{where}"]
    if decision := step["decision"]:
        text.append(f"  {_decision_text(decision)}")
    value = "no figure yet" if step["value"] is None else f"{step['metric']} {step['value']:.6g}"
    on = f" on {step['split']}" if step["split"] and step["value"] is not None else ""
    what = " of ".join(part for part in (step["task"], step["dataset"]) if part)
    state = "" if step["state"] == "done" else f", {step['state']}"
    text.append(f"  {', '.join(part for part in (what, _epochs(step['epochs']), value + on) if part)}{state}")
    if weights := step["weights"]:
        text.append(f"  weights {weights['path']} (SHA-256 {weights['sha256']})")
    elif step["link"] in ("weights", "state"):
        text.append("  its weights are not kept; they are recomputed when needed")
    return text


def _decision_text(decision: Step) -> str:
    rivals = f"best of {decision['candidates']}" if decision["candidates"] > 1 else "the only one"
    value = [f"{decision['metric']} {decision['value']:.6g}", *map(edge_text, decision["edges"])]
    if "from_job" in decision:
        where = f"stage {decision['sources'][0]}, {decision['group']}, of job {decision['from_job']}"
        return f"referred to as {where}: {rivals}, {'; '.join(value)}"
    return f"taken by {decision['by']}: {rivals} in {', '.join(decision['sources'])}, {'; '.join(value)}"


def _epochs(count: int) -> str:
    return f"{count} epoch{'s' * (count != 1)}"


def _beginning_text(step: Mapping[str, Any]) -> str:
    if step["kind"] == "file":
        return f"weights from file {step['path']} (SHA-256 {step['sha256'] or 'not filled in'})"
    if step["kind"] == "timm":
        return f"weights from timm {step['tag']} (SHA-256 {step['sha256'] or 'not known before it runs'})"
    return f"random initial weights, drawn from seed {step['seed']}"


def offspring(store: Store, key: str) -> Step:
    """The trials that start from a trial's weights (their number and the first of them), and the decisions that took
    its settings."""
    return {
        "count": len(store.lineage.children(key)),
        "first": [
            {"key": child.key, "name": child.name, "state": str(child.state), "metric": child.metric,
             "value": child.value}
            for child in store.lineage.first_children(key, LISTED)
        ],
        "taken": [_decision(job_id, winner.stage, winner) for job_id, winner in store.lineage.chosen(key)],
    }  # fmt: skip


def offspring_lines(offspring: Step) -> list[str]:
    """As text; no lines if nothing follows."""
    text = []
    if offspring["count"]:
        text.append(f"{offspring['count']} trial{'s' * (offspring['count'] != 1)} start from its weights")
        text += [f"  {child['name']} {child['key'][:12]} ({child['state']})" for child in offspring["first"]]
        more = offspring["count"] - len(offspring["first"])
        text += [f"  and {more} more"] if more else []
    return text + [f"{_decision_text(taken)} (job {taken['job']}, {taken['group']})" for taken in offspring["taken"]]
