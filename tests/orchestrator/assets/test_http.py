"""Downloads of single files: resumed, checked before they get their name, by one process at a time."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from pathlib import Path

import pytest
from file_server import Server

from orchestrator.assets.fetch_weights import download
from orchestrator.assets.http import http_download, part_of
from orchestrator.errors import BackendUnreachable, BadInput

CONTENT = bytes(range(256)) * 40
BY_HAND = "get it by other means"


def accept(part: Path) -> None:
    assert part.read_bytes() == CONTENT


def test_a_cut_download_of_weights_is_resumed(server: str, tmp_path: Path) -> None:
    Server.files["mim.safetensors"] = CONTENT
    Server.cut_after["mim.safetensors"] = 1000
    digest = hashlib.sha256(CONTENT).hexdigest()
    uri = f"{server}/mim.safetensors"
    with pytest.raises(
        BackendUnreachable, match=r"cut off after 1,000 of 10,240 bytes; the same command again resumes"
    ):
        download(uri, digest, tmp_path)
    path = download(uri, digest, tmp_path)
    assert path.read_bytes() == CONTENT
    assert [wanted for _, wanted in Server.asked] == [None, "bytes=1000-"]
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    path.write_bytes(b"damaged")
    assert download(uri, digest, tmp_path).read_bytes() == CONTENT


def test_a_file_that_fails_its_check_is_removed(server: str, tmp_path: Path) -> None:
    Server.files["file"] = CONTENT

    def refuse(part: Path) -> None:
        assert part.read_bytes() == CONTENT
        raise BadInput("another content")

    with pytest.raises(BadInput, match="another content"):
        http_download(f"{server}/file", tmp_path / "file", refuse, BY_HAND)
    assert list(tmp_path.iterdir()) == []


def test_an_address_without_an_answer_leaves_no_file(server: str, tmp_path: Path) -> None:
    for url, problem in ((f"{server}/file", "404 Not Found"), ("http://127.0.0.1:1/file", "Connection refused")):
        with pytest.raises(BackendUnreachable, match=f"{problem}.*; .*{BY_HAND}"):
            http_download(url, tmp_path / "file", accept, BY_HAND)
    assert list(tmp_path.iterdir()) == []


def test_a_complete_part_is_only_checked(server: str, tmp_path: Path) -> None:
    Server.files["file"] = CONTENT
    part_of(tmp_path / "file").write_bytes(CONTENT)
    http_download(f"{server}/file", tmp_path / "file", accept, BY_HAND)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert Server.asked == [("file", f"bytes={len(CONTENT)}-")]


def test_a_file_that_another_process_downloads_is_left_to_it(server: str, tmp_path: Path) -> None:
    Server.files["file"] = CONTENT
    part = part_of(tmp_path / "file")
    with part.open("ab") as other:
        other.write(CONTENT[:10])
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BackendUnreachable, match="another process is downloading it"):
            http_download(f"{server}/file", tmp_path / "file", accept, BY_HAND)
    assert part.read_bytes() == CONTENT[:10]
    assert Server.asked == []
    http_download(f"{server}/file", tmp_path / "file", accept, BY_HAND)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_full_disk_is_named_before_anything_is_written(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Server.files["file"] = CONTENT
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(BackendUnreachable, match="has no room for the 10,240 bytes left of"):
        http_download(f"{server}/file", tmp_path / "file", accept, BY_HAND)
    assert list(tmp_path.iterdir()) == []


def test_a_file_address_is_copied(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(CONTENT)
    http_download((tmp_path / "source").as_uri(), tmp_path / "target" / "file", accept, BY_HAND)
    assert (tmp_path / "target" / "file").read_bytes() == CONTENT


@pytest.mark.parametrize("said", ["many", "-5", "1e3", ""])
def test_a_server_that_states_no_size_is_read_to_its_end(said: str, server: str, tmp_path: Path) -> None:
    Server.files["file"] = CONTENT
    Server.headers_of["file"] = {"Content-Length": said, "Connection": "close"}
    http_download(f"{server}/file", tmp_path / "file", accept, BY_HAND)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_download_of_unknown_size_leaves_room_on_the_disk(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Server.files["file"] = CONTENT
    Server.headers_of["file"] = {"Content-Length": "many", "Connection": "close"}
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1, 1, 1 << 20))
    with pytest.raises(BackendUnreachable, match=r"has no room for .*/file, which does not say how large it is"):
        http_download(f"{server}/file", tmp_path / "file", accept, BY_HAND)


def test_a_server_that_resumes_elsewhere_is_not_believed(server: str, tmp_path: Path) -> None:
    Server.files["file"] = CONTENT
    Server.headers_of["file"] = {"Content-Range": f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}"}
    part_of(tmp_path / "file").write_bytes(CONTENT[:10])
    with pytest.raises(BackendUnreachable, match=r"the server does not resume at byte 10; remove .*file\.part"):
        http_download(f"{server}/file", tmp_path / "file", lambda part: None, BY_HAND)
    assert not (tmp_path / "file").exists()
