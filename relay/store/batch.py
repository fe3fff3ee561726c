"""A batch of what was heard and asked, and how it is written in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import time
from typing import Any, Final, Generic, TypeVar

from gevent.event import AsyncResult
from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from relay.errors import RelayError
from relay.store import reading
from relay.store.ledger import Ledger
from relay.store.records import Event
from relay.store.tables import events, owners
from relay.store.telling import Heard
from relay.store.threads import Outcome
from relay.store.writing import enter

T = TypeVar("T")

NEWS_MOST: Final = 1000  # events read back after a batch; what is beyond is read by whoever follows
_LIMIT_EXCEEDED: Final = "54"  # class of PostgreSQL's error codes: what was to be stored is too large


def now_ms() -> int:
    """The time, as it is stored."""
    return round(time() * 1000)


class Unwritable(Exception):
    """Something in a batch cannot be written, however often that is tried. Nothing of it was committed."""


@dataclass(frozen=True, slots=True)
class Asked(Generic[T]):
    """Something to be done in the next transaction, for somebody who waits."""

    work: Callable[[Ledger], T]
    answer: AsyncResult[T] = field(default_factory=AsyncResult)

    def tell(self, outcome: Outcome[T]) -> None:
        """Tells what came of it; only the first time counts."""
        if self.answer.ready():
            return
        if outcome.error is not None:
            self.answer.set_exception(outcome.error)
        else:
            self.answer.set(outcome.value)


@dataclass(frozen=True, slots=True)
class Batch:
    """What is written in one transaction. Its number tells whether it was, when the commit's answer got lost."""

    number: int
    heard: Sequence[Heard]
    asked: Sequence[Asked[Any]]


@dataclass(frozen=True, slots=True)
class Written:
    """What came of a batch: answers in the order of what was asked, and the events up to the newest of it, other
    processes' among them; None if nobody wants them."""

    newest_id: int
    events: Sequence[Event] | None
    answers: Sequence[Outcome[Any]]
    offsets: Mapping[str, int]
    found: int | None  # where it is the first of ours in this database: the newest event there that is no news


def write(
    connection: Connection,
    batch: Batch,
    owner: str,
    endpoints: Mapping[str, frozenset[str]],
    told: int | None,
    begun: Sequence[Heard] = (),
    last_at: int | None = None,
) -> Written:
    """Writes a batch, if it is not yet written, and reads the events that follow `told`. Raises Unwritable.

    A database that does not know us has taken the place of the one in which earlier batches were written, the last of
    them at `last_at`, with the streams that are `begun` and live. What has happened since is new to those who listen.
    """
    ledger = Ledger(connection, owner, now_ms(), endpoints)
    answers: Sequence[Outcome[Any]] = ()
    found: int | None = None
    try:
        written = _note_batch(ledger, batch.number)
        if written is None:
            found = _newest_before(connection, last_at)
            told = None if told is None else min(told, found)
            for heard in begun:
                enter(ledger, heard)
        if written is None or batch.number > written:
            ledger.load(heard.call for heard in batch.heard)
            for heard in batch.heard:
                enter(ledger, heard)
            ledger.flush()
            answers = [_answer(ledger, asked) for asked in batch.asked]
            ledger.flush()
    except Exception as failure:
        if isinstance(failure, DBAPIError) and _may_pass(failure):
            raise
        raise Unwritable(type(failure).__name__) from failure
    if told is None:
        return Written(reading.newest_event_id(connection), None, answers, ledger.offsets(), found)
    news = reading.events_after(connection, told, None, NEWS_MOST)
    return Written(news[-1].id if news else told, news, answers, ledger.offsets(), found)


def _newest_before(connection: Connection, at: int | None) -> int:
    """The id of the newest event before this time, or of all if there is none."""
    since = None if at is None else connection.scalar(select(func.min(events.c.id)).where(events.c.created_at >= at))
    return reading.newest_event_id(connection) if since is None else int(since) - 1


def _note_batch(ledger: Ledger, number: int) -> int | None:
    """Notes that the batch is written. Gives the number of the newest that was before; None if none ever was."""
    mine = owners.c.owner == ledger.owner
    written: int | None = ledger.connection.scalar(select(owners.c.written).where(mine))
    row = {"seen_at": ledger.now, "written": max(number, written or 0)}
    if written is None:
        ledger.connection.execute(insert(owners), {"owner": ledger.owner, **row})
    else:
        ledger.connection.execute(update(owners).where(mine), row)
    return written


def _answer(ledger: Ledger, asked: Asked[T]) -> Outcome[T]:
    try:
        return Outcome(asked.work(ledger))
    except RelayError as no:
        return Outcome(error=no)


def _may_pass(failure: DBAPIError) -> bool:
    """Whether it is the database that is in trouble, and not what was to be written."""
    if isinstance(failure, DataError | IntegrityError):
        return False
    return not str(getattr(failure.orig, "sqlstate", "")).startswith(_LIMIT_EXCEEDED)
