"""The only place that knows which dotted paths a typed spec has, and which of them a misspelt one comes nearest to."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from tasks import spelling


def nearest(word: str, allowed: Iterable[str]) -> str | None:
    """The name that was probably meant: one that ends in the same words, else one spelt alike."""
    names = list(allowed)
    same_end = [name for name in names if name.split(".")[-1] == word or name.endswith("." + word)]
    if same_end:
        return same_end[0]
    return next(iter(spelling.nearest(word, names)), None)


def missing_step(model: type[BaseModel], path: str) -> tuple[int, list[str]] | None:
    """None when the model has the field `path`; else the index of the first step it does not have, and what it has
    there. A path through a tagged union exists when any member has it; below a free mapping every path exists."""
    steps = path.split(".")
    here: list[Any] = [model]
    for index, step in enumerate(steps):
        below = [found for kind in here for found in _below(kind, step)]
        if not below:
            return index, names(model, steps[:index])
        here = below
    return None


def names(model: type[BaseModel], steps: Sequence[str | int]) -> list[str]:
    """Names of the fields of what the steps lead to. A step that is no field is skipped: pydantic's locations also
    name members of unions; then only that member counts, if it is one."""
    here: list[Any] = [model]
    for step in steps:
        below = [found for kind in here for found in _below(kind, step)]
        if below:
            here = below
            continue
        tagged = [kind for kind in _models(here) if _tag(kind) == step]
        here = list(tagged) or here
    return list(dict.fromkeys(field for kind in _models(here) for field in _field_names(kind)))


def leaf_paths(model: type[BaseModel]) -> list[str]:
    """Every dotted path of the model, in its order: all fields, and those below them through every union member."""
    return list(dict.fromkeys(_paths(model)))


def _paths(model: type[BaseModel]) -> Iterator[str]:
    for field in _field_names(model):
        yield field
        for kind in _models(_below(model, field)):
            yield from (f"{field}.{path}" for path in _paths(kind))


def _field_names(model: type[BaseModel]) -> list[str]:
    """As written in a spec: by alias where there is one."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _members(annotation: Any) -> list[Any]:
    """The types that a union or annotated type stands for."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _members(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [member for option in get_args(annotation) for member in _members(option)]
    return [annotation]


def _models(annotations: Iterable[Any]) -> list[type[BaseModel]]:
    members = [member for annotation in annotations for member in _members(annotation)]
    return [member for member in members if isinstance(member, type) and issubclass(member, BaseModel)]


def _below(annotation: Any, step: str | int) -> list[Any]:
    """The types that `step` may lead to."""
    found: list[Any] = []
    for member in _members(annotation):
        origin = get_origin(member)
        if isinstance(member, type) and issubclass(member, BaseModel):
            fields = {field.alias or name: field.annotation for name, field in member.model_fields.items()}
            if step in fields:
                found.append(fields[str(step)])
        elif member is Any or (origin is dict and isinstance(step, str)):
            found.append(Any if member is Any else get_args(member)[1])
        elif origin is list and isinstance(step, int):
            found.append(get_args(member)[0])
    return found


def _tag(model: type[BaseModel]) -> str | None:
    """The value of `kind` that selects this member of a tagged union."""
    kind = model.model_fields.get("kind")
    options = get_args(kind.annotation) if kind and get_origin(kind.annotation) is Literal else ()
    return str(options[0]) if options else None
