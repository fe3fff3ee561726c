"""Clients that are slow, or many: they hold nothing, and keep nobody out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic
from urllib.parse import urlsplit

import gevent
import pytest
from gevent.socket import SO_RCVBUF, SOL_SOCKET, create_connection, socket
from werkzeug.wrappers import Request, Response

from relay.settings import Settings
from relay.web import handler as handler_module
from relay.web.server import Server
from tests.calling import Relay, answered, hang_up, relay, say

PATIENCE = 20  # seconds after which a test is stuck, not slow
HURRY = 0.3  # seconds for what takes ten
ASK = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(autouse=True)
def no_tracebacks(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Whatever clients do, nothing is printed."""
    yield
    assert capfd.readouterr().err == ""


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[Relay]:
    """A relay that waits for nobody for long."""
    for name in ("REQUEST_WITHIN", "IDLE_FOR", "SEND_WITHIN"):
        monkeypatch.setattr(handler_module, name, HURRY)
    with relay() as running:
        yield running


class Client:
    """A client down to its bytes."""

    def __init__(self, url: str, first: bytes = b"", buffer: int | None = None) -> None:
        parts = urlsplit(url)
        self.socket: socket = create_connection((parts.hostname, parts.port), timeout=PATIENCE)
        if buffer is not None:
            self.socket.setsockopt(SOL_SOCKET, SO_RCVBUF, buffer)
        self.send(first)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def all_that_comes(self) -> bytes:
        """Reads until the server hangs up, by whichever means."""
        said = bytearray()
        with suppress(ConnectionError):
            while data := self.socket.recv(65536):
                said += data
        self.socket.close()
        return bytes(said)

    def status(self) -> int:
        """Of the answer, after which the server hangs up."""
        return int(self.all_that_comes().split()[1])


def drip(client: Client, what: bytes) -> None:
    """Sends it byte by byte, over and over, until nobody takes it."""
    with suppress(OSError), gevent.Timeout(PATIENCE):
        while True:
            for byte in what:
                client.send(bytes([byte]))
                gevent.sleep(0.01)


def refused(running: Relay, why: str) -> int:
    return running.admission.doorbook.refused[why]


def is_served(running: Relay) -> bool:
    return Client(running.url, ASK + b"Connection: close\r\n\r\n").status() == 200


# --- Deadlines ----------------------------------------------------------------------------------------------------


def test_who_says_nothing_is_hung_up_on(hurried: Relay) -> None:
    assert Client(hurried.url).all_that_comes() == b""


def test_a_request_line_that_does_not_end_is_not_waited_for(hurried: Relay) -> None:
    client = Client(hurried.url, b"GET /hea")
    assert client.all_that_comes() == b""
    assert refused(hurried, "slow") == 1


def test_a_head_that_does_not_end_is_not_waited_for(hurried: Relay) -> None:
    client = Client(hurried.url, ASK)
    dripping = gevent.spawn(drip, client, b"X-A: b\r\n")
    assert client.status() == 408
    assert refused(hurried, "slow") == 1
    dripping.kill()


def test_a_body_that_does_not_come_is_not_waited_for(hurried: Relay) -> None:
    client = Client(hurried.url, b"POST /twiml/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n")
    dripping = gevent.spawn(drip, client, b"CallSid=CA1&")
    assert client.status() == 408
    assert refused(hurried, "slow") == 1
    dripping.kill()


def test_a_silent_connection_is_not_kept(hurried: Relay) -> None:
    client = Client(hurried.url, (ASK + b"\r\n") * 2)
    assert client.all_that_comes().count(b"HTTP/1.1 200 OK") == 2
    assert refused(hurried, "slow") == 0


def test_an_answer_that_nobody_takes_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler_module, "SEND_WITHIN", HURRY)
    with big_answers() as (server, ended):
        client = Client(f"ws://localhost:{server.port}", ASK + b"\r\n", buffer=4096)
        assert ended.wait(PATIENCE)
        client.socket.close()


@contextmanager
def big_answers() -> Iterator[tuple[Server, gevent.event.Event]]:
    """A server with answers of 64 MB, and whether one was given up."""
    ended = gevent.event.Event()

    @Request.application
    def app(_: Request) -> Response:
        answer = Response(bytes(1024 * 1024) for _ in range(64))
        answer.call_on_close(ended.set)
        return answer

    app.extensions = {}  # type: ignore[attr-defined]
    server = Server(app, Settings(port=0))  # type: ignore[arg-type]
    try:
        yield server, ended
    finally:
        server.close()


def test_a_slow_reader_that_reads_gets_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler_module, "SEND_WITHIN", 3.0)
    all_of_it, takes_s = 64 * 1024 * 1024, 4.0
    with big_answers() as (server, _):
        client = Client(f"ws://localhost:{server.port}", ASK + b"Connection: close\r\n\r\n", buffer=65536)
        got, began = 0, monotonic()
        while data := client.socket.recv(1024 * 1024):
            got += len(data)
            gevent.sleep(max(0.0, began + takes_s * got / all_of_it - monotonic()))
        assert got > all_of_it
        client.socket.close()


# --- Bounds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (ASK + b"X: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (ASK + b"X: y\r\n" * 5_000 + b"\r\n", 431),
        (ASK + b"X: y\r\n" * 150 + b"\r\n", 400),
        (b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"POST /twiml HTTP/1.1\r\nHost: localhost\r\nContent-Length: 65537\r\n\r\n", 413),
        (b"POST /twiml HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999999999999999\r\n\r\n", 413),
    ],
)
def test_what_is_too_large_is_not_read(request_: bytes, status: int) -> None:
    with relay() as running:
        assert Client(running.url, request_).status() == status
        assert is_served(running)


def test_a_body_may_be_announced_first() -> None:
    head = b"POST /twiml/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 5\r\n"
    with relay() as running:
        client = Client(running.url, head + b"Expect: 100-continue\r\n\r\n")
        assert client.socket.recv(1024) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"a=b&c")
        assert client.status() == 403


def test_a_flood_of_the_slow_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler_module, "UNFINISHED_MOST", 20)
    monkeypatch.setattr(handler_module, "REQUEST_WITHIN", 10 * PATIENCE)  # so that nothing else hangs up on them
    with relay() as running:
        call = answered(running.url)
        slow = [Client(running.url, part) for part in (b"", b"GET /", ASK) for _ in range(30)]
        assert is_served(running)
        for at_ms in range(0, 1_000, 100):
            say(call, 100, at_ms=at_ms)
            gevent.sleep(0)
        another = answered(running.url)
        say(another, 200)
        hang_up(another)
        hang_up(call)
        assert running.ended(call).frames == 100
        assert running.ended(another).frames == 20
        assert refused(running, "crowd") >= 70
        for client in slow[:70]:
            assert client.all_that_comes() == b""
        for client in slow[70:]:
            client.socket.close()


def test_who_asks_on_and_on_without_waiting_lets_others_be_answered() -> None:
    asked = 500  # at once; the answers fit into the connection's buffers, so nobody has to wait for the client
    with small_answers() as (server, taken):
        greedy, other = (Client(f"ws://localhost:{server.port}", ASK + b"\r\n") for _ in range(2))
        for client in (greedy, other):
            assert client.socket.recv(1024).startswith(b"HTTP/1.1 200")
        greedy.send((ASK + b"\r\n") * asked)
        other.send(ASK + b"Connection: close\r\n\r\n")
        assert other.all_that_comes().startswith(b"HTTP/1.1 200")
        assert len(taken) < asked
        greedy.socket.close()


@contextmanager
def small_answers() -> Iterator[tuple[Server, list[Request]]]:
    """A server that never waits, and the requests it has taken."""
    taken: list[Request] = []

    @Request.application
    def app(request: Request) -> Response:
        taken.append(request)
        return Response()

    app.extensions = {}  # type: ignore[attr-defined]
    server = Server(app, Settings(port=0))  # type: ignore[arg-type]
    try:
        yield server, taken
    finally:
        server.close()


def test_waiting_viewers_and_streams_are_no_unfinished_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler_module, "UNFINISHED_MOST", 2)
    with relay() as running:
        calls = [answered(running.url) for _ in range(5)]
        for call in calls:
            say(call, 200)
            hang_up(call)
            assert running.ended(call).frames == 20
        assert refused(running, "crowd") == 0
