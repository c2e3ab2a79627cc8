"""A small made-up study in a real store: two data sets, two initial weights, pretrain, grid, refine, final in seeds.

Figures come from a formula, so tests can say what the report must show. Nothing here trains anything.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.records.rows import ChoiceRow, JobRecord, MeasurementRow, MetricRow, Placement, TrackedRun
from orchestrator.records.writes import Failed, Finished, Reported, Write
from orchestrator.rules.selection import Candidate, axis_values, best, edges
from orchestrator.spec.job import JobSpec
from orchestrator.store.leases import driver_here
from orchestrator.store.store import Store

LRS = (1.25e-4, 2.64e-4, 5.59e-4, 1.18e-3, 2.5e-3)
DECAYS = (0.75, 0.85, 0.95)
EPOCHS = 8
TIES = ["figure:loss:min", "optim.lr:min", "optim.layer_decay:max", "backbone.drop_path:min"]
AXES = ["optim.lr", "optim.layer_decay"]
PEAK = {"RAND": (1.18e-3, 0.95), "SUP": (2.64e-4, 0.75)}
"""Where the made-up figures are best: inside the grid in lr; decay on an edge for both."""


METRICS = (
    MetricRow("top1", "top-1 accuracy", "higher", "%", 100.0, 1, "error rate"),
    MetricRow("loss", "loss", "lower"),
)
DEPTH = (
    MetricRow("rmse", "RMSE", "lower", "m", 1.0, 3),
    MetricRow("delta1", "δ < 1.25", "higher", "%", 100.0, 1, "part beyond 1.25"),
    MetricRow("loss", "loss", "lower"),
)
"""Of a study of depth: chosen by an error in metres."""

Ended = tuple[Placement, list[Write]]


@dataclass(frozen=True)
class Plot:
    """What goes wrong in the study, and what its things are called."""

    data_sets: tuple[str, ...] = ("digits", "faces")
    name: str = "k12-grid"
    failed_grid: tuple[str, ...] = ()
    """Groups of which one grid trial fails."""
    diverged_grid: tuple[str, ...] = ()
    """Groups of which the two trials with the largest lr at decay 0.85 and 0.95 diverge."""
    final_state: Mapping[str, str] = field(default_factory=dict)
    """group -> running, pending, failed or diverged, for the last seed of its final trials."""
    seeds: tuple[int, ...] = (0, 1, 2)
    reference: Mapping[str, Mapping[str, float]] | None = None
    averages: tuple[Mapping[str, Any], ...] = ({"name": "Average"},)
    figures: tuple[str, ...] = ()
    """Figures of the table; none: the one that trials are chosen by."""
    plots: tuple[Mapping[str, Any], ...] = ()
    metrics: tuple[MetricRow, ...] = METRICS
    splits: tuple[str, str] = ("val", "test")
    """What settings are chosen on, and what the final trials are measured on."""
    dirty: bool = False
    grid_seeds: tuple[int, ...] = (0,)
    """Of each setting of the grid and of the neighbourhood."""
    noise: float = 0.0
    """Largest deviation from the formula, drawn for each setting and seed."""
    diverged_seed: tuple[str, ...] = ()
    """Groups of which the last seed of the grid's first setting diverges."""
    initial: str = ""
    """Of SUP: `run`: all trials start from one pre-training; `own`: each from that of its seed; `checkpoint`: from a
    file. Empty: the recorded specs say nothing."""
    images: int = 0
    """Images that a final trial says that its top-1 accuracy is a share of."""
    lrs: tuple[float, ...] = LRS
    decays: tuple[float, ...] = DECAYS
    claims: tuple[Mapping[str, Any], ...] = ()
    final_values: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """group -> accuracy of its final trials, one for each seed; without it, by the formula."""
    rows: Callable[[str, int], Sequence[MeasurementRow]] = lambda group, seed: ()
    """(group, seed) -> measurements of a final trial."""

    @property
    def metric(self) -> MetricRow:
        return self.metrics[0]

    @property
    def mode(self) -> str:
        return "max" if self.metric.better == "higher" else "min"

    def measured(self, accuracy: float) -> dict[str, float]:
        """The figures of a trial of this accuracy (of depth: an error of as many metres as it lacks to 1)."""
        error = round(1 - accuracy, 6)
        return {m.name: accuracy if m.better == "higher" else error for m in self.metrics}


def spec_of(plot: Plot) -> dict[str, Any]:
    """The job's JSON as the store keeps it."""
    inits = [{"kind": "none", "name": "RAND"}, {"kind": "stage", "name": "SUP", "stage": "pretrain"}]
    job = JobSpec.model_validate(
        {
            "name": plot.name,
            "profile": "laptop",
            "trial": {
                "task": {"kind": "classify", "dataset": "digits", "train": "train", "evaluate": "val"},
                "backbone": {"model": "tiny", "image_size": 16, "init": inits[0]},
                "optim": {"lr": 1e-3, "batch": 64},
                "seed": 0,
            },
            "stages": [
                {"name": "pretrain", "override": {"task.dataset": "digits-pretrain"}},
                {
                    "name": "grid",
                    "sweep": {
                        "grid": {
                            "task.dataset": list(plot.data_sets),
                            "backbone.init": inits,
                            "optim.lr": list(plot.lrs),
                            "optim.layer_decay": list(plot.decays),
                        }
                    },
                    "per": ["task.dataset", "backbone.init"],
                },
                {
                    "name": "refine",
                    "from": ["grid"],
                    "neighbourhood": {
                        "near": {
                            "optim.lr": {"multiply": [0.7, 1.4]},
                            "optim.layer_decay": {"add": [-0.05, 0.05], "high": 1.0},
                            "backbone.drop_path": {"add": [0.1]},
                        }
                    },
                },
                {
                    "name": "final",
                    "from": ["grid", "refine"],
                    "sweep": {"grid": {"seed": list(plot.seeds)}},
                    "override": {"task.train": "trainval", "task.evaluate": "test"},
                },
            ],
            "report": {
                "averages": list(plot.averages),
                "reference": {"source": "Table 1 of a paper", "values": plot.reference} if plot.reference else None,
                "caption": "Fine-tuning from two initial weights",
                **({"figures": list(plot.figures)} if plot.figures else {}),
                **({"plots": list(plot.plots)} if plot.plots else {}),
            },
            "claims": list(plot.claims),
        }
    )
    return job.model_dump(mode="json", by_alias=True)


def accuracy(group: str, lr: float, decay: float, drop: float = 0.0, seed: int = 0) -> float:
    """A made-up accuracy, a fraction of one."""
    init = group.rpartition("/")[2]
    lr_best, decay_best = PEAK[init]
    away = 0.05 * math.log(lr / lr_best) ** 2 + 1.5 * abs(decay - decay_best) + 0.2 * drop
    return round((0.9 if init == "RAND" else 0.96) - away + 0.002 * seed, 6)


class Study:
    """Fills a store as a driver would."""

    def __init__(self, store: Store, plot: Plot) -> None:
        self.store = store
        self.plot = plot
        self.spec = spec_of(plot)
        self.job_id = f"{plot.name}-laptop-{_hash(self.spec)[:8]}"
        self.groups = [f"{data_set}/{init}" for data_set in plot.data_sets for init in ("RAND", "SUP")]
        self.ran: dict[str, list[tuple[Placement, dict[str, float]]]] = {}
        """group -> trials that ended with a result."""
        self.pretrained: dict[int, str] = {}
        """Seed -> key of its pre-training."""
        store.jobs.put(
            JobRecord(
                id=self.job_id,
                name=plot.name,
                profile="laptop",
                spec=self.spec,
                spec_text="name: k12-grid\n",
                git_commit="0123456789abcdef",
                git_dirty=plot.dirty,
                versions={"torch": "2.14.0", "timm": "1.0.31"},
            )
        )
        store.jobs.put_stages(self.job_id, [(s["name"], n, s) for n, s in enumerate(self.spec["stages"])])
        self.driver = driver_here("driver-1", self.job_id, "local", slots=2)
        store.leases.register(self.driver)

    def run(self) -> str:
        """All stages, as far as the plot lets them come; returns the job's id."""
        self.pretrain()
        for group in self.groups:
            self.grid(group)
            if group not in self.plot.failed_grid:
                self.refine(group)
                self.final(group)
        self.store.jobs.set_state(self.job_id, "incomplete" if self.plot.failed_grid else "done")
        self.store.leases.unregister(self.driver.id)
        return self.job_id

    def pretrain(self) -> None:
        seeds = self.plot.seeds if self.plot.initial == "own" else (0,)
        places = [self.placement("pretrain", "all", n, {}, seed, "all") for n, seed in enumerate(seeds)]
        self.end([(place, self.finished(place, self.plot.measured(0.93))) for place in places])
        self.pretrained = {place.seed: place.key for place in places}

    def grid(self, group: str) -> None:
        ended: list[Ended] = []
        points = [
            (lr, decay, seed) for lr in self.plot.lrs for decay in self.plot.decays for seed in self.plot.grid_seeds
        ]
        for n, (lr, decay, seed) in enumerate(points):
            place = self.placement("grid", group, n, {"optim.lr": lr, "optim.layer_decay": decay}, seed)
            if group in self.plot.failed_grid and n == 4:
                ended.append((place, [Failed(place.key, 1, "code", "ValueError: <img> & co\nline 2")]))
            elif group in self.plot.diverged_grid and lr == self.plot.lrs[-1] and decay > 0.8:
                report = Reported(place.key, 1, 1, 10, {"train_loss": math.inf, "lr": 1e-3}, 0.5)
                ended.append((place, [report, Failed(place.key, 1, "diverged", "loss is inf in epoch 2")]))
            elif group in self.plot.diverged_seed and n == len(self.plot.grid_seeds) - 1:
                ended.append((place, [Failed(place.key, 1, "diverged", "loss is inf in epoch 1")]))
            else:
                figures = self.plot.measured(self.value(group, place.settings, seed))
                ended.append((place, self.finished(place, figures)))
        self.end(ended)

    def refine(self, group: str) -> None:
        centre = self.choose("refine", group, ["grid"])
        lr, decay = centre.settings["optim.lr"], centre.settings["optim.layer_decay"]
        moves = [{"optim.lr": lr * 0.7}, {"optim.lr": lr * 1.4}, {"optim.layer_decay": round(decay - 0.05, 3)},
                 {"optim.layer_decay": round(decay + 0.05, 3)}, {"backbone.drop_path": 0.1}]  # fmt: skip
        ended: list[Ended] = []
        for n, (move, seed) in enumerate(itertools.product(moves, self.plot.grid_seeds)):
            place = self.placement("refine", group, n, {**centre.settings, **move}, seed)
            value = self.value(group, place.settings, seed)
            ended.append((place, self.finished(place, self.plot.measured(value))))
        self.end(ended)

    def final(self, group: str) -> None:
        winner = self.choose("final", group, ["grid", "refine"])
        ended: list[Ended] = []
        for n, seed in enumerate(self.plot.seeds):
            place = self.placement("final", group, n, {**winner.settings, "seed": seed}, seed)
            given = self.plot.final_values.get(group)
            value = given[n] if given else self.value(group, place.settings, seed) - 0.01
            state = self.plot.final_state.get(group, "done") if n == len(self.plot.seeds) - 1 else "done"
            writes: Mapping[str, list[Write]] = {
                "done": self.finished(place, self.plot.measured(value), test=True),
                "running": [Reported(place.key, 1, 3, 30, {"train_loss": 0.5}, 0.5)],
                "pending": [],
                "failed": [Failed(place.key, 1, "data", "no <such> folder")],
                "diverged": [Failed(place.key, 1, "diverged", "loss is nan in epoch 3")],
            }
            ended.append((place, writes[state]))
        self.end(ended)

    def value(self, group: str, settings: Mapping[str, Any], seed: int) -> float:
        lr, decay, drop = settings["optim.lr"], settings["optim.layer_decay"], settings.get("backbone.drop_path", 0.0)
        drawn = int(_hash([group, lr, decay, drop, seed])[:6], 16) / 0xFFFFFF
        return round(accuracy(group, lr, decay, drop, seed) + self.plot.noise * (2 * drawn - 1), 6)

    def start(self, group: str, seed: int) -> dict[str, Any]:
        """The initial weights of a trial as its spec has them."""
        given = {"kind": "file", "name": "SUP", "path": "sup.safetensors", "sha256": "5" * 64}
        key = self.pretrained.get(seed, self.pretrained.get(0)) if group.endswith("/SUP") else None
        started = {"kind": "trial", "name": "SUP", "trial": key} if key else {"kind": "none", "name": "RAND"}
        return {"backbone": {"init": given if key and self.plot.initial == "checkpoint" else started}}

    def placement(
        self, stage: str, group: str, n: int, settings: Mapping[str, Any], seed: int, label: str = ""
    ) -> Placement:
        data_set, _, init = group.rpartition("/")
        values = {} if label else {"task.dataset": data_set, "backbone.init": init}
        watched = {} if label else {"backbone.drop_path": 0.0}
        everything = {**values, **watched, **settings}
        trial = {"stage": stage, "group": group, "settings": everything, "seed": seed}
        shown = ",".join(f"{path.rpartition('.')[2]}={value:g}" for path, value in settings.items()
                         if isinstance(value, float))  # fmt: skip
        return Placement(
            stage=stage,
            group=group,
            group_values=values,
            key=_hash(trial),
            spec={
                **trial,
                "optim": {"lr": settings.get("optim.lr"), "schedule": "cosine"},
                **(self.start(group, seed) if self.plot.initial else {}),
            },
            settings=everything,
            name="/".join(part for part in (stage, group, shown) if part),
            position=n,
            metric=self.plot.metric.name,
            mode=self.plot.mode,
            seed=seed,
            epochs=EPOCHS,
            metrics=self.plot.metrics,
            split=self.plot.splits[stage == "final"],
        )

    def end(self, ended: list[Ended]) -> None:
        """Places trials, claims those that have something to say, and lets them say it."""
        places = [place for place, _ in ended]
        self.store.trials.place(self.job_id, places)
        self.store.leases.claim(self.driver.id, [place.key for place, writes in ended if writes])
        self.store.trials.commit(self.driver.id, [write for _, writes in ended for write in writes])
        for place, writes in ended:
            for write in writes:
                if isinstance(write, Finished):
                    self.ran.setdefault(place.group, []).append((place, dict(write.figures)))
        self.store.tracked_runs.put(
            self.job_id,
            {(p.stage, p.group, p.key): TrackedRun(run_id=f"run{p.key[:12]}", parent_run_id="parent") for p in places},
        )

    def finished(self, place: Placement, figures: dict[str, float], test: bool = False) -> list[Write]:
        rows: list[Write] = []
        for epoch in range(1, EPOCHS + 1):
            part = epoch / EPOCHS
            drawn = int(_hash([place.key, epoch])[:6], 16) / 0xFFFFFF
            loss = 2.3 * (1 - 0.8 * part) * (1 + 10 * self.plot.noise * (2 * drawn - 1))
            values = {"train_loss": loss, "lr": 1e-3 * (1 - part)}
            if not test:
                factor = part if self.plot.mode == "max" else 1 / part
                values |= figures | {self.plot.metric.name: factor * figures[self.plot.metric.name]}
            rows.append(Reported(place.key, 1, epoch, 10 * epoch, values, 0.5))
        facts = {"host": "laptop", "device": "cpu", "precision": "fp32", "train_seconds": 4.0, "step_seconds": 0.05,
                 "ran_on": [{"from_step": 0, "device": "cpu", "instruction_set": "AVX512", "threads": 1, "workers": 1}],
                 "data_digest": f"digest-of-{place.group.rpartition('/')[0]}",
                 **({"shares": {"top1": self.plot.images}} if test and self.plot.images else {})}  # fmt: skip
        measured = self.plot.rows(place.group, place.seed) if test else ()
        return [*rows, Finished(place.key, 1, figures, facts, measurements=measured)]

    def choose(self, stage: str, group: str, sources: list[str]) -> Candidate:
        ran = [(p, figures) for p, figures in self.ran[group] if p.stage in sources]
        replicates: dict[str, list[tuple[Placement, dict[str, float]]]] = {}
        for place, figures in ran:
            replicates.setdefault(_hash([place.stage, place.settings]), []).append((place, figures))
        candidates = [
            Candidate(each[0][0].key, _means([figures for _, figures in each]), each[0][0].settings)
            for each in replicates.values()
            if len(each) == len(self.plot.grid_seeds)
        ]
        metric, mode = self.plot.metric.name, self.plot.mode
        winner = best(candidates, metric, mode, TIES)
        assert winner is not None
        axes = axis_values([p.settings for p, _ in self.ran[group] if p.stage == "grid"], AXES)
        placed = [
            trial for trial in self.store.trials.placed(self.job_id) if trial.group == group and trial.stage in sources
        ]
        seeds = {"seeds": list(self.plot.grid_seeds)} if len(self.plot.grid_seeds) > 1 else {}
        self.store.choices.record(
            self.job_id,
            ChoiceRow(stage, group, winner.key, winner.figures[metric], metric, edges(winner.settings, axes),
                      {"metric": metric, "mode": mode, "ties": TIES, **seeds},
                      len(placed) // len(self.plot.grid_seeds), sources),
        )  # fmt: skip
        return winner


def _means(figures: list[dict[str, float]]) -> dict[str, float]:
    return {name: math.fsum(each[name] for each in figures) / len(figures) for name in figures[0]}


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
