"""Downloads of data sets: resumed, checked, unpacked once; from a server on this machine."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import re
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from archives import tar, zipped
from data_commands import command, trees
from file_server import Server

from orchestrator.assets import fetch_data
from orchestrator.assets.fetch_data import fetch
from orchestrator.errors import BackendUnreachable, BadInput
from tasks.datasets import DATASETS
from tasks.datasets.info import Download
from tasks.datasets.labelled.dataset import LabelledDataset


def packed(folder: Path, *names: str) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name in names:
            archive.add(folder / name, name)
    return content.getvalue()


def offered(server: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> LabelledDataset:
    """Pets, as two archives on the server."""
    card = trees.plant("pets", folder, monkeypatch)
    downloads = []
    for name in ("images", "annotations"):
        content = packed(folder / "oxford-iiit-pet", name)
        Server.files[f"{name}.tar.gz"] = content
        md5 = hashlib.md5(content).hexdigest()
        downloads.append(Download(f"{server}/{name}.tar.gz", md5, "oxford-iiit-pet"))
    card = replace(card, downloads=tuple(downloads))
    monkeypatch.setitem(DATASETS, "pets", card)
    return card


def test_fetch_gets_checks_and_unpacks_once(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offered(server, tmp_path / "theirs", monkeypatch)
    ours = tmp_path / "ours"
    result = command(ours, "fetch", "pets")
    assert result.exit_code == 0, result.output
    assert [name for name, _ in Server.asked] == ["images.tar.gz", "annotations.tar.gz"]
    assert command(ours, "check", "pets", "--images").exit_code == 0
    assert list((ours / "downloads").iterdir()) == []
    assert command(ours, "fetch", "pets").exit_code == 0
    assert len(Server.asked) == 2


def test_a_download_that_was_cut_off_is_resumed(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = offered(server, tmp_path / "theirs", monkeypatch)
    ours, seen = tmp_path / "ours", []
    Server.cut_after["images.tar.gz"] = 1000
    with pytest.raises(BackendUnreachable, match=r"cut off after 1,000 of .* bytes; the same command again resumes"):
        fetch(card, ours, lambda *state: None)
    assert (ours / "downloads" / "images.tar.gz.part").stat().st_size == 1000
    fetch(card, ours, lambda name, done, total: seen.append((name, done, total)))
    assert Server.asked[:2] == [("images.tar.gz", None), ("images.tar.gz", "bytes=1000-")]
    whole = len(Server.files["images.tar.gz"])
    assert seen[0] == ("images.tar.gz", whole, whole)
    assert command(ours, "check", "pets", "--images").exit_code == 0


def test_a_server_without_ranges_sends_the_whole_file(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = offered(server, tmp_path / "theirs", monkeypatch)
    Server.ranges, ours = False, tmp_path / "ours"
    (ours / "downloads").mkdir(parents=True)
    (ours / "downloads" / "images.tar.gz.part").write_bytes(b"the beginning of something else")
    fetch(card, ours, lambda *state: None)
    assert command(ours, "check", "pets", "--images").exit_code == 0


def test_a_complete_file_is_not_downloaded_again(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = offered(server, tmp_path / "theirs", monkeypatch)
    ours = tmp_path / "ours"
    (ours / "downloads").mkdir(parents=True)
    (ours / "downloads" / "images.tar.gz.part").write_bytes(Server.files["images.tar.gz"])
    (ours / "downloads" / "annotations.tar.gz").write_bytes(Server.files["annotations.tar.gz"])
    fetch(card, ours, lambda *state: None, keep=True)
    assert [name for name, _ in Server.asked] == ["images.tar.gz"]
    assert sorted(path.name for path in (ours / "downloads").iterdir()) == ["annotations.tar.gz", "images.tar.gz"]


def test_another_content_is_not_kept(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = offered(server, tmp_path / "theirs", monkeypatch)
    Server.files["images.tar.gz"] += b"more"
    with pytest.raises(BackendUnreachable, match=r"images.tar.gz: the file has MD5 \w+, not \w+; it was removed"):
        fetch(card, tmp_path / "ours", lambda *state: None)
    assert list((tmp_path / "ours" / "downloads").iterdir()) == []
    del Server.files["images.tar.gz"]
    with pytest.raises(BackendUnreachable, match=r"images.tar.gz: 404 .* get the file by other means into the folder"):
        fetch(card, tmp_path / "ours", lambda *state: None)


def test_an_archive_inside_an_archive_is_unpacked(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Caltech-101."""
    card = trees.plant("caltech101", tmp_path / "theirs", monkeypatch)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        inner = packed(tmp_path / "theirs" / "caltech101", "101_ObjectCategories")
        archive.writestr("caltech-101/101_ObjectCategories.tar.gz", inner)
        archive.writestr("__MACOSX/caltech-101/._101_ObjectCategories.tar.gz", b"of no use")
    Server.files["caltech-101.zip"] = content.getvalue()
    md5 = hashlib.md5(content.getvalue()).hexdigest()
    card = replace(card, downloads=(Download(f"{server}/caltech-101.zip", md5, "caltech101"),))
    fetch(card, tmp_path / "ours", lambda *state: None)
    assert command(tmp_path / "ours", "check", "caltech101", "--images").exit_code == 0


def test_nothing_is_unpacked_outside_its_folder(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../../outside"), io.BytesIO())
    Server.files["bad.tar.gz"] = content.getvalue()
    card = replace(trees.card_of("dtd"), downloads=(Download(f"{server}/bad.tar.gz", None, "dtd"),))
    with pytest.raises(BadInput, match=r"'../../outside' is not below its folder; it was removed"):
        fetch(card, tmp_path / "ours", lambda *state: None)
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("name", ["{}/x.tar.gz", "x/../../y.tar.gz", "../../outside.tar.gz"])
def test_an_archive_inside_that_lies_elsewhere_is_neither_unpacked_nor_removed(
    name: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = [tmp_path / "x.tar.gz", tmp_path / "outside.tar.gz", tmp_path / "ours" / "y.tar.gz"]
    for path in outside:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(tar([("taken", b"1", {})]))
    content = zipped([("good", b"1", {}), (name.format(tmp_path), tar([("mine", b"1", {})]), {})])
    Server.files["caltech-101.zip"] = content
    card = replace(trees.card_of("caltech101"), downloads=(Download(f"{server}/caltech-101.zip", None, "caltech101"),))
    with pytest.raises(BadInput, match=r"101.zip is not unpacked: '.*' is not below its folder; it was removed"):
        fetch(card, tmp_path / "ours", lambda *state: None)
    assert all(path.exists() for path in outside)
    assert not list(tmp_path.rglob("taken")) + list(tmp_path.rglob("mine")) + list(tmp_path.rglob("good"))


BAD_BY_HAND = {
    "two bytes": (b"hi", r"images.tar.gz has MD5 \w+, not \w+ as http.* has: it is another file, or not whole"),
    "an archive of something else": (tar([("images/x.jpg", b"1", {})]), r"has MD5 \w+, not \w+ as"),
    "nothing": (b"", r"has MD5 \w+, not \w+ as"),
}


@pytest.mark.parametrize("what", BAD_BY_HAND)
@pytest.mark.parametrize("there", [True, False], ids=["data there", "data missing"])
def test_what_was_put_there_by_hand_is_checked_and_never_removed(
    what: str, there: bool, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered(server, tmp_path / "theirs", monkeypatch)
    ours = tmp_path / "ours"
    if there:
        trees.pets(ours)
    content, said = BAD_BY_HAND[what]
    (ours / "downloads").mkdir(parents=True)
    (ours / "downloads" / "images.tar.gz").write_bytes(content)
    result = command(ours, "fetch", "pets")
    assert result.exit_code == 6
    assert re.search(said, result.output)
    assert (ours / "downloads" / "images.tar.gz").read_bytes() == content


def test_a_good_archive_put_there_by_hand_is_unpacked_and_kept(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered(server, tmp_path / "theirs", monkeypatch)
    ours = tmp_path / "ours"
    (ours / "downloads").mkdir(parents=True)
    (ours / "downloads" / "images.tar.gz").write_bytes(Server.files["images.tar.gz"])
    assert command(ours, "fetch", "pets").exit_code == 0
    assert command(ours, "check", "pets", "--images").exit_code == 0
    assert [path.name for path in (ours / "downloads").iterdir()] == ["images.tar.gz"]  # the other was downloaded
    assert command(ours, "fetch", "pets").exit_code == 0
    assert [name for name, _ in Server.asked] == ["annotations.tar.gz"]


def test_an_archive_of_ours_that_another_replaced_is_not_removed(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = offered(server, tmp_path / "theirs", monkeypatch)
    ours = tmp_path / "ours"
    Server.cut_after["annotations.tar.gz"] = 10
    with pytest.raises(BackendUnreachable, match="cut off after 10"):
        fetch(card, ours, lambda *state: None)
    archive = ours / "downloads" / "images.tar.gz"
    archive.unlink()
    archive.write_bytes(Server.files["images.tar.gz"])
    fetch(card, ours, lambda *state: None)
    assert [path.name for path in (ours / "downloads").iterdir()] == ["images.tar.gz"]


def test_an_archive_without_a_known_sum_is_read_to_its_end(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = offered(server, tmp_path / "theirs", monkeypatch)
    card = replace(card, downloads=tuple(replace(download, md5=None) for download in card.downloads))
    monkeypatch.setitem(DATASETS, "pets", card)
    ours = tmp_path / "ours"
    (ours / "downloads").mkdir(parents=True)
    whole = Server.files["images.tar.gz"]
    (ours / "downloads" / "images.tar.gz").write_bytes(whole[:-3])
    result = command(ours, "fetch", "pets")
    assert (result.exit_code, "images.tar.gz is not unpacked: it is damaged: " in result.output) == (6, True)
    assert (ours / "downloads" / "images.tar.gz").exists()
    assert not (ours / "oxford-iiit-pet").exists()  # nothing of it, though most could be read
    (ours / "downloads" / "images.tar.gz").unlink()
    Server.files["images.tar.gz"] = whole[:-3]
    result = command(ours, "fetch", "pets")
    assert (result.exit_code, "it was removed: run the same command again" in result.output) == (6, True)
    Server.files["images.tar.gz"] = whole
    assert command(ours, "fetch", "pets").exit_code == 0
    assert list((ours / "downloads").iterdir()) == []


def test_unpacking_that_was_killed_begins_again(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = offered(server, tmp_path / "theirs", monkeypatch)
    ours = tmp_path / "ours"

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fetch_data, "move_into", killed)
        with pytest.raises(KeyboardInterrupt):
            fetch(card, ours, lambda *state: None)
    assert (ours / "downloads" / "images.tar.gz.unpacked").is_dir()
    fetch(card, ours, lambda *state: None)
    assert command(ours, "check", "pets", "--images").exit_code == 0
    assert list((ours / "downloads").iterdir()) == []
    assert len(Server.asked) == 2


IN_THE_WAY = {
    "a file where the folder of the set should be": "oxford-iiit-pet",
    "a file where a folder of the archive should be": "oxford-iiit-pet/images",
    "a file where the folder of downloads should be": "downloads",
    "a file where the archive is unpacked": "downloads/images.tar.gz.unpacked",
}


@pytest.mark.parametrize("what", IN_THE_WAY)
def test_a_file_in_the_way_is_one_line_and_stays(
    what: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered(server, tmp_path / "theirs", monkeypatch)
    path = tmp_path / "ours" / IN_THE_WAY[what]
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    result = command(tmp_path / "ours", "fetch", "pets")
    assert (result.exit_code, path.read_text()) == (7, "mine")
    assert re.search(r"cannot be unpacked into|cannot write to", result.output)


@pytest.mark.parametrize("name", ["images.tar.gz", "images.tar.gz.part"])
def test_a_pipe_among_the_downloads_blocks_nothing(
    name: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offered(server, tmp_path / "theirs", monkeypatch)
    (tmp_path / "ours" / "downloads").mkdir(parents=True)
    os.mkfifo(tmp_path / "ours" / "downloads" / name)
    result = command(tmp_path / "ours", "fetch", "pets")
    assert result.exit_code in (6, 7)
    assert re.search(r"is no file", result.output)


def test_two_processes_do_not_unpack_one_archive(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = offered(server, tmp_path / "theirs", monkeypatch)
    path = tmp_path / "ours" / "downloads" / "images.tar.gz"
    path.parent.mkdir(parents=True)
    path.write_bytes(Server.files["images.tar.gz"])
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BackendUnreachable, match=r"images.tar.gz: another process is unpacking it; wait for that"):
            fetch(card, tmp_path / "ours", lambda *state: None)


@pytest.mark.parametrize("name", ["birdsnap", "cars", "sun397", "imagenet", "cog-l1", "digits"])
def test_what_no_program_can_fetch_is_explained(name: str, tmp_path: Path) -> None:
    result = command(tmp_path, "fetch", name)
    assert result.exit_code == 4
    assert DATASETS[name].how_to_get in result.output


def test_addresses_and_sums_are_those_of_torchvision() -> None:
    from torchvision import datasets as theirs

    ours = {d.url: d.md5 for card in DATASETS.values() for d in card.downloads}
    flowers = theirs.Flowers102
    expected = {
        theirs.DTD._URL: theirs.DTD._MD5,
        theirs.Food101._URL: theirs.Food101._MD5,
        theirs.CIFAR10.url: theirs.CIFAR10.tgz_md5,
        theirs.CIFAR100.url: theirs.CIFAR100.tgz_md5,
        theirs.FGVCAircraft._URL: None,
        **dict(theirs.OxfordIIITPet._RESOURCES),
        **{flowers._download_url_prefix + name: md5 for name, md5 in flowers._file_dict.values()},
        theirs.inaturalist.DATASET_URLS["2018"]: theirs.inaturalist.DATASET_MD5["2018"],
        **{theirs.voc.DATASET_YEAR_DICT[year]["url"]: theirs.voc.DATASET_YEAR_DICT[year]["md5"]
           for year in ("2007", "2007-test")},
    }  # fmt: skip
    assert {url: ours[url] for url in expected} == expected
