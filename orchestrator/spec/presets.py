"""Puts the fields of a preset in the place of its name, wherever a spec file gives a field of a task one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.spec.diagnostics import Problems, dotted, offer, show
from orchestrator.spec.yaml_nodes import Location, YamlNode
from tasks import TASKS
from tasks.base import Presets
from tasks.bounds import MAX_LABEL

KEY = "preset"
NAME = "name"
"""Field of what has presets that says what tables call it."""


def resolve(root: YamlNode, problems: Problems) -> YamlNode:
    """The file with every `augment: light` and `augment: {preset: light, flip: 0}` written out; what stands beside
    `preset` wins. Done before profiles and overrides are applied, which therefore change single fields of a preset.

    A field may be written by its name (in a task) or by its path (`task.augment`: in an override, or with a list of
    values as an axis). Adds a preset that does not exist to `problems`. What is resolved stays as it is.
    """
    return _Resolver(root, problems).below(root, ())


class _Resolver:
    def __init__(self, root: YamlNode, problems: Problems) -> None:
        self.root, self.problems = root, problems

    def below(self, node: YamlNode, steps: tuple[str | int, ...]) -> YamlNode:
        """The node with all below it resolved. `steps`: those that lead to it."""
        if isinstance(node.value, list):
            return YamlNode(node.place, [self.below(item, (*steps, i)) for i, item in enumerate(node.value)])
        if not isinstance(node.value, dict):
            return node
        kind = node.child("kind")
        for key, place in node.keys.items():
            if key.endswith(f".{KEY}") and (presets := presets_of(field := key.removesuffix(f".{KEY}"))):
                what = f"a preset is the value of the field itself: {field}: {next(iter(presets))}"
                self.problems.report(place, dotted(self.root, [*steps, key]), what)
        values = {
            key: self._field(child, presets, (*steps, key))
            if (presets := presets_of(key, kind.value if kind else None))
            else self.below(child, (*steps, key))
            for key, child in node.value.items()
        }
        return YamlNode(node.place, values, node.keys)

    def _field(self, node: YamlNode, presets: Presets, steps: tuple[str | int, ...]) -> YamlNode:
        """A field that has presets: its value, or the values of an axis or of a search's choice."""
        if isinstance(node.value, list):
            items = [self._value(item, presets, (*steps, i), compared=True) for i, item in enumerate(node.value)]
            return YamlNode(node.place, items)
        if (choice := node.child("choice")) is not None and isinstance(node.value, dict):
            resolved = self._field(choice, presets, (*steps, "choice"))
            return YamlNode(node.place, {**node.value, "choice": resolved}, node.keys)
        return self._value(node, presets, steps)

    def _value(
        self, node: YamlNode, presets: Presets, steps: tuple[str | int, ...], compared: bool = False
    ) -> YamlNode:
        """`compared`: it is one of several, which groups and tables tell apart by their names."""
        named = node if isinstance(node.value, str) else node.child(KEY)
        if named is None:
            return node
        if not isinstance(named.value, str) or named.value not in presets:
            name = dotted(self.root, list(steps))
            what = f"no such preset; {offer(str(named.value), presets, 'presets')}"
            self.problems.report(named.place, name, show(named.plain()), what)
            return YamlNode(node.place, {}, {})
        fields = _nodes(presets[named.value], named.place)
        written = (
            {key: child for key, child in node.value.items() if key != KEY} if isinstance(node.value, dict) else {}
        )
        if compared and _takes_names(presets):
            fields[NAME] = _node(_name(named.value, written), named.place)
        return YamlNode(node.place, {**fields, **written}, {**dict.fromkeys(fields, named.place), **node.keys})


def presets_of(key: str, kind: Any = None) -> Presets | None:
    """The presets of the field that a key names, by its own name or its path in a trial; None if it has none.

    `kind`: that of the task that the key is in, where it stands beside it; None: of any task. (One that is not known
    yet has no presets.)
    """
    field = key.removeprefix("task.")
    tasks = TASKS.values() if kind is None else [TASKS[kind]] if isinstance(kind, str) and kind in TASKS else []
    return next((task.presets[field] for task in tasks if field in task.presets), None)


def _takes_names(presets: Presets) -> bool:
    models = (
        task.model_fields[field].annotation
        for task in TASKS.values()
        for field, theirs in task.presets.items() if theirs is presets
    )  # fmt: skip
    return any(NAME in getattr(model, "model_fields", {}) for model in models)


def _name(preset: str, written: Mapping[str, YamlNode]) -> str:
    """light, flip 0"""
    beside = (
        f"{field} {node.value if isinstance(node.value, str) else show(node.plain())}"
        for field, node in written.items()
    )
    return ", ".join([preset, *beside])[:MAX_LABEL]


def _nodes(fields: Mapping[str, Any], place: Location) -> dict[str, YamlNode]:
    return {key: _node(value, place) for key, value in fields.items()}


def _node(value: Any, place: Location) -> YamlNode:
    return YamlNode(place, [_node(item, place) for item in value] if isinstance(value, list) else value)
