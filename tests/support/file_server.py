"""A web server on this machine, for tests of downloads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest


class Server(BaseHTTPRequestHandler):
    """Serves files from memory, from any byte on; can cut an answer short, once."""

    files: ClassVar[dict[str, bytes]] = {}
    cut_after: ClassVar[dict[str, int]] = {}
    headers_of: ClassVar[dict[str, dict[str, str]]] = {}
    """Of the answer for a file, in the place of the right ones."""
    asked: ClassVar[list[tuple[str, str | None]]] = []
    ranges = True

    def do_GET(self) -> None:
        name, wanted = self.path.lstrip("/"), self.headers.get("Range")
        self.asked.append((name, wanted))
        if name not in self.files:
            self.send_error(404)
            return
        content, first = self.files[name], 0
        if wanted and self.ranges:
            first = int(wanted.removeprefix("bytes=").rstrip("-"))
            if first >= len(content):
                self.send_error(416)
                return
        self.send_response(206 if first else 200)
        for header, value in {"Content-Length": str(len(content) - first), **self.headers_of.get(name, {})}.items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(content[first : self.cut_after.pop(name, len(content))])

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of a server on this machine, without files."""
    monkeypatch.setenv("no_proxy", "*")
    for name, empty in (("files", {}), ("cut_after", {}), ("headers_of", {}), ("asked", []), ("ranges", True)):
        monkeypatch.setattr(Server, name, empty)
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()
