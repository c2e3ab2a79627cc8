"""`python -m orchestrator`: the command line."""

import sys

OLDEST = (3, 11)
"""The first version of Python that the code is written for, as in pyproject.toml."""
USAGE = 2
"""The exit code where the command was given to a Python in which the project cannot run, as of other wrong usage."""


def run() -> None:
    """Runs the command line. Ctrl-C ends it without a traceback even while it imports its modules. A Python that is too
    old, or lacks a package that the project needs, is one line."""
    if sys.version_info < OLDEST:
        found, needed = (".".join(map(str, version[:2])) for version in (sys.version_info, OLDEST))
        print(f"error: {sys.executable} is Python {found}, and the project needs {needed} or newer", file=sys.stderr)
        sys.exit(USAGE)
    try:
        from orchestrator.cli.streams import secure

        secure()
        from orchestrator.cli.main import main

        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except ImportError as error:
        from orchestrator.installation import problem

        message = problem(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(USAGE)


if __name__ == "__main__":
    run()
