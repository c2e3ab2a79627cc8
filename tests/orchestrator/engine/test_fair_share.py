"""Shares of a cluster that several drivers use."""

from __future__ import annotations

from orchestrator.engine.fair_share import SlotDemand, allocate_slots


def test_one_job_has_all_that_it_can_use() -> None:
    assert allocate_slots([SlotDemand("a", 0, 100, 8)]) == {"a": 8}


def test_equals_share_and_leave_what_they_do_not_use() -> None:
    assert allocate_slots([SlotDemand("a", 0, 100, 8), SlotDemand("b", 0, 100, 8)]) == {"a": 4, "b": 4}
    assert allocate_slots([SlotDemand("a", 0, 2, 8), SlotDemand("b", 0, 100, 8)]) == {"a": 2, "b": 6}
    assert allocate_slots([SlotDemand("a", 0, 100, 9), SlotDemand("b", 0, 100, 9), SlotDemand("c", 0, 1, 9)]) == {
        "a": 4,
        "b": 4,
        "c": 1,
    }


def test_higher_priority_goes_first() -> None:
    assert allocate_slots([SlotDemand("low", 0, 100, 8), SlotDemand("high", 5, 100, 8)]) == {"low": 0, "high": 8}
    assert allocate_slots([SlotDemand("low", 0, 100, 8), SlotDemand("high", 5, 6, 8)]) == {"low": 2, "high": 6}


def test_shares_of_different_sizes_are_fractions_of_the_cluster() -> None:
    # eight trials of one GPU against two of four GPUs
    assert allocate_slots([SlotDemand("small", 0, 100, 8), SlotDemand("large", 0, 100, 2)]) == {"small": 4, "large": 1}


def test_one_slot_between_two_is_left_to_ray() -> None:
    assert allocate_slots([SlotDemand("a", 0, 9, 1), SlotDemand("b", 0, 9, 1)]) == {"a": 1, "b": 1}


def test_nothing_wanted_nothing_given() -> None:
    assert allocate_slots([SlotDemand("a", 0, 0, 8), SlotDemand("b", 0, 1, 0)]) == {"a": 0, "b": 0}


def test_a_share_that_rounding_makes_a_little_smaller_is_a_whole_slot() -> None:
    """1.0 - 0.8 is 0.19999999999999996, of ten slots 1.9999999999999996."""
    assert allocate_slots([SlotDemand("low", 0, 100, 10), SlotDemand("high", 5, 8, 10)]) == {"low": 2, "high": 8}
    thirds = [SlotDemand(name, 0, 100, 9) for name in "abc"]
    assert set(allocate_slots(thirds).values()) == {3}
    assert allocate_slots([SlotDemand("a", 0, 100, 10), SlotDemand("b", 5, 7, 10)])["a"] == 3
