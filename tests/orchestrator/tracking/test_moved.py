"""MLflow's database after its folder was moved, and the page between reports and the UI."""

from __future__ import annotations

import re
import shutil
import stat
from pathlib import Path

from mirrored_job import JOB, World

from orchestrator.report import ui_page
from orchestrator.settings import sqlite_url
from orchestrator.tracking.moved import mend


def test_artifacts_of_a_moved_folder_are_found(world: World, tmp_path: Path) -> None:
    world.trial("grid", "digits", 0)
    world.sync()
    before = world.run_of("grid", "digits").info.artifact_uri
    assert mend(world.uri, world.folder) == 0, "nothing was moved"
    new = tmp_path / "moved to #1"
    shutil.move(world.folder, new)
    file = new / Path(world.uri.removeprefix("sqlite:///")).name
    world.uri, world.folder = sqlite_url(file), new
    assert mend(world.uri, tmp_path / "elsewhere") == 0, "no artifacts lie there"
    assert mend(world.uri, new) == 1
    assert mend(world.uri, new) == 0
    client = world.client()
    run_id = world.store.tracked_runs.of(JOB)["grid", "digits", ""].run_id
    assert client.get_run(run_id).info.artifact_uri != before
    assert [file.path for file in client.list_artifacts(run_id)] == ["spec.yaml"]
    assert mend("postgresql://nobody/db", new) == 0
    assert mend(sqlite_url(new / "nothing.db"), new) == 0


def test_a_copy_writes_into_its_own_folder(world: World, tmp_path: Path) -> None:
    """Not into that of the original, which is still there."""
    world.trial("grid", "digits", 0)
    world.sync()
    copy, link = tmp_path / "copy", tmp_path / "link"
    shutil.copytree(world.folder, copy)
    link.symlink_to(world.folder)
    name = Path(world.uri.removeprefix("sqlite:///")).name
    assert mend(sqlite_url(link / name), link) == 0, "the same folder by another name"
    assert mend(world.uri, copy) == 0, "the database of the original"
    assert mend(sqlite_url(copy / name), copy) == 1
    assert mend(sqlite_url(copy / name), copy) == 0
    original = world.run_of("grid", "digits").info.artifact_uri
    world.uri = sqlite_url(copy / name)
    moved = world.client().get_run(world.store.tracked_runs.of(JOB)["grid", "digits", ""].run_id).info.artifact_uri
    assert original.startswith(world.folder.as_uri())
    assert moved == copy.as_uri() + original.removeprefix(world.folder.as_uri())


def test_the_page_leads_to_where_the_ui_is_now(tmp_path: Path) -> None:
    ui_page.made(tmp_path)
    page = tmp_path / ui_page.NAME
    assert f"orchestrator ui --runs {tmp_path}" in page.read_text()
    ui_page.to_ui(tmp_path, "http://127.0.0.1:5001/?token=<secret>")
    assert re.search(r'location\.replace\("http://127\.0\.0\.1:5001/\?token=\\u003csecret>" \+ location\.hash\)',
                     page.read_text())  # fmt: skip
    assert stat.S_IMODE(page.stat().st_mode) == 0o600, "it holds the token"
    ui_page.made(tmp_path)
    assert "5001" in page.read_text(), "a page that is there stays"
    ui_page.to_nobody(tmp_path)
    assert "secret" not in page.read_text()
