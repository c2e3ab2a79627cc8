"""Checks that the labels of initial weights in a stage tell different weights apart."""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter, ValidationError

from orchestrator.spec.check_paths import axes_of
from orchestrator.spec.diagnostics import Problems, Steps, show
from orchestrator.spec.job import Stage
from orchestrator.spec.sweep import Search, apart
from orchestrator.spec.yaml_nodes import YamlNode
from tasks.backbones.spec import Init
from workers.key_content import key_content

_INIT: TypeAdapter[Init] = TypeAdapter(Init)


def check_labels(root: YamlNode, stage: Stage, at: Steps, problems: Problems) -> None:
    """Reports weights that are in an axis of the stage under two names: a name is no part of a trial's key, so one
    trial would stand behind two rows of the table. With replicates also different weights under one name, which
    would be seeds of one setting, unless another axis tells them apart (the weights of another model)."""
    first: dict[str, str] = {}
    named: dict[tuple[str, str], list[tuple[str, Any]]] = {}
    grids: list[tuple[Steps, Any]] = list(axes_of(root, stage, at))
    if isinstance(stage.sweep, Search):
        grids.append(([*at, "sweep", "each"], stage.sweep.each))
    for steps, axes in grids:
        for path, axis in axes.items():
            if path.rpartition(".")[2] != "init" or not isinstance(axis, list):
                continue
            for number, value in enumerate(axis):
                init = _init(value)
                if init is None:
                    continue
                content = json.dumps([path, key_content(init)], sort_keys=True)
                name = first.setdefault(content, init.name)
                same = named.setdefault((path, init.name), [])
                same.append((content, axes))
                if stage.replicates is not None and any(
                    other != content
                    and not any(apart(axes[field], their_axes.get(field)) for field in axes if field != path)
                    for other, their_axes in same
                ):
                    what = f"other weights are called {init.name!r} too, and replicates go by the name; rename one"
                    place = root.place_of([*steps, path, number])
                    problems.report(place, f"stages.{stage.name}.sweep.{path}", show(value), what)
                if name != init.name:
                    problems.report(
                        root.place_of([*steps, path, number]), f"stages.{stage.name}.sweep.{path}", show(value),
                        f"the same weights as {name!r} under another name: one trial would stand behind two rows; "
                        "keep one of them",
                    )  # fmt: skip


def _init(value: Any) -> Init | None:
    """The source of weights that a value of an axis describes; None if it is none, which is reported elsewhere."""
    try:
        return _INIT.validate_python(value)
    except ValidationError:
        return None
