"""The models of a job's claims: what it expects of two numbers, written before they are known."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from orchestrator.spec.model import SpecModel
from orchestrator.spec.search_space import Number
from tasks.bounds import Label, Prose

MAX_LAYERS = 10_000
MAX_CLAIMS = 200
"""Of a job. Holm's levels get smaller with each."""
Layer = Annotated[int, Field(ge=-MAX_LAYERS, le=MAX_LAYERS)]
"""A layer by the number that its rows in `measurements` have; a negative one counts from the last that has rows."""


class LayerRange(SpecModel):
    """`{last: 3}`: the last three layers that have rows; `{first: 3}`: the first three."""

    first: int | None = Field(default=None, ge=1, le=MAX_LAYERS)
    last: int | None = Field(default=None, ge=1, le=MAX_LAYERS)

    @model_validator(mode="after")
    def _one_end(self) -> LayerRange:
        if (self.first is None) == (self.last is None):
            raise ValueError("needs one of first and last: {last: 3}")
        return self


def _layers_kind(value: Any) -> str | None:
    if isinstance(value, LayerRange | dict):
        return "ends"
    return "numbers" if isinstance(value, list | tuple) else None


Layers = Annotated[
    Annotated[LayerRange, Tag("ends")]
    | Annotated[list[Layer], Field(min_length=1, max_length=MAX_LAYERS), Tag("numbers")],
    Discriminator(
        _layers_kind,
        custom_error_type="layers",
        custom_error_message="must be a list of layers, {first: n} or {last: n}",
    ),
]


class ClaimSide(SpecModel):
    """A number that a claim compares: a figure of the trials at one row and column, one value for each seed."""

    row: Label = ""
    """A row of the report; empty: the only one."""
    column: Label = ""
    """A column of the report (a value of its column field); empty: the only one."""
    figure: Label = ""
    """Name of a figure; empty: the first that the table shows."""
    stage: Label = ""
    """The stage whose trials are read; empty: the report's. Rows and columns are by the report's fields there too."""
    layer: Layer | None = None
    """The layer whose values are read, for a figure with values per layer."""
    layers: Layers | None = None
    """Several layers; without `layer` and `layers`: all."""
    item: Label = ""
    """The item (class, sequence; of a pair the other head or layer) whose values are read; empty: all."""
    pairs: Literal["all", "distinct"] = "all"
    """`distinct`: without the values of a layer or head with itself, as on the diagonal of CKA."""
    reduce: Literal["mean", "min", "max"] | None = None
    """How the values that are left (layers, heads, items, pairs) become one number for each trial. None: the figure
    that the trial ended with if there is one and no part of it is asked for, else the mean. Of several layers it is the
    mean of each layer's mean, so that each counts alike whatever its heads."""
    published: bool = False
    """True: the number that `report.reference` has for this row, column and figure. It is of one run, so the report
    shows the difference and gives no verdict."""

    @model_validator(mode="after")
    def _together(self) -> ClaimSide:
        if self.layer is not None and self.layers is not None:
            raise ValueError("has layer and layers; keep one of them")
        if self.published and (self.of_rows or self.stage):
            raise ValueError("a published number has no stage, layers, item, pairs or reduce; remove them")
        return self

    @property
    def of_rows(self) -> bool:
        """True if it is about a part of the figure: it is read from the table `measurements`."""
        return bool(
            self.layer is not None or self.layers is not None or self.item or self.reduce or self.pairs != "all"
        )


def _side_kind(value: Any) -> str | None:
    if isinstance(value, ClaimSide | dict):
        return "side"
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else None


Side = Annotated[
    Annotated[ClaimSide, Tag("side")] | Annotated[Number, Tag("number")],
    Discriminator(
        _side_kind,
        custom_error_type="side",
        custom_error_message="must be a number, or {row: .., column: .., figure: ..}",
    ),
]


class Claim(SpecModel):
    """What the job expects: how `left` compares with `right`. The report says whether it came true.

    d = left - right, in the figure's unit as the table prints it (points of percent for accuracies).
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=100)
    text: Prose = ""
    """The claim in words, and where it is from."""
    left: Side
    right: Side
    relation: Literal["above", "below", "within"]
    """`above`: d > margin. `below`: -d > margin. `within`: -margin <= d <= margin."""
    margin: Number = 0.0
    over: Literal["seeds", "images"] = "seeds"
    """What the verdict is over. `seeds`: whole chains of trials, paired by seed; a t interval of the mean difference.
    `images`: the images of one evaluation, paired; a bootstrap, whose verdict is for these weights alone."""
    sensitivity: list[Label] = Field(default=[], max_length=20)
    """Other figures (estimators) for which the same difference is shown beside it. They have no part in the verdict."""
    anchor: Label = ""
    """A row whose value is shown beside the claim in place of left's row, for example random weights."""

    @model_validator(mode="after")
    def _judgeable(self) -> Claim:
        if self.relation == "within" and self.margin <= 0:
            raise ValueError(f"within needs a margin above 0, and it is {self.margin:g}")
        if not any(isinstance(side, ClaimSide) and not side.published for side in (self.left, self.right)):
            raise ValueError("neither left nor right reads a trial; one of them must")
        return self

    @property
    def sides(self) -> list[tuple[str, ClaimSide]]:
        """The sides that are no plain numbers, with their names."""
        both = (("left", self.left), ("right", self.right))
        return [(name, side) for name, side in both if isinstance(side, ClaimSide)]
