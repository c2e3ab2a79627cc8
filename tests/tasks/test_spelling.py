"""The nearest names to a misspelt one."""

from __future__ import annotations

from tasks.spelling import nearest


def test_the_most_similar_names_come_first_and_none_that_differ_much() -> None:
    names = ["cars", "caltech101", "cifar10", "cifar100", "cifar10"]
    assert nearest("cifar", names) == ["cifar10"]
    assert nearest("cifar", names, count=3) == ["cifar10", "cifar100", "cars"]
    assert nearest("photographs", names) == []
    assert len(nearest("photographs", names, cutoff=0.0)) == 1
