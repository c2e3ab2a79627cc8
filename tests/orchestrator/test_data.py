"""The commands about data sets: what they find wrong, what they fetch, what they write; and what enters the keys."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import sys
import tarfile
import threading
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from click.testing import CliRunner, Result

sys.path.append(str(Path(__file__).parents[1] / "tasks"))
import trees

from orchestrator import spec
from orchestrator.data import data
from orchestrator.errors import BackendUnreachable, Conflict, NotFound, OrchestratorError
from orchestrator.fetch import fetch
from orchestrator.job import JobSpec, job_id
from orchestrator.manifests import check_unchanged, with_manifests
from orchestrator.plan import Planner
from orchestrator.settings import Settings, settings
from orchestrator.speed import Speed
from tasks.datasets import CARDS, Card
from tasks.datasets.cards import Download


def command(root: Path, *arguments: object) -> Result:
    """`data ARGUMENTS` with this data root; an error that a user is meant to read has its exit code."""
    places = [] if arguments[0] == "convert" else ["--data-root", root, "--runs", root / "runs"]
    if arguments[0] == "convert":
        arguments = (*arguments[:2], "--data-root", root, *arguments[2:])
    result = CliRunner().invoke(data, [str(part) for part in (*arguments, *places)])
    if isinstance(result.exception, OrchestratorError):
        result.exit_code = result.exception.exit_code
        result.output_bytes += str(result.exception).encode()
    elif result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def problems(result: Result, name: str) -> list[str]:
    return [line for line in result.stdout.splitlines() if line.startswith(f"{name}: ")]


# data ls, data check


def test_ls_knows_every_set_and_which_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.plant("pets", tmp_path, monkeypatch)
    rows = json.loads(command(tmp_path, "ls", "-o", "json").stdout)
    assert {row["name"] for row in rows} == set(CARDS)
    there = {row["name"] for row in rows if row["there"]}
    assert there == {"pets", *(card.name for card in CARDS.values() if card.source != "folder")}
    table = command(tmp_path, "ls").stdout.splitlines()
    assert len(table) == len(CARDS) + 1
    one = command(tmp_path, "ls", "voc2007").stdout
    for said in ("map11", "2501", "Flickr", "marked difficult", "VOCtest_06-Nov-2007.tar"):
        assert said in one
    assert command(tmp_path, "ls", "pet").exit_code == 4


@pytest.mark.parametrize("name", [*trees.TREES, "faces", "textures"])
def test_a_whole_data_set_has_no_fault(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in trees.TREES:
        trees.plant(name, tmp_path, monkeypatch)
    result = command(tmp_path, "check", name, "--images")
    assert result.exit_code == 0, result.output
    assert problems(result, name) == [f"{name}: as it should be"]


def damaged(name: str, what: str, root: Path) -> None:
    pets = root / "oxford-iiit-pet"
    if what == "no lists":
        (pets / "annotations" / "trainval.txt").unlink()
    elif what == "half":
        for i in range(1, 4):
            (pets / "images" / f"Abyssinian_{i}.jpg").unlink()
        (pets / "images" / "Abyssinian_4.jpg").write_bytes(b"")
    elif what == "damaged list":
        (pets / "annotations" / "test.txt").write_text("Abyssinian_6\n")
    elif what == "short list":
        lines = (pets / "annotations" / "test.txt").read_text().splitlines(keepends=True)
        (pets / "annotations" / "test.txt").write_text("".join(lines[:5]))
    elif what == "listed twice":
        path = pets / "annotations" / "trainval.txt"
        path.write_text(path.read_text().replace("Abyssinian_2 ", "Abyssinian_1 "))
    elif what == "damaged image":
        path = pets / "images" / "Abyssinian_7.jpg"
        path.write_bytes(path.read_bytes()[:300])
    elif what == "wrong class":
        path = pets / "annotations" / "test.txt"
        path.write_text(path.read_text().replace("Abyssinian_6 1", "Abyssinian_6 9"))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("no lists", ["oxford-iiit-pet/annotations/trainval.txt is not there"]),
        (
            "half",
            ["4 of 20 images that the lists name are not there or empty: oxford-iiit-pet/images/Abyssinian_1.jpg"],
        ),
        ("damaged list", ["cannot be read: IndexError"]),
        ("short list", ["5 images in test, expected 10", "1 of 2 classes have no image in test: 1"]),
        ("listed twice", ["1 images are listed twice: oxford-iiit-pet/images/Abyssinian_1.jpg"]),
        ("damaged image", ["1 of 20 images cannot be read: oxford-iiit-pet/images/Abyssinian_7.jpg ("]),
        ("wrong class", ["test has labels beyond the 2 classes: [8]"]),
    ],
)
def test_every_fault_is_one_line(what: str, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.plant("pets", tmp_path, monkeypatch)
    damaged("pets", what, tmp_path)
    result = command(tmp_path, "check", "pets", "--images")
    assert result.exit_code == (4 if what == "no lists" else 1)
    lines = problems(result, "pets")
    assert all(any(text in line for line in lines) for text in said), lines
    assert len(lines) == len(said)
    if what == "no lists":
        assert "annotations.tar.gz" in result.stderr


def test_birdsnap_says_how_many_are_present(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.plant("birdsnap", tmp_path, monkeypatch)
    (tmp_path / "birdsnap" / "images" / "Bird_1" / "1_0.jpg").unlink()
    (tmp_path / "birdsnap" / "images" / "Bird_2" / "2_7.jpg").unlink()
    result = command(tmp_path, "check", "birdsnap")
    assert result.exit_code == 1
    assert problems(result, "birdsnap") == [
        "birdsnap: 11 images in trainval, expected 12", "birdsnap: 3 images in test, expected 4",
    ]  # fmt: skip
    assert "images   14 of 16 expected, 2 classes" in result.stdout
    assert "cannot be compared" in result.stdout


def test_check_counts_classes_and_gives_the_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.plant("cog-l2", tmp_path, monkeypatch)
    written = command(tmp_path, "split", "cog-l2").stdout.splitlines()
    found = json.loads(command(tmp_path, "check", "cog-l2", "-o", "json").stdout)
    assert found["balance"] == {"train + val": [10, 12], "test": [4, 4]}
    assert found["counts"] == {"train": 18, "val": 4, "test": 8}
    assert [found["manifest"], found["digest"]] == written


# data split


def test_split_writes_a_manifest_that_check_holds_against_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees.plant("caltech101", tmp_path, monkeypatch)
    result = command(tmp_path, "split", "caltech101", "--val-fraction", "0.1", "--split-seed", "3", "--no-background")
    path, digest = result.stdout.splitlines()
    assert Path(path) == tmp_path / "splits" / "caltech101-0.1-3-no-background.jsonl"
    header, *entries = map(json.loads, Path(path).read_text().splitlines())
    assert (header["sha256"], header["counts"]) == (digest, {"train": 54, "val": 6, "test": 4})
    assert len(entries) == 64
    assert not any("BACKGROUND" in entry["file"] for entry in entries)
    same = ("--val-fraction", "0.1", "--split-seed", "3", "--no-background")
    assert command(tmp_path, "check", "caltech101", *same).exit_code == 0
    (tmp_path / "caltech101" / "101_ObjectCategories" / "accordion" / "image_0033.jpg").unlink()
    result = command(tmp_path, "check", "caltech101", *same)
    assert any(line.startswith(f"caltech101: {path} was written for other data: SHA-256 {digest}")
               for line in result.stdout.splitlines())  # fmt: skip
    assert command(tmp_path, "split", "pets", "--no-background").exit_code == 2
    assert command(tmp_path, "split", "pets").exit_code == 4


# data fetch


class Server(BaseHTTPRequestHandler):
    """Files from memory, from any byte on; can cut an answer short, once."""

    files: ClassVar[dict[str, bytes]] = {}
    cut_after: ClassVar[dict[str, int]] = {}
    asked: ClassVar[list[tuple[str, str | None]]] = []
    ranges = True

    def do_GET(self) -> None:
        name, wanted = self.path.lstrip("/"), self.headers.get("Range")
        self.asked.append((name, wanted))
        if name not in self.files:
            self.send_error(404)
            return
        content, first = self.files[name], 0
        if wanted and self.ranges:
            first = int(wanted.removeprefix("bytes=").rstrip("-"))
            if first >= len(content):
                self.send_error(416)
                return
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        self.wfile.write(content[first : self.cut_after.pop(name, len(content))])

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name, empty in (("files", {}), ("cut_after", {}), ("asked", []), ("ranges", True)):
        monkeypatch.setattr(Server, name, empty)
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def packed(folder: Path, *names: str) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name in names:
            archive.add(folder / name, name)
    return content.getvalue()


def offered(server: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Card:
    """Pets, as two archives on the server."""
    card = trees.plant("pets", folder, monkeypatch)
    downloads = []
    for name in ("images", "annotations"):
        content = packed(folder / "oxford-iiit-pet", name)
        Server.files[f"{name}.tar.gz"] = content
        md5 = hashlib.md5(content).hexdigest()
        downloads.append(Download(f"{server}/{name}.tar.gz", md5, "oxford-iiit-pet"))
    card = replace(card, downloads=tuple(downloads))
    monkeypatch.setitem(CARDS, "pets", card)
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


def test_a_download_that_was_cut_off_goes_on_from_there(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = offered(server, tmp_path / "theirs", monkeypatch)
    ours, seen = tmp_path / "ours", []
    Server.cut_after["images.tar.gz"] = 1000
    with pytest.raises(BackendUnreachable, match=r"cut off after 1,000 of .* bytes; the same command again goes on"):
        fetch(card, ours, lambda *said: None)
    assert (ours / "downloads" / "images.tar.gz.part").stat().st_size == 1000
    fetch(card, ours, lambda name, done, total: seen.append((name, done, total)))
    assert Server.asked[:2] == [("images.tar.gz", None), ("images.tar.gz", "bytes=1000-")]
    whole = len(Server.files["images.tar.gz"])
    assert seen[0] == ("images.tar.gz", whole, whole)
    assert command(ours, "check", "pets", "--images").exit_code == 0


def test_a_server_without_ranges_begins_anew(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = offered(server, tmp_path / "theirs", monkeypatch)
    Server.ranges, ours = False, tmp_path / "ours"
    (ours / "downloads").mkdir(parents=True)
    (ours / "downloads" / "images.tar.gz.part").write_bytes(b"the beginning of something else")
    fetch(card, ours, lambda *said: None)
    assert command(ours, "check", "pets", "--images").exit_code == 0


def test_what_came_whole_is_not_fetched_again(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = offered(server, tmp_path / "theirs", monkeypatch)
    ours = tmp_path / "ours"
    (ours / "downloads").mkdir(parents=True)
    (ours / "downloads" / "images.tar.gz.part").write_bytes(Server.files["images.tar.gz"])
    (ours / "downloads" / "annotations.tar.gz").write_bytes(Server.files["annotations.tar.gz"])
    fetch(card, ours, lambda *said: None, keep=True)
    assert [name for name, _ in Server.asked] == ["images.tar.gz"]
    assert sorted(path.name for path in (ours / "downloads").iterdir()) == ["annotations.tar.gz", "images.tar.gz"]


def test_another_content_is_not_kept(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = offered(server, tmp_path / "theirs", monkeypatch)
    Server.files["images.tar.gz"] += b"more"
    with pytest.raises(BackendUnreachable, match=r"images.tar.gz: what came has MD5 \w+, not \w+; it was removed"):
        fetch(card, tmp_path / "ours", lambda *said: None)
    assert list((tmp_path / "ours" / "downloads").iterdir()) == []
    del Server.files["images.tar.gz"]
    with pytest.raises(BackendUnreachable, match=r"images.tar.gz: 404 .* get the file by other means into the folder"):
        fetch(card, tmp_path / "ours", lambda *said: None)


def test_an_archive_inside_an_archive_is_unpacked(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Caltech-101 comes so."""
    card = trees.plant("caltech101", tmp_path / "theirs", monkeypatch)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        inner = packed(tmp_path / "theirs" / "caltech101", "101_ObjectCategories")
        archive.writestr("caltech-101/101_ObjectCategories.tar.gz", inner)
        archive.writestr("__MACOSX/caltech-101/._101_ObjectCategories.tar.gz", b"of no use")
    Server.files["caltech-101.zip"] = content.getvalue()
    md5 = hashlib.md5(content.getvalue()).hexdigest()
    card = replace(card, downloads=(Download(f"{server}/caltech-101.zip", md5, "caltech101"),))
    fetch(card, tmp_path / "ours", lambda *said: None)
    assert command(tmp_path / "ours", "check", "caltech101", "--images").exit_code == 0


def test_nothing_is_unpacked_outside_its_folder(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../../outside"), io.BytesIO())
    Server.files["bad.tar.gz"] = content.getvalue()
    card = replace(CARDS["dtd"], downloads=(Download(f"{server}/bad.tar.gz", None, "dtd"),))
    with pytest.raises(BackendUnreachable, match="outside the destination"):
        fetch(card, tmp_path / "ours", lambda *said: None)
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("name", ["birdsnap", "cars", "sun397", "imagenet", "cog-l1", "digits"])
def test_what_no_program_can_fetch_is_explained(name: str, tmp_path: Path) -> None:
    result = command(tmp_path, "fetch", name)
    assert result.exit_code == 4
    assert CARDS[name].how_to_get in result.output


def test_addresses_and_sums_are_those_of_torchvision() -> None:
    from torchvision import datasets as theirs

    ours = {d.url: d.md5 for card in CARDS.values() for d in card.downloads}
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


# data convert cog


def cog_pickles(folder: Path, split: dict[str, Any] | None = None, levels: Any = None) -> list[Path]:
    """The two files in the form of the published ones: levels as five lists, per concept arrays of file names."""
    folder.mkdir(exist_ok=True)
    concepts = [[f"n{level}{c}000000" for c in range(2, 0, -1)] for level in range(1, 6)]
    named = {
        wnid: {
            "train": np.array([f"/{wnid}/{wnid}_{i}.JPEG" for i in (11, 2, 3)], dtype=object if c % 2 else None),
            "test": np.array([f"/{wnid}/{wnid}_4.JPEG"]),
        }
        for c, wnid in enumerate(name for level in concepts for name in level)
    }
    paths = [folder / "cog_levels_mapping_file.pkl", folder / "cog_concepts_split_file.pkl"]
    paths[0].write_bytes(pickle.dumps(levels or concepts, protocol=4))
    paths[1].write_bytes(pickle.dumps(split or named, protocol=4))
    return paths


def test_the_pickles_of_cog_become_lists(tmp_path: Path) -> None:
    files = cog_pickles(tmp_path / "theirs")
    result = command(tmp_path, "convert", "cog", "--any-count", *files[::-1])
    assert result.exit_code == 0, result.output
    assert result.stdout.split() == [str(tmp_path / "cog" / f"l{n}.json") for n in range(1, 6)]
    level = json.loads((tmp_path / "cog" / "l3.json").read_text())
    assert list(level) == ["n31000000", "n32000000"]
    assert level["n31000000"] == {
        "train": [f"n31000000/n31000000_{i}.JPEG" for i in (11, 2, 3)], "test": ["n31000000/n31000000_4.JPEG"],
    }  # fmt: skip


@pytest.mark.parametrize("protocol", [0, 2, 3, 4])
def test_pickles_of_every_age_are_read_alike(protocol: int, tmp_path: Path) -> None:
    from tasks.datasets.cog import read

    content = {
        "names": np.array(["n01/a.JPEG", "n02/bc.JPEG"]), "objects": np.array(["ü", "b"], dtype=object),
        "bytes": np.array([b"x", b"yz"]), "ordered": OrderedDict(a=1), "grouped": defaultdict(list, b=[2.5]),
        "tuple": (1, None, True), "one": np.array(["abc"])[0],
    }  # fmt: skip
    path = tmp_path / "x.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    assert read(path) == {
        "names": ["n01/a.JPEG", "n02/bc.JPEG"], "objects": ["ü", "b"], "bytes": ["x", "yz"], "ordered": {"a": 1},
        "grouped": {"b": [2.5]}, "tuple": [1, None, True], "one": "abc",
    }  # fmt: skip


class Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


def test_a_pickle_that_runs_code_is_refused_and_nothing_of_it_run(tmp_path: Path) -> None:
    files = cog_pickles(tmp_path / "theirs")
    files[0].write_bytes(pickle.dumps([Evil(tmp_path / "touched"), ["n01000000"]]))
    result = command(tmp_path, "convert", "cog", *files)
    assert result.exit_code == 4
    assert "was not read, and nothing of it was run: it asks for " in result.output
    assert not (tmp_path / "touched").exists()
    assert not (tmp_path / "cog").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": [["n11000000"]]}, "holds lists of concepts of five levels"),
        ({"split": {"n11000000": ["a.JPEG"]}}, "holds lists of train and test files"),
        ({"split": {"n11000000": {"train": ["n11000000/a.JPEG"], "test": []}}}, "concept n12000000 is in a level but"),
        ({"levels": [["n11000000"]] * 5}, "a concept is in two levels"),
        ({"split": {f"n{level}{c}000000": {"train": ["../../etc/passwd"], "test": []}
                    for level in range(1, 6) for c in (1, 2)}}, "is no image below the folder of a concept"),
        ({"split": {f"n{level}{c}000000": {"train": ["a.JPEG"], "test": ["a.JPEG"]}
                    for level in range(1, 6) for c in (1, 2)}}, "a file is named twice"),
        ({}, "3 images to train on and 1 to test on, expected 732 to 1300 and 50"),
    ],
)  # fmt: skip
def test_files_that_are_not_cogs_are_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    files = cog_pickles(tmp_path / "theirs", **change)
    result = command(tmp_path, "convert", "cog", *files)
    assert (result.exit_code, message in result.output) == (4, True), result.output
    assert not (tmp_path / "cog").exists()
    (tmp_path / "theirs" / "half.pkl").write_bytes(files[1].read_bytes()[:-20])
    assert "is no pickle, or is cut short" in command(tmp_path, "convert", "cog", tmp_path / "theirs/half.pkl").output


# What enters the keys

SPEC = """
name: cuts
trial:
  task: {kind: classify, augment: {mixup: 0, cutmix: 0}, split_seed: 2}
  backbone: {model: vit_tiny_patch16_224, image_size: 16}
  optim: {batch: 2, epochs: 2, warmup_epochs: 1, layer_decay: 1}
stages:
  - name: grid
    per: [task.dataset]
    sweep: {grid: {task.dataset: [pets, dtd, faces], optim.lr: [1e-3, 2e-3]}}
  - name: final
    from: grid
    override: {task.train: trainval, task.evaluate: test}
  - name: masked
    override:
      task: {kind: pretrain, dataset: pets, mask_patch: 4}
      optim.lr: 1e-3
  - name: other
    override: {task: {kind: classify, dataset: pets, val_fraction: 0.4}, optim.lr: 1e-3}
"""


@pytest.fixture
def job(tmp_path: Path) -> JobSpec:
    (tmp_path / "cuts.yaml").write_text(SPEC)
    return spec.load(tmp_path / "cuts.yaml", None, ())


def where(tmp_path: Path) -> Settings:
    return settings(folder=tmp_path / "runs", data_root=tmp_path)


def planned(job: JobSpec) -> dict[tuple[str, str, float], dict[str, str]]:
    placed = Planner(job, Speed()).placed
    return {(p.stage, p.spec.task.dataset, p.spec.optim.lr): p.spec.task.manifests for p in placed}  # type: ignore[union-attr]


def test_trials_name_the_digests_of_the_data_that_are_there(
    job: JobSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {p.key for p in Planner(job, Speed()).placed}
    trees.plant("pets", tmp_path, monkeypatch)
    told = with_manifests(job, where(tmp_path))
    trials = planned(told)
    assert list(trials["grid", "pets", 1e-3]) == list(trials["grid", "pets", 2e-3]) == ["pets/0.2/2"]
    assert list(trials["other", "pets", 1e-3]) == ["pets/0.4/0"]
    assert list(trials["masked", "pets", 1e-3]) == ["pets/0.02/0"]
    assert trials["grid", "dtd", 1e-3] == {}
    assert trials["grid", "faces", 1e-3] == {"faces/official": CARDS["faces"].digest}
    assert {path.name for path in (tmp_path / "splits").iterdir()} >= {"pets-0.2-2.jsonl"}
    keys = {p.key for p in Planner(told, Speed()).placed}
    assert len(keys & before) == 2  # those of dtd, which is not there
    again = with_manifests(job, where(tmp_path))
    assert {p.key for p in Planner(again, Speed()).placed} == keys
    (tmp_path / "splits" / "pets-0.2-2.jsonl").unlink()
    (tmp_path / "oxford-iiit-pet" / "annotations" / "test.txt").write_text("x\n")
    with pytest.raises(NotFound, match="pets: lists under"):
        with_manifests(job, where(tmp_path))


def test_the_jobs_id_does_not_depend_on_data(job: JobSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identity = job_id(job)
    trees.plant("pets", tmp_path, monkeypatch)
    with_manifests(job, where(tmp_path))
    assert job_id(job) == identity


def test_winners_keep_the_digest_of_their_own_data(
    job: JobSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a later stage takes another data set than the winner's."""
    from orchestrator.trials import successors

    trees.plant("pets", tmp_path, monkeypatch)
    trees.plant("dtd", tmp_path, monkeypatch)
    told = with_manifests(job, where(tmp_path))
    winner = next(p.spec for p in Planner(told, Speed()).placed if p.group_values["task.dataset"] == "pets")
    stage = told.stages[1].model_copy(update={"override": {**told.stages[1].override, "task.dataset": "dtd"}})
    (moved,) = successors(winner, stage, may_test=True)
    assert list(moved.task.manifests) == ["dtd/official"]  # type: ignore[union-attr]


def test_a_job_does_not_go_on_with_other_data(job: JobSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import closing

    from orchestrator.launch import put
    from orchestrator.schedule import _placement
    from orchestrator.store import open_store

    trees.plant("pets", tmp_path, monkeypatch)
    there = where(tmp_path)
    there.folder.mkdir()
    with closing(open_store(there.database_url)) as store:
        told, identity = with_manifests(job, there), job_id(job)
        put(store, job, identity)
        store.place(identity, [_placement(trial) for trial in Planner(told, Speed()).placed])
        check_unchanged(store, identity, told)
        rows = (tmp_path / "oxford-iiit-pet" / "annotations" / "test.txt").read_text().splitlines()
        (tmp_path / "oxford-iiit-pet" / "annotations" / "test.txt").write_text("\n".join(rows[1:]) + "\n")
        check_unchanged(store, identity, with_manifests(job, there))  # the written manifest counts
        assert command(tmp_path, "split", "pets", "--split-seed", "2").exit_code == 0
        with pytest.raises(Conflict, match=r"ran on other data: the split pets/0.2/2 had SHA-256 \w+, what is here"):
            check_unchanged(store, identity, with_manifests(job, there))
