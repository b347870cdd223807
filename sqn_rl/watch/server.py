"""The server: a fixed list of paths, read only, for browsers on this machine only."""

import json
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from threading import BoundedSemaphore
from typing import Any

from sqn_rl.errors import SettingError, SqnError, blame, require
from sqn_rl.watch.run import WatchedRun

ADDRESS, HTTP = "127.0.0.1", 80
CONNECTIONS, SECONDS = 32, 10.0
"""Requests answered at once, and the timeout of a silent connection."""
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class WatchServer(ThreadingTCPServer):
    """Serves the page of one run on the loopback interface.

    Args:
        run: what to show.
        port: where to listen; 0 takes a free one.

    Raises:
        SettingError: the port is in use.
    """

    allow_reuse_address, daemon_threads = True, True

    def __init__(self, run: WatchedRun, port: int) -> None:
        require(0 <= port < 2**16, "port", port, "a number from 0 (any that is free) to 65535")
        self.pages: dict[str, tuple[str, Callable[[], bytes]]] = {
            "/": ("text/html; charset=utf-8", _file("page.html")),
            "/page.js": ("text/javascript; charset=utf-8", _file("page.js")),
            "/page.css": ("text/css; charset=utf-8", _file("page.css")),
            "/data.json": ("application/json", lambda: json.dumps(run.state(), allow_nan=False).encode()),
            "/graph.svg": ("image/svg+xml", lambda: run.graph().encode()),
            "/film.gif": ("image/gif", run.film),
        }
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            raise SettingError("port", port, f"one that is free ({error.strerror})") from error
        port = self.server_address[1]
        names = (ADDRESS, "localhost")
        self.hosts = {f"{name}:{port}" for name in names} | ({*names} if port == HTTP else set())
        self._free = BoundedSemaphore(CONNECTIONS)
        self.url = f"http://{ADDRESS}:{port}/"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread; close the connection if too many are being answered."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, in its thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()


def _file(name: str) -> Callable[[], bytes]:
    return Path(__file__).with_name(name).read_bytes


class _Handler(BaseHTTPRequestHandler):
    server: WatchServer
    timeout = SECONDS

    def do_GET(self) -> None:
        """Answer requests for the listed paths, if the Host header is this server's."""
        path = self.path.partition("?")[0]
        if self.headers["Host"] not in self.server.hosts:  # another site's name that leads here
            self._answer(403, "text/plain", b"not this host")
        elif path not in self.server.pages:
            self._answer(404, "text/plain", b"no such page")
        else:
            kind, read = self.server.pages[path]
            try:
                self._answer(200, kind, read())
            except ConnectionError:
                pass  # it has gone
            except Exception as error:
                text = str(error) if isinstance(error, SqnError) else blame(error)
                self._answer(500, "text/plain; charset=utf-8", text.encode())

    def _answer(self, code: int, kind: str, body: bytes) -> None:
        tag = f'"{sha256(body).hexdigest()[:32]}"'
        if code == 200 and self.headers["If-None-Match"] == tag:
            code, body = 304, b""
        self.send_response(code)
        headers = {"Content-Type": kind, "Content-Length": str(len(body)), "ETag": tag}
        for name, value in (HEADERS | headers).items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""
