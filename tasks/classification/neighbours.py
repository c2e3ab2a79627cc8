"""The options of a k-NN classification (see nearest)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class NearestNeighbours(BaseModel):
    """Classification of each image by the vote of the training images with the most similar features.

    Features are the pooled output of the backbone (what the classifier takes), of training images too without
    augmentation; similar by cosine. Defaults and vote as in DINO's public code (eval_knn.py).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    k: int = Field(default=20, ge=1, le=100_000)
    """Training images that vote."""
    temperature: float = Field(default=0.07, gt=0, le=1000)
    """Each votes with exp(cosine / temperature)."""
    choose: bool = False
    """Trials are chosen by this figure, `knn`, instead of the classifier's."""
