"""Lists the dotted paths of a pydantic model, and finds the one that a misspelt path probably means."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from tasks import TASKS, spelling
from tasks.base import Task


def nearest(word: str, allowed: Iterable[str]) -> str | None:
    """The name that was probably meant: one that ends in `word`, else one with a similar spelling."""
    names = list(allowed)
    same_end = [name for name in names if name.split(".")[-1] == word or name.endswith("." + word)]
    if same_end:
        return same_end[0]
    return next(iter(spelling.nearest(word, names)), None)


def missing_step(model: type[BaseModel], path: str) -> tuple[int, list[str]] | None:
    """None if the model has the field `path`; else the index of the first step that it lacks, and the fields that it
    has there. A path through a tagged union exists if any member has it; below a free mapping every path exists."""
    steps = path.split(".")
    level: list[Any] = [model]
    for index, step in enumerate(steps):
        below = [annotation for each in level for annotation in _below(each, step)]
        if not below:
            return index, names(model, steps[:index])
        level = below
    return None


def names(model: type[BaseModel], steps: Sequence[str | int]) -> list[str]:
    """Names of the fields that the steps lead to. A step may also name the member of a union, as in pydantic's
    locations; then only that member's fields count. Any other step that is not a field is skipped."""
    level: list[Any] = [model]
    for step in steps:
        members = _models(level)
        tagged = [kind for kind in members if _tag(kind) == step]
        if tagged and len(members) > 1:  # first: `stage` is a kind of initial weights and a field of that kind
            level = list(tagged)
            continue
        level = [annotation for each in level for annotation in _below(each, step)] or list(tagged) or level
    return list(dict.fromkeys(field for kind in _models(level) for field in _field_names(kind)))


def kinds(model: type[BaseModel], steps: Sequence[str | int]) -> list[str]:
    """The values of `kind` that select a member of the tagged union to which the steps lead."""
    level: list[Any] = [model]
    for step in steps:
        level = [annotation for each in level for annotation in _below(each, step)] or level
    return [tag for member in _models(level) if (tag := _tag(member)) is not None]


def leaf_paths(model: type[BaseModel]) -> list[str]:
    """Every dotted path of the model, in its order: all fields, and those below them through every union member."""
    return list(dict.fromkeys(_paths(model)))


def _paths(model: type[BaseModel]) -> Iterator[str]:
    for field in _field_names(model):
        yield field
        for kind in _models(_below(model, field)):
            yield from (f"{field}.{path}" for path in _paths(kind))


def _field_names(model: type[BaseModel]) -> list[str]:
    """Field names as written in a spec: the alias if there is one."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _members(annotation: Any) -> list[Any]:
    """The members of a union or annotated type, for a task those of every kind; any other type alone."""
    if annotation is Task:
        return list(TASKS.values())
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
    """The types to which `step` may lead."""
    below: list[Any] = []
    for member in _members(annotation):
        origin = get_origin(member)
        if isinstance(member, type) and issubclass(member, BaseModel):
            fields = {field.alias or name: field.annotation for name, field in member.model_fields.items()}
            if step in fields:
                below.append(fields[str(step)])
        elif member is Any or (origin is dict and isinstance(step, str)):
            below.append(Any if member is Any else get_args(member)[1])
        elif origin is list and isinstance(step, int):
            below.append(get_args(member)[0])
    return below


def _tag(model: type[BaseModel]) -> str | None:
    """The value of `kind` that selects this member of a tagged union."""
    kind = model.model_fields.get("kind")
    options = get_args(kind.annotation) if kind and get_origin(kind.annotation) is Literal else ()
    return str(options[0]) if options else None
