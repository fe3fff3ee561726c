"""Viewers at other workers: what they want to see of the calls here, and what is shown to them.

Each worker tells its neighbours which calls are watched there, at once when that changes and again every other second;
where nobody watches, nothing is said. What is shown is fleeting, so of each kind only the newest is sent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from time import monotonic
from typing import Any, Final, NamedTuple

import gevent
from gevent.event import Event as Bell

from relay.web.neighbours import Kind, Neighbours
from relay.web.shown import Frame

log = logging.getLogger(__name__)

SEND_EVERY: Final = 0.05  # seconds between two rounds
TELL_AGAIN_EVERY: Final = 2.0  # seconds; a message may have been dropped, and a neighbour be a new one
FORGOTTEN_AFTER: Final = 7.0  # seconds after which a neighbour that says nothing wants nothing any more
CALLS_MOST: Final = 200  # named one by one; who wants more of them is sent all
PORTION: Final = 1 << 14  # bytes in one message


class Want(NamedTuple):
    """What a neighbour's viewers watch: these calls; None: all."""

    calls: frozenset[str] | None
    until: float

    def covers(self, call_sid: str) -> bool:
        """Whether this call is among them."""
        return self.calls is None or call_sid in self.calls


class Elsewhere:
    """The other workers, as the live feed knows them."""

    def __init__(
        self,
        neighbours: Neighbours,
        watched: Mapping[str | None, int],
        now: Callable[[str], list[Frame]],
        show: Callable[[list[Frame]], None],
    ) -> None:
        self._neighbours = neighbours
        self._watched = watched  # here: how many watch each call; None: all
        self._now = now
        self._show = show
        self._wants: dict[int, Want] = {}  # by place
        self._waiting: dict[Hashable, Frame] = {}
        self._asked: set[str] = set()
        self._told: list[str] | None = []
        self._told_at = 0.0
        self._news = Bell()
        neighbours.on(Kind.WANTED, self._wanted)
        neighbours.on(Kind.SHOWN, self._shown)
        self._greenlet = gevent.spawn(self._tend)
        self._greenlet.link_exception(lambda failed: log.critical("viewers elsewhere: %r", failed.exception))

    def wants(self, call_sid: str) -> bool:
        """Whether somebody there watches this call."""
        return any(want.covers(call_sid) for want in self._wants.values())

    def add(self, key: Hashable, frame: Frame) -> None:
        """Queues what is to be shown there, in place of what waits under the same key. Never waits."""
        self._waiting.pop(key, None)
        self._waiting[key] = frame
        self._news.set()

    def drop(self, key: Hashable) -> None:
        """What waits under this key is no news any more."""
        self._waiting.pop(key, None)

    def changed(self, call_sid: str | None, *, begins: bool) -> None:
        """Who watches here has changed; if someone begins to watch one call, how it is now is asked for."""
        if begins and call_sid is not None:
            self._asked.add(call_sid)
        self._news.set()

    def read(self) -> None:
        """Shows what has come so far."""
        self._neighbours.read()

    def close(self) -> None:
        """Nobody watches here any more."""
        self._greenlet.kill()
        if self._told != []:
            self._tell([], [])

    def _tend(self) -> None:
        while True:
            self._news.wait(TELL_AGAIN_EVERY)
            self._news.clear()
            self._tell_what_is_watched()
            self._send_what_waits()
            gevent.sleep(SEND_EVERY)

    def _tell_what_is_watched(self) -> None:
        calls = self._calls()
        is_due = calls != [] and monotonic() >= self._told_at + TELL_AGAIN_EVERY
        if calls != self._told or self._asked or is_due:
            asked, self._asked = self._asked, set()
            self._tell(calls, sorted(asked)[:CALLS_MOST])

    def _tell(self, calls: list[str] | None, asked: list[str]) -> None:
        self._told, self._told_at = calls, monotonic()
        self._neighbours.tell(Kind.WANTED, {"calls": calls, "now": asked})

    def _calls(self) -> list[str] | None:
        named = sorted(call for call in self._watched if call is not None)
        return None if None in self._watched or len(named) > CALLS_MOST else named

    def _wanted(self, place: int, said: dict[str, Any]) -> None:
        """A neighbour says what is watched there, and of which calls it has to know how they are now."""
        calls = said["calls"]
        self._wants[place] = Want(None if calls is None else frozenset(calls), monotonic() + FORGOTTEN_AFTER)
        for call_sid in said["now"]:
            self._send(place, self._now(call_sid))

    def _shown(self, place: int, frames: list[list[Any]]) -> None:
        self._show([Frame(sid, 0, data.encode(), *traits) for sid, data, *traits in frames])

    def _send_what_waits(self) -> None:
        frames, self._waiting = list(self._waiting.values()), {}
        now = monotonic()
        self._wants = {place: want for place, want in self._wants.items() if want.until > now}
        for place, want in self._wants.items():
            self._send(place, [frame for frame in frames if want.covers(frame.call_sid)])

    def _send(self, place: int, frames: list[Frame]) -> None:
        for some in portions(frames):
            said = [(frame.call_sid, frame.data.decode(), frame.is_fleeting, frame.is_status) for frame in some]
            self._neighbours.tell(Kind.SHOWN, said, place)


def portions(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    """The same in messages of a bounded size; what is larger by itself goes alone."""
    some: list[Frame] = []
    size = 0
    for frame in frames:
        if some and size + len(frame.data) > PORTION:
            yield some
            some, size = [], 0
        some.append(frame)
        size += len(frame.data)
    if some:
        yield some
