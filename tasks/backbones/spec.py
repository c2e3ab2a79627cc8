"""The backbone part of a spec: timm model, arguments, initial weights."""

from __future__ import annotations

import hashlib
import operator
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from tasks.backbones.timm_names import check_timm_name
from tasks.bounds import MAX_NUMPY_SEED, FilePath, GroupName, Label

_strict = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Scratch(BaseModel):
    """Random initial weights, drawn from the trial's seed."""

    model_config = _strict
    kind: Literal["none"] = "none"
    name: Label = "RAND"
    """Row label in tables; no part of the key."""


class FromFile(BaseModel):
    """Weights in a file; refused if the SHA-256 differs or any backbone weight is missing or left over."""

    model_config = _strict
    kind: Literal["file"] = "file"
    name: Label
    path: FilePath
    """Absolute, below the home folder (~), or relative to the data root, or a URI: `file://`, or `https://` (`weights
    fetch` downloads it once; trials never do). Always .safetensors: `weights import` makes one from other people's
    checkpoints."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """None: not filled in yet. Such a trial can be planned and costed but not run: `missing` returns what to write.
    Once filled in, it identifies the content: it enters the trial's key, and the path no longer does."""

    @field_validator("path")
    @classmethod
    def _safetensors(cls, path: str) -> str:
        scheme, name = (urlsplit(path).scheme, urlsplit(path).path) if "://" in path else ("", path)
        if scheme not in ("", "file", "https", "http"):
            raise ValueError(f"{scheme}:// is not supported; give a path, file:// or https://")
        if not name.endswith(".safetensors"):
            raise ValueError(
                "training reads .safetensors alone; convert it once: python -m orchestrator weights import FILE "
                f"{path if not scheme else '(after: python -m orchestrator weights fetch URI)'}"
            )
        return path

    @model_validator(mode="after")
    def _uri_has_digest(self) -> FromFile:
        if self.remote and self.sha256 is None:
            raise ValueError("a URI needs sha256, because its content may change")
        return self

    @property
    def remote(self) -> bool:
        """True if the file has to be fetched first."""
        return self.path.startswith(("https://", "http://"))

    def local(self, root: Path) -> Path:
        """Path of the file on this machine. `root`: the data root."""
        if self.remote:
            return fetched(self.path, str(self.sha256), root)
        address = self.path.startswith("file://")
        return root / (unquote(urlsplit(self.path).path) if address else os.path.expanduser(self.path))

    def missing(self, root: Path) -> str | None:
        """None if the file is there with this SHA-256, else what to do. `root`: the data root. Reads the file."""
        file = self.local(root)
        if not file.is_file():
            if self.remote:
                command = f"python -m orchestrator weights fetch {self.path} --sha256 {self.sha256}"
                return f"weights {self.name}: not fetched to {file} yet; fetch once: {command} --data-root {root}"
            return f"weights {self.name}: no file {file}; put it there (how to get it: see the spec's comment)"
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if self.sha256 is None:
            return f"weights {self.name}: sha256 is not filled in; {file} has {digest}: write that if you trust it"
        if self.sha256 != digest:
            return f"weights {self.name}: {file} has SHA-256 {digest}, not {self.sha256}: another or a damaged file"
        return None


def fetched(uri: str, sha256: str, root: Path) -> Path:
    """Path of what `weights fetch` downloads: named by content, so that one version never overwrites another."""
    return root / "weights" / f"{sha256[:12]}-{Path(unquote(urlsplit(uri).path)).name}"


class FromTimm(BaseModel):
    """Weights that timm publishes under a tag, from the hub or its cache on the node (HF_HOME), loaded by timm."""

    model_config = _strict
    kind: Literal["timm"] = "timm"
    name: Label
    tag: Label
    """Model and pre-training tag, for example swinv2_base_window8_256.ms_in1k; the backbone may be another variant of
    the same architecture (image size, window)."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Digest of the tensors under timm's names as safetensors, which a trial's facts show; others are then refused.
    None: whatever the hub has under this tag."""

    @field_validator("tag")
    @classmethod
    def _whole(cls, tag: str) -> str:
        if not tag.partition(".")[2]:
            raise ValueError(f"{tag} names no pre-training; write MODEL.TAG (all: timm.list_pretrained())")
        return check_timm_name(tag)


class FromStage(BaseModel):
    """The final weights of a stage of this or another job; planning replaces it with `FromTrial`."""

    model_config = _strict
    kind: Literal["stage"] = "stage"
    name: Label
    stage: Label
    job: Label | None = None
    """Another job: its name (the newest of that name) or the beginning of its id; None: this job. The stage must be
    complete and its winner's weights kept. The trial that this resolves to at the first submission is recorded and
    does not change afterwards."""
    group: GroupName | None = None
    """Group of the stage, if it has several."""


class FromTrial(BaseModel):
    """The final weights of a trial."""

    model_config = _strict
    kind: Literal["trial"] = "trial"
    name: Label
    trial: Label
    """Key of the trial."""
    replicates: tuple[Label, ...] = Field(default=(), exclude_if=operator.not_, max_length=1000)
    """Keys of all replicates of that setting, `trial` first, where a stage of another job ran it with several seeds. In
    a job alone: the planner takes one of them for each trial."""


Init = Annotated[Scratch | FromFile | FromTimm | FromStage | FromTrial, Field(discriminator="kind")]

INITS = (Scratch, FromFile, FromTimm, FromStage, FromTrial)
"""The members of `Init`, for isinstance."""

_PLAIN = (str, int, float, type(None))

FieldPath = tuple[str | int, ...]
"""The way to a value in a model: names of fields, keys of mappings, numbers in lists."""


def inits(value: Any, at: FieldPath = ()) -> Iterator[tuple[FieldPath, Init]]:
    """Yields every source of weights in a model, at any depth and in any field, with the steps that lead to it.

    `at`: the steps that lead to `value`.
    """
    if type(value) in INITS:  # pydantic's isinstance takes long, and this is done for every trial of a plan
        yield at, value
        return
    for step, below in _below(value):
        if not isinstance(below, _PLAIN):
            yield from inits(below, (*at, step))


def _below(value: Any) -> list[tuple[str | int, Any]]:
    """The parts of a model, mapping or list, each with the step to it."""
    if isinstance(value, list | tuple):
        return list(enumerate(value))
    if isinstance(value, dict):
        return list(value.items())
    return [(name, getattr(value, name)) for name in type(value).model_fields] if isinstance(value, BaseModel) else []


_Value = TypeVar("_Value")


def with_inits(value: _Value, replaced: Mapping[FieldPath, Init]) -> _Value:
    """A copy of a model with other sources of weights at some of the steps that `inits` yields; not validated anew."""
    return _replaced(value, replaced, ()) if replaced else value


def _replaced(value: Any, replaced: Mapping[FieldPath, Init], at: FieldPath) -> Any:
    if at in replaced:
        return replaced[at]
    if not any(steps[: len(at)] == at for steps in replaced):
        return value
    below: dict[Any, Any] = {step: _replaced(part, replaced, (*at, step)) for step, part in _below(value)}
    if isinstance(value, BaseModel):
        return value.model_copy(update=below)
    return type(value)(below.values()) if isinstance(value, list | tuple) else below


class CutOptions(BaseModel):
    """What becomes of a backbone whose last blocks are dropped (`BackboneSpec.drop_last`). The paper says nothing."""

    model_config = _strict

    drop_path: Literal["respaced", "kept"] = "respaced"
    """Stochastic depth rates. `respaced`: from 0 to `backbone.drop_path` over the blocks that are left, as in any model
    of this depth, so that the setting means the same. `kept`: each block has its rate in the whole model."""
    final_norm: Literal["fresh", "pretrained"] = "fresh"
    """The norm after the last block. `fresh`: as drawn, because the pre-trained one was fitted to the output of another
    block; the only way where a fourth stage is dropped, whose norm has another width. `pretrained`: that of the whole
    model."""
    decay_levels: Literal["cut", "whole"] = "cut"
    """Levels of layer decay. `cut`: those of the model that is left, whose last block is next to the head. `whole`:
    each block is as far below the head, and so learns as fast, as in the whole model."""


class SampleLayers(BaseModel):
    """Which pre-trained blocks the blocks that `drop_last` leaves start from (section 3.2 of the paper).

    They are drawn without replacement from all blocks of the third stage (ViT and BEiT: of the stack). The draw depends
    on `draw`, the number of blocks and the number left alone: neither on the trial's seed nor on the weights, so rows
    of a table get the same draws.
    """

    model_config = _strict

    order: Literal["drawn", "sorted"] = "drawn"
    """`drawn`: in the order in which they were drawn (main text: "randomly shuffled layers"). `sorted`: in the order of
    the pre-trained model; the appendix ("randomly sample") leaves both open."""
    draw: int = Field(default=0, ge=0, le=MAX_NUMPY_SEED)
    """Number of the draw. The paper does not say how many it made."""


class Freeze(BaseModel):
    """Parts of the backbone that keep their initial weights.

    They take no gradient and stay in eval mode: batch norm keeps its statistics, nothing is dropped. Layer decay counts
    its levels as if nothing were frozen.
    """

    model_config = _strict

    stem: bool = False
    """What comes before the first block: patch embedding (or first convolutions), class token, position embedding."""
    blocks: int = Field(default=0, ge=0, le=10_000)
    """The first so many blocks, and with them the stem. Counted over all stages, as timm's layer decay counts: a block
    of ViT, BEiT, Swin, SwinV2, ConvNeXt or ResNet, a patch merging with the block after it; two blocks of RepLKNet. Of
    a backbone with `drop_last`, those that are left."""
    norms: bool = False
    """Every norm, also those of blocks that train: scale, shift and batch norm's statistics."""

    @model_validator(mode="after")
    def _from_below(self) -> Freeze:
        if self.blocks and not self.stem:
            if "stem" in self.model_fields_set:
                raise ValueError(f"blocks {self.blocks} freezes the stem below them too: leave stem out")
            object.__setattr__(self, "stem", True)  # frozen: it follows from blocks
        return self


class BackboneSpec(BaseModel):
    """A timm backbone and its initial weights."""

    model_config = _strict

    model: Label
    """Name in timm, for example swinv2_base_window12_192."""
    args: dict[str, Any] = {}
    """Arguments for timm.create_model: patch_size, embed_dim, depth, window_size, ..."""
    image_size: int = Field(ge=1, le=1 << 14)
    """Side of the square input in pixels, unless the task sets a height and width of its own. Left out, it becomes the
    size that timm made the model for, and is recorded as if it had been written."""
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Stochastic depth rate of the last block."""
    norm_eps: float | None = Field(default=None, gt=0, le=1)
    """Epsilon of every LayerNorm. None: timm's own (Swin 1e-5, ViT and BEiT 1e-6). The reference's classification and
    SimMIM code has 1e-5 for Swin; its depth and pose code 1e-6, also for weights that were trained with 1e-5."""
    init: Init = Scratch()
    drop_last: int | None = Field(default=None, ge=0, le=10_000)
    """Blocks to drop at the end (Figure 5). Null: none, the whole model. Swin, SwinV2 and RepLKNet: 0 drops all stages
    after the third, which stays whole; 1 and more drop that many of the third stage's last blocks too (a block of
    RepLKNet is a large kernel with its feed-forward). ViT and BEiT: the last blocks of the stack; 0 drops none and is
    the same as null. The head takes the width and stride of what is left."""
    cut: CutOptions = CutOptions()
    """Not used where `drop_last` is null."""
    sample_layers: SampleLayers | None = None
    """Draw the pre-trained blocks that those left by `drop_last` start from, instead of taking the first ones."""
    freeze: Freeze = Freeze()
    """Not used where nothing is trained, or the head alone."""

    @model_validator(mode="after")
    def _sampling_has_a_pool(self) -> BackboneSpec:
        if self.drop_last is None:
            object.__setattr__(self, "cut", CutOptions())  # frozen: without effect, so no part of the key
        if self.sample_layers is None:
            return self
        if self.drop_last is None:
            raise ValueError(
                "sample_layers draws as many blocks as drop_last leaves: set drop_last too, for example 9 of "
                "SwinV2-B's 18, or set sample_layers to null"
            )
        if self.init.kind == "none":
            raise ValueError(
                "sample_layers draws from pre-trained blocks, and init is of kind none: name weights in init, or set "
                "sample_layers to null"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _usual_size(cls, content: Any) -> Any:
        """Fills in the image size, which is then part of the key as any other. Imports timm, which takes seconds."""
        if not isinstance(content, dict) or "image_size" in content or not isinstance(content.get("model"), str):
            return content
        try:
            check_timm_name(content["model"])
        except ValueError:
            return content  # reported at `model`
        from tasks.backbones.model_arguments import usual_image_size

        return {**content, "image_size": usual_image_size(content["model"])}

    @field_validator("model")
    @classmethod
    def _known(cls, model: str) -> str:
        return check_timm_name(model)

    @field_validator("args")
    @classmethod
    def _not_ours(cls, args: dict[str, Any]) -> dict[str, Any]:
        for name, instead in _DECIDED_ELSEWHERE.items():
            if name in args:
                raise ValueError(f"{name} is not set here: {instead}")
        if empty := [name for name, value in args.items() if value is None]:
            raise ValueError(f"timm drops arguments that are null and uses its own default: leave out {empty[0]}")
        _check_numbers("args", args, MOST)
        return args

    @property
    def suits_channels_last(self) -> bool:
        """False where the channels-last layout slows a GPU down: the large depthwise kernels of RepLKNet (on an H100 in
        benchmarks/results/gpu-2026-11-26-h100.json 0.73 of a plain loop without it; SwinV2-B gains 12 %)."""
        return not self.model.startswith("replknet")


MOST, MOST_LAYERS = 1_000_000, 1_000
"""Of a whole number among `args`; of one that counts layers, each of which takes a hundredth of a second to make."""
_COUNTS_LAYERS = re.compile("depth|layer|block")


def _check_numbers(name: str, value: Any, most: int) -> None:
    """Raises ValueError for a whole number at any depth of the value that no model can have."""
    if isinstance(value, int) and value > most:
        raise ValueError(f"{name} {value}: at most {most:,}")
    if isinstance(value, dict):
        for key, part in value.items():
            _check_numbers(key, part, MOST_LAYERS if _COUNTS_LAYERS.search(str(key)) else most)
    elif isinstance(value, list | tuple):
        for part in value:
            _check_numbers(name, part, most)


_DECIDED_ELSEWHERE = {
    "img_size": "use image_size",
    "drop_path_rate": "use drop_path",
    "num_classes": "it follows from the task",
    "in_chans": "images have three channels",
    "pretrained": "weights come from init",
    "checkpoint_path": "weights come from init",
}
