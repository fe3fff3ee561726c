"""Connections to services that are hostile, half broken, or behind TLS."""

from __future__ import annotations

import ssl
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import sha1
from typing import Any

import gevent
import pytest
from gevent import socket
from gevent.server import StreamServer

from deepgram_client import Deepgram, DeepgramSettings
from relay import connection as connection_module
from relay.connection import Connection, Patience, knock
from relay.errors import Lost, Refused, ServiceError
from relay.events import ServiceLost, Track
from relay.frames import encode
from standins.deepgram import Drop, Fault
from tests.program import ROOT
from tests.talking import BOTH, CALL, HASTE, Hasty, Heard, client_for, client_of, listening, pieces, speak, whole

CERTIFICATE, KEY = ROOT / "tests" / "tls" / "localhost.pem", ROOT / "tests" / "tls" / "localhost.key"


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE, KEY)
    return context


@contextmanager
def serving(handle: Callable[[socket.socket], None], *, tls: bool = False) -> Iterator[str]:
    """A server that does with each connection what it likes; gives its host and port."""

    def _handle(sock: socket.socket, _address: object) -> None:
        with sock, suppress(OSError):
            handle(sock)

    options: dict[str, Any] = {"ssl_context": _context()} if tls else {}
    server = StreamServer(("127.0.0.1", 0), _handle, **options)
    server.start()
    try:
        yield f"localhost:{server.server_port}"
    finally:
        server.stop()


def shake_hands(sock: socket.socket) -> None:
    """Answers a WebSocket handshake as it should be."""
    request = b""
    while not request.endswith(b"\r\n\r\n"):
        request += sock.recv(4096)
    key = next(line.split()[1] for line in request.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
    accept = b64encode(sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    sock.sendall(head + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")


def connect(url: str, patience: Patience = HASTE) -> Connection:
    protocol = Deepgram(DeepgramSettings(api_key="key", url=url)).protocol(CALL, BOTH)
    return Connection("Deepgram", protocol, patience)


def why_not(url: str, patience: Patience = HASTE) -> ServiceError:
    with pytest.raises(ServiceError) as refusal:
        connect(url, patience)
    return refusal.value


def test_a_redirect_is_refused_and_the_key_stays_here() -> None:
    def redirect(sock: socket.socket) -> None:
        sock.recv(4096)
        sock.sendall(b"HTTP/1.1 302 Found\r\nLocation: ws://elsewhere.example/\r\nContent-Length: 0\r\n\r\n")

    with serving(redirect) as host:
        refusal = why_not(f"ws://{host}")
    assert isinstance(refusal, Refused)
    assert "302" in str(refusal)


def test_an_answer_that_is_no_handshake_is_lost() -> None:
    with serving(lambda sock: sock.sendall(b"hello\r\n\r\n")) as host:
        assert isinstance(why_not(f"ws://{host}"), Lost)


def test_a_service_that_never_answers_is_given_up() -> None:
    with serving(lambda _sock: gevent.sleep(60)) as host:
        refusal = why_not(f"ws://{host}", replace(HASTE, connect=0.3))
    assert isinstance(refusal, Lost)
    assert "did not answer within 0.3 s" in str(refusal)


def test_a_certificate_nobody_vouches_for_is_refused_by_name() -> None:
    with serving(lambda sock: None, tls=True) as host:
        refusal = why_not(f"wss://{host}")
        with pytest.raises(Lost, match="CERTIFICATE"):
            knock(f"wss://{host}")
    assert isinstance(refusal, Refused)
    assert "certificate" in str(refusal)


def test_a_message_without_end_is_refused_by_its_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "LARGEST_ANSWER", 100_000)

    def fragments(sock: socket.socket) -> None:
        shake_hands(sock)
        sock.sendall(bytes((0x01, 126, 0xFF, 0xFF)) + b"x" * 0xFFFF)
        sock.sendall(bytes((0x00, 126, 0xFF, 0xFF)))  # its payload would be waited for
        gevent.sleep(60)

    with serving(fragments) as host, pytest.raises(Lost, match="too large"):
        connect(f"ws://{host}").receive()


def test_a_flooding_service_leaves_other_calls_their_turn() -> None:
    turns = 0

    def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            gevent.sleep(0)

    def flood(sock: socket.socket) -> None:
        shake_hands(sock)
        while True:
            sock.sendall(encode("{}") * 5000)

    with serving(flood) as host:
        connection = connect(f"ws://{host}")
        gevent.sleep(0.05)
        ticker = gevent.spawn(others)
        for _ in range(10_000):
            connection.receive()
        ticker.kill()
        connection.close()
    assert turns >= 100


def test_a_peer_that_pings_and_does_not_read_is_lost_in_time() -> None:
    """Our pongs fill the line; then no frame may follow a torn one, and no wait go on for ever."""

    def ping(sock: socket.socket) -> None:
        shake_hands(sock)
        while True:
            sock.sendall((bytes((0x89, 125)) + b"p" * 125) * 1000)

    with serving(ping) as host:
        connection = connect(f"ws://{host}", replace(HASTE, send=0.3))
        reader = gevent.spawn(connection.receive)
        with gevent.Timeout(20), pytest.raises(Lost):
            while True:
                connection.send(b"\xff" * 1600)
        reader.join(20)
        assert isinstance(reader.exception, Lost)


@contextmanager
def through_tls(url: str) -> Iterator[str]:
    """The same service behind TLS."""
    host, port = url.removeprefix("ws://").split(":")

    def carry(source: socket.socket, target: socket.socket) -> None:
        with target, suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)

    def relay(sock: socket.socket) -> None:
        with socket.create_connection((host, int(port))) as service:
            gevent.joinall([gevent.spawn(carry, sock, service), gevent.spawn(carry, service, sock)])

    with serving(relay, tls=True) as address:
        yield f"wss://{address}"


def test_no_word_is_lost_over_tls_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBSOCKET_CLIENT_CA_BUNDLE", str(CERTIFICATE))
    with listening(Fault(drop=Drop(5_000, "reset"))) as server, through_tls(server.url) as url:
        heard = Heard()
        service = Hasty(Deepgram(DeepgramSettings(api_key="key", url=url)))
        client = client_of(service, heard)
        speak(client, BOTH, 10_000)
        client.close()
    assert len(heard.of(ServiceLost)) == 1
    for track in BOTH:
        assert heard.frames(track) == whole(10_000)


def test_a_proxy_is_not_asked_for_this_very_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with listening() as server:
        heard = Heard()
        client = client_for(server, heard, (Track.INBOUND,))
        for piece in pieces((Track.INBOUND,), 0, 1_000):
            client.send(piece)
        client.close()
    assert heard.frames(Track.INBOUND) == whole(1_000)
