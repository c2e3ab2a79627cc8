"""The figures of an analysis: names, titles and units. Imports nothing heavy, because planning asks for them."""

from __future__ import annotations

from tasks.metrics import Metric

ATTENTION = (
    Metric("attention_distance", "attention distance", "higher", "px", digits=1),
    Metric("attention_entropy", "attention entropy", "higher", "nats", digits=2),
    Metric("head_divergence", "divergence between heads", "higher", "nats", digits=2),
    Metric("uniform_distance", "distance of uniform attention", "higher", "px", digits=1),
    Metric("uniform_entropy", "entropy of uniform attention", "higher", "nats", digits=2),
)
"""`better` has no meaning here: no value of these is better, and `higher` is the one that tables do not mention."""


def cka_metrics(name: str, title: str) -> tuple[Metric, Metric]:
    """`name`: cka, or that of another estimator's: cka_biased."""
    return Metric(f"{name}_mean", f"mean {title}", "higher"), Metric(f"{name}_min", f"least {title}", "higher")
