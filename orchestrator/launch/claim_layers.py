"""Checks the layers, items and pairs that claims name against the models that will have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.plan.durations import model_id
from orchestrator.plan.planner import Planner
from orchestrator.records.rows import MeasurementRow
from orchestrator.report.claim_values import Missing, selected
from orchestrator.spec.check_report import label_of
from orchestrator.spec.claims import ClaimSide
from orchestrator.spec.diagnostics import shorten
from orchestrator.spec.job import JobSpec
from orchestrator.spec.overrides import with_profile
from orchestrator.spec.yaml_nodes import Location, read
from workers.trial import TrialSpec

Layers = Mapping[str, Mapping[str, Mapping[str, list[str]]]]
"""`plan.durations.model_id` -> what `Task.measured_layers` says of this model, with layers as text (JSON)."""


def claimed_models(job: JobSpec, planner: Planner) -> dict[str, dict[str, Any]]:
    """model_id -> what to ask `workers.model_check` of this model, of the models whose layers or items claims name."""
    found: dict[str, TrialSpec] = {}
    for *_, trials in _sides(job, planner):
        for trial in trials:
            found.setdefault(model_id(trial), trial)
    return {
        identity: {"trial": trial.model_dump(mode="json", exclude={"span"}), "weights": None, "layers": True}
        for identity, trial in found.items()
    }


def claim_problems(job: JobSpec, spec: Path, planner: Planner, layers: Layers) -> list[str]:
    """A line for each claim's side that asks for what the models at its row and column do not have: file and line,
    field, value, and the layers that exist. `spec`: the file."""
    problems: dict[str, None] = {}
    for number, name, side, trials in _sides(job, planner):
        for trial in trials:
            known = layers.get(model_id(trial), {})
            figure = side.figure or next(iter(job.report.figures), "") or trial.metric
            if figure not in known:
                continue
            try:
                selected(_rows(known[figure], figure), _recorded(side, trial, figure), figure)
            except Missing as missing:
                field = _field(side, str(missing), figure)
                where = f"claims.{job.claims[number].name}.{name}.{field}"
                asked = getattr(side, field)
                value = asked.model_dump(exclude_none=True) if hasattr(asked, "model_dump") else asked
                line = f"{_place(job, spec, number, name, field)}: {where}: {shorten(str(value))}"
                what = str(missing).removeprefix(f"{value}: ")
                problems[f"{line}: {trial.backbone.model}: {what}"] = None
    return list(problems)


def _sides(job: JobSpec, planner: Planner) -> Iterator[tuple[int, str, ClaimSide, list[TrialSpec]]]:
    """(number of the claim, left or right, side, trials at its row and column) of sides that name layers, an item or
    pairs. Without sides of stages that take winners: which model these have is not known yet."""
    takes = {stage.name for stage in job.stages if stage.from_}
    for number, claim in enumerate(job.claims):
        for name, side in claim.sides:
            stage = side.stage or job.report.stage or job.stages[-1].name
            named = side.layer is not None or side.layers is not None or side.item or side.pairs != "all"
            if side.published or not named or stage in takes:
                continue
            trials = [
                trial
                for trial in planner.in_stage(stage)
                if side.row in ("", label_of(trial, job.report.rows))
                and side.column in ("", label_of(trial, job.report.columns))
            ]
            yield number, name, side, trials


def _rows(layers: Mapping[str, list[str]], figure: str) -> list[MeasurementRow]:
    """Rows as the trial will record them, without heads and values."""
    return [
        MeasurementRow(figure, "", item, int(layer), None, 0.0) for layer, items in layers.items() for item in items
    ]


def _recorded(side: ClaimSide, trial: TrialSpec, figure: str) -> dict[str, Any]:
    """The side as a claim is recorded. Heads differ from each other wherever a figure of pairs of heads has rows."""
    pairs_of_layers = trial.measured_figures.get(figure) == "layer"
    return {**side.model_dump(mode="json"), "pairs": side.pairs if pairs_of_layers else "all"}


def _field(side: ClaimSide, missing: str, figure: str) -> str:
    """The field that `selected` found wrong."""
    if missing.startswith(f"{figure} has no "):
        return "item" if side.item and "no item" in missing else "pairs"
    return "layer" if side.layer is not None else "layers"


def _place(job: JobSpec, spec: Path, number: int, side: str, field: str) -> Location:
    """Where the file has the field, in the job's profile."""
    root, _ = with_profile(read(spec).root, job.profile or "")
    return root.place_of(["claims", number, side, field])
