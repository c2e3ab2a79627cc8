"""Words the mistakes in a spec: where, which field, what value, what is allowed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from orchestrator.printable import printable
from orchestrator.spec.field_paths import kinds, names, nearest
from orchestrator.spec.job import PLANNER_ONLY, JobSpec
from orchestrator.spec.yaml_nodes import Location, Problem, YamlNode, parse
from tasks import spelling
from tasks.bounds import ONE_LINE, SEVERAL_LINES

MAX_WORD = 200
"""Characters of a wrong word that are compared with the valid ones."""
MAX_OFFERED = 40
"""Valid names that a message lists."""

Steps = Sequence[str | int]


class Problems:
    """The problems of a spec so far, each once, in the order of the text."""

    def __init__(self) -> None:
        self._found: dict[Problem, None] = {}
        self.left_out = 0

    def report(self, place: Location, *parts: str) -> None:
        self.add(Problem(place, ": ".join([*parts[:1], *map(shorten, parts[1:-1]), *parts[1:][-1:]])))

    def report_instead(self, place: Location, *parts: str) -> None:
        """Reports a problem in place of those that are reported at this place."""
        self._found = {problem: None for problem in self._found if problem.place != place}
        self.report(place, *parts)

    def add(self, *problems: Problem) -> None:
        self._found.update(dict.fromkeys(problems))

    def leave_out(self, number: int) -> None:
        """Counts mistakes that are not worded, because there are so many."""
        self.left_out += number

    def places(self) -> set[Location]:
        return {problem.place for problem in self._found}

    def lines(self) -> list[str]:
        """The problems as text, at most `MAX_LINES`, the last of which says how many there are."""
        lines = [str(problem) for problem in itertools.islice(self, MAX_LINES)]
        more = len(self) + self.left_out - len(lines)
        return [*lines, f"... and {more:,} more"] if more else lines

    def __iter__(self) -> Iterator[Problem]:
        return iter(sorted(self._found, key=lambda problem: (problem.place.line, problem.place.column)))

    def __len__(self) -> int:
        return len(self._found)


MAX_LINES = 50
"""Of the problems that are shown."""
_BOUNDS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")

MAX_ERRORS = 200
"""Errors of one model that are worded; a text with more is no spec."""


def causes(errors: Sequence[Any]) -> list[Any]:
    """Those of `ValidationError.errors()` that are mistakes by themselves, at most `MAX_ERRORS`.

    A field that is missing because its name is misspelt is told where the misspelt name stands.
    """
    first = list(errors[:MAX_ERRORS])
    unknown: dict[Any, list[str]] = {}
    for error in first:
        if error["type"] == "extra_forbidden":
            unknown.setdefault(error["loc"][:-1], []).append(str(error["loc"][-1]))
    out_of_bounds: set[Any] = set()
    kept = []
    for error in first:
        above, last = error["loc"][:-1], error["loc"][-1:]
        if error["type"] == "missing" and nearest(str(last[0]), unknown.get(above, ())):
            continue
        if error["type"] in _BOUNDS and isinstance(last[0], int):
            if above in out_of_bounds:
                continue  # both ends of one range
            out_of_bounds.add(above)
        kept.append(error)
    return kept


def problem_from_pydantic(model: type[BaseModel], error: Any, root: YamlNode, prefix: Steps = ()) -> Problem:
    """One of `ValidationError.errors()` of `model` as a problem; `model` was validated from `root` below `prefix`."""
    loc, of_key = exact(error)
    inner = _without_kinds(root.find(prefix), [step for step in loc if step != "[key]"])
    place = root.place_of([*prefix, *inner], key=of_key)
    name = dotted(root, [*prefix, *inner], is_missing=error["type"] == "missing")
    return Problem(place, f"{name}: {wording(model, error)}")


def _without_kinds(node: YamlNode | None, loc: Steps) -> list[str | int]:
    """A location from pydantic without the kinds that tell the members of a union apart: a kind may be a field too."""
    steps: list[str | int] = []
    told = False
    for step in loc:
        kind = node.child("kind") if node and not told else None
        if kind is not None and kind.value == step:
            told = True
            continue
        steps.append(step)
        below = node.child(step) if node else None
        node, told = below or node, told and below is None
    return steps


def exact(error: Any) -> tuple[list[str | int], bool]:
    """The location of an error, down to the `kind` that is wrong or misspelt; and whether it is the key there."""
    loc = list(error["loc"])
    if error["type"] == "union_tag_invalid":
        return [*loc, "kind"], False
    if error["type"] == "union_tag_not_found" and (misspelt := _misspelt_kind(error)):
        return [*loc, misspelt], True
    return loc, "[key]" in loc or error["type"] == "extra_forbidden"


def _misspelt_kind(error: Any) -> str | None:
    """The key of a mapping without `kind` that was probably meant to be it."""
    return nearest("kind", error["input"]) if isinstance(error["input"], dict) else None


def wording(model: type[BaseModel], error: Any) -> str:
    """The message for an error: the value, what is wrong with it, what is allowed, and the nearest valid name."""
    kind, context = error["type"], error.get("ctx", {})
    loc = [step for step in error["loc"] if step != "[key]"]
    if kind == "missing":
        return f"missing item {loc[-1] + 1}" if isinstance(loc[-1], int) else "missing"
    if kind == "extra_forbidden":
        allowed = [name for name in names(model, loc[:-1]) if name not in PLANNER_ONLY]
        allowed += ["profiles"] if model is JobSpec and len(loc) == 1 else []
        return f"{show(error['input'])}: no such field; " + offer_fields(str(loc[-1]), allowed)
    if kind == "union_tag_invalid":
        tag = error["input"]["kind"]
        return f"{show(tag)}: no such kind; {offer(str(tag), _quoted(context['expected_tags']), 'kinds')}"
    if kind == "union_tag_not_found":
        known = f"kinds: {', '.join(kinds(model, loc))}"
        misspelt = _misspelt_kind(error)
        return f"no such field; nearest: kind; {known}" if misspelt else f"needs `kind`; {known}"
    if kind == "value_error" and isinstance(error["input"], dict):
        return str(context["error"])  # about several fields, whose values it names itself
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"{show(error['input'])}: must be a mapping{_form(model, loc)}"
    return f"{show(error['input'])}: {_what(kind, context, error)}"


def _form(model: type[BaseModel], loc: list[str | int]) -> str:
    """What belongs into a mapping: "; fields: name, sweep", or its kinds where the fields depend on `kind`."""
    if known := kinds(model, loc):
        return f" with `kind`; kinds: {', '.join(known)}"
    fields = [name for name in names(model, loc) if name not in PLANNER_ONLY]
    more = f", ... ({len(fields)} in all)" if len(fields) > FEW_FIELDS else ""
    return f"; fields: {', '.join(fields[:FEW_FIELDS])}{more}" if fields else ""


SHOWN = 60
"""Characters of a value in a message."""


def show(value: Any) -> str:
    """A value as it would be written in YAML, in at most `SHOWN` characters."""
    if isinstance(value, str) and len(value) > SHOWN:
        return shorten(value)
    bare = isinstance(value, str) and isinstance(parse(value, "").root.value, str)  # else '5' would look like 5
    text = str(value) if bare else json.dumps(_start(value), default=str, ensure_ascii=False)
    return shorten(text)


def _start(value: Any, depth: int = 3) -> Any:
    """The beginning of a value, enough for `SHOWN` characters, so that a large one is never written out."""
    if isinstance(value, str):
        return value[: SHOWN + 1]
    if isinstance(value, dict | list) and depth == 0:
        return "..."
    if isinstance(value, dict):
        return {str(key)[: SHOWN + 1]: _start(value[key], depth - 1) for key in itertools.islice(value, SHOWN)}
    return [_start(each, depth - 1) for each in value[:SHOWN]] if isinstance(value, list) else value


def shorten(text: str) -> str:
    """The beginning of a text, in at most `SHOWN` characters, in one line."""
    start = printable(text[: SHOWN + 1])
    return start if len(text) <= SHOWN and len(start) <= SHOWN else start[: SHOWN - 3] + "..."


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
        if name is not None and isinstance(name.value, str):
            parts.append(shorten(name.value))
        elif isinstance(step, str) or child is not None:
            parts.append(shorten(str(step)))
        node = child or node
    return ".".join(parts)


def offer(word: str, allowed: Collection[str], what: str) -> str:
    """Lists the allowed names and the one that was probably meant: "stages: grid, final; nearest: grid"."""
    listed = [shorten(name) for name in itertools.islice(allowed, MAX_OFFERED)]
    more = f", ... ({len(allowed)} in all)" if len(allowed) > MAX_OFFERED else ""
    return f"{what}: {', '.join(listed) or 'none'}{more}{nearest_hint(word, allowed)}"


FEW_FIELDS = 12
"""Of more fields than this, a message names those that are spelt like the wrong one, if there are any."""


def offer_fields(word: str, allowed: Collection[str], what: str = "fields", near: Collection[str] | None = None) -> str:
    """As `offer`, shorter: "fields of task: dataset, ... (31 in all); nearest: task.dataset".

    `near`: the names of which the nearest one is told, where those are not `allowed`, but whole paths.
    """
    alike = spelling.nearest(word.rpartition(".")[2][:MAX_WORD], allowed, count=3) if len(allowed) > FEW_FIELDS else []
    shown = f"{', '.join(alike)}, ... ({len(allowed)} in all)" if alike else ", ".join(allowed) or "none"
    return f"{what}: {shown}{nearest_hint(word, allowed if near is None else near)}"


def nearest_hint(word: str, allowed: Collection[str]) -> str:
    """ "; nearest: NAME" for the allowed name that was probably meant; "" if none is close."""
    near = nearest(word[:MAX_WORD], allowed)
    return f"; nearest: {near}" if near else ""


_PLAIN_WORDS = {
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
}
"""pydantic's kinds of errors about types, in words of YAML."""

FORMS = {
    "sweep": ("grid", "search", "kind"),
    "axis": ("logspace", "linspace"),
    "range": ("uniform", "loguniform", "int", "choice"),
    "stopping": ("asha", "median"),
    "dataset": ("kind",),
    "union_tag_not_found": ("kind",),
}
"""Kinds of errors about the form of a mapping -> the keys that tell the forms apart."""


def _what(kind: str, context: Any, error: Any) -> str:
    value = str(error["input"])[:MAX_WORD]
    if kind in _PLAIN_WORDS:
        scalar = isinstance(error["input"], int | float) and kind == "string_type"
        return _PLAIN_WORDS[kind] + ("; put it in quotes" if scalar else "")
    if kind == "literal_error":
        return "not allowed; " + offer(value, _quoted(context["expected"]), "allowed")
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_pattern_mismatch":
        one_line = context["pattern"] in (ONE_LINE, SEVERAL_LINES)
        return "must be plain text without control characters" if one_line else f"must look like {context['pattern']}"
    if kind == "too_short" and not context["actual_length"]:
        return f"empty; must have at least {context['min_length']} item"
    if kind == "too_long":
        length = context["actual_length"]
        return f"{f'{length:,} items' if length else 'too many items'}; at most {context['max_length']:,}"
    if kind == "string_too_long":
        return f"{len(str(error['input'])):,} characters; at most {context['max_length']}"
    text = str(error["msg"])
    if text.startswith("Input should be"):
        text = "must be" + text.removeprefix("Input should be")
    if kind in FORMS and isinstance(error["input"], dict):
        near = (nearest_hint(str(key), FORMS[kind]) for key in itertools.islice(error["input"], 10))
        text += next((hint for hint in near if hint), "")
    return text[:1].lower() + text[1:]


def _quoted(text: Any) -> list[str]:
    """The names in pydantic's "'a', 'b' or 'c'"."""
    return [part.strip(" '") for part in str(text).replace(" or ", ", ").split(",")]
