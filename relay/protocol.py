"""The seam every speech service fills in: what it is told and what it answers, without any I/O.

A service is a `SpeechService`: what it can do, as data, and a maker of one `SpeechProtocol` per connection.
`relay.speech.SpeechClient` carries any of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from relay.errors import ServiceError
from relay.events import ServiceEvent, Track

Message = str | bytes  # str travels as a text frame, bytes as a binary one


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the WebSocket is. Headers hold the key and stay out of any repr."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


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
    tracks: int  # how many tracks one connection carries, interleaved
    pace: float  # the fastest it accepts audio, in multiples of real time
    smallest_chunk_ms: int
    largest_chunk_ms: int
    idle_after_s: float  # without audio for so long, `idle()` is sent


class SpeechProtocol(Protocol):
    """One connection's side of the conversation. Times in its events count from the connection's first audio."""

    def endpoint(self) -> Endpoint:
        """Where to connect."""

    def accepted(self, headers: Mapping[str, str]) -> None:
        """The handshake was answered well, with these headers. Their names are in lower case."""

    def audio(self, chunk: bytes) -> list[Message]:
        """What carries this chunk. Several tracks' bytes take turns, sample by sample."""

    def idle(self) -> list[Message]:
        """What keeps a silent connection open. A binary message is audio, and moves the connection's clock."""

    def closing(self) -> list[Message]:
        """What is said after the last audio, so that the last words still come."""

    def receive(self, message: Message) -> list[ServiceEvent]:
        """What an answer means. Total: anything can be given, nothing is raised."""

    def refused(self, status: int, headers: Mapping[str, str], body: bytes) -> ServiceError:
        """The meaning of a handshake answered with this HTTP status. Header names are in lower case."""

    def closed(self, code: int, reason: str) -> ServiceError:
        """The meaning of a close frame that we did not ask for."""


class SpeechService(Protocol):
    """A speech service as configured: what it can do, and a new protocol for each connection."""

    @property
    def traits(self) -> Traits:
        """What it can take."""

    def protocol(self, call: CallInfo, tracks: tuple[Track, ...]) -> SpeechProtocol:
        """The conversation for one new connection that carries these tracks, interleaved in this order."""
