"""Twilio, played: one media stream over a WebSocket, message by message, as Twilio makes it.

Messages: https://www.twilio.com/docs/voice/media-streams/websocket-messages
"""

from __future__ import annotations

import json
import secrets
import struct
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

import gevent
from gevent.event import Event
from twilio.request_validator import SIGNATURE_HEADER, RequestValidator  # type: ignore[import-untyped]
from websocket import (
    ABNF,
    WebSocket,
    WebSocketAddressException,
    WebSocketBadStatusException,
    WebSocketException,
    WebSocketTimeoutException,
)

from relay.audio import SAMPLE_RATE, SAMPLES_PER_MS
from relay.errors import RelayError
from relay.events import Track
from relay.text import printable

FRAME_MS: Final = 20  # of one track in one message: documented nowhere, and so in practice
FRAME_BYTES: Final = FRAME_MS * SAMPLES_PER_MS

UPGRADE_WITHIN: Final = 10.0  # seconds a server has to answer the upgrade
SEND_WITHIN: Final = 10.0  # seconds a server may take no message from us
CLOSE_WITHIN: Final = 5.0  # seconds a server has to answer a close frame
FAREWELL_WITHIN: Final = 1.0  # seconds we look for the server's close frame when a message could not be sent

NO_CODE: Final = 1005  # stands for a close frame that gives no code (RFC 6455, 7.4.1)
NO_CLOSE_FRAME: Final = 1006  # stands for a connection that ended without one

# Calls are played to servers at hand; what the library reads of proxies in the environment is not for them.
_DIRECTLY: Final[dict[str, Any]] = {"http_proxy_host": "none", "http_no_proxy": ["*"]}

_CONNECTED: Final = '{"event":"connected","protocol":"Call","version":"1.0.0"}'


class Ending(StrEnum):
    """How a simulated call ended."""

    STOPPED = "stopped"  # as calls do: `stop`, then the close
    UNSTOPPED = "closed without stop"  # on request
    DROPPED = "dropped"  # on request
    REFUSED = "refused"  # the WebSocket was not to be had
    DISCONNECTED = "disconnected"  # by the server, before the call was over
    STALLED = "stalled"  # the server stopped reading


class SimulationError(RelayError):
    """A simulation that makes no sense, or a call in it that failed."""


class CallFailed(SimulationError):
    """A simulated call failed."""

    ending: ClassVar[Ending]


class UpgradeRefused(CallFailed):
    """The WebSocket was not to be had. `status` is the HTTP status, where there was one."""

    ending = Ending.REFUSED

    def __init__(self, sentence: str, status: int | None = None) -> None:
        super().__init__(sentence)
        self.status = status


class Disconnected(CallFailed):
    """The connection is over, and we had more to say."""

    ending = Ending.DISCONNECTED


class Stalled(CallFailed):
    """The server does not read what it is sent."""

    ending = Ending.STALLED


@dataclass(frozen=True, slots=True)
class Farewell:
    """How the server's side of a WebSocket ended."""

    code: int
    reason: str = ""

    def __str__(self) -> str:
        how = {NO_CODE: "without a code", NO_CLOSE_FRAME: "without a close frame"}.get(self.code, f"with {self.code}")
        return f"{how} ({self.reason})" if self.reason else how


class SimulatedCall:
    """One media stream as Twilio makes it, message by message and at the pace it is told to.

    `open`, `start`, then `say` as often as wished, `stop`, `close`; each message can be left out, and `send` says
    anything else. What cannot be sent raises `Disconnected` or `Stalled`.
    """

    def __init__(
        self,
        url: str,
        *,
        tracks: Iterable[str] = tuple(Track),
        parameters: Mapping[str, str] | None = None,
        call_sid: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.url = _checked(url)
        self.headers = dict(headers or {})  # of the upgrade: `signed` makes Twilio's
        self.tracks = tuple(map(Track, tracks))
        self.parameters = dict(parameters or {})
        self.account_sid, self.call_sid, self.stream_sid = _sid("AC"), call_sid or _sid("CA"), _sid("MZ")
        self.farewell: Farewell | None = None  # until the server's side is over
        self.unwanted = 0  # messages from the server: on a stream from `<Start>` each is a protocol error (31924)
        self._spoken_until_ms = dict.fromkeys(self.tracks, 0)
        self._sequence = 0
        self._chunk = 0
        self._socket: Any = WebSocket()  # which annotates only half of its methods
        self._closing = False  # we have sent a close frame
        self._abandoned = False  # we have shut the socket
        self._over = Event()
        self._over.set()

    def open(self) -> None:
        """Upgrades to a WebSocket and says `connected`. Raises `UpgradeRefused`."""
        try:
            with gevent.Timeout(UPGRADE_WITHIN, TimeoutError()):
                # A redirect is an answer other than 101, which is all Twilio takes (error 31920).
                self._socket.connect(
                    self.url,
                    timeout=SEND_WITHIN,
                    redirect_limit=0,
                    suppress_origin=True,
                    header=self.headers,
                    **_DIRECTLY,
                )
        except (WebSocketException, OSError, ValueError) as failure:
            raise _refusal(self.url, failure, self._socket.getstatus()) from failure
        self._over.clear()
        gevent.spawn(self._listen)
        self.send(_CONNECTED)

    def start(self) -> None:
        """Says `start`: whose stream this is, and what it carries."""
        self._send_event(
            "start",
            {
                "accountSid": self.account_sid,
                "streamSid": self.stream_sid,
                "callSid": self.call_sid,
                "tracks": self.tracks,
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": SAMPLE_RATE, "channels": 1},
                "customParameters": self.parameters,
            },
        )

    def say(self, track: str, audio: bytes, *, at_ms: int | None = None) -> None:
        """Sends mu-law in frames of 20 ms, at once: from this moment on, or from where the track had ended."""
        track = Track(track)
        start_ms = self._spoken_until_ms[track] if at_ms is None else at_ms
        for frame in range(0, len(audio), FRAME_BYTES):
            payload = b64encode(audio[frame : frame + FRAME_BYTES]).decode()
            self.media(track, payload, start_ms + frame // SAMPLES_PER_MS)
        self._spoken_until_ms[track] = start_ms + len(audio) // SAMPLES_PER_MS

    def media(self, track: str, payload: str, at_ms: int) -> None:
        """Says `media`: base64 of mu-law, and when it was spoken.

        Twilio's documentation counts the chunks of both tracks together, as `sequenceNumber` counts all messages.
        """
        self._sequence += 1
        self._chunk += 1
        self.send(
            f'{{"event":"media","sequenceNumber":"{self._sequence}","media":{{"track":"{track}","chunk":"{self._chunk}",'
            f'"timestamp":"{at_ms}","payload":"{payload}"}},"streamSid":"{self.stream_sid}"}}'
        )

    def stop(self) -> None:
        """Says `stop`: the call is over, or its stream was stopped."""
        self._send_event("stop", {"accountSid": self.account_sid, "callSid": self.call_sid})

    def send(self, message: str | bytes) -> None:
        """Sends anything: text as a text message, bytes as a binary one."""
        if self._over.is_set():
            raise self._disconnected()
        try:
            self._socket.send(message, ABNF.OPCODE_TEXT if isinstance(message, str) else ABNF.OPCODE_BINARY)
        except WebSocketTimeoutException as timeout:
            self._abandon()
            raise Stalled(f"the server did not read for {SEND_WITHIN:g} s") from timeout
        except (WebSocketException, OSError) as lost:
            self._over.wait(FAREWELL_WITHIN)
            self._abandon()
            raise self._disconnected() from lost
        except BaseException:  # interrupted: half a frame may be on its way, and nothing can follow it
            self._abandon()
            raise

    def close(self) -> None:
        """Closes the WebSocket with a close frame and a short wait for the answer. Does nothing when it is over."""
        if self._over.is_set():
            return
        self._closing = True
        try:
            self._socket.send_close()
            self._over.wait(CLOSE_WITHIN)
        except (WebSocketException, OSError):
            self._over.wait(FAREWELL_WITHIN)
        finally:
            self._abandon()

    def reset(self) -> None:
        """Breaks the connection: a TCP reset, and no close frame."""
        if self._socket.sock is not None:
            self._socket.sock.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        self._abandon()

    def wait_closed(self, within_s: float = CLOSE_WITHIN) -> Farewell:
        """How the server ended the connection, once it has."""
        if not self._over.wait(within_s) or self.farewell is None:
            raise SimulationError(f"the server did not close the connection within {within_s:g} s")
        return self.farewell

    def _send_event(self, event: str, content: Mapping[str, object]) -> None:
        self._sequence += 1
        message = {
            "event": event,
            "sequenceNumber": str(self._sequence),
            event: content,
            "streamSid": self.stream_sid,
        }
        self.send(json.dumps(message, separators=(",", ":")))

    def _listen(self) -> None:
        try:
            self.farewell = self._hear_out()
        except (WebSocketException, OSError) as lost:
            if not self._abandoned:
                self.farewell = Farewell(NO_CLOSE_FRAME, printable(str(lost)))
        finally:
            self._socket.shutdown()
            self._over.set()

    def _hear_out(self) -> Farewell:
        """Reads until the server closes. Usually it says nothing at all."""
        while True:
            try:
                frame = self._socket.recv_frame()
            except WebSocketTimeoutException:
                continue
            if frame.opcode == ABNF.OPCODE_CLOSE:
                if not self._closing:
                    self._socket.send_close()
                code = int.from_bytes(frame.data[:2]) or NO_CODE
                return Farewell(code, printable(frame.data[2:].decode(errors="replace")))
            if frame.opcode == ABNF.OPCODE_PING:
                self._socket.pong(frame.data)
            elif frame.opcode in (ABNF.OPCODE_TEXT, ABNF.OPCODE_BINARY):
                self.unwanted += 1

    def _abandon(self) -> None:
        self._abandoned = True
        self._socket.shutdown()  # wakes the reader, which then is over
        self._over.wait(FAREWELL_WITHIN)

    def _disconnected(self) -> Disconnected:
        if self.farewell is None:
            return Disconnected("the call has no connection")
        return Disconnected(f"the server closed the connection {self.farewell}")


def signed(url: str, auth_token: str, form: Mapping[str, str] | None = None) -> dict[str, str]:
    """The header in which Twilio signs a request to this URL."""
    return {SIGNATURE_HEADER: RequestValidator(auth_token).compute_signature(url, dict(form or {}))}


def _checked(url: str) -> str:
    """The URL, if a stream could go there. The sentences do not repeat it: its path may hold a token."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("ws", "wss") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise SimulationError(
            "a call is streamed to a WebSocket: its URL looks like ws://127.0.0.1:5000/path, or wss://"
        )
    if parts.query:
        raise SimulationError("Twilio takes no query string in a stream's URL (error 31920), only a path")
    return url


def _sid(kind: str) -> str:
    """A name as Twilio gives them: two letters for what it names and 32 hexadecimal digits."""
    return kind + secrets.token_hex(16)


def _refusal(url: str, failure: Exception, status: int | None) -> UpgradeRefused:
    """What went wrong, as a sentence that names the server, and neither a password nor the path."""
    server = urlsplit(url).netloc.rpartition("@")[2]
    if isinstance(failure, WebSocketBadStatusException):
        status = failure.status_code
    if status:
        return UpgradeRefused(f"{server} answered the upgrade to a WebSocket with HTTP {status}", status)
    return UpgradeRefused(f"{server} cannot be reached: {_why(failure)}")


def _why(failure: Exception) -> str:
    if isinstance(failure, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(failure, WebSocketAddressException):
        return "there is no such host"
    if isinstance(failure, TimeoutError | WebSocketTimeoutException):
        return f"no answer within {UPGRADE_WITHIN:g} s"
    if isinstance(failure, WebSocketException):
        return "what it answers is no WebSocket handshake"
    return printable(str(failure))
