"""Figures over the layers of a network, as a spec asks for them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from orchestrator.spec.model import SpecModel
from orchestrator.spec.sweep import as_list
from tasks.bounds import Label, Prose


class LayerFigure(SpecModel):
    """A figure with a panel for each row of the table, drawn from what trials measured for each layer."""

    title: Annotated[Label, Field(min_length=1)]
    """Heads the figure and names its files: "Figure 1" becomes figure-1.svg, .png and .csv."""
    figure: Annotated[Label, Field(min_length=1)]
    """Name of the measured figure, for example attention_distance, head_divergence or cka; of `epochs` one that is
    reported."""
    stage: Label = ""
    """The stage whose trials measured it; empty: the table's."""
    columns: Annotated[list[Label], BeforeValidator(as_list)] = Field(default=[], max_length=50)
    """Values of `report.columns` of the trials to draw; one or more are named where the stage has several."""
    rows: list[Label] = Field(default=[], max_length=50)
    """Values of `report.rows`, a panel each, in this order; none: all that the stage has."""
    form: Literal["dots", "mean", "matrix", "curves", "epochs"] = "dots"
    """`dots`: a small dot for each head (or pair of heads, or channel) of a layer and a large one for their mean.
    `mean`: the mean alone. `matrix`: a heat map of all pairs of layers, from values whose item is the other layer.
    `curves`: one panel with a line for each row, such as the success plot of tracking. `epochs`: the same of what
    trials reported after every epoch (train_loss, terms of the loss such as train_roi_box, figures), and a panel for
    each of `beside`."""
    beside: Annotated[list[Label], BeforeValidator(as_list)] = Field(default=[], max_length=7)
    """`epochs`: further figures, each in a panel of its own."""
    axis: Label = ""
    """Title of the horizontal axis, where a figure is measured over something else than layers: overlap threshold (%).
    Empty: layer (from 0), or epoch."""
    anchor: Label = ""
    """Name of a figure that was measured once for each layer, drawn as a line: for example uniform_distance, what
    attention to all places alike would give."""
    low: float | None = Field(default=None, ge=-1e9, le=1e9)
    """The lower end of the values' axis or colours; None: from the data of all panels."""
    high: float | None = Field(default=None, ge=-1e9, le=1e9)
    caption: Prose = ""
