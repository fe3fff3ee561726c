"""A small HTTP server for what stand-ins answer beside their WebSockets: websockets' own server takes no POST."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any, Final

BODY_AT_MOST: Final = 1 << 20  # bytes
ASK_WITHIN_S: Final = 10.0  # for a client to send its request
LOOK_EVERY_S: Final = 0.02  # for whether to stop: it decides how long stopping takes


@dataclass(frozen=True, slots=True)
class Asked:
    """A request. Names of headers are in lower case."""

    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer in JSON."""

    status: int
    body: bytes


Answer = Callable[[Asked], Reply | None]  # None: the connection ends without an answer


class WebServer(ThreadingTCPServer):
    """Answers each request on a thread of its own, and closes the connection then."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], answer: Answer) -> None:
        super().__init__(address, _Handler)
        self.answer = answer

    def start(self) -> None:
        """Answers from now on."""
        threading.Thread(target=self.serve_forever, args=(LOOK_EVERY_S,), daemon=True).start()

    def stop(self) -> None:
        """Answers no more."""
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves early is no news; anything else is."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: WebServer
    protocol_version = "HTTP/1.1"
    timeout = ASK_WITHIN_S

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.close_connection = True
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > BODY_AT_MOST:
            self.send_error(400)
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        reply = self.server.answer(Asked(self.command, self.path, headers, self.rfile.read(int(length))))
        if reply is not None:
            self.send_response(reply.status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(reply.body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(reply.body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name in the standard library
        """The ledger notes what matters."""
