"""Population-based training: generations, which member copies which, and the same after a kill."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from in_process_backend import Machine, crashing, drive_to_end, killed
from k12_job import BASE, RAND
from k12_job import job as a_job

from orchestrator.engine import membership
from orchestrator.engine.driver import Driver
from orchestrator.records.rows import SearchEvent
from orchestrator.records.states import JobState, TrialState
from orchestrator.report.verify import verify
from orchestrator.search.population import PopulationSearch, changed
from orchestrator.spec.job import JobSpec, job_id
from orchestrator.spec.search_space import Population, contains
from orchestrator.spec.sweep import Search
from orchestrator.store.store import Store, open_store
from workers.messages import Assignment, Outcome, Report, Weights

RANGES = {
    "optim.lr": {"loguniform": [1e-4, 1e-2]},
    "backbone.drop_path": {"choice": [0, 0.1, 0.2]},
}
SIZE, GENERATIONS = 5, 3
SWEEP = {
    "search": RANGES, "trials": SIZE, "at_once": SIZE, "sampler": "random",
    "population": {"size": SIZE, "every_epochs": 4, "quantile": 0.4},
}  # fmt: skip


def key_of(body: Mapping[str, Any]) -> str | None:
    identity = {name: body.get(name) for name in ("point", "span", "parent")}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def population(**fields: Any) -> PopulationSearch:
    return PopulationSearch(Search.model_validate({**SWEEP, **fields}), "top1", "max", 12, key_of)


def finish(search: PopulationSearch, events: list[SearchEvent], order: int = 0) -> list[SearchEvent]:
    """Runs the population to its end; trials end in a random order. Returns all events."""
    events, dice = list(events), random.Random(order)
    ended = {event.key for event in events if event.kind == "told"}
    while True:
        while search.can_suggest():
            events.append(search.suggest())
        open_ = [event for event in events if event.kind == "asked" and event.key not in ended]
        if not open_:
            return events
        event = dice.choice(open_)
        value = float(int(event.key, 16) % 1000)
        result = search.on_result(event.key, value)
        assert result is not None
        events.append(result)
        ended.add(event.key)


def asked(events: list[SearchEvent]) -> list[list[SearchEvent]]:
    """The suggested trials, by generation."""
    suggested = [event for event in events if event.kind == "asked"]
    return [suggested[n : n + SIZE] for n in range(0, len(suggested), SIZE)]


def test_the_worst_copy_the_best_and_the_others_continue() -> None:
    events = finish(population(), [])
    generations = asked(events)
    values = {event.key: event.body["value"] for event in events if event.kind == "told"}
    assert [len(generation) for generation in generations] == [SIZE] * GENERATIONS
    for number, (before, after) in enumerate(itertools.pairwise(generations), 1):
        ranked = sorted(before, key=lambda event: -values[event.key])
        best, worst = {event.key for event in ranked[:2]}, {event.key for event in ranked[-2:]}
        for event, last in zip(after, before, strict=True):
            assert event.body["span"] == [4 * number, 4 * number + 4]
            if last.key in worst:
                assert event.body["parent"] in best
                assert event.body["how"].startswith("copies")
            else:
                assert event.body["parent"] == last.key
                assert event.body["point"] == last.body["point"]
        assert len({event.key for event in after}) == SIZE
    assert all(event.body.get("passing") for generation in generations[:-1] for event in generation)
    assert not any(event.body.get("passing") for event in generations[-1])


def test_who_is_faster_decides_nothing() -> None:
    by_order = [
        [{e.key for e in generation} for generation in asked(finish(population(), [], order))] for order in range(4)
    ]
    assert all(keys == by_order[0] for keys in by_order)
    assert [{e.key for e in generation} for generation in asked(finish(population(seed=1), []))] != by_order[0]


def test_replayed_from_its_events_it_continues_the_same() -> None:
    whole = finish(population(), [])
    for many in range(len(whole) + 1):
        again = population()
        assert again.replay(whole[:many]) == []
        assert {e.key for e in finish(again, whole[:many])} == {e.key for e in whole}
    other = [
        SearchEvent(e.number, e.kind, e.key, {**e.body, "point": {**e.body["point"], "optim.lr": 5e-4}})
        if e.number == 0 else e for e in whole
    ]  # fmt: skip
    again = population()
    (line,) = again.replay(other[: SIZE + 2])
    assert "recorded" in line
    assert len(finish(again, other[: SIZE + 2])) == len(whole)


def test_a_member_that_diverged_copies_and_a_population_of_which_all_did_ends() -> None:
    search = population()
    first = [search.suggest() for _ in range(SIZE)]
    for event in first:
        search.on_result(event.key, 1.0 if event is first[0] else None)
    second = [search.suggest() for _ in range(SIZE)]
    assert {event.body["parent"] for event in second} == {first[0].key}
    for event in second:
        search.on_result(event.key, None)
    assert search.can_suggest()
    assert search.suggest().kind == "exhausted"
    assert search.finished()


def lr(event: SearchEvent) -> float:
    return float(event.body["point"]["optim.lr"])


def generation(search: PopulationSearch, values: Sequence[float | None]) -> list[SearchEvent]:
    """Suggests the next generation and ends it with these values."""
    events = [search.suggest() for _ in values]
    for event, value in zip(events, values, strict=True):
        search.on_result(event.key, value)
    return events


@pytest.mark.parametrize("seed", range(4))
def test_a_copying_member_changes_the_settings_that_it_copied(seed: int) -> None:
    """Not its own: with nothing drawn anew, every learning rate is 0.8 or 1.2 times that of the member it copies."""
    rule = {**SWEEP["population"], "resample": 0.0}
    search = population(population=rule, seed=seed, search={"optim.lr": {"loguniform": [1e-12, 1e6]}})
    before = generation(search, [1.0, 2.0, 3.0, 4.0, 5.0])
    after = generation(search, [0.0] * SIZE)
    for number, event in enumerate(after):
        if number >= 2:  # all but the two worst
            assert event.body["how"] == "goes on"
            continue
        source = before[int(event.body["how"].removeprefix("copies "))]
        assert source in before[3:]
        assert event.body["parent"] == source.key
        assert lr(event) / lr(source) == pytest.approx(0.8) or lr(event) / lr(source) == pytest.approx(1.2)


def test_a_member_changes_otherwise_in_every_generation() -> None:
    """Member 0 is the worst in both: with all settings drawn anew, it draws others in the second."""
    search = population(population={**SWEEP["population"], "resample": 1.0})
    generation(search, [0.0, 1.0, 2.0, 3.0, 4.0])
    first = generation(search, [0.0, 1.0, 2.0, 3.0, 4.0])
    second = generation(search, [0.0] * SIZE)
    assert first[0].body["how"].startswith("copies")
    assert second[0].body["how"].startswith("copies")
    assert lr(first[0]) != lr(second[0])
    assert lr(first[0]) != lr(first[1])


@pytest.mark.parametrize(("size", "quantile", "copying"), [(7, 0.25, 1), (8, 0.25, 2), (7, 0.5, 3), (3, 0.2, 1)])
def test_the_quantile_is_cut_to_whole_members(size: int, quantile: float, copying: int) -> None:
    rule = {"size": size, "every_epochs": 4, "quantile": quantile}
    search = population(population=rule, trials=size, at_once=size)
    before = generation(search, [float(number) for number in range(size)])
    after = generation(search, [0.0] * size)
    assert [event.body["how"].startswith("copies") for event in after] == [n < copying for n in range(size)]
    assert {event.body["parent"] for event in after[:copying]} <= {event.key for event in before[-copying:]}


def test_of_a_loss_the_lowest_is_copied() -> None:
    search = PopulationSearch(Search.model_validate(SWEEP), "loss", "min", 12, key_of)
    before = generation(search, [1.0, 2.0, 3.0, 4.0, None])
    after = generation(search, [0.0] * SIZE)
    assert [event.body["how"].startswith("copies") for event in after] == [False, False, False, True, True]
    assert {event.body["parent"] for event in after[3:]} <= {event.key for event in before[:2]}


def test_an_event_says_all_of_a_members_trial() -> None:
    search = population()
    first = generation(search, [1.0, 2.0, 3.0, 4.0, 5.0])
    assert [event.number for event in first] == list(range(SIZE))
    for number, event in enumerate(first):
        assert event.kind == "asked"
        assert event.key == key_of(event.body)
        rest = {name: value for name, value in event.body.items() if name != "point"}
        assert rest == {"span": [0, 4], "member": number, "passing": True, "parent": None, "how": "new"}
    same = generation(search, [0.0] * SIZE)[4]
    rest = {name: value for name, value in same.body.items() if name != "point"}
    assert rest == {"span": [4, 8], "member": 4, "passing": True, "parent": first[4].key, "how": "goes on"}
    assert "passing" not in search.suggest().body


@pytest.mark.parametrize("at_once", [1, 2, SIZE])
def test_no_more_members_run_at_once_than_allowed(at_once: int) -> None:
    search = population(at_once=at_once)
    open_: list[SearchEvent] = []
    while search.can_suggest():
        open_.append(search.suggest())
    assert len(open_) == at_once
    for _ in range(SIZE - at_once):
        search.on_result(open_.pop(0).key, 1.0)
        assert search.can_suggest()
        open_.append(search.suggest())
        assert not search.can_suggest()


def test_a_population_that_cannot_go_on_says_why() -> None:
    search = population()
    generation(search, [None] * SIZE)
    event = search.suggest()
    assert (event.kind, event.key) == ("exhausted", "")
    assert event.body == {"reason": "all members diverged in generation 1"}
    assert search.finished()
    nothing = PopulationSearch(Search.model_validate(SWEEP), "top1", "max", 12, lambda body: None)
    event = nothing.suggest()
    assert (event.kind, event.key) == ("exhausted", "")
    assert event.body == {"reason": "no point of the ranges is allowed"}
    assert not nothing.can_suggest()


def test_a_report_or_a_second_result_of_a_member_changes_nothing() -> None:
    search = population()
    key = search.suggest().key
    assert search.on_report(key, 2, 0.5) is None  # type: ignore[func-returns-value]
    assert search.on_result("another", 0.5) is None
    first = search.on_result(key, 0.5)
    assert first is not None
    assert (first.kind, first.key, first.body) == ("told", key, {"value": 0.5})
    assert search.on_result(key, 0.9) is None


def test_changes_stay_in_their_ranges() -> None:
    search, rule, dice = Search.model_validate(SWEEP), Population(size=2, every_epochs=1), random.Random(0)
    values: dict[str, Any] = {"optim.lr": 9.5e-3, "backbone.drop_path": 0.1}
    seen: Counter[Any] = Counter()
    for _ in range(300):
        for path, ranges in search.search.items():
            value = changed(ranges, values[path], rule, dice)
            assert contains(ranges, value)
            seen[value] += 1
    assert {0, 0.1, 0.2, 1e-2} <= set(seen)  # 1.2 x 9.5e-3 is cut at the end
    assert seen[7.6e-3] > 60  # 0.8 x 9.5e-3


# Under the control loop


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = open_store(database_url)
    yield opened
    opened.close()


class Trainer:
    """A member gains its learning rate in every epoch, starting from the value of its parent."""

    def __init__(self) -> None:
        self.state: dict[str, float] = {}

    def __call__(self, assignment: Assignment, emit: Any, stop: Any) -> Outcome:
        trial = assignment.trial
        value = self.state[trial.parent] if trial.first_round and trial.parent else 0.0
        assert set(assignment.parents) == ({trial.parent} if trial.parent else set())
        for epoch in range(trial.first_round + 1, trial.last_round + 1):
            value += trial.optim.lr
            emit(Report(epoch, epoch * 10, {"train_loss": -value, trial.task.metric: value}, 0.01))
        self.state[trial.key] = value
        early = trial.last_round < trial.rounds
        weights = Weights(f"{assignment.folder}/weights", "0" * 64) if assignment.keep_weights or early else None
        return Outcome({trial.task.metric: value, "loss": -value}, {"train_seconds": 0.02, "device": "cpu"}, weights)


def a_population_job() -> JobSpec:
    trial = {**BASE, "optim": {"lr": 1e-3, "epochs": 12, "warmup_epochs": 0, "batch": 64}}
    sweep = {**SWEEP, "each": {"backbone.init": [RAND]}}
    final = {"name": "final", "from": "search", "override": {"task.evaluate": "test"}}
    return a_job({"name": "search", "sweep": sweep}, final, trial=trial)


def test_a_population_runs_in_parts_and_the_winner_is_of_the_last(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "BEAT_S", 0.02)
    study, machine = a_population_job(), Machine(slots=2, execute=Trainer())

    def watch(driver: Driver) -> None:
        if driver.tally.finished == 7:
            driver.stop("interrupted")

    assert drive_to_end(store, study, machine, tmp_path, watch=watch)[0] is JobState.interrupted
    assert drive_to_end(store, study, machine, tmp_path)[0] is JobState.done
    rows = store.trials.placed(job_id(study), "search")
    assert len(rows) == SIZE * GENERATIONS
    assert {row.state for row in rows} == {TrialState.done}
    assert Counter(row.epochs for row in rows) == {4: SIZE, 8: SIZE, 12: SIZE}
    (winner,) = store.choices.of(job_id(study))
    assert winner.candidates == SIZE
    assert winner.value == max(row.value or 0 for row in rows)
    assert winner.value > 12 * 1e-3
    (final,) = store.trials.placed(job_id(study), "final")
    assert final.value == winner.value
    assert store.trials.get(final.key).spec["span"] == {"first_epoch": 8, "last_epoch": 12}
    assert verify(store, job_id(study)) == []
    undisturbed = open_store(f"sqlite:///{tmp_path / 'other.db'}")
    drive_to_end(undisturbed, study, Machine(slots=1, execute=Trainer()), tmp_path / "other")
    assert [w.key for w in undisturbed.choices.of(job_id(study))] == [winner.key]
    undisturbed.close()


def test_a_killed_population_resumes_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver dies at each commit of the population, before one, after the next: the same members and winner, and
    no part of one is trained twice."""
    monkeypatch.setattr(membership, "BEAT_S", 0.02)
    study = a_population_job()
    undisturbed = open_store(f"sqlite:///{tmp_path / 'undisturbed.db'}")
    count = crashing(undisturbed, monkeypatch, 0, False)
    drive_to_end(undisturbed, study, Machine(slots=1, execute=Trainer()), tmp_path / "undisturbed")
    (expected,) = undisturbed.search_log.events(job_id(study)).values()
    (winner,) = undisturbed.choices.of(job_id(study))
    assert count[0] > SIZE
    for at in range(1, count[0] + 1):
        own = open_store(f"sqlite:///{tmp_path / f'{at}.db'}")
        machine = Machine(slots=1, execute=Trainer())
        with monkeypatch.context() as patch:
            crashing(own, patch, at, after=at % 2 == 0)
            killed(own, study, machine, tmp_path / str(at), patch)
        assert drive_to_end(own, study, machine, tmp_path / str(at))[0] is JobState.done
        (events,) = own.search_log.events(job_id(study)).values()
        assert events == expected, f"crash at {at}"
        assert [each.key for each in own.choices.of(job_id(study))] == [winner.key]
        assert set(machine.ran.values()) == {1}
        own.close()
    undisturbed.close()
