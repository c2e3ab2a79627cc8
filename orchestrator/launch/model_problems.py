"""Builds each of a job's models once, without memory or data: what `validate` says beyond the spec's own fields."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.errors import SpecError
from orchestrator.launch.claim_layers import claim_problems, claimed_models
from orchestrator.launch.job_plugins import with_plugins
from orchestrator.launch.other_jobs import assume_all
from orchestrator.launch.preflight import CHECK, TIMEOUT_S, asked, different_models
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.spec.job import JobSpec
from orchestrator.spec.yaml_nodes import Location, YamlNode, read


def check_models(job: JobSpec, spec: Path) -> list[str]:
    """Asks timm for every different model of a job, in a process that imports it; returns a line for each model that
    could not be checked.

    Raises SpecError with each that cannot be had: an argument that its class does not take, an image size or window
    that does not fit, a layer-decay scheme without levels; then with each claim that names a layer, item or pair that
    its model does not have. `spec`: the file, in which the model's name is looked up.
    """
    planner = Planner(assume_all(job), DurationModel())
    checks = different_models([*planner.specs(), *planner.foreseen()], DurationModel(), None)
    models = claimed_models(job, planner)
    results = _answers(job, [*checks, *models.values()])
    if isinstance(results, str):
        return [f"models were not built: {results}"]
    wrong: dict[str, None] = {}
    for check, result in zip(checks, results, strict=False):
        if result:
            model = str(check["trial"]["backbone"]["model"])
            wrong[f"{_place(spec, model)}: backbone.model: {model}: {result}"] = None
    if wrong:
        raise SpecError(list(wrong))
    _refuse(job, spec, planner, dict(zip(models, results[len(checks) :], strict=True)))
    return []


def check_claims(job: JobSpec, spec: Path) -> list[str]:
    """As `check_models`, for claims alone. A job whose claims name no layer, item or pair starts no process."""
    planner = Planner(assume_all(job), DurationModel())
    models = claimed_models(job, planner)
    results = _answers(job, list(models.values())) if models else []
    if isinstance(results, str):
        return [f"layers of claims were not checked: {results}"]
    _refuse(job, spec, planner, dict(zip(models, results, strict=True)))
    return []


def _refuse(job: JobSpec, spec: Path, planner: Planner, answers: Mapping[str, Any]) -> None:
    """Raises SpecError with the claims that ask for what their models, by the answers about these, do not have."""
    layers = {model: answer["layers"] for model, answer in answers.items() if isinstance(answer, dict)}
    if problems := claim_problems(job, spec, planner, layers):
        raise SpecError(problems)


def _answers(job: JobSpec, checks: list[dict[str, Any]]) -> list[Any] | str:
    """What the process that builds models says of each; text: why it says nothing."""
    if not checks:
        return []
    _, plugins = with_plugins(job)
    try:
        child = subprocess.run(
            [sys.executable, "-c", CHECK], input=asked(checks, plugins), capture_output=True, text=True,
            timeout=TIMEOUT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"that takes more than {TIMEOUT_S:g} s"
    if child.returncode != 0:
        last = (child.stderr.strip().splitlines() or [f"exit code {child.returncode}"])[-1]
        return f"the process that builds them ended ({last[:200]})"
    answers: list[Any] = json.loads(child.stdout)
    return answers


def _place(spec: Path, model: str) -> str:
    """Where the file first has this value; the file alone if a profile or an override made it."""
    place = next(_places(read(spec).root, model), None)
    return str(place) if place else str(spec)


def _places(node: YamlNode, value: str) -> Iterator[Location]:
    if isinstance(node.value, dict | list):
        for child in node.value.values() if isinstance(node.value, dict) else node.value:
            yield from _places(child, value)
    elif node.value == value:
        yield node.place
