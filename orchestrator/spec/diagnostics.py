"""Words the mistakes in a spec: where, which field, what value, what is allowed."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from orchestrator.spec.field_paths import names, nearest
from orchestrator.spec.job import PLANNER_ONLY, JobSpec
from orchestrator.spec.yaml_nodes import Location, Problem, YamlNode, parse

Steps = Sequence[str | int]


class Problems:
    """The problems of a spec so far, each once, in the order of the text."""

    def __init__(self) -> None:
        self._found: dict[Problem, None] = {}

    def report(self, place: Location, *parts: str) -> None:
        self.add(Problem(place, ": ".join(parts)))

    def add(self, *problems: Problem) -> None:
        self._found.update(dict.fromkeys(problems))

    def places(self) -> set[Location]:
        return {problem.place for problem in self._found}

    def __iter__(self) -> Iterator[Problem]:
        return iter(sorted(self._found, key=lambda problem: (problem.place.line, problem.place.column)))

    def __len__(self) -> int:
        return len(self._found)


def problem_from_pydantic(model: type[BaseModel], error: Any, root: YamlNode, prefix: Steps = ()) -> Problem:
    """One of `ValidationError.errors()` of `model` as a problem; `model` was validated from `root` below `prefix`."""
    inner: Steps = [step for step in error["loc"] if step != "[key]"]
    of_key = len(inner) < len(error["loc"]) or error["type"] == "extra_forbidden"
    place = root.place_of([*prefix, *inner], key=of_key)
    name = dotted(root, [*prefix, *inner], is_missing=error["type"] == "missing")
    return Problem(place, f"{name}: {wording(model, error)}")


def wording(model: type[BaseModel], error: Any) -> str:
    """The message for an error: the value, what is wrong with it, what is allowed, and the nearest valid name."""
    kind, context = error["type"], error.get("ctx", {})
    loc = [step for step in error["loc"] if step != "[key]"]
    if kind == "missing":
        return "missing"
    if kind == "extra_forbidden":
        allowed = [name for name in names(model, loc[:-1]) if name not in PLANNER_ONLY]
        allowed += ["profiles"] if model is JobSpec and len(loc) == 1 else []
        return f"{show(error['input'])}: no such field; " + offer(str(loc[-1]), allowed, "fields")
    if kind == "value_error" and isinstance(error["input"], dict):
        return str(context["error"])  # about several fields, whose values it names itself
    return f"{show(error['input'])}: {_what(kind, context, error)}"


def show(value: Any) -> str:
    """A value as it would be written in YAML, in at most 60 characters."""
    bare = isinstance(value, str) and isinstance(parse(value, "").root.value, str)  # else '5' would look like 5
    text = str(value) if bare else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def dotted(root: YamlNode, steps: Steps, is_missing: bool = False) -> str:
    """The name of a field: stages by their names, without the union members in pydantic's locations.

    `is_missing`: the last step is a field although `root` does not have it.
    """
    parts: list[str] = []
    node: YamlNode | None = root
    for i, step in enumerate(steps):
        child = node.child(step) if node else None
        if child is None and not (is_missing and i == len(steps) - 1):
            continue
        name = child.child("name") if child and isinstance(step, int) else None
        if name is not None:
            parts.append(str(name.value))
        elif isinstance(step, str) or child is not None:
            parts.append(str(step))
        node = child or node
    return ".".join(parts)


def offer(word: str, allowed: Collection[str], what: str) -> str:
    """Lists the allowed names and the one that was probably meant: "stages: grid, final; nearest: grid"."""
    return f"{what}: {', '.join(allowed) or 'none'}{nearest_hint(word, allowed)}"


def nearest_hint(word: str, allowed: Collection[str]) -> str:
    """ "; nearest: NAME" for the allowed name that was probably meant; "" if none is close."""
    near = nearest(word, allowed)
    return f"; nearest: {near}" if near else ""


def _what(kind: str, context: Any, error: Any) -> str:
    value = str(error["input"])
    if kind == "literal_error":
        return "not allowed; " + offer(value, _quoted(context["expected"]), "allowed")
    if kind == "union_tag_invalid":
        return f"no such kind; {offer(str(context['tag']), _quoted(context['expected_tags']), 'kinds')}"
    if kind == "union_tag_not_found":
        return "needs `kind`"
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_pattern_mismatch":
        return f"must look like {context['pattern']}"
    if kind == "too_short" and not context["actual_length"]:
        return f"empty; must have at least {context['min_length']} item"
    text = str(error["msg"]).replace("be an object", "be a mapping").replace("a valid dictionary", "a mapping")
    if text.startswith("Input should be"):
        return "must be" + text.removeprefix("Input should be")
    return text[:1].lower() + text[1:]


def _quoted(text: Any) -> list[str]:
    """The names in pydantic's "'a', 'b' or 'c'"."""
    return [part.strip(" '") for part in str(text).replace(" or ", ", ").split(",")]
