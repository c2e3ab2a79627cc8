"""The base of all models of a spec: frozen, without unknown fields, and strict about types."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class SpecModel(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,  # the text '5' is not a number, and `true` is not a count
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        populate_by_name=True,
    )
