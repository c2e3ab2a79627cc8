"""Says how many inputs a fuzz test makes: few in the test suite, as many as asked for in `make fuzz`."""

import os


def examples(default: int) -> int:
    return int(os.environ.get("FUZZ_EXAMPLES", default))
