"""Checks that this version can still make the trials of a recorded job."""

from __future__ import annotations

from pydantic import ValidationError

from orchestrator.errors import SpecError
from orchestrator.launch.other_jobs import assume_all
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.spec.diagnostics import causes, exact, wording
from orchestrator.spec.job import JobSpec
from workers.trial import TrialSpec


def check_recorded_trials(job: JobSpec, name: str) -> None:
    """Raises SpecError where a trial is refused now, such as one of a model that this version of timm has no more."""
    try:
        Planner(assume_all(job), DurationModel())
    except ValidationError as error:
        remedy = "this version refuses what an earlier one recorded: install what it ran with, or submit a mended spec"
        wrong = [(".".join(map(str, exact(each)[0])), wording(TrialSpec, each)) for each in causes(error.errors())]
        raise SpecError([f"{name}: {path}: {words}; {remedy}" for path, words in wrong]) from error
