"""For tests of the store: calls as the hub tells of them, and those who want to know what was stored."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, Final

import gevent
from gevent.event import Event as Flag

from relay.events import (
    CallEvent,
    Gap,
    Listened,
    StreamBegun,
    StreamEnded,
    Track,
    Transcript,
    Word,
)
from relay.hub import Happened
from relay.protocol import CallInfo
from relay.store.records import Event, Kind
from relay.store.store import Store
from tests.program import ROOT

IN: Final = Track.INBOUND
OUT: Final = Track.OUTBOUND
PATIENCE: Final = 30.0  # seconds for anything, on a busy machine
_NUMBERS: Final = count(1)


@contextmanager
def opened(url: str, **options: Any) -> Iterator[Store]:
    """A store on this database, which is closed at the end."""
    store = Store(url, **options)
    store.open()
    try:
        yield store
    finally:
        store.close(PATIENCE)


class Talk:
    """One stream of a call."""

    def __init__(
        self,
        store: Store,
        call_sid: str | None = None,
        *,
        stream_sid: str | None = None,
        tracks: tuple[Track, ...] = (IN, OUT),
        service: str = "Deepgram",
    ) -> None:
        number = next(_NUMBERS)
        self.call = CallInfo(call_sid or f"CA{number:032x}", stream_sid or f"MZ{number:032x}", tracks)
        self.sid = self.call.call_sid
        self._hear = store.hear
        self._service = service

    def begin(self, services: tuple[str, ...] = ("Deepgram",), caller: str = "", called: str = "") -> Talk:
        """The stream begins."""
        return self.tell(StreamBegun(services, caller, called))

    def say(
        self, text: str, start_ms: int = 0, end_ms: int | None = None, *, track: Track = IN, speaker: int | None = None
    ) -> Talk:
        """A final comes, of words of the same length."""
        end_ms = start_ms + 1000 if end_ms is None else end_ms
        spoken, length = text.split(), end_ms - start_ms
        words = tuple(
            Word(
                word,
                start_ms + index * length // len(spoken),
                start_ms + (index + 1) * length // len(spoken),
                0.5,
                speaker,
            )
            for index, word in enumerate(spoken)
        )
        said = Transcript(track, text, start_ms, end_ms, True, words, 0.5, "en")
        return self.tell(said, self._service)

    def miss(self, start_ms: int, end_ms: int, reason: str = "Deepgram was away", track: Track = IN) -> Talk:
        """Some seconds are lost."""
        return self.tell(Gap(track, start_ms, end_ms, reason), self._service)

    def listen(self, until_ms: int) -> Talk:
        """Audio has come up to here."""
        return self.tell(Listened(until_ms))

    def end(self, duration_ms: int = 0, reason: str = "stop") -> Talk:
        """The stream ends."""
        return self.tell(StreamEnded(reason, duration_ms, 1, 0, 0, 0, 2, 0, 0, 300, 500))

    def tell(self, event: CallEvent, service: str = "") -> Talk:
        """Something else happens."""
        self._hear(Happened(self.call, event, service))
        return self


class Reader:
    """Someone who is told of all events from now on."""

    def __init__(self, store: Store) -> None:
        self.events: list[Event] = []
        self._changed = Flag()
        self.leave = store.subscribe(self._take)

    def until(self, is_enough: Callable[[list[Event]], object]) -> list[Event]:
        """All that it was told, when that is enough."""
        with gevent.Timeout(PATIENCE, AssertionError(f"not enough was told: {self.events}")):
            while not is_enough(self.events):
                self._changed.wait()
                self._changed.clear()
        return self.events

    def until_ended(self, calls: int = 1) -> list[Event]:
        """All that it was told, when so many calls have ended."""
        return self.until(lambda events: sum(event.kind is Kind.CALL_ENDED for event in events) >= calls)

    def _take(self, events: Sequence[Event]) -> None:
        self.events += events
        self._changed.set()


def dead_process() -> str:
    """A process of this machine that has ended."""
    script = "from relay.store.owner import this_process; print(this_process())"
    return subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()


def eventually(holds: Callable[[], object]) -> None:
    """Waits until something holds that nobody announces."""
    with gevent.Timeout(PATIENCE, AssertionError("it never came true")):
        while not holds():
            gevent.sleep(0.02)


def texts(events: Sequence[Event]) -> list[str]:
    """What was said, of the events."""
    return [event.data["segment"]["text"] for event in events if event.kind is Kind.SEGMENT_FINAL]


def kinds(events: Sequence[Event]) -> list[str]:
    """What the events say has happened."""
    return [event.kind.value for event in events]
