"""Loads a job from a spec file: profile, overrides, and every check before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchestrator.errors import SpecError
from orchestrator.spec.check import check
from orchestrator.spec.diagnostics import Problems
from orchestrator.spec.job import JobSpec
from orchestrator.spec.overrides import with_overrides, with_profile
from orchestrator.spec.yaml_nodes import YamlNode, read


def load(path: str | Path, profile: str | None = None, overrides: Sequence[str] = ()) -> JobSpec:
    """The job that a spec file describes, with one profile and then `path=value` overrides applied.

    `profile`: None takes the one that the file names; "" takes none. Raises SpecError with every problem of the spec,
    in the order of the text, each as `file:line:column: field: value: what is wrong; what is allowed`.
    """
    problems = Problems()
    root = _mapping(path, problems)
    root, profile_problems = with_profile(root, profile)
    root, override_problems = with_overrides(root, overrides)
    problems.add(*profile_problems, *override_problems)
    unreadable = problems.places()  # a value that could not be read is reported once, not also as a wrong one
    rest = Problems()
    job = check(root, rest)
    problems.add(*(problem for problem in rest if problem.place not in unreadable))
    if job is None or len(problems):
        raise SpecError([str(problem) for problem in problems])
    return job


def profiles(path: str | Path) -> list[str]:
    """Names of the profiles in a spec file. Raises SpecError if it is not a readable mapping."""
    node = _mapping(path, Problems()).child("profiles")
    return list(node.value) if node and isinstance(node.value, dict) else []


def _mapping(path: str | Path, problems: Problems) -> YamlNode:
    """The mapping in a file; problems of single values are added to `problems`. Raises SpecError without a mapping."""
    document = read(path)
    problems.add(*document.problems)
    if not isinstance(document.root.value, dict):
        if not len(problems):
            problems.report(document.root.place, "a spec is a mapping with name, trial and stages")
        raise SpecError([str(problem) for problem in problems])
    return document.root
