"""Imports a job's plugins in this process, each in the version that the job names.

This is the one exception to the rule that a spec names no import path: what a plugin holds is part of what a trial
computes, so its digest is in the trial's key, and nothing of it runs unless a spec names it (ORCHESTRATOR_PLUGINS=off
forbids even that).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchestrator.spec.plugin_files import find
from tasks.errors import PluginError
from workers.plugin_code import Plugin, PluginCode
from workers.plugins import SWITCH, forbidden, use

_found: dict[tuple[str, str], PluginCode] = {}
"""(module, digest) -> what this process has imported: a job runs with what was checked when its spec was loaded, even
if the files change before it is submitted."""


def ready(plugins: Sequence[Plugin], folders: Sequence[Path] = ()) -> tuple[PluginCode, ...]:
    """Finds and imports these plugins, and makes them alone count in this process (see `workers.plugins.use`).

    Looks in the current folder, in `folders`, and among the installed packages. Raises PluginError for one that cannot
    be had, or is there in another version than the one that is asked for.
    """
    if plugins and forbidden():
        was_off = f"plugins are switched off here ({SWITCH}): remove `plugins` from the spec, or ask whoever runs this"
        raise PluginError(plugins[0].module, was_off)
    packages = {plugin.package for plugin in plugins}
    codes = tuple(
        _found.get((plugin.module, plugin.digest)) or find(plugin, [Path.cwd(), *folders], packages)
        for plugin in plugins
    )
    use(codes)
    _found.update({(code.plugin.module, code.plugin.digest): code for code in codes})
    return codes
