"""The seam every speech service fills in: what it is told and what it answers, without any I/O.

A service is a `SpeechService`: what it can do, as data, and a maker of one `SpeechProtocol` per session. A session is
one connection, or several where the service lets a lost one be resumed. `relay.speech.SpeechClient` carries any.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import orjson

from relay.errors import ServiceError
from relay.events import Malformed, ServiceEvent, Track

Message = str | bytes  # str travels as a text frame, bytes as a binary one


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the WebSocket is. Headers hold the key and stay out of any repr, as do URLs that are keys themselves."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request beside the WebSocket."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class CallInfo:
    """Whose audio this is."""

    call_sid: str
    stream_sid: str
    tracks: tuple[Track, ...]


@dataclass(frozen=True, slots=True)
class Traits:
    """What a service can take and how it behaves."""

    name: str  # as people write it
    word: str  # as settings write it
    tracks: int  # how many tracks one connection carries, interleaved
    pace: float  # the fastest it accepts audio, in multiples of real time
    smallest_chunk_ms: int  # a shorter one, at a hole or at the end, is filled up with silence
    largest_chunk_ms: int
    idle_after_s: float  # without audio for so long, `idle()` is sent
    makes_up_s: float = 0.0  # how long a pause in the audio may be made up for at once
    catches_up: bool = True  # whether it accepts more than real time at all
    answers_silence: bool = True  # whether silence, too, is answered: then no answer for long means trouble
    finalises_silence: bool = True  # whether finals cover it, too; if not, audio in which nobody speaks is no loss


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a service can do for its user, in words for a table; the fields' names are its headings."""

    interims: str
    languages: str
    keyterms: str
    after_a_drop: str
    translation: str
    after_the_call: str
    longest_session: str
    billed_by: str


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of a service this process may use, so that it is not refused unawares."""

    connections: int  # open at once
    sessions_per_minute: int | None = None  # new ones


class SpeechProtocol(ABC):
    """One session's side of the conversation. Times in its events count from the session's first audio.

    A service's own inherits from this, and overrides what it does in a way of its own.
    """

    def before(self) -> Request | None:
        """What must be asked over HTTP before `endpoint` is known; None when nothing (more) must."""
        return None

    @abstractmethod
    def endpoint(self) -> Endpoint:
        """Where to connect."""

    def accepted(self, headers: Mapping[str, str]) -> None:  # noqa: B027  # most have nothing to do here
        """The handshake was answered well, with these headers. Their names are in lower case."""

    def opening(self) -> list[Message]:
        """What is said first on each connection. A binary message is audio that is not the call's."""
        return []

    @property
    def ready(self) -> bool:
        """Whether the call's audio may be sent; asked on each connection after its opening was sent."""
        return True

    @property
    def resumable(self) -> bool:
        """Whether a lost connection can be followed by another in the same session."""
        return False

    @property
    def taken(self) -> int:
        """On a resumed connection that is ready: how many samples (of each track) of the session's audio the service
        has from the connections before."""
        return 0

    def audio(self, chunk: bytes) -> list[Message]:
        """What carries this chunk. Several tracks' bytes take turns, sample by sample."""
        return [chunk]

    def idle(self) -> list[Message]:
        """What keeps a silent connection open. A binary message is audio, and moves the session's clock."""
        return []

    @abstractmethod
    def closing(self) -> list[Message]:
        """What is said after the last audio, so that the last words still come."""

    @abstractmethod
    def receive(self, message: Message) -> list[ServiceEvent]:
        """What an answer means. Total: anything can be given, nothing is raised."""

    def last_words(self) -> list[ServiceEvent]:
        """What is left to tell once the service has closed the connection well: `closed` was None."""
        return []

    def after(self) -> Request | None:
        """What is to be asked over HTTP when the session is over; asked again after each answer, until None."""
        return None

    def answered(self, body: bytes) -> list[ServiceEvent]:
        """What the answer to `before` or `after` means, if its status was a good one. Raises ServiceError when it is of
        no use."""
        return []

    @abstractmethod
    def refused(self, status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
        """The meaning of a handshake, or a request, answered with this HTTP status. Header names are in lower case."""

    @abstractmethod
    def closed(self, code: int, reason: str) -> ServiceError | None:
        """The meaning of a close frame; None when it says that the service has said all it will."""


class JsonProtocol(SpeechProtocol):
    """A session whose answers are JSON objects, each of which says of what type it is."""

    def receive(self, message: Message) -> list[ServiceEvent]:
        """What an answer means."""
        if not isinstance(message, str):
            return [Malformed("a binary message")]
        try:
            said = orjson.loads(message)
        except ValueError:
            return [Malformed("not JSON")]
        kind = self.kind(said) if isinstance(said, dict) else None
        if not isinstance(kind, str):
            return [Malformed("JSON of no type")]
        try:
            return self.read(kind, said)
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError):
            return [Malformed(f"{kind[:40]} not in its documented shape")]

    def kind(self, said: Mapping[str, Any]) -> object:
        """Its type, if that is a string."""
        return said.get("type")

    @abstractmethod
    def read(self, kind: str, said: Mapping[str, Any]) -> list[ServiceEvent]:
        """What an answer of this type means. May raise what comes of taking a value for what it is not."""


class SpeechService(Protocol):
    """A speech service as configured: what it can do, and a new protocol for each session."""

    @property
    def traits(self) -> Traits:
        """What it can take."""

    @property
    def abilities(self) -> Abilities:
        """What it can do."""

    @property
    def limits(self) -> Limits:
        """How much of it may be used."""

    def tailored(self, language: str | None, keyterms: tuple[str, ...]) -> Self:
        """The same for a call that is held in this language (None: as configured), with these names and terms to listen
        for besides. Raises SettingsError, with a sentence that repeats no value, for what the service does not take."""

    def protocol(self, call: CallInfo, tracks: tuple[Track, ...]) -> SpeechProtocol:
        """The conversation for one new session that carries these tracks, interleaved in this order."""
