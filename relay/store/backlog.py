"""What was heard and waits to be written: bounded, so that a database that stays away does not fill the memory."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Final

from relay.events import Gap, StreamBegun, StreamEnded, Track, Transcript
from relay.protocol import CallInfo
from relay.store.telling import Heard

MOST: Final = 20_000  # things that wait: some five minutes of a hundred busy calls, some tens of megabytes
AT_ONCE: Final = 1000  # of them are dropped when there are too many
UNSAVED: Final = "the database was away for too long to keep what was said"


class Backlog:
    """A queue that forgets its oldest words, but not that they are missing, nor that calls began and ended."""

    def __init__(self, most: int = MOST, at_once: int = AT_ONCE) -> None:
        self.dropped = 0  # things, in all
        self._most = most
        self._at_once = at_once
        self._waiting: deque[Heard] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, heard: Heard) -> None:
        """At the end."""
        self._waiting.append(heard)
        if len(self._waiting) > self._most:
            self._make_room()

    def take(self, most: int) -> list[Heard]:
        """From the beginning."""
        return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def finals(self) -> list[Heard]:
        """What was said, of all that waits."""
        return [heard for heard in self._waiting if isinstance(heard.event, Transcript)]

    def _make_room(self) -> None:
        """Drops the oldest. In place of the first of a service's finals of a track stays a gap that covers them all."""
        kept: list[Heard] = []
        gaps: dict[tuple[CallInfo, str, Track], tuple[int, Gap]] = {}  # and where in `kept` they are
        spare = self._at_once
        for heard in self._waiting:
            event = heard.event
            if not spare or isinstance(event, StreamBegun | StreamEnded):
                kept.append(heard)
                continue
            self.dropped += not isinstance(event, Gap)
            if isinstance(event, Transcript | Gap):
                whose = heard.call, heard.service, event.track
                place, gap = gaps.get(whose, (len(kept), event))
                gaps[whose] = place, _missing(gap, event)
                if place == len(kept):
                    kept.append(heard)
                    continue
            spare -= 1
        for place, gap in gaps.values():
            kept[place] = replace(kept[place], event=gap)
        self._waiting = deque(kept)


def _missing(first: Transcript | Gap, last: Transcript | Gap) -> Gap:
    return Gap(first.track, min(first.start_ms, last.start_ms), max(first.end_ms, last.end_ms), UNSAVED)
