"""Changes the code of each module of modules.toml a line at a time with mutmut, and counts what its tests notice.

    python tests/mutation/run.py [MODULE ..] [--sample N] [--seconds S] [--seed N]

Mutants that change no behaviour are not tried: sentences of messages, log lines, types in `cast`, `strict` in `zip`.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import importlib
import os
import random
import time
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from known_mutants import SLOW_TO_IMPORT, copy_of_tree, result
from mutmut.mutation.file_mutation import mutate_file_contents

CONFIG = Path(__file__).parent / "modules.toml"
MUTMUT = """
[tool.mutmut]
source_paths = ["orchestrator", "workers", "tasks"]
"""
"""mutmut's changed functions read its configuration when they are called."""


@dataclass(frozen=True)
class Module:
    """A part of the code, and the tests that should notice every change of it."""

    name: str
    files: tuple[str, ...]
    tests: tuple[str, ...]


@dataclass(frozen=True)
class Mutant:
    """A changed function."""

    name: str
    """mutmut's."""
    where: str
    change: str
    """The lines that differ, as in a diff."""


def mutants_of(relative: Path) -> list[Mutant]:
    """mutmut's mutants of a file, without those that change no behaviour."""
    mutated = mutate_file_contents(str(relative), relative.read_text())
    functions = {node.name: node for node in ast.walk(ast.parse(mutated.code)) if isinstance(node, ast.FunctionDef)}
    dotted = ".".join(relative.with_suffix("").parts)
    found = []
    for name in mutated.mutant_names:
        original = functions[name.rpartition("__mutmut_")[0] + "__mutmut_orig"]
        before, after = _meaning(original), _meaning(functions[name])
        if before != after:
            shown = name.removeprefix("x").strip("_ǁ").replace("ǁ", ".").rpartition("__mutmut_")[0]
            found.append(Mutant(f"{dotted}.{name}", f"{relative}: {shown}", _change(before, after)))
    return found


class _Wordless(ast.NodeTransformer):
    """Takes out what only people and type checkers read."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Constant("words") if isinstance(node.value, str) and " " in node.value.strip() else node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        function = ast.unparse(node.func)
        if function == "cast":
            return self.visit(node.args[-1])
        if function == "zip":  # `strict` is an assertion, which no input can make fail
            node.keywords = [keyword for keyword in node.keywords if keyword.arg != "strict"]
        return ast.Name("logged") if function.startswith("log.") else self.generic_visit(node)


def _meaning(function: ast.FunctionDef) -> str:
    return ast.unparse([_Wordless().visit(statement) for statement in ast.parse(ast.unparse(function)).body[0].body])  # type: ignore[attr-defined]


def _change(before: str, after: str) -> str:
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return "\n".join(line.rstrip() for line in lines if line.startswith(("- ", "+ ")))


def run(module: Module, sample: int, seconds: float, seed: int) -> tuple[dict[str, str], list[Mutant]]:
    """Status of each mutant that was drawn, by name, and the mutants, of which as many are tried, in random order, as
    begin within `seconds`. Raises SystemExit where the tests fail without any.

    mutmut writes all changes of a function beside it, and chooses by a variable of the environment. Each is tried in a
    fork of this process with all tests of the module.
    """
    with copy_of_tree() as root, contextlib.chdir(root):
        with Path("pyproject.toml").open("a") as file:
            file.write(MUTMUT)
        mutants = [mutant for name in module.files for mutant in mutants_of(Path(name))]
        if len(mutants) > sample:
            mutants = sorted(random.Random(seed).sample(mutants, sample), key=lambda mutant: mutant.name)
        for name in module.files:
            Path(name).write_text(mutate_file_contents(name, Path(name).read_text()).code)
        os.environ["OMP_NUM_THREADS"] = "1"  # threads do not survive the fork
        for package in (*SLOW_TO_IMPORT, "mutmut.mutation.trampoline"):
            importlib.import_module(package)
        began, unchanged = time.monotonic(), _tried("", root, module, None)
        if unchanged != "survived":
            raise SystemExit(f"{module.name}: its tests end as {unchanged} without any mutant: mend them first")
        most = 20 + 3 * (time.monotonic() - began)
        statuses = {mutant.name: "not tried" for mutant in mutants}
        began = time.monotonic()
        for mutant in random.Random(seed).sample(mutants, len(mutants)):
            if time.monotonic() - began > seconds:
                break
            statuses[mutant.name] = _tried(mutant.name, root, module, most)
        return statuses, mutants


def _tried(name: str, root: Path, module: Module, most: float | None) -> str:
    os.environ["MUTANT_UNDER_TEST"] = name
    ended = result(root, module.tests, most)
    return {"failed": "killed", "passed": "survived"}.get(ended, ended)


def line_of(module: Module, statuses: Mapping[str, str]) -> str:
    """A row of the table: module, tried, noticed, of these by timeout, survived, not tried, score."""
    count = Counter(statuses.values())
    tried = len(statuses) - count["not tried"]
    noticed = tried - count["survived"]
    score = f"{100 * noticed / tried:>8.1f} %" if tried else ""
    rest = f"{count['timeout']:>9}{count['survived']:>9}{count['not tried']:>10}"
    return f"{module.name:<12}{tried:>6}{noticed:>8}{rest}{score}"


def main() -> None:
    config = tomllib.loads(CONFIG.read_text())
    modules = [Module(row["name"], tuple(row["files"]), tuple(row["tests"])) for row in config["module"]]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help=", ".join(module.name for module in modules))
    parser.add_argument("--sample", type=int, default=config["sample"], help="mutants of a module at most")
    parser.add_argument("--seconds", type=float, default=config["seconds"], help="for the mutants of a module")
    parser.add_argument("--seed", type=int, default=0, help="another one draws other mutants, in another order")
    options = parser.parse_args()
    if unknown := set(options.modules) - {module.name for module in modules}:
        parser.error(
            f"no such module: {', '.join(sorted(unknown))}; there are {', '.join(each.name for each in modules)}"
        )
    titles = f"{'module':<12}{'tried':>6}{'noticed':>8}{'timeout':>9}{'survived':>9}{'not tried':>10}"
    table = [f"{titles}{'score':>10}"]
    for module in modules:
        if options.modules and module.name not in options.modules:
            continue
        statuses, mutants = run(module, options.sample, options.seconds, options.seed)
        for mutant in mutants:
            if statuses[mutant.name] == "survived":
                print(f"{mutant.where} ({mutant.name.rpartition('__mutmut_')[2]})\n{mutant.change}\n")
        table.append(line_of(module, statuses))
        print(table[-1] + "\n", flush=True)
    print("\n".join(table))


if __name__ == "__main__":
    main()
