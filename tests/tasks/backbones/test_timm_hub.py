"""timm's pretrained weights: from the hub's cache without a network, and a clear word where they are not."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from pydantic import ValidationError
from safetensors.torch import save_file
from tiny_task import run

from tasks.backbones.loading import load
from tasks.backbones.model import build
from tasks.backbones.spec import BackboneSpec, FromTimm
from tasks.backbones.timm_hub import pretrained
from tasks.errors import DataError
from workers.initial_weights import initial_weights
from workers.trial import TrialSpec

TAG = "test_vit.r160_in1k"  # timm's own smallest


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def publish(cache: Path, state: dict[str, torch.Tensor]) -> None:
    """Puts weights where the hub's library keeps what it has downloaded."""
    repository = cache / f"models--timm--{TAG}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots" / ("0" * 40)).mkdir(parents=True)
    save_file(state, repository / "snapshots" / ("0" * 40) / "model.safetensors")


def test_what_is_in_the_cache_is_loaded_and_its_digest_noted(cache: Path) -> None:
    torch.manual_seed(0)
    source = timm.create_model("test_vit")
    publish(cache, source.state_dict())
    initial = initial_weights(FromTimm(name="SUP", tag=TAG), cache, {})
    assert initial is not None
    (note,) = initial.notes
    digest = note.rpartition(" ")[2]
    assert TAG in note
    child = build(BackboneSpec(model="test_vit", image_size=80), 5)
    (resampled,) = load(child, initial.tensors)
    assert "10 x 10 to 5 x 5" in resampled
    for name in ("blocks.0.attn.qkv.weight", "norm.bias"):
        assert torch.equal(child.state_dict()[name], source.state_dict()[name])

    assert pretrained(FromTimm(name="SUP", tag=TAG, sha256=digest))[2] == digest
    with pytest.raises(DataError, match=f"has SHA-256 {digest}, not {'0' * 64}"):
        pretrained(FromTimm(name="SUP", tag=TAG, sha256="0" * 64))


@pytest.mark.parametrize("preprocessing", ["stated", "weights"])
def test_a_trial_records_how_its_images_were_prepared(cache: Path, tmp_path: Path, preprocessing: str) -> None:
    """timm states mean and deviation 0.5, bicubic, and a crop of 0.95 for this tag."""
    publish(cache, timm.create_model("test_vit").state_dict())
    spec = TrialSpec.model_validate(
        {
            "task": {"kind": "classify", "dataset": "digits", "normalize": "imagenet", "preprocessing": preprocessing},
            "backbone": {"model": "test_vit", "image_size": 32, "init": {"kind": "timm", "name": "SUP", "tag": TAG}},
            "optim": {"lr": 1e-3, "epochs": 0, "warmup_epochs": 0, "batch": 40},
        }
    )
    facts = run(spec, tmp_path / "trial")[0].facts
    if preprocessing == "stated":
        assert "preprocessing" not in facts
        (line,) = facts["caveats"]
        assert line.startswith("weights SUP: trained with other preprocessing")
        assert "mean 0.5 (here 0.485 0.456 0.406)" in line
    else:
        assert facts["caveats"] == []
        stated = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
        assert facts["preprocessing"] == stated


def test_published_weights_that_lack_something_are_refused(cache: Path) -> None:
    state = timm.create_model("test_vit").state_dict()
    del state["blocks.0.attn.qkv.weight"]
    publish(cache, state)
    with pytest.raises(DataError, match=r"RuntimeError.*state_dict"):
        pretrained(FromTimm(name="SUP", tag=TAG))


def test_without_network_and_cache_the_remedy_is_said(cache: Path) -> None:
    with pytest.raises(DataError, match=rf"weights SUP: timm could not load {TAG} .*HF_HOME"):
        pretrained(FromTimm(name="SUP", tag=TAG))


@pytest.mark.parametrize(
    ("tag", "said"), [("test_vit", "names no pre-training"), ("tset_vit.r160_in1k", "nearest: test_vit")]
)
def test_a_tag_is_checked_before_anything_runs(tag: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        FromTimm(name="SUP", tag=tag)


def test_a_tag_that_timm_does_not_have_is_said(cache: Path) -> None:
    with pytest.raises(DataError, match=r"could not load test_vit\.in_nothing"):
        pretrained(FromTimm(name="SUP", tag="test_vit.in_nothing"))
