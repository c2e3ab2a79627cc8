"""A model of leases and takeover, checked in every interleaving of two drivers over two trials.

The model: a driver's lease is absent, live or run out. A trial is pending, running or done; its token counts attempts,
up to BOUND; its holder is the driver of the last one. A driver remembers the token of each trial that it was given,
also when it has lost the trial meanwhile. In any order, drivers register, send heartbeats, sleep past their leases,
die (and are noticed or not), claim, adopt, and write reports, results and releases under the token they remember.

Invariants, in every state that can be reached:
1. A trial is not taken from a driver whose lease is live.
2. A write is accepted only from the driver to which the trial was given last, and only for its newest attempt.
3. A trial gets at most one result; one with a result is given to nobody again.
4. Tokens only grow, by one with each claim; an adoption keeps the token.
5. No trial is stuck: once the other driver is dead, a living one can claim or adopt whatever is not done, and end it.

The model is that of the code: `test_the_store_does_what_the_model_says` brings the real store into every state of the
model's leases and of one trial, takes every action there, and compares answer and records with the model's.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from stepped_processes import without_sync
from stored_job import JOB, elsewhere, key_of, placement

from orchestrator.errors import LeaseLost
from orchestrator.records.writes import Finished, Released, Reported
from orchestrator.store import tables
from orchestrator.store.store import Store

BOUND = 3
"""Attempts of a trial that the model explores."""
ABSENT, LIVE, OVER = "absent", "live", "over"
PENDING, RUNNING, DONE = "pending", "running", "done"
WRITES = ("report", "finish", "release")

Leases = tuple[str, str]


class Trial(NamedTuple):
    """A trial in the store. `holder`: the driver (0 or 1) of its last attempt; None before the first."""

    state: str = PENDING
    token: int = 0
    holder: int | None = None


class Action(NamedTuple):
    """What a driver does to a trial; `token`: of the attempt that it names, 0 where it names none."""

    kind: str
    driver: int
    token: int = 0


def acted(leases: Leases, trial: Trial, action: Action) -> tuple[Trial, str]:
    """The trial after the action, and the store's answer: taken, free (nothing to take), written, repeated, refused."""
    kind, driver, token = action
    if kind in ("claim", "adopt"):
        if leases[driver] != LIVE:
            return trial, "refused"
        dead = trial.state == RUNNING and trial.holder is not None and leases[trial.holder] != LIVE
        if kind == "claim":
            free = trial.state == PENDING or dead
            return (Trial(RUNNING, trial.token + 1, driver), "taken") if free else (trial, "free")
        possible = trial.state == RUNNING and trial.token == token and (dead or trial.holder == driver)
        return (trial._replace(holder=driver), "taken") if possible else (trial, "free")
    if token != trial.token:
        return trial, "refused"
    if trial.state == RUNNING:
        if trial.holder != driver:
            return trial, "refused"
        return trial._replace(state={"report": RUNNING, "finish": DONE, "release": PENDING}[kind]), "written"
    if trial.state == PENDING:
        return trial, "repeated" if kind == "release" else "refused"
    return trial, "repeated"


def lease_after(kind: str) -> str:
    """A driver's lease after it registered, beat, slept past its end, was unregistered, or died without notice."""
    return {"register": LIVE, "beat": LIVE, "sleep": OVER, "unregister": ABSENT, "die": OVER}[kind]


class World(NamedTuple):
    """Everything: leases, trials, what each driver remembers (token, 0: nothing), and to whom each trial was given last
    (driver, token)."""

    leases: Leases
    trials: tuple[Trial, Trial]
    memory: tuple[tuple[int, int], tuple[int, int]]
    given: tuple[tuple[int, int] | None, tuple[int, int] | None]


BEGIN = World((ABSENT, ABSENT), (Trial(), Trial()), ((0, 0), (0, 0)), (None, None))


def successors(world: World) -> Iterator[World]:
    """The states after every action that is possible now; each action is checked against the invariants."""
    for driver in (0, 1):
        for kind in ("register", "beat", "sleep", "unregister", "die"):
            if kind in ("beat", "sleep", "die") and world.leases[driver] == ABSENT:
                continue
            leases = changed(world.leases, driver, lease_after(kind))
            gone = kind in ("unregister", "die")  # its process has ended: it remembers nothing
            yield world._replace(leases=leases, memory=changed(world.memory, driver, (0, 0)) if gone else world.memory)
        for number in (0, 1):
            yield from successors_of_trial(world, driver, number)


def successors_of_trial(world: World, driver: int, number: int) -> Iterator[World]:
    trial, token = world.trials[number], world.memory[driver][number]
    takes = [Action("claim", driver), Action("adopt", driver, trial.token)] if not token else []
    for action in [*takes, *(Action(kind, driver, token) for kind in WRITES if token)]:
        after, answer = acted(world.leases, trial, action)
        if after.token > BOUND:
            continue
        check(world, number, action, after, answer)
        given = changed(world.given, number, (driver, after.token)) if answer == "taken" else world.given
        remembered = {"taken": after.token, "free": 0, "written": token if after.state == RUNNING else 0}.get(answer, 0)
        memory = changed(world.memory, driver, changed(world.memory[driver], number, remembered))
        yield World(world.leases, changed(world.trials, number, after), memory, given)


def check(world: World, number: int, action: Action, after: Trial, answer: str) -> None:
    """Invariants 1 to 4, of one action."""
    before, given = world.trials[number], world.given[number]
    if answer == "taken":
        other_holds = before.state == RUNNING and given is not None and given[0] != action.driver
        assert not (other_holds and world.leases[given[0]] == LIVE), "taken from a living driver"  # type: ignore[index]
        assert before.state != DONE, "what has a result was given away"
    if answer == "written":
        assert given == (action.driver, action.token), "written by a driver that lost the trial, or for an old attempt"
        assert before.state != DONE, "a second result"
    else:
        assert answer == "taken" or after == before, "changed by what was refused"
    assert after.token == before.token + (answer == "taken" and action.kind == "claim")


def changed(values: Any, index: int, value: Any) -> Any:
    """The pair with another value at the index."""
    return (value, values[1]) if index == 0 else (values[0], value)


def swapped(world: World) -> World:
    """The same with the trials exchanged, which differ in nothing."""
    return World(world.leases, world.trials[::-1], (world.memory[0][::-1], world.memory[1][::-1]), world.given[::-1])  # type: ignore[arg-type]


def reachable() -> set[World]:
    """Every state that can be reached, breadth first; of two that differ by the order of the trials, one."""
    seen, border = {BEGIN}, [BEGIN]
    while border:
        found = {min(world, swapped(world), key=repr) for each in border for world in successors(each)}
        border = list(found - seen)
        seen |= found
    return seen


def test_the_invariants_hold_in_every_interleaving() -> None:
    worlds = reachable()
    assert len(worlds) > 5000
    assert {trial.token for world in worlds for trial in world.trials} == set(range(BOUND + 1))
    for world in worlds:
        for trial in world.trials:
            assert_not_stuck(trial)


def assert_not_stuck(trial: Trial) -> None:
    """Invariant 5: the other driver is dead, this one registers anew."""
    leases = (LIVE, OVER)
    if trial.state == DONE or (trial.state == RUNNING and trial.holder == 0):
        return
    claimed, answer = acted(leases, trial, Action("claim", 0))
    assert answer == "taken"
    assert acted(leases, claimed, Action("finish", 0, claimed.token))[1] == "written"
    if trial.state == RUNNING:
        adopted, answer = acted(leases, trial, Action("adopt", 0, trial.token))
        assert (answer, adopted.token) == ("taken", trial.token)
        assert acted(leases, adopted, Action("finish", 0, adopted.token))[1] == "written"


# The real store


def states() -> Iterator[tuple[Leases, Trial]]:
    trials = [Trial(), *(Trial(state, token, holder) for state in (PENDING, RUNNING, DONE)
                         for token in (1, 2) for holder in (0, 1))]  # fmt: skip
    for first, second in itertools.product((ABSENT, LIVE, OVER), repeat=2):
        for trial in trials:
            yield (first, second), trial


def actions() -> Iterator[Action]:
    """Those of driver 0: of two drivers that differ in nothing, `states` has each in both parts."""
    yield Action("claim", 0)
    for token in (1, 2):
        yield from (Action(kind, 0, token) for kind in ("adopt", *WRITES))


def test_the_store_does_what_the_model_says(store: Store) -> None:
    without_sync(store._db)
    store.jobs.put(JOB)
    store.trials.place(JOB.id, [placement(1), placement(2)])
    answers: Counter[str] = Counter()
    for leases, trial in states():
        bring(store, leases, trial)
        for action in actions():
            expected, answer = acted(leases, trial, action)
            assert do(store, action) == answer, (leases, trial, action)
            if answer in ("taken", "written"):
                assert recorded(store) == (expected, attempts_after(expected, action, trial)), (leases, trial, action)
                bring(store, leases, trial)
            else:
                assert recorded(store) == (trial, attempts_of(trial)), (leases, trial, action)
            answers[answer] += 1
    assert answers == {"taken": 29, "free": 88, "written": 54, "repeated": 144, "refused": 738}
    assert store.trials.snapshots([key_of(2)])[key_of(2)].state == PENDING


@pytest.mark.parametrize("lease", [ABSENT, LIVE, OVER])
def test_leases_are_what_the_model_says(store: Store, lease: str) -> None:
    store.jobs.put(JOB)
    for kind in ("register", "beat", "sleep", "unregister"):
        store.leases.unregister("d0")
        if lease != ABSENT:
            store.leases.register(elsewhere("d0"), ttl_s=60 if lease == LIVE else -1)
        elif kind in ("beat", "sleep"):
            with pytest.raises(LeaseLost, match="not registered"):
                store.leases.heartbeat("d0", 1, 0)
            continue
        {
            "register": lambda: store.leases.register(elsewhere("d0")),
            "beat": lambda: store.leases.heartbeat("d0", 1, 0),
            "sleep": lambda: store.leases.heartbeat("d0", 1, 0, ttl_s=-1),
            "unregister": lambda: store.leases.unregister("d0"),
        }[kind]()
        assert [driver.id for driver in store.leases.drivers()] == (["d0"] if lease_after(kind) == LIVE else [])


_TRIAL = sa.update(tables.trials).where(tables.trials.c.id == 1)


def bring(store: Store, leases: Leases, trial: Trial) -> None:
    """Brings the store into this state; earlier attempts than the last were of the other driver, which died."""

    def work(connection: sa.Connection) -> None:
        for table in (tables.drivers, tables.attempts, tables.figures, tables.reports):
            connection.execute(table.delete())
        now = store._db.now(connection)
        drivers = [
            {"id": f"d{number}", "host": "another-host", "pid": 1, "pid_started": 0.0, "job_id": JOB.id,
             "cluster": "cluster", "priority": 0, "slots": 0, "demand": 0, "running": 0, "started": now,
             "expires": now + (600 if lease == LIVE else -1)}
            for number, lease in enumerate(leases) if lease != ABSENT
        ]  # fmt: skip
        attempts = [
            {"trial_id": 1, "token": token, "driver_id": holder, "cluster": "cluster", "host": "another-host",
             "started": now, "ended": now if cause else None, "cause": cause}
            for token, (holder, cause) in enumerate(attempts_of(trial), 1)
        ]  # fmt: skip
        for table, rows in ((tables.drivers, drivers), (tables.attempts, attempts)):
            if rows:
                connection.execute(sa.insert(table), rows)
        values = {"state": trial.state, "token": trial.token, "value": 0.5 if trial.state == DONE else None, "epoch": 0,
                  "driver_id": None if trial.holder is None else f"d{trial.holder}"}  # fmt: skip
        connection.execute(_TRIAL.values(**values))

    store._db.write(work)


Attempts = list[tuple[str, str | None]]
"""(driver, cause of the end), the oldest first."""


def attempts_of(trial: Trial) -> Attempts:
    """The attempts of a trial, as `bring` makes them."""
    if trial.holder is None:
        return []
    lost: Attempts = [(f"d{1 - trial.holder}", "driver_lost")] * (trial.token - 1)
    return [*lost, (f"d{trial.holder}", {PENDING: "release", RUNNING: None, DONE: "done"}[trial.state])]


def attempts_after(trial: Trial, action: Action, before: Trial) -> Attempts:
    """The attempts after an action that changed something."""
    attempts, driver = attempts_of(before), f"d{action.driver}"
    if action.kind == "claim":
        if before.state == RUNNING:
            attempts[-1] = (attempts[-1][0], "driver_lost")
        return [*attempts, (driver, None)]
    return [*attempts[:-1], (driver, attempts_of(trial)[-1][1])]


def do(store: Store, action: Action) -> str:
    """Takes the action on the real store; its answer in the model's words."""
    key, name = key_of(1), f"d{action.driver}"
    try:
        if action.kind == "claim":
            return "taken" if store.leases.claim(name, [key]) else "free"
        if action.kind == "adopt":
            return "taken" if store.leases.adopt(name, key, action.token) else "free"
        before = look(store)
        write = {
            "report": Reported(key, action.token, 1, 1, {}, 1.0),
            "finish": Finished(key, action.token, {"top1": 1.0}),
            "release": Released(key, action.token, "release"),
        }[action.kind]
        store.trials.commit(name, [write])
        return "written" if look(store) != before else "repeated"
    except LeaseLost:
        return "refused"


_LOOK = (
    sa.select(tables.trials.c.state, tables.trials.c.token, tables.trials.c.driver_id, tables.trials.c.epoch,
              tables.trials.c.value, tables.attempts.c.driver_id.label("by"), tables.attempts.c.cause)
    .outerjoin(tables.attempts, tables.attempts.c.trial_id == tables.trials.c.id)
    .where(tables.trials.c.id == 1).order_by(tables.attempts.c.token)
)  # fmt: skip


def look(store: Store) -> list[Any]:
    """The trial beside each of its attempts."""
    return store._db.read(lambda connection: list(connection.execute(_LOOK)))


def recorded(store: Store) -> tuple[Trial, Attempts]:
    """The trial and its attempts as the store has them."""
    rows = look(store)
    holder = rows[0].driver_id
    trial = Trial(rows[0].state, rows[0].token, None if holder is None else int(holder[1:]))
    return trial, [(row.by, row.cause) for row in rows if row.by is not None]
