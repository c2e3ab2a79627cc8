"""A plugin as it is named, recorded and sent to the nodes: module, digest, the text of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tasks.bounds import MAX_LABEL, Label

ABSENT = "absent"
"""Stands for the version of a package that is not installed, where a plugin imports it in `try: .. except ImportError`
alone."""


class Plugin(BaseModel):
    """A module of the user's own that trials import: with models, tasks or metrics."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)

    module: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$", max_length=200)
    """As it is imported: package.module, or the name of a single file."""
    digest: str = Field(default="", max_length=64, pattern="^([0-9a-f]{64})?$")
    """SHA-256 of all .py files of the top-level package (or of the single file) and of the versions of the packages
    that these import. `submit` fills it in; written in a spec, any other plugin is refused."""
    versions: dict[Label, Label] = Field(default={}, max_length=1000)
    """Those versions, by distribution. Filled in too."""

    @property
    def package(self) -> str:
        """The top-level package, or the name of the single file without .py."""
        return self.module.partition(".")[0]


def _from_name(value: Any) -> Any:
    return {"module": value} if isinstance(value, str) else value


PluginField = Annotated[Plugin, BeforeValidator(_from_name)]
"""A plugin, or in a spec its module's name alone."""


@dataclass(frozen=True)
class PluginCode:
    """A plugin with the text of its files: what a node needs to import it."""

    plugin: Plugin
    files: Mapping[str, str]
    """Path from the folder that holds the package, for example acme/models.py -> text."""
    folder: str
    """Where it was found, on the machine of the driver; for messages."""

    @property
    def file(self) -> str:
        """The file of the module itself."""
        path = self.plugin.module.replace(".", "/")
        inside = f"{path}/__init__.py" if f"{path}/__init__.py" in self.files else f"{path}.py"
        return f"{self.folder}/{inside}"

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {"plugin": self.plugin.model_dump(mode="json"), "files": dict(self.files), "folder": self.folder}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> PluginCode:
        return cls(Plugin.model_validate(plain["plugin"]), plain["files"], plain["folder"])


def digest_of(package: str, files: Mapping[str, str], versions: Mapping[str, str]) -> str:
    """SHA-256 (hex) of a package's files, by their paths, and of the versions of what they import."""
    hashed = {path: hashlib.sha256(text.encode()).hexdigest() for path, text in files.items()}
    text = json.dumps([1, package, hashed, dict(versions)], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def installed(names: Iterable[str]) -> dict[str, str]:
    """The versions of distributions in this process's environment; ABSENT for one that is not installed. (A plugin that
    tried to import cv2 in vain has that name: a node with opencv-python would take the other way.)"""
    versions = {}
    for name in sorted(names):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # or it is what is imported, of a distribution of another name
            bring = sorted(set(metadata.packages_distributions().get(name, [])))
            versions[name] = ", ".join(f"{each} {metadata.version(each)}" for each in bring)[:MAX_LABEL] or ABSENT
    return versions


def plugin_versions(plugins: Iterable[Plugin]) -> dict[str, str]:
    """The plugins beside the versions of packages: "plugin birds.model" -> its digest, shortened. (In whole, with the
    versions of what it imports, it is in the trial's spec.)"""
    return {f"plugin {plugin.module}": plugin.digest[:12] for plugin in plugins}


def mark(plugins: Sequence[PluginCode]) -> str:
    """A short name for these plugins in this order, each with its digest; empty for none. A process that has imported
    some serves trials with the same mark alone."""
    if not plugins:
        return ""
    named = [[code.plugin.module, code.plugin.digest] for code in plugins]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()[:12]
