"""An assignment travels so that what its trial needs is imported when the trial is read, and fails as a trial does."""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import plugin_files as made
import pytest

from tasks.classification.task import Classify
from workers.actor import TrialActor
from workers.errors import ErrorClass, TrialError
from workers.messages import Assignment, Failure, Outcome, classify_error
from workers.plugins import use
from workers.ray_train import outcome_of_workers
from workers.trial import TrialSpec


@pytest.fixture(autouse=True)
def as_a_new_process() -> Iterator[None]:
    with made.forgotten():
        yield


def given(folder: Path, text: str = made.TASK) -> Assignment:
    """A trial of a plugin's task."""
    plugin = made.code(made.write(folder, {"plug_z.py": text}), "plug_z")
    use([plugin])
    trial = TrialSpec.model_validate(
        {**made.TRIAL, "task": {"kind": "mine", "dataset": "digits"}, "plugins": [plugin.plugin]}
    )
    return Assignment(trial, "only/all", 1, str(folder / "trial"), str(folder), plugins=(plugin,))


def test_the_trial_of_a_plugin_is_read_in_another_process(tmp_path: Path) -> None:
    sent = given(tmp_path)
    key, data = sent.key, pickle.dumps(sent)
    made.forget()
    arrived = pickle.loads(pickle.dumps(pickle.loads(data)))  # as through an actor to a worker of Ray Train
    assert (arrived.key, arrived.name, arrived.plugins) == (key, sent.name, sent.plugins)
    assert "plug_z" not in sys.modules
    assert arrived.trial.key == key
    assert type(arrived.trial.task).__module__ == "plug_z"
    assert arrived.trial.plugins == (sent.plugins[0].plugin,)


def test_without_plugins_it_is_the_same_trial(tmp_path: Path) -> None:
    sent = Assignment(TrialSpec.model_validate(made.TRIAL), "only/all", 1, str(tmp_path), str(tmp_path))
    arrived = pickle.loads(pickle.dumps(sent))
    assert arrived == sent
    assert arrived.key == sent.key
    with pytest.raises(AttributeError, match="no_such_field"):
        arrived.no_such_field  # noqa: B018


def failure_of(arrived: Assignment) -> Failure:
    """What becomes of it in an actor, which takes it without reading the trial."""
    actor = TrialActor(lambda assignment, emit, stop: Outcome({"seed": float(assignment.trial.seed)}, {}))
    update = actor.start(arrived, wait_s=30)
    assert update.key == arrived.key
    while not update.ended:
        update = actor.poll(None, 1.0)
    (event,) = update.events
    assert isinstance(event, Failure)
    return event


def test_a_task_that_a_node_cannot_import_is_a_code_error_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a lost process: the driver would start that again on one node after the other."""
    module = types.ModuleType("only_on_the_driver")
    task = type("Own", (Classify,), {"__module__": module.__name__})
    module.Own = task  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    trial = TrialSpec.model_validate(made.TRIAL)
    trial = trial.model_copy(update={"task": task(dataset="digits")})
    data = pickle.dumps(Assignment(trial, "only/all", 1, str(tmp_path), str(tmp_path)))
    monkeypatch.delitem(sys.modules, module.__name__)
    failure = failure_of(pickle.loads(data))
    assert failure.error_class is ErrorClass.code
    assert failure.message == (
        "the trial's classes cannot be imported on its node: ModuleNotFoundError: No module named "
        "'only_on_the_driver'; the nodes need the driver's code and packages"
    )


def test_a_plugin_that_fails_on_a_node_is_one_line_and_a_code_error(tmp_path: Path) -> None:
    text = "import os\nif 'ONLY_HERE' not in os.environ:\n    raise OSError('no licence')\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONLY_HERE", "1")
        data = pickle.dumps(given(tmp_path, text + made.TASK))
    made.forget()
    failure = failure_of(pickle.loads(data))
    assert failure.error_class is ErrorClass.code
    assert failure.message.startswith(
        f"plugin plug_z: {tmp_path}/plug_z.py, line 3: OSError: no licence: mend it until"
    )
    assert "\n" not in failure.message


def test_workers_of_ray_train_that_cannot_read_what_they_got_are_a_code_error() -> None:
    died = RuntimeError(
        "Worker group failed\nray.exceptions.RaySystemError: ModuleNotFoundError: No module named 'acme'\n"
    )
    with pytest.raises(
        TrialError, match=r"code: the workers cannot be started .*driver's code: ModuleNotFoundError: No"
    ):
        outcome_of_workers([], died)
    gone = Failure(ErrorClass.node_lost, "another worker of the trial is gone")
    with pytest.raises(TrialError, match="node_lost: another worker"):
        outcome_of_workers([gone], died)


def test_the_fault_of_a_plugin_needs_no_traceback() -> None:
    from tasks.errors import PluginError

    assert classify_error(PluginError("a.b", "x.py: no")) == Failure(ErrorClass.code, "plugin a.b: x.py: no")
    assert str(pickle.loads(pickle.dumps(PluginError("a.b", "x.py: no")))) == "plugin a.b: x.py: no"
