"""A plugin's files are found, read without running them, and summed up in a digest that every change moves."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import plugin_files as made
import pytest

from orchestrator.spec import plugin_files
from orchestrator.spec.plugin_files import find
from tasks.errors import PluginError
from workers.plugin_code import Plugin

FILES = {
    "plug_p/__init__.py": "",
    "plug_p/model.py": "import torch\nfrom .part import X\n",
    "plug_p/part.py": "X = 1\n",
    "plug_p/data.txt": "not code\n",
    "plug_p/.hidden/more.py": "a syntax error\n",
}


@pytest.fixture(autouse=True)
def as_a_new_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with made.forgotten():
        yield


def digest(folder: Path, module: str = "plug_p.model") -> str:
    return made.code(folder, module).plugin.digest


def test_all_python_files_of_the_package_belong_to_it(tmp_path: Path) -> None:
    found = made.code(made.write(tmp_path, FILES), "plug_p.model")
    assert list(found.files) == ["plug_p/__init__.py", "plug_p/model.py", "plug_p/part.py"]
    assert found.plugin.versions == {"torch": metadata.version("torch")}
    assert found.file == f"{tmp_path}/plug_p/model.py"
    assert "plug_p" not in sys.modules


def test_the_digest_moves_with_every_file_and_version_and_with_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = digest(made.write(tmp_path / "a", FILES))
    assert first == digest(made.write(tmp_path / "b", FILES)), "wherever it lies"
    assert first == digest(tmp_path / "a", "plug_p.part"), "it is of the whole package"
    made.write(tmp_path / "b", {"plug_p/data.txt": "others\n", "plug_p/__pycache__/x.pyc": "made by Python"})
    assert first == digest(tmp_path / "b"), "files that are not sent to the nodes"
    changes = [
        {"plug_p/part.py": "X = 2\n"}, {"plug_p/__init__.py": "\n"}, {"plug_p/new.py": ""},
        {"plug_p/part.py": "X = 1\nimport numpy\n"},
    ]  # fmt: skip
    digests = {first, *(digest(made.write(tmp_path / str(n), {**FILES, **more})) for n, more in enumerate(changes))}
    monkeypatch.setattr(plugin_files, "installed", lambda names: dict.fromkeys(names, "99"))
    assert len(digests | {digest(tmp_path / "a")}) == 6


def test_the_current_folder_comes_before_that_of_the_spec_and_that_before_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, spec, site = (tmp_path / name for name in ("here", "spec", "site"))
    for folder in (here, spec, site):
        made.write(folder, {"plug_q.py": f"WHERE = {folder.name!r}\n"})
    only = Plugin(module="plug_q")
    assert find(only, [here, spec]).folder == str(here)
    (here / "plug_q.py").unlink()
    assert find(only, [here, spec]).folder == str(spec)
    (spec / "plug_q.py").unlink()
    with pytest.raises(
        PluginError, match=r"not found: neither \./plug_q\.py nor .*/spec/plug_q\.py .*put it there, chan"
    ):
        find(only, [here, spec])
    monkeypatch.syspath_prepend(str(site))
    assert find(only, [here, spec]).folder == str(site)
    made.write(spec, {"plug_q.py": ""})
    with pytest.raises(PluginError, match=r"spec/plug_q\.py has the name of an installed package: rename it"):
        find(only, [here, spec])


def test_a_folder_that_is_on_pythons_path_too_is_no_other_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.write(tmp_path, {"plug_r.py": ""})
    monkeypatch.syspath_prepend(str(tmp_path))
    assert find(Plugin(module="plug_r"), [tmp_path / "spec", tmp_path]).folder == str(tmp_path)


def test_imports_that_a_program_can_do_without_or_only_checks_types_with(tmp_path: Path) -> None:
    text = """
        from __future__ import annotations
        import json, os.path
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            import no_such_types
        try:
            import no_such_speed_up
        except ImportError:
            no_such_speed_up = None
        else:
            import numpy
        def late():
            with open("x"):
                from sklearn import metrics
    """
    found = made.code(made.write(tmp_path, {"plug_s.py": text}), "plug_s")
    versions = {name: metadata.version(name) for name in ("numpy", "scikit-learn")}
    assert found.plugin.versions == {"no_such_speed_up": "absent", **versions}


def test_plugins_of_one_job_may_import_each_other(tmp_path: Path) -> None:
    made.write(tmp_path, {"plug_t.py": "import plug_u\n", "plug_u.py": ""})
    with pytest.raises(
        PluginError, match=r"line 1: imports plug_u, which belongs neither .*or name it in `plugins` too"
    ):
        find(Plugin(module="plug_t"), [tmp_path])
    assert find(Plugin(module="plug_t"), [tmp_path], {"plug_u"}).plugin.versions == {}


def test_another_version_than_the_one_asked_for_says_what_changed(tmp_path: Path) -> None:
    found = made.code(made.write(tmp_path, FILES), "plug_p.model").plugin
    assert find(found, [tmp_path]).plugin == found
    asked = found.model_copy(update={"digest": "0" * 64, "versions": {"torch": "0.1", "pandas": "2"}})
    with pytest.raises(
        PluginError, match=r"plug_p has digest .*\(pandas 2 then, not imported now, torch 0\.1 then, \d"
    ):
        find(asked, [tmp_path])
    with pytest.raises(
        PluginError, match=r"and 000000000000 was asked for: bring back the files and packages of then; to run"
    ):
        find(found.model_copy(update={"digest": "0" * 64}), [tmp_path])


def test_too_much_to_send_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.write(tmp_path, FILES)
    monkeypatch.setattr(plugin_files, "MAX_FILES", 2)
    with pytest.raises(PluginError, match=r"plug_p has 3 \.py files; at most 2 files and 10 MB can be sent"):
        find(Plugin(module="plug_p"), [tmp_path])
    monkeypatch.setattr(plugin_files, "MAX_FILES", 9)
    monkeypatch.setattr(plugin_files, "MAX_BYTES", 8)
    with pytest.raises(PluginError, match="name a smaller package"):
        find(Plugin(module="plug_p"), [tmp_path])


def test_a_byte_order_mark_before_the_text_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "plug_m.py").write_bytes(b"\xef\xbb\xbfX = 1\n")
    assert made.code(tmp_path, "plug_m").files == {"plug_m.py": "X = 1\n"}
