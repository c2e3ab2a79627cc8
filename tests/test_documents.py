"""The pages that users read: links lead somewhere, commands and their options exist, quoted messages are ours."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import click
import pytest
from documents import DOCS, PAGES, ROOT, commands, files, without_blocks

from orchestrator.cli.main import cli
from orchestrator.spec.load import load, profiles

IDS = [page.relative_to(ROOT).as_posix() for page in PAGES]


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", without_blocks(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert target.is_relative_to(ROOT), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"


def test_every_page_can_be_reached_from_readme() -> None:
    linked = set(re.findall(r"\]\(docs/([\w-]+\.md)\)", (ROOT / "README.md").read_text()))
    assert {path.name for path in DOCS.glob("*.md")} <= linked


def test_readme_lists_every_spec_with_its_profiles() -> None:
    rows = dict(re.findall(r"^\| \[(\w+)\]\(specs/\1\.yaml\) (.+)$", (ROOT / "README.md").read_text(), re.MULTILINE))
    specs = list((ROOT / "specs").glob("*.yaml"))
    assert rows.keys() == {path.stem for path in specs}
    for path in specs:  # of laptop there is a column, and every spec has smoke
        assert set(profiles(path)) - {"laptop", "smoke"} <= set(re.findall(r"`(\w+)`", rows[path.stem])), path.stem


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_and_their_options_exist(page: Path) -> None:
    for arguments in commands(page):
        command: click.Command = cli
        ctx = click.Context(cli)
        rest = list(arguments)
        while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            name = rest.pop(0).partition("|")[0]
            found = command.get_command(ctx, name)
            assert found is not None, f"{page.name}: no command {name}"
            command = found
        known = {option for param in command.get_params(click.Context(command)) for option in param.opts}
        given = {match[1] for each in rest if (match := re.match(r"\[?(--?[a-z][\w-]*)", each))}
        assert given <= known, f"{page.name}: {' '.join(arguments)}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_specs_in_pages_are_valid(page: Path, tmp_path: Path) -> None:
    for name, text in files(page).items():
        if name.endswith(".yaml"):
            (tmp_path / name).write_text(text)
            assert load(tmp_path / name).stages, f"{page.name}: {name}"


def test_messages_in_troubleshooting_are_those_of_the_code() -> None:
    sources = "".join(
        path.read_text(encoding="utf-8") for name in ("orchestrator", "workers", "tasks")
        for path in (ROOT / name).rglob("*.py")
    )  # fmt: skip
    code = re.sub(r"\"\s*\n?\s*f?\"", "", sources)  # a text that goes over several lines
    code = re.sub(r"\{[^{}]*\}", "..", code)
    quoted = re.findall(r"^> (.+)$", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE)
    assert len(quoted) > 10
    for message in quoted:
        for part in filter(None, (part.strip(" .,:;") for part in message.split(".."))):
            assert part in code, part
