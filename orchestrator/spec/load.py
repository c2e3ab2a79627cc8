"""Loads a job from a spec file: profile, overrides, and every check before anything starts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import SpecError
from orchestrator.spec.check import check, check_unapplied
from orchestrator.spec.diagnostics import Problems, causes, exact, wording
from orchestrator.spec.job import JobSpec
from orchestrator.spec.overrides import with_overrides, with_profile, without_profiles
from orchestrator.spec.plugins import ready
from orchestrator.spec.presets import resolve
from orchestrator.spec.yaml_nodes import Document, YamlNode, parse, read
from tasks.errors import PluginError
from workers.plugin_code import Plugin, PluginField


def load(path: str | Path, profile: str | None = None, overrides: Sequence[str] = ()) -> JobSpec:
    """The job that a spec file describes, with one profile and then `path=value` overrides applied.

    `profile`: None takes the one that the file names; "" takes none. Raises SpecError with every problem of the spec,
    in the order of the text, each as `file:line:column: field: value: what is wrong; what is allowed`.
    """
    return _loaded(read(path), profile, overrides)


def load_mapping(values: Mapping[str, Any], profile: str | None = None, overrides: Sequence[str] = ()) -> JobSpec:
    """As `load`, of what a spec file would hold. Lines and columns of messages are those of it as YAML."""
    try:
        text = yaml.safe_dump(json.loads(json.dumps(values)), sort_keys=False, allow_unicode=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise SpecError([f"spec: {error}: a spec has JSON values alone (numbers, text, lists, mappings)"]) from error
    return _loaded(parse(text, "spec"), profile, overrides)


def _loaded(document: Document, profile: str | None, overrides: Sequence[str]) -> JobSpec:
    problems = Problems()
    job = _job(_checked(document, problems), profile, overrides, problems)
    if job is None or len(problems):
        raise SpecError(problems.lines())
    return job


def load_checking_profiles(path: str | Path, profile: str | None = None, overrides: Sequence[str] = ()) -> JobSpec:
    """As `load`; but the other profiles of the file are checked too, each without the overrides."""
    problems = Problems()
    root = _mapping(path, problems)
    job = _job(root, profile, overrides, problems)
    for name in _names(root):
        others = Problems()
        if job is None or name != job.profile:
            _job(root, name, (), others)
        places = problems.places()  # what stands in no profile is wrong in each of them
        problems.add(*(problem for problem in others if problem.place not in places))
    if job is None or len(problems):
        raise SpecError(problems.lines())
    ready(job.plugins)  # another profile may have others
    return job


def recorded(values: Mapping[str, Any], name: str) -> JobSpec:
    """The job that the store has under this name. Raises SpecError if this version does not take its spec any more."""
    try:
        # Field by field: without these it is none of an earlier version, and the store says that it is damaged.
        return JobSpec.model_validate({**values, **{field: values[field] for field in ("name", "trial", "stages")}})
    except ValidationError as error:
        remedy = "this version refuses what an earlier one recorded: mend the spec file and submit that"
        wrong = [(".".join(map(str, exact(each)[0])), wording(JobSpec, each)) for each in causes(error.errors())]
        raise SpecError([f"{name}: {path}: {words}; {remedy}" for path, words in wrong]) from error


def _job(root: YamlNode, profile: str | None, overrides: Sequence[str], problems: Problems) -> JobSpec | None:
    """The job of a file with one profile and overrides applied; adds what is wrong to `problems`."""
    applied, profile_problems = with_profile(root, profile)
    applied, override_problems = with_overrides(applied, overrides)
    problems.add(*profile_problems, *override_problems)
    plugins = _plugins(applied, problems)  # first: the rest may name what they hold
    if plugins is None:
        return None
    if profile_problems:
        check_unapplied(applied, problems)
        return None
    unreadable = problems.places()  # a value that could not be read is reported once, not also as a wrong one
    rest = Problems()
    applied = resolve(applied, rest)  # again: its task may be known only now
    job = check(applied, rest, unreadable)
    if job is None or job.profile:
        whole = without_profiles(root)
        if _plugins(whole, rest) is not None:
            check_unapplied(whole, rest)
        ready(plugins)  # the profile may have others than the file
    problems.add(*(problem for problem in rest if problem.place not in unreadable))
    problems.leave_out(rest.left_out)
    return job.model_copy(update={"plugins": plugins}) if job is not None and plugins else job


_PLUGINS = TypeAdapter(list[PluginField])


def _plugins(root: YamlNode, problems: Problems) -> list[Plugin] | None:
    """The job's plugins with their digests, imported; the current folder and that of the spec are looked at. None where
    one of them cannot be had: it is added to `problems`, and without it nothing else can be said. Fields that are wrong
    by themselves count as no plugin, and are reported as every other field."""
    node = root.child("plugins")
    try:
        written = _PLUGINS.validate_python(node.plain() if node else [])
    except ValidationError:
        written = []
    folder = Path(root.place.source).absolute().parent
    try:
        return [code.plugin for code in ready(written, [folder])]
    except PluginError as error:
        named = [item.plain() for item in node.value] if node and isinstance(node.value, list) else []
        names = [each["module"] if isinstance(each, dict) else each for each in named]
        steps: list[str | int] = ["plugins", *([names.index(error.module)] if error.module in names else [])]
        problems.report(root.place_of(steps), "plugins", error.module, error.what)
        return None


def profiles(path: str | Path) -> list[str]:
    """Names of the profiles in a spec file. Raises SpecError if it is not a readable mapping."""
    return _names(_mapping(path, Problems()))


def _names(root: YamlNode) -> list[str]:
    node = root.child("profiles")
    return list(node.value) if node and isinstance(node.value, dict) else []


def _mapping(path: str | Path, problems: Problems) -> YamlNode:
    """The mapping in a file; problems of single values are added to `problems`. Raises SpecError without a mapping."""
    return _checked(read(path), problems)


def _checked(document: Document, problems: Problems) -> YamlNode:
    """As `_mapping`, of a document."""
    problems.add(*document.problems)
    if not isinstance(document.root.value, dict):
        if not len(problems):
            problems.report(document.root.place, "a spec is a mapping with name, trial and stages")
        raise SpecError(problems.lines())
    return resolve(document.root, problems)
