"""Every number and text that a spec may hold has bounds: in the schema, and in what is free by type."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from good_spec import GOOD, Write, _problems

from orchestrator.spec import json_schema, load
from orchestrator.spec.yaml_nodes import MAX_INT, parse

SCHEMA = json_schema()
PROSE = ("default", "description", "title", "examples", "discriminator", "enum", "const")


def _schemas(node: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every schema below a node with the steps to it."""
    if isinstance(node, list):
        for number, child in enumerate(node):
            yield from _schemas(child, (*at, str(number)))
    elif isinstance(node, dict):
        yield at, node
        for key, child in node.items():
            names = at and at[-1] in ("properties", "$defs", "patternProperties")  # fields, whatever they are called
            if names or key not in PROSE:
                yield from _schemas(child, (*at, key))


def unbounded(schema: Any) -> list[str]:
    """The numbers without both bounds, the texts without a greatest length, the mappings whose keys have none."""
    found = []
    for at, node in _schemas(schema):
        if "enum" in node or "const" in node:
            continue
        kind, name = node.get("type"), ".".join(at)
        lower, upper = {"minimum", "exclusiveMinimum"} & node.keys(), {"maximum", "exclusiveMaximum"} & node.keys()
        if kind in ("integer", "number") and not (lower and upper):
            found.append(f"{name}: a number without both bounds")
        finite_pattern = str(node.get("pattern", "")).endswith("{64}$")
        if kind == "string" and not ("maxLength" in node or finite_pattern):
            found.append(f"{name}: a text without a greatest length")
        keys = node.get("propertyNames", {})
        if isinstance(node.get("additionalProperties"), dict) and not keys.keys() & {"maxLength", "$ref", "enum"}:
            found.append(f"{name}: a mapping with keys of any length")
        if kind == "array" and not {"maxItems", "prefixItems"} & node.keys():
            found.append(f"{name}: a list of any length")
    return found


def test_every_number_and_text_of_the_schema_has_bounds() -> None:
    assert unbounded(SCHEMA) == []


def test_what_has_no_bounds_is_found() -> None:
    fields = {
        "a": {"type": "integer", "minimum": 0},
        "b": {"anyOf": [{"type": "string", "pattern": "^x*$"}, {"type": "null"}]},
        "c": {"type": "object", "additionalProperties": {"type": "number", "minimum": 0, "maximum": 1}},
        "default": {"type": "array", "items": {"const": 1}},
        "fine": {"type": "integer", "minimum": 0, "maximum": 1},
    }
    assert [each.split(": ")[0] for each in unbounded({"properties": fields})] == [
        "properties.a", "properties.b.anyOf.0", "properties.c", "properties.default",
    ]  # fmt: skip


BEYOND = {
    "seed": ("  optim: {lr", "  seed: §9223372036854775808\n  optim: {lr", "whole numbers go from -2^63 to 2^63 - 1"),
    "priority": ("stages:\n", "priority: §3000000000\nstages:\n", "priority: 3000000000: must be less than or equal"),
    "low priority": ("stages:\n", "priority: §-3000000000\nstages:\n", "must be greater than or equal to -1000000000"),
    "split seed": ("dataset: digits}\n", "dataset: digits, split_seed: §4294967296}\n", "than or equal to 4294967295"),
    "a number of 5,000 digits": ("epochs: 4", "epochs: §0x" + "f" * 5000, "(5002 characters): whole numbers go from"),
    "end of a range": ("[0.75, 0.95]", "{linspace: [§-1e308, 1e308, 3]}", "-1e+308: must be greater than or equal to"),
    "both ends too far apart": ("[1e-4, 1e-2, 3]", "[1e-322, 1, 3]", "too wide for floating point; narrow it"),
    "values of an axis": ("[0.75, 0.95]", "{linspace: [0.1, 1, §1000000000]}", "less than or equal to 10000"),
    "workers": ("report:\n", "resources: {workers: §99999999}\nreport:\n", "less than or equal to 10000"),
    "gpus": ("report:\n", "resources: {gpus: §1e300}\nreport:\n", "1e+300: must be less than or equal to 10000"),
    "custom resource": ("report:\n", "resources: {custom: {a: §1e300}}\nreport:\n", "less than or equal to 1000000"),
    "neighbour": ("{multiply: [0.5, 2]}", "{multiply: [§1e300]}", "1e+300: must be less than or equal to"),
    "image size": ("image_size: 32", "image_size: §1000000", "1000000: must be less than or equal to 16384"),
    "erased rectangles": ("dataset: digits}\n", "dataset: digits, augment: {erasing_count: §100000}}\n", "to 100"),
    "empty val": ("{task.dataset: digits-pretrain}", "{task.dataset: pets, task.val_fraction: §1e-6}",
                  "pets: val_fraction 1e-06 of 3,680 images holds out 0 as val and leaves 3,680 to train on; choose"),
    "empty train": ("{task.dataset: digits-pretrain}", "{task.dataset: pets, task.val_fraction: §0.99999}",
                    "leaves 0 to train on"),
    "published value": ("report:\n", "report:\n  reference: {source: x, values: {SUP: {faces: §1e300}}}\n", "equal to"),
    "text of a published value": ("report:\n", "report:\n  reference: {source: x, values: {SUP: {faces: §high}}}\n",
                                  "report.reference.values.SUP.faces: high: must be a number, or {figure: number"),
    "name of a stage": ("name: refine", "name: §" + "x" * 61, "61 characters; at most 60"),
    "caption": ("report:\n", "report:\n  caption: §" + "x " * 2500 + "x\n", "5,001 characters; at most 4000"),
    "text of an axis": ("[digits, faces]\n", "[digits, §" + "x" * 10_001 + "]\n", "text of 10,001 characters; at most"),
    "key": ("batch: 32", "§" + "k" * 301 + ": 32", "a key of 301 characters; at most 300"),
    "profiles": ("  small: {", "".join(f"  p{i}: {{}}\n" for i in range(49)) + "  small: {",
                 "profiles: 51 profiles; at most 50"),
}  # fmt: skip


@pytest.mark.parametrize("case", BEYOND)
def test_what_is_beyond_a_bound_is_refused_where_it_stands(case: str, write: Write) -> None:
    old, new, words = BEYOND[case]
    assert old in GOOD
    marked = GOOD.replace(old, new, 1)
    path = write(marked.replace("§", ""))
    (problem,) = _problems(path)
    before = marked.partition("§")[0]
    place = (
        f"{path}:{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}: " if "§" in marked else str(path)
    )
    assert problem.startswith(place)
    assert words in problem
    assert len(problem) < 1200


def test_the_bounds_themselves_are_allowed(write: Write) -> None:
    text = GOOD.replace("seed: 1}", f"seed: {MAX_INT}}}").replace(
        "stages:\n  - name: pre", "priority: 1000000000\nstages:\n  - name: pre"
    )
    assert load(write(text)).trial["seed"] == MAX_INT
    assert parse(f"a: {MAX_INT}\nb: {-MAX_INT - 1}\nc: 0x7fffffffffffffff\n", "f").problems == []
    assert len(parse(f"a: {MAX_INT + 1}\nb: {-MAX_INT - 2}\nc: 0x8000000000000000\n", "f").problems) == 3


@pytest.mark.parametrize("name", ["x/../../../../escaped/p", "..", "/etc/p", "a b", "a\\x1bb", "A", "x" * 61, "p.q"])
def test_a_profile_is_named_like_a_job(name: str, write: Write) -> None:
    path = write(GOOD.replace("  small: {trial", f'  "{name}": {{}}\n  small: {{trial'))
    (problem,) = _problems(path)
    line = GOOD[: GOOD.index("  small: {trial")].count("\n") + 1
    assert problem.startswith(f"{path}:{line}:3: ")
    escape = "control character U+001B in a key" in problem
    assert escape or "a profile's name must look like ^[a-z0-9][a-z0-9_-]*$, in at most 60 characters" in problem
    assert _problems(write(GOOD), name.replace("\\x1b", "\x1b"))[0].isprintable()


def test_a_profile_with_another_name_is_refused_in_python_too() -> None:
    from pydantic import ValidationError

    from orchestrator.spec.job import JobSpec

    stage = {"name": "a"}
    assert JobSpec.model_validate({"name": "x", "profile": "vit_b", "trial": {}, "stages": [stage]}).profile == "vit_b"
    for profile in ("x/../../y", "..", "x\ny", "-x"):
        with pytest.raises(ValidationError, match=r"profile\n.*String should match pattern"):
            JobSpec.model_validate({"name": "x", "profile": profile, "trial": {}, "stages": [stage]})


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("name: test-grid", "name: test-\x9bgrid", "1:12", "control character U+009B"),
        ("name: test-grid", "name: test-\x85grid", "1:12", "control character U+0085"),
        ("name: test-grid", "name: test # \u202egrid", "1:14", "control character U+202E"),
        ("name: test-grid", "name: test # \x7f", "1:14", "control character U+007F"),
        ("name: RAND", 'name: "\\e]0;x\\a"', "15:44", "backbone.init.0.name: control character U+001B in a text"),
        ("name: Mean", 'name: "a\\x9bb"', "28:21", "averages.0.name: control character U+009B in a text"),
        ("report:\n", 'report:\n  caption: "a\\rb"\n', "28:12", "report.caption: control character U+000D in a text"),
        ("report:\n", 'report:\n  caption: "a\\0b"\n', "28:12", "report.caption: control character U+0000 in a text"),
        ("name: Mean", 'name: "a\\nb"', "28:21", "must be plain text without control characters"),
        ("batch: 32", '"ba\\etch": 32', "6:21", "control character U+001B in a key"),
        ("batch: 32", '"ba\\ntch": 32', "6:21", "in a key; write a plain word"),
    ],
)  # fmt: skip
def test_control_characters_are_refused_where_they_stand(
    old: str, new: str, place: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(GOOD.replace(old, new, 1).encode())
    (problem,) = _problems(path)
    assert problem.startswith(f"{path}:{place}: ")
    assert words in problem
    assert problem.isprintable()


@pytest.mark.parametrize(
    ("override", "shown"),
    [
        ("optim.lr=\udcff", r"--set optim.lr=\udcff: control character U+DCFF"),
        ("\udcff=1", r"--set \udcff=1: a path is plain text"),
        ("optim.lr\x1b[2J=1", r"--set optim.lr\x1b[2J=1: a path is plain text"),
        ("optim.lr=\x9b2J", r"--set optim.lr=\x9b2J: control character U+009B"),
        ("stages.²=x", "--set stages.²=x: stages.²: no '²' here; allowed: pretrain, grid, refine, final"),
        ("stages.٣=x", "--set stages.٣=x: stages.٣: no '٣' here"),
        ("stages." + "1" * 5000 + "=x", "characters): stages.1"),
        ("optim.epochs=1" + "0" * 400, "whole numbers go from -2^63"),
        ("optim.lr=" + "x" * 200_000, "text of 200,000 characters; at most 10,000"),
        ("x" * 200_000 + "=1", "no such field"),
        (".".join("x" * 100_000) + "=1", "at most 64 names between its dots"),
    ],
)  # fmt: skip
def test_odd_overrides_are_told_in_a_line(override: str, shown: str, write: Write) -> None:
    (problem,) = _problems(write(GOOD), None, override)
    assert shown in problem
    assert problem.isprintable()
    assert len(problem) < 1500
