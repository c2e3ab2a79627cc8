"""The only place that builds a backbone: timm name and arguments, initial weights, drop path, image size."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator

from tasks.timm_names import check_timm_name

_strict = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class Scratch(BaseModel):
    """Random initial weights, drawn from the trial's seed."""

    model_config = _strict
    kind: Literal["none"] = "none"
    name: str = "RAND"
    """Row label in tables; no part of the key."""


class FromFile(BaseModel):
    """Weights in a file; refused when the SHA-256 differs or any backbone weight is missing or left over."""

    model_config = _strict
    kind: Literal["file"] = "file"
    name: str
    path: str
    """Absolute, or relative to the data root."""
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """None: not filled in yet. Such a trial can be planned and costed but not run: `missing` says what to write here."""

    def missing(self, root: Path) -> str | None:
        """None when the file is there with this SHA-256; else what to do. `root`: the data root. Reads the file."""
        file = root / self.path
        if not file.is_file():
            return f"weights {self.name}: no file {file}; put it there (how to get it: see the spec's comment)"
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
        if self.sha256 is None:
            return f"weights {self.name}: sha256 is not filled in; {file} has {found}: write that in the spec if you trust it"
        if self.sha256 != found:
            return f"weights {self.name}: {file} has SHA-256 {found}, not {self.sha256}: another or a damaged file"
        return None


class FromStage(BaseModel):
    """The weights that a stage of this job ends with; the planner replaces it by `FromTrial`."""

    model_config = _strict
    kind: Literal["stage"] = "stage"
    name: str
    stage: str


class FromTrial(BaseModel):
    """The weights that a trial ended with."""

    model_config = _strict
    kind: Literal["trial"] = "trial"
    name: str
    trial: str
    """Key of the trial."""


Init = Annotated[Scratch | FromFile | FromStage | FromTrial, Field(discriminator="kind")]


class BackboneSpec(BaseModel):
    """A timm backbone and where its weights come from."""

    model_config = _strict

    model: str
    """Name in timm, for example swinv2_base_window12_192."""
    args: dict[str, Any] = {}
    """Passed to timm.create_model: patch_size, embed_dim, depth, window_size, ..."""
    image_size: PositiveInt
    """Side of the square input in pixels; passed to timm as img_size where the model takes it."""
    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Stochastic depth rate of the last block."""
    init: Init = Scratch()

    @field_validator("model")
    @classmethod
    def _known(cls, model: str) -> str:
        return check_timm_name(model)
