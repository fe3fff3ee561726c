"""What the services and the relay tell, as it is stored and announced. Pure."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

from relay.events import (
    CallEvent,
    Listened,
    ServiceConnected,
    ServiceLost,
    ServiceRefused,
    ServiceReplaced,
    StreamEnded,
    Transcript,
    Word,
)
from relay.protocol import CallInfo
from relay.store.records import Event, Json, Kind, Segment

LONGEST_TEXT: Final = 100_000  # characters; PostgreSQL indexes the words of no more than a megabyte
LONGEST_SID: Final = 200  # characters; Twilio's have 34


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stream's audio has come, and for each track and service where the newest final ended, also one that is
    a pause."""

    until_ms: int = 0
    final_ms: Mapping[str, int] = field(default_factory=dict)

    def further(self, event: Listened | Transcript, service: str) -> Progress:
        """What it is after this was told, by the service if it is a final."""
        if isinstance(event, Listened):
            return Progress(event.until_ms, self.final_ms)
        return Progress(self.until_ms, {**self.final_ms, heard_by(event.track, service): event.end_ms})


def heard_by(track: str, service: str) -> str:
    """Whose finals of which track, as it is noted of a stream."""
    return f"{track} {service}".rstrip()


def final_until(final_ms: Mapping[str, int], track: str, service: str | None) -> int:
    """Where the newest final of a track ended, by any service or by this one; 0 if there is none. What nobody noted
    whose it was is everybody's."""
    whose = {track, heard_by(track, service)} if service else {key for key in final_ms if key.split(" ")[0] == track}
    return max((end_ms for key, end_ms in final_ms.items() if key in whose), default=0)


@dataclass(frozen=True, slots=True)
class Heard:
    """Something worth keeping, and when it was heard."""

    at: int
    call: CallInfo
    event: CallEvent | Progress
    service: str = ""


class Outages:
    """Which services are lost to which streams just now, so that an outage is told once and not at every try."""

    def __init__(self) -> None:
        self._lost: set[tuple[CallInfo, str]] = set()

    def is_news(self, call: CallInfo, event: CallEvent) -> bool:
        """Whether a service was lost that was there, or came back that was lost; anything else is news."""
        match event:
            case ServiceLost(service=service):
                known = (call, service) in self._lost
                self._lost.add((call, service))
                return not known
            case ServiceConnected(service=service):
                return self._forget(call, service)
            case ServiceReplaced(service=service) | ServiceRefused(service=service):
                self._forget(call, service)
            case StreamEnded():
                self._lost = {lost for lost in self._lost if lost[0] != call}
        return True

    def _forget(self, call: CallInfo, service: str) -> bool:
        was_lost = (call, service) in self._lost
        self._lost.discard((call, service))
        return was_lost


def storable(text: str, longest: int = LONGEST_TEXT) -> str:
    """A text that both databases take, its letters composed so that it is found however it was typed."""
    text = text[:longest].replace("\0", " ")
    return text if text.isascii() else unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode())


def segment_of(said: Transcript, service: str, offset_ms: int, at: int, *, backfilled: bool = False) -> Segment:
    """What a final is in the store, where it has no id yet. It begins with its first word and ends with its last, if it
    has words."""
    words = tuple(_shifted(word, offset_ms) for word in said.words)
    start_ms, end_ms = said.start_ms + offset_ms, said.end_ms + offset_ms
    if words:
        start_ms, end_ms = words[0].start_ms, words[-1].end_ms
    return Segment(
        id=0,
        track=str(said.track),
        start_ms=start_ms,
        end_ms=max(start_ms, end_ms),
        text=storable(said.text),
        words=words,
        confidence=_share(said.confidence),
        speaker=_speaker(words),
        language=said.language and storable(said.language),
        service=service,
        backfilled=backfilled,
        created_at=at,
    )


def _shifted(word: Word, offset_ms: int) -> Word:
    text, confidence = storable(word.text), _share(word.confidence)
    return Word(text, word.start_ms + offset_ms, word.end_ms + offset_ms, confidence, word.speaker)


def _share(confidence: float) -> float:
    return float(confidence) if 0 <= confidence <= 1 else 0.0


def _speaker(words: Sequence[Word]) -> int | None:
    """Who said most of the words."""
    counted = Counter(word.speaker for word in words if word.speaker is not None)
    return counted.most_common(1)[0][0] if counted else None


def unsaved(heard: Heard, said: Transcript, offset_ms: int) -> Event:
    """A final as it is shown while it cannot be stored."""
    call, segment = heard.call, segment_of(said, heard.service, offset_ms, heard.at)
    data = {"call_sid": call.call_sid, "stream_sid": call.stream_sid, "segment": segment.as_json()}
    return Event(0, call.call_sid, 0, Kind.SEGMENT_FINAL, data, heard.at)


@dataclass(frozen=True, slots=True)
class Stretch:
    """From where to where a stream brought audio; a live one may bring more."""

    start_ms: int
    end_ms: int
    is_live: bool = False


def holes(stretches: Sequence[Stretch]) -> Iterator[tuple[int, int]]:
    """From where to where no stream brought audio, although one had before and another did later."""
    heard_ms: int | None = None
    for stretch in sorted(stretches, key=lambda stretch: (stretch.start_ms, stretch.end_ms)):
        if heard_ms is not None and stretch.start_ms > heard_ms:
            yield heard_ms, stretch.start_ms
        if stretch.is_live:
            return
        heard_ms = max(heard_ms or 0, stretch.end_ms)


def uncovered(start_ms: int, end_ms: int, others: Iterable[tuple[int, float]]) -> Iterator[tuple[int, int]]:
    """What of a stretch none of the others covers."""
    for other_start_ms, other_end_ms in sorted(others):
        if other_start_ms < min(other_end_ms, end_ms):
            if start_ms < other_start_ms:
                yield start_ms, other_start_ms
            start_ms = max(start_ms, int(min(other_end_ms, end_ms)))
    if start_ms < end_ms:
        yield start_ms, end_ms


def summary_of(ended: StreamEnded) -> Json:
    """The numbers that a stream's end told."""
    return asdict(ended) | {"reason": storable(ended.reason)}
