"""The process behind `ui`: MLflow's own UI and API, for whoever has the token of this start and nobody else.

For `ui` it reads its orders as one line of JSON from standard input (see `server.start_ui`), listens on a socket that
it was given, and ends when standard input is closed. As a service of its own (deploy/compose.yaml) it has options, and
the token is that of MLFLOW_TRACKING_TOKEN, which MLflow's clients send:

    MLFLOW_TRACKING_TOKEN=... python -m orchestrator.tracking.ui_server --host 0.0.0.0 --port 5000 --folder /runs
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hmac
import json
import os
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

REFUSED = b"This address needs the token of this start: open the whole address that `ui` printed.\n"


class TokenRequired:
    """Passes a request on if it brings the token: in the address once (which sets a cookie), in that cookie, or as
    Authorization: `Bearer TOKEN`, or `Basic` with it as the password. Every other request gets 401."""

    def __init__(self, app: App, token: str, port: int) -> None:
        self._app = app
        self._token = token.encode()
        self._cookie = f"orchestrator-ui-{port}"  # browsers send a cookie to all ports of a host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope.get("headers", ())}
        query = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        by_address = any(name == "token" and self._is_token(value) for name, value in query)
        if not (by_address or self._has_cookie(headers) or self._is_authorized(headers)):
            await _refuse(scope, send, 401, REFUSED)
        elif b"origin" in headers and headers[b"origin"] != b"http://" + headers.get(b"host", b""):
            # A page of another local server shares our host's cookies, whatever its port.
            await _refuse(scope, send, 403, b"This request comes from another page.\n")
        elif by_address and scope["type"] == "http" and scope["method"] == "GET":
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            await self._redirect(send, "/" + scope["path"].lstrip("/") + (f"?{rest}" if rest else ""))
        else:
            await self._app(scope, receive, send)

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode("utf-8", "replace"), self._token)

    def _has_cookie(self, headers: MutableMapping[bytes, bytes]) -> bool:
        try:
            cookies = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1"))
        except CookieError:
            return False
        return self._cookie in cookies and self._is_token(cookies[self._cookie].value)

    def _is_authorized(self, headers: MutableMapping[bytes, bytes]) -> bool:
        scheme, _, value = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        if scheme.lower() == "basic":
            try:
                value = base64.b64decode(value, validate=True).decode("utf-8", "replace").partition(":")[2]
            except (binascii.Error, ValueError):
                return False
        return scheme.lower() in ("basic", "bearer") and self._is_token(value.strip())

    async def _redirect(self, send: Send, path: str) -> None:
        cookie = f"{self._cookie}={self._token.decode()}; Path=/; HttpOnly; SameSite=Lax"
        headers = [(b"location", path.encode("latin-1", "ignore")), (b"set-cookie", cookie.encode())]
        await _answer(send, 303, b"", [*headers, (b"referrer-policy", b"no-referrer")])


async def _refuse(scope: Scope, send: Send, status: int, text: bytes) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    wanted = [(b"www-authenticate", b'Basic realm="MLflow UI"')] if status == 401 else []
    await _answer(send, status, text, wanted)


async def _answer(send: Send, status: int, text: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    plain = [(b"content-type", b"text/plain"), (b"cache-control", b"no-store")]
    size = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*plain, *size, *headers]})
    await send({"type": "http.response.body", "body": text})


def confine(root: Path) -> None:
    """From now on MLflow, in this process, reads and writes files of artifacts below `root` alone, whatever an
    experiment names as its location and wherever a link leads."""
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
    from mlflow.store.artifact import artifact_repository_registry as registry
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

    inside = root.resolve()

    class ConfinedArtifacts(LocalArtifactRepository):
        """Artifacts in a folder below the root."""

        @property
        def artifact_dir(self) -> str:
            return self._checked("")

        def _checked(self, path: str) -> str:
            whole = os.path.join(str(self._artifact_dir), path) if path else str(self._artifact_dir)
            if not Path(whole).resolve().is_relative_to(inside):
                raise MlflowException(f"artifacts outside of {root} are not served", PERMISSION_DENIED)
            return whole

        def get_local_path(self, artifact_path: str) -> str:
            self._checked(artifact_path)
            return str(super().get_local_path(artifact_path))

        def list_artifacts(self, path: str | None = None) -> list[Any]:
            self._checked(path or "")
            return [info for info in super().list_artifacts(path) if self._is_inside(info.path)]

        def _is_inside(self, path: str) -> bool:
            return Path(self.artifact_dir, path).resolve().is_relative_to(inside)

        def _download_file(self, remote_file_path: str, local_path: str) -> None:
            self._checked(remote_file_path)
            super()._download_file(remote_file_path, local_path)

        def delete_artifacts(self, artifact_path: str | None = None) -> None:
            self._checked(artifact_path or "")
            super().delete_artifacts(artifact_path)

        def download_trace_data(self) -> dict[str, Any]:
            self._checked("traces.json")
            return dict(super().download_trace_data())

    for scheme in ("", "file"):
        registry._artifact_repository_registry.register(scheme, ConfinedArtifacts)


LEAST_TOKEN = 16
"""Characters of a token that others choose."""


@dataclass(frozen=True)
class Orders:
    """What is served, where, and for whom."""

    token: str
    tracking_uri: str
    artifacts: Path
    listening: socket.socket
    ends_with_input: bool


def _orders_of_ui() -> Orders:
    orders = json.loads(sys.stdin.readline())
    listening = socket.socket(fileno=orders["socket"])
    return Orders(orders["token"], orders["tracking_uri"], Path(orders["artifacts"]), listening, True)


def _orders_of_service() -> Orders:
    from orchestrator.settings import sqlite_url
    from orchestrator.tracking.server import artifact_root, check_reachable

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5000)
    parser.add_argument("--folder", type=Path, required=True, help="of mlflow.db and mlartifacts/")
    options = parser.parse_args()
    token = os.environ.get("MLFLOW_TRACKING_TOKEN", "")
    if len(token) < LEAST_TOKEN:
        parser.error(f"set MLFLOW_TRACKING_TOKEN to at least {LEAST_TOKEN} characters, here and for every client")
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((options.host, options.port))
    listening.listen(128)
    folder = options.folder.absolute()
    tracking_uri = sqlite_url(folder / "mlflow.db")
    check_reachable(tracking_uri)
    return Orders(token, tracking_uri, artifact_root(folder), listening, False)


def main() -> None:
    """Serves until standard input is closed, or as a service until it is ended."""
    orders = _orders_of_service() if len(sys.argv) > 1 else _orders_of_ui()
    root = orders.artifacts
    from orchestrator.tracking.server import prepare_process

    prepare_process()
    from mlflow.server import constants

    os.environ.update(
        {
            constants.BACKEND_STORE_URI_ENV_VAR: orders.tracking_uri,
            constants.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
            constants.ARTIFACTS_DESTINATION_ENV_VAR: root.as_uri(),
            constants.SERVE_ARTIFACTS_ENV_VAR: "true",
            "MLFLOW_SERVER_ALLOWED_HOSTS": "localhost,localhost:*,127.0.0.1,127.0.0.1:*",
        }
    )
    confine(root)
    import uvicorn
    from mlflow.server.fastapi_app import app
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(orders.tracking_uri, orders.tracking_uri, "mlflow-artifacts:/")
    guarded = TokenRequired(app, orders.token, orders.listening.getsockname()[1])
    server = uvicorn.Server(uvicorn.Config(guarded, log_level="warning", access_log=False))

    def end_with_input() -> None:
        sys.stdin.read()
        server.should_exit = True

    if orders.ends_with_input:
        threading.Thread(target=end_with_input, daemon=True).start()
    server.run(sockets=[orders.listening])


if __name__ == "__main__":
    main()
