"""Says which tests use the session's cluster; `pytest -n` runs those in one process, as there is one such cluster."""

FOLDER = "tests/end_to_end/"
OTHERS = ("test_cog_protocol.py",)
"""Of this folder: it needs no Ray."""


def on_cluster(nodeid: str) -> bool:
    file = nodeid.partition("::")[0]
    return file.startswith(FOLDER) and file.removeprefix(FOLDER) not in OTHERS
