"""A read-only server of a fixed list of paths for each run, for browsers on this machine only."""

import json
import re
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from threading import BoundedSemaphore
from typing import Any, NamedTuple

from sqn_rl.errors import SettingError, SqnError, explain, require
from sqn_rl.watch.folder import WatchedFolder
from sqn_rl.watch.run import WatchedRun

ADDRESS, HTTP = "127.0.0.1", 80
CONNECTIONS, SECONDS = 32, 10.0
"""The most requests that are answered at once, and the timeout of a silent connection."""
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Page(NamedTuple):
    """The content at a path."""

    kind: str
    """The media type."""
    read: Callable[[], bytes]
    """Makes the content, when it is requested."""


class WatchServer(ThreadingTCPServer):
    """Serves the page of a run, or of a folder and of each run in it, on the loopback interface.

    Args:
        shown: the run or folder to show.
        port: the port to listen on; 0 takes a free one.

    Raises:
        SettingError: the port is in use.
    """

    allow_reuse_address, daemon_threads = True, True

    def __init__(self, shown: WatchedRun | WatchedFolder, port: int) -> None:
        require(0 <= port < 2**16, "port", port, "a number from 0 (any that is free) to 65535")
        self._shown = shown
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            raise SettingError("port", port, f"one that is free ({error.strerror})") from error
        port = self.server_address[1]
        names = (ADDRESS, "localhost")
        self.hosts = {f"{name}:{port}" for name in names} | ({*names} if port == HTTP else set())
        self._free = BoundedSemaphore(CONNECTIONS)
        self.url = f"http://{ADDRESS}:{port}/"

    def page(self, path: str) -> Page | None:
        """The page at a path; None if there is none.

        Raises:
            SqnError: the path leads to a run that cannot be read.
        """
        shown, name = self._shown, path.removeprefix("/")
        if isinstance(shown, WatchedFolder):
            if not (found := re.fullmatch(r"run/([0-9a-f]{16})/([a-z.]*)", name)):
                return _pages_of_folder(shown).get(name)
            name = found[2]
            if name in FILES_OF_RUN:  # these can show what is wrong with a run
                return FILES_OF_RUN[name] if shown.has(found[1]) else None
            run = shown.run(found[1])
        else:
            run = shown
        return (FILES_OF_RUN | _pages_of_run(run)).get(name) if run else None

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


def _file(name: str) -> Page:
    kind = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}[Path(name).suffix]
    return Page(f"{kind}; charset=utf-8", Path(__file__).with_name(name).read_bytes)


SHARED = {name: _file(name) for name in ("shared.js", "page.css")}
FILES_OF_RUN = {"": _file("page.html"), "page.js": _file("page.js"), **SHARED}
FILES_OF_FOLDER = {"": _file("folder.html"), "folder.js": _file("folder.js"), **SHARED}


def _pages_of_run(run: WatchedRun) -> dict[str, Page]:
    return {
        "data.json": Page("application/json", lambda: _json(run.state())),
        "graph.svg": Page("image/svg+xml", lambda: run.graph().encode()),
        "film.gif": Page("image/gif", lambda: run.film(dark=False)),
        "film.dark.gif": Page("image/gif", lambda: run.film(dark=True)),
    }


def _pages_of_folder(folder: WatchedFolder) -> dict[str, Page]:
    return FILES_OF_FOLDER | {"data.json": Page("application/json", lambda: _json(folder.state()))}


def _json(state: dict[str, Any]) -> bytes:
    return json.dumps(state, allow_nan=False).encode()


class _Handler(BaseHTTPRequestHandler):
    server: WatchServer
    timeout = SECONDS

    def do_GET(self) -> None:
        """Answer requests for the listed paths, if the Host header is this server's."""
        if self.headers["Host"] not in self.server.hosts:  # another site's name that resolves to this address
            return self._answer(403, "text/plain", b"not this host")
        try:
            page = self.server.page(self.path.partition("?")[0])
            if page is None:
                return self._answer(404, "text/plain", b"no such page")
            return self._answer(200, page.kind, page.read())
        except ConnectionError:
            return None  # the browser has closed the connection
        except Exception as error:
            text = str(error) if isinstance(error, SqnError) else explain(error)
            return self._answer(500, "text/plain; charset=utf-8", text.encode(errors="backslashreplace"))

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
        """Log nothing."""
