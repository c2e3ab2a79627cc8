"""Epochs that searches need to reach the grid's chosen validation value on the digits study of specs/k12_grid.yaml.

    python benchmarks/search.py                    10 seeds of the searches; about two hours on one core
    python benchmarks/search.py --seeds 1          some minutes

The study: random weights on digits, the laptop profile's grid of 5 learning rates x 3 layer decays, 20 epochs each. Its
best value on val is the aim (the best of 15 noisy ones: `--slack` lowers it). The searches draw from the ranges between
the grid's ends, a trial at a time, until one that ran in full reaches the aim, or until `--trials` of them did not
(which counts as the epochs spent by then, and is told). ASHA: rungs at 8 and 16 epochs, beyond the warm-up of 4; a
stopped trial reaches nothing.

Trials run through workers.train in this process, without Ray, and are shared by all searches and by later calls (in
`--cache`): a trial that one search stopped goes on from its checkpoint when another wants more of it. Epochs are
counted for each search as if it were alone. The seed is the search's; the trials' own is the study's.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import optuna
import torch

from orchestrator.plan.expansion import at_point, expand
from orchestrator.records.trial_files import trial_folder
from orchestrator.search.point_search import PointSearch
from orchestrator.spec import load
from orchestrator.spec.sweep import Grid, Search, axis_values
from workers.errors import Stopped
from workers.messages import Report
from workers.state import RankContext
from workers.train import train
from workers.trial import TrialSpec

SPEC = Path(__file__).parents[1] / "specs" / "k12_grid.yaml"
ASHA = {"asha": {"grace_epochs": 8, "reduction_factor": 2}}
METHODS: dict[str, dict[str, Any]] = {
    "random": {"sampler": "random"},
    "quasi-random": {"sampler": "quasi_random"},
    "TPE": {"sampler": "tpe"},
    "random + ASHA": {"sampler": "random", "stopping": ASHA},
    "TPE + ASHA": {"sampler": "tpe", "stopping": ASHA},
}


class Trials:
    """Trials by key: each is trained once, as far as somebody has wanted it."""

    def __init__(self, cache: Path, threads: int) -> None:
        self._cache, self._threads = cache, threads

    def run(self, trial: TrialSpec, hear: Callable[[int, float], bool]) -> float | None:
        """The trial's figure; None where `hear(epoch, value)`, asked after each evaluated epoch, said to stop."""
        enough = False

        def emit(report: Report) -> None:
            nonlocal enough
            value = report.values.get(trial.metric)
            if value is not None and not enough:
                enough = hear(report.epoch, value)

        token = time.time_ns()  # above those of earlier calls, whose attempts are over
        place = RankContext(
            trial_folder(self._cache, trial.key).absolute(), Path("data"), threads=self._threads, token=token
        )
        try:
            figure = train(trial, place, emit, lambda: enough).figures[trial.metric]
        except Stopped:
            return None
        return None if enough else figure


def searched(search: Search, fields: dict[str, Any], epochs: int, aim: float, trials: Trials) -> tuple[int, bool]:
    """Epochs until a trial in full reached the aim, or until all trials were run; whether it was reached."""
    specs: dict[str, TrialSpec] = {}

    def key_of(body: Any) -> str | None:
        spec = at_point(fields, body["point"], workers=1)
        if spec is not None:
            specs[spec.key] = spec
        return None if spec is None else spec.key

    decider = PointSearch(search, "top1", "max", epochs, key_of)
    used = 0
    while decider.can_suggest():
        event = decider.suggest()
        if event.kind == "exhausted":
            break
        last = 0

        def hear(epoch: int, value: float, key: str = event.key) -> bool:
            nonlocal last
            last = epoch
            heard = decider.on_report(key, epoch, value)
            return heard is not None and heard.kind == "stopped"

        value = trials.run(specs[event.key], hear)
        used += last
        if value is not None:
            decider.on_result(event.key, value)
            if value >= aim:
                return used, True
    return used, False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS), help="default: all")
    parser.add_argument("--trials", type=int, default=30, help="of a search, at most")
    parser.add_argument("--slack", type=float, default=0.0, help="percentage points below the grid's best that will do")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=Path("runs/benchmark-search"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    trials = Trials(options.cache, options.threads)

    job = load(SPEC, "laptop")
    stage = next(stage for stage in job.stages if stage.name == "grid")
    assert isinstance(stage.sweep, Grid)
    (axes,) = [axes for axes in stage.sweep.grid if axis_values(axes["backbone.init"])[0]["kind"] == "none"]
    drafts = [draft.spec for draft in expand(job, stage, may_test=False)]
    mine = [s for s in drafts if s.backbone.init.kind == "none" and getattr(s.task, "dataset", "") == "digits"]
    epochs = mine[0].optim.epochs
    values = [trials.run(spec, lambda epoch, value: False) or 0.0 for spec in mine]
    aim = max(values) - options.slack / 100
    best = f"best on val {100 * max(values):.2f} %, aim {100 * aim:.2f} %"
    print(f"grid: {len(mine)} trials of {epochs} epochs, {len(mine) * epochs} epochs; {best}")

    fields = mine[0].model_dump(mode="json")
    lrs, decays = axis_values(axes["optim.lr"]), axis_values(axes["optim.layer_decay"])
    ranges = {
        "optim.lr": {"loguniform": [min(lrs), max(lrs)]},
        "optim.layer_decay": {"uniform": [min(decays), max(decays)]},
    }
    rows = []
    for name in options.methods:
        found, method = [], METHODS[name]
        for seed in range(options.seeds):
            asked = {"search": ranges, "trials": options.trials, "startup": 5, "at_once": 1, "seed": seed, **method}
            found.append(searched(Search.model_validate(asked), fields, epochs, aim, trials))
        used = [epochs_used for epochs_used, _ in found]
        reached = sum(got for _, got in found)
        rows.append((name, statistics.median(used), statistics.mean(used), min(used), max(used), reached))
        print(f"  {name}: {used}", flush=True)
    print(f"\n{'':16s} {'median':>7s} {'mean':>7s} {'least':>6s} {'most':>6s}  reached   grid / median")
    for name, median, mean, least, most, reached in rows:
        # where fewer than half reached it, the median counts epochs that were not enough
        ratio = f"{len(mine) * epochs / median:7.2f}" if 2 * reached > options.seeds else "      –"
        print(f"{name:16s} {median:7.0f} {mean:7.1f} {least:6d} {most:6d}  {reached} of {options.seeds}  {ratio}")
    print(
        f"\n{date.today()}, {platform.platform()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
        f"Python {platform.python_version()}, torch {torch.__version__}, optuna {optuna.__version__}"
    )


if __name__ == "__main__":
    main()
