"""Downloads of data sets: resumed, checked, unpacked once; from a server on this machine."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from data_commands import command, trees
from file_server import Server

from orchestrator.assets.fetch_data import fetch
from orchestrator.errors import BackendUnreachable
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
    with pytest.raises(BackendUnreachable, match="outside the destination"):
        fetch(card, tmp_path / "ours", lambda *state: None)
    assert not (tmp_path / "outside").exists()


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
