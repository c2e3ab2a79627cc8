"""What counts as lost, by what has answered and when; the clock is the test's."""

from __future__ import annotations

import pytest

from orchestrator.engine.watch import (
    FROZEN_S,
    FROZEN_SAID_S,
    HEAD_SILENT_S,
    LIMIT_GRACE_S,
    NO_NODE_S,
    QUIET_ROUNDS,
    QUIET_S,
    AnswerWatch,
    ClusterWatch,
    HeadWatch,
    TrialWatch,
)


@pytest.mark.parametrize("name", ["raylet", "gcs_server"])
def test_the_head_gives_its_cluster_up_at_once_without_one_of_its_processes(name: str) -> None:
    watch = HeadWatch(0.0)
    watch.answered(1, 1.0)
    assert watch.verdict([], 1.5) is None
    assert watch.verdict([name], 1.5) == f"its process {name} has ended"


def test_the_head_gives_up_a_frozen_gcs_and_a_frozen_node() -> None:
    watch = HeadWatch(0.0)
    watch.answered(1, 10.0)
    assert watch.verdict([], 10.0 + HEAD_SILENT_S) is None
    assert "GCS has not answered for 60 s" in str(watch.verdict([], 10.1 + HEAD_SILENT_S))
    watch.answered(0, 30.0)
    assert watch.verdict([], 30.0) == "its node is dead", "the last answer with a node is 20 s old"
    watch.answered(1, 31.0)
    watch.answered(0, 31.0 + NO_NODE_S)
    assert watch.verdict([], 31.0 + NO_NODE_S) is None, "one missed look is no death"


def test_a_head_that_leaves_does_not_mind_the_end_of_its_processes() -> None:
    watch = HeadWatch(0.0)
    watch.leaving(20.0)
    assert watch.verdict(["raylet", "gcs_server"], 19.0) is None
    assert watch.verdict([], 20.5) == "its shutdown takes too long"


def test_a_cluster_without_a_node_is_lost_within_ten_seconds() -> None:
    watch = ClusterWatch()
    assert watch.verdict(1, 0.0) is None
    assert watch.verdict(0, 2.0) is None, "the only node may just be replaced"
    assert watch.verdict(1, 3.0) is None
    assert watch.verdict(0, 100.0) is None
    assert watch.verdict(0, 100.0 + NO_NODE_S) == "no node of it is left"
    assert NO_NODE_S + 2 * 2 < 10


def test_a_process_that_does_not_answer_is_mentioned_once_then_ended() -> None:
    watch = AnswerWatch(0.0)
    verdict = watch.verdict(FROZEN_SAID_S - 1)
    assert (verdict.say, verdict.end) == (False, False)
    verdict = watch.verdict(FROZEN_SAID_S)
    assert (verdict.say, verdict.end) == (True, False)
    assert not watch.verdict(FROZEN_SAID_S + 1).say
    assert watch.verdict(FROZEN_S).end
    watch.answered(FROZEN_S)
    verdict = watch.verdict(FROZEN_S + FROZEN_SAID_S)
    assert (verdict.say, verdict.end) == (True, False), "another silence is mentioned again"


def test_a_trial_past_its_limit_ends_after_the_grace_in_which_it_should_end_itself() -> None:
    watch = TrialWatch()
    watch.heard("a", 3, [], 100.0, 30.0, 0.0)
    watch.heard("a", 3, [1.0], 125.0, 30.0, 0.0)
    assert watch.verdicts(130.0 + LIMIT_GRACE_S) == []
    (verdict,) = watch.verdicts(130.5 + LIMIT_GRACE_S)
    assert (verdict.key, verdict.token, verdict.end) == ("a", 3, True)
    assert verdict.text == "ran longer than 30 s and did not end itself 60 s later"
    watch.ended("a", 3)
    assert watch.verdicts(1e9) == []


def test_a_trial_that_was_never_begun_has_no_clock() -> None:
    assert TrialWatch().verdicts(1e9) == []


def test_each_attempt_has_a_clock_of_its_own() -> None:
    watch = TrialWatch()
    watch.heard("a", 1, [], 0.0, 30.0, 0.0)
    watch.ended("a", 1)
    watch.heard("a", 2, [], 1000.0, 30.0, 0.0)
    assert watch.verdicts(1030.0) == []


def test_a_quiet_trial_is_mentioned_once_in_each_silence_and_never_ended_without_a_limit() -> None:
    watch = TrialWatch()
    watch.heard("slow", 1, [], 0.0, None, 60.0)
    watch.heard("fast", 1, [1.0], 0.0, None, 0.0)
    assert watch.verdicts(QUIET_S) == []
    (verdict,) = watch.verdicts(QUIET_S + 1)
    assert (verdict.key, verdict.end) == ("fast", False)
    assert "reported nothing for 10 min; its rounds take about 1 s" in verdict.text
    assert watch.verdicts(QUIET_S + 2) == []
    (verdict,) = watch.verdicts(QUIET_ROUNDS * 60.0 + 1)
    assert verdict.key == "slow"
    watch.heard("fast", 1, [1.0], 5000.0, None, 0.0)
    assert [each.key for each in watch.verdicts(5001.0 + QUIET_S)] == ["fast"]
