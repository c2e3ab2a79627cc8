"""The figures of an analysis: names, titles and units. Imports nothing heavy, because planning asks for them."""

from __future__ import annotations

from tasks.metrics import Metric

ATTENTION = (
    Metric("attention_distance", "attention distance", "neither", "px", digits=1),
    Metric("attention_entropy", "attention entropy", "neither", "nats", digits=2),
    Metric("head_divergence", "divergence between heads", "neither", "nats", digits=2),
    Metric("uniform_distance", "distance of uniform attention", "neither", "px", digits=1),
    Metric("uniform_entropy", "entropy of uniform attention", "neither", "nats", digits=2),
)
"""They describe weights: no value is better than another."""


def cka_metrics(name: str, title: str) -> tuple[Metric, Metric]:
    """`name`: cka, or that of another estimator's: cka_biased."""
    return Metric(f"{name}_mean", f"mean {title}", "neither"), Metric(f"{name}_min", f"least {title}", "neither")
