"""`python -m orchestrator`: the command line."""

import sys


def run() -> None:
    """Runs the command line. Ctrl-C ends it without a traceback even while it imports its modules."""
    try:
        from orchestrator.cli.streams import secure

        secure()
        from orchestrator.cli.main import main

        main()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    run()
