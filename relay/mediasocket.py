"""The server's WebSocket: gevent-websocket shakes hands, then we take its socket over and speak frames ourselves.

gevent-websocket 0.10.1 unmasks and checks UTF-8 in Python loops over the bytes, bounds neither a message nor a wait,
and lets two greenlets write at once. Its handshake, and its place under pywsgi and gunicorn, are as useful as ever:

    def app(environ, start_response):
        socket = MediaSocket.over(environ["wsgi.websocket"])
        while (message := socket.receive(timeout=30)) is not None:
            socket.send(message)
        return []

    WSGIServer(("", 8080), app, handler_class=MediaSocketHandler).serve_forever()
"""

from __future__ import annotations

import base64
import errno
import logging
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from time import monotonic
from typing import Any, ClassVar, Final

import gevent
from gevent.lock import BoundedSemaphore
from gevent.socket import SHUT_WR, socket
from geventwebsocket.exceptions import WebSocketError
from geventwebsocket.handler import WebSocketHandler

from relay import frames
from relay.frames import Close, FrameDecoder, Ping, Pong, Violation

log = logging.getLogger("relay.mediasocket")

LARGEST: Final = 64 * 1024  # bytes in one message; Twilio's have about 400
READ_AT_ONCE: Final = 64 * 1024  # bytes; all that waits on a healthy connection, in one system call
SEND_WITHIN: Final = 5.0  # seconds for a write and those before it; who takes longer has stopped reading
FAREWELL_WITHIN: Final = 1.0  # seconds for writing a close frame
SHORTEST_WAIT: Final = 0.001  # seconds; 0 would mean: never wait
LINGER_FOR: Final = 1.0  # seconds for the peer to read our close frame and hang up
LINGER_BYTES: Final = 1024 * 1024  # at most so much of what it still sends is thrown away meanwhile
REST_AFTER: Final = 64  # messages, or KiB, taken without a pause; then other greenlets have their turn

_GONE: Final = "The peer vanished without a close frame."


class MediaSocket:
    """One client's WebSocket, after the handshake. One greenlet receives; any may send, or close.

    Once `closed`, `close_code` tells how it ended (1005: no code was given; 1006: there was no close frame), and
    `close_reason` why, in a sentence.
    """

    def __init__(self, sock: socket, early: bytes = b"", largest: int = LARGEST) -> None:
        self.closed = False
        self.close_code: int | None = None
        self.close_reason = ""
        self._socket = sock
        self._early = early  # what was read from the socket before it was ours
        self._decoder = FrameDecoder(largest)
        self._inbox: deque[str | bytes | Close | Violation] = deque()  # no more than one read brings
        self._writing = BoundedSemaphore()
        self._torn = False  # half a frame is written; if that write failed, nothing may follow
        self._unrested = 0

    @classmethod
    def over(cls, websocket: Any, largest: int = LARGEST) -> MediaSocket:
        """Takes over the connection of `environ["wsgi.websocket"]`, which never touches it again."""
        handler = websocket.handler
        early = b""
        handler.socket.settimeout(0)  # so that read1 gives what is buffered, or at hand, and does not wait
        with suppress(OSError):
            early = handler.rfile.read1(READ_AT_ONCE)
        handler.socket.settimeout(None)
        websocket.closed = True
        websocket.stream = websocket.raw_read = websocket.raw_write = None
        taken = cls(handler.socket, early, largest)
        handler.websocket = taken  # which it closes when the app returns without having done so
        return taken

    def receive(self, timeout: float | None = None) -> str | bytes | None:
        """The next message; None once the connection is over. TimeoutError if none is whole after `timeout` s."""
        self._await_item(timeout)
        if self.closed:
            return None
        item = self._inbox.popleft()
        if isinstance(item, str | bytes):
            return item
        self._part(item)
        return None

    def receive_all(self, timeout: float | None = None) -> list[str | bytes]:
        """All messages that have come, one at least; none once the connection is over. TimeoutError as `receive`.

        Whoever rests between two calls finds more in each, and a wake-up costs more than reading a message.
        """
        self._await_item(timeout)
        messages: list[str | bytes] = []
        while self._inbox and not self.closed:
            item = self._inbox.popleft()
            if isinstance(item, str | bytes):
                messages.append(item)
                continue
            if messages:
                self._inbox.appendleft(item)
            else:
                self._part(item)
            break
        return messages

    def send(self, message: str | bytes) -> None:
        """Sends one message. WebSocketError if the connection is over, or now is because the peer does not read."""
        if self.closed:
            raise WebSocketError(self.close_reason)
        self._write(frames.encode(message))

    def close(self, code: int = frames.NORMAL, reason: str = "") -> None:
        """Says goodbye and hangs up, within `FAREWELL_WITHIN` and `LINGER_FOR`. Does nothing the second time."""
        farewell = frames.encode_close(code, reason)
        self._end(code, _sentence("We closed the connection", reason), farewell)

    def _await_item(self, timeout: float | None) -> None:
        """Returns when something is in the inbox, or nothing will be."""
        deadline = None if timeout is None else monotonic() + timeout
        self._rest_now_and_then()
        while not self._inbox and not self.closed:
            self._read(deadline)
            self._rest_now_and_then()

    def _rest_now_and_then(self) -> None:
        """Lets others run: a socket that always has more never waits, and gevent switches only in a wait."""
        self._unrested += 1
        if self._unrested > REST_AFTER:
            self._unrested = 0
            gevent.sleep(0)

    def _read(self, deadline: float | None) -> None:
        """Takes in what has come, or waits for it."""
        data, self._early = self._early or self._recv(deadline), b""
        if data:
            self._take_in(data)
        else:
            self._end(frames.ABNORMAL, _GONE)
        idle = not self._inbox and not self.closed
        if idle and deadline is not None and monotonic() >= deadline:  # a recv that never waits is never interrupted
            raise TimeoutError("No message was whole in time.")

    def _take_in(self, data: bytes) -> None:
        """Queues what the bytes complete. Pings are answered at once, all in one write."""
        self._unrested += len(data) // 1024
        pongs = bytearray()
        for item in self._decoder.feed(data):
            if isinstance(item, Ping):
                pongs += frames.encode_pong(item.payload)
            elif not isinstance(item, Pong):
                self._inbox.append(item)
        if pongs:
            with suppress(WebSocketError):
                self._write(bytes(pongs))

    def _recv(self, deadline: float | None) -> bytes:
        """Some bytes, or none when there will be none. The socket's own timeout costs nothing while bytes are there."""
        self._socket.settimeout(None if deadline is None else max(deadline - monotonic(), SHORTEST_WAIT))
        try:
            return self._socket.recv(READ_AT_ONCE)
        except TimeoutError as late:
            if late.errno is not None:  # the network gave up, not we
                return b""
            raise TimeoutError("No message came in time.") from None
        except OSError:
            return b""

    def _write(self, data: bytes) -> None:
        """Writes whole frames; failing that, the connection is over."""
        try:
            self._put(data, within=SEND_WITHIN)
        except OSError as error:
            self._end(frames.ABNORMAL, str(error) if isinstance(error, WebSocketError) else _GONE)
            raise WebSocketError(self.close_reason) from error

    def _put(self, data: bytes, *, within: float) -> None:
        """Writes frames behind those that others are writing."""
        with gevent.Timeout(within, WebSocketError(f"The peer did not read for {within:g} s.")), self._writing:
            if self._torn:
                raise WebSocketError("A frame was left half written.")
            self._torn = True
            self._socket.settimeout(None)  # a reader has set one of its own
            self._socket.sendall(data)
            self._torn = False

    def _part(self, word: Close | Violation) -> None:
        """The peer said goodbye, or nonsense. Either is answered, and is the end."""
        if isinstance(word, Close):
            said = word.reason and repr(word.reason)  # escaped, since it is a stranger's text
            self._end(word.code, _sentence("The peer closed the connection", said), frames.encode_close(word.code))
        else:
            why = _sentence("The peer broke the protocol", word.reason)
            self._end(word.code, why, frames.encode_close(word.code, word.reason))

    def _end(self, code: int, reason: str, farewell: bytes = b"") -> None:
        """Every end comes through here, once: the last word is said, if it can be, and the socket let go."""
        if self.closed:
            return
        self.closed, self.close_code, self.close_reason = True, code, reason
        log.debug("WebSocket over (%d): %s", code, reason)
        said = False
        try:
            if farewell:
                with suppress(OSError):
                    self._put(farewell, within=FAREWELL_WITHIN)
                    said = True
        finally:
            # Detached, it wakes whoever waits on it, and is not closed under our hands when the app returns.
            _hang_up(socket(fileno=self._socket.detach()), lingering=said)


def _hang_up(sock: socket, *, lingering: bool) -> None:
    """Closes; lingering, not before the peer has.

    A socket closed while data is unread, or still coming, resets the connection (RFC 1122, 4.2.2.13), and a reset
    makes the peer's system throw away what the peer has not read yet: our close frame.
    """
    with sock, suppress(OSError), gevent.Timeout(LINGER_FOR, TimeoutError):
        if lingering:
            sock.shutdown(SHUT_WR)
            left = LINGER_BYTES
            while left > 0 and (data := sock.recv(READ_AT_ONCE)):
                left -= len(data)


def _sentence(what: str, reason: str) -> str:
    return f"{what}: {reason}." if reason else f"{what}."


class MediaSocketHandler(WebSocketHandler):  # type: ignore[misc]
    """gevent-websocket's handshake, with a plain refusal where that fails, and no traceback when a client leaves."""

    ignored_socket_errors: ClassVar = (*WebSocketHandler.ignored_socket_errors, errno.ETIMEDOUT)

    def handle(self) -> None:
        try:
            super().handle()
        except (ConnectionError, TimeoutError):
            log.debug("A client left during its request.")

    def _handle_client_error(self, ex: Exception) -> tuple[str, bytes] | None:
        """pywsgi prints a traceback, and answers, when a client is gone in the middle of its headers."""
        if isinstance(ex, ConnectionError | TimeoutError):
            return None
        return super()._handle_client_error(ex)  # type: ignore[no-any-return]

    def upgrade_websocket(self) -> list[bytes] | None:
        if not is_upgrade(self.environ):
            return None
        try:
            self.check_upgrade()
        except UpgradeRefused as refusal:
            return self._refuse(refusal)
        return super().upgrade_websocket()  # type: ignore[no-any-return]

    def check_upgrade(self) -> None:
        """Raises UpgradeRefused for a handshake that is none. A server that knows more may refuse more."""
        _check_handshake(self.environ)

    def _refuse(self, refusal: UpgradeRefused) -> list[bytes]:
        headers = [("Content-Type", "text/plain"), ("Connection", "close")]
        if refusal.status is HTTPStatus.UPGRADE_REQUIRED:  # RFC 6455 4.4, RFC 9110 15.5.22
            headers += [("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
        self.start_response(f"{refusal.status.value} {refusal.status.phrase}", headers)
        return [str(refusal).encode()]


class UpgradeRefused(Exception):
    """A WebSocket is not to be had; the message says why, to whoever asked for it."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def is_upgrade(environ: Mapping[str, Any]) -> bool:
    """Whether a WebSocket is asked for. Other requests are the app's to judge."""
    return (
        environ["REQUEST_METHOD"] == "GET"
        and environ.get("HTTP_UPGRADE", "").lower() == "websocket"
        and "upgrade" in environ.get("HTTP_CONNECTION", "").lower()
    )


def _check_handshake(environ: Mapping[str, Any]) -> None:
    """What a WebSocket handshake has to have (RFC 6455, 4.2.1)."""
    if environ["SERVER_PROTOCOL"] != "HTTP/1.1":
        raise UpgradeRefused(HTTPStatus.BAD_REQUEST, "A WebSocket handshake takes HTTP/1.1.")
    if environ.get("CONTENT_LENGTH", "0") != "0" or "HTTP_TRANSFER_ENCODING" in environ:
        raise UpgradeRefused(HTTPStatus.BAD_REQUEST, "A WebSocket handshake has no body.")
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13":
        raise UpgradeRefused(HTTPStatus.UPGRADE_REQUIRED, "Only version 13 of the WebSocket protocol is spoken here.")
    if not _is_key(environ.get("HTTP_SEC_WEBSOCKET_KEY", "")):
        raise UpgradeRefused(HTTPStatus.BAD_REQUEST, "Sec-WebSocket-Key is not 16 bytes in base64.")


def _is_key(key: str) -> bool:
    try:
        return len(base64.b64decode(key.strip(), validate=True)) == 16
    except ValueError:
        return False
