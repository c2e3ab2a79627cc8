"""Imports plugins, the only code from outside that this project runs, and makes known what they hold.

A process holds one version of a package: `use` refuses another digest, and the driver gives trials only to processes
that were made for the same plugins. So a trial without plugins never meets a model that a plugin has registered.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import linecache
import math
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.abc import InspectLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import CodeType, ModuleType
from typing import Any, get_args

from tasks import TASKS, plugged
from tasks.backbones.timm_names import own_names
from tasks.base import Task
from tasks.bounds import MAX_LABEL, ONE_LINE
from tasks.errors import PluginError
from tasks.metrics import FromLogits, Metric
from workers.plugin_code import PluginCode, digest_of, installed
from workers.trial import TrialSpec

SWITCH = "ORCHESTRATOR_PLUGINS"
"""Environment variable: `off` (or anything but `on`) forbids plugins, on a node as on the driver's machine."""
BETTER = ("higher", "lower", "neither")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")


@dataclass
class _Process:
    """What this process has imported, and which of it counts now."""

    digests: dict[str, str] = field(default_factory=dict)
    """Package -> digest."""
    models: dict[str, str] = field(default_factory=dict)
    """Model that was registered with timm -> package."""
    used: list[tuple[str, str]] = field(default_factory=list)
    """(module, digest) of the plugins that count now."""
    tasks: dict[str, type[Task]] = field(default_factory=dict)
    """Those of these plugins, which are in TASKS too."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def our_tasks(self) -> list[str]:
        return sorted(TASKS.keys() - self.tasks)


_process = _Process()


def forbidden() -> bool:
    """True if this process may import no plugin: for every value of SWITCH but `on`."""
    return os.environ.get(SWITCH, "").strip().lower() not in ("", "on")


def use(plugins: Sequence[PluginCode]) -> None:
    """Makes these plugins, and no others, count in this process; imports those that it does not have yet.

    Raises PluginError, one line with file and remedy, for one that cannot be had.
    """
    with _process.lock:
        wanted = [(code.plugin.module, code.plugin.digest) for code in plugins]
        if wanted == _process.used:
            return
        if plugins and forbidden():
            raise PluginError(plugins[0].plugin.module, f"{SWITCH} is off where this runs: remove it, or `plugins`")
        modules = _modules(plugins)
        tasks: dict[str, type[Task]] = {}
        models: dict[str, str] = {}
        metrics: dict[str, tuple[str, FromLogits]] = {}
        for code, module in zip(plugins, modules, strict=True):
            _add(tasks, _tasks(code, module), code, "the task kind")
            found = {metric.metric.name: (code.plugin.module, metric) for metric in _metrics(code, module)}
            _add(metrics, found, code, "the metric")
            models.update(
                {name: code.plugin.module for name, whose in _process.models.items() if whose == code.plugin.package}
            )
        _count(tasks, models, metrics)
        _process.used = wanted


def _count(
    tasks: Mapping[str, type[Task]], models: Mapping[str, str], metrics: Mapping[str, tuple[str, FromLogits]]
) -> None:
    for registry, content in ((plugged.MODELS, models), (plugged.METRICS, metrics)):
        registry.clear()
        registry.update(content)  # type: ignore[arg-type]
    if _process.tasks != tasks:
        for kind in _process.tasks:
            del TASKS[kind]
        TASKS.update(tasks)
        _process.tasks = dict(tasks)
        TrialSpec.model_rebuild(force=True)


def _add(all_: dict[str, Any], found: Mapping[str, Any], code: PluginCode, what: str) -> None:
    if twice := sorted(all_.keys() & found):
        raise PluginError(
            code.plugin.module, f"{code.file}: {what} {twice[0]} is that of another plugin of this job: rename one"
        )
    all_.update(found)


def _modules(plugins: Sequence[PluginCode]) -> list[ModuleType]:
    """The modules, from the text that the plugins hold: neither a file that changed since nor another of its name. All
    can be found before the first is imported, which may import another one."""
    added: dict[str, PluginFinder] = {}
    for code in plugins:
        package, digest = code.plugin.package, code.plugin.digest
        known = added[package].digest if package in added else _process.digests.get(package)
        if known is None:
            _check(code)
            added[package] = PluginFinder(code)
        elif known != digest:
            raise PluginError(
                code.plugin.module, f"this process has imported {package} with digest {known[:12]}, and now it has "
                f"{digest[:12]}: start a new Python process"
            )  # fmt: skip
    sys.meta_path[:0] = added.values()
    try:
        modules = [_imported(code) for code in plugins]
    except PluginError:  # leave nothing half imported
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder not in added.values()]
        for name in [name for name in sys.modules if name.partition(".")[0] in added]:
            del sys.modules[name]
        _process.models = {model: package for model, package in _process.models.items() if package not in added}
        raise
    _process.digests.update({package: finder.digest for package, finder in added.items()})
    return modules


def _imported(code: PluginCode) -> ModuleType:
    try:
        with contextlib.redirect_stdout(sys.stderr):  # output of commands may be JSON
            module = importlib.import_module(code.plugin.module)
    except (Exception, SystemExit) as error:
        raise PluginError(code.plugin.module, _of_import(code, error)) from error
    _note_models(code)  # before the next plugin registers another one over it
    return module


def _check(code: PluginCode) -> None:
    """The package is not loaded from elsewhere, and this process would import what the digest says."""
    plugin = code.plugin
    loaded = sys.modules.get(plugin.package)
    if loaded is not None:
        raise PluginError(
            plugin.module, f"{getattr(loaded, '__file__', None) or plugin.package} was imported before as "
            f"{plugin.package}, so its version is not known: load the spec first, or rename the plugin"
        )  # fmt: skip
    here = installed(plugin.versions)
    other = [
        f"{name} {here[name]}, not {version}" for name, version in plugin.versions.items() if here[name] != version
    ]
    if other:
        raise PluginError(
            plugin.module, f"{code.file} imports other versions here than where it was submitted: {', '.join(other)}: "
            "install the same ones on driver and nodes"
        )  # fmt: skip
    if digest_of(plugin.package, code.files, plugin.versions) != plugin.digest:
        raise PluginError(plugin.module, f"its files do not have the digest {plugin.digest[:12]}: submit the job again")


class PluginFinder(MetaPathFinder):
    """Finds the modules of one plugin in the text of its files."""

    def __init__(self, code: PluginCode) -> None:
        self._code = code
        self.digest = code.plugin.digest

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] != self._code.plugin.package:
            return None
        name = fullname.replace(".", "/")
        for inside, is_package in ((f"{name}/__init__.py", True), (f"{name}.py", False)):
            if inside in self._code.files:
                file = f"{self._code.folder}/{inside}"
                loader = _Loader(self._code.files[inside], file, is_package)
                spec = spec_from_loader(fullname, loader, origin=file, is_package=is_package)
                assert spec is not None
                spec.has_location = True  # the module's __file__, for messages and inspect
                return spec
        return None


class _Loader(InspectLoader):
    """One module, from its text."""

    def __init__(self, text: str, file: str, package: bool) -> None:
        self._text, self._file, self._package = text, file, package

    def is_package(self, fullname: str) -> bool:
        return self._package

    def get_source(self, fullname: str) -> str:
        return self._text

    def get_code(self, fullname: str) -> CodeType:
        # so that tracebacks and inspect show this text, whatever the file holds by then
        linecache.cache[self._file] = (len(self._text), None, self._text.splitlines(keepends=True), self._file)
        return compile(self._text, self._file, "exec", dont_inherit=True)


def _of_import(code: PluginCode, error: BaseException) -> str:
    """Why it could not be imported, with the last line of the plugin that was at work."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: {error.msg}: mend that line"
    said = " ".join(str(error).split())
    what = f"{where(code, error)}: {type(error).__name__}{f': {said}' if said else ''}"
    if isinstance(error, ModuleNotFoundError) and str(error.name).partition(".")[0] == code.plugin.package:
        kept = "only .py files belong to a plugin, in folders with an __init__.py"
        return f"{what}: {kept}; put what it imports there, or into an installed package"
    return f"{what}: mend it until `python -c 'import {code.plugin.module}'` works"


def where(code: PluginCode, error: BaseException) -> str:
    """File and line of the plugin in which an exception was raised, or that called what raised it."""
    own = {f"{code.folder}/{path}" for path in code.files}
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename in own]
    return f"{lines[-1].filename}, line {lines[-1].lineno}" if lines else code.file


def _tasks(code: PluginCode, module: ModuleType) -> dict[str, type[Task]]:
    """`TASKS` of the module. Raises PluginError for what is not a usable task, or has the kind of ours."""
    content = getattr(module, "TASKS", {})
    problem = None
    if not isinstance(content, dict) or not all(isinstance(kind, str) for kind in content):
        problem = "TASKS must be a dict from the kind to the class, as in tasks/__init__.py"
    else:
        problem = next((text for kind, task in content.items() if (text := _wrong_task(kind, task))), None)
    if problem:
        raise PluginError(code.plugin.module, f"{code.file}: {problem}")
    return content


def _wrong_task(kind: str, task: Any) -> str | None:
    if not (isinstance(task, type) and issubclass(task, Task)):
        return f"TASKS[{kind!r}] must be a class derived from tasks.base.Task, not {task!r}"
    if kind in _process.our_tasks:
        return f"the task kind {kind} is one of ours ({', '.join(_process.our_tasks)}): choose another name"
    if not _NAME.fullmatch(kind):
        return f"the task kind {kind!r} must be small letters, digits and _, up to 60"
    if get_args(task.model_fields["kind"].annotation) != (kind,) or task.model_fields["kind"].default != kind:
        return f'{task.__name__}.kind must be declared as `kind: Literal["{kind}"] = "{kind}"`'
    if inspect.isabstract(task):
        lacks = ", ".join(sorted(task.__abstractmethods__))
        return f"{task.__name__} lacks {lacks}: define what tasks.base.Task asks for"
    return None


def _metrics(code: PluginCode, module: ModuleType) -> list[FromLogits]:
    """`METRICS` of the module. Raises PluginError for what is no FromLogits, or has a name of ours."""
    content = getattr(module, "METRICS", [])
    problem: str | None = "METRICS must be a list of tasks.metrics.FromLogits(Metric(..), function)"
    if isinstance(content, list | tuple) and all(isinstance(each, FromLogits) for each in content):
        names = [each.metric.name for each in content]
        found = (
            _wrong_name(name, names.count(name)) or _wrong_metric(each.metric) or _wrong_function(each)
            for name, each in zip(names, content, strict=True)
        )
        problem = next((text for text in found if text), None)
    if problem:
        raise PluginError(code.plugin.module, f"{code.file}: {problem}")
    return list(content)


def _wrong_name(name: str, count: int) -> str | None:
    if name in plugged.OUR_FIGURES or name.startswith(plugged.OUR_PREFIXES):
        ours = f"{', '.join(plugged.OUR_FIGURES)}, and what begins with {', '.join(plugged.OUR_PREFIXES)}"
        return f"the metric {name} has a name of ours ({ours}): choose another"
    if not _NAME.fullmatch(name):
        return f"the metric's name {name!r} must be small letters, digits and _, up to 60"
    return f"METRICS has {name} twice: rename one" if count > 1 else None


def _wrong_metric(metric: Metric) -> str | None:
    texts = (metric.title, metric.unit, metric.complement)
    if metric.better not in BETTER:
        return f"the metric {metric.name}: better is {metric.better!r}: it must be one of {', '.join(BETTER)}"
    if not all(isinstance(text, str) and len(text) <= MAX_LABEL and re.match(ONE_LINE, text) for text in texts):
        return f"the metric {metric.name}: title, unit and complement must be single lines of text"
    if isinstance(metric.scale, bool) or not isinstance(metric.scale, int | float) or not 0 < metric.scale < math.inf:
        return f"the metric {metric.name}: scale is {metric.scale!r}: it must be a number above 0"
    if isinstance(metric.digits, bool) or not isinstance(metric.digits, int) or not 0 <= metric.digits <= 12:
        return f"the metric {metric.name}: digits is {metric.digits!r}: it must be a whole number from 0 to 12"
    return None


def _wrong_function(metric: FromLogits) -> str | None:
    """Said before anything runs, and not after the first epoch."""
    problem = None if callable(metric.compute) else f"{metric.compute!r} is no function"
    if problem is None:
        with contextlib.suppress(ValueError):  # of some compiled functions nothing is known
            try:
                inspect.signature(metric.compute).bind(None, None)
            except TypeError as error:
                problem = f"its function does not take these two: {error}"
    return f"the metric {metric.metric.name}: {problem}: give a function of logits and labels" if problem else None


def _note_models(code: PluginCode) -> None:
    """Notes what the plugin's package has registered with timm. Raises PluginError for a name that is taken."""
    registry = sys.modules.get("timm.models._registry")
    package = code.plugin.package
    for name in [] if registry is None else list(_registered(registry, package)):
        if name in own_names():
            what = f"the model {name} is one of timm's or ours: choose another name"
            raise PluginError(code.plugin.module, f"{code.file}: {what}")
        if (other := _process.models.setdefault(name, package)) != package:
            what = f"{other} registers the model {name} too: rename one"
            raise PluginError(code.plugin.module, f"{code.file}: {what}")


def _registered(registry: Any, package: str) -> Iterator[str]:
    for name, function in registry._model_entrypoints.items():
        if str(function.__module__).partition(".")[0] == package:
            yield name
