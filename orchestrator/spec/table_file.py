"""The models of a table file: a table whose columns come from several jobs, beside published values."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from orchestrator.spec.job import MAX_NAME, NAME, Published, PublishedRow
from orchestrator.spec.model import SpecModel
from orchestrator.spec.sweep import Path_, as_list
from tasks.bounds import MAX_LABEL, Label, Prose


def _scalar(value: Any) -> Any:
    """A value as a trial's field may have it. Raises ValueError for a list or a mapping, and for a long text."""
    if value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= MAX_LABEL):
        return value
    raise ValueError("must be a name, a number, true, false or null; a mapping is named by its name")


Scalar = Annotated[
    Any,
    AfterValidator(_scalar),
    WithJsonSchema({"type": ["string", "number", "boolean", "null"], "maxLength": MAX_LABEL}),
]
Wanted = Annotated[list[Scalar], BeforeValidator(as_list), Field(min_length=1, max_length=50)]
"""Values that count, or a single one: initial weights and other mappings by their name."""
Conditions = Annotated[dict[Path_, Wanted], Field(max_length=50)]

WEIGHTS, MODEL = "backbone.init", "backbone.model"
"""The fields that `weights` and `model` of a row stand for."""


class TableColumn(SpecModel):
    """A column: a figure of the trials of a stage of a job."""

    title: Label
    """Several columns may have one title if their figures differ; they stand under it side by side."""
    job: str = Field(min_length=1, max_length=1000)
    """A spec file (a path that ends in .yaml or .yml, from the folder of the table's file): the job of exactly this
    content. Or the name of a job in the store, the newest, or the beginning of its id."""
    profile: str | None = Field(default=None, max_length=MAX_NAME)
    """Of a spec file: the profile that is applied; none: its own default. Of a name: the newest with this profile."""
    stage: Label = ""
    """The stage whose trials fill the column; empty: the one that fills the table of the job itself."""
    where: Conditions = {}
    """The trials of the stage that count: dotted path of a field -> value, or several values. The trials of a cell must
    be of one cell of the job's own table, so a job with several data sets needs task.dataset here."""
    figure: Label = ""
    """Name of the figure; empty: the one that the trials are chosen by."""


class TableRow(SpecModel):
    """A row: trials by their initial weights and model."""

    name: Label
    weights: Annotated[list[Label], BeforeValidator(as_list), Field(max_length=50)] = []
    """Name of the initial weights (backbone.init), or several names, where jobs call them differently."""
    model: Annotated[list[Label], BeforeValidator(as_list), Field(max_length=50)] = []
    """Name of the model (backbone.model), or several; none: any."""
    where: Conditions = {}
    """Further fields, as for a column."""

    def conditions(self) -> dict[str, list[Any]]:
        """All of it by dotted path."""
        named = {WEIGHTS: [*self.weights], MODEL: [*self.model]}
        return {**{path: values for path, values in named.items() if values}, **self.where}


class TableAverage(SpecModel):
    """A last column: the mean over some columns."""

    name: Label = "Average"
    over: list[Label] = Field(min_length=1, max_length=1000)
    """Titles of columns."""


class TableReference(SpecModel):
    """Published values, printed beside ours and below them."""

    source: Prose = ""
    """Of `values`."""
    values: dict[Label, Annotated[dict[Label, Published], Field(max_length=1000)]] = Field(default={}, max_length=1000)
    """Row -> title of a column, or name of an average -> value in the table's unit (percent for accuracies), or figure
    -> value. A bare number is of the first column of its title."""
    rows: list[PublishedRow] = Field(default=[], max_length=100)


class TableFile(SpecModel):
    """A table that joins several jobs. `report --table FILE` prints it."""

    name: str = Field(pattern=NAME, max_length=MAX_NAME)
    caption: Prose = ""
    heading: Label = "pre-training"
    """Above the names of the rows."""
    columns: list[TableColumn] = Field(min_length=1, max_length=200)
    rows: list[TableRow] = Field(min_length=1, max_length=200)
    averages: list[TableAverage] = Field(default=[], max_length=50)
    reference: TableReference = TableReference()
