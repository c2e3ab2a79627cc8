"""The part of a model that makes its key: models at any depth, lists and mappings, without what is at its default."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, Field

from tasks.backbones.spec import FromFile, FromTimm, FromTrial, Scratch
from workers.key_content import key_content


class Leaf(BaseModel):
    size: int
    colour: str = "green"
    init: FromTrial | None = None


class Tree(BaseModel):
    leaves: list[Leaf] = Field(default_factory=list)
    pairs: tuple[Leaf, ...] = ()
    by_name: dict[str, Leaf | list[Leaf]] = Field(default_factory=dict)
    plain: dict[str, list[int]] = {}
    numbers: tuple[float, ...] = (0.5,)


LEAF = Leaf(size=1, init=FromTrial(name="MIM", trial="a"))
CONTENT: dict[str, Any] = {"size": 1, "init": {"kind": "trial", "trial": "a"}}
"""Neither the colour, which is at its default, nor the label of the weights."""


def test_a_model_at_its_defaults_has_no_content() -> None:
    assert key_content(Tree()) == {}
    assert key_content(Tree(leaves=[], by_name={}, numbers=(0.5,))) == {}


@pytest.mark.parametrize("field", ["leaves", "pairs"])
def test_models_in_lists_are_reduced_one_by_one(field: str) -> None:
    tree = Tree.model_validate({field: [LEAF, Leaf(size=2, colour="red")]})
    assert key_content(tree) == {field: [CONTENT, {"size": 2, "colour": "red"}]}


def test_models_in_mappings_are_reduced_under_their_names() -> None:
    tree = Tree(by_name={"one": LEAF, "two": [LEAF, Leaf(size=2)]})
    assert key_content(tree) == {"by_name": {"one": CONTENT, "two": [CONTENT, {"size": 2}]}}


def test_plain_values_enter_as_they_are() -> None:
    tree = Tree(plain={"a": [1, 2], "b": []}, numbers=(0.5, 1.5))
    assert key_content(tree) == {"plain": {"a": [1, 2], "b": []}, "numbers": [0.5, 1.5]}


def test_initial_weights_are_told_apart_by_their_kind_and_source_alone() -> None:
    """Also where there is no label or path to leave out."""
    digest = "1" * 64
    assert key_content(Scratch()) == key_content(Scratch(name="other")) == {"kind": "none"}
    assert key_content(FromFile(name="MIM", path="a.safetensors")) == {"kind": "file", "path": "a.safetensors"}
    assert key_content(FromFile(name="MIM", path="a.safetensors", sha256=digest)) == {"kind": "file", "sha256": digest}
    assert "path" not in key_content(FromTimm(name="MIM", tag="vit_tiny_patch16_224.augreg_in21k", sha256=digest))
