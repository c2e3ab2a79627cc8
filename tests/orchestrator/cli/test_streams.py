"""A command goes on when nobody reads what it prints, and Ctrl-C ends it without a traceback at any time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from orchestrator.cli.streams import output_may_be_unread, secure
secure()
from orchestrator.cli.options import say
{}
"""


def run(body: str, shell: str = '"$PYTHON" -c "$PROGRAM"') -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PROGRAM": PROGRAM.format(body), "PYTHON": sys.executable}
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {shell}"], capture_output=True, text=True, env=environment, check=False
    )


LOUD = "for n in range(20000): say(f'line {n}')\nprint('end')\nsys.exit(5)"


def test_a_reader_of_messages_that_leaves_ends_nothing(tmp_path: Path) -> None:
    """`submit |& head -1`, and with the table going elsewhere."""
    code = tmp_path / "code"
    done = run(LOUD, f'{{ "$PYTHON" -c "$PROGRAM" > {tmp_path}/table; echo $? > {code}; }} |& head -1')
    assert (done.stdout, done.stderr) == ("line 0\n", "")
    assert (code.read_text(), (tmp_path / "table").read_text()) == ("5\n", "end\n")
    both = LOUD.replace("print('end')", "with output_may_be_unread():\n    print('end')")
    done = run(both, f'{{ "$PYTHON" -c "$PROGRAM"; echo $? > {code}; }} |& head -1')
    assert (done.stdout, done.stderr) == ("line 0\n", "")
    assert code.read_text() == "5\n"


def test_a_table_that_nobody_reads_is_dropped(tmp_path: Path) -> None:
    body = "with output_may_be_unread():\n    print('x' * 10**6, flush=True)\nsay('state')\nsys.exit(5)"
    done = run(body, f'{{ "$PYTHON" -c "$PROGRAM" 2> {tmp_path}/err; echo $? > {tmp_path}/code; }} | head -c 1')
    assert (done.stdout, (tmp_path / "code").read_text()) == ("x", "5\n")
    assert (tmp_path / "err").read_text() == "state\n"


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", "2>&- >&- <&-"])
def test_closed_streams_are_opened_so_that_no_file_gets_their_number(closed: str, tmp_path: Path) -> None:
    body = f"file = open({str(tmp_path / 'data')!r}, 'w')\nprint('table')\nsay('words')\nfile.close()\nsys.exit(5)"
    done = run(body, f'"$PYTHON" -c "$PROGRAM" {closed}')
    assert done.returncode == 5
    assert (tmp_path / "data").read_text() == ""
    assert done.stdout == ("" if ">&-" in closed.replace("2>&-", "") else "table\n")
    assert done.stderr == ("" if "2>&-" in closed else "words\n")


@pytest.mark.usefixtures("signals_as_in_a_terminal")
def test_ctrl_c_while_modules_are_imported(tmp_path: Path) -> None:
    """A module that is imported late waits; the signal comes then."""
    (tmp_path / "click.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", ""), str(Path(__file__).parents[3])])
    done = subprocess.run(
        [sys.executable, "-m", "orchestrator", "status"], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    assert done.returncode != -signal.SIGINT
