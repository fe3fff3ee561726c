"""One websocket-client connection to a speech service, with a deadline on every wait.

The only module that knows the library. Its errors leave here as ours, as one sentence without the request's headers.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Final

import gevent
import websocket
from websocket._abnf import frame_buffer

from relay.errors import Lost, Refused
from relay.frames import encode_masked
from relay.protocol import Message, SpeechProtocol

LARGEST_ANSWER: Final = 4 * 1024 * 1024  # bytes; a transcript's message has a few thousand
SEND_BUFFER: Final = 16 * 1024  # bytes the kernel may hold: with its default of megabytes a stall shows after minutes
READ_AT_ONCE: Final = 16 * 1024  # bytes; a transcript's message and a TLS record both fit
POLITENESS: Final = 1.0  # seconds we try to say goodbye


@dataclass(frozen=True, slots=True)
class Patience:
    """How long we wait for a speech service, in seconds, before we take its connection for lost."""

    connect: float = 10.0  # for the TCP, TLS and HTTP handshakes together
    send: float = 5.0  # for the kernel to take one message
    answer: float = 10.0  # for any message, once audio has been sent
    ping_after: float = 5.0  # of hearing nothing at all, to ask whether anyone is there
    pong: float = 10.0  # for the answer to that
    drain: float = 10.0  # for the last words, beyond the time the audio itself takes
    retry_first: float = 0.25  # before the first new attempt; doubled each time
    retry_most: float = 10.0


class _BoundedFrames(frame_buffer):
    """Refuses a frame by the size its header announces; the library would wait for all of it."""

    def recv_length(self) -> None:
        super().recv_length()
        if self.length is not None and self.length > LARGEST_ANSWER:
            raise websocket.WebSocketProtocolException("frame too large")


class _Socket(websocket.WebSocket):
    """The library's socket, but bounded, and with its close frame's code kept when the peer is gone already."""

    def __init__(self) -> None:
        super().__init__(sockopt=[(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)], skip_utf8_validation=True)
        self.frame_buffer = _BoundedFrames(self._recv, skip_utf8_validation=True)
        self._read_ahead = b""

    def _recv(self, bufsize: int) -> bytes:
        """Reads what has come in one go; the library asks for a frame's header, length and payload one by one."""
        if not self._read_ahead:
            self._read_ahead = super()._recv(READ_AT_ONCE)  # type: ignore[no-untyped-call]
        data, self._read_ahead = self._read_ahead[:bufsize], self._read_ahead[bufsize:]
        return data

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
                # No redirect is followed: it would carry the key to another host.
                self._socket.connect(  # type: ignore[no-untyped-call]
                    endpoint.url, header=dict(endpoint.headers), redirect_limit=0
                )
        except websocket.WebSocketBadStatusException as refusal:
            headers = {name.lower(): value for name, value in (refusal.resp_headers or {}).items()}
            raise protocol.refused(refusal.status_code, headers, refusal.resp_body or b"") from None
        except ValueError:
            raise Refused(f"{name}'s address is not one that can be connected to") from None
        except (websocket.WebSocketException, OSError) as trouble:
            raise Lost(f"{name} could not be connected to ({_short(trouble)})") from None
        self._socket.settimeout(patience.send)  # for writing; a reader whom it wakes reads on
        self.last_heard = monotonic()

    def send(self, message: Message) -> None:
        """Sends one message. Raises Lost when the connection is gone or takes nothing."""
        frame = encode_masked(message, os.urandom(4))
        with self._errors_as_lost(), self._socket.lock:  # the library's own: a pong may be under way
            if (sock := self._socket.sock) is None:
                raise websocket.WebSocketConnectionClosedException("it was let go of")
            if (sent := sock.send(frame)) < len(frame):  # sendall asks for the buffer's size first, at each call
                sock.sendall(frame[sent:])

    def ping(self) -> None:
        """Asks whether anyone is there; the answer moves `last_heard`."""
        with self._errors_as_lost():
            self._socket.ping()

    def receive(self) -> Message:
        """The next message, awaited without a deadline. Raises what the protocol makes of a close frame, or Lost."""
        while True:
            with self._errors_as_lost(), suppress(websocket.WebSocketTimeoutException):
                opcode, frame = self._socket.recv_data_frame(control_frame=True)
                self.last_heard = monotonic()
                if opcode == websocket.ABNF.OPCODE_TEXT:
                    return bytes(frame.data).decode(errors="replace")
                if opcode == websocket.ABNF.OPCODE_BINARY:
                    return bytes(frame.data)
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    raise self._protocol.closed(*_close_reason(frame.data))

    def close(self) -> None:
        """Says goodbye if it can be said at once, and lets go. Whoever is sending or receiving gets Lost."""
        with gevent.Timeout(POLITENESS, False):  # type: ignore[arg-type]  # False: it ends in silence
            if self._socket.connected:
                self._socket.send_close()
        self._socket.shutdown()  # type: ignore[no-untyped-call]

    @contextmanager
    def _errors_as_lost(self) -> Iterator[None]:
        """Lets go of the connection when it fails, or takes longer than its deadline to be written to."""
        try:
            yield
        except (websocket.WebSocketException, OSError, AttributeError) as trouble:  # AttributeError: it was let go of
            self._socket.shutdown()  # type: ignore[no-untyped-call]
            late = isinstance(trouble, TimeoutError | websocket.WebSocketTimeoutException)
            what = f"takes no more audio within {self._patience.send:g} s" if late else f"broke ({_short(trouble)})"
            raise Lost(f"{self._name}'s connection {what}") from None


def knock(url: str, within: float = 10.0) -> None:
    """Opens a WebSocket and closes it. Raises Lost or Refused, and says in a few words why it could not be opened."""
    door = _Socket()
    try:
        with gevent.Timeout(within, Lost(f"no answer within {within:g} s")):
            door.connect(url, redirect_limit=0)  # type: ignore[no-untyped-call]
            door.send_close()
    except websocket.WebSocketBadStatusException as refusal:
        raise Refused(f"answered {refusal.status_code}") from None
    except (websocket.WebSocketException, OSError, ValueError) as trouble:
        raise Lost(_short(trouble)) from None
    finally:
        door.shutdown()  # type: ignore[no-untyped-call]


def _close_reason(payload: bytes) -> tuple[int, str]:
    """Code and reason of a close frame; 1005 stands for a frame without any (RFC 6455, 7.4.1)."""
    if len(payload) < 2:
        return 1005, ""
    return int.from_bytes(payload[:2], "big"), payload[2:].decode(errors="replace")


def _short(trouble: Exception) -> str:
    said = " ".join(str(trouble).split()) or type(trouble).__name__
    return said[:120]
