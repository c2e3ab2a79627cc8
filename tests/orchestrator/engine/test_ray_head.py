"""The head's looks at actors that no driver watches, without Ray."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.engine import ray_head
from orchestrator.engine.ray_head import _Pings, runs_trials
from orchestrator.engine.watch import FROZEN_S


def actor(name: str, namespace: str = "orchestrator-1") -> dict[str, str]:
    return {"name": name, "namespace": namespace}


class FakeRay:
    """Actors that answer, but for those that are frozen."""

    def __init__(self) -> None:
        self.frozen: set[str] = set()
        self.killed: list[str] = []
        self.calls = 0

    def get_actor(self, name: str, namespace: str) -> Any:
        if name == "gone":
            raise ValueError("Failed to look up actor")

        def call() -> str:
            self.calls += 1
            return name

        return SimpleNamespace(name=name, should_stop=SimpleNamespace(remote=call))

    def wait(self, calls: list[str], timeout: float) -> tuple[list[str], list[str]]:
        assert timeout == 0, "the head never waits for an actor"
        ready = [call for call in calls if call not in self.frozen]
        return ready, [call for call in calls if call in self.frozen]

    def kill(self, handle: Any) -> None:
        self.killed.append(handle.name)


def test_only_actors_of_trials_keep_a_cluster() -> None:
    assert runs_trials([actor("orchestrator-1/abc|{}")])
    assert not runs_trials([actor("controller-xyz")])
    assert not runs_trials([actor("a/b", "somebody")])
    assert not runs_trials([])


def test_an_actor_that_answers_nobody_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    ray, now = FakeRay(), [0.0]
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr(ray_head, "time", SimpleNamespace(monotonic=lambda: now[0]))
    pings, actors = _Pings(), [actor("a/1"), actor("a/2"), actor("gone")]
    ray.frozen = {"a/2"}
    while now[0] < FROZEN_S:
        pings.end_frozen(actors)
        now[0] += 1.0
    assert ray.killed == []
    assert ray.calls == 1 + FROZEN_S, "one call at a time; the frozen one has a single one"
    pings.end_frozen(actors)
    assert ray.killed == ["a/2"]
    now[0] += 10 * FROZEN_S
    pings.end_frozen([actor("a/1")])
    assert ray.killed == ["a/2"]
