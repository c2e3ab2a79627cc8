"""Reduces the JSON of a trial's spec to the part that identifies the trial."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from tasks.backbones.spec import INITS


def key_content(model: BaseModel) -> dict[str, Any]:
    """The part of a model that identifies it, as JSON values: without the fields at their default; what tells the
    members of a union apart stays."""
    plain = model.model_dump(mode="json")
    content: dict[str, Any] = {}
    for name, field_ in type(model).model_fields.items():
        value = getattr(model, name)
        if name != "kind" and not field_.is_required() and value == field_.get_default(call_default_factory=True):
            continue
        content[name] = _content(value, plain[name])
    if type(model) in INITS:
        content.pop("name", None)  # a label
        if content.get("sha256"):
            content.pop("path", None)
    return content


def _content(value: Any, plain: Any) -> Any:
    """`plain`, the JSON of a value, with the models in it at any depth as `key_content` has them."""
    if isinstance(plain, dict) and isinstance(value, dict):
        return {key: _content(own, below) for own, (key, below) in zip(value.values(), plain.items(), strict=True)}
    if isinstance(plain, list) and isinstance(value, list | tuple):
        return [_content(own, below) for own, below in zip(value, plain, strict=True)]
    return key_content(value) if isinstance(plain, dict) and isinstance(value, BaseModel) else plain
