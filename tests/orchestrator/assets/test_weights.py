"""weights import, show, fetch: training loads what they write; a refused file leaves nothing behind."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from published_checkpoints import (
    BEIT,
    OWN,
    REPLKNET,
    SHARED,
    SWIN,
    VIT,
    beit,
    moco,
    official_swin,
    replknet,
    simmim,
    swin,
    swinv2,
    vit,
)
from safetensors.torch import load_file, save_file
from torch import nn

from orchestrator.cli.weights import weights
from orchestrator.errors import BackendUnreachable, BadInput, Conflict, NotFound, OrchestratorError
from tasks.backbones.loading import load
from tasks.backbones.model import build
from tasks.backbones.spec import BackboneSpec, FromFile
from tasks.backbones.swin_windows import check_same_windows
from workers.initial_weights import initial_weights

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def call(*arguments: str | Path) -> Result:
    """The result of a command that must succeed."""
    result = CliRunner().invoke(weights, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def refused(error: type[OrchestratorError], *arguments: str | Path) -> str:
    with pytest.raises(error) as caught:
        CliRunner().invoke(weights, [str(argument) for argument in arguments], catch_exceptions=False)
    return str(caught.value)


CASES: dict[str, tuple[Callable[[], Any], Callable[[], nn.Module], str, dict[str, Any]]] = {
    "SimMIM SwinV2": (
        lambda: simmim(official_swin(swinv2()), 128), swinv2, "swinv2_base_window12_192", SWIN,
    ),
    "SimMIM Swin": (lambda: simmim(official_swin(swin()), 128), swin, "swin_base_patch4_window7_224", SWIN),
    "SimMIM ViT": (
        lambda: simmim(dict(beit(**SHARED).state_dict()), 16, 16), lambda: beit(**SHARED),
        "beit_base_patch16_224", {**BEIT, **SHARED},
    ),
    "SimMIM ViT for fine-tuning": (
        lambda: simmim(dict(beit(**SHARED).state_dict()), 16, 16), lambda: beit(**SHARED),
        "beit_base_patch16_224", {**BEIT, **OWN, "global_pool": "token"},
    ),
    "SwinV2 supervised": (
        lambda: {"model": official_swin(swinv2()), "max_accuracy": 84.2}, swinv2, "swinv2_base_window12_192", SWIN,
    ),
    "Swin supervised": (lambda: {"model": official_swin(swin())}, swin, "swin_base_patch4_window7_224", SWIN),
    "MoCo v3": (lambda: moco(dict(vit().state_dict())), vit, "vit_base_patch16_224", VIT),
    "DeiT": (lambda: {"model": dict(vit().state_dict())}, vit, "vit_base_patch16_224", VIT),
    "RepLKNet": (lambda: dict(replknet().state_dict()), replknet, "replknet_31b", REPLKNET),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_imported_checkpoint_gives_the_outputs_of_its_model(case: str, tmp_path: Path) -> None:
    made, source, name, args = CASES[case]
    torch.save(made(), tmp_path / "published.pth.tar")
    printed = call(
        "import", tmp_path / "published.pth.tar", "--data-root", tmp_path, "--model", name,
        "--args", json.dumps(args), "--image-size", "64", "--name", "SUP",
    ).stdout  # fmt: skip
    lines = yaml.safe_load(printed)["backbone"]
    backbone = BackboneSpec(**lines)
    assert isinstance(backbone.init, FromFile)
    assert backbone.init.path == "weights/published.safetensors"
    assert backbone.init.missing(tmp_path) is None
    initial = initial_weights(backbone.init, tmp_path, {})
    assert initial is not None
    child = build(backbone, 5).eval()
    load(child, initial.tensors)
    check_same_windows(child, initial.windows)
    with torch.no_grad():
        torch.testing.assert_close(child.forward_features(IMAGES), source().forward_features(IMAGES))


def imported(tmp_path: Path, **other: str) -> Path:
    torch.save(simmim(official_swin(swinv2()), 128), tmp_path / "simmim.pth")
    flags = [text for name, value in other.items() for text in (f"--{name}", value)]
    call("import", tmp_path / "simmim.pth", "--data-root", tmp_path, *flags)
    return tmp_path / "weights" / "simmim.safetensors"


def test_importing_twice_gives_the_same_file(tmp_path: Path) -> None:
    file = imported(tmp_path, source="https://example.org/simmim.pth")
    before = [(path, path.read_bytes(), path.stat().st_mtime_ns) for path in (file, file.with_suffix(".json"))]
    imported(tmp_path)
    assert before == [(path, path.read_bytes(), path.stat().st_mtime_ns) for path in (file, file.with_suffix(".json"))]
    call("import", tmp_path / "simmim.pth", "--output", tmp_path / "other.safetensors")
    assert (tmp_path / "other.safetensors").read_bytes() == file.read_bytes()
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_file_is_described_in_its_header_and_its_sidecar(tmp_path: Path) -> None:
    file = imported(tmp_path, source="https://example.org/simmim.pth")
    beside = json.loads(file.with_suffix(".json").read_text())
    assert beside["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert beside["source_sha256"] == hashlib.sha256((tmp_path / "simmim.pth").read_bytes()).hexdigest()
    assert beside["source"] == "https://example.org/simmim.pth"
    assert beside["layout"] == "simmim/swin"
    assert beside["windows"] == [[4, 4], [4, 4], [4, 4], [2, 2]]
    assert beside["settings"] == {"max_accuracy": 0.0, "epoch": 799}
    assert beside["renamed"]["encoder.layers.0.downsample.norm.bias"] == "layers.1.downsample.norm.bias"
    assert "encoder.mask_token" in beside["dropped"]
    assert "decoder.0.weight" in beside["dropped"]
    shown = call("show", file, "--names").stdout
    for text in (beside["sha256"], "layout: simmim/swin", "[[4, 4], [4, 4], [4, 4], [2, 2]]", "norm.weight [128]"):
        assert text in shown
    raw = call("show", tmp_path / "simmim.pth").stdout
    assert "layout: simmim/swin" in raw
    assert "windows: 4, 4, 4, 2" in raw


def test_other_weights_are_not_overwritten(tmp_path: Path) -> None:
    file = imported(tmp_path)
    before = file.read_bytes()
    torch.save(official_swin(swinv2(depths=[1, 1, 1, 1])), tmp_path / "simmim.pth")
    assert str(file) in refused(Conflict, "import", tmp_path / "simmim.pth", "--data-root", tmp_path)
    assert file.read_bytes() == before


def test_imported_weights_are_refused_by_a_model_that_reads_them_with_another_window(tmp_path: Path) -> None:
    file = imported(tmp_path)
    init = FromFile(name="MIM", path=str(file), sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    initial = initial_weights(init, tmp_path, {})
    assert initial is not None
    check_same_windows(swinv2(), initial.windows)
    check_same_windows(swinv2(128, window_size=8, pretrained_window_sizes=[4, 4, 4, 2]), initial.windows)
    with pytest.raises(ValueError, match=r"add to backbone.args: pretrained_window_sizes: \[4, 4, 4, 2\]"):
        check_same_windows(swinv2(128, window_size=8), initial.windows)


def test_windows_come_from_the_configuration_or_are_asked_for(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in official_swin(swinv2()).items() if "relative_coords" not in name}
    swin_part = {"WINDOW_SIZE": 12, "DEPTHS": [2, 2, 18, 2], "PATCH_SIZE": 4}
    settings = {"MODEL": {"SWINV2": swin_part}, "DATA": {"IMG_SIZE": 192}}
    torch.save({"model": state, "config": settings}, tmp_path / "told.pth")
    assert "[12, 12, 12, 6]" in call("import", tmp_path / "told.pth", "--data-root", tmp_path).stdout
    swin_part["PRETRAINED_WINDOW_SIZES"] = [8, 8, 8, 0]
    torch.save({"model": state, "config": settings}, tmp_path / "earlier.pth")
    assert "[8, 8, 8, 6]" in call("import", tmp_path / "earlier.pth", "--data-root", tmp_path).stdout
    torch.save({"model": state}, tmp_path / "silent.pth")
    silent = call("import", tmp_path / "silent.pth", "--data-root", tmp_path)
    assert "pass --windows 12,12,12,6" in " ".join(silent.stderr.split())
    assert "pretrained_window_sizes" not in silent.stdout
    given = call("import", tmp_path / "silent.pth", "--output", tmp_path / "s.safetensors", "--windows", "4,4,4,2")
    assert "[4, 4, 4, 2]" in given.stdout
    flags = ("--output", tmp_path / "t.safetensors", "--windows", "4,4,4,4")
    assert "windows 12,12,12,6, not 4,4,4,4" in refused(BadInput, "import", tmp_path / "told.pth", *flags)


def test_windows_in_the_configuration_of_another_model_are_not_those_of_its_weights(tmp_path: Path) -> None:
    """The official config.py has a SwinV2 part whatever the model; a Swin v1 in timm has no such argument."""
    settings = {"MODEL": {"TYPE": "swin", "SWINV2": {"WINDOW_SIZE": 7, "DEPTHS": [2, 2, 6, 2], "PATCH_SIZE": 4}}}
    settings["DATA"] = {"IMG_SIZE": 224}
    torch.save({"model": official_swin(swin()), "config": settings}, tmp_path / "swin.pth")
    done = call("import", tmp_path / "swin.pth", "--data-root", tmp_path)
    assert "layout swin" in done.stderr
    assert "pretrained_window_sizes" not in done.stdout
    assert "windows" not in json.loads((tmp_path / "weights" / "swin.json").read_text())


def test_weights_that_do_not_fit_the_model_are_refused_with_the_names(tmp_path: Path) -> None:
    torch.save(simmim(official_swin(swinv2(depths=[1, 1, 3, 1])), 128), tmp_path / "deep.pth")
    flags = ("--data-root", tmp_path, "--model", "swinv2_base_window12_192", "--args", json.dumps(SWIN))
    message = refused(BadInput, "import", tmp_path / "deep.pth", *flags, "--image-size", "64")
    assert "left over: layers.2.blocks.2.attn" in message
    assert not (tmp_path / "weights").exists()


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.target),)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    state = {"model": official_swin(swinv2()), "config": Bomb(tmp_path / "was_run")}
    torch.save(state, tmp_path / "bad.pth")
    for command in ("import", "show"):
        assert "mkdir" in refused(BadInput, command, tmp_path / "bad.pth")
    assert not (tmp_path / "was_run").exists()
    assert not list(tmp_path.rglob("*.safetensors"))


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    file = imported(tmp_path)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:-100])
    assert "cut short" in refused(BadInput, "import", cut)
    cut.write_bytes(file.read_bytes()[:100])
    assert "cut short" in refused(BadInput, "show", cut)
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    assert "no weights found" in refused(BadInput, "import", tmp_path / "none.pth")
    assert "no file" in refused(NotFound, "import", tmp_path / "absent.pth")
    assert "no file" in refused(NotFound, "show", tmp_path / "absent.pth")


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    state = dict(vit().state_dict())
    state["norm.weight"] = state["norm.weight"] * float("nan")
    torch.save(state, tmp_path / "vit.pth")
    message = refused(BadInput, "import", tmp_path / "vit.pth", "--data-root", tmp_path)
    assert "1 weights are not finite (nan or inf): norm.weight" in message
    assert os.listdir(tmp_path) == ["vit.pth"]


def test_the_entry_that_was_taken_is_named_if_a_file_has_several(tmp_path: Path) -> None:
    net = vit()
    torch.save({"model": net.state_dict(), "model_ema": net.state_dict(), "epoch": 3}, tmp_path / "two.pth")
    for taken, other, flags in (("model", "model_ema", []), ("model_ema", "model", ["--entry", "model_ema"])):
        message = call("import", tmp_path / "two.pth", "--output", tmp_path / f"{taken}.safetensors", *flags).output
        assert f"weights of entry {taken}; there are others, for --entry: {other}" in " ".join(message.split())


def test_windows_are_for_swinv2_alone_one_for_each_stage(tmp_path: Path) -> None:
    torch.save(dict(vit().state_dict()), tmp_path / "vit.pth")
    torch.save(dict(swinv2().state_dict()), tmp_path / "swin.pth")
    for name, message, windows in (
        ("vit.pth", "only SwinV2 has them", "8,8,8,8"),
        ("swin.pth", "has 4 stages: pass 4 windows", "12"),
    ):
        assert message in refused(BadInput, "import", tmp_path / name, "--windows", windows, "--data-root", tmp_path)


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    torch.save(dict(vit().state_dict()), tmp_path / "vit.pth")
    under_a_file = tmp_path / "vit.pth" / "vit.safetensors"
    message = refused(BackendUnreachable, "import", tmp_path / "vit.pth", "--output", under_a_file)
    assert message.startswith(f"cannot write {under_a_file}: ")
    message = refused(BadInput, "import", tmp_path / "vit.pth", "--output", tmp_path / "new.pth")
    assert "new.pth: training reads only .safetensors" in message


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--windows", "12;12"), "--windows 12;12: one whole number a stage"),
        (("--model", "swinv2_bas_window12_192"), "nearest: swinv2_base_window12_192"),
        (("--model", "vit_base_patch16_224", "--args", "{"), "--args {"),
        (("--model", "vit_base_patch16_224", "--args", '{"pretrained": true}'), "weights come from init"),
    ],
)
def test_misspelt_flags_are_named(tmp_path: Path, flags: tuple[str, ...], message: str) -> None:
    torch.save(dict(vit().state_dict()), tmp_path / "vit.pth")
    result = CliRunner().invoke(weights, ["import", str(tmp_path / "vit.pth"), "--data-root", str(tmp_path), *flags])
    assert result.exit_code == 2
    assert message in result.output


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of the files in tmp_path / "there"."""
    monkeypatch.setenv("no_proxy", "*")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    (tmp_path / "there").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "there"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{served.server_address[1]}"
        served.shutdown()
        thread.join()


def test_a_fetched_file_is_found_by_the_spec_that_names_its_address(server: str, tmp_path: Path) -> None:
    file, root = tmp_path / "there" / "vit.safetensors", tmp_path / "data"
    save_file({name: tensor.clone() for name, tensor in vit().state_dict().items()}, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    init = FromFile(name="SUP", path=f"{server}/vit.safetensors", sha256=digest)
    assert f"weights fetch {init.path} --sha256 {digest}" in str(init.missing(root))

    printed = call("fetch", init.path, "--sha256", digest, "--data-root", root).stdout
    assert FromFile(**{**yaml.safe_load(printed)["init"], "name": "SUP"}) == init
    assert init.missing(root) is None
    initial = initial_weights(init, root, {})
    assert initial is not None
    assert initial.tensors.keys() == load_file(file).keys()

    file.write_bytes(b"another")
    call("fetch", init.path, "--sha256", digest, "--data-root", root)  # it is there: nothing is downloaded
    message = refused(BadInput, "fetch", init.path, "--sha256", "0" * 64, "--data-root", root)
    assert hashlib.sha256(b"another").hexdigest() in message
    assert [path.name for path in (root / "weights").iterdir()] == [f"{digest[:12]}-vit.safetensors"]


def test_an_address_that_gives_nothing_is_named(server: str, tmp_path: Path) -> None:
    flags = ("--sha256", "0" * 64, "--data-root", tmp_path)
    assert "not found" in refused(BackendUnreachable, "fetch", f"{server}/none.safetensors", *flags)
    assert "s3://" in refused(BadInput, "fetch", "s3://bucket/x.safetensors", *flags)
    assert "64 digits" in refused(BadInput, "fetch", f"{server}/x.safetensors", "--sha256", "abc")
