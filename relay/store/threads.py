"""Work with the database, done by real threads, so that a slow disk or network holds up nothing else."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import gevent
from gevent.event import AsyncResult
from gevent.threadpool import ThreadPool
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DataError, DBAPIError, SQLAlchemyError

from relay.store.database import Place, StoreError, sentence

T = TypeVar("T")

ANSWER_WITHIN: Final = 10.0  # seconds
NO_VALUE: Final = "what was asked for holds a text or a number that no database takes"


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What came of some work. A value also where it failed: gevent prints a traceback of what a thread raises."""

    value: T | None = None
    error: Exception | None = None

    def get(self) -> T:
        """What the work gave. Raises what it raised."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # None only where T is


class Threads:
    """So many threads, each with a connection of its own while it works. Connections are kept until one fails.

    `here` tells which database is there now: a connection to another one is not used again. `prepare` is done before
    each new connection, and tells to which database that will be.
    """

    def __init__(
        self, engine: Engine, most: int, *, here: Callable[[], Place | None], prepare: Callable[[], Place]
    ) -> None:
        self._engine = engine
        self._here = here
        self._prepare = prepare
        self._pool = ThreadPool(most)
        self._kept: deque[tuple[Place, Connection]] = deque()

    def start(self, work: Callable[[Connection], T]) -> AsyncResult[Outcome[T]]:
        """Begins to do the work, in a transaction. Waits for a thread that has nothing to do."""
        return self._pool.spawn(_attempt, lambda: self._work(work))

    def run(self, work: Callable[[Connection], T]) -> T:
        """Does the work, in a transaction, and waits for it. Raises StoreError, ValueError for what no database takes,
        and what the work itself raises."""
        try:
            with gevent.Timeout(ANSWER_WITHIN, StoreError("The database does not answer.")):
                return outcome_of(self.start(work)).get()
        except (DataError, OverflowError):
            raise ValueError(NO_VALUE) from None
        except SQLAlchemyError as trouble:
            raise StoreError(sentence(trouble)) from trouble

    def do(self, work: Callable[[], T]) -> T:
        """Does something else that may take long, and waits for it. Raises what it raises."""
        return outcome_of(self._pool.spawn(_attempt, work)).get()

    def close(self, within: float) -> None:
        """Lets go of the connections that are not in use, and of the threads."""
        with gevent.Timeout(within, False):  # type: ignore[arg-type]  # documented: it then ends silently
            while self._kept:
                self._pool.spawn(_let_go, self._kept.popleft()[1]).get()
        self._pool.kill()

    # --- In a thread ----------------------------------------------------------------------------------------

    def _work(self, work: Callable[[Connection], T]) -> T:
        """With a connection that was kept, or with a new one when there is none or all were lost meanwhile."""
        while (kept := self._kept_one()) is not None:
            try:
                return self._transact(*kept, work)
            except DBAPIError as failure:
                if not failure.connection_invalidated:
                    raise
        place = self._prepare()
        return self._transact(place, self._engine.connect(), work)

    def _kept_one(self) -> tuple[Place, Connection] | None:
        here = self._here()
        with suppress(IndexError):
            while True:
                place, connection = self._kept.pop()
                if place == here:
                    return place, connection
                _let_go(connection)
        return None

    def _transact(self, place: Place, connection: Connection, work: Callable[[Connection], T]) -> T:
        try:
            with connection.begin():
                value = work(connection)
        except BaseException:
            _let_go(connection)
            raise
        self._kept.append((place, connection))
        return value


def outcome_of(result: AsyncResult[Outcome[T]]) -> Outcome[T]:
    """What came of work that was started, when it is done."""
    outcome = result.get()
    assert outcome is not None, "a thread gives one"
    return outcome


def _attempt(work: Callable[[], T]) -> Outcome[T]:
    try:
        return Outcome(work())
    except Exception as failure:  # noqa: BLE001  # whoever waits for the outcome is told
        return Outcome(error=failure)


def _let_go(connection: Connection) -> None:
    with suppress(SQLAlchemyError):
        connection.close()
