"""No word of a spec or a store leads out of the folder that it belongs to."""

from pathlib import Path

import pytest

from orchestrator.errors import BadInput
from orchestrator.paths import inside
from orchestrator.records.trial_files import trial_folder
from orchestrator.report.publish import folder_of
from orchestrator.settings import settings

OUTSIDE = ("..", ".", "", "/etc", "../x", "x/../../y", "a/b", "x\0y")


def test_names_are_joined() -> None:
    assert inside("runs", "reports", "k12-grid-laptop-12345678") == Path("runs/reports/k12-grid-laptop-12345678")
    assert inside(Path("/a"), "..x", "x..", "~") == Path("/a/..x/x../~")


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_would_lie_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(BadInput, match="is no name of a file or folder in runs: it would lie elsewhere"):
        inside("runs", "reports", name)


def test_reports_and_trials_stay_in_their_folders(tmp_path: Path) -> None:
    where = settings(folder=tmp_path)
    assert folder_of(where, "job-x-1") == tmp_path / "reports" / "job-x-1"
    for job in ("x-a/../../../escaped/p-1", "..", "/etc"):  # as a store of an older version may hold
        with pytest.raises(BadInput, match="it would lie elsewhere"):
            folder_of(where, job)
    assert trial_folder(tmp_path, "ab12") == tmp_path / "trials" / "ab" / "ab12"
    for key in ("../../x", "..", "a/b"):
        with pytest.raises(BadInput, match="it would lie elsewhere"):
            trial_folder(tmp_path, key)
