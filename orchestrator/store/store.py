"""Opens the store: jobs, trials and their results in one SQL database."""

from __future__ import annotations

from orchestrator.errors import Conflict, NotFound
from orchestrator.settings import Settings
from orchestrator.store.choices import Choices
from orchestrator.store.claims import Claims
from orchestrator.store.database import Database, connect, look
from orchestrator.store.jobs import Jobs
from orchestrator.store.leases import Leases
from orchestrator.store.lineage import Lineage
from orchestrator.store.measured import Measured
from orchestrator.store.progress import TrialProgress
from orchestrator.store.search_log import SearchLog
from orchestrator.store.tracked_runs import TrackedRuns
from orchestrator.store.trials import Trials
from orchestrator.store.weights import Weights


class Store:
    """One object for each subject, all over one database.

    Every method of these objects is one transaction. Times are seconds since 1970 (UTC) by the database's clock.
    """

    def __init__(self, database: Database) -> None:
        self._db = database
        self.jobs = Jobs(database)
        self.trials = Trials(database)
        self.progress = TrialProgress(database)
        self.choices = Choices(database)
        self.claims = Claims(database)
        self.leases = Leases(database)
        self.search_log = SearchLog(database)
        self.lineage = Lineage(database)
        self.measured = Measured(database)
        self.weights = Weights(database)
        self.tracked_runs = TrackedRuns(database)

    def find_trial(self, name: str) -> str:
        """The key of the trial with this name, or whose key starts so; or of the only trial of a group (stage/group).
        Raises NotFound, and Conflict where several fit."""
        try:
            return self.trials.find(name)
        except NotFound:
            if "/" not in name:
                raise
            job, stage, group = self.progress.find_group(name)
        keys = [trial.key for trial in self.trials.placed(job, stage) if trial.group == group]
        if len(keys) == 1:
            return keys[0]
        raise Conflict(f"{name} is a group of {len(keys)} trials: name one (python -m orchestrator trials {name})")

    def close(self) -> None:
        """Closes all connections to the database."""
        self._db.close()


def open_store(url: str, create: bool = True) -> Store:
    """Opens the store at sqlite:///FILE or postgresql://..., and creates or migrates it if needed.

    Raises NotFound (`create` is False and there is no store), BackendUnreachable (no answer, read-only, disk full, a
    network file system), Conflict (written by a newer version).
    """
    return Store(connect(url, create))


def open_existing(where: Settings) -> Store:
    """Opens the store that these settings name, to write it. Raises NotFound if there is none, BackendUnreachable."""
    try:
        return open_store(where.database_url, create=False)
    except NotFound as error:
        raise _none_here(error) from error


def open_to_look(where: Settings) -> Store:
    """Opens the store that these settings name, to read it: the right to read is enough, and so is a full disk.

    Raises NotFound if there is none, BackendUnreachable.
    """
    try:
        return Store(look(where.database_url))
    except NotFound as error:
        raise _none_here(error) from error


def _none_here(error: NotFound) -> NotFound:
    return NotFound(f"{error}\nNo jobs here yet. To look elsewhere, set --runs or DATABASE_URL.")
