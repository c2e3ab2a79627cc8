"""Kills processes of a running job at random: its driver, mirror and trials, and Ray's head, GCS and raylet."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psutil
from small_job import begin, ended, workers_of

from orchestrator.engine import local_cluster

KINDS = ("trial", "driver", "mirror", "raylet", "gcs_server", "head")
FIND_S = 300.0
"""So long a process to kill may be looked for: all may just be starting."""
LIVES = 2
"""So often the process of one trial is killed without a checkpoint in between. The trial would be given up after the
fifth death without a report (`orchestrator.engine.inbox`), and those of raylets and clusters come on top."""


class Killer:
    """One job, whose command is run again whenever its driver was killed, until it ends by itself."""

    def __init__(self, command: Sequence[str | Path], runs: Path, storage: Path, seed: int) -> None:
        """`runs`: the folder of its local cluster. `storage`: where its trials write."""
        self._command, self._runs, self._storage = list(command), runs, storage
        self._dice = random.Random(seed)
        self.killed: Counter[str] = Counter()
        self._deaths: Counter[tuple[Path, int]] = Counter()
        """How often each trial was killed at this step of its newest checkpoint."""
        self.submits = 0
        self.driver = self._submit()

    def _submit(self) -> subprocess.Popen[str]:
        self.submits += 1
        return begin(*self._command)

    def run(self, kinds: Sequence[str], pause_s: tuple[float, float] = (0.2, 2.0)) -> subprocess.CompletedProcess[str]:
        """Kills a process of each of these kinds, in a random order, while the job lasts; returns how it ended.

        `pause_s`: the least and the most time before each. A kind of which no process runs has its turn later.
        """
        turns = list(kinds)
        self._dice.shuffle(turns)
        while turns:
            time.sleep(self._dice.uniform(*pause_s))
            killed = self._kill(turns)
            if killed is None:
                break
            turns.remove(killed)
            self.killed[killed] += 1
        done = ended(self.driver, 600)
        while self._to_be_submitted_again(done):
            self.driver = self._submit()
            done = ended(self.driver, 600)
        return done

    def _kill(self, turns: Sequence[str]) -> str | None:
        """Kills a process of the first of these kinds that has one; returns its kind, None once the job has ended."""
        deadline = time.monotonic() + FIND_S
        while time.monotonic() < deadline:
            if self.driver.poll() is not None:
                done = ended(self.driver)
                if not self._to_be_submitted_again(done):
                    return None
                self.driver = self._submit()
            for kind in dict.fromkeys(turns):
                if self._killed(kind):
                    return kind
            time.sleep(0.05)
        raise AssertionError(f"no process of {set(turns)} within {FIND_S:.0f} s")

    def _killed(self, kind: str) -> bool:
        """Kills a process of this kind; False if there is none now."""
        found = sorted(self._processes(kind).items(), key=lambda one: one[0].pid)
        if not found:
            return False
        victim, folder = self._dice.choice(found)
        at = folder and (folder, _step(folder))
        try:
            victim.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            return False
        if at:
            self._deaths[at] += 1
        return True

    def _to_be_submitted_again(self, done: subprocess.CompletedProcess[str]) -> bool:
        """True if the driver was killed, or says that the job is to be submitted again, as after two failed starts."""
        return done.returncode == -signal.SIGKILL or (done.returncode == 7 and "submit again" in done.stderr)

    def _processes(self, kind: str) -> dict[psutil.Process, Path | None]:
        """The processes of this kind that may be killed; with each that trains the folder of its trial.

        Not one whose trial was killed LIVES times since its last checkpoint.
        """
        if kind == "trial":
            running = workers_of(self._storage).items()
            return {process: folder for folder, process in running if self._deaths[folder, _step(folder)] < LIVES}
        try:
            return dict.fromkeys(self._others(kind))
        except psutil.Error:
            return {}

    def _others(self, kind: str) -> list[psutil.Process]:
        if kind == "driver":
            return [psutil.Process(self.driver.pid)] if self.driver.poll() is None else []
        if kind == "mirror":
            children = psutil.Process(self.driver.pid).children()
            return [process for process in children if "track" in process.cmdline()]
        signed = local_cluster.signed_by(self._runs / "ray.head")
        if signed is None:
            return []
        head = psutil.Process(signed["pid"])
        return [head] if kind == "head" else [each for each in head.children() if each.name() == kind]


def _step(folder: Path) -> int:
    """Of a trial's newest checkpoint; 0 without one."""
    return max((int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*.pt")), default=0)
