"""Folders and addresses from options and the environment, whatever characters are in them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import sqlalchemy as sa

from orchestrator.errors import BadInput, NotFound
from orchestrator.settings import masked, private_file, private_folder, settings, shown, sqlite_url, without_secrets
from orchestrator.store.address import sqlite_file
from orchestrator.store.store import open_existing, open_store

NAMES = [
    "a%20b", "100%", "%zz", "a#b", "a?b=c", "a b", "a&b=c", "a+b", "a;b", "é中", "user@host:5", "[x]", "$HOME$",
    "quote'\"<>", "back\\slash", "^`{|}~", "sqlite:", ":memory:x",
]  # fmt: skip
ENVIRONMENT = {
    "ORCHESTRATOR_RUNS": "folder", "DATA_ROOT": "data_root", "ORCHESTRATOR_STORAGE": "storage",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ENVIRONMENT, "DATABASE_URL", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", NAMES)
def test_addresses_are_those_that_the_library_makes(name: str) -> None:
    file = Path("/home") / name / "store.db"
    address = sqlite_url(file)
    assert address == sa.URL.create("sqlite", database=str(file)).render_as_string()
    assert sa.make_url(address).database == str(file)
    assert sqlite_file(address) == file


def test_every_character_comes_back() -> None:
    everything = "".join(chr(code) for code in (*range(1, 0x250), 0x2028, 0x1F600))
    assert sqlite_file(sqlite_url(Path(f"/home/{everything}/x.db"))) == Path(f"/home/{everything}/x.db")


@pytest.mark.parametrize("name", NAMES)
def test_the_store_lies_in_the_folder_of_this_very_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_RUNS", str(tmp_path / name))
    open_store(settings().database_url).close()
    open_existing(settings()).close()
    assert [path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("store.db")] == [(name, "store.db")]


def test_a_relative_address_of_a_user_is_relative_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    open_store("sqlite:///here/a%20b.db").close()
    assert (tmp_path / "here" / "a b.db").is_file()


@pytest.mark.parametrize(("variable", "field"), ENVIRONMENT.items())
def test_home_is_expanded_in_every_folder(
    variable: str, field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for text, path in (("~/x", tmp_path / "x"), ("~", tmp_path), ("~root/x", Path("/root/x")), ("./~", Path("~"))):
        monkeypatch.setenv(variable, text)
        assert getattr(settings(), field) == path.absolute()
        monkeypatch.delenv(variable)
        assert getattr(settings(**{field: text}), field) == path.absolute()  # --runs=~/x: no shell expands it


def test_home_is_expanded_in_addresses_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "a#b"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("DATABASE_URL", "sqlite:///~/store.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///~/mlflow.db")
    assert sqlite_file(settings().database_url) == home / "store.db"
    assert sqlite_file(settings().tracking_uri) == home / "mlflow.db"
    assert settings(tracking_uri="~/mlruns").tracking_uri == str(home / "mlruns")
    for address in ("postgresql://me@host/~db", "http://host/~me", "sqlite:////a/~/b.db"):
        assert settings(database_url=address).database_url == address


def test_an_unknown_home_is_one_message() -> None:
    for text in ("~nobody-of-this-name/x", "sqlite:///~nobody-of-this-name/x"):
        with pytest.raises(BadInput, match=r"~nobody-of-this-name.*write the whole path"):
            settings(folder=text) if "sqlite" not in text else settings(database_url=text)


def test_names_of_variables_are_letters_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shells, compose and Slurm replace them; a folder's name may have a dollar sign."""
    monkeypatch.setenv("SCRATCH", "/scratch")
    assert settings(folder=tmp_path / "$SCRATCH").folder == tmp_path / "$SCRATCH"


def test_a_name_that_is_not_text_is_refused() -> None:
    for name in (os.fsdecode(b"runs-\xff"), "runs\0"):
        with pytest.raises(BadInput, match="not UTF-8 text"):
            settings(folder=name)


def test_a_deleted_working_directory_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(NotFound, match="working directory no longer exists"):
        settings()


def test_what_we_make_is_private_and_what_is_there_stays(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        made = private_folder(tmp_path / "runs")
        file = private_file(made / "x.db")
        shared = tmp_path / "shared"
        shared.mkdir(0o755)
        (shared / "x.db").touch(0o644)
        private_folder(shared)
        private_file(shared / "x.db")
    finally:
        os.umask(before)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (made, file)] == [0o700, 0o600]
    assert [stat.S_IMODE(path.stat().st_mode) for path in (shared, shared / "x.db")] == [0o755, 0o644]


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:p@ss/wor:d@host:5432/db",
        "postgresql://me:p%40ss%2Fwor%3Ad@host/db",
        "postgresql://me:p ss@host/db",
        "postgresql://host/db?user=me&password=p%40ss",
        "http://me:p@ss@host:5000",
        "postgresql://me:p\nss@host/db",
    ],
)
def test_nothing_of_a_password_is_shown(address: str) -> None:
    for text in (shown(address), masked(f"cannot open {address}", address)):
        for part in ("p@ss", "p%40ss", "p ss", "p\nss", "wor:d", "wor%3Ad", "ss@", "ss/"):
            assert part not in text


def test_passwords_in_other_texts_are_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "postgresql://anna:p%40ss@db:5432/mlflow"
    assert masked(f"cannot open {uri} (p@ss)", uri) == "cannot open postgresql://***@db:5432/mlflow (***)"
    assert masked("host=db password=hunter2 user=x") == "host=db password=*** user=x"
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abc123")
    assert masked("sent abc123") == "sent ***"
    assert shown("sqlite:////home/a@b/store.db") == "sqlite:////home/a@b/store.db"
    assert without_secrets("http://anna:p@ss@host:5000/x") == "http://host:5000/x"
