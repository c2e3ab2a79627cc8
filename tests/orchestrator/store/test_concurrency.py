"""Several processes on one store, and processes killed while they write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace

from stored_job import JOB, elsewhere, key_of, placement

from orchestrator.records.states import TrialState
from orchestrator.records.writes import Finished
from orchestrator.store.store import Store, open_store


def test_two_drivers_that_claim_the_same_trials_get_disjoint_sets(store: Store, database_url: str) -> None:
    store.jobs.put(JOB)
    keys = [key_of(number) for number in range(1, 121)]
    store.trials.place(JOB.id, [placement(number) for number in range(1, 121)])
    taken: dict[str, dict[str, int]] = {}
    gate = threading.Barrier(4)

    def drive(name: str, order: list[str]) -> None:
        opened = open_store(database_url)
        opened.leases.register(elsewhere(name))
        claimed: dict[str, int] = {}
        gate.wait()
        for start in range(0, len(order), 7):
            tokens = opened.leases.claim(name, order[start : start + 7])
            opened.trials.commit(name, [Finished(key, token, {"top1": 1.0}) for key, token in tokens.items()])
            assert not claimed.keys() & tokens.keys()
            claimed |= tokens
        taken[name] = claimed
        opened.close()

    orders = [keys, keys, keys[::-1], keys[60:] + keys[:60]]
    threads = [threading.Thread(target=drive, args=(f"d{n}", order)) for n, order in enumerate(orders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(key for claimed in taken.values() for key in claimed) == sorted(keys)
    assert {row.state for row in store.trials.placed(JOB.id)} == {TrialState.done}
    assert all(len(store.trials.attempts(key)) == 1 for key in keys[:10])


def test_two_drivers_that_place_the_same_trials_make_each_once(store: Store, database_url: str) -> None:
    jobs = ["first", "second"]
    for job in jobs:
        store.jobs.put(replace(JOB, id=job))
    failures: list[BaseException] = []

    def submit(job: str, numbers: list[int]) -> None:
        opened = open_store(database_url)
        try:
            for start in range(0, 100, 10):
                opened.trials.place(job, [placement(number) for number in numbers[start : start + 20]])
        except BaseException as error:
            failures.append(error)
        opened.close()

    forwards = list(range(1, 101))
    orders = zip(jobs, (forwards, forwards[::-1]), strict=True)
    threads = [threading.Thread(target=submit, args=pair) for pair in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [len(store.trials.placed(job)) for job in jobs] == [100, 100]
    assert store.trials.snapshots([key_of(1)])[key_of(1)].state == TrialState.pending


def test_a_first_open_by_several_at_once(database_url: str) -> None:
    failures: list[BaseException] = []

    def use() -> None:
        try:
            opened = open_store(database_url)
            opened.jobs.put(JOB)
            opened.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


KILLED_INSIDE = """
import sys, time
from orchestrator.records.writes import *
from orchestrator.store.leases import *
from orchestrator.store.store import *
class Slow(dict):
    def items(self):
        print("inside", flush=True)
        time.sleep(60)
store = open_store(sys.argv[1])
store.leases.register(driver_here("child", {job!r}, "cluster"))
token = store.leases.claim("child", [{key!r}])[{key!r}]
store.trials.commit("child", [Reported({key!r}, token, 1, 1, {{}}, 1.0), Finished({key!r}, token, Slow(top1=0.5))])
"""


def test_sigkill_inside_a_transaction_leaves_nothing_of_it(three: Store, database_url: str) -> None:
    script = KILLED_INSIDE.format(job=JOB.id, key=key_of(1))
    child = subprocess.Popen([sys.executable, "-c", script, database_url], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "inside\n"  # the trial's row says done, its figures are not there yet
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    known = three.trials.snapshots([key_of(1)])[key_of(1)]
    assert (known.state, known.epoch, known.figures) == (TrialState.running, 0, {})
    assert three.trials.reports(key_of(1)) == []
    assert three.leases.claim("d1", [key_of(1)]) == {key_of(1): 2}
    three.trials.commit("d1", [Finished(key_of(1), 2, {"top1": 0.5})])
    assert [a.cause for a in three.trials.attempts(key_of(1))] == ["driver_lost", "done"]


KILLED_ANYWHERE = """
import itertools, sys
from orchestrator.records.writes import *
from orchestrator.store.leases import *
from orchestrator.store.store import *
store = open_store(sys.argv[1])
store.leases.register(driver_here("child", {job!r}, "cluster"))
token = store.leases.claim("child", [{key!r}])[{key!r}]
for epoch in itertools.count(1):
    store.trials.commit("child", [Reported({key!r}, token, epoch, epoch, {{"loss": 1.0}}, 1.0)])
    print(epoch, flush=True)
"""


def test_what_was_acknowledged_before_a_sigkill_is_there(three: Store, database_url: str) -> None:
    script = KILLED_ANYWHERE.format(job=JOB.id, key=key_of(1))
    child = subprocess.Popen([sys.executable, "-c", script, database_url], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(50):
        child.stdout.readline()
    os.kill(child.pid, signal.SIGKILL)
    printed = 50 + len(child.stdout.readlines())
    child.wait()
    child.stdout.close()
    epochs = [row.epoch for row in three.trials.reports(key_of(1))]
    assert epochs == list(range(1, len(epochs) + 1))
    assert printed <= len(epochs) <= printed + 1
    assert three.trials.snapshots([key_of(1)])[key_of(1)].epoch == len(epochs)
