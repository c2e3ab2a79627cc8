"""Writes the reference of all fields of a spec as Markdown, from their models: name, type, default, description."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.spec.json_schema import json_schema

Schema = dict[str, Any]

FIRST = ("TrialSpec", "BackboneSpec", "OptimSpec", "RuntimeSpec", "Stage", "Resources", "ReportSpec")
"""Sections after the job's own, in this order; tasks follow, then all that any of them holds."""
HEAD = """\
# Fields of a spec

Written by `python -m orchestrator schema --markdown`; `python -m orchestrator schema` prints the same as JSON Schema,
with which editors complete and check a spec.

A field is written at its path: `optim.lr` is `lr` of [OptimSpec](#optimspec) in `trial.optim`. A field without a
default must be set, in `trial`, or as an axis or override of each stage. Fields named in an override, an axis or
`--set` have no `trial.` before them.
"""


def markdown() -> str:
    """The reference, one section for each model."""
    schema = json_schema()
    definitions: dict[str, Schema] = schema["$defs"]
    tasks = [_named(each) for each in definitions["TrialSpec"]["properties"]["task"]["oneOf"]]
    order = [*FIRST, *tasks, *(name for name in definitions if name not in (*FIRST, *tasks))]
    sections = [HEAD, *_section("Job", schema, "The whole file.")]
    for name in order:
        sections += _section(name, definitions[name])
    return "\n".join(sections).rstrip() + "\n"


def _section(name: str, model: Schema, about: str | None = None) -> Iterator[str]:
    yield f"## {name}\n"
    if text := about or model.get("description", ""):
        yield _text(text).replace("<br>", "\n\n") + "\n"
    if not model.get("properties"):
        return
    yield "| field | type | default | |"
    yield "| --- | --- | --- | --- |"
    for field, body in model["properties"].items():
        default = f"`{_short(body['default'])}`" if "default" in body else ""
        cells = (f"`{field}`", _type(body), default, _text(body.get("description", "")))
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield ""


def _type(body: Mapping[str, Any]) -> str:
    """The type in words, with its bounds; a model as a link to its section."""
    if "$ref" in body:
        name = _named(body)
        return f"[{name}](#{name.lower()})"
    if "const" in body:
        return f"`{body['const']}`"
    if "enum" in body:
        return ", ".join(f"`{value}`" for value in body["enum"])
    for several in ("anyOf", "oneOf", "allOf"):
        if several in body:
            return " or ".join(dict.fromkeys(_type(each) for each in body[several]))
    kind = body.get("type", "any")
    if kind == "array":
        items = body.get("prefixItems")
        return f"[{', '.join(map(_type, items))}]" if items else f"list of {_type(body.get('items', {}))}"
    if kind == "object":
        values = body.get("additionalProperties")
        return f"mapping to {_type(values)}" if isinstance(values, dict) and values else "mapping"
    words = {"integer": "whole number", "string": "text", "boolean": "true or false", "null": "null"}
    return f"{words.get(kind, kind)}{_bounds(body)}"


def _bounds(body: Mapping[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return "".join(f" {sign} {_number(body[name])}" for name, sign in signs.items() if name in body)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def _named(body: Mapping[str, Any]) -> str:
    return str(body["$ref"]).rpartition("/")[2]


def _short(value: Any) -> str:
    """A default in one line; of a model, that it is the model's own."""
    text = json.dumps(value, ensure_ascii=False)
    return "its own" if isinstance(value, dict) and len(text) > 60 else text


def _text(text: str) -> str:
    """A docstring in one line of a table; its paragraphs stay apart."""
    return re.sub(
        r"<(?!br>)", "&lt;", "<br>".join(" ".join(part.split()) for part in re.split(r"\n\s*\n", text.strip()))
    )
