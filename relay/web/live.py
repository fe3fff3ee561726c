"""The live feed: what happens on the calls, as Server-Sent Events to whoever watches.

What is stored comes from the store, after its commit, with its id; who comes back with the last id that it saw misses
nothing and gets nothing twice. Interims and how a stream is doing come from the hub and are nowhere kept; who begins to
watch one call in the middle is shown the newest at once.
"""

from __future__ import annotations

import logging
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import gevent
from gevent.event import Event as Bell

from relay.events import StreamBegun, StreamEnded, StreamReported, Transcript
from relay.hub import Happened
from relay.protocol import CallInfo
from relay.store.records import Event
from relay.store.store import Store, StoreError
from relay.web.elsewhere import Elsewhere
from relay.web.neighbours import Neighbours
from relay.web.present import Changes, Present, Side
from relay.web.shown import Frame, anew, interim, status, stored
from relay.web.unopened import Unopened

log = logging.getLogger(__name__)

HEARTBEAT_S: Final = 15.0  # seconds of silence after which a comment is sent: proxies close what is silent for long
HEARTBEAT: Final = b": still here\n\n"
COME_BACK_MS: Final = (1000, 3000)  # a viewer that was cut off waits so long, by chance: not all come back at once
VIEWERS_MOST: Final = 5000
WAITING_MOST: Final = 1 << 20  # bytes that wait for a viewer; one that lets more come together is let go
FRESH_MOST: Final = 1 << 16  # bytes; for one that lags behind by more, what is fleeting is no news any more
MISSED_AT_ONCE: Final = 100  # events read from the store for a viewer that came back
TRY_AGAIN_S: Final = 1.0  # seconds to the next try, while the database is away
SHOW_EVERY: Final = 0.05  # seconds between two rounds: a write for each event costs more than all else of it
STILL_ALLOWED_EVERY: Final = 2.0  # seconds until a viewer whose pass has ended is let go, at most
AT_ONCE: Final = 25  # viewers that are shown something before the calls have their turn: half a millisecond's work
A_TURN: Final = 0.001  # seconds


class Viewer:
    """One that watches. What is shown to it waits until it has taken what came before."""

    def __init__(self, store: Store, call_sid: str | None, last_id: int | None, may_still: Callable[[], bool]) -> None:
        self.call_sid = call_sid
        self.may_still = may_still
        self.waiting = 0  # bytes
        self._store = store
        self._last_id = last_id or 0
        self._missed_some = last_id is not None
        self._frames: list[Frame] = []
        self._news = Bell()
        self._leaves = False
        self._greenlet = gevent.getcurrent()

    def show(self, frames: Sequence[Frame]) -> None:
        """Queues what happened. Never waits."""
        for frame in frames:
            if not frame.is_fleeting or self.waiting < FRESH_MOST:
                self._frames.append(frame)
                self.waiting += len(frame.data)
        self._news.set()

    def let_go(self) -> None:
        """Ends it at once, wherever it is held up."""
        gevent.kill(self._greenlet)

    def leave(self) -> None:
        """It gets what waits, and then the end."""
        self._leaves = True
        self._news.set()

    def read(self, heartbeat_s: float) -> Iterator[bytes]:
        """What goes out. Runs in the viewer's own greenlet."""
        yield b"retry: %d\n\n" % random.randint(*COME_BACK_MS)  # noqa: S311  # it spreads load and hides nothing
        while self._missed_some or self._frames or not self._leaves:
            if self._missed_some:
                try:
                    yield self._missed()
                except StoreError:
                    yield self._take() or HEARTBEAT
                    if self._leaves:
                        return  # who comes back with its last id gets the rest
                    gevent.sleep(TRY_AGAIN_S)
            elif self._news.wait(heartbeat_s):
                yield self._take()
            else:
                yield HEARTBEAT

    def _missed(self) -> bytes:
        """The next of what it has missed, from the store. What is stored while we look comes by the queue as well.
        Raises StoreError."""
        newest = self._store.newest_event_id()
        self._last_id = min(self._last_id, newest)  # which may be of another database, whose place this one has taken
        events = self._store.events_after(self._last_id, call_sid=self.call_sid, limit=MISSED_AT_ONCE)
        self._missed_some = len(events) == MISSED_AT_ONCE
        missed = [stored(event) for event in events]
        self._last_id = missed[-1].id if missed else self._last_id
        return b"".join(frame.data for frame in missed) + self._take()

    def _take(self) -> bytes:
        """What waits. Of what is stored, nothing while the store has still to be asked, and nothing twice."""
        frames, self._frames, self.waiting = self._frames, [], 0
        self._news.clear()
        return b"".join(frame.data for frame in frames if self._is_news(frame))

    def _is_news(self, frame: Frame) -> bool:
        if frame.begins_anew:
            self._last_id = min(self._last_id, frame.id)
            return False
        if frame.id:
            if self._missed_some or frame.id <= self._last_id:
                return False
            self._last_id = frame.id
        return True


class Live:
    """All who watch. `hear` is a listener of the hub."""

    def __init__(self, store: Store, *, heartbeat_s: float = HEARTBEAT_S, neighbours: Neighbours | None = None) -> None:
        self._store = store
        self._heartbeat_s = heartbeat_s
        self._viewers: set[Viewer] = set()
        self._watched: Counter[str | None] = Counter()  # how many watch each call
        self._present: dict[CallInfo, Present] = {}  # of the live streams
        self._frames: list[Frame] = []
        self._news = Bell()
        self._is_open = True
        self._elsewhere = None
        if neighbours is not None:
            self._elsewhere = Elsewhere(neighbours, self._watched, self._now, self._show_news)
        self._unopened = Unopened(store, lambda frame: self._show_news([frame]), neighbours)
        self._unsubscribe = store.subscribe(self._told, lambda last_id: self._show_news([anew(last_id)]))
        self._greenlets = [gevent.spawn(self._show_all), gevent.spawn(self._look_who_may), self._unopened.greenlet]
        for greenlet in self._greenlets:
            greenlet.link_exception(lambda failed: log.critical("the live feed failed: %r", failed.exception))

    @property
    def viewers(self) -> int:
        """How many watch."""
        return len(self._viewers)

    @property
    def waiting(self) -> int:
        """How many bytes wait for viewers that have not taken them."""
        return sum(viewer.waiting for viewer in self._viewers)

    @property
    def has_room(self) -> bool:
        """Whether one more may watch."""
        return self.viewers < VIEWERS_MOST

    def hear(self, happened: Happened) -> None:
        """Takes what is nowhere kept. Never waits."""
        call, event = happened.call, happened.event
        if call is None:
            return
        if isinstance(event, StreamReported) and not any(one.call_sid == call.call_sid for one in self._present):
            self._unopened.report(event)
        if isinstance(event, StreamBegun):
            self._present[call] = Present()
        if (present := self._present.get(call)) is None:
            return
        changed = present.hear(happened.service, event)
        if changed.of_interims and self._viewers:
            self._add(self._interims(call, present, changed.of_interims))
        if changed.of_status and self._watched[call.call_sid]:
            self._add([self._status(call, present)])
        if self._elsewhere is not None:
            self._hear_for(self._elsewhere, call, present, happened, changed)
        if isinstance(event, StreamEnded):
            del self._present[call]

    def watch(
        self, call_sid: str | None = None, last_id: int | None = None, *, may_still: Callable[[], bool]
    ) -> Iterator[bytes]:
        """What a viewer is sent, of all calls or of one: what it has missed since the last id, and all that follows.

        It ends when the viewer may no longer see it.
        """
        viewer = Viewer(self._store, call_sid, last_id, may_still)
        if not self._is_open:
            viewer.leave()
        self._viewers.add(viewer)
        self._watched[call_sid] += 1
        if self._elsewhere is not None:
            self._elsewhere.changed(call_sid, begins=True)
        viewer.show(self._now(call_sid))
        try:
            yield from viewer.read(self._heartbeat_s)
        finally:
            self._viewers.discard(viewer)
            self._watched -= Counter([call_sid])
            if self._elsewhere is not None:
                self._elsewhere.changed(call_sid, begins=False)

    def close(self) -> None:
        """Lets all viewers go; they come back by the last id that they saw. Who comes now gets what was missed."""
        if self._is_open:
            self._is_open = False
            self._unsubscribe()
            gevent.killall(self._greenlets)
            if self._elsewhere is not None:
                self._elsewhere.close()
            for viewer in self._viewers:
                viewer.leave()

    def _now(self, call_sid: str | None) -> list[Frame]:
        """What one call is like just now; None: what keeps calls from coming through."""
        frames = [self._unopened.frame] if call_sid is None and self._unopened.frame is not None else []
        for call, present in self._present.items():
            if call.call_sid == call_sid:
                frames += [self._status(call, present), *self._interims(call, present, present.interims)]
        return frames

    def _interims(self, call: CallInfo, present: Present, sides: Iterable[Side]) -> list[Frame]:
        offset_ms = self._store.offset_ms(call.stream_sid)
        return [interim(call, offset_ms, *side, present.interims.get(side)) for side in sides]

    def _status(self, call: CallInfo, present: Present) -> Frame:
        return status(call, self._store.offset_ms(call.stream_sid), present.status)

    def _told(self, events: Sequence[Event]) -> None:
        self._unopened.told(events)
        if self._elsewhere is not None:
            self._elsewhere.read()  # an interim that was sent before its final was stored is shown before it
            for event in events:
                if not event.is_stored and self._elsewhere.wants(event.call_sid):
                    frame = stored(event)
                    self._elsewhere.add(frame, frame)
        if self._viewers:
            self._add([stored(event) for event in events])

    def _hear_for(
        self, elsewhere: Elsewhere, call: CallInfo, present: Present, happened: Happened, changed: Changes
    ) -> None:
        """The same for viewers at other workers. What waits of an interim when its final comes is not sent after it."""
        if isinstance(happened.event, Transcript) and happened.event.is_final:
            elsewhere.drop((call, (happened.service, happened.event.track)))
        if elsewhere.wants(call.call_sid):
            frames = self._interims(call, present, changed.of_interims)
            for side, frame in zip(changed.of_interims, frames, strict=True):
                elsewhere.add((call, side), frame)
            if changed.of_status:
                elsewhere.add((call, None), self._status(call, present))

    def _show_news(self, frames: list[Frame]) -> None:
        if self._viewers:
            self._add(frames)

    def _add(self, frames: list[Frame]) -> None:
        self._frames += frames
        self._news.set()

    def _show_all(self) -> None:
        while True:
            self._news.wait()
            self._news.clear()
            frames, self._frames = self._frames, []
            of_call: defaultdict[str | None, list[Frame]] = defaultdict(list)
            for frame in frames:
                for call_sid in self._watched if frame.begins_anew else (frame.call_sid,):
                    of_call[call_sid].append(frame)
            of_all = [frame for frame in frames if not frame.is_status]
            for number, viewer in enumerate(tuple(self._viewers), 1):
                self._show(viewer, of_all if viewer.call_sid is None else of_call.get(viewer.call_sid, []))
                if number % AT_ONCE == 0:
                    gevent.sleep(A_TURN)
            gevent.sleep(SHOW_EVERY)

    def _look_who_may(self) -> None:
        """Lets go of those who may no longer see."""
        while True:
            gevent.sleep(STILL_ALLOWED_EVERY)
            for number, viewer in enumerate(tuple(self._viewers), 1):
                if not viewer.may_still():
                    self._viewers.discard(viewer)
                    viewer.let_go()
                if number % AT_ONCE == 0:
                    gevent.sleep(A_TURN)

    def _show(self, viewer: Viewer, frames: list[Frame]) -> None:
        if viewer.waiting > WAITING_MOST:
            log.info("a viewer of the live feed did not read and was let go")
            self._viewers.discard(viewer)
            viewer.let_go()
        elif frames:
            viewer.show(frames)
