"""`kind` is resolved to a task's class in one place, for Python, for pydantic and for the JSON schema."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError
from tiny_task import Tiny

from tasks import TASKS, AnyTask, task_class
from tasks.classification.task import Classify
from tasks.pretraining.task import Pretrain
from workers.trial import TrialSpec

DIGITS = {"kind": "classify", "dataset": "digits"}


class ByPydantic(BaseModel):
    """Pydantic's own union, to compare with."""

    task: Annotated[reduce(or_, TASKS.values()), Field(discriminator="kind")]


class ByKind(BaseModel):
    task: AnyTask


def errors(model: type[BaseModel], content: Any) -> list[Any]:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(content)
    return caught.value.errors(include_url=False)


def test_a_kind_is_a_class() -> None:
    assert [task_class(kind) for kind in ("classify", "pretrain")] == [Classify, Pretrain]
    assert all(task.model_fields["kind"].default == kind for kind, task in TASKS.items())
    with pytest.raises(ValueError, match=r"'pretrian': no such kind; kinds: classify, pretrain"):
        task_class("pretrian")


@pytest.mark.parametrize(
    "task", [{"kind": "clasify"}, {"dataset": "digits"}, {**DIGITS, "evaluate": "tset"}, {**DIGITS, "mask_patch": 4}, 5]
)
def test_errors_and_schema_are_those_of_a_union(task: Any) -> None:
    assert errors(ByKind, {"task": task}) == errors(ByPydantic, {"task": task})
    schemas = [model.model_json_schema() for model in (ByKind, ByPydantic)]
    assert schemas[0]["properties"] == schemas[1]["properties"]
    assert schemas[0]["$defs"] == schemas[1]["$defs"]


def test_json_is_read_strictly() -> None:
    """In JSON a list stands for a tuple, and the text '5' for no number."""
    text = '{"task": {"kind": "classify", "dataset": "digits", "augment": {"crop_scale": [0.5, 1]}}}'
    task = ByKind.model_validate_json(text, strict=True).task
    assert task.augment.crop_scale == (0.5, 1)  # type: ignore[attr-defined]
    with pytest.raises(ValidationError, match=r"task\.classify\.augment\.crop_scale\.0"):
        ByKind.model_validate_json(text.replace("0.5", '"0.5"'), strict=True)


class Added(Tiny):
    kind: Literal["added"] = "added"  # type: ignore[assignment]


def test_a_task_that_is_added_later_is_a_kind_like_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "added", Added)
    try:
        TrialSpec.model_rebuild(force=True)
        trial = TrialSpec.model_validate({
            "task": {"kind": "added", "images": 16},
            "backbone": {"model": "vit_tiny_patch16_224", "image_size": 4},
            "optim": {"lr": 0.1, "batch": 4},
        })  # fmt: skip
        assert type(trial.task) is Added
        assert TrialSpec.model_validate(trial.model_dump(mode="json")) == trial
        assert {"$ref": "#/$defs/Added"} in TrialSpec.model_json_schema()["properties"]["task"]["oneOf"]
        (error,) = errors(TrialSpec, trial.model_dump() | {"task": {"kind": "x"}})
        assert error["ctx"]["expected_tags"] == ", ".join(map(repr, TASKS))
    finally:
        monkeypatch.undo()
        TrialSpec.model_rebuild(force=True)
    with pytest.raises(ValidationError, match="'classify', 'pretrain'"):
        TrialSpec.model_validate({"task": {"kind": "added"}})
