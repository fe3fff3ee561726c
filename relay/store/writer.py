"""Writes what was heard, batch by batch, and goes on trying when the database is away."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any, Final, TypeVar

import gevent
from gevent.event import Event as Flag

from relay.errors import SettingsError
from relay.events import Listened, StreamBegun, StreamEnded, Transcript
from relay.protocol import CallInfo
from relay.speech import backoff
from relay.store.backlog import Backlog
from relay.store.batch import Asked, Batch, Unwritable, Written, now_ms, write
from relay.store.database import StoreError, sentence
from relay.store.ledger import Ledger
from relay.store.records import Event
from relay.store.telling import Heard, Progress, unsaved
from relay.store.threads import NO_VALUE, Outcome, Threads, outcome_of

log = logging.getLogger(__name__)

T = TypeVar("T")

BATCH_MOST: Final = 500  # things in one transaction
BEAT_EVERY: Final = 1.0  # seconds between two signs of life while calls run, and between notes of how far they are
SLOW_AFTER: Final = 6.0  # seconds; longer than SQLite waits for another program's lock
RETRY_FIRST: Final = 0.25  # seconds
RETRY_MOST: Final = 10.0


class Writer:
    """Takes what is heard and what is asked, and has one thread write it down. Never waits in `put`."""

    def __init__(
        self,
        threads: Threads,
        owner: str,
        endpoints: Mapping[str, frozenset[str]],
        *,
        told: Callable[[], int | None],
        on_written: Callable[[Written], None],
        on_unsaved: Callable[[Sequence[Event]], None],
    ) -> None:
        self.trouble = ""
        self.backlog = Backlog()
        self._threads = threads
        self._owner = owner
        self._endpoints = endpoints
        self._told = told
        self._on_written = on_written
        self._on_unsaved = on_unsaved
        self._asked: list[Asked[Any]] = []
        self._live: dict[CallInfo, Progress] = {}  # streams, and how far they have come
        self._begun: dict[CallInfo, Heard] = {}  # the same, as far as is written, and how they began
        self._offsets: dict[str, int] = {}  # of live streams, on their calls' clocks
        self._number = 0  # of the newest batch
        self._in_hand = 0  # things in the batch that is being written
        self._beat_at = 0.0
        self._looks = False  # whether the database is well
        self._last_at: int | None = None  # when the newest of what is written was begun
        self._closing = Flag()
        self._wake = Flag()
        self._greenlet = gevent.Greenlet(self._run)

    @property
    def waiting(self) -> int:
        """How many things are not yet written."""
        return len(self.backlog) + self._in_hand

    def offset_ms(self, stream_sid: str) -> int:
        """Where a live stream begins on its call's clock; 0 until that is written."""
        return self._offsets.get(stream_sid, 0)

    def start(self, trouble: str = "") -> None:
        """Begins to write; in trouble, if there is some already."""
        if trouble:
            self._be_in_trouble(trouble, self._batch((), ()))
            self.look()
        self._greenlet.link_exception(self._report)
        self._greenlet.start()

    def look(self) -> None:
        """Has it found out whether the database is well, also if there is nothing to write."""
        self._looks = True
        self._wake.set()

    def put(self, heard: Heard) -> None:
        """Takes something that was heard. Never waits."""
        if self._closing.is_set():
            return
        match heard.event:
            case Listened() | Transcript(text="") as event:
                if heard.call in self._live:
                    self._live[heard.call] = self._live[heard.call].further(event, heard.service)
                return
            case StreamBegun():
                self._live[heard.call], self._offsets[heard.call.stream_sid] = Progress(), 0
            case StreamEnded():
                self._live.pop(heard.call, None)
                self._offsets.pop(heard.call.stream_sid, None)
        self.backlog.add(heard)
        self._wake.set()
        if self.trouble:
            self._show_unsaved([heard])

    def ask(self, work: Callable[[Ledger], T]) -> T:
        """Has something done in the next transaction, and waits until it is committed. Raises StoreError, and what the
        work itself raises."""
        if self.trouble or self._closing.is_set():
            raise StoreError(self.trouble or "The database is closed.")
        asked = Asked(work)
        self._asked.append(asked)
        self._wake.set()
        return asked.answer.get()  # type: ignore[return-value]  # None only where T is

    def close(self, within: float) -> None:
        """Writes what waits, for so many seconds."""
        self._closing.set()
        self._wake.set()
        if self._greenlet.started:
            self._greenlet.join(within)
            self._greenlet.kill()
        self._refuse(self._asked)
        if self.waiting:
            log.error("%d things that were heard could not be stored. %s", self.waiting, self.trouble)

    # --- The greenlet ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            while (batch := self._take()) is not None:
                self._in_hand = sum(not isinstance(heard.event, Progress) for heard in batch.heard)
                self._commit(batch)
                self._in_hand = 0
            if self._closing.is_set():
                return
            self._wake.wait(BEAT_EVERY)
            self._wake.clear()

    def _take(self) -> Batch | None:
        """What there is to write; a sign of life at least, while calls run."""
        is_due = bool(self._live) and monotonic() > self._beat_at
        if not (self.backlog or self._asked or is_due or self._looks):
            return None
        self._looks = False
        heard, at = self.backlog.take(BATCH_MOST), now_ms()
        if is_due and not self.backlog:  # a pause is noted after the words before it
            self._beat_at = monotonic() + BEAT_EVERY
            heard += [Heard(at, call, progress) for call, progress in self._live.items()]
        asked, self._asked = self._asked, []
        return self._batch(heard, asked)

    def _batch(self, heard: Sequence[Heard], asked: Sequence[Asked[Any]]) -> Batch:
        self._number += 1
        return Batch(self._number, heard, asked)

    def _commit(self, batch: Batch) -> None:
        """Writes a batch, however long that takes, or drops what cannot be written."""
        delays = backoff(RETRY_FIRST, RETRY_MOST)
        while (failure := self._attempt(batch)) is not None:
            if isinstance(failure, Unwritable):
                return self._write_in_parts(batch, failure)
            self._be_in_trouble(sentence(failure), batch, is_for_good=isinstance(failure, SettingsError))
            if self._closing.is_set() and not self.waiting:
                return None
            batch = replace(batch, asked=())
            if self._closing.wait(next(delays)):
                gevent.sleep(RETRY_FIRST)
        return None

    def _attempt(self, batch: Batch) -> Exception | None:
        """Writes a batch and tells what came of it. Gives the failure, if it is one."""
        at = now_ms()
        result = self._threads.start(
            partial(
                write,
                batch=batch,
                owner=self._owner,
                endpoints=self._endpoints,
                told=self._told(),
                begun=tuple(self._begun.values()),
                last_at=self._last_at,
            )
        )
        gevent.wait([result], timeout=SLOW_AFTER)
        if not result.ready():
            self._be_in_trouble(f"The database has not answered for {SLOW_AFTER:g} s.", batch)
        outcome = outcome_of(result)
        if outcome.error is not None:
            return outcome.error
        self._be_well()
        written = outcome.get()
        self._last_at = at
        self._note_begun(batch.heard)
        self._offsets |= {sid: at for sid, at in written.offsets.items() if sid in self._offsets}
        for asked, answer in zip(batch.asked, written.answers, strict=False):
            asked.tell(answer)
        self._on_written(written)
        return None

    def _note_begun(self, written: Sequence[Heard]) -> None:
        for heard in written:
            if isinstance(heard.event, StreamBegun):
                self._begun[heard.call] = heard
            elif isinstance(heard.event, StreamEnded):
                self._begun.pop(heard.call, None)

    def _write_in_parts(self, batch: Batch, failure: Unwritable) -> None:
        """Something in the batch cannot be written. Finds it, and writes the rest."""
        heard, asked = batch.heard, batch.asked
        if len(heard) + len(asked) > 1:
            for part in (heard[: len(heard) // 2], heard[len(heard) // 2 :]):
                self._commit(self._batch(part, []))
            for one in asked:
                self._commit(self._batch([], [one]))
        elif asked:
            asked[0].tell(Outcome(error=ValueError(NO_VALUE)))
        elif heard:
            self.backlog.dropped += 1
            kind = type(heard[0].event).__name__
            log.error("one thing that was heard, a %s, cannot be stored: %s", kind, failure)
            log.debug("", exc_info=failure.__cause__)

    # --- Trouble --------------------------------------------------------------------------------------------

    def _be_in_trouble(self, what: str, batch: Batch, *, is_for_good: bool = False) -> None:
        """Says it once; those who asked do not wait for the end of it; live viewers see what is said all the same."""
        before, self.trouble = self.trouble, what
        self._refuse([*batch.asked, *self._asked])
        self._asked = []
        if before and is_for_good and what != before:
            log.warning("%s", what)
        elif not before:
            log.warning("%s Calls go on, and what is said waits here until it can be stored.", what)
            self._show_unsaved([*batch.heard, *self.backlog.finals()])

    def _be_well(self) -> None:
        if self.trouble:
            self.trouble = ""
            log.warning("The database is well again: what waited is being stored.")

    def _refuse(self, those: Sequence[Asked[Any]]) -> None:
        for asked in those:
            asked.tell(Outcome(error=StoreError(self.trouble or "The database is closed.")))

    def _show_unsaved(self, heard: Sequence[Heard]) -> None:
        finals = [
            unsaved(each, each.event, self._offsets.get(each.call.stream_sid, 0))
            for each in heard
            if isinstance(each.event, Transcript)
        ]
        if finals:
            self._on_unsaved(finals)

    def _report(self, failed: gevent.Greenlet[[], None]) -> None:
        self.trouble = "The store has failed."
        log.critical("the store has failed, and nothing is stored any more: %r", failed.exception)
