"""On a real Ray: actors are reused and replaced, a node's code is the driver's, Tune and Train see the same trial."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from digits_trial import TRIAL, spec_file
from ray import cloudpickle

from orchestrator.engine import ray_cluster as cluster
from orchestrator.engine.ray_backend import RayBackend, WorkerUpdate, require
from orchestrator.errors import BackendUnreachable
from orchestrator.settings import settings
from orchestrator.spec.job import Resources
from workers.errors import ErrorClass
from workers.messages import Assignment, Failure, Outcome, Report
from workers.trial import TrialSpec

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the actors cannot import the tests


def trial(**optim: Any) -> TrialSpec:
    return TrialSpec.model_validate({**TRIAL, "optim": {**TRIAL["optim"], **optim}})


def says_where(given: Assignment, emit: Any, stop: Any) -> Outcome:
    """No training: the process id as a figure; batch 13 fails, batch 17 waits to be killed."""
    import os
    import time

    if given.trial.optim.batch == 13:
        raise ValueError("thirteen")
    emit(Report(1, 1, {"train_loss": 1.0}, 0.0))
    if given.trial.optim.batch == 17:
        time.sleep(60)
    return Outcome({"pid": float(os.getpid()), "threads": float(os.environ["OMP_NUM_THREADS"])}, {})


@pytest.fixture
def connected(ray_cluster: str, tmp_path: Path) -> Iterator[None]:
    with cluster.connected(settings(folder=tmp_path, address=ray_cluster), "orchestrator-test", ship=False):
        yield


@pytest.fixture
def pool(connected: None) -> Iterator[RayBackend]:
    made = RayBackend(f"test-{time.time_ns()}/", says_where)
    yield made
    for worker in list(made._workers.values()):
        made.retire(worker)


def give(pool: RayBackend, folder: Path, batch: int, resources: Resources | None = None) -> Any:
    resources = resources or Resources()
    deadline = time.monotonic() + 30
    while not pool.has_room(resources):  # Ray frees a killed actor's CPUs a moment later
        assert time.monotonic() < deadline
        time.sleep(0.1)
    spec = trial(batch=batch)
    return pool.start(Assignment(spec, f"test/{batch}", 1, str(folder / str(batch)), "data"), resources)


def end_of(pool: RayBackend, worker: Any) -> WorkerUpdate:
    """The last word of a worker's trial; earlier ones are acknowledged. Last words of others are heard again later."""
    while True:
        for answer in pool.poll(1.0):
            if answer.worker.name == worker.name and (answer.update is None or answer.update.ended):
                return answer
            if answer.update is not None and not answer.update.ended:
                pool.acknowledge(answer.update, answer.worker)


def outcome(answer: WorkerUpdate) -> Outcome:
    assert answer.update is not None
    last = answer.update.events[-1]
    assert isinstance(last, Outcome)
    return last


def test_an_actor_is_reused_and_replaced_after_an_error(pool: RayBackend, tmp_path: Path) -> None:
    pids = []
    for batch in (1, 2):
        worker = give(pool, tmp_path, batch)
        answer = end_of(pool, worker)
        pids.append(outcome(answer).figures["pid"])
        assert answer.update is not None
        pool.acknowledge(answer.update, worker)
    assert pids[0] == pids[1]
    assert outcome(answer).figures["threads"] == 1

    worker = give(pool, tmp_path, 13)
    answer = end_of(pool, worker)
    assert answer.update is not None
    failure = answer.update.events[-1]
    assert isinstance(failure, Failure)
    assert failure.message.startswith("ValueError: thirteen")
    pool.acknowledge(answer.update, worker)
    pool.retire(worker)
    assert outcome(end_of(pool, give(pool, tmp_path, 3))).figures["pid"] != pids[0]


def test_idle_actors_make_room_for_another_shape(pool: RayBackend, tmp_path: Path) -> None:
    for batch in (1, 2):
        give(pool, tmp_path, batch)
    while pool.running():
        for answer in pool.poll(1.0):
            assert answer.update is not None
            pool.acknowledge(answer.update, answer.worker)
    assert len(pool._workers) == 2
    large = give(pool, tmp_path, 3, Resources(cpus=2))
    assert outcome(end_of(pool, large)).figures["threads"] == 2
    assert [worker.name for worker in pool._workers.values()] == [large.name]


def test_a_killed_process_is_noticed(pool: RayBackend, tmp_path: Path) -> None:
    import ray

    worker = give(pool, tmp_path, 17)
    while not (answers := pool.poll(1.0)):
        pass
    pid = int(ray.get(worker.handle.place.remote())["pid"])
    pool.acknowledge(answers[0].update, worker)
    os.kill(pid, signal.SIGKILL)
    answer = end_of(pool, worker)
    assert answer.update is None
    assert (answer.worker.key, answer.worker.token) == (trial(batch=17).key, 1)


class NotOnTheNode:
    """Stands for code that the driver has and the node has not."""

    def __reduce__(self) -> Any:
        return __import__, ("no_such_module",)


def test_an_actor_that_cannot_be_made_ends_the_driver_and_not_the_trials(pool: RayBackend, tmp_path: Path) -> None:
    pool._execute = NotOnTheNode()  # type: ignore[assignment]
    worker = give(pool, tmp_path, 1)
    with pytest.raises(BackendUnreachable, match=r"cannot run on this cluster: .*no_such_module"):
        end_of(pool, worker)
    assert pool.running() == []


def test_a_trial_whose_code_the_node_lacks_fails_at_once_as_a_code_error(pool: RayBackend, tmp_path: Path) -> None:
    """The actor lives and cannot read its assignment. To try it on one node after the other would help nobody."""
    worker = give(pool, tmp_path, 1)
    end = end_of(pool, worker)
    assert end.update is not None
    pool.acknowledge(end.update, worker)
    given = Assignment(trial(batch=2), "test/2", 7, str(tmp_path / "2"), "data", parents=NotOnTheNode())  # type: ignore[arg-type]
    worker = pool.start(given, Resources())
    update = end_of(pool, worker).update
    assert update is not None
    assert (update.key, update.token, update.ended) == (given.trial.key, 7, True)
    (failure,) = update.events
    assert isinstance(failure, Failure)
    assert failure.error_class is ErrorClass.code
    assert "ModuleNotFoundError: No module named 'no_such_module'" in failure.message.splitlines()[0]
    assert "\x1b" not in failure.message


def taken_over(pool: RayBackend, worker: Any) -> tuple[RayBackend, WorkerUpdate]:
    """Another driver, to which the actor belongs now, and what it found.

    `adopt` does not wait, and the actor answers several calls at a time: what is asked next may be answered first.
    """
    import ray

    other = RayBackend(pool._prefix, says_where, owner="other")
    found = next(each for each in other.foreign_actors() if each.worker.name == worker.name)
    other.adopt(found)
    deadline = time.monotonic() + 30
    while ray.get(worker.handle.poll.remote(None, 0.0)).owner != "other":
        assert time.monotonic() < deadline
    return other, found


def test_an_actor_that_another_driver_took_over_is_no_longer_ours(pool: RayBackend, tmp_path: Path) -> None:
    """As after a lease that ran out: nothing is started on it, and nothing said of a process that died."""
    worker = give(pool, tmp_path, 17)
    while not pool.poll(1.0):
        pass
    other, found = taken_over(pool, worker)
    pool.acknowledge(found.update, worker)  # type: ignore[arg-type]
    end = end_of(pool, worker)
    assert (end.update, end.reason) == (None, "another driver has taken over its process")
    assert pool.running() == []
    other.acknowledge(found.update, found.worker)  # type: ignore[arg-type]
    assert [each.reason for each in other.poll(0.5)] in ([], [""]), "the other goes on with it"
    other.retire(found.worker)


def test_a_driver_that_lost_an_actor_neither_stops_nor_ends_it(pool: RayBackend, tmp_path: Path) -> None:
    """It slept past its lease, and learns from the store that the trial is not its own before it asks the actor."""
    import ray

    worker = give(pool, tmp_path, 17)
    while not (answers := pool.poll(1.0)):
        pass
    other, found = taken_over(pool, worker)
    pool.stop(answers[0].worker)
    pool.retire(answers[0].worker)
    assert worker.name not in pool._workers
    assert ray.get(worker.handle.should_stop.remote()) is False
    other.acknowledge(found.update, found.worker)  # type: ignore[arg-type]
    assert [each.reason for each in other.poll(0.5)] in ([], [""]), "the other goes on with it"
    other.retire(found.worker)
    with pytest.raises(ray.exceptions.RayActorError, match="actor"):
        answer_until_it_ends(worker)


def answer_until_it_ends(worker: Any) -> None:
    """Calls the actor again and again; its process ends a moment after it is killed. Raises what the last call does."""
    import ray

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        ray.get(worker.handle.should_stop.remote(), timeout=30)


def test_a_frozen_process_is_ended(pool: RayBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from orchestrator.engine import watch

    worker = give(pool, tmp_path, 17)
    while not (answers := pool.poll(1.0)):
        pass
    pid = int(ray.get(worker.handle.place.remote())["pid"])
    pool.acknowledge(answers[0].update, worker)  # type: ignore[arg-type]
    monkeypatch.setattr(watch, "FROZEN_S", 1.0)
    os.kill(pid, signal.SIGSTOP)
    answer = end_of(pool, worker)
    assert answer.update is None
    assert "has not answered" in answer.reason
    deadline = time.monotonic() + 60
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "its node kills it, so that its resources are free again"
        time.sleep(0.2)


def test_the_local_cluster_is_private(ray_cluster: str) -> None:
    """Its ports are on loopback, its token and its sessions are for its owner alone."""
    from orchestrator.engine import local_cluster

    assert ray_cluster.startswith("127.0.0.1:")
    listening = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    (gcs,) = {each.pid for each in listening if each.laddr.port == int(ray_cluster.rpartition(":")[2])}
    head = psutil.Process(gcs).parent()
    assert head is not None
    family = {process.pid for process in (head, *head.children(recursive=True))}
    open_to = {each.laddr.ip.removeprefix("::ffff:") for each in listening if each.pid in family}
    assert open_to == {"127.0.0.1"}
    assert local_cluster.token_path().stat().st_mode & 0o077 == 0
    assert local_cluster.token_path().parent.stat().st_mode & 0o077 == 0


def test_a_survivor_is_found_with_its_news(pool: RayBackend, tmp_path: Path) -> None:
    worker = give(pool, tmp_path, 5)
    end_of(pool, worker)
    other = RayBackend(pool._prefix, says_where)
    key = trial(batch=5).key
    found = next(heard for heard in other.foreign_actors() if heard.update is not None and heard.update.key == key)
    assert found.update is not None
    assert (found.update.token, found.update.owner) == (1, pool._owner)
    assert outcome(found).figures["threads"] == 1
    assert found.worker.resources == Resources()


def test_a_trial_that_fits_nowhere_is_refused_before_anything_runs(pool: RayBackend) -> None:
    with pytest.raises(BackendUnreachable, match="stage grid: a trial needs 1 x CPU 1, GPU 1; the largest of the 1"):
        require(pool, {"grid": Resources(gpus=1), "final": Resources()})
    require(pool, {"grid": Resources(cpus=2), "final": Resources(workers=2)})


def submit(path: Path, where: Any, **options: Any) -> Any:
    from orchestrator import launch, spec

    return launch.submit(spec.load(path), where, launch.Options(tracking=False, ship=False, **options))


def test_the_same_grid_under_tune_gives_the_same_figures(ray_cluster: str, tmp_path: Path) -> None:
    from orchestrator import api
    from orchestrator.store.store import open_store

    where = settings(folder=tmp_path / "ours", address=ray_cluster)
    grid = {"optim.lr": [1e-3, 4e-3], "optim.layer_decay": [0.7, 1.0]}
    path = spec_file(tmp_path, name="parity", stages=[{"name": "grid", "sweep": {"grid": grid}}])
    ours = submit(path, where)
    frame = api.results(ours.job_id, where).set_index("key")
    store = open_store(where.database_url)
    specs = [store.trials.get(key).spec for key in frame.index]
    figures = store.trials.figures(list(frame.index))
    store.close()
    assert [TrialSpec.model_validate(each).key for each in specs] == list(frame.index)

    with cluster.connected(where, "tune", ship=False):
        from ray import tune

        from workers.tune_trainable import TrialTrainable

        tuner = tune.Tuner(
            TrialTrainable,
            param_space={
                "trial": tune.grid_search(specs),
                "folder": str(tmp_path / "tune"),
            },
            tune_config=tune.TuneConfig(metric="top1", mode="max", reuse_actors=True),
            run_config=tune.RunConfig(storage_path=str(tmp_path / "ray"), verbose=0),
        )
        theirs = {result.metrics["key"]: result.metrics for result in tuner.fit()}
    assert set(theirs) == set(frame.index)
    for key, metrics in theirs.items():
        for name in ("top1", "mean_per_class", "loss"):
            assert metrics[name] == figures[key][name]
