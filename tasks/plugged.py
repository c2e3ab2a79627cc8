"""What the plugins of the present job have added to this process: names of models, and figures of classification.

`workers.plugins` alone fills these in, and empties them for a job without plugins. (Kinds of tasks are in
`tasks.TASKS`.)
"""

from __future__ import annotations

from tasks.metrics import FromLogits

OUR_FIGURES = ("top1", "mean_per_class", "map11", "knn", "loss")
"""Of classification; `METRICS` of a plugin cannot take these names."""
OUR_PREFIXES = ("ema_", "train_", "system_")
"""Of figures of averaged weights, and of the loop's own values."""
MODELS: dict[str, str] = {}
"""Name of a timm model -> the plugin that registers it."""
METRICS: dict[str, tuple[str, FromLogits]] = {}
"""Name of a figure -> the plugin that defines it, and how it is computed."""
