"""Checkpoints, weights and outcomes on storage that fails, and under attempts that have been given up."""

from __future__ import annotations

import hashlib
import math
import os
import pickle
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from tasks.metrics import Measurement
from workers.checkpoint import Folder, clear, load_state, load_weights
from workers.errors import ErrorClass, TrialError
from workers.messages import Outcome, Report, Weights

ROW = Measurement("top1", 1.0, "0")


def folder(path: Path, token: int = 1) -> Folder:
    return Folder(path / "trial", "k" * 64, token)


def checkpoints(path: Path) -> list[Path]:
    return sorted((path / "trial").glob("checkpoint-*"))


@contextmanager
def no_room_beyond(size: int) -> Iterator[None]:
    """Files cannot grow beyond `size` bytes: the write fails half-way, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_state_comes_back_and_two_are_kept(tmp_path: Path) -> None:
    own = folder(tmp_path)
    for step in (4, 8, 12):
        own.save({"weight": torch.full((3,), float(step)), "plain": {"a": [1, 2.5, None], "b": "text"}}, step)
    assert [path.name[:20] for path in checkpoints(tmp_path)] == ["checkpoint-000000008", "checkpoint-000000012"]
    path, notes = own.newest()
    assert path is not None
    assert notes == []
    state = own.load(path)
    assert state["weight"].tolist() == [12, 12, 12]
    assert state["plain"] == {"a": [1, 2.5, None], "b": "text"}


@pytest.mark.parametrize("damage", ["truncated", "a bit"])
def test_a_damaged_newest_checkpoint_is_passed_over_and_said(tmp_path: Path, damage: str) -> None:
    own = folder(tmp_path)
    for step in (4, 8):
        own.save({"step": step}, step)
    newest = checkpoints(tmp_path)[-1]
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content if damage == "a bit" else content[:-100])
    path, notes = own.newest()
    assert path is not None
    assert own.load(path)["step"] == 4
    assert len(notes) == 1
    assert "checkpoint-000000008 is damaged" in notes[0]
    path.write_bytes(b"")
    assert own.newest()[0] is None


def test_a_checkpoint_of_another_trial_is_refused(tmp_path: Path) -> None:
    Folder(tmp_path / "trial", "another", 1).save({}, 4)
    path, _ = folder(tmp_path).newest()
    assert path is not None
    with pytest.raises(ValueError, match="belongs to trial another"):
        folder(tmp_path).load(path)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "harm"),)

    own = folder(tmp_path)
    own.save({"harm": Harm()}, 4)
    path, _ = own.newest()
    assert path is not None
    with pytest.raises(pickle.UnpicklingError):
        own.load(path)
    assert not (tmp_path / "harm").exists()


def test_code_in_the_state_of_another_trial_is_not_run(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "harm"),)

    own = folder(tmp_path)
    weights = own.save_weights({"w": torch.zeros(2)})
    own.keep_state({"harm": Harm()})
    with pytest.raises(pickle.UnpicklingError, match="mkdir"):
        load_state(weights, own.key)
    assert not (tmp_path / "harm").exists()
    own.keep_state({"step": 4})
    assert load_state(weights, own.key)["step"] == 4
    (state,) = own.path.glob("state-*")
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.write_bytes(content)
    with pytest.raises(TrialError, match=r"has SHA-256 .*: damaged; trial kkkkkkkk must run again"):
        load_state(weights, own.key)


def test_an_older_attempt_can_write_no_more(tmp_path: Path) -> None:
    old, new = folder(tmp_path, 1), folder(tmp_path, 2)
    old.claim()
    old.save({"by": "old"}, 4)
    new.claim()
    before = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    for write in (
        lambda: old.save({"by": "old"}, 8),
        lambda: old.save_weights({"w": torch.zeros(2)}),
        lambda: old.keep_state({"by": "old"}),
        lambda: old.save_picture("maps", 1, np.zeros((2, 2, 3), np.uint8)),
        lambda: old.save_measurements([ROW], "val"),
        lambda: old.finish(Outcome({}, {}), []),
        old.claim,
    ):
        with pytest.raises(TrialError, match="attempt 1 was given up: attempt 2") as caught:
            write()
        assert caught.value.error_class is ErrorClass.node_lost
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == before
    new.save({"by": "new"}, 8)
    path, _ = new.newest()
    assert path is not None
    assert new.load(path)["by"] == "new"


WRITES: dict[str, tuple[Callable[[Folder], object], str]] = {
    "claim": (Folder.claim, "token"),
    "save": (lambda own: own.save({"step": 4}, 4), "checkpoint-000000004-{sha256}.pt"),
    "save_weights": (lambda own: own.save_weights({"w": torch.zeros(2)}), "weights.safetensors"),
    "keep_state": (lambda own: own.keep_state({"step": 4}), "state-{sha256}.pt"),
    "save_picture": (lambda own: own.save_picture("maps", 1, np.zeros((2, 2, 3), np.uint8)), "pictures/maps-0001.png"),
    "save_measurements": (lambda own: own.save_measurements([ROW], "val"), "measurements.jsonl"),
    "finish": (lambda own: own.finish(Outcome({}, {}), []), "outcome.json"),
}
"""What writes a file -> how, and the file's name in the trial's folder."""


@pytest.mark.parametrize("write", WRITES)
def test_content_is_on_the_disk_before_the_name_and_the_name_before_anything_else(
    write: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut then leaves the old file or the whole new one, and after the call the new one."""
    events: list[tuple[str, str]] = []
    fsync, replace = os.fsync, Path.replace

    def record_fsync(descriptor: int) -> None:
        events.append(("flushed", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def record_replace(path: Path, target: Path) -> Path:
        events.append(("renamed", f"{path} {target}"))
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_replace)
    do, name = WRITES[write]
    do(folder(tmp_path))
    assert [what for what, _ in events] == ["flushed", "renamed", "flushed"]
    temporary, target = events[1][1].split(" ")
    assert temporary.endswith(".tmp")
    digest = hashlib.sha256(Path(target).read_bytes()).hexdigest()
    assert target == str(tmp_path / "trial" / name.replace("{sha256}", digest))
    assert events[0][1] == temporary
    assert events[2][1] == str(Path(target).parent)


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", ".x", "..", "", "x y", "x\0", "x\n", "ü"])
def test_a_picture_stays_in_the_trials_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"the task must name it with letters, digits and _.- only"):
        folder(tmp_path).save_picture(name, 1, np.zeros((2, 2, 3), np.uint8))
    assert list(tmp_path.rglob("*")) == []


def test_a_full_disk_is_a_clear_error_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    own = folder(tmp_path)
    own.save({"step": 4}, 4)
    before = {path: path.read_bytes() for path in (tmp_path / "trial").iterdir()}
    large = {"large": torch.zeros(100_000)}
    with no_room_beyond(50_000):
        for write in (lambda: own.save(large, 8), lambda: own.save_weights(large)):
            with pytest.raises(TrialError, match=r"cannot write .*: File too large .*free.*then `retry`") as caught:
                write()
            assert caught.value.error_class is ErrorClass.data
    assert {path: path.read_bytes() for path in (tmp_path / "trial").iterdir()} == before


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "trial").write_text("a file where the folder should be")
    with pytest.raises(TrialError, match="cannot write token in") as caught:
        folder(tmp_path).claim()
    assert caught.value.error_class is ErrorClass.data


def test_weights_come_back_and_another_digest_is_refused(tmp_path: Path) -> None:
    tied = torch.randn(3, 2)
    weights = folder(tmp_path).save_weights({"a": tied, "b": tied, "c": tied.t()})
    assert hashlib.sha256(Path(weights.path).read_bytes()).hexdigest() == weights.sha256
    found = load_weights(weights)
    assert torch.equal(found["a"], tied)
    assert torch.equal(found["b"], tied)
    assert torch.equal(found["c"], tied.t())
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(Path(weights.path).read_bytes()[:-4])
    for wrong, words in (
        (Weights(weights.path, "0" * 64), "another or a damaged file"),
        (Weights(str(tmp_path / "none"), weights.sha256), "there is no file"),
        (Weights(str(cut), hashlib.sha256(cut.read_bytes()).hexdigest()), "cut.safetensors is damaged or cut short"),
    ):
        with pytest.raises(TrialError, match=words) as caught:
            load_weights(wrong)
        assert caught.value.error_class is ErrorClass.data


def test_an_outcome_stays_until_it_is_recorded(tmp_path: Path) -> None:
    own = folder(tmp_path)
    own.claim()
    own.save({}, 4)
    assert own.finished(with_weights=False) is None
    outcome = Outcome({"top1": math.inf, "loss": math.nan}, {"notes": ["a"]})
    reports = [Report(1, 4, {"top1": 0.5}, 1.0)]
    own.finish(outcome, reports)
    assert checkpoints(tmp_path) == []
    again = own.finished(with_weights=False)
    assert again is not None
    assert again[0].figures["top1"] == math.inf
    assert math.isnan(again[0].figures["loss"])
    assert again[1] == reports
    assert own.finished(with_weights=True) is None
    assert Folder(own.path, "another", 1).finished(with_weights=False) is None
    clear(own.path)
    assert [path.name for path in own.path.iterdir()] == ["token"]


def test_an_outcome_with_weights_needs_them_whole(tmp_path: Path) -> None:
    own = folder(tmp_path)
    weights = own.save_weights({"a": torch.zeros(3)})
    own.finish(Outcome({"top1": 1.0}, {}, weights), [])
    again = own.finished(with_weights=True)
    assert again is not None
    assert again[0].weights == weights
    Path(weights.path).write_bytes(b"damaged")
    assert own.finished(with_weights=True) is None


def test_of_a_recorded_trial_only_what_is_used_again_stays(tmp_path: Path) -> None:
    left = ("outcome.json", "checkpoint-000000004-a.pt", "evaluation-1-0.jsonl", "damaged-x", "a.tmp", "pictures/a.tmp")
    kept = ("log", "measurements.jsonl", "pictures/a.png", "state-a.pt", "token", "weights.safetensors")
    (tmp_path / "pictures").mkdir()
    for name in (*left, *kept):
        (tmp_path / name).write_text("1")
    clear(tmp_path)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == list(kept)


def test_an_attempt_begins_without_the_half_written_files_of_the_last(tmp_path: Path) -> None:
    own = folder(tmp_path)
    (own.path / "pictures").mkdir(parents=True)
    for name in ("weights-1.tmp", "pictures/maps-1.tmp", "pictures/maps-0001.png"):
        (own.path / name).write_text("1")
    own.claim()
    assert {path.name for path in own.path.rglob("*")} == {"pictures", "maps-0001.png", "token"}
    assert (own.path / "token").read_text() == "1"


def test_a_damaged_checkpoint_is_put_aside_until_the_end(tmp_path: Path) -> None:
    """It is said once, counts as no checkpoint, and goes with the others."""
    own = folder(tmp_path)
    for step in (4, 8):
        own.save({"step": step}, step)
    name = checkpoints(tmp_path)[-1].name
    (own.path / name).write_bytes(b"cut")
    assert own.newest()[1] == ["checkpoint-000000008 is damaged (3 bytes): an older state was used"]
    assert (own.path / f"damaged-{name}").read_bytes() == b"cut"
    assert own.newest()[1] == []
    own.finish(Outcome({}, {}), [])
    assert [path.name for path in own.path.iterdir()] == ["outcome.json"]


def test_the_newest_final_state_replaces_earlier_ones_and_an_outcome_may_need_it(tmp_path: Path) -> None:
    own = folder(tmp_path)
    weights = own.save_weights({"w": torch.zeros(2)}, {"family": "tiny"})
    with pytest.raises(TrialError, match=r"trial kkkkkkkk has no state-\*.pt in .*trial to continue from") as caught:
        load_state(weights, own.key)
    assert caught.value.error_class is ErrorClass.data
    own.finish(Outcome({}, {}, weights), [])
    assert own.finished(with_weights=True) is not None
    assert own.finished(with_weights=True, with_state=True) is None
    for step in (4, 8):
        own.keep_state({"step": step})
    (state,) = own.path.glob("state-*")
    assert state.name == f"state-{hashlib.sha256(state.read_bytes()).hexdigest()}.pt"
    assert load_state(weights, own.key)["step"] == 8
    assert own.finished(with_weights=True, with_state=True) is not None
    with pytest.raises(TrialError, match="trial another has no state"):
        load_state(weights, "another")


def test_weights_carry_their_metadata(tmp_path: Path) -> None:
    from safetensors import safe_open

    weights = folder(tmp_path).save_weights({"w": torch.zeros(2)}, {"family": "tiny"})
    with safe_open(weights.path, "pt") as file:
        assert file.metadata() == {"family": "tiny"}


def test_weights_of_another_format_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save({"w": torch.zeros(2)}, file)
    with pytest.raises(TrialError, match=r"weights.pt is not a .safetensors file; convert it once") as caught:
        load_weights(Weights(str(file), hashlib.sha256(file.read_bytes()).hexdigest()))
    assert caught.value.error_class is ErrorClass.data


def test_a_kill_can_be_asked_for_on_either_side_of_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, seen = folder(tmp_path), list[tuple[str, str, int]]()

    def record(name: str, at: str) -> None:
        seen.append((name, at, len(list(own.path.glob("*.pt")))))

    monkeypatch.setattr("workers.checkpoint.fault_point", record)
    own.save({}, 4)
    at = f"{own.key} 4"
    assert seen == [("before_checkpoint_commit", at, 0), ("after_checkpoint_commit", at, 1)]
