"""A Python that lacks a package of the project is told in one line; a mistake of our own keeps its traceback."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import sysconfig
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from orchestrator import __main__ as program
from orchestrator import installation

ROOT = Path(__file__).parents[2]
SITE = Path(sysconfig.get_path("purelib"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def call(packages: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a Python that has the packages of this folder alone."""
    return subprocess.run(
        [sys.executable, "-S", "-m", "orchestrator", *arguments], capture_output=True, text=True, check=False,
        cwd=packages, env={"PYTHONPATH": f"{ROOT}:{packages}"},
    )  # fmt: skip


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """A folder with links to all packages of this Python, of which a test removes some."""
    folder = tmp_path / "site"
    folder.mkdir()
    for each in SITE.iterdir():
        if each.suffix != ".pth" and not each.name.startswith("__editable__"):
            (folder / each.name).symlink_to(each)
    return folder


@pytest.mark.parametrize("lacks", ["click", "sqlalchemy", "yaml", "timm"])
def test_a_missing_package_is_one_line_with_the_python_and_the_remedy(packages: Path, lacks: str) -> None:
    (packages / lacks).unlink()
    done = call(packages, "plan", str(ROOT / "specs" / "k12_grid.yaml"), "--profile", "smoke")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    package = {"yaml": "pyyaml"}.get(lacks, lacks)
    assert line.startswith(f"error: the package {package} is not installed in {sys.executable}; ")
    assert line.endswith(f"{shlex.quote(sys.executable)} -m pip install -e {shlex.quote(str(ROOT))}")


def test_with_every_package_the_command_runs(packages: Path) -> None:
    done = call(packages, "schema")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_package_of_a_version_that_the_project_does_not_take_is_one_line(packages: Path) -> None:
    """As where a system has its own, older ones."""
    (packages / "pydantic").unlink()
    (packages / "pydantic").mkdir()
    (packages / "pydantic" / "__init__.py").write_text("VERSION = '1.10.4'\n")
    for old in packages.glob("pydantic-*.dist-info"):
        old.unlink()
    (packages / "pydantic-1.10.4.dist-info").mkdir()
    (packages / "pydantic-1.10.4.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: pydantic\nVersion: 1.10.4\n"
    )
    done = call(packages, "validate", "spec.yaml")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    wanted = re.search(r"pydantic(\S+)", "\n".join(PROJECT["dependencies"]))
    assert wanted is not None
    assert line.startswith(f"error: {sys.executable} has pydantic 1.10.4, and the project needs {wanted[1]}; ")


@pytest.mark.parametrize(
    "line", ["import sqlalchmy", "import sqlalchemy.ormm", "from sqlalchemy import selct", "import orchestrator.stor"]
)
def test_a_mistake_of_our_own_keeps_its_traceback(line: str) -> None:
    with pytest.raises(ImportError) as caught:
        exec(line)
    assert installation.problem(caught.value) is None


def test_an_older_python_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert f">={'.'.join(map(str, program.OLDEST))}" == PROJECT["requires-python"]
    monkeypatch.setattr(program, "OLDEST", (99, 7))
    with pytest.raises(SystemExit) as end:
        program.run()
    assert end.value.code == 2
    found = ".".join(map(str, sys.version_info[:2]))
    told = f"error: {sys.executable} is Python {found}, and the project needs 99.7 or newer\n"
    assert capsys.readouterr().err == told


def test_what_the_code_imports_is_in_the_list_under_the_name_of_its_package() -> None:
    imported = set()
    for package in ("orchestrator", "tasks", "workers"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    imported.add(str(node.module).partition(".")[0])
    others = imported - sys.stdlib_module_names - {"orchestrator", "tasks", "workers", "transformers"}
    assert others <= installation.PACKAGES.keys()
    brought = metadata.packages_distributions()
    for name, package in installation.PACKAGES.items():
        assert package in {re.sub(r"[-_.]+", "-", each.lower()) for each in brought[name]}, name
    required = {re.split(r"[^\w-]", line)[0] for line in PROJECT["dependencies"]}
    assert required <= set(installation.PACKAGES.values())


def test_versions_and_bounds() -> None:
    assert installation.fits("2.1.3", ">=2.1,<3")
    assert installation.fits("2.1", ">=2.1.0")
    assert installation.fits("2.14.0+cu126", ">=2.14")
    assert installation.fits("7.0", "")
    assert not installation.fits("2.0.49", ">=2.1,<3")
    assert not installation.fits("3.0", ">=2.1,<3")
    assert not installation.fits("2.9.1", ">=2.14")
