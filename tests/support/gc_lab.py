"""A store with a job and a storage with its trials' files, for tests of what gc removes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.engine import collector
from orchestrator.engine.collector import Options
from orchestrator.records.rows import ChoiceRow, JobRecord, Placement
from orchestrator.records.states import JobState
from orchestrator.records.trial_files import trial_folder
from orchestrator.records.writes import Failed, Finished, Released, Write
from orchestrator.rules.retention import reasons
from orchestrator.store.leases import driver_here
from orchestrator.store.store import open_store

TIES = ["figure:loss:min", "optim.lr:min"]
SUP = {"kind": "stage", "name": "SUP", "stage": "pretrain"}


def spec(*stages: dict[str, Any]) -> dict[str, Any]:
    """The JSON of a job, as far as the rules read it."""
    filled = [{"from": [], "sweep": {"kind": "one"}, "neighbourhood": None, "ties": TIES, **stage} for stage in stages]
    return {"name": "study", "trial": {}, "stages": filled}


STUDY = spec(
    {"name": "pretrain"},
    {"name": "grid", "sweep": {"grid": [{"backbone.init": [SUP], "optim.lr": [1e-4, 2e-4, 3e-4]}]}},
    {"name": "final", "from": ["grid"], "sweep": {"grid": [{"seed": [0, 1]}]}},
)


class Lab:
    """A store with a job, and a storage in which its trials have left their files."""

    def __init__(self, url: str, folder: Path, job: dict[str, Any] = STUDY, job_id: str = "study-1") -> None:
        self.url, self.storage, self.job_id = url, folder / "storage", job_id
        self.store = open_store(url)
        self.driver = driver_here("gc-test", job_id, "cluster")
        self.add_job(job_id, job)
        self.store.leases.register(self.driver)

    def add_job(self, job_id: str, job: dict[str, Any]) -> None:
        self.store.jobs.put(JobRecord(job_id, "study", "", job, ""))
        self.store.jobs.put_stages(job_id, [(stage["name"], n, stage) for n, stage in enumerate(job["stages"])])

    def place(
        self, stage: str, number: int, parent: str | None = None, job: str = "", group: str = "all",
        spec: dict[str, Any] | None = None,
    ) -> str:  # fmt: skip
        """A pending trial; its key begins with its number."""
        init = {"kind": "none"} if parent is None else {"kind": "trial", "trial": parent}
        key = f"{number:02x}" * 32
        placement = Placement(
            stage=stage, group=group, group_values={}, key=key, spec={"backbone": {"init": init}, **(spec or {})},
            settings={"optim.lr": number * 1e-4}, name=f"{stage}/{group}/{number}", position=number, metric="top1",
            mode="max", seed=0, epochs=10,
        )  # fmt: skip
        self.store.trials.place(job or self.job_id, [placement])
        return key

    def end(self, key: str, how: str, value: float = 0.5, weights: bool = False, loss: float = 0.1) -> str:
        """Runs a placed trial to an end of this kind, with the files that it leaves."""
        folder = self.folder(key)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "log.txt").write_text("begin")
        (folder / "token").write_text("1")
        for step in (10, 20):
            (folder / f"checkpoint-{step:09d}-{'0' * 64}.pt").write_bytes(b"c" * 100)
        token = self.store.leases.claim(self.driver.id, [key], for_weights=True)[key]
        kept = None
        if weights:
            path = folder / "weights.safetensors"
            path.write_bytes(b"w" * 1000)
            kept = (str(path), "a" * 64)
        writes: dict[str, Write | None] = {
            "done": Finished(key, token, {"top1": value, "loss": loss}, {}, kept),
            "diverged": Failed(key, token, "diverged", "loss is nan"),
            "failed": Failed(key, token, "code", "boom"),
            "cancelled": Failed(key, token, "cancelled", ""),
            "pending": Released(key, token, "interrupted"),
            "running": None,
        }
        if (write := writes[how]) is not None:
            self.store.trials.commit(self.driver.id, [write])
        return key

    def run(self, stage: str, number: int, value: float = 0.5, **options: Any) -> str:
        """A done trial with weights."""
        return self.end(self.place(stage, number, **options), "done", value, weights=True)

    def finish(self) -> None:
        """Marks the job as done; its driver leaves."""
        self.store.jobs.set_state(self.job_id, JobState.done)
        self.store.leases.unregister(self.driver.id)

    def folder(self, key: str) -> Path:
        return trial_folder(self.storage, key)

    def weights(self, key: str) -> bool:
        """True if the trial's weights are kept, in the store and in the storage, which must agree."""
        recorded = self.store.trials.snapshots([key])[key].weights is not None
        stored = (self.folder(key) / "weights.safetensors").exists()
        assert recorded == stored
        return stored

    def files(self, key: str) -> set[str]:
        """Names of the files in a trial's folder, up to their first hyphen."""
        return {path.name.split("-")[0] for path in self.folder(key).iterdir()}

    def gc(self, **options: Any) -> collector.Removed:
        """Removes what is not needed."""
        return collector.remove(self.store, self.storage, collector.plan(self.store, self.storage, Options(**options)))

    def kept(self, key: str) -> set[str]:
        """The kinds of reasons for which a trial's weights are kept."""
        return {reason.kind for reason in reasons(self.store.weights.retention_facts()).get(key, [])}


def a_finished_study(lab: Lab) -> None:
    """Pretrain (1), a grid of three (2 to 4, chosen: 3), and a final in two seeds (5, 6), with weights of all."""
    lab.run("pretrain", 1)
    for number, value in ((2, 0.6), (3, 0.8), (4, 0.7)):
        lab.run("grid", number, value, parent=key_of(1))
    lab.store.choices.record(
        lab.job_id, ChoiceRow("final", "all", key_of(3), 0.8, "top1", candidates=3, sources=["grid"])
    )
    for number in (5, 6):
        lab.run("final", number, parent=key_of(1))
    lab.finish()


def key_of(number: int) -> str:
    return f"{number:02x}" * 32
