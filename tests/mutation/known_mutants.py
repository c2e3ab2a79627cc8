"""Applies each known mutant of known.toml to a copy of the tree, one at a time: the tests that it names must fail."""

from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SLOW_TO_IMPORT = (
    "torch",
    "timm",
    "torchvision",
    "sqlalchemy",
    "optuna",
    "ray",
    "scipy.stats",
    "sklearn.model_selection",
    "hypothesis",
    "pytest",
)
"""Other people's packages, imported once; each mutant is then tried in a fork that has them."""
SECONDS = 300
"""For the tests of one mutant; one that takes longer counts as found, since a test that hangs is seen."""


@dataclass(frozen=True)
class KnownMutant:
    """A change of one place in the code, and the tests that must fail on it."""

    id: str
    file: str
    line: str
    """Text that the file has once."""
    becomes: str
    tests: tuple[str, ...]
    """pytest's ids; empty: still to be written."""

    def mutated(self, root: Path) -> str:
        """The file's text with the change. Raises ValueError where the text is not there once."""
        text = (root / self.file).read_text()
        count = text.count(self.line)
        if count != 1:
            raise ValueError(f"{self.id}: {self.file} has {self.line!r} {count} times, not once: update known.toml")
        return text.replace(self.line, self.becomes)


def known_mutants() -> list[KnownMutant]:
    """The rows of known.toml."""
    rows = tomllib.loads((Path(__file__).parent / "known.toml").read_text())["mutant"]
    return [KnownMutant(**{**row, "tests": tuple(row["tests"])}) for row in rows]


@contextmanager
def copy_of_tree() -> Iterator[Path]:
    """A copy of the files that git tracks, or would if they were added; removed at the end."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        for name in filter(None, names):
            if (ROOT / name).is_file():
                (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, Path(folder) / name)
        yield Path(folder)


def _pytest(root: Path, tests: Sequence[str]) -> None:
    """Runs in the fork; exits with pytest's code."""
    os.setsid()  # with the processes that a test starts it is a group, which `result` can end as a whole
    os.chdir(root)
    os.environ["PYTHONPATH"] = str(root)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # two mutants of one size and second would share their bytecode
    sys.dont_write_bytecode = True
    sys.path[0] = str(root)
    silent = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silent, stream)
    import pytest

    gc.freeze()  # pytest collects garbage at its end, and need not look at what was imported before the fork
    os._exit(pytest.main([*tests, "-x", "-q", "-p", "no:cacheprovider"]))


def result(root: Path, tests: Sequence[str], seconds: float | None = SECONDS) -> str:
    """failed, passed or timeout; or what else pytest's exit code says. Nothing that the tests started still runs."""
    process = multiprocessing.get_context("fork").Process(target=_pytest, args=(root, tests))
    process.start()
    assert process.pid is not None, "it was started"
    try:
        process.join(seconds)
        late = process.is_alive()
    finally:
        process.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.join()
    if late:
        return "timeout"
    return {0: "passed", 1: "failed"}.get(process.exitcode or 0, f"pytest ended with {process.exitcode}: no such test?")


def tried(root: Path, mutant: KnownMutant) -> str:
    """What the mutant's tests say of it; the file is as before afterwards."""
    path = root / mutant.file
    before = path.read_text()
    path.write_text(mutant.mutated(root))
    try:
        return result(root, mutant.tests)
    finally:
        path.write_text(before)


def main(only: Sequence[str]) -> int:
    """Tries the mutants of these ids or files (none given: all). Returns 1 if one was not noticed."""
    mutants = [each for each in known_mutants() if not only or each.id in only or each.file in only]
    wanted = sorted({test for mutant in mutants for test in mutant.tests})
    results: dict[str, str] = {}
    with copy_of_tree() as root:
        for name in SLOW_TO_IMPORT:
            importlib.import_module(name)
        if wanted and (unchanged := result(root, wanted, seconds=None)) != "passed":
            print(f"without any mutant the tests {unchanged}: mend them first")
            return 1
        for mutant in mutants:
            results[mutant.id] = tried(root, mutant) if mutant.tests else "todo"
            if results[mutant.id] not in ("failed", "timeout"):
                print(f"{mutant.id}: {results[mutant.id]} ({mutant.file}: {mutant.line.strip()!r})", flush=True)
    print(_summary(results))
    return int(any(each not in ("failed", "timeout", "todo") for each in results.values()))


def _summary(results: Mapping[str, str]) -> str:
    noticed = sum(each in ("failed", "timeout") for each in results.values())
    todo = sum(each == "todo" for each in results.values())
    return f"known mutants: {noticed} of {len(results)} noticed" + (f", {todo} without a test" if todo else "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
