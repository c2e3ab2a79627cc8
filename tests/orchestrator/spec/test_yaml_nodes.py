"""YAML text to values: the rules of YAML 1.2, places, and refusal of what is no spec."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.spec.yaml_nodes import MAX_BYTES, parse, parse_value, read


def _problem(text: str) -> str:
    (problem,) = parse(text, "f").problems
    return str(problem)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("5e-05", 5e-5), ("1.25e-4", 1.25e-4), (".5", 0.5), ("1.", 1.0), ("-3E2", -300.0),
        ("12", 12), ("+12", 12), ("007", 7), ("0o17", 15), ("0x1F", 31),
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("off", "off"), ("y", "y"), ("tRUE", "tRUE"),
        ("12:30", "12:30"), ("1_000", "1_000"), ("2024-01-01", "2024-01-01"), ("-", "-"), ("1e", "1e"), ("0b1", "0b1"),
        ("'1'", "1"), ('"no"', "no"), ("!!str 1", "1"),
    ],
)  # fmt: skip
def test_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    document = parse(f"a: {text}\nb: 0\n" if text != "-" else "a: [-, 0]\n", "f")
    assert not document.problems
    found = document.root.plain()["a"]
    found = found[0] if isinstance(found, list) else found
    assert (found, type(found)) == (value, type(value))


def test_block_and_folded_text() -> None:
    assert parse("a: |\n  12\nb: >-\n  x\n  y\n", "f").root.plain() == {"a": "12\n", "b": "x y"}


def test_every_value_and_key_knows_its_place() -> None:
    root = parse("a: 1\nb:\n  - x\n  - {c: 2, dé: 3}\n", "f").root
    assert str(root.place_of(["a"])) == "f:1:4"
    assert str(root.place_of(["a"], key=True)) == "f:1:1"
    assert str(root.place_of(["b", 0])) == "f:3:5"
    assert str(root.place_of(["b", 1, "c"])) == "f:4:9"
    assert str(root.place_of(["b", 1, "dé"], key=True)) == "f:4:12"
    assert str(root.place_of(["b", 1, "missing"])) == "f:4:5"  # the deepest part that is there
    assert str(root.place_of(["b", 1, "member of a union", "c"])) == "f:4:9"


def test_anchors_and_merge_keys() -> None:
    document = parse("x: &x {k: 1, m: 1}\ny: &y {k: 2, n: 2}\na: {<<: *x, m: 3}\nb: {<<: [*x, *y]}\nc: *x\n", "f")
    assert not document.problems
    values = document.root.plain()
    assert values["a"] == {"m": 3, "k": 1}
    assert values["b"] == {"k": 1, "m": 1, "n": 2}
    assert values["c"] == {"k": 1, "m": 1}
    assert str(document.root.place_of(["a", "k"])) == "f:1:11"  # where it is written, not where it is merged


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", "f:3:1", "duplicate key 'a', first in line 1; keep one"),
        ("a:\n  b: {c: 1, c: 2}\n", "f:2:13", "a.b: duplicate key 'c'"),
        ("a: .inf\n", "f:1:4", "a: .inf: not a finite number"),
        ("a: [1, -.INF]\n", "f:1:8", "a.1: -.INF: not a finite number"),
        ("a: .nan\n", "f:1:4", "a: .nan: not a finite number"),
        ("a: 1e999\n", "f:1:4", "a: 1e999: not a finite number"),
        ("a: " + "9" * 5000 + "\n", "f:1:4", "9... (5000 characters): whole numbers go from -2^63 to 2^63 - 1"),
        ("a: !!python/object/apply:os.system [x]\n", "f:1:4", "tags are not supported"),
        ("a: !secret x\n", "f:1:4", "!secret: YAML tags are not supported; write a plain value"),
        ("a: 1\n---\nb: 2\n", "f:2:1", "one document"),
        ("", "f:1:1", "empty file"),
        ("# only a comment\n", "f:1:1", "empty file"),
        ("---\n", "f:2:1", "empty file"),
        ("a: *b\n", "f:1:4", "no such anchor"),
        ("a: &a [1, *a]\n", "f:1:11", "inside the value that it refers to"),
        ("a: {<<: 3}\n", "f:1:9", "a: << takes a mapping"),
        ("? [x]\n: 1\n", "f:1:3", "a key must be a plain word"),
        ("a: [1, 2\nb: 3\n", "f:2:2", "not YAML"),
        ("a: b: c\n", "f:1:5", "not YAML"),
        ("\ta: 1\n", "f:1:1", "not YAML"),
        ("a: x\nb: '\x07'\n", "f:2:5", "control character U+0007"),
        ("a: " + "[" * 100_000, "f:1:68", "nested more than"),
        ("a: " + "{b: " * 5_000, "f:1:260", "nested more than"),
    ],
)  # fmt: skip
def test_what_is_no_spec_is_refused_where_it_stands(text: str, place: str, words: str) -> None:
    problem = _problem(text)
    assert problem.startswith(f"{place}: ")
    assert words in problem


def test_several_mistakes_are_told_in_one_go() -> None:
    problems = parse("a: .inf\na: 1\nb: !x 2\n", "f").problems
    assert [str(problem.place) for problem in problems] == ["f:1:4", "f:2:1", "f:3:4"]


def test_alias_bomb_is_refused_before_it_grows() -> None:
    lines = ["a0: &a0 [" + ", ".join(["x"] * 10) + "]"]
    lines += [f"a{i}: &a{i} [" + ", ".join([f"*a{i - 1}"] * 10) + "]" for i in range(1, 30)]
    problem = _problem("\n".join(lines))
    assert problem.startswith("f:5:")
    assert "with aliases expanded" in problem
    assert "write fewer aliases" in problem


def test_file_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text("a: 1")
    (problem,) = read(tmp_path / "gird.yaml").problems
    assert str(problem).startswith(str(tmp_path / "gird.yaml"))
    assert "no such file" in str(problem)
    assert str(tmp_path / "grid.yaml") in str(problem)


def test_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text("a: 1")
    (problem,) = read(tmp_path).problems
    assert "is a directory" in str(problem)
    assert str(tmp_path / "grid.yaml") in str(problem)


def test_huge_file_is_refused_without_being_parsed(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    path.write_text("a: 1\n" + "# x\n" * (MAX_BYTES // 4))
    (problem,) = read(path).problems
    assert "larger than 1 MiB" in str(problem)


def test_file_of_the_largest_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_text("a: 1\n" + "#" * (MAX_BYTES - 5))
    assert read(path).root.plain() == {"a": 1}


def test_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.yaml"
    path.write_bytes(b"name: x\n\x93NUMPY\x01\x00")
    (problem,) = read(path).problems
    assert str(problem).startswith(f"{path}:2:1: ")
    assert "not UTF-8" in str(problem)
    path.write_bytes(b"name: x\nab\x00c")
    (problem,) = read(path).problems
    assert str(problem).startswith(f"{path}:2:3: control character U+0000")


def test_byte_order_mark_and_windows_lines_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\nb: x\r\n")
    document = read(path)
    assert document.root.plain() == {"a": 1, "b": "x"}
    assert str(document.root.place_of(["b"])) == f"{path}:2:4"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.yaml"
    path.write_text("a: 1")
    path.chmod(0)
    (problem,) = read(path).problems
    assert "cannot be read" in str(problem)


def test_values_from_the_command_line_follow_the_same_rules() -> None:
    assert parse_value("1e-4", "--set x").root.value == 1e-4
    assert parse_value("no", "--set x").root.value == "no"
    assert parse_value("", "--set x").root.value is None
    assert parse_value("{a: [1, 2]}", "--set x").root.plain() == {"a": [1, 2]}
    (problem,) = parse_value("[1", "--set x").problems
    assert str(problem).startswith("--set x: not YAML")
