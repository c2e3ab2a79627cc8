"""What the service logs while a job runs reaches its user, once."""

from __future__ import annotations

import logging

import pytest

from orchestrator.cli.progress import Live


def test_messages_are_printed_while_a_job_runs(capsys: pytest.CaptureFixture[str]) -> None:
    log = logging.getLogger("orchestrator.engine.driver")
    for quiet in (False, True):
        with Live(quiet):
            log.info("stage %s paused", "grid")
            logging.getLogger("workers").info("begin")
        assert capsys.readouterr().err == "stage grid paused\n"
    log.info("after the end")
    assert capsys.readouterr().err == ""
