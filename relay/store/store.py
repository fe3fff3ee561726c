"""The store: hears what happens on calls and writes it down; finds it again.

All work with the database is done by real threads: one writes, a few read. The event loop never waits for a disk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final

import gevent
from gevent.event import Event as Flag
from gevent.lock import BoundedSemaphore
from sqlalchemy.exc import SQLAlchemyError

from relay.errors import SettingsError
from relay.events import Transcript
from relay.hub import Happened
from relay.protocol import CallInfo
from relay.store import lifetime, outbox, reading, searching, sounds, writing
from relay.store.batch import Written, now_ms
from relay.store.database import Database, Standing, StoreError, address
from relay.store.ledger import Ledger
from relay.store.owner import this_process
from relay.store.query import terms
from relay.store.records import PAGE, PAGE_MOST, Attempt, Call, CallSoFar, Delivery, Event, Gap, Hit, Page, Segment
from relay.store.searching import Within
from relay.store.telling import LONGEST_SID, Heard, Outages, storable
from relay.store.threads import Threads
from relay.store.writer import Writer
from relay.store.writing import Deleted, StillLive

__all__ = ["StillLive", "Store", "StoreError"]

log = logging.getLogger(__name__)

READERS: Final = 4  # threads
FOLLOW_EVERY: Final = 0.5  # seconds between two looks for what other processes have stored
TIDY_EVERY: Final = 30.0  # seconds between two looks for what killed processes have left
FORGET_EVERY: Final = 3600.0  # seconds between two looks for calls that are too old
SCOUR_STEPS: Final = 200  # pages of the index that are rewritten in one transaction; some ten milliseconds
FORGET_AT_ONCE: Final = 20  # calls in one transaction: what is said meanwhile waits for it
LET_GO_WITHIN: Final = 2.0  # seconds that a thread may take to close its connection
A_DAY_MS: Final = 24 * 3600 * 1000
FROM_NOW_ON: Final = 2**62  # an event's id that no event has

EventListener = Callable[[Sequence[Event]], None]
Anew = Callable[[int], None]
Beside = Callable[[str], Iterable[Path]]


class Store:
    """Calls and what was said on them. `hear` is a listener of the hub."""

    def __init__(
        self,
        url: str,
        *,
        keep_days: int | None = None,
        recordings: Path | None = None,
        beside: Beside = lambda call_sid: (),
        endpoints: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        """`url`: sqlite:///data/calls.db or postgresql://... Raises SettingsError for anything else.

        `keep_days`: after which calls are deleted, and what is in the folder of `recordings` without a call.
        `beside`: the files of a call that lie beside the database, by its SID; they go with it. Asked in a thread.
        `endpoints`: the webhooks by name, and the kinds of events that each wants.
        """
        self._database = Database(address(url))
        self._keep_days = keep_days
        self._recordings = recordings
        self._beside = beside
        self._owner = this_process()
        here, ready, make_ready = self._database.here, self._database.found_ready, self._database.make_ready
        self._readers = Threads(self._database.reader, READERS, here=here, prepare=ready)
        self._writers = Threads(self._database.writer, 1, here=here, prepare=make_ready)
        self._writer = Writer(
            self._writers,
            self._owner,
            dict(endpoints or {}),
            told=lambda: self._told if self._listeners else None,
            on_written=self._on_written,
            on_unsaved=self._tell,
        )
        self._outages = Outages()
        self._listeners: list[EventListener] = []
        self._anew: list[Anew] = []
        self._scour, self._one_scours = Flag(), BoundedSemaphore()  # something was deleted
        self._told = FROM_NOW_ON  # the newest event that the listeners know
        self._is_new = Flag()  # to what is in the database, which was just opened or made anew, we have not looked yet
        self._background = [gevent.Greenlet(run) for run in (self._follow, self._tidy, self._scour_when_told)]

    # --- Its life -------------------------------------------------------------------------------------------

    def open(self, say: Callable[[str], None] = lambda line: None, *, at_any_rate: bool = False) -> None:
        """Makes the tables or brings them up to date, and begins to write. What killed processes left live is closed
        first, what is too old deleted soon after. Raises SettingsError when the database is not to be had.

        `at_any_rate`: begins in trouble when that may pass (it is away, or full), and does all this when it has passed.
        """
        try:
            if self._readers.do(self._database.standing) is Standing.OLD:
                say("The database is brought up to date. With many calls in it this takes a while.")
            self._writers.do(self._database.make_ready)
            self._told = self.newest_event_id()
        except StoreError as trouble:
            if not at_any_rate:
                raise SettingsError(f"DATABASE_URL: {trouble}") from trouble
            self._writer.start(f"{trouble} See to it, or to DATABASE_URL.")
        else:
            self._writer.start()
            with suppress(StoreError):  # said already, and tried again
                self._close_dead()
        for greenlet in self._background:
            greenlet.link_exception(_report)
            greenlet.start()

    def close(self, within: float) -> None:
        """Writes what waits, for so many seconds, and lets go of the database."""
        gevent.killall(self._background)
        self._writer.close(within)
        self._writers.close(LET_GO_WITHIN)
        self._readers.close(LET_GO_WITHIN)

    @property
    def trouble(self) -> str:
        """What is wrong with the database, in one sentence; empty when nothing is."""
        return self._writer.trouble

    @property
    def waiting(self) -> int:
        """How many things heard are not yet written."""
        return self._writer.waiting

    @property
    def dropped(self) -> int:
        """How many things heard were dropped since the start, while the database was away for too long."""
        return self._writer.backlog.dropped

    # --- What happens ---------------------------------------------------------------------------------------

    def hear(self, happened: Happened) -> None:
        """Takes what is worth keeping. Never waits. A listener of the hub."""
        call, event = happened.call, happened.event
        if call is not None and writing.is_kept(event) and self._outages.is_news(call, event):
            self._writer.put(Heard(now_ms(), _storable(call), event, happened.service))

    def offset_ms(self, stream_sid: str) -> int:
        """Where a live stream of this process begins on its call's clock; 0 until that is written."""
        return self._writer.offset_ms(storable(stream_sid, LONGEST_SID))

    def subscribe(self, listener: EventListener, anew: Anew = lambda event_id: None) -> Callable[[], None]:
        """Tells the listener of all events from now on, whichever process stored them, in the order of their ids, each
        after it was committed. It must not wait. Returns what ends it.

        While the database is in trouble it is told of finals that are not stored yet (`is_stored` is False). `anew` is
        told when another database has taken the place of the one before: what follows this id of its is news.
        """
        self._listeners.append(listener)
        self._anew.append(anew)
        return partial(self._unsubscribe, listener, anew)

    def _unsubscribe(self, listener: EventListener, anew: Anew) -> None:
        self._listeners.remove(listener)
        self._anew.remove(anew)

    # --- What was kept; all of these wait for the database. They raise StoreError while there is trouble, and
    # ValueError for a cursor that is none, or for texts and numbers that no database takes (a NUL, 2**70) -----

    def calls(
        self,
        *,
        state: str | None = None,
        number: str | None = None,
        since: int | None = None,
        until: int | None = None,
        service: str | None = None,
        text: str | None = None,
        cursor: str | None = None,
        limit: int = PAGE,
    ) -> Page[Call]:
        """Calls, newest first. All filters must hold: `number` is part of the caller's or the called number, `since` <=
        started_at < `until`, `service` listened, the words of `text` were said in one segment (as `search` reads them).
        """
        wanted = None if text is None else terms(text)
        filters = reading.Filters(state, number, since, until, service, wanted)
        after, most = reading.read_cursor(cursor), reading.as_limit(limit)
        return self._readers.run(lambda connection: reading.page_of_calls(connection, filters, after, most))

    def call(self, sid: str) -> Call | None:
        """One call."""
        return self._readers.run(lambda connection: reading.call(connection, sid))

    def transcript(self, sid: str) -> CallSoFar | None:
        """All that is known of a call at one moment. What follows its last event's id is not in it, and all else is."""
        return self._readers.run(lambda connection: reading.transcript_of(connection, sid))

    def segments(self, sid: str) -> list[Segment]:
        """All that was said on a call, in order of time."""
        return self._readers.run(lambda connection: reading.segments_of(connection, sid))

    def gaps(self, sid: str) -> list[Gap]:
        """What is missing of a call, in order of time; filled gaps too."""
        return self._readers.run(lambda connection: reading.gaps_of(connection, sid))

    def search(
        self,
        words: str,
        *,
        call_sid: str | None = None,
        track: str | None = None,
        speaker: int | None = None,
        cursor: str | None = None,
        limit: int = PAGE,
    ) -> Page[Hit]:
        """Segments in which all the words were said, newest first; accents and case do not count.

        "Words in quotes" follow one another, and two letters or more with a * behind are the beginning of a word. All
        else in its first 500 characters is read as if it were a space. Without a word nothing is found.
        """
        before, wanted, most = _before(cursor), terms(words), reading.as_limit(limit)
        within = Within(track=track, speaker=speaker, before=before)
        return self._readers.run(lambda connection: reading.search(connection, wanted, call_sid, within, most))

    def events_after(self, event_id: int, *, call_sid: str | None = None, limit: int = PAGE) -> list[Event]:
        """The events that follow this id, of all calls or one, in order."""
        most = reading.as_limit(limit)
        return self._readers.run(lambda connection: reading.events_after(connection, event_id, call_sid, most))

    def newest_event_id(self) -> int:
        """The id after which nothing has happened yet; 0 when nothing ever has."""
        return self._readers.run(reading.newest_event_id)

    # --- What is changed; all of these wait for the commit and raise StoreError at once while there is trouble --

    def delete(self, sid: str) -> bool:
        """Deletes a call and all that belongs to it, its files too. False if there is none.

        Raises StillLive while it runs.
        """
        deleted = self._writer.ask(lambda ledger: self._without_files(writing.delete_call(ledger, sid)))
        if deleted:
            self._scour.set()
        return bool(deleted)

    def scour(self) -> None:
        """Overwrites what the index for search still has of deleted calls, step by step, so that others may write in
        between. The store does so by itself after each deletion, and when a process was killed before it had; who is
        about to close it waits here."""
        with self._one_scours:
            self._scour.clear()
            if not (owed := self._readers.run(writing.owed)):
                return
            steps = -SCOUR_STEPS  # negative: all of the index, from now on
            while self._writer.ask(partial(_scour, steps=steps)):
                steps = SCOUR_STEPS
            if self._readers.do(self._database.empty_log):
                self._writer.ask(lambda ledger: writing.settle(ledger, owed))

    def note_recording(self, sid: str, path: str) -> bool:
        """Notes where a call's recording lies. False if there is no such call."""
        return self._writer.ask(lambda ledger: writing.note_recording(ledger, sid, path))

    def fill_gap(
        self, sid: str, gap: Gap, finals: Iterable[Transcript], service: str, rest: Sequence[tuple[int, int]] = ()
    ) -> bool:
        """Puts what was said in a call's gap into its place and marks the gap as filled, at once or not at all. Times
        are the call's. False if the call has no such gap any more, or it is filled already: nothing is stored twice.

        `rest`: from where to where nobody could hear it still; that stays a gap.
        """
        said = list(finals)
        return self._writer.ask(lambda ledger: writing.fill_gap(ledger, sid, gap, said, service, rest))

    # --- Webhooks -------------------------------------------------------------------------------------------

    def due_deliveries(self, endpoint: str, now: int, limit: int = PAGE) -> list[Delivery]:
        """Deliveries whose time has come, oldest first. They are the caller's for LEASE_MS: until then, or until an
        attempt is noted, no other process is given them."""
        if not self._readers.run(lambda connection: outbox.is_due(connection, endpoint, now)):
            return []
        most = reading.as_limit(limit)
        return self._writer.ask(lambda ledger: outbox.lease(ledger, endpoint, now, most))

    def next_delivery_at(self, endpoint: str) -> int | None:
        """When the next delivery to this endpoint is due; None if none is pending."""
        return self._readers.run(lambda connection: outbox.next_delivery_at(connection, endpoint))

    def waiting_deliveries(self) -> dict[str, int]:
        """How many deliveries are pending, by endpoint."""
        return self._readers.run(outbox.waiting)

    def note_deliveries(self, attempts: Sequence[Attempt]) -> None:
        """Notes how attempts went, in one commit."""
        self._writer.ask(lambda ledger: outbox.note(ledger, attempts))

    def replay_delivery(self, delivery_id: int) -> bool:
        """Has it delivered once more, from the first attempt on, with the same message id. False if there is none."""
        return self._writer.ask(lambda ledger: outbox.replay(ledger, delivery_id))

    def deliveries(
        self, *, endpoint: str | None = None, state: str | None = None, cursor: str | None = None, limit: int = PAGE
    ) -> Page[Delivery]:
        """Deliveries, newest first."""
        before, most = _before(cursor), reading.as_limit(limit)
        return self._readers.run(
            lambda connection: outbox.page_of_deliveries(connection, endpoint, state, before, most)
        )

    # --- What was stored is told ----------------------------------------------------------------------------

    def _on_written(self, written: Written) -> None:
        if written.found is not None:
            if written.found < self._told < FROM_NOW_ON:
                for anew in self._anew:
                    anew(written.found)
            self._told = min(self._told, written.found)
            self._is_new.set()
        if written.events is not None:
            self._tell_news(written.events)
        elif not self._listeners:  # one that came meanwhile is told by `_follow`
            self._told = max(self._told, written.newest_id)

    def _tell_news(self, events: Sequence[Event]) -> None:
        news = [event for event in events if event.id > self._told]
        if news:
            self._told = news[-1].id
            self._tell(news)

    def _tell(self, events: Sequence[Event]) -> None:
        for listener in list(self._listeners):
            try:
                listener(events)
            except Exception:
                log.exception("a listener failed on stored events")

    def _follow(self) -> None:
        """Tells what other processes store. Ids rise as they are committed, so nothing comes to light before the
        newest that is known."""
        while True:
            gevent.sleep(FOLLOW_EVERY)
            try:
                if not self._listeners:
                    newest = self.newest_event_id()
                    if not self._listeners:
                        self._told = max(self._told, newest)
                while self._listeners and (news := self.events_after(self._told, limit=PAGE_MOST)):
                    self._tell_news(news)
            except StoreError:
                self._writer.look()  # also while nothing is said: it tells of trouble, and mends what can be mended

    # --- What is old or dead --------------------------------------------------------------------------------

    def _tidy(self) -> None:
        forget_at = 0.0
        while True:
            with suppress(StoreError):
                self._close_dead()
                if monotonic() >= forget_at:
                    self._forget_old()
                    forget_at = monotonic() + FORGET_EVERY
            self._is_new.wait(TIDY_EVERY)
            self._is_new.clear()

    def _close_dead(self) -> None:
        dead = self._readers.run(lambda connection: lifetime.dead_streams(connection, self._owner, now_ms()))
        if dead:
            self._writer.ask(lifetime.close_dead)
        if self._readers.run(lambda connection: outbox.dead_lessees(connection, now_ms())):
            self._writer.ask(outbox.free_leases)

    def _forget_old(self) -> None:
        self._writer.ask(writing.forget_owners)
        self._writer.ask(outbox.give_up)
        if self._readers.run(writing.owed):
            self._scour.set()
        if self._keep_days is None:
            return
        before = now_ms() - self._keep_days * A_DAY_MS
        while self._writer.ask(
            lambda ledger: self._without_files(writing.delete_ended_before(ledger, before, FORGET_AT_ONCE))
        ):
            self._scour.set()
        if (folder := self._recordings) is not None:
            self._remove(self._readers.run(lambda connection: sounds.orphans(connection, folder, before)))

    def _scour_when_told(self) -> None:
        while True:
            self._scour.wait()
            try:
                self.scour()
            except (StoreError, SQLAlchemyError):
                self._scour.set()
                gevent.sleep(TIDY_EVERY)

    def _files_of(self, deleted: Deleted) -> Iterator[str | Path]:
        for sid, recording in deleted.items():
            if recording is not None:
                yield recording
            yield from self._beside(sid)

    def _without_files(self, deleted: Deleted) -> Deleted:
        """Deletes the files of calls before the transaction that deletes these is committed: whoever is killed in
        between leaves a call without sound, which can be deleted again, and no sound that nobody knows of."""
        sounds.unlink(self._files_of(deleted))
        return deleted

    def _remove(self, files: Iterable[str | Path]) -> None:
        """Deletes files of which no call is known."""
        self._readers.do(partial(sounds.unlink, files))


def _scour(ledger: Ledger, steps: int) -> bool:
    return searching.scour(ledger.connection, steps)


def _before(cursor: str | None) -> int | None:
    place = reading.read_cursor(cursor)
    return None if place is None else place[0]


def _storable(call: CallInfo) -> CallInfo:
    """Twilio's names for it as the database takes them, whoever made them up."""
    sids = storable(call.call_sid, LONGEST_SID), storable(call.stream_sid, LONGEST_SID)
    return call if sids == (call.call_sid, call.stream_sid) else CallInfo(*sids, call.tracks)


def _report(failed: gevent.Greenlet[[], None]) -> None:
    log.critical("a greenlet of the store failed: %r", failed.exception)
