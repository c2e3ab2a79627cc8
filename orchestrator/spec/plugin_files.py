"""Finds the files of a plugin and the versions of what they import, without running any of it."""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path

from tasks.backbones.timm_names import own_names
from tasks.errors import PluginError
from workers.plugin_code import Plugin, PluginCode, digest_of, installed
from workers.plugins import PluginFinder

OURS = ("orchestrator", "workers", "tasks")
"""Packages of this project: a plugin may import them, and their commit is recorded with every trial."""
MAX_FILES, MAX_BYTES = 2000, 10 << 20
"""Of a plugin; it is sent with every trial."""


def find(plugin: Plugin, folders: Sequence[Path], others: Collection[str] = ()) -> PluginCode:
    """The plugin in the first of the folders that has it, else among the installed packages, with its digest filled in.

    `others`: packages of the job's other plugins, which it may import. Raises PluginError, also where another digest
    was asked for.
    """
    module = plugin.module
    root = _root(module, plugin.package, folders)
    files = _texts(module, root)
    path = module.replace(".", "/")
    if not any(name in files for name in (f"{path}.py", f"{path}/__init__.py")):
        listed = ", ".join(sorted(_module_name(name) for name in files)[:20])
        raise PluginError(module, f"{root} has no such module; its modules: {listed}")
    names = _imports(module, root, files, {*others, plugin.package})
    versions = installed(names)
    digest = digest_of(plugin.package, files, versions)
    if plugin.digest and digest != plugin.digest:
        raise PluginError(module, _another(plugin, root, digest, versions))
    found = Plugin(module=module, digest=digest, versions=versions)
    return PluginCode(found, files, str(root.parent))


def _another(plugin: Plugin, root: Path, digest: str, versions: dict[str, str]) -> str:
    names = sorted({*plugin.versions, *versions}) if plugin.versions else []
    changed = (
        f"{name} {plugin.versions.get(name, 'not imported')} then, {versions.get(name, 'not imported')} now"
        for name in names if plugin.versions.get(name) != versions.get(name)
    )  # fmt: skip
    words = ", ".join(changed)
    return (
        f"{root} has digest {digest[:12]}, and {plugin.digest[:12]} was asked for"
        f"{f' ({words})' if words else ''}: bring back the files and packages of then; to run it as it is now, submit "
        "a spec file without that digest, which is another job with trials of its own"
    )


def _root(module: str, package: str, folders: Sequence[Path]) -> Path:
    """The package's folder, or the single file."""
    if package in sys.stdlib_module_names or package in OURS:
        whose = "of this project" if package in OURS else "of Python's own library"
        raise PluginError(module, f"{package} is the name of a package {whose}: rename the plugin")
    bare = None
    for folder in dict.fromkeys(folder.absolute() for folder in folders):
        if (folder / package / "__init__.py").is_file():
            return _not_installed(module, folder / package, folders)
        if (folder / f"{package}.py").is_file():
            return _not_installed(module, folder / f"{package}.py", folders)
        bare = bare or (folder / package if (folder / package).is_dir() else None)
    found = _installed_root(package, [])
    if found is not None:
        return found
    if bare is not None:
        raise PluginError(module, f"{bare} has no __init__.py: add an empty one")
    places = [f"./{package}.py", *dict.fromkeys(str(folder / f"{package}.py") for folder in folders[1:])]
    raise PluginError(
        module, f"not found: neither {' nor '.join(places)} (or a folder {package} with __init__.py), nor installed: "
        "put it there, change to its folder, or add that to PYTHONPATH"
    )  # fmt: skip


def _not_installed(module: str, root: Path, folders: Sequence[Path]) -> Path:
    """`root`; refuses one that has the name of another package that is installed, which other code may import."""
    other = _installed_root(root.stem, folders)
    if other is not None and other.resolve() != root.resolve():
        raise PluginError(module, f"{root} has the name of an installed package: rename it, or uninstall that")
    return root


def _installed_root(package: str, without: Sequence[Path]) -> Path | None:
    """The folder or file of a package that Python finds itself, below none of these folders. Raises PluginError for one
    that has no source."""
    if without:
        left_out = {str(folder.absolute()) for folder in [*without, Path.cwd()]}
        path = [entry for entry in sys.path if os.path.abspath(entry or os.curdir) not in left_out]
        spec = PathFinder.find_spec(package, path)
    else:
        finders = [finder for finder in sys.meta_path if not isinstance(finder, PluginFinder)]
        spec = next((found for finder in finders if (found := finder.find_spec(package, None)) is not None), None)
    if spec is None or spec.origin is None:
        return None
    origin = Path(spec.origin)
    if origin.suffix != ".py":
        raise PluginError(package, f"{package} is not Python source: name a package of .py files")
    return origin.parent if origin.name == "__init__.py" else origin


def _texts(module: str, root: Path) -> dict[str, str]:
    """Path from the folder that holds the package -> text, of all .py files; those in hidden folders do not count."""
    paths = [root] if root.is_file() else sorted(root.rglob("*.py"))
    inside = [(path, path.relative_to(root.parent)) for path in paths]
    kept = [(path, name) for path, name in inside if path.is_file() and not any(p.startswith(".") for p in name.parts)]
    if len(kept) > MAX_FILES or sum(path.stat().st_size for path, _ in kept) > MAX_BYTES:
        raise PluginError(  # too_large
            module, f"{root} has {len(kept)} .py files; at most {MAX_FILES:,} files and {MAX_BYTES >> 20} MB can be "
            "sent to the nodes: name a smaller package"
        )  # fmt: skip
    texts = {}
    for path, name in kept:
        try:
            texts[name.as_posix()] = path.read_bytes().decode("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise PluginError(module, f"{path}: {error}: save it as UTF-8 text that can be read") from error
    return texts


def _module_name(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def _imports(module: str, root: Path, files: dict[str, str], known: Collection[str]) -> dict[str, None]:
    """Distributions that the files import. Raises PluginError for an import that belongs to none."""
    names: dict[str, None] = {}
    for path, text in files.items():
        file = root.parent / path
        try:
            tree = ast.parse(text, str(file))
        except (SyntaxError, ValueError) as error:
            line = f", line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
            what = error.msg if isinstance(error, SyntaxError) else str(error)
            raise PluginError(module, f"{file}{line}: {what}: mend {'that line' if line else 'it'}") from error
        _check_models(module, file, tree)
        for package, line_number, optional in _imported(tree.body):
            if package in sys.stdlib_module_names or package in OURS or package in known:
                continue
            found = _distributions().get(package)
            if found:
                names.update(dict.fromkeys(found))
            elif _is_somewhere(package, root.parent):
                raise PluginError(
                    module, f"{file}, line {line_number}: imports {package}, which belongs neither to the plugin nor "
                    f"to an installed package, so that it would not reach the nodes: put it into the package "
                    f"{root.stem} (import {root.stem}.{package}), or name it in `plugins` too"
                )  # fmt: skip
            elif optional:
                names[package] = None
            else:
                raise PluginError(
                    module, f"{file}, line {line_number}: imports {package}, which is not installed: install it"
                )
    return names


def _imported(body: Sequence[ast.stmt], optional: bool = False) -> Iterator[tuple[str, int, bool]]:
    """(top-level package, line, True if the program takes its absence) of every absolute import, at any depth. What
    only type checkers read is left out."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], node.lineno, optional) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.partition(".")[0], node.lineno, optional
        elif isinstance(node, ast.If) and _of_type_checkers(node.test):
            yield from _imported(node.orelse, optional)
            continue
        guarded = optional or (isinstance(node, ast.Try | ast.TryStar) and any(map(_takes_absence, node.handlers)))
        for name, value in ast.iter_fields(node):
            if isinstance(value, list):
                inner = [each for each in value if isinstance(each, ast.stmt)]
                yield from _imported(inner, guarded if name == "body" else optional)
                for each in value:
                    if isinstance(each, ast.ExceptHandler | ast.match_case):
                        yield from _imported(each.body, optional)


def _of_type_checkers(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _takes_absence(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or (isinstance(kind, ast.Name) and kind.id in _ABSENCE) for kind in kinds)


_ABSENCE = ("ImportError", "ModuleNotFoundError", "Exception", "BaseException")


def _check_models(module: str, file: Path, tree: ast.Module) -> None:
    """Refuses `@register_model` over a model of timm or ours, which importing the plugin would replace."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in own_names():
            for decorator in node.decorator_list:
                name = decorator.attr if isinstance(decorator, ast.Attribute) else getattr(decorator, "id", "")
                if name == "register_model":
                    what = f"registers the model {node.name}, which timm or this project has: choose another name"
                    raise PluginError(module, f"{file}, line {node.lineno}: {what}")


@cache
def _distributions() -> dict[str, list[str]]:
    """Top-level package -> the distributions that bring it."""
    return {package: sorted(set(names)) for package, names in metadata.packages_distributions().items()}


def _is_somewhere(package: str, folder: Path) -> bool:
    if (folder / f"{package}.py").is_file() or (folder / package).is_dir():
        return True
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False
