"""The media socket on real sockets: by the book, with published clients, and with clients that mean harm."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from queue import Queue
from typing import Any, cast

import gevent
import pytest
import websocket
import websockets.sync.client
from gevent.event import Event
from gevent.pywsgi import WSGIServer
from gevent.socket import SHUT_WR, SO_LINGER, SO_RCVBUF, SO_SNDBUF, SOL_SOCKET, create_connection, socket, socketpair
from geventwebsocket.exceptions import WebSocketError
from geventwebsocket.handler import WebSocketHandler

from relay import mediasocket
from relay.frames import Close, Ping, encode, encode_close, encode_pong
from relay.mediasocket import REST_AFTER, MediaSocket, MediaSocketHandler
from tests.test_frames import (
    BINARY,
    CLOSE,
    CONFORMANCE,
    CONTINUATION,
    LARGEST,
    PING,
    PONG,
    TEXT,
    Case,
    announced,
    close,
    frame,
)

PATIENCE = 10  # seconds after which a test is stuck, not slow
KEY = base64.b64encode(b"sixteen bytes ok").decode()
HANDSHAKE = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}

Serve = Callable[[MediaSocket], None]
both_handlers = pytest.mark.parametrize("handler", [WebSocketHandler, MediaSocketHandler])


@pytest.fixture(autouse=True)
def no_tracebacks(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Whatever clients do, nothing is printed."""
    yield
    assert capfd.readouterr().err == ""


def echo(socket: MediaSocket) -> None:
    while (message := socket.receive(timeout=PATIENCE)) is not None:
        socket.send(message)


class Server:
    """A WSGI server whose WebSockets are served by `serve`; how each ended is put into `ended`."""

    def __init__(self, serve: Serve, handler: type[WebSocketHandler], largest: int) -> None:
        self.ended: Queue[MediaSocket] = Queue()
        self._serve = serve
        self._largest = largest
        self.wsgi = WSGIServer(("127.0.0.1", 0), self._app, handler_class=handler, log=None)
        self.wsgi.start()
        self.address: tuple[str, int] = self.wsgi.socket.getsockname()
        self.url = f"ws://127.0.0.1:{self.address[1]}/"

    def _app(self, environ: dict[str, Any], start_response: Callable[..., object]) -> list[bytes]:
        if environ.get("wsgi.websocket") is None:
            start_response("200 OK", [])
            return [b"plain " + environ["REQUEST_METHOD"].encode()]
        media = MediaSocket.over(environ["wsgi.websocket"], self._largest)
        try:
            self._serve(media)
        finally:
            self.ended.put(media)
        return []

    def end(self) -> tuple[int | None, str]:
        """The code and reason of the next connection that ended."""
        media = self.ended.get(timeout=PATIENCE)
        return media.close_code, media.close_reason

    def stop(self) -> None:
        self.wsgi.stop(timeout=1)


@contextmanager
def serving(
    serve: Serve = echo, *, handler: type[WebSocketHandler] = MediaSocketHandler, largest: int = LARGEST
) -> Iterator[Server]:
    server = Server(serve, handler, largest)
    try:
        yield server
    finally:
        server.stop()


def request(headers: Mapping[str, str], line: str = "GET / HTTP/1.1") -> bytes:
    return "\r\n".join([line, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode("latin-1")


class Peer:
    """A client down to its bytes."""

    def __init__(self, server: Server, early: bytes = b"", buffer: int | None = None) -> None:
        self.socket = socket()
        if buffer is not None:
            self.socket.setsockopt(SOL_SOCKET, SO_RCVBUF, buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(server.address)
        self.socket.sendall(request(HANDSHAKE) + early)
        self._file = self.socket.makefile("rb")
        assert b" 101 " in self._file.readline()
        while self._file.readline().strip():
            pass

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.socket.close()

    def send(self, wire: bytes) -> None:
        self.socket.sendall(wire)

    def frame(self) -> tuple[int, bytes] | None:
        """The next frame's opcode and payload, or None at the end."""
        header = self._file.read(2)
        if not header:
            return None
        assert header[0] & 0xF0 == 0x80, "whole, without reserved bits"
        assert header[1] < 128, "not masked"
        width = {126: 2, 127: 8}.get(header[1], 0)
        length = int.from_bytes(self._file.read(width)) if width else header[1]
        payload = self._file.read(length)
        assert len(payload) == length
        return header[0] & 0x0F, payload

    def frames(self) -> list[tuple[int, bytes]]:
        """All that come, until the server hangs up."""
        return list(iter(self.frame, None))

    def reset(self) -> None:
        """Vanishes without a word."""
        reset(self.socket)
        self._file.close()


def reset(sock: socket) -> None:
    sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@contextmanager
def pair(largest: int = LARGEST) -> Iterator[tuple[MediaSocket, socket]]:
    """A media socket and the other end of its wire, without a server."""
    ours, theirs = socketpair()
    theirs.settimeout(PATIENCE)
    with ours, theirs:
        yield MediaSocket(ours, largest=largest), theirs


# --- By the book ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def echoing() -> Iterator[Server]:
    with serving() as server:
        yield server


def answers(case: Case) -> tuple[list[bytes], list[bytes], int]:
    """What an echo answers to a case and a normal close: pongs (which may overtake), messages, and its own close."""
    pongs = [encode_pong(item.payload) for item in case.means if isinstance(item, Ping)]
    messages = [encode(item) for item in case.means if isinstance(item, str | bytes)]
    end = case.means[-1]
    code = end.code if isinstance(end, Close) else end if isinstance(end, int) else 1000
    return pongs, messages, code


@pytest.mark.parametrize("case", CONFORMANCE, ids=lambda case: case.name)
def test_a_server_answers_by_the_book(case: Case, echoing: Server) -> None:
    pongs, messages, code = answers(case)
    with Peer(echoing) as peer:
        peer.send(case.wire + close(1000))
        *frames, (last, payload) = peer.frames()
    assert [encode_pong(data) for opcode, data in frames if opcode == PONG] == pongs
    assert [encode(data.decode() if opcode == TEXT else data) for opcode, data in frames if opcode != PONG] == messages
    assert last == CLOSE
    assert payload[:2] == encode_close(code)[2:]
    assert echoing.end()[0] == code


# --- With published clients ----------------------------------------------------------------------------------------


@both_handlers
def test_websockets_is_served(handler: type[WebSocketHandler]) -> None:
    with serving(handler=handler) as server, websockets.sync.client.connect(server.url, compression=None) as client:
        for message in ("hello", "κόσμε 🙂", b"\x00\xff", "x" * LARGEST):
            client.send(message)
            assert client.recv(timeout=PATIENCE) == message
        client.send(["in ", "three ", "fragments"])
        assert client.recv(timeout=PATIENCE) == "in three fragments"
        assert client.ping(b"there?").wait(PATIENCE)
        client.close(4001, "done")
        assert server.end() == (4001, "The peer closed the connection: 'done'.")


@both_handlers
def test_websocket_client_is_served(handler: type[WebSocketHandler]) -> None:
    with serving(handler=handler) as server:
        client = websocket.create_connection(server.url, timeout=PATIENCE)
        for message in ("hello", "κόσμε 🙂", "x" * LARGEST):
            client.send(message)
            assert client.recv() == message
        client.send_binary(b"\x00\xff")
        assert client.recv() == b"\x00\xff"
        client.ping(b"there?")
        opcode, pong = client.recv_data_frame(control_frame=True)
        assert (opcode, pong.data) == (PONG, b"there?")
        client.close()
        assert server.end() == (1000, "The peer closed the connection.")


@both_handlers
def test_published_clients_hear_our_close(handler: type[WebSocketHandler]) -> None:
    with serving(lambda media: media.close(4002, "enough"), handler=handler) as server:
        with websockets.sync.client.connect(server.url) as client:
            with pytest.raises(websockets.ConnectionClosedError) as closed:
                client.recv(timeout=PATIENCE)
            assert closed.value.rcvd == websockets.frames.Close(4002, "enough")
        assert server.end() == (4002, "We closed the connection: enough.")


# --- Taking over ---------------------------------------------------------------------------------------------------


@both_handlers
def test_what_came_with_the_handshake_is_not_lost(handler: type[WebSocketHandler]) -> None:
    early = [f"message {i} of those that did not wait" for i in range(500)]
    wire = b"".join(frame(TEXT, text.encode()) for text in early)
    assert len(wire) > 2 * 8192, "more than the handler's buffer holds"
    with serving(handler=handler) as server, Peer(server, early=wire + close(1000)) as peer:
        *frames, last = peer.frames()
        assert frames == [(TEXT, text.encode()) for text in early]
        assert last == (CLOSE, b"\x03\xe8")


@both_handlers
def test_the_stock_object_never_speaks_again(handler: type[WebSocketHandler]) -> None:
    stock: list[Any] = []

    def app(environ: dict[str, Any], _: object) -> list[bytes]:
        stock.append(environ["wsgi.websocket"])
        media = MediaSocket.over(environ["wsgi.websocket"])
        stock[0].close()
        with pytest.raises(WebSocketError):
            stock[0].receive()
        with pytest.raises(WebSocketError):
            stock[0].send("from the grave")
        stock[0].__del__()
        echo(media)
        stock[0].close()
        return []

    with serving(handler=handler) as server:
        server.wsgi.application = app
        with Peer(server) as peer:
            peer.send(frame(TEXT, b"hello") + close(4000))
            assert peer.frames() == [(TEXT, b"hello"), (CLOSE, b"\x0f\xa0")]


@both_handlers
def test_an_app_that_just_returns_has_closed(handler: type[WebSocketHandler]) -> None:
    with serving(lambda media: None, handler=handler) as server, Peer(server) as peer:
        assert peer.frames() == [(CLOSE, b"\x03\xe8")]


# --- Receiving -----------------------------------------------------------------------------------------------------


def test_messages_come_before_the_close_behind_them() -> None:
    with pair() as (media, wire):
        wire.sendall(frame(TEXT, b"media") + frame(TEXT, b"stop") + close(1000))
        assert [media.receive(), media.closed] == ["media", False]
        assert [media.receive(), media.closed] == ["stop", False]
        wire.shutdown(SHUT_WR)
        assert [media.receive(), media.closed] == [None, True]
        assert media.receive() is None


def test_silence_is_a_timeout_and_no_end() -> None:
    with pair() as (media, wire):
        with pytest.raises(TimeoutError):
            media.receive(timeout=0.02)
        with pytest.raises(TimeoutError):
            media.receive(timeout=0)
        wire.sendall(frame(TEXT, b"sorry, I am late"))
        assert media.receive(timeout=0) == "sorry, I am late"
        assert not media.closed


def test_a_trickle_does_not_put_the_deadline_off() -> None:
    def trickle() -> None:
        wire.sendall(announced(BINARY, LARGEST))
        while True:
            wire.sendall(b"x")
            gevent.sleep(0.01)

    with pair() as (media, wire):
        trickling = gevent.spawn(trickle)
        with pytest.raises(TimeoutError):
            media.receive(timeout=0.1)
        trickling.kill()


@pytest.mark.parametrize("noise", [frame(PONG), frame(CONTINUATION, last=False)], ids=["pongs", "fragments"])
def test_endless_noise_does_not_put_the_deadline_off(noise: bytes) -> None:
    """A read that never waits is never interrupted, so the deadline has to be looked at besides."""

    class Hose:
        def settimeout(self, seconds: float | None) -> None:
            pass

        def recv(self, size: int) -> bytes:
            return noise * (size // len(noise))

    media = MediaSocket(cast(socket, Hose()), early=frame(TEXT, last=False))
    with pytest.raises(TimeoutError):
        media.receive(timeout=0.05)


def test_a_message_may_come_byte_by_byte() -> None:
    with serving() as server, Peer(server) as peer:
        for byte in frame(TEXT, "ein Wort für dich".encode()):
            peer.send(bytes((byte,)))
            gevent.sleep(0)
        assert peer.frame() == (TEXT, "ein Wort für dich".encode())


def test_a_full_socket_leaves_others_their_turn() -> None:
    """Its reads never wait, and who never waits never yields (gevent switches only in a wait)."""
    turns = 0

    def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            gevent.sleep(0)

    with pair() as (media, wire):
        wire.setsockopt(SOL_SOCKET, SO_SNDBUF, 1 << 20)
        messages = 50 * REST_AFTER
        wire.sendall(frame(TEXT, b"x") * messages)
        other = gevent.spawn(others)
        for _ in range(messages):
            assert media.receive(timeout=PATIENCE) == "x"
        other.kill()
        assert turns >= 50


def test_a_foreign_timeout_passes_through() -> None:
    with pair() as (media, _), pytest.raises(gevent.Timeout), gevent.Timeout(0.02):
        media.receive(timeout=PATIENCE)


@pytest.mark.parametrize("largest", [1 << 24, LARGEST])
def test_a_message_of_16_mib_is_a_matter_of_the_limit(largest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mediasocket, "SEND_WITHIN", float(PATIENCE))
    message = bytes(range(256)) * (1 << 16)
    wire = announced(BINARY, len(message), key=bytes(4)) + message
    with serving(largest=largest) as server, Peer(server) as peer:
        sending = gevent.spawn(suppressed, OSError, peer.send, wire)
        first = peer.frame()
        sending.kill()
        if largest == len(message):
            assert first == (BINARY, message)
        else:
            assert first == (CLOSE, encode_close(1009, f"a message is longer than {LARGEST} bytes")[2:])


def without_end(act: Callable[..., object], *args: object) -> None:
    while True:
        act(*args)


def suppressed(error: type[Exception], act: Callable[..., object], *args: object) -> None:
    with suppress(error):
        act(*args)


# --- Ends ----------------------------------------------------------------------------------------------------------


def test_a_peer_that_hangs_up_is_gone() -> None:
    with serving() as server, Peer(server) as peer:
        peer.socket.shutdown(SHUT_WR)
        assert server.end() == (1006, "The peer vanished without a close frame.")


def test_a_peer_that_vanishes_is_gone() -> None:
    with serving() as server:
        peer = Peer(server)
        peer.send(frame(TEXT, b"half a frame")[:7])
        peer.reset()
        assert server.end() == (1006, "The peer vanished without a close frame.")


def test_why_it_ended_is_one_printable_line() -> None:
    with pair() as (media, wire):
        wire.sendall(close(4000, "bye\r\nERROR all is lost \u202e".encode()))
        wire.shutdown(SHUT_WR)
        assert media.receive() is None
        assert media.close_reason == r"The peer closed the connection: 'bye\r\nERROR all is lost \u202e'."


def test_a_violation_is_named_to_both_sides() -> None:
    with serving() as server, Peer(server) as peer:
        peer.send(frame(TEXT, b"good") + frame(TEXT, b"\xff"))
        assert peer.frames() == [(TEXT, b"good"), (CLOSE, b"\x03\xefa text is not UTF-8")]
        peer.socket.shutdown(SHUT_WR)
        assert server.end() == (1007, "The peer broke the protocol: a text is not UTF-8.")


def test_a_close_frame_outlives_what_is_still_coming(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hung up on at once, the kernel would answer the rest with a reset, and the reset destroy the close frame."""
    monkeypatch.setattr(mediasocket, "LINGER_FOR", float(PATIENCE))
    with serving() as server, Peer(server) as peer:
        peer.send(announced(BINARY, 1 << 31) + bytes(500_000))
        gevent.sleep(0)
        peer.send(bytes(100_000))
        [(opcode, payload)] = peer.frames()
        assert (opcode, payload[:2]) == (CLOSE, b"\x03\xf1")


def test_a_peer_that_will_not_hang_up_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mediasocket, "LINGER_FOR", 0.05)
    with pair() as (media, wire), gevent.Timeout(PATIENCE):
        media.close(1001, "going away")
        assert wire.recv(100) == encode_close(1001, "going away")
        assert wire.recv(100) == b""
        with pytest.raises(BrokenPipeError):
            wire.sendall(b"I have so much more to say")


def test_a_peer_that_will_not_stop_is_not_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mediasocket, "LINGER_FOR", float(PATIENCE))
    monkeypatch.setattr(mediasocket, "LINGER_BYTES", 1 << 18)
    with pair() as (media, wire):
        flood = gevent.spawn(suppressed, OSError, wire.sendall, bytes(1 << 24))
        with gevent.Timeout(PATIENCE / 2):
            media.close()
        flood.get(timeout=PATIENCE)


def test_closing_wakes_the_receiver_and_tells_the_peer() -> None:
    started = Event()

    def serve(media: MediaSocket) -> None:
        gevent.spawn(closer, media)
        started.set()
        assert media.receive(timeout=PATIENCE) is None

    def closer(media: MediaSocket) -> None:
        started.wait(PATIENCE)
        media.close(1001, "shutting down")

    with serving(serve) as server, Peer(server) as peer:
        assert server.end() == (1001, "We closed the connection: shutting down.")
        assert peer.frames() == [(CLOSE, b"\x03\xe9shutting down")]


def test_the_receiver_is_woken_before_the_peer_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mediasocket, "LINGER_FOR", float(PATIENCE))
    with pair() as (media, wire):
        receiving = gevent.spawn(media.receive)
        gevent.sleep(0)
        closing = gevent.spawn(media.close)
        assert receiving.get(timeout=PATIENCE / 2) is None
        assert not closing.ready()
        wire.close()
        closing.get(timeout=PATIENCE)


def test_closing_drops_what_nobody_asked_for_yet() -> None:
    with pair() as (media, wire):
        wire.sendall(frame(TEXT, b"one") + frame(TEXT, b"two"))
        assert media.receive() == "one"
        wire.shutdown(SHUT_WR)
        media.close()
        assert media.receive() is None


def test_a_connection_ends_once() -> None:
    with pair() as (media, wire):
        wire.shutdown(SHUT_WR)
        media.close(4000, "first")
        media.close(4001, "second")
        assert (media.close_code, media.close_reason) == (4000, "We closed the connection: first.")
        assert wire.recv(100) == encode_close(4000, "first")
        assert wire.recv(100) == b""
        with pytest.raises(WebSocketError, match="first"):
            media.send("too late")


def test_a_close_that_cannot_be_said_is_not_begun() -> None:
    with pair() as (media, wire):
        with pytest.raises(ValueError, match="1006"):
            media.close(1006)
        media.send("still open")
        assert wire.recv(100) == encode("still open")


# --- Sending -------------------------------------------------------------------------------------------------------


def test_two_writers_take_turns_at_a_slow_reader() -> None:
    messages = [bytes((65 + i % 26,)) * (20_000 + i) for i in range(60)]

    def serve(media: MediaSocket) -> None:
        media._socket.setsockopt(SOL_SOCKET, SO_SNDBUF, 4096)
        writers = [gevent.spawn(write, media, messages[start::3]) for start in range(3)]
        gevent.joinall(writers, raise_error=True)

    def write(media: MediaSocket, own: list[bytes]) -> None:
        for message in own:
            media.send(message)

    with serving(serve) as server, Peer(server, buffer=4096) as peer:
        *frames, last = peer.frames()
        assert sorted(frames) == sorted((BINARY, message) for message in messages)
        assert last == (CLOSE, b"\x03\xe8")


def test_a_peer_that_never_reads_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mediasocket, "SEND_WITHIN", 0.1)

    def write(media: MediaSocket) -> str:
        with pytest.raises(WebSocketError) as refused:
            without_end(media.send, bytes(50_000))
        return str(refused.value)

    with pair() as (media, _):
        receiving = gevent.spawn(media.receive)
        writers = [gevent.spawn(write, media) for _ in range(3)]
        reasons = {writer.get(timeout=PATIENCE) for writer in writers}
        assert reasons == {"The peer did not read for 0.1 s."}
        assert receiving.get(timeout=PATIENCE) is None
        assert (media.close_code, media.close_reason) == (1006, "The peer did not read for 0.1 s.")


def test_pings_without_end_and_without_reading_end_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mediasocket, "SEND_WITHIN", 0.1)
    with serving() as server, Peer(server, buffer=4096) as peer:
        with pytest.raises(OSError, match=r"reset|pipe"):
            without_end(peer.send, frame(PING, b"p" * 125) * 1000)
        assert server.end() == (1006, "The peer did not read for 0.1 s.")


def test_all_pings_of_one_read_are_answered_in_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    with pair() as (media, wire):
        writes: list[bytes] = []
        monkeypatch.setattr(media, "_write", writes.append)
        wire.sendall(frame(PING, b"1") + frame(TEXT, b"x") + frame(PING, b"2"))
        assert media.receive() == "x"
        assert writes == [encode_pong(b"1") + encode_pong(b"2")]


def test_nothing_follows_half_a_frame() -> None:
    """A writer that was stopped halfway leaves bytes on the wire that no other frame may continue."""
    with pair() as (media, wire):
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.05):
            media.send(bytes(1 << 24))
        reading = gevent.spawn(read_to_the_end, wire)
        with pytest.raises(WebSocketError, match="half written"):
            media.send("more")
        media.close()
        assert media.close_code == 1006
        sent = reading.get(timeout=PATIENCE)
        assert sent == encode(bytes(1 << 24))[: len(sent)]


def read_to_the_end(wire: socket) -> bytes:
    return b"".join(iter(lambda: wire.recv(1 << 16), b""))


def test_a_peer_that_left_cannot_be_sent_to() -> None:
    with pair() as (media, wire):
        wire.close()
        with pytest.raises(WebSocketError, match="vanished"):
            media.send("anyone?")
        assert media.close_code == 1006


# --- The handshake -------------------------------------------------------------------------------------------------


def answer(server: Server, wire: bytes) -> tuple[int, dict[str, str], str]:
    """Status, headers and body of the answer to these bytes; the server has to hang up after it."""
    with create_connection(server.address) as client:
        client.settimeout(PATIENCE)
        client.sendall(wire)
        head, _, body = read_to_the_end(client).decode("latin-1").partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, body


@pytest.mark.parametrize(
    "key",
    [
        "",
        "x",
        "short",
        "not base64 at all!!!!!!!",
        "=" * 24,
        "\xff" * 24,
        KEY[:-2],
        KEY + "AAAA",
        f"{KEY}, {KEY}",
        KEY[:-1] + "!",
    ],
)
def test_a_broken_key_is_refused_in_plain_words(key: str, echoing: Server) -> None:
    status, headers, body = answer(echoing, request(HANDSHAKE | {"Sec-WebSocket-Key": key}))
    assert (status, body) == (400, "Sec-WebSocket-Key is not 16 bytes in base64.")
    assert headers["connection"] == "close"


def test_a_missing_key_is_refused(echoing: Server) -> None:
    headers = {name: value for name, value in HANDSHAKE.items() if name != "Sec-WebSocket-Key"}
    assert answer(echoing, request(headers))[0] == 400


def test_an_older_http_is_refused(echoing: Server) -> None:
    status, _, body = answer(echoing, request(HANDSHAKE, "GET / HTTP/1.0"))
    assert (status, body) == (400, "A WebSocket handshake takes HTTP/1.1.")


@pytest.mark.parametrize("version", [None, "", "7", "8", "12", "14", "13, 8", "thirteen"])
def test_another_version_is_told_which_is_spoken(version: str | None, echoing: Server) -> None:
    headers = {name: value for name, value in HANDSHAKE.items() if name != "Sec-WebSocket-Version"}
    if version is not None:
        headers["Sec-WebSocket-Version"] = version
    status, answered, _ = answer(echoing, request(headers))
    assert status == 426
    assert answered["sec-websocket-version"] == "13"
    assert answered["upgrade"] == "websocket"


@pytest.mark.parametrize("body", [{"Content-Length": "5"}, {"Transfer-Encoding": "chunked"}])
def test_a_handshake_with_a_body_is_refused(body: dict[str, str], echoing: Server) -> None:
    assert answer(echoing, request(HANDSHAKE | body) + b"hello")[0] == 400


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_requests_are_the_apps(method: str, echoing: Server) -> None:
    client = HTTPConnection(*echoing.address, timeout=PATIENCE)
    headers = {} if method == "GET" else {"Upgrade": "websocket", "Connection": "Upgrade"}
    client.request(method, "/", headers=headers)
    assert client.getresponse().read() == b"plain " + method.encode()
    client.close()


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "a little later"])
@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"GET / HT",
        b"GET /" + b"x" * 10_000,
        request(HANDSHAKE)[:60],
        request(HANDSHAKE),
        request(HANDSHAKE | {"Sec-WebSocket-Key": "x"}),
    ],
    ids=["nothing", "half a line", "too long a line", "half a header", "a handshake", "a bad handshake"],
)
def test_a_client_may_leave_at_any_time(beginning: bytes, at_once: bool) -> None:
    """The fixture above sees to it that no traceback is printed."""
    with serving() as server:
        client = create_connection(server.address)
        client.sendall(beginning)
        if not at_once:
            gevent.sleep(0.02)  # the server waits for the rest, or answers
        reset(client)
        with Peer(server) as peer:
            peer.send(frame(TEXT, b"and the next is served") + close(1000))
            assert peer.frame() == (TEXT, b"and the next is served")
