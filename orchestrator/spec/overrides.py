"""Applies a profile and overrides to a spec file; every value keeps the place where it is written."""

from __future__ import annotations

import re
from collections.abc import Sequence

from orchestrator.printable import printable
from orchestrator.spec.diagnostics import Problems, offer, shorten
from orchestrator.spec.diagnostics import show as shown
from orchestrator.spec.job import MAX_NAME, MAX_PROFILES, PROFILE, JobSpec
from orchestrator.spec.presets import KEY as PRESET
from orchestrator.spec.presets import presets_of, resolve
from orchestrator.spec.yaml_nodes import MAX_DEPTH, Location, Problem, YamlNode, parse_value
from tasks.bounds import control_character

_ALTERNATIVES = (
    "logspace", "linspace", "grid", "search", "uniform", "loguniform", "int", "choice", "asha", "median",
)  # fmt: skip
"""Keys that tell the forms of a mapping apart, as `kind` does elsewhere."""


def with_profile(root: YamlNode, asked: str | None) -> tuple[YamlNode, list[Problem]]:
    """The file with one profile applied: the one asked for, else the one that its `profile` names, else none."""
    named = root.child("profile")
    name = asked if asked is not None else (named.value if named else "")
    rest = without_profiles(root)
    problems = _wrong_names(root)
    if problems:
        return rest, problems
    if not name and (asked is not None or named is None or named.value == ""):
        return _set(rest, "profile", YamlNode(root.place, "")), []
    place = Location(f"--profile {printable(asked, 60)}") if asked is not None else (named or root).place
    profiles = root.child("profiles")
    known = dict(profiles.value) if profiles and isinstance(profiles.value, dict) else {}
    if not isinstance(name, str) or name not in known:
        what = f"profile: {shown(name)}: no such profile; " + offer(str(name), known, "profiles")
        return rest, [Problem(place, what)]
    over = known[name]
    problems = [
        Problem(over.keys[key], f"profiles.{name}.{key}: a profile cannot change this")
        for key in ("profile", "profiles", "name") if key in over.keys
    ]  # fmt: skip
    if problems:
        return rest, problems
    merged = _merge(rest, over, problems)
    return _set(merged, "profile", YamlNode(place, name)), problems


def _wrong_names(root: YamlNode) -> list[Problem]:
    """Problems of `profiles` itself, whichever is applied: it is a mapping from names like a job's to mappings."""
    profiles = root.child("profiles")
    if profiles is None:
        return []
    if not isinstance(profiles.value, dict):
        what = f"profiles: {shown(profiles.plain())}: must be a mapping from a profile's name to what it changes"
        return [Problem(profiles.place, what)]
    if len(profiles.value) > MAX_PROFILES:
        return [Problem(profiles.place, f"profiles: {len(profiles.value):,} profiles; at most {MAX_PROFILES}")]
    problems = []
    for name, over in profiles.value.items():
        if not re.fullmatch(PROFILE, name) or len(name) > MAX_NAME:
            what = (
                f"profiles: {shown(name)}: a profile's name must look like {PROFILE}, in at most {MAX_NAME} characters"
            )
            problems.append(Problem(profiles.keys[name], what))
        elif not isinstance(over.value, dict):
            what = f"profiles.{name}: {shown(over.plain())}: must be a mapping of what it changes"
            problems.append(Problem(over.place, what))
    return problems


def with_overrides(root: YamlNode, overrides: Sequence[str]) -> tuple[YamlNode, list[Problem]]:
    """The file with each `path=value` set: a field of the base trial, or of the job (stages by their names)."""
    problems: list[Problem] = []
    for override in overrides:
        source = f"--set {printable(override, 100)}"
        path, sign, text = override.partition("=")
        path = path.strip()
        if not sign or not all(path.split(".")):
            problems.append(Problem(Location(source), "write it as path=value, for example optim.epochs=5"))
            continue
        value = parse_value(text, source)
        problems += value.problems
        steps = path.split(".")
        if control_character(path) is not None or len(steps) > MAX_DEPTH:
            problems.append(Problem(Location(source), "a path is plain text, with at most 64 names between its dots"))
            continue
        if steps[0] in ("name", "profile", "profiles"):
            problems.append(Problem(Location(source), f"{steps[0]}: cannot be overridden (a profile: --profile NAME)"))
            continue
        if steps[0] not in JobSpec.model_fields:
            steps = ["trial", *steps]
        if steps[-1] == PRESET and len(steps) > 2 and presets_of(steps[-2]):
            steps = steps[:-1]  # a preset sets the whole field
        found = Problems()
        try:
            root = resolve(_put(root, steps, value.root), found)
            problems += found
        except _NoSuch as error:
            problems.append(Problem(Location(source), f"{path}: {error}"))
    return root, problems


class _NoSuch(Exception):
    """An override names an item that is not in a list. The message names those that are."""


def _put(node: YamlNode, steps: Sequence[str], value: YamlNode) -> YamlNode:
    """`node` with the value at the end of the steps replaced. Unknown keys are added; later checks refuse them."""
    if isinstance(node.value, list):
        index = _index(node, steps[0])
        items = list(node.value)
        items[index] = _put(items[index], steps[1:], value) if len(steps) > 1 else value
        return YamlNode(node.place, items)
    if not isinstance(node.value, dict):
        node = YamlNode(value.place, {}, {})
    assert isinstance(node.value, dict)
    # A key may itself have dots (an axis, `optim.lr`): the longest that exists wins.
    lengths = [n for n in range(len(steps), 0, -1) if ".".join(steps[:n]) in node.value]
    dotted = bool(node.value) and all("." in key for key in node.value)
    length = lengths[0] if lengths else (len(steps) if dotted else 1)
    key, rest = ".".join(steps[:length]), steps[length:]
    if key == "override" and rest:
        rest = [".".join(rest)]
    if not rest:
        return _set(node, key, value)
    return _set(node, key, _put(node.value.get(key, YamlNode(value.place, {}, {})), rest, value))


def _index(node: YamlNode, step: str) -> int:
    """The index of the item that a step means: a stage by its name, any item by its number from 0."""
    assert isinstance(node.value, list)
    items = [_name(item) for item in node.value]
    if step in items:
        return items.index(step)
    if len(step) < 6 and step.isascii() and step.isdigit() and int(step) < len(items):
        return int(step)
    known = [item for item in items if item] or [str(i) for i in range(len(items))]
    raise _NoSuch(f"no {shorten(step)!r} here; " + offer(step, known, "allowed"))


def _merge(base: YamlNode, over: YamlNode, problems: list[Problem]) -> YamlNode:
    """`base` with `over` applied: mappings merge deeply; any other value, and a mapping of another form or kind,
    replaces."""
    if not isinstance(base.value, dict) or not isinstance(over.value, dict) or _other_form(base, over):
        return over
    result = base
    for key, child in over.value.items():
        below = base.value.get(key)
        if key == "stages" and isinstance(child.value, dict):
            if below is None:
                continue  # there is nothing to change: `stages` is reported as missing, or where it is misspelt
            child = _merge_stages(below, child, problems)
        elif below is not None:
            child = _merge(below, child, problems)
        result = _set(result, key, child, over.keys[key] if below is None else base.keys[key])
    return result


def _other_form(base: YamlNode, over: YamlNode) -> bool:
    """True if `over` has another form or kind than `base`, so that their fields must not mix."""
    kind, other = base.child("kind"), over.child("kind")
    if other is not None and (kind is None or kind.value != other.value):
        return True
    forms = {key for key in _ALTERNATIVES if over.child(key) is not None}
    return bool(forms) and forms != {key for key in _ALTERNATIVES if base.child(key) is not None}


def _merge_stages(base: YamlNode, over: YamlNode, problems: list[Problem]) -> YamlNode:
    """Stages by name: each is changed, removed (null), or, if it has a `name` itself, added at the end."""
    assert isinstance(over.value, dict)
    if not isinstance(base.value, list):
        return base  # reported by itself: the base's stages are no list
    stages = list(base.value)
    for name, child in over.value.items():
        index = next((i for i, stage in enumerate(stages) if _name(stage) == name), None)
        if index is not None and child.value is None:
            del stages[index]
        elif index is not None:
            stages[index] = _merge(stages[index], child, problems)
        elif _name(child) == name:
            stages.append(child)
        else:
            stage_names = [stage_name for stage in stages if (stage_name := _name(stage))]
            existing = offer(name, stage_names, "stages")
            new = f"to add a stage, give it its name (name: {name})"
            problems.append(Problem(over.keys[name], f"stages.{name}: no such stage to change; {existing}; {new}"))
    return YamlNode(base.place, stages)


def _name(stage: YamlNode) -> str | None:
    name = stage.child("name")
    return name.value if name and isinstance(name.value, str) else None


def _set(node: YamlNode, key: str, child: YamlNode, place: Location | None = None) -> YamlNode:
    assert isinstance(node.value, dict)
    return YamlNode(node.place, {**node.value, key: child}, {**node.keys, key: place or child.place})


def without_profiles(root: YamlNode) -> YamlNode:
    """A file without its `profiles`."""
    assert isinstance(root.value, dict)
    return YamlNode(root.place, {key: child for key, child in root.value.items() if key != "profiles"}, root.keys)
