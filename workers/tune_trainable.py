"""Gives a trial the interface of a `tune.Trainable`, so that it also runs under a plain `tune.Tuner`."""

from __future__ import annotations

import queue
import threading
from typing import Any

from ray import tune

from workers.errors import Stopped
from workers.messages import Assignment, Outcome, Report
from workers.state import rank_context
from workers.train import train
from workers.trial import TrialSpec


class TrialTrainable(tune.Trainable):
    """One trial: each `step` is a round, the last result has the figures and `done`.

    config: `trial` (a TrialSpec as a dict), `folder` (checkpoints), `data_root`, and anything else that Tune's own
    search puts there. For comparison with our engine, in a test and its benchmark; `reuse_actors` works too.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Takes the next trial, for `reuse_actors`."""
        self.cleanup()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        event = self._events.get()
        if isinstance(event, Report):
            return {"epoch": event.epoch, **event.values}
        if isinstance(event, Outcome):
            return {"done": True, "key": self._key, **event.figures}
        raise event

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Does nothing: the trial writes its own checkpoints into `folder` and starts from the newest."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Does nothing, as above."""

    def cleanup(self) -> None:
        self._stop.set()
        self._thread.join()

    def _begin(self, config: dict[str, Any]) -> None:
        trial = TrialSpec.model_validate(config["trial"])
        self._key = trial.key
        assignment = Assignment(
            trial, self.trial_name or "tune", 0, f"{config['folder']}/{self._key}", config.get("data_root", "data")
        )
        self._events: queue.Queue[Report | Outcome | BaseException] = queue.Queue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(assignment,), daemon=True)
        self._thread.start()

    def _run(self, assignment: Assignment) -> None:
        try:
            place = rank_context(assignment, 0, "cpu")
            self._events.put(train(assignment.trial, place, self._events.put, self._stop.is_set))
        except Stopped:
            pass
        except BaseException as error:  # `step` raises it
            self._events.put(error)
