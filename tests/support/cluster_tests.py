"""Says which tests use the session's cluster; `pytest -n` runs those in one process, as there is one such cluster."""

FOLDER = "tests/end_to_end/"
OTHERS = ("test_cog_protocol.py", "test_two_nodes.py")
"""Of this folder; the first needs no Ray, the second has a cluster of its own."""


def on_cluster(nodeid: str) -> bool:
    file = nodeid.partition("::")[0]
    return file.startswith(FOLDER) and file.removeprefix(FOLDER) not in OTHERS
