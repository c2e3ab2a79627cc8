"""MLflow's UI for its user alone: other local users get nothing, and files outside the artifact root go to nobody."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import Conflict
from orchestrator.tracking.server import Ui, artifact_root, check_reachable, start_ui
from orchestrator.tracking.ui_server import TokenRequired

TOKEN = "a-token-of-this-start"
HOST = (b"host", b"127.0.0.1:5000")


async def inner(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"secret"})
    else:
        await send({"type": "websocket.accept"})


def asked(
    path: str = "/", *headers: tuple[bytes, bytes], query: str = "", method: str = "GET", kind: str = "http"
) -> list[Any]:
    """What a request is answered."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": kind, "path": path, "query_string": query.encode(), "headers": [HOST, *headers], "method": method}
    asyncio.run(TokenRequired(inner, TOKEN, 5000)(scope, None, send))  # type: ignore[arg-type]
    return sent


def basic(password: str) -> tuple[bytes, bytes]:
    return b"authorization", b"Basic " + base64.b64encode(f"any:{password}".encode())


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"Bearer wrong")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"Bearer \xff")],
        [(b"authorization", b"Basic ###")],
        [(b"authorization", TOKEN.encode())],
        [basic("wrong")],
        [(b"cookie", b"orchestrator-ui-5000=wrong")],
        [(b"cookie", b"orchestrator-ui-5001=" + TOKEN.encode())],
        [(b"cookie", b"\x00=;;=")],
    ],
)
def test_without_the_token_every_request_is_refused(headers: list[tuple[bytes, bytes]]) -> None:
    for method, path, query in (
        ("GET", "/", ""), ("GET", "/health", ""), ("GET", "/", "token=wrong"), ("GET", "/", "token="),
        ("POST", "/api/2.0/mlflow/experiments/create", ""), ("OPTIONS", "/api/2.0/mlflow/runs/search", ""),
        ("DELETE", "/api/2.0/mlflow-artifacts/artifacts/x", ""),
    ):  # fmt: skip
        start, body = asked(path, *headers, query=query, method=method)
        assert start["status"] == 401
        assert b"secret" not in body["body"]
    assert asked("/", *headers, kind="websocket") == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(
    "header",
    [
        (b"authorization", b"Bearer " + TOKEN.encode()),
        (b"Authorization", b"bearer " + TOKEN.encode()),
        basic(TOKEN),
        (b"cookie", b"other=1; orchestrator-ui-5000=" + TOKEN.encode()),
    ],
)
def test_with_the_token_requests_are_passed_on(header: tuple[bytes, bytes]) -> None:
    assert asked("/", header)[1]["body"] == b"secret"
    assert asked("/api/x", header, (b"origin", b"http://127.0.0.1:5000"), method="POST")[0]["status"] == 200
    for origin in (b"http://127.0.0.1:6000", b"https://evil.example", b"null"):
        assert asked("/api/x", header, (b"origin", origin), method="POST")[0]["status"] == 403
    assert asked("/", header, kind="websocket") == [{"type": "websocket.accept"}]


def test_one_click_sets_a_cookie_and_takes_the_token_out_of_the_address() -> None:
    for path, to in (("/", "/?a=1"), ("//evil.example/x", "/evil.example/x?a=1")):
        start = asked(path, query=f"a=1&token={TOKEN}")[0]
        headers = dict(start["headers"])
        assert (start["status"], headers[b"location"].decode()) == (303, to)
        assert headers[b"set-cookie"].decode() == f"orchestrator-ui-5000={TOKEN}; Path=/; HttpOnly; SameSite=Lax"
        assert headers[b"referrer-policy"] == b"no-referrer"


# The real server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its name has what means something in an address."""
    return tmp_path_factory.mktemp("ui") / "a%20b #c?d&e+f;é"


@pytest.fixture(scope="module")
def ui(folder: Path, migrated: Path) -> Iterator[Ui]:
    from orchestrator.settings import sqlite_url

    folder.mkdir()
    shutil.copy(migrated, folder / "mlflow.db")
    with (folder / "ui.log").open("wb") as log:
        served = start_ui(sqlite_url(folder / "mlflow.db"), folder, 0, log)
        try:
            until = time.monotonic() + 120
            while not served.answers():
                assert served.process.poll() is None, (folder / "ui.log").read_text()
                assert time.monotonic() < until
                time.sleep(0.1)
            yield served
        finally:
            served.end()
    assert served.process.poll() is not None


def call(ui: Ui, path: str, body: Any = None, token: str | None = None, method: str | None = None) -> tuple[int, bytes]:
    """(status, content) of a request."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(ui.address + path, data, method=method)
    request.add_header("Content-Type", "application/json")
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def made(ui: Ui, name: str, location: str | None = None) -> tuple[str, Path]:
    """A run in a new experiment, and its folder."""
    wanted = {"name": name, **({"artifact_location": location} if location else {})}
    experiment = json.loads(call(ui, "/api/2.0/mlflow/experiments/create", wanted, ui.token)[1])["experiment_id"]
    body = {"experiment_id": experiment, "start_time": 1}
    run = json.loads(call(ui, "/api/2.0/mlflow/runs/create", body, ui.token)[1])["run"]["info"]
    return run["run_id"], Path(urllib.parse.unquote(urllib.parse.urlsplit(run["artifact_uri"]).path))


def test_another_local_user_can_do_nothing(ui: Ui) -> None:
    for token in (None, "", "wrong", ui.token[:-1]):
        assert call(ui, "/", token=token)[0] == 401
        assert call(ui, "/health", token=token)[0] == 401
        assert call(ui, "/api/2.0/mlflow/experiments/search?max_results=1", token=token)[0] == 401
        create = {"name": "theirs", "artifact_location": "file:///etc"}
        assert call(ui, "/api/2.0/mlflow/experiments/create", create, token)[0] == 401
        assert call(ui, "/api/2.0/mlflow/experiments/delete", {"experiment_id": "0"}, token)[0] == 401
        assert call(ui, "/api/2.0/mlflow-artifacts/artifacts/x", b"theirs", token, "PUT")[0] == 401
    assert call(ui, "/", token=ui.token)[0] == 200
    names = call(ui, "/api/2.0/mlflow/experiments/search?max_results=100", token=ui.token)
    assert names[0] == 200
    assert b"theirs" not in names[1]


def test_the_whole_address_opens_the_ui_with_one_click(ui: Ui) -> None:
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with browser.open(ui.link, timeout=30) as page:
        assert page.status == 200
        assert page.url == f"{ui.address}/"
        assert b"<title>MLflow</title>" in page.read()
    with browser.open(f"{ui.address}/api/2.0/mlflow/experiments/search?max_results=1", timeout=30) as answer:
        assert answer.status == 200


def test_artifacts_come_from_the_root_alone(ui: Ui, folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key.txt").write_text("PRIVATE KEY")
    root = artifact_root(folder)

    ours, place = made(ui, "ours", (root / "ours").as_uri())
    assert place.is_relative_to(root)
    place.mkdir(parents=True)
    (place / "own.txt").write_text("own")
    (place / "inner.txt").symlink_to(place / "own.txt")
    (place / "link.txt").symlink_to(secret / "key.txt")
    (place / "linked").symlink_to(secret)
    assert call(ui, f"/get-artifact?path=own.txt&run_id={ours}", token=ui.token) == (200, b"own")
    assert call(ui, f"/get-artifact?path=inner.txt&run_id={ours}", token=ui.token) == (200, b"own")
    listed = json.loads(call(ui, f"/api/2.0/mlflow/artifacts/list?run_id={ours}", token=ui.token)[1])["files"]
    assert [file["path"] for file in listed] == ["inner.txt", "own.txt"]

    theirs, _ = made(ui, "elsewhere", secret.as_uri())
    (root / "jump").symlink_to(secret)
    (secret / "key.txt").with_name(theirs).mkdir()
    (secret / theirs / "artifacts").mkdir()
    (secret / theirs / "artifacts" / "key.txt").write_text("PRIVATE KEY")
    assert call(ui, f"/get-artifact?path=own.txt&run_id={ours}")[0] == 401
    for path in (
        f"/get-artifact?path=link.txt&run_id={ours}",
        f"/get-artifact?path=linked/key.txt&run_id={ours}",
        f"/get-artifact?path=key.txt&run_id={theirs}",
        f"/api/2.0/mlflow/artifacts/list?run_id={theirs}",
        f"/api/2.0/mlflow/artifacts/list?run_id={ours}&path=linked",
        "/api/2.0/mlflow-artifacts/artifacts/jump/key.txt",
        "/api/2.0/mlflow-artifacts/artifacts?path=jump",
        "/api/2.0/mlflow-artifacts/artifacts/../secret/key.txt",
    ):
        status, content = call(ui, path, token=ui.token)
        assert status >= 400, path
        assert b"PRIVATE" not in content
        assert b"key.txt" not in content, path
    assert call(ui, "/api/2.0/mlflow-artifacts/artifacts/jump/new.txt", b"x", ui.token, "PUT")[0] >= 400
    assert call(ui, "/api/2.0/mlflow-artifacts/artifacts/jump/key.txt", None, ui.token, "DELETE")[0] >= 400
    assert sorted(path.name for path in secret.iterdir()) == sorted(["key.txt", theirs])
    assert call(ui, "/api/2.0/mlflow-artifacts/artifacts/fine.txt", b"x", ui.token, "PUT")[0] == 200
    assert (root / "fine.txt").read_bytes() == b"x"


def test_the_token_is_in_no_command_line_and_no_log(ui: Ui, folder: Path) -> None:
    assert ui.token.encode() not in Path(f"/proc/{ui.process.pid}/cmdline").read_bytes()
    assert ui.token not in (folder / "ui.log").read_text()
    assert len(ui.token) >= 40


def test_a_taken_port_is_a_conflict(ui: Ui, tmp_path: Path) -> None:
    port = int(ui.address.rpartition(":")[2])
    with (tmp_path / "log").open("wb") as log, pytest.raises(Conflict, match=f"port {port} is in use"):
        start_ui("sqlite:///unused.db", tmp_path, port, log)


def test_a_new_database_of_mlflow_is_private(tmp_path: Path) -> None:
    check_reachable(f"sqlite:///{tmp_path}/a%23b/mlflow.db")
    file = tmp_path / "a#b" / "mlflow.db"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@pytest.mark.usefixtures("signals_as_in_a_terminal")
def test_the_command_prints_the_address_and_ends_with_ctrl_c(migrated: Path, tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    shutil.copy(migrated, folder / "mlflow.db")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "ORCH"))}
    command = ["-m", "orchestrator", "ui", "--runs", str(folder), "--port", "0", "--address", "elsewhere:6379"]
    process = subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        said = []
        while not said or not said[-1].startswith("Ctrl-C"):
            said.append(process.stderr.readline())
            assert said[-1], said
        link = said[0].removeprefix("MLflow UI:").strip()
        address, _, token = link.partition("/?token=")
        assert len(token) >= 40
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(address, timeout=30)
        browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        assert browser.open(link, timeout=30).status == 200
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    finally:
        process.kill()
    with pytest.raises(urllib.error.URLError, match="refused"):
        urllib.request.urlopen(address, timeout=30)


@pytest.mark.parametrize("token", [None, "", "fifteen letters"])
def test_a_service_without_a_good_token_does_not_start(token: str | None, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_TOKEN"}
    environment |= {} if token is None else {"MLFLOW_TRACKING_TOKEN": token}
    command = [sys.executable, "-m", "orchestrator.tracking.ui_server", "--port", "0", "--folder", str(tmp_path / "x")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        "error: set MLFLOW_TRACKING_TOKEN to at least 16 characters, here and for every client"
    )
    assert not (tmp_path / "x").exists()
