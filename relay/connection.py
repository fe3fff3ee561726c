"""One websocket-client connection to a speech service, with a deadline on every wait.

The only module that knows the library. Its errors leave here as ours, as one sentence without the request's headers.
"""

from __future__ import annotations

import os
import socket
import ssl
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

import gevent
import websocket
from websocket._abnf import frame_buffer

from relay.errors import Lost, Refused, ServiceError, Stalled
from relay.frames import encode_masked
from relay.protocol import Message, SpeechProtocol
from relay.text import printable

SWITCHING_PROTOCOLS: Final = 101  # the HTTP status of a WebSocket that is open
LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "::1")  # never behind a proxy, which the library would try all the same
DIRECTLY: Final = {"http_proxy_host": "none", "http_no_proxy": ["*"]}  # it hears of exceptions only beside a proxy
LARGEST_ANSWER: Final = 16 * 1024 * 1024  # bytes; a transcript has a few thousand, all of a three-hour call millions
SEND_BUFFER: Final = 16 * 1024  # bytes the kernel may hold: with its default of megabytes a stall shows after minutes
READ_AT_ONCE: Final = 16 * 1024  # bytes; a transcript's message and a TLS record both fit
REST_AFTER: Final = 64  # frames read without a pause; then other greenlets have their turn
POLITENESS: Final = 1.0  # seconds we try to say goodbye
ROUND_TRIP: Final = struct.Struct("@68xI")  # of the kernel's tcp_info


@dataclass(frozen=True, slots=True)
class Patience:
    """How long we wait for a speech service, in seconds, before we take its connection for lost."""

    connect: float = 10.0  # for the TCP, TLS and HTTP handshakes together
    send: float = 5.0  # for the kernel to take one message
    answer: float = 10.0  # for any message, once audio has been sent
    ping_after: float = 5.0  # of hearing nothing at all, to ask whether anyone is there
    pong: float = 10.0  # for the answer to that
    drain: float = 10.0  # for the last words, beyond the time the audio itself takes
    ask: float = 20.0  # for what can be asked about a call only after its end
    ask_again: float = 0.5  # between two such questions; doubled each time
    retry_first: float = 0.25  # before the first new attempt; doubled each time
    retry_most: float = 10.0


class _BoundedFrames(frame_buffer):
    """Refuses a message by the sizes its frames' headers announce; the library would wait for all of it."""

    message = 0  # bytes of the one whose fragments are coming

    def recv_length(self) -> None:
        super().recv_length()
        assert self.header is not None
        assert self.length is not None
        is_last, *_, opcode, _has_mask, _length = self.header
        if opcode < websocket.ABNF.OPCODE_CLOSE:
            self.message += self.length
        if self.message > LARGEST_ANSWER or self.length > LARGEST_ANSWER:
            raise websocket.WebSocketProtocolException("message too large")
        if is_last and opcode < websocket.ABNF.OPCODE_CLOSE:
            self.message = 0


class _Socket(websocket.WebSocket):
    """The library's socket, but bounded, and with its close frame's code kept when the peer is gone already."""

    def __init__(self) -> None:
        super().__init__(sockopt=[(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)], skip_utf8_validation=True)
        self.frame_buffer = _BoundedFrames(self._recv, skip_utf8_validation=True)
        self._read_ahead = b""
        self._unrested = 0  # frames

    def recv_frame(self) -> websocket.ABNF:
        """A service that always has more to say never lets us wait, and gevent switches only in a wait."""
        self._unrested += 1
        if self._unrested > REST_AFTER:
            self._unrested = 0
            gevent.sleep(0)
        return super().recv_frame()  # type: ignore[no-untyped-call, no-any-return]

    def _recv(self, bufsize: int) -> bytes:
        """Reads what has come in one go; the library asks for a frame's header, length and payload one by one."""
        while not self._read_ahead:
            with suppress(websocket.WebSocketTimeoutException):  # the socket's timeout is for writing
                self._read_ahead = super()._recv(READ_AT_ONCE)  # type: ignore[no-untyped-call]
        data, self._read_ahead = self._read_ahead[:bufsize], self._read_ahead[bufsize:]
        return data

    def open(self, url: str, headers: Mapping[str, str]) -> None:
        """Connects. No redirect is followed: it would carry the key to another host."""
        proxy = DIRECTLY if urlsplit(url).hostname in LOCAL_HOSTS else {}
        self.connect(url, header=dict(headers), redirect_limit=0, **proxy)  # type: ignore[no-untyped-call]

    def send_close(self, status: int = websocket.STATUS_NORMAL, reason: str | bytes = b"") -> None:
        with suppress(websocket.WebSocketException, OSError):
            super().send_close(status, reason)


class Connection:
    """An open connection. One greenlet may send while another receives; `close` releases both."""

    def __init__(self, name: str, protocol: SpeechProtocol, patience: Patience) -> None:
        """Connects. Raises Refused, Unavailable or Lost."""
        self.last_heard = monotonic()  # when anything came, a pong included
        self._name = name
        self._protocol = protocol
        self._patience = patience
        self._socket = _Socket()
        endpoint = protocol.endpoint()
        try:
            with gevent.Timeout(patience.connect, Lost(f"{name} did not answer within {patience.connect:g} s")):
                self._socket.open(endpoint.url, endpoint.headers)
        except websocket.WebSocketBadStatusException as refusal:
            raise protocol.refused(
                refusal.status_code, _lower(refusal.resp_headers), refusal.resp_body or b""
            ) from None
        except ssl.SSLCertVerificationError as trouble:
            raise Refused(f"{name}'s certificate cannot be verified ({_short(trouble)})") from None
        except (websocket.WebSocketException, OSError) as trouble:
            if (status := self._socket.getstatus()) is not None and status != SWITCHING_PROTOCOLS:  # a redirect
                raise protocol.refused(status, {}, b"") from None
            raise Lost(f"{name} could not be connected to ({_short(trouble)})") from None
        except ValueError:
            raise Refused(f"{name}'s address is not one that can be connected to") from None
        protocol.accepted(_lower(self._socket.getheaders()))
        self._socket.settimeout(patience.send)  # for writing; a reader whom it wakes reads on
        self.last_heard = monotonic()

    def send(self, message: Message) -> None:
        """Sends one message. Raises Lost when the connection is gone or takes nothing."""
        frame = encode_masked(message, os.urandom(4))
        with self._errors_as_lost(), gevent.Timeout(self._patience.send, TimeoutError()), self._socket.lock:
            if (sock := self._socket.sock) is None:
                raise websocket.WebSocketConnectionClosedException("it was let go of")
            if (sent := sock.send(frame)) < len(frame):  # sendall asks for the buffer's size first, at each call
                sock.sendall(frame[sent:])

    def ping(self) -> None:
        """Asks whether anyone is there; the answer moves `last_heard`."""
        with self._errors_as_lost():
            self._socket.ping()

    def receive(self) -> Message | None:
        """The next message, awaited without a deadline; None when the service has said all and closed. Raises what the
        protocol makes of any other close frame, or Lost."""
        while True:
            with self._errors_as_lost():
                opcode, frame = self._socket.recv_data_frame(control_frame=True)
                self.last_heard = monotonic()
                if opcode == websocket.ABNF.OPCODE_TEXT:
                    return bytes(frame.data).decode(errors="replace")
                if opcode == websocket.ABNF.OPCODE_BINARY:
                    return bytes(frame.data)
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    if (trouble := self._protocol.closed(*_close_reason(frame.data))) is None:
                        return None
                    raise trouble

    @property
    def round_trip_ms(self) -> float | None:
        """The way to the service and back, as the kernel measures it by acknowledgments; None where it does not tell.

        Linux: tcp(7), TCP_INFO; `tcpi_rtt` of linux/tcp.h, in µs. Through a proxy it is the way to the proxy.
        """
        sock = self._socket.sock
        if sock is None or not hasattr(socket, "TCP_INFO"):
            return None
        try:
            told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, ROUND_TRIP.size)
            return float(ROUND_TRIP.unpack(told)[0] / 1000)
        except (OSError, struct.error):
            return None

    def close(self) -> None:
        """Says goodbye if it can be said at once, and lets go. Whoever is sending or receiving gets Lost."""
        try:
            with gevent.Timeout(POLITENESS, False):  # type: ignore[arg-type]  # False: it ends in silence
                if self._socket.connected:
                    self._socket.send_close()
        finally:
            self._socket.shutdown()  # type: ignore[no-untyped-call]

    @contextmanager
    def _errors_as_lost(self) -> Iterator[None]:
        """Lets go of the connection when it fails, or takes longer than its deadline to be written to."""
        try:
            yield
        except (websocket.WebSocketException, OSError, AttributeError) as trouble:  # AttributeError: it was let go of
            self._socket.shutdown()  # type: ignore[no-untyped-call]
            raise self._lost(trouble) from None

    def _lost(self, trouble: Exception) -> ServiceError:
        if isinstance(trouble, TimeoutError | websocket.WebSocketTimeoutException):
            return Stalled(f"{self._name}'s connection takes no more audio within {self._patience.send:g} s")
        return Lost(f"{self._name}'s connection broke ({_short(trouble)})")


def knock(url: str, headers: Mapping[str, str] | None = None, within: float = 10.0) -> None:
    """Opens a WebSocket and closes it. Raises Lost or Refused, and says in a few words why it could not be opened."""
    door = _Socket()
    try:
        with gevent.Timeout(within, Lost(f"no answer within {within:g} s")):
            door.open(url, headers or {})
            door.send_close()
    except websocket.WebSocketBadStatusException as refusal:
        raise Refused(f"answered {refusal.status_code}") from None
    except (websocket.WebSocketException, OSError, ValueError) as trouble:
        raise Lost(_short(trouble)) from None
    finally:
        door.shutdown()  # type: ignore[no-untyped-call]


def _lower(headers: Mapping[str, str] | None) -> dict[str, str]:
    return {name.lower(): value for name, value in (headers or {}).items()}


def _close_reason(payload: bytes) -> tuple[int, str]:
    """Code and reason of a close frame; 1005 stands for a frame without any (RFC 6455, 7.4.1)."""
    if len(payload) < 2:
        return 1005, ""
    return int.from_bytes(payload[:2], "big"), payload[2:].decode(errors="replace")


def _short(trouble: Exception) -> str:
    return printable(" ".join(str(trouble).split()), 120) or type(trouble).__name__
