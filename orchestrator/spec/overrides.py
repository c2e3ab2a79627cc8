"""The only place that lays a profile and overrides over what a spec file says; every value keeps its place."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.spec.diagnostics import offer
from orchestrator.spec.job import JobSpec
from orchestrator.spec.yaml_nodes import Location, Problem, YamlNode, parse_value

_ALTERNATIVES = (
    "logspace", "linspace", "grid", "search", "uniform", "loguniform", "int", "choice", "asha", "median",
)  # fmt: skip
"""Keys that say which of several forms a mapping has, as `kind` does elsewhere."""


def with_profile(root: YamlNode, asked: str | None) -> tuple[YamlNode, list[Problem]]:
    """The file with one profile laid over: the one asked for, else the one its `profile` names, else none."""
    named = root.child("profile")
    profiles = root.child("profiles")
    name = asked if asked is not None else (named.value if named else "")
    rest = _without(root, "profiles")
    if not name and (asked is not None or named is None or named.value == ""):
        return _set(rest, "profile", YamlNode(root.place, "")), []
    place = Location(f"--profile {asked}") if asked is not None else (named or root).place
    known = dict(profiles.value) if profiles and isinstance(profiles.value, dict) else {}
    if profiles and not isinstance(profiles.value, dict):
        return rest, [Problem(profiles.place, "profiles: must be a mapping from a profile's name to what it changes")]
    if not isinstance(name, str) or name not in known:
        return rest, [Problem(place, f"profile: {name}: no such profile; " + offer(str(name), known, "profiles"))]
    over = known[name]
    if not isinstance(over.value, dict):
        return rest, [Problem(over.place, f"profiles.{name}: must be a mapping of what it changes")]
    problems = [
        Problem(over.keys[key], f"profiles.{name}.{key}: a profile cannot change this")
        for key in ("profile", "profiles", "name") if key in over.keys
    ]  # fmt: skip
    if problems:
        return rest, problems
    laid = _lay(rest, over, problems)
    return _set(laid, "profile", YamlNode(place, name)), problems


def with_overrides(root: YamlNode, overrides: Sequence[str]) -> tuple[YamlNode, list[Problem]]:
    """The file with each `path=value` set: a field of the base trial, or of the job (stages by their names)."""
    problems: list[Problem] = []
    for override in overrides:
        source = f"--set {override}"
        path, sign, text = override.partition("=")
        path = path.strip()
        if not sign or not all(path.split(".")):
            problems.append(Problem(Location(source), "write it as path=value, for example optim.epochs=5"))
            continue
        value = parse_value(text, source)
        problems += value.problems
        steps = path.split(".")
        if steps[0] in ("name", "profile", "profiles"):
            problems.append(Problem(Location(source), f"{steps[0]}: cannot be overridden (a profile: --profile NAME)"))
            continue
        if steps[0] not in JobSpec.model_fields:
            steps = ["trial", *steps]
        try:
            root = _put(root, steps, value.root)
        except _NoSuch as error:
            problems.append(Problem(Location(source), f"{path}: {error}"))
    return root, problems


class _NoSuch(Exception):
    """An override leads through something that is not there. The message says what is."""


def _put(node: YamlNode, steps: Sequence[str], value: YamlNode) -> YamlNode:
    """`node` with what the steps lead to replaced. New keys are made: the checks after this refuse unknown ones."""
    if isinstance(node.value, list):
        at = _index(node, steps[0])
        items = list(node.value)
        items[at] = _put(items[at], steps[1:], value) if len(steps) > 1 else value
        return YamlNode(node.place, items)
    if not isinstance(node.value, dict):
        node = YamlNode(value.place, {}, {})
    assert isinstance(node.value, dict)
    # A key may itself have dots (an axis, `optim.lr`): the longest that is there wins.
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
    """Which item of a list a step means: a stage by its name, anything by its number from 0."""
    assert isinstance(node.value, list)
    items = [_name(item) for item in node.value]
    if step in items:
        return items.index(step)
    if step.isdigit() and int(step) < len(items):
        return int(step)
    known = [item for item in items if item] or [str(i) for i in range(len(items))]
    raise _NoSuch(f"no {step!r} there; " + offer(step, known, "there are"))


def _lay(base: YamlNode, over: YamlNode, problems: list[Problem]) -> YamlNode:
    """Mappings merge deeply; anything else, and a mapping of another form or kind, replaces."""
    if not isinstance(base.value, dict) or not isinstance(over.value, dict) or _form(base, over):
        return over
    result = base
    for key, child in over.value.items():
        below = base.value.get(key)
        if key == "stages" and below is not None and isinstance(child.value, dict):
            child = _lay_stages(below, child, problems)
        elif below is not None:
            child = _lay(below, child, problems)
        result = _set(result, key, child, over.keys[key] if below is None else base.keys[key])
    return result


def _form(base: YamlNode, over: YamlNode) -> bool:
    """Whether `over` is of another form (or kind) than `base`, so that their fields must not mix."""
    kind, other = base.child("kind"), over.child("kind")
    if other is not None and (kind is None or kind.value != other.value):
        return True
    forms = {key for key in _ALTERNATIVES if over.child(key) is not None}
    return bool(forms) and forms != {key for key in _ALTERNATIVES if base.child(key) is not None}


def _lay_stages(base: YamlNode, over: YamlNode, problems: list[Problem]) -> YamlNode:
    """Stages by name: changed, removed (null), or, when it says its own name, added at the end."""
    assert isinstance(over.value, dict)
    stages = list(base.value) if isinstance(base.value, list) else []
    for name, child in over.value.items():
        at = next((i for i, stage in enumerate(stages) if _name(stage) == name), None)
        if at is not None and child.value is None:
            del stages[at]
        elif at is not None:
            stages[at] = _lay(stages[at], child, problems)
        elif _name(child) == name:
            stages.append(child)
        else:
            known = [_name(stage) for stage in stages]
            stages_known = offer(name, [stage for stage in known if stage], "stages")
            new = f"a new stage says its name itself (name: {name})"
            problems.append(Problem(over.keys[name], f"stages.{name}: no such stage to change; {stages_known}; {new}"))
    return YamlNode(base.place, stages)


def _name(stage: YamlNode) -> str | None:
    name = stage.child("name")
    return name.value if name and isinstance(name.value, str) else None


def _set(node: YamlNode, key: str, child: YamlNode, place: Location | None = None) -> YamlNode:
    assert isinstance(node.value, dict)
    return YamlNode(node.place, {**node.value, key: child}, {**node.keys, key: place or child.place})


def _without(node: YamlNode, key: str) -> YamlNode:
    assert isinstance(node.value, dict)
    return YamlNode(node.place, {k: v for k, v in node.value.items() if k != key}, node.keys)
