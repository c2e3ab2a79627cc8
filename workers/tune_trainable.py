"""The only place where a trial takes Ray Tune's shape, so that the same trial also runs under a plain `tune.Tuner`."""

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
    """One trial: each `step` is an epoch, the last result carries the figures with `done`.

    config: `trial` (a TrialSpec as a dict), `folder` (checkpoints), `data_root`, and anything else that Tune's own
    search put there. Kept for parity with our engine and as the peer of its benchmark; with `reuse_actors` too.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """For `reuse_actors`: the actor takes the next trial."""
        self.cleanup()
        self._begin(new_config)
        return True

    def step(self) -> dict[str, Any]:
        said = self._said.get()
        if isinstance(said, Report):
            return {"epoch": said.epoch, **said.values}
        if isinstance(said, Outcome):
            return {"done": True, "key": self._key, **said.figures}
        raise said

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: the trial writes its own checkpoints into `folder` and begins from the newest."""

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing, as above."""

    def cleanup(self) -> None:
        self._stop.set()
        self._thread.join()

    def _begin(self, config: dict[str, Any]) -> None:
        trial = TrialSpec.model_validate(config["trial"])
        self._key = trial.key
        assignment = Assignment(
            trial, self.trial_name or "tune", 0, f"{config['folder']}/{self._key}", config.get("data_root", "data")
        )
        self._said: queue.Queue[Report | Outcome | BaseException] = queue.Queue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(assignment,), daemon=True)
        self._thread.start()

    def _run(self, assignment: Assignment) -> None:
        try:
            place = rank_context(assignment, 0, "cpu")
            self._said.put(train(assignment.trial, place, self._said.put, self._stop.is_set))
        except Stopped:
            pass
        except BaseException as error:  # given to Tune by `step`
            self._said.put(error)
