"""Receivers of webhooks: real HTTP servers on this machine, well behaved or told to be otherwise."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import orjson
from gevent import socket
from gevent.pywsgi import WSGIServer
from gevent.queue import Queue
from gevent.server import StreamServer

from tests.program import ROOT

CERTIFICATE: Final = ROOT / "tests" / "tls" / "localhost.pem"
KEY: Final = ROOT / "tests" / "tls" / "localhost.key"
WITHIN: Final = 20.0  # seconds a test waits for what has to come


def server_tls() -> ssl.SSLContext:
    """What a server on localhost needs to be believed."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE, KEY)
    return context


def client_tls() -> ssl.SSLContext:
    """What believes it."""
    return ssl.create_default_context(cafile=str(CERTIFICATE))


@dataclass(frozen=True, slots=True)
class Received:
    """One POST as it arrived. `port` is its sender's, by which connections are told apart."""

    target: str
    headers: Mapping[str, str]
    body: bytes
    port: str

    @property
    def message_id(self) -> str:
        """The same at every attempt."""
        return self.headers["webhook-id"]

    @property
    def document(self) -> Any:
        """The body, read."""
        return orjson.loads(self.body)


Reply = tuple[int, Mapping[str, str]]


class Receiver:
    """Keeps what it receives and answers as it is told: by the replies that are waiting, then by `reply`."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0, *, tls: ssl.SSLContext | None = None) -> None:
        self.received: Queue[Received] = Queue()
        self.replies: list[Reply] = []
        self.reply: Reply = (204, {})
        self._scheme = "https" if tls else "http"
        options: dict[str, Any] = {"ssl_context": tls} if tls else {}
        self._server = WSGIServer((address, port), self._answer, log=None, error_log=None, **options)

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.server_port or 0

    def url(self, path: str = "/hook", host: str = "localhost") -> str:
        """Where to post."""
        return f"{self._scheme}://{host}:{self.port}{path}"

    def next(self) -> Received:
        """What it receives next, waited for."""
        return self.received.get(timeout=WITHIN)

    def take(self, count: int) -> list[Received]:
        """What it receives next, waited for."""
        return [self.next() for _ in range(count)]

    def so_far(self) -> list[Received]:
        """What it has received and nobody has asked for."""
        return [self.received.get() for _ in range(self.received.qsize())]

    def __enter__(self) -> Receiver:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(timeout=0)

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        headers = {
            name.removeprefix("HTTP_").replace("_", "-").lower(): value
            for name, value in environ.items()
            if name.startswith("HTTP_") or name in ("CONTENT_TYPE", "CONTENT_LENGTH")
        }
        target = environ["PATH_INFO"] + (f"?{environ['QUERY_STRING']}" if environ["QUERY_STRING"] else "")
        self.received.put(Received(target, headers, environ["wsgi.input"].read(), environ["REMOTE_PORT"]))
        status, reply = self.replies.pop(0) if self.replies else self.reply
        start(f"{status} {HTTPStatus(status).phrase}", [("Content-Length", "0"), *reply.items()])
        return [b""]


@contextmanager
def serving(handle: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does with each connection what it likes; gives its URL."""

    def _handle(sock: socket.socket, _address: object) -> None:
        with sock, suppress(OSError):
            handle(sock)

    server = StreamServer(("127.0.0.1", 0), _handle)
    server.start()
    try:
        yield f"http://localhost:{server.server_port}/hook"
    finally:
        server.stop(timeout=0)


def read_request(sock: socket.socket) -> bytes:
    """The head of a request, and as much of its body as came with it; nothing when there is none any more."""
    request = b""
    while b"\r\n\r\n" not in request:
        if not (more := sock.recv(4096)):
            return b""
        request += more
    return request
