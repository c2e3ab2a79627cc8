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
FIND_S = 120.0
"""A process of the kind whose turn it is may just be starting; after so long another kind has its turn."""


class Killer:
    """One job, whose command is run again whenever its driver was killed, until it ends by itself."""

    def __init__(self, command: Sequence[str | Path], runs: Path, storage: Path, seed: int) -> None:
        """`runs`: the folder of its local cluster. `storage`: where its trials write."""
        self._command, self._runs, self._storage = list(command), runs, storage
        self._dice = random.Random(seed)
        self.killed: Counter[str] = Counter()
        self.submits = 0
        self.driver = self._submit()

    def _submit(self) -> subprocess.Popen[str]:
        self.submits += 1
        return begin(*self._command)

    def run(self, kinds: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Kills a process of each of these kinds, in a random order, while the job lasts; returns how it ended."""
        turns = list(kinds)
        self._dice.shuffle(turns)
        for kind in turns:
            self._pause(self._dice.uniform(0.2, 2.0))
            if not self._kill(kind):
                break
        done = ended(self.driver, 600)
        while self._to_be_submitted_again(done):
            self.driver = self._submit()
            done = ended(self.driver, 600)
        return done

    def _kill(self, kind: str) -> bool:
        """False once the job has ended."""
        deadline = time.monotonic() + FIND_S
        while time.monotonic() < deadline:
            if self.driver.poll() is not None:
                done = ended(self.driver)
                if not self._to_be_submitted_again(done):
                    return False
                self.driver = self._submit()
            found = self._processes(kind)
            if found:
                victim = self._dice.choice(sorted(found, key=lambda process: process.pid))
                try:
                    victim.send_signal(signal.SIGKILL)
                except psutil.NoSuchProcess:
                    continue
                self.killed[kind] += 1
                return True
            self._pause(0.05)
        return True

    def _to_be_submitted_again(self, done: subprocess.CompletedProcess[str]) -> bool:
        """True if the driver was killed, or says that the job is to be submitted again, as after two failed starts."""
        self.last = done
        return done.returncode == -signal.SIGKILL or (done.returncode == 7 and "submit again" in done.stderr)

    def _processes(self, kind: str) -> list[psutil.Process]:
        try:
            if kind == "driver":
                return [psutil.Process(self.driver.pid)] if self.driver.poll() is None else []
            if kind == "trial":
                return list(workers_of(self._storage).values())
            if kind == "mirror":
                children = psutil.Process(self.driver.pid).children()
                return [process for process in children if "track" in process.cmdline()]
            signed = local_cluster.signed_by(self._runs / "ray.head")
            if signed is None:
                return []
            head = psutil.Process(signed["pid"])
            return [head] if kind == "head" else [each for each in head.children() if each.name() == kind]
        except psutil.Error:
            return []

    def _pause(self, seconds: float) -> None:
        time.sleep(seconds)
