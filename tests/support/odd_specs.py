"""Makes odd specs from good ones: nodes replaced, deleted, doubled and moved, odd scalars, tags, anchors and bytes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

from good_spec import GOOD
from hypothesis import strategies as st
from spec_files import SPECS

from orchestrator.spec.yaml_nodes import parse

TEXTS = (GOOD, *(path.read_text(encoding="utf-8") for path in SPECS))

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 0.5, -0.0, 1e-320, 1e308, -1e308, 2**31, 2**32, 2**53, 2**63 - 1, 2**63,
    -(2**63), 10**30, 10**400, "", " ", "x", "none", "null", "1", "-", ".", "..", "../../x", "/etc/passwd", "a/b", "~",
    "x" * 300, "x" * 20_000, "\x1b]0;x\x07", "\x9b2J", "\x00", "a\nb", "\u202egpj", "\ud800", "é", "深", "²", "٣",
    "<script>", "'; --", [], {}, [[]], [{}], [None], {"": 1}, {"kind": "none"}, {"kind": "stage", "name": "S", "stage":
    "final"}, {"kind": "file", "name": "F", "path": "../w.safetensors"}, {"kind": "pretrain", "dataset": "digits",
    "mask_patch": 4}, {"grid": {"seed": [0, 1]}}, {"search": {"optim.lr": {"uniform": [0.1, 0.2]}}, "trials": 2},
    {"linspace": [0, 1, 10**9]}, {"logspace": [1e-300, 1, 3]}, {"int": [1, 10**400]}, {"choice": [1, True, 1.0]},
    {"asha": {"grace_epochs": 1}}, {"multiply": [0.5]}, {"multiply": [1e12], "add": [-1e12]}, "test", "trainval",
    "optim.lr", "may_test", "figure:loss:min",
)  # fmt: skip
KEYS = (
    "kind", "name", "from", "from_", "per", "override", "sweep", "grid", "search", "each", "trials", "stages",
    "profile", "profiles", "trial", "task", "optim", "seed", "may_test", "batch_workers", "span", "report", "rows",
    "columns", "<<", "optim.lr", "task.evaluate", "backbone.args.patch_size", "backbone.init.stage", "x", "", "a b",
    "²", "\x1b[2J", "priority",
)  # fmt: skip
BYTES = (
    b"\xff", b"\x00", b"\x1b", b"\xc2\x9b", b"\xe2\x80\xae", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"&a ", b"*a ",
    b"!!null ", b"!!seq ", b"!!python/name:os.system ", b"! ", b"? ", b"<<: ", b"---\n", b"...\n", b"%YAML 9.9\n", b"{",
    b"}", b"[", b"]", b": ", b"- ", b"\t", b"\r", b"|\n", b">-\n", b"'", b'"', b"#", b"@", b"`", b"%", b",", b"\n",
    b"~", b".nan", b"0x", b"0o8", b"1e999", b"-.inf", b"9" * 5000, b"[" * 200,
)  # fmt: skip
OVERRIDES = (
    "optim.lr=nan", "optim.epochs=-1", "seed=[0]", "stages=5", "stages.0=null", "stages.²=x", "stages.-1.name=x", "=",
    "a=b=c", "trial=1", "task.kind=pretrain", "stages.grid.sweep={}", "resources.workers=7", "priority=1e9",
    "optim..lr=1", "\udcff=1", "optim.lr=\udcff", "backbone.args={}", "backbone.args={embed_dim: -64}", "report=null",
    "task.evaluate=test", "profiles=1",
)  # fmt: skip


def _paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value below a value."""
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for step, child in below for path in ((*at, step), *_paths(child, (*at, step)))]


def _parent(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path[:-1]:
        value = value[step]
    return value


def _change(draw: Callable[[Any], Any], value: Any) -> None:
    """Changes one node of a spec."""
    paths = _paths(value)
    if not paths:
        return
    path = draw(st.sampled_from(paths))
    parent, last = _parent(value, path), path[-1]
    what = draw(st.sampled_from(("replace", "replace", "delete", "double", "rename", "move", "wrap", "add")))
    if what == "replace":
        parent[last] = copy.deepcopy(draw(st.sampled_from(ODD)))
    elif what == "delete":
        del parent[last]
    elif what == "double" and isinstance(parent, list):
        parent.insert(last, copy.deepcopy(parent[last]))
    elif what == "rename" and isinstance(parent, dict):
        key = draw(st.sampled_from((*KEYS, last[:-1], last + "s", last.upper())))
        parent[key] = parent.pop(last)
    elif what == "move":
        other = draw(st.sampled_from(paths))
        parent[last] = copy.deepcopy(_parent(value, other)[other[-1]])
    elif what == "wrap":
        parent[last] = draw(st.sampled_from(([parent[last]], {"x": parent[last]}, [parent[last]] * 3)))
    elif what == "add" and isinstance(parent, dict):
        parent[draw(st.sampled_from(KEYS))] = copy.deepcopy(draw(st.sampled_from(ODD)))


def _written(value: Any) -> bytes:
    """The spec as JSON, which is YAML; what JSON cannot say is written as YAML says it."""
    text = json.dumps(value, indent=1)
    return text.replace("Infinity", ".inf").replace("NaN", ".nan").encode("utf-8", "surrogatepass")


@st.composite
def odd_specs(draw: Callable[[Any], Any]) -> bytes:
    """The bytes of a spec that some changes have made odd, in its values or in its text."""
    text = draw(st.sampled_from(TEXTS))
    data = text.encode()
    if draw(st.integers(0, 3)):
        value = parse(text, "good").root.plain()
        for _ in range(draw(st.integers(1, 3))):
            _change(draw, value)
        data = _written(value)
    for _ in range(draw(st.integers(0, 2))):
        position = draw(st.integers(0, len(data)))
        end = position + draw(st.sampled_from((0, 0, 1, 20)))
        data = data[:position] + draw(st.sampled_from(BYTES)) + data[end:]
    return data


def overrides() -> Any:
    """Some overrides, most often none."""
    return st.lists(st.sampled_from(OVERRIDES), max_size=2)
