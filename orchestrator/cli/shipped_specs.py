"""The command `specs`: lists the specs that come with this package, and copies them."""

from __future__ import annotations

import re
import shutil
import textwrap
from pathlib import Path
from typing import Any

import click

import orchestrator
from orchestrator.cli.options import echo, say, show
from orchestrator.errors import BadInput, Conflict, NotFound
from orchestrator.report.formatting import WIDTH

PAPER = '"Revealing the Dark Secrets of Masked Image Modeling"'
"""Each file names it in full; the list says "the paper"."""
SCHEMA = re.compile(r"\A# yaml-language-server: \$schema=\S+\n(#\n)?")


def folder() -> Path:
    """The folder of the specs: a link to specs/ beside the sources, a copy in an installed package."""
    assert orchestrator.__file__ is not None
    return Path(orchestrator.__file__).parent / "shipped"


@click.command("specs")
@click.argument("name", required=False)
@click.option("--output", "target", type=click.Path(path_type=Path), help="File to copy to [NAME.yaml]; - prints it.")
@click.option("--all", "everything", type=click.Path(path_type=Path), metavar="FOLDER", help="Copy all, tables too.")
@click.option("--json", "as_json", is_flag=True, help="The list as JSON.")
def specs(name: str | None, target: Path | None, everything: Path | None, as_json: bool) -> None:
    """List the specs that come with this package, with what each reproduces; with NAME, copy one to change it."""
    if everything is not None:
        if name or target:
            raise click.UsageError("--all FOLDER copies every spec: give neither NAME nor --output with it")
        _copy_all(everything)
    elif name is not None:
        _copy(name, target)
    elif target is not None:
        raise click.UsageError("--output is for a NAME (all: specs)")
    elif as_json:
        show([{"name": path, **about(folder() / f"{path}.yaml")} for path in names()])
    else:
        wide = max(map(len, names())) + 2
        for path in names():
            said = about(folder() / f"{path}.yaml")
            ends = f" Profiles: {', '.join(said['profiles'])}." if said["profiles"] else ""
            indent = " " * wide
            echo(textwrap.fill(f"{path:<{wide}}{said['about']}{ends}", WIDTH, subsequent_indent=indent))
        say("one of them: orchestrator specs NAME [--output FILE]; all: orchestrator specs --all FOLDER")


def names() -> list[str]:
    """Of all specs and table files, as the command takes them: k12_grid, tables/table1."""
    base = folder()
    found = [*sorted(base.glob("*.yaml")), *sorted(base.glob("tables/*.yaml"))]
    return [path.relative_to(base).with_suffix("").as_posix() for path in found]


def about(path: Path) -> dict[str, Any]:
    """What a file's first comment says, in its first sentence; and its profiles."""
    text = SCHEMA.sub("", path.read_text(encoding="utf-8"))
    paragraph = " ".join(line.removeprefix("#").strip() for line in text.partition("\n#\n")[0].splitlines())
    sentence = re.match(r"(.+?[^.]\.)(?= [A-Z]|$)", paragraph.replace(PAPER, "the paper"))
    listed = re.search(r"^profiles:\n((?:[ \t#].*\n|\n)+)", text + "\n", re.MULTILINE)
    profiles = re.findall(r"^  (\w+):", listed[1], re.MULTILINE) if listed else []
    return {"about": sentence[1] if sentence else paragraph, "profiles": profiles}


def _copy(name: str, target: Path | None) -> None:
    from tasks.spelling import nearest

    name = name.removesuffix(".yaml").removeprefix("specs/")
    if name not in names():
        near = nearest(name, names())
        hint = f"; nearest: {near[0]}" if near else ""
        raise NotFound(f"no spec {name!r} comes with this package{hint} (all: orchestrator specs)")
    text = SCHEMA.sub("", (folder() / f"{name}.yaml").read_text(encoding="utf-8"))
    target = target or Path(f"{Path(name).name}.yaml")
    if str(target) == "-":
        echo(text, end=False)
        return
    if target.exists():
        raise Conflict(f"{target} exists already: choose another --output, or remove it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"cannot write {target}: {error.strerror}; choose another --output") from error
    say(f"written: {target}")
    if name.startswith("tables/"):
        say(
            "a table names its jobs' specs from its own folder: to have them beside it, orchestrator specs --all FOLDER"
        )


def _copy_all(target: Path) -> None:
    if target.exists() and any(target.iterdir()):
        raise Conflict(f"{target} is not empty: choose another folder")
    try:
        shutil.copytree(folder(), target, dirs_exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot write {target}: {error}; choose another folder") from error
    say(f"written: {len(names())} files in {target}")
