"""Changes the code of each module of modules.toml a line at a time with mutmut, and counts what its tests notice.

    python tests/mutation/run.py [MODULE ..] [--sample N] [--seconds S]

Mutants that change no behaviour are not tried: sentences of messages, log lines, types in `cast`, `strict` in `zip`.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import json
import os
import random
import signal
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from known_mutants import copy_of_tree
from mutmut.configuration import reset_config
from mutmut.mutation.file_mutation import mutate_file_contents
from mutmut.stats import status_by_exit_code

CONFIG = Path(__file__).parent / "modules.toml"
SEED = 0
NOTICED = ("killed", "timeout", "segfault", "suspicious")
MUTMUT = """
[tool.mutmut]
source_paths = ["orchestrator", "workers", "tasks"]
only_mutate = {files}
also_copy = ["benchmarks", "constraints.txt", "CONTRIBUTING.md", "deploy", "Makefile", "README.md", "specs"]
pytest_add_cli_args = ["-p", "no:cacheprovider", "--timeout=120"]
pytest_add_cli_args_test_selection = {tests}
process_isolation = "forkserver"
track_dependencies = false
use_git_change_detection = false
"""


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


def run(module: Module, sample: int, seconds: float) -> tuple[dict[str, str], list[Mutant]]:
    """Status of each mutant that was drawn, by name, and the mutants. Raises SystemExit where the tests fail."""
    with copy_of_tree() as root, contextlib.chdir(root):
        config = MUTMUT.format(files=json.dumps(module.files), tests=json.dumps(module.tests))
        with Path("pyproject.toml").open("a") as file:
            file.write(config)
        reset_config()  # mutmut reads it once a process
        mutants = [mutant for name in module.files for mutant in mutants_of(Path(name))]
        if len(mutants) > sample:
            mutants = sorted(random.Random(SEED).sample(mutants, sample), key=lambda mutant: mutant.name)
        output = _mutmut(root, [mutant.name for mutant in mutants], seconds)
        statuses = dict(_statuses(root, module.files))
        if all(statuses.get(mutant.name, "not checked") == "not checked" for mutant in mutants):
            raise SystemExit(f"{module.name}: mutmut tried nothing\n{output[-3000:]}")
        return {mutant.name: statuses.get(mutant.name, "not checked") for mutant in mutants}, mutants


def _mutmut(root: Path, names: Sequence[str], seconds: float) -> str:
    """Runs mutmut on these mutants, for `seconds` at most; returns what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    # Threads do not survive the fork in which a mutant is tried.
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", "1", *names]
    output = root / "mutmut.txt"
    with output.open("w") as file:
        process = subprocess.Popen(
            command, cwd=root, env=environment, start_new_session=True, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:  # each result is on disk already
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return output.read_text(errors="replace")


def _statuses(root: Path, files: Iterable[str]) -> Iterable[tuple[str, str]]:
    for file in files:
        meta = root / "mutants" / f"{file}.meta"
        if meta.exists():
            for name, code in json.loads(meta.read_text())["exit_code_by_key"].items():
                yield name, status_by_exit_code[code]


def line_of(module: Module, statuses: Mapping[str, str]) -> str:
    """A row of the table: module, tried, killed, timeout, survived, without a test, not tried, score."""
    count = Counter(statuses.values())
    noticed = sum(count[status] for status in NOTICED)
    tried = len(statuses) - count["not checked"]
    rest = f"{count['survived']:>9}{count['no tests']:>9}{count['not checked']:>10}"
    score = f"{100 * noticed / tried:>8.1f} %" if tried else ""
    return f"{module.name:<12}{tried:>6}{noticed - count['timeout']:>8}{count['timeout']:>9}{rest}{score}"


def main() -> None:
    config = tomllib.loads(CONFIG.read_text())
    modules = [Module(row["name"], tuple(row["files"]), tuple(row["tests"])) for row in config["module"]]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help=", ".join(module.name for module in modules))
    parser.add_argument("--sample", type=int, default=config["sample"], help="mutants of a module at most")
    parser.add_argument("--seconds", type=float, default=config["seconds"], help="for the mutants of a module")
    options = parser.parse_args()
    if unknown := set(options.modules) - {module.name for module in modules}:
        parser.error(
            f"no such module: {', '.join(sorted(unknown))}; there are {', '.join(each.name for each in modules)}"
        )
    titles = f"{'module':<12}{'tried':>6}{'killed':>8}{'timeout':>9}{'survived':>9}{'no test':>9}{'not tried':>10}"
    table = [f"{titles}{'score':>10}"]
    for module in modules:
        if options.modules and module.name not in options.modules:
            continue
        statuses, mutants = run(module, options.sample, options.seconds)
        for mutant in mutants:
            if statuses[mutant.name] in ("survived", "no tests"):
                print(f"{mutant.where} ({mutant.name.rpartition('__mutmut_')[2]})\n{mutant.change}\n")
        table.append(line_of(module, statuses))
        print(table[-1] + "\n", flush=True)
    print("\n".join(table))


if __name__ == "__main__":
    main()
