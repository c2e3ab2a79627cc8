"""The known mutants still fit the tree: their text is there once, and the tests that they name exist."""

from __future__ import annotations

import ast

import pytest
from known_mutants import ROOT, KnownMutant, known_mutants


@pytest.mark.parametrize("mutant", known_mutants(), ids=lambda mutant: mutant.id)
def test_a_known_mutant_fits_the_tree(mutant: KnownMutant) -> None:
    assert mutant.mutated(ROOT) != (ROOT / mutant.file).read_text()
    for test in mutant.tests:
        file, _, name = test.partition("::")
        functions = {node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if hasattr(node, "name")}
        assert name.partition("[")[0] in functions, f"{mutant.id}: {test}"


def test_a_text_that_is_gone_is_named() -> None:
    gone = KnownMutant("x-1", "constraints.txt", "no such line", "", ())
    with pytest.raises(ValueError, match=r"x-1: constraints\.txt has 'no such line' 0 times, not once"):
        gone.mutated(ROOT)
