"""What the stand-in speech service notes about its clients, for tests to read and to wait on."""

from __future__ import annotations

import re
import threading
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from websockets.http11 import Request

from standins.ear import Ear

CONNECTIONS_KEPT: Final = 1000  # the newest; so that a long demonstration does not fill the memory
AUDIO_KEPT: Final = 1 << 17  # bytes of each connection's first audio: 16 s of one track
TEXTS_KEPT: Final = 1000  # of each connection
VIOLATIONS_KEPT: Final = 1000
_SECRET_HEADERS: Final = frozenset(
    {"authorization", "x-gladia-key", "sec-websocket-protocol"}  # browsers put the key into the last
)
_TOKEN: Final = re.compile(r"(?<=[?&]token=)[^&#]*")


@dataclass(slots=True)
class Connection:
    """What one client did. `options` is None when the request was refused, `close_code` until it is over."""

    number: int
    request_id: str
    path: str  # no token
    headers: dict[str, str]  # names in lower case; no key
    options: Any = None  # what was asked for, as the vendor's stand-in has read it
    bytes_a_ms: int = 0  # of the audio; 0 while that is not known
    status: int = 0  # of the handshake
    audio_messages: int = 0
    audio_bytes: int = 0
    audio: bytearray = field(default_factory=bytearray, repr=False)  # the first `AUDIO_KEPT` bytes
    texts: list[str] = field(default_factory=list, repr=False)
    answers: int = 0  # messages the service has said, or has yet to say late
    ear: Ear | None = field(default=None, repr=False)
    close_code: int | None = None  # the HTTP status if it was refused; 1006 if nobody said goodbye
    close_reason: str | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen on it."""
        return self.close_code is not None

    @property
    def audio_ms(self) -> float:
        """How much audio came."""
        return self.audio_bytes / self.bytes_a_ms if self.bytes_a_ms else 0.0

    @property
    def name(self) -> str:
        """What it is called in complaints."""
        return f"connection {self.number}"


class Ledger:
    """All connections, and all rules that were broken on them."""

    def __init__(self) -> None:
        self.violations: list[str] = []
        self.connections: deque[Connection] = deque(maxlen=CONNECTIONS_KEPT)
        self._seen = 0
        self._changed = threading.Condition()

    def open(self, request: Request) -> Connection:
        """A new page for a client that knocks."""
        headers = {name.lower(): value for name, value in request.headers.raw_items()}
        with self._changed:
            connection = Connection(
                number=self._seen,
                request_id=str(uuid.uuid4()),
                path=_TOKEN.sub("…", request.path),
                headers={name: value for name, value in headers.items() if name not in _SECRET_HEADERS},
            )
            self._seen += 1
            self.connections.append(connection)
        return connection

    def note_audio(self, connection: Connection, audio: bytes) -> None:
        """Audio came."""
        connection.audio_messages += 1
        connection.audio_bytes += len(audio)
        connection.audio += audio[: AUDIO_KEPT - len(connection.audio)]
        self.note()

    def note_text(self, connection: Connection, text: str) -> None:
        """A text message came."""
        if len(connection.texts) < TEXTS_KEPT:
            connection.texts.append(text)
        self.note()

    def complain(self, name: str, rule: str) -> None:
        """A documented rule was broken, on the connection of this name."""
        if len(self.violations) < VIOLATIONS_KEPT:
            self.violations.append(f"{name}: {rule}")
        self.note()

    def note(self) -> None:
        """Something changed; whoever waits for it looks again."""
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, predicate: Callable[[], object], within: float) -> None:
        """Returns once the predicate holds, or raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(predicate, within):
                raise TimeoutError(f"it did not come true within {within} s: {list(self.connections)[-3:]}")
