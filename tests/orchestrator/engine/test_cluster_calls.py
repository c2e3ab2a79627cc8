"""Questions to a cluster that does not answer any more: Ray would wait without end."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from orchestrator.engine import cluster_calls
from orchestrator.engine.cluster_calls import ClusterCalls
from orchestrator.errors import BackendUnreachable, ClusterLost


def test_an_answer_and_an_error_come_through() -> None:
    calls = ClusterCalls(lambda: None)
    assert calls.ask(lambda: 5) == 5
    assert calls.ask(lambda: None) is None
    with pytest.raises(ZeroDivisionError, match="division"):
        calls.ask(lambda: 1 / 0)


def test_a_question_to_a_cluster_that_is_gone_ends_at_once() -> None:
    never = threading.Event()
    calls = ClusterCalls(lambda: "its process has ended")
    with pytest.raises(ClusterLost, match="the Ray cluster is gone: its process has ended"):
        calls.ask(never.wait)
    never.set()


def test_a_silent_cluster_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_calls, "ANSWER_S", 0.1)
    never = threading.Event()
    with pytest.raises(ClusterLost, match="has not answered"):
        ClusterCalls(lambda: None).ask(never.wait)
    never.set()
    assert issubclass(ClusterLost, BackendUnreachable), "exit code 7 where nobody goes on by himself"


def test_a_cluster_whose_node_died_is_noticed_in_the_next_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(cluster_calls, "time", SimpleNamespace(monotonic=lambda: now[0]))
    nodes = [1]
    calls = ClusterCalls(lambda: None)
    calls.look(lambda: nodes[0])
    nodes[0] = 0
    calls.look(lambda: nodes[0])  # within LOOK_S: not looked at
    for _ in range(3):
        now[0] += 2.0
        calls.look(lambda: nodes[0])
    now[0] += 2.0
    with pytest.raises(ClusterLost, match="no node of it is left"):
        calls.look(lambda: nodes[0])
    assert now[0] - 100.0 < 10, "within ten seconds"


def test_a_cluster_that_took_its_actors_along_is_lost_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = ClusterCalls(lambda: None)
    calls.look(lambda: 1, after_death=True)
    with pytest.raises(ClusterLost, match="its last node died"):
        calls.look(lambda: 0, after_death=True)


def test_a_head_that_is_gone_is_noticed_before_ray_is_asked() -> None:
    with pytest.raises(ClusterLost, match="killed"):
        ClusterCalls(lambda: "killed").look(lambda: pytest.fail("asked"))
