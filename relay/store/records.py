"""What the store gives: frozen values, each with the JSON that API, live feed and webhooks show of it. Pure.

Times that end in `_ms` are milliseconds on the call's clock, which starts with its first stream. Times that end in
`_at` are milliseconds since 1970, UTC; in JSON they are written as in "2026-11-21T09:55:44.120Z".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

from relay.events import Word

T = TypeVar("T")

Json = dict[str, Any]


class State(StrEnum):
    """Whether a call still runs."""

    LIVE = "live"
    ENDED = "ended"


class Kind(StrEnum):
    """What an event says has happened."""

    CALL_STARTED = "call.started"
    CALL_RESUMED = "call.resumed"  # a further stream of a call that had ended
    SEGMENT_FINAL = "segment.final"
    GAP = "gap"
    SERVICE_LOST = "service.lost"  # once for each outage, however often it is tried again
    SERVICE_BACK = "service.back"
    SERVICE_REPLACED = "service.replaced"
    ERROR = "error"
    CALL_ENDED = "call.ended"


_PLACES: Final = {  # where an event's data says when on the call's clock it happened
    Kind.CALL_RESUMED: "offset_ms",
    Kind.SERVICE_REPLACED: "from_ms",
    Kind.CALL_ENDED: "duration_ms",
}
_WHOLE: Final = ("segments", "gaps")  # in the data of an ended call, for those who get nothing else of it


class DeliveryState(StrEnum):
    """Where an event is on its way to a webhook."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"  # given up


def as_time(at: int | None) -> str | None:
    """Milliseconds since 1970 as people and programs read them."""
    if at is None:
        return None
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Stream:
    """One media stream of a call. Its audio came from `offset_ms` up to `heard_ms`."""

    sid: str
    tracks: tuple[str, ...]
    services: tuple[str, ...]  # that listened: those it began with, and those that took over
    started_at: int
    offset_ms: int
    heard_ms: int
    ended_at: int | None = None
    end_reason: str | None = None
    summary: Json | None = None  # the fields of relay.events.StreamEnded

    def as_json(self) -> Json:
        """The stream as the API shows it."""
        return {
            "stream_sid": self.sid,
            "tracks": list(self.tracks),
            "services": list(self.services),
            "started_at": as_time(self.started_at),
            "ended_at": as_time(self.ended_at),
            "end_reason": self.end_reason,
            "offset_ms": self.offset_ms,
            "heard_ms": self.heard_ms,
            "summary": self.summary,
        }


@dataclass(frozen=True, slots=True)
class Call:
    """One call, however many streams it had. A live call's duration is how far it has come."""

    sid: str
    caller: str = field(repr=False)
    called: str = field(repr=False)
    started_at: int
    ended_at: int | None
    end_reason: str | None
    duration_ms: int
    recording: str | None  # the path of its sound file
    streams: tuple[Stream, ...] = ()

    @property
    def state(self) -> State:
        """Live while a stream of it is."""
        return State.LIVE if self.ended_at is None else State.ENDED

    @property
    def services(self) -> tuple[str, ...]:
        """All that listened to it, in order."""
        return tuple(dict.fromkeys(service for stream in self.streams for service in stream.services))

    @property
    def tracks(self) -> tuple[str, ...]:
        """All that it brought, in order."""
        return tuple(dict.fromkeys(track for stream in self.streams for track in stream.tracks))

    def as_json(self) -> Json:
        """The call as the API shows it. Where its recording lies is nobody's business there."""
        return {
            "call_sid": self.sid,
            "state": self.state.value,
            "caller": self.caller,
            "called": self.called,
            "started_at": as_time(self.started_at),
            "ended_at": as_time(self.ended_at),
            "end_reason": self.end_reason,
            "duration_ms": self.duration_ms,
            "recorded": self.recording is not None,
            "services": list(self.services),
            "streams": [stream.as_json() for stream in self.streams],
        }


@dataclass(frozen=True, slots=True)
class Segment:
    """What was said on one track from `start_ms` to `end_ms`, as one service understood it, and final."""

    id: int
    track: str
    start_ms: int
    end_ms: int
    text: str = field(repr=False)
    words: tuple[Word, ...] = field(repr=False)
    confidence: float
    speaker: int | None  # who said most of its words, where the service tells speakers apart
    language: str | None
    service: str
    backfilled: bool  # transcribed later, from the recording
    created_at: int

    def as_json(self, *, words: bool = True) -> Json:
        """The segment as the API shows it."""
        shown: Json = {
            "id": self.id,
            "track": self.track,
            "start_ms": self.start_ms,
            "end_ms": self.end_ms,
            "text": self.text,
            "confidence": self.confidence,
            "speaker": self.speaker,
            "language": self.language,
            "service": self.service,
            "backfilled": self.backfilled,
        }
        return shown | {"words": [word_as_json(word) for word in self.words]} if words else shown


def word_as_json(word: Word) -> Json:
    """A word as it is stored and shown."""
    return {
        "text": word.text,
        "start_ms": word.start_ms,
        "end_ms": word.end_ms,
        "confidence": word.confidence,
        "speaker": word.speaker,
    }


@dataclass(frozen=True, slots=True)
class Gap:
    """Milliseconds of a track that no segment covers, and why; `filled` once they were transcribed after all.

    `service` is the one that did not hear them; None: nobody did, or nobody noted which.
    """

    id: int
    track: str
    start_ms: int
    end_ms: int
    reason: str
    service: str | None
    filled: bool

    def as_json(self) -> Json:
        """The gap as the API shows it."""
        return {
            "id": self.id,
            "track": self.track,
            "start_ms": self.start_ms,
            "end_ms": self.end_ms,
            "reason": self.reason,
            "service": self.service,
            "filled": self.filled,
        }


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened on a call. Whoever has this id has missed nothing before it: ids rise in order of commit.

    `sequence` counts within the call, from 1. An event that could not be stored yet has neither (both are 0): it is
    shown to live viewers while the database is away, and comes again, with both, once it is stored.
    """

    id: int
    call_sid: str
    sequence: int
    kind: Kind
    data: Json = field(repr=False)
    created_at: int

    @property
    def is_stored(self) -> bool:
        """Whether it has an id to resume from."""
        return self.id > 0

    @property
    def at_ms(self) -> int | None:
        """When on the call's clock it happened; None if that was not noted."""
        if self.kind is Kind.CALL_STARTED:
            return 0
        return self.data.get(_PLACES.get(self.kind, "at_ms"))

    @property
    def shown(self) -> Json:
        """Its data for those who follow the call. What was said and is missing has been told them one by one."""
        if self.kind in (Kind.SEGMENT_FINAL, Kind.GAP):
            return self.data
        return {name: value for name, value in self.data.items() if name not in _WHOLE} | {"at_ms": self.at_ms}

    def as_json(self) -> Json:
        """The event as the API shows it beside the transcript."""
        return {
            "id": self.id,
            "kind": self.kind.value,
            "at_ms": self.at_ms,
            "created_at": as_time(self.created_at),
            "data": self.shown,
        }


@dataclass(frozen=True, slots=True)
class CallSoFar:
    """All that is known of a call at one moment. What happens later has an id above `last_event_id`."""

    call: Call
    segments: tuple[Segment, ...] = field(repr=False)
    gaps: tuple[Gap, ...]
    events: tuple[Event, ...]  # that are neither of these
    last_event_id: int

    def as_json(self) -> Json:
        """The call as the API shows it, whole."""
        return {
            "call": self.call.as_json(),
            "segments": [segment.as_json() for segment in self.segments],
            "gaps": [gap.as_json() for gap in self.gaps],
            "events": [event.as_json() for event in self.events],
            "last_event_id": self.last_event_id,
        }


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event on its way to one webhook."""

    id: int
    endpoint: str
    message_id: str  # "msg_...", the same at every attempt
    event: Event
    state: DeliveryState
    attempts: int
    next_at: int
    last_status: int | None
    last_error: str | None
    delivered_at: int | None

    def as_json(self) -> Json:
        """The delivery as it is listed; the event by its number only."""
        return {
            "id": self.id,
            "endpoint": self.endpoint,
            "message_id": self.message_id,
            "call_sid": self.event.call_sid,
            "kind": self.event.kind.value,
            "sequence": self.event.sequence,
            "state": self.state.value,
            "attempts": self.attempts,
            "next_at": as_time(self.next_at) if self.state is DeliveryState.PENDING else None,
            "last_status": self.last_status,
            "last_error": self.last_error,
            "delivered_at": as_time(self.delivered_at),
        }


@dataclass(frozen=True, slots=True)
class Attempt:
    """How an attempt to deliver went: delivered, to be tried again at `next_at`, or (neither) given up."""

    delivery_id: int
    delivered_at: int | None = None
    next_at: int | None = None
    status: int | None = None  # of HTTP, if there was an answer
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a snippet; a match is to be highlighted. Pieces instead of marks in the text: nothing to escape."""

    text: str = field(repr=False)
    is_match: bool = False


@dataclass(frozen=True, slots=True)
class Hit:
    """A segment in which the words were found. `segment.start_ms` is the moment to jump to."""

    call: Call
    segment: Segment
    snippet: tuple[Part, ...]

    def as_json(self) -> Json:
        """The hit as the API shows it."""
        return {
            "call": self.call.as_json(),
            "segment": self.segment.as_json(),
            "snippet": [{"text": part.text, "match": part.is_match} for part in self.snippet],
        }


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of what was asked for, and the cursor with which to ask for what follows (None: nothing does)."""

    items: tuple[T, ...]
    next: str | None = None


PAGE: Final = 50  # items on one, unless asked otherwise
PAGE_MOST: Final = 500
