"""Memory that a training step frees is there for the next step; an idle process gives it back."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_task import Tiny, trial_of
from tiny_task import run as run_trial

from workers import host_memory

STEPS = """
import ctypes
import resource
import torch
from workers import host_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

def faults_of_a_step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [torch.ones(2 * 2**20) for _ in range(16)]  # 8 MiB each, as activations of a backward pass
    del held
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

for threshold in (-1, -3):  # glibc at its most generous, whatever it has learnt of this process so far
    assert ctypes.CDLL(None).mallopt(threshold, 2**17)
print(min(faults_of_a_step() for _ in range(3)))
assert host_memory.keep_freed()
print(min([faults_of_a_step() for _ in range(4)][1:]))
full = resident()
host_memory.give_back()
print(full - resident())
"""
"""Prints the page faults of a step that gets all its memory from the kernel, those of one that has the memory of the
step before, and the bytes that giving back returned."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library has no such setting")
def test_a_step_asks_the_kernel_for_no_page_that_the_last_one_had() -> None:
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=True)
    returned_at_once, kept, given_back = map(int, done.stdout.split())
    bytes_of_a_step = 16 * 8 * 2**20
    assert kept < returned_at_once / 20
    assert given_back > bytes_of_a_step / 2


def test_a_trial_on_the_cpu_keeps_what_its_steps_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(host_memory, "keep_freed", lambda: asked.append(True))
    run_trial(trial_of(Tiny(), epochs=1, warmup_epochs=0), tmp_path)
    assert asked == [True]


def test_another_c_library_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_memory, "_glibc", lambda: None)
    assert not host_memory.keep_freed()
    host_memory.give_back()
