"""Job ids survive new fields: what is added to a model of a spec changes no id while it is at its default."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import BaseModel, Field

from orchestrator.spec.identity import ALWAYS_HASHED, hashed_content
from orchestrator.spec.job import JobSpec, Resources, Stage, job_id

EVERYTHING: dict[str, Any] = {
    "name": "everything",
    "profile": "full",
    "trial": {"task": {"kind": "classify", "dataset": "digits"}, "optim": {"lr": 1e-3}},
    "stages": [
        {"name": "one", "resources": {"gpus": 0.5, "custom": {"a100": 1}, "time_limit_hours": 2}},
        {"name": "grid", "per": "task.dataset", "sweep": {"grid": [
            {"optim.lr": {"logspace": [1e-4, 1e-2, 3]}, "optim.layer_decay": {"linspace": [0.7, 0.9, 3]}},
            {"optim.lr": [1e-3], "seed": [0, 1]},
        ]}},
        {"name": "asha", "sweep": {
            "search": {"optim.lr": {"loguniform": [1e-4, 1e-2]}, "optim.layer_decay": {"uniform": [0.7, 1]},
                       "optim.epochs": {"int": [4, 8], "log": True}, "backbone.drop_path": {"choice": [0, 0.1]}},
            "each": {"task.dataset": ["digits"]}, "trials": 4, "stopping": {"asha": {"grace_epochs": 2}},
        }},
        {"name": "median", "sweep": {"search": {"optim.lr": {"uniform": [1e-3, 1e-2]}}, "trials": 4,
                                     "stopping": {"median": {"grace_epochs": 2}}}},
        {"name": "population", "sweep": {"search": {"optim.lr": {"uniform": [1e-3, 1e-2]}}, "trials": 2,
                                         "population": {"size": 2, "every_epochs": 1}}},
        {"name": "refine", "from": "grid", "neighbourhood": {"near": {"optim.lr": {"multiply": [0.5, 2]}}}},
    ],
    "report": {
        "averages": [{"name": "Mean", "over": ["digits"]}],
        "reference": {"source": "Table 1", "values": {"RAND": {"digits": 90.0}}},
        "plots": [{"x": "avg_dist"}],
    },
}  # fmt: skip
"""A job that uses every model and leaves most fields at their default."""


class LaterResources(Resources):
    disk_gigabytes: float | None = None


class LaterStage(Stage):
    resources: LaterResources | None = None
    tags: list[str] = Field(default_factory=list)


class LaterJob(JobSpec):
    """The job of a later version: fields added at the top, in a list of models, and two levels down."""

    stages: list[LaterStage]  # type: ignore[assignment]
    owner: str = ""


def later(**fields: Any) -> LaterJob:
    return LaterJob.model_validate({**EVERYTHING, **fields})


def with_stage(**fields: Any) -> list[dict[str, Any]]:
    return [{**EVERYTHING["stages"][0], **fields}, *EVERYTHING["stages"][1:]]


def test_id_of_a_job_with_every_model_is_the_recorded_one() -> None:
    assert job_id(JobSpec.model_validate(EVERYTHING)) == "everything-full-cbcca9ab"


def test_a_new_version_of_keys_makes_another_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Results of both versions in one group, and a choice from the earlier ones, would be a mixture."""
    before = job_id(JobSpec.model_validate(EVERYTHING))
    monkeypatch.setattr("orchestrator.spec.job.KEY_VERSION", 2)
    assert job_id(JobSpec.model_validate(EVERYTHING)) != before


def test_every_model_that_is_listed_is_used_by_that_job() -> None:
    def models(value: Any) -> set[str]:
        if isinstance(value, BaseModel):
            return {type(value).__name__}.union(*(models(getattr(value, name)) for name in type(value).model_fields))
        if isinstance(value, dict):
            return set().union(*map(models, value.values()))
        return set().union(*map(models, value)) if isinstance(value, list | tuple) else set()

    assert models(JobSpec.model_validate(EVERYTHING)) == set(ALWAYS_HASHED)


def test_fields_added_later_change_no_id_at_their_default() -> None:
    today = JobSpec.model_validate(EVERYTHING)
    assert hashed_content(later()) == hashed_content(today)
    assert job_id(later(owner="", stages=with_stage(tags=[]))) == job_id(today)


@pytest.mark.parametrize(
    "change",
    [
        {"owner": "me"},
        {"stages": with_stage(tags=["a"])},
        {"stages": with_stage(resources={**EVERYTHING["stages"][0]["resources"], "disk_gigabytes": 3.0})},
        {"trial": {**EVERYTHING["trial"], "new": None}},
    ],
    ids=["job", "stage", "resources of a stage", "trial"],
)
def test_fields_added_later_change_the_id_when_set(change: dict[str, Any]) -> None:
    assert job_id(later(**change)) != job_id(later())


def test_fields_of_today_are_hashed_at_their_default() -> None:
    content = hashed_content(JobSpec.model_validate(EVERYTHING))
    assert content["priority"] == 0
    assert content["stages"][0]["from"] == []
    assert content["stages"][0]["resources"]["workers"] == 1


def test_the_list_names_models_and_fields_that_exist() -> None:
    def models(kind: Any) -> dict[str, type[BaseModel]]:
        own: dict[str, type[BaseModel]] = {}
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            own[kind.__name__] = kind
            for field in kind.model_fields.values():
                own |= models(field.annotation)
        for part in get_args(kind):
            own |= models(part)
        return own

    known = models(JobSpec)
    for name, fields in ALWAYS_HASHED.items():
        assert fields <= set(known[name].model_fields), name
