"""The last stream that Twilio could not open, of a call that never began: known until a later call begins."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import gevent
from gevent.event import Event as Bell

from relay.events import StreamReported
from relay.store.records import Event, as_time
from relay.store.records import Kind as EventKind
from relay.store.store import Store, StoreError
from relay.web.neighbours import Kind, Neighbours
from relay.web.shown import Frame, unopened

REPORTS_MOST: Final = 20  # that wait until it is known whether their calls have begun
BEGUN: Final = (EventKind.CALL_STARTED, EventKind.CALL_RESUMED)


class Unopened:
    """What is to be told of it, to those who may see all calls. All workers know the same, but those started later."""

    def __init__(self, store: Store, show: Callable[[Frame], None], neighbours: Neighbours | None) -> None:
        self.frame: Frame | None = None
        self._store = store
        self._show = show
        self._neighbours = neighbours
        self._failed_at, self._call_sid = 0, ""
        self._reports: deque[tuple[int, StreamReported]] = deque(maxlen=REPORTS_MOST)
        self._news = Bell()
        if neighbours is not None:
            neighbours.on(Kind.UNOPENED, lambda place, said: self._know(*said))
        self.greenlet = gevent.spawn(self._judge)

    def report(self, reported: StreamReported) -> None:
        """Takes what Twilio says of a stream. Never waits."""
        if reported.event == "stream-error":
            self._reports.append((round(time.time() * 1000), reported))
            self._news.set()

    def told(self, events: Sequence[Event]) -> None:
        """What is stored may be that a later call has begun."""
        if any(event.kind in BEGUN and self._is_over_with(event) for event in events):
            self.frame = None

    def _is_over_with(self, begun: Event) -> bool:
        return begun.created_at >= self._failed_at or begun.call_sid == self._call_sid

    def _judge(self) -> None:
        """Leaves out reports of calls that have begun: those are told on their own pages."""
        while True:
            self._news.wait()
            self._news.clear()
            while self._reports:
                failed_at, reported = self._reports.popleft()
                if not self._has_begun(reported.call_sid):
                    said = {"error": reported.error, "advice": reported.advice}
                    failure = {"call_sid": reported.call_sid, "failed_at": as_time(failed_at), **said}
                    self._know(failed_at, failure)
                    if self._neighbours is not None:
                        self._neighbours.tell(Kind.UNOPENED, (failed_at, failure))

    def _has_begun(self, call_sid: str) -> bool:
        try:
            return self._store.call(call_sid) is not None
        except StoreError:
            return True  # for all we know

    def _know(self, failed_at: int, failure: dict[str, Any]) -> None:
        if failed_at >= self._failed_at:
            self._failed_at, self._call_sid, self.frame = failed_at, failure["call_sid"], unopened(failure)
            self._show(self.frame)
