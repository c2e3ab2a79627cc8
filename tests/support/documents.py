"""Reads what a page of docs/ tells a user to write and to type, so that tests do exactly that."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of every fenced block of a page."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [(language, text) for language, text in found]


def files(page: Path) -> dict[str, str]:
    """The files whose text a page has in full, by their names: blocks that begin with `# NAME`."""
    named = [(re.match(r"# ([\w.-]+\.(?:yaml|py|csv))\n", text), text) for _, text in blocks(page)]
    return {match[1]: text for match, text in named if match}


def commands(page: Path) -> list[list[str]]:
    """The arguments of every `python -m orchestrator ..` and `orchestrator ..` that stands in a line of its own."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"^(?: {4})?(?:python -m )?orchestrator +(.+)", text, re.MULTILINE)
    return [shlex.split(each.partition(" > ")[0], comments=True) for each in found]


def without_blocks(page: Path) -> str:
    """The text of a page without its fenced blocks and code."""
    text = re.sub(r"^```\w*\n.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]+`", "", text)
