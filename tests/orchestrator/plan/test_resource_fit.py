"""How many workers fit on which nodes, as the simulation and the Ray backend count them."""

from __future__ import annotations

import pytest

from orchestrator.plan.resource_fit import (
    UNLIMITED,
    FreeResources,
    Node,
    amounts_text,
    fits,
    worker_needs,
    worker_slots,
)
from orchestrator.spec.job import Resources


@pytest.mark.parametrize(
    ("nodes", "resources", "slots"),
    [
        ([Node(5)], Resources(cpus=2), 2),
        ([Node(3), Node(3)], Resources(cpus=2), 2),  # a worker lies on one node
        ([Node(8, gpus=1)], Resources(cpus=0, gpus=1 / 3), 3),
        ([Node(8, gpus=1)], Resources(cpus=0, gpus=1 / 7), 7),
        ([Node(1, gpus=4), Node(8, gpus=1)], Resources(cpus=1, gpus=1), 2),
        ([Node(8, custom={"a100": 2}), Node(8)], Resources(custom={"a100": 1}), 2),
        ([Node(8)], Resources(custom={"a100": 1}), 0),
        ([Node(1)], Resources(cpus=0), UNLIMITED),
        ([], Resources(), 0),
    ],
)
def test_workers_that_fit(nodes: list[Node], resources: Resources, slots: int) -> None:
    assert worker_slots([node.amounts for node in nodes], worker_needs(resources)) == slots


def test_workers_of_a_trial_may_lie_on_different_nodes() -> None:
    nodes = [node.amounts for node in (Node(1), Node(2))]
    assert fits(nodes, Resources(workers=3))
    assert not fits(nodes, Resources(workers=4))
    assert not fits(nodes, Resources(cpus=3))


@pytest.mark.parametrize("share", [1 / 3, 1 / 7])
def test_a_gpu_is_shared_again_and_again(share: float) -> None:
    free, resources = FreeResources([Node(1, gpus=1)]), Resources(cpus=0, gpus=share)
    count = round(1 / share)
    for _ in range(3):
        for number in range(count):
            assert free.fits(resources)
            free.take(str(number), resources)
        assert not free.fits(resources)
        for number in range(count):
            free.release(str(number))


def test_what_is_taken_on_two_nodes_is_released_there() -> None:
    free = FreeResources([Node(1), Node(2)])
    free.take("wide", Resources(workers=2))
    assert not free.fits(Resources(cpus=2))
    assert free.fits(Resources())
    free.release("wide")
    assert free.fits(Resources(cpus=2))
    with pytest.raises(AssertionError, match="only a trial that fits"):
        free.take("large", Resources(cpus=3))


def test_amounts_as_text() -> None:
    assert amounts_text(worker_needs(Resources(gpus=0.5, custom={"a100": 1}))) == "CPU 1, GPU 0.5, a100 1"
    assert amounts_text({}) == "nothing"
