"""Every message of the spec reader, whole and with the place that it points to, in messages.txt; none is left out.

`python tests/orchestrator/spec/test_every_message.py` prints the list anew, to be read and put in the file's place.
"""

from __future__ import annotations

import ast
import os
import runpy
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [path for path in (str(HERE.parents[2]), str(HERE.parents[1] / "support")) if path not in sys.path]

import plugin_files  # noqa: E402
import two_specs  # noqa: E402
from good_spec import FIGURES  # noqa: E402

import orchestrator.spec  # noqa: E402
from orchestrator.errors import SpecError  # noqa: E402
from orchestrator.launch.joined_jobs import joined_table  # noqa: E402
from orchestrator.spec.load import load, load_checking_profiles  # noqa: E402

SOURCES = {str(path): path.name for path in Path(orchestrator.spec.__file__).parent.glob("*.py")}
WORDS = {"report", "report_instead", "about", "_report", "Problem", "_broken", "_Stop", "_NoSuch", "append"}
"""Functions by which a mistake gets its words; `append` where it has a text."""
ELSEWHERE = {
    'f"{name}: {path}: {words}; {remedy}"': "test_load.py: of a job that the store has",
    "JSON values alone": "test_api.py: of a dict, not of a file",
    "resources.min_workers": "test_fields_of_tasks.py, with a task whose loss is over a batch",
    "was_off": "test_plugins.py, which switches plugins off",
    "too_large": "test_plugin_files.py, with lower limits",
    '"not YAML: " + " ".join(str(error).split())': "no text is known that comes to it: libyaml names places",
}
"""Part of a statement -> why no case here comes to it."""

OF_A_FILE = ("larger than", "no such file", "is a directory", "is not a file", "cannot be read")

Case = tuple[str, bytes | Callable[[Path], object], str | None, tuple[str, ...]]
"""Name, the file's content or what makes it, profile, overrides."""

TABLE = "table: "
"""Begins the name of a case that is a table file."""

REPORTS = {
    "unknown figure": "{figures: [top1, top2]}",
    "figure twice": "{figures: [top1, top1]}",
    "figure of a published value": "{reference: {source: x, values: {RAND: {faces: {topp1: 90}}}}}",
    "published row of ours": "{reference: {source: x, rows: [{name: RAND, source: y, values: {faces: 1}}]}}",
    "column of a published row": "{reference: {source: x, rows: [{name: A, source: y, values: {face: 1}}]}}",
    "figure of a published row": "{reference: {source: x, rows: [{name: A, source: y, values: {faces: {tpo1: 1}}}]}}",
    "error of a loss": "{figures: [loss], plots: [{x: loss, y: error}]}",
}
TEXTS = {
    "empty": "", "comment": "# nothing\n", "list": "- a\n", "two documents": "a: 1\n---\nb: 2\n", "anchor": "a: *b\n",
    "inside itself": "a: &a [1, *a]\n", "merge": "a: {<<: 3}\n", "key": "? [x]\n: 1\n", "flow": "a: [1, 2\nb: 3\n",
    "deep": "a: " + "[" * 100, "bomb": "a0: &a [" + "x, " * 999 + "x]\n" + "b: [" + "*a, " * 200 + "x]\n",
    "tag": "a: !secret x\n", "byte": "a: \udcff\n", "large": "#" * (1 << 20) + "\n",
    "long key": "k" * 301 + ": 1\n", "only a marker": "---\n", "tag of another type": "a: !!null 1\n",
    "escape in a key": '"a\\eb": 1\n',
}  # fmt: skip


def cases() -> Iterator[Case]:
    """The cases of this folder's tests that one replacement makes, and those that are no replacement in a good spec."""
    mistakes, bounds, worst, searches, replicates, claims, layers, winners = (
        runpy.run_path(str(HERE / f"test_{name}.py"))
        for name in (
            "mistakes",
            "bounds",
            "worst_messages",
            "search_space",
            "check_replicates",
            "check_claims",
            "check_layers",
            "check_winners",
        )
    )
    good = mistakes["GOOD"]
    for table, base in (
        (mistakes["BAD"], good), (bounds["BEYOND"], good), (searches["MISTAKES"], searches["GOOD"]),
        (searches["OF_POPULATION"], searches["POPULATION"]),
    ):  # fmt: skip
        for name, (old, new, *_) in table.items():
            yield name, base.replace(old, new, 1).replace("§", "").encode(), None, ()
    for name, (base, old, new, _) in worst["WORST"].items():
        yield name, base.replace(old, new, 1).replace("§", "").encode(), None, ()
    for name, (old, new, _) in claims["MISTAKES"].items():
        yield name, claims["WITH_CLAIMS"].replace(old, new, 1).encode(), None, ()
    yield "row and column that never meet", claims["PARTIAL"].encode(), None, ()
    for name, (dataset, final, pretrain, _) in mistakes["OTHER_TEST"].items():
        named = dataset.partition(", ")[0]
        text = good.replace("dataset: digits}", f"dataset: {dataset}}}").replace("[digits, faces]", f"[{named}]")
        text = text.replace("{task.dataset: digits-pretrain}", pretrain or f"{{task.dataset: {named}}}")
        asks = text.replace("task.evaluate: test", f"task.evaluate: test{final and ', '}{final}")
        yield name, asks.encode(), None, ()
    for name, (old, new, _) in layers["MISTAKES"].items():
        yield f"layers: {name}", layers["WITH_LAYERS"].replace(old, new, 1).replace("§", "").encode(), None, ()
    for name, (old, new, _) in winners["MISTAKES"].items():
        yield f"winners: {name}", winners["ANALYSIS"].replace(old, new, 1).replace("§", "").encode(), None, ()
    for name in replicates["BAD"]:
        yield f"replicates: {name}", replicates["text_of"](name).replace("§", "").encode(), None, ()
    for name, (old, new, _) in worst["UNUSED"].items():
        yield f"unused profile: {name}", good.replace(old, new, 1).replace("§", "").encode(), None, ()
    for name, report in REPORTS.items():
        yield name, FIGURES.replace("REPORT", report).encode(), None, ()
    for name, text in TEXTS.items():
        yield name, text.encode("utf-8", "surrogateescape"), None, ()
    for override in (
        "x",
        "=1",
        "stages.gird.per=seed",
        "name=x",
        "optim.lr=.nan",
        "²\x1b=1",
        "task.evaluate=test",
        "optim.batch=33",
    ):
        yield f"--set {override}", good.encode(), None, (override,)
    alone = good.replace("  - name: pretrain\n    override: {task.dataset: digits-pretrain}\n", "")
    alone = alone.replace(", {kind: stage, name: SUP, stage: pretrain}", "")
    yield "without effect", alone.encode(), None, ("optim.lr=1",)
    yield "--profile papr", good.encode(), "papr", ()
    yield "no file", lambda path: None, None, ()
    yield "directory", Path.mkdir, None, ()
    yield "pipe", os.mkfifo, None, ()
    yield "socket", _socket, None, ()
    yield from _more(good, searches["POPULATION"])
    tables = runpy.run_path(str(HERE / "test_load_table.py"))
    for name, (old, new) in tables["MISTAKES"].items():
        yield f"{TABLE}{name}", two_specs.TABLE.replace(old, new, 1).encode(), None, ()
    for name in ("JOB", "LIST"):
        yield f"{TABLE}{name.lower()}", tables[name].encode(), None, ()


def _more(good: str, population: str) -> Iterator[Case]:
    """Mistakes that no other test needs."""
    changes = {
        "through a number": ("  - name: refine", "    override: {task: 5}\n  - name: refine"),
        "more workers at least than at most": ("report:\n", "resources: {workers: 2, min_workers: 3}\nreport:\n"),
        "low above high": ("0.05], high: 1}", "0.05], low: 1, high: 0.5}"),
        "search and neighbourhood": (
            "    from: grid\n",
            "    from: grid\n    sweep: {search: {seed: {int: [0, 9]}}, trials: 2}\n",
        ),
        "profile that changes its name": ("small: {trial: {seed: 1}}", "small: {name: x}"),
        "two names of the same weights": (
            ", {kind: stage, name: SUP, stage: pretrain}",
            ", {kind: none, name: B}, {kind: stage, name: SUP, stage: pretrain}",
        ),
    }
    for name, (old, new) in changes.items():
        yield name, good.replace(old, new, 1).encode(), None, ()
    log = ("{loguniform: [1e-4, 1e-2]}", "{int: [0, 9], log: true}")
    yield "logarithm of zero", population.replace(*log, 1).encode(), None, ()
    first = "trials: 4\n      first: [" + ", ".join(f"{{optim.lr: {number}e-3}}" for number in range(1, 6)) + "]"
    yield "more first points than trials", population.replace("trials: 4", first).encode(), None, ()
    fixed = ("1e-2]}}", "1e-2]}, optim.epochs: {int: [20, 40]}}")
    yield "population of lengths", population.replace(*fixed).encode(), None, ()
    yield (
        "generations not evaluated",
        population.replace("      trials: 4", "      trials: 4", 1)
        .replace("  - name: final", "    override: {runtime.evaluate_every: 2}\n  - name: final")
        .encode(),
        None,
        (),
    )
    span = "    override: {span: {first_epoch: 0, last_epoch: 5}}\n  - name: final"
    yield "population of spans", population.replace("  - name: final", span).encode(), None, ()
    yield from _plugins(good)
    again = "    from: search\n    sweep: {grid: {seed: [0, 1]}}\n"
    yield "population and then a sweep", population.replace("    from: search\n", again).encode(), None, ()


PLUGINS: dict[str, tuple[str, dict[str, str]]] = {
    "twice": ("[m, m]", {"m.py": ""}),
    "no name": ("[a-b]", {}),
    "of Python": ("[json]", {}),
    "of ours": ("[tasks.mine]", {}),
    "not there": ("[no_such]", {}),
    "bare folder": ("[m]", {"m/a.py": ""}),
    "installed too": ("[yaml]", {"yaml.py": ""}),
    "no source": ("[_cffi_backend]", {}),
    "no such module": ("[m.modle]", {"m/__init__.py": "", "m/model.py": ""}),
    "another digest": (f"[{{module: m, digest: {'a' * 64}}}]", {"m.py": ""}),
    "syntax": ("[m.a]", {"m/__init__.py": "", "m/a.py": "", "m/b.py": "x = (\n"}),
    "bytes": ("[m]", {"m.py": "\udcff"}),
    "not installed": ("[m]", {"m.py": "import no_such\n"}),
    "beside it": ("[m]", {"m.py": "import other\n", "other.py": ""}),
    "timm's model": ("[m]", {"m.py": "import timm\n@timm.models.register_model\ndef resnet18(): pass\n"}),
    "broken": ("[m]", {"m.py": "1 / 0\n"}),
}
"""What a spec names, and the files beside it."""


def _plugins(good: str) -> Iterator[Case]:
    for name, (named, files) in PLUGINS.items():

        def write(path: Path, named: str = named, files: dict[str, str] = files) -> None:
            path.write_text(good.replace("profile: small\n", f"profile: small\nplugins: {named}\n", 1))
            for inside, text in files.items():
                (path.parent / inside).parent.mkdir(exist_ok=True)
                (path.parent / inside).write_bytes(text.encode("utf-8", "surrogateescape"))

        yield f"plugins: {name}", write, None, ()


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def problems_of(case: Case, folder: Path) -> list[str]:
    """The lines for a case, with spec.yaml for the file."""
    _, content, profile, overrides = case
    plugin_files.forget()
    path = folder / "spec.yaml"
    if path.is_dir():
        path.rmdir()
    for child in list(folder.iterdir()):
        if child.is_dir():
            shutil.rmtree(child)
        else:
            child.unlink()
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    try:
        if case[0].startswith(TABLE):
            two_specs.write(folder)
            joined_table(path, None)
            return []
        load(path, profile, overrides)
    except SpecError as error:
        return [problem.replace(f"{folder}/", "") for problem in error.problems]
    try:
        load_checking_profiles(path, profile, overrides)
    except SpecError as error:
        return [problem.replace(f"{folder}/", "") for problem in error.problems]
    return []


def sites() -> set[tuple[str, int]]:
    """(file, line) of every statement of orchestrator/spec that gives a mistake its words."""
    found = set()
    for path, file in SOURCES.items():
        for node in ast.walk(ast.parse(Path(path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                found.add((file, node.lineno))
            if not (isinstance(node, ast.Expr | ast.Return) and isinstance(node.value, ast.Call)):
                continue
            function = node.value.func
            name = getattr(function, "attr", getattr(function, "id", ""))
            worded = any(
                isinstance(each, ast.Constant) and isinstance(each.value, str) for each in ast.walk(node.value)
            )
            if name in WORDS - {"append"} or (name == "append" and worded):
                found.add((file, node.lineno))
    return found


def run(folder: Path) -> tuple[str, set[tuple[str, int]]]:
    """The list of all cases with their lines; and (file, line) of orchestrator/spec that some case comes to."""
    seen: set[tuple[str, int]] = set()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        file = SOURCES.get(frame.f_code.co_filename)
        if file is None:
            return None
        seen.add((file, frame.f_lineno))
        return trace

    every, before = list(cases()), sys.gettrace()
    sys.settrace(trace)
    try:
        lines = [f"{case[0]!r}\n" + "".join(f"  {line}\n" for line in problems_of(case, folder)) for case in every]
    finally:
        sys.settrace(before)
    return "".join(lines), seen


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, set[tuple[str, int]]]:
    return run(tmp_path_factory.mktemp("messages"))


def test_the_list_of_messages_is_current(ran: tuple[str, set[tuple[str, int]]]) -> None:
    assert ran[0] == (HERE / "messages.txt").read_text(encoding="utf-8")


def test_every_message_is_in_the_list(ran: tuple[str, set[tuple[str, int]]]) -> None:
    def text(site: tuple[str, int]) -> str:
        path = next(path for path, file in SOURCES.items() if file == site[0])
        return Path(path).read_text(encoding="utf-8").splitlines()[site[1] - 1].strip()

    assert len(sites()) >= 100  # fewer: a function that words mistakes has another name than in WORDS
    unlisted = {text(site) for site in sites() - ran[1]}
    assert sorted(line for line in unlisted if not any(part in line for part in ELSEWHERE)) == []


def test_every_line_points_to_a_place_in_the_file_or_names_the_option() -> None:
    lines = [line[2:] for line in (HERE / "messages.txt").read_text(encoding="utf-8").splitlines() if line[:2] == "  "]
    assert len(lines) > 150
    for line in lines:
        place = line.split(": ")[0]
        whole_file = line.startswith(tuple(f"spec.yaml: {words}" for words in OF_A_FILE))
        assert place.startswith(("--set ", "--profile ")) or len(place.split(":")) == 3 or whole_file, line


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(run(Path(folder))[0], end="")
