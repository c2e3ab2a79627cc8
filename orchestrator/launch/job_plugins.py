"""Imports the plugins of a job that is loaded already: from Python, or as the store has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.errors import NotFound, SpecError
from orchestrator.spec.job import JobSpec
from orchestrator.spec.plugins import ready
from tasks.errors import PluginError
from workers.plugin_code import Plugin, PluginCode


def with_plugins(job: JobSpec, whose: str = "") -> tuple[JobSpec, tuple[PluginCode, ...]]:
    """The job with the digests of its plugins, and their code; they count in this process from now on.

    Looks in the current folder and among the installed packages, unless this process has imported them with the job.
    `whose`: the job's id, where it is one that the store has. Raises SpecError, one line with the remedy, for a plugin
    that cannot be had, or in another version than the job names.
    """
    try:
        codes = ready(job.plugins)
    except PluginError as error:
        raise SpecError([f"{whose}: {error}" if whose else str(error)]) from error
    return (job.model_copy(update={"plugins": [code.plugin for code in codes]}) if codes else job), codes


def use_recorded(spec: Mapping[str, Any], whose: str) -> None:
    """Makes the plugins of a recorded trial (its spec) count, so that it can be read. Raises NotFound without them."""
    plugins: Sequence[Plugin] = [Plugin.model_validate(plain) for plain in spec.get("plugins", ())]
    try:
        ready(plugins)
    except PluginError as error:
        raise NotFound(f"{whose}: {error}") from error
