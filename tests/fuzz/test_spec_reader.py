"""Odd specs end in one line for each mistake: no traceback, no endless work, nothing written anywhere."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import Any

import pytest
import timm  # noqa: F401 (its first import looks for libraries and makes a cache, which is not the reader's doing)
import torch._inductor.runtime.cache_dir_utils  # noqa: F401 (likewise)
from fuzzing import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from odd_specs import odd_specs, overrides

from orchestrator.errors import SpecError
from orchestrator.plan.durations import DurationModel
from orchestrator.plan.planner import Planner
from orchestrator.spec.check_sizes import MAX_TRIALS
from orchestrator.spec.diagnostics import MAX_LINES
from orchestrator.spec.job import JobSpec
from orchestrator.spec.load import load, load_checking_profiles
from orchestrator.spec.yaml_nodes import MAX_MESSAGE

MEMORY = 1 << 30
"""Bytes that the reading of one spec may add to the most that this process has held."""
WRITES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "subprocess.Popen"}

watching = False
written: list[str] = []


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: what the reader writes, starts or removes while it is watched."""
    if not watching:
        return
    if event in WRITES or event.startswith("socket.") or event == "os.system":
        written.append(f"{event} {arguments}")
    elif event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        written.append(f"open {arguments[0]}")


sys.addaudithook(_note)


def read(path: Path, profile: str | None, asked: list[str], every: bool) -> JobSpec | None:
    """The job of a spec, None for one with mistakes. Fails where the rule of this file is broken."""
    global watching
    watching, problems = True, []
    before = peak()
    job: JobSpec | None = None
    try:
        job = (load_checking_profiles if every else load)(path, profile, asked)
    except SpecError as error:
        problems = error.problems
    finally:
        watching = False
    assert (job is None) == bool(problems)
    assert len(problems) <= MAX_LINES + 1
    for problem in problems:
        assert problem.isprintable(), problem
        assert len(problem) <= MAX_MESSAGE + 400, problem
        assert problem.startswith((f"{path}", "--set ", "--profile ", "... and ")), problem
    assert not written
    assert peak() - before < MEMORY
    return job


def peak() -> int:
    """Bytes that this process has had in memory at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("specs")


@settings(
    max_examples=examples(150), deadline=None, database=None, derandomize="FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(
    data=odd_specs(), profile=st.sampled_from((None, None, "", "smoke", "laptop", "..", "\x1b[2J")),
    asked=overrides(), every=st.booleans(),
)  # fmt: skip
def test_an_odd_spec_ends_in_lines(
    folder: Path, data: bytes, profile: str | None, asked: list[str], every: bool
) -> None:  # fmt: skip
    path = folder / "odd.yaml"
    path.write_bytes(data)
    job = read(path, profile, asked, every)
    if job is not None:
        JobSpec.model_validate(job.model_dump(mode="json", by_alias=True))  # as the store gives it back
        Planner(job, DurationModel())  # what is valid can be planned
    assert os.listdir(folder) == ["odd.yaml"]


def test_the_rule_is_kept_for_the_largest_of_what_is_allowed(folder: Path) -> None:
    """Not a mutation: the sizes at the bounds."""
    path = folder / "odd.yaml"
    path.write_text("".join(f"k{number}: 1\n" for number in range(60_000)))
    assert read(path, None, [], False) is None
    path.write_text("[" * 60 + "]" * 60)
    assert read(path, None, [], True) is None
    path.write_text("a: " + "x" * ((1 << 20) - 4))
    assert read(path, None, [], True) is None
    assert MAX_TRIALS == 100_000
