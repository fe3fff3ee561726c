"""A full disk, a locked or lost database: calls go on, it is said once, and nothing that waited is lost."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event as sql
from sqlalchemy.pool import PoolProxiedConnection

from relay.events import Gap, ServiceRefused, StreamBegun, StreamEnded, Transcript
from relay.protocol import CallInfo
from relay.store.backlog import UNSAVED, Backlog
from relay.store.database import ONE_WRITER
from relay.store.records import Event
from relay.store.store import Store, StoreError
from relay.store.telling import Heard
from tests.storing import IN, OUT, PATIENCE, Reader, Talk, eventually, kinds, opened, texts

if TYPE_CHECKING:
    from tests.databases import Server

pytest_plugins = ("tests.databases",)

TICK = 0.01  # seconds


def said_once(caplog: pytest.LogCaptureFixture, words: str) -> bool:
    """Whether the log has these words, and has them once."""
    return sum(words in record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING) == 1


def is_complete(store: Store, talk: Talk, spoken: list[str]) -> None:
    """All that was said is stored, once and in order, and so are its events."""
    assert [segment.text for segment in store.segments(talk.sid)] == spoken
    events = store.events_after(0, call_sid=talk.sid, limit=500)
    assert texts(events) == spoken
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))


@contextmanager
def full_disk(store: Store) -> Iterator[None]:
    """SQLite may not use a page more. See https://www.sqlite.org/pragma.html#pragma_max_page_count"""

    def limit(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # as few as there are already

    store._writers.run(lambda connection: connection.exec_driver_sql("PRAGMA max_page_count = 1"))
    sql.listen(store._database.writer, "connect", limit)
    yield
    sql.remove(store._database.writer, "connect", limit)


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """PostgreSQL is away."""
    server.stop()
    yield
    server.start()


@contextmanager
def paused(server: Server) -> Iterator[None]:
    """PostgreSQL answers nothing and breaks no connection."""
    server.pause()
    try:
        yield
    finally:
        server.go_on()


def goes_through(store: Store, trouble: AbstractContextManager[None], caplog: pytest.LogCaptureFixture) -> None:
    """A call goes on through some trouble with the database, and in the end is whole."""
    reader, talk = Reader(store), Talk(store).begin()
    reader.until(len)
    spoken = [f"sentence number {number} of a call, with a few words to fill the pages" * 20 for number in range(40)]
    with trouble:
        for number, sentence in enumerate(spoken[:30]):
            talk.say(sentence, number * 1000)
        eventually(lambda: store.trouble)
        for number, sentence in enumerate(spoken[30:], 30):
            talk.say(sentence, number * 1000)
        reader.until(lambda events: texts(events)[-10:] == spoken[30:])
        with pytest.raises(StoreError):
            store.delete("CA1")
        assert store.waiting
    talk.end(40_000)
    reader.until_ended()
    unsaved = [event for event in reader.events if not event.is_stored]
    assert texts(stored(reader.events)) == spoken
    assert unsaved
    assert all((event.id, event.sequence, event.kind) == (0, 0, "segment.final") for event in unsaved)
    assert len(texts(unsaved)) == len(set(texts(unsaved)))
    assert [event.data["segment"]["start_ms"] for event in unsaved] == [
        1000 * spoken.index(text) for text in texts(unsaved)
    ]
    is_complete(store, talk, spoken)
    assert (store.trouble, store.waiting, store.dropped) == ("", 0, 0)
    assert said_once(caplog, "Calls go on")
    assert said_once(caplog, "well again")


def test_a_full_disk_ends_no_call(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with opened(f"sqlite:///{tmp_path}/calls.db") as store:
        goes_through(store, full_disk(store), caplog)
        assert said_once(caplog, "The disk of the database is full.")


def test_a_file_that_another_program_has_locked_ends_no_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("relay.store.writer.SLOW_AFTER", PATIENCE)  # SQLite may take longer than its five seconds
    with opened(f"sqlite:///{tmp_path}/calls.db") as store:
        goes_through(store, lock(f"sqlite:///{tmp_path}/calls.db"), caplog)
        assert said_once(caplog, "Another program has the database locked.")


def test_a_server_that_goes_away_and_comes_back_ends_no_call(
    postgresql: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(postgresql.new_database()) as store:
        goes_through(store, stopped(postgresql), caplog)
        assert said_once(caplog, "The database cannot be reached")


def test_a_server_that_does_not_answer_ends_no_call(postgresql: Server, caplog: pytest.LogCaptureFixture) -> None:
    with opened(postgresql.new_database()) as store:
        goes_through(store, paused(postgresql), caplog)
        assert said_once(caplog, "The database has not answered for 6 s.")


def test_a_commit_whose_answer_is_lost_is_not_made_twice(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(database) as store:
        dialect = store._database.writer.dialect
        commit, commits = dialect.do_commit, 0

        def commit_and_break(connection: PoolProxiedConnection) -> None:
            nonlocal commits
            commit(connection)
            commits += 1
            if commits % 2:
                connection.driver_connection.close()  # type: ignore[union-attr]
                raise dialect.loaded_dbapi.OperationalError("the connection was closed unexpectedly")

        monkeypatch.setattr(dialect, "do_commit", commit_and_break)
        reader, talk = Reader(store), Talk(store).begin()
        spoken = [f"sentence {number}" for number in range(4)]
        for number, sentence in enumerate(spoken):
            talk.say(sentence, number * 1000)
            reader.until(lambda events, wanted=sentence: wanted in texts(stored(events)))  # type: ignore[misc]
        talk.end()
        assert texts(stored(reader.until_ended())) == spoken
        is_complete(store, talk, spoken)
        assert commits >= 8


def stored(events: Iterable[Event]) -> list[Event]:
    """Those that can be resumed from."""
    return [event for event in events if event.is_stored]


def test_reading_while_the_database_is_away_is_refused_and_then_works_again(postgresql: Server) -> None:
    with opened(postgresql.new_database()) as store:
        reader, talk = Reader(store), Talk(store).begin().end()
        reader.until_ended()
        with stopped(postgresql):
            with pytest.raises(StoreError, match="cannot be reached"):
                store.call(talk.sid)
        assert store.call(talk.sid) is not None
        Talk(store).begin().end()
        reader.until_ended(2)


def test_what_cannot_be_written_before_the_end_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Store(f"sqlite:///{tmp_path}/calls.db")
    store.open()
    with full_disk(store):
        Talk(store).begin().say("lost " * 2000).end()
        eventually(lambda: store.trouble)
        store.close(0.5)
    assert said_once(caplog, "3 things that were heard could not be stored. The disk of the database is full.")


def test_what_waits_is_written_at_the_end(database: str) -> None:
    store = Store(database)
    store.open()
    talk = Talk(store).begin()
    for number in range(1500):
        talk.say(f"{number}", number * 1000)
    talk.end()
    store.close(30)
    with opened(database) as store:
        assert [segment.text for segment in store.segments(talk.sid)] == [f"{number}" for number in range(1500)]
        assert kinds(store.events_after(0, limit=500))[-1] == "segment.final"
        assert (call := store.call(talk.sid)) is not None
        assert call.state == "ended"
    Talk(store).begin()
    with pytest.raises(StoreError, match="is closed"):
        store.delete(talk.sid)


# --- The loop is never held ---------------------------------------------------------------------------------


@contextmanager
def lock(url: str) -> Iterator[None]:
    """Another program writes, and takes its time."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            yield
            other.execute("ROLLBACK")
    else:
        with psycopg.connect(url) as server:
            server.execute("SELECT pg_advisory_xact_lock(%s)", (ONE_WRITER,))
            yield


def test_a_slow_write_holds_up_nothing_else(database: str) -> None:
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        while True:
            gevent.sleep(TICK)
            ticks += 1

    with opened(database) as store:
        reader, talk = Reader(store), Talk(store).begin()
        reader.until(len)
        ticker = gevent.spawn(tick)
        with lock(database):
            talk.say("while it is locked")
            eventually(lambda: store.waiting)
            before = ticks
            eventually(lambda: ticks >= before + 100)
            assert store.waiting
            assert not store.trouble, "nothing else had its turn until the write was given up"
            assert (call := store.call(talk.sid)) is not None
            assert call.duration_ms == 0
        reader.until(texts)
        ticker.kill()
        talk.end()
        reader.until_ended()


# --- The backlog is bounded ---------------------------------------------------------------------------------


def test_when_the_database_stays_away_the_oldest_words_become_a_gap(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(f"sqlite:///{tmp_path}/calls.db") as store:
        store._writer.backlog = Backlog(50, 10)
        reader, talk = Reader(store), Talk(store).begin()
        reader.until(len)
        with full_disk(store):
            talk.say("in hand " * 2000)
            eventually(lambda: store.trouble)
            for number in range(200):
                talk.say(f"sentence {number}", number * 1000, track=(IN, OUT)[number % 2])
            assert store.waiting <= 52
        talk.end(200_000)
        events = reader.until_ended()
        kept = [text for text in texts(stored(events)) if "sentence" in text]
        assert kept == [f"sentence {number}" for number in range(200 - len(kept), 200)]
        assert 30 < len(kept) <= 50
        lost = 200 - len(kept)
        assert store.dropped == lost
        assert sorted((gap.track, gap.start_ms, gap.end_ms, gap.reason) for gap in store.gaps(talk.sid)) == [
            ("inbound", 0, (lost - 2) * 1000 + 1000, UNSAVED),
            ("outbound", 1000, (lost - 1) * 1000 + 1000, UNSAVED),
        ]
        assert [gap["reason"] for gap in events[-1].data["gaps"]] == [UNSAVED] * 2


def final(call: CallInfo, start_ms: int) -> Heard:
    return Heard(0, call, Transcript(IN, f"{start_ms}", start_ms, start_ms + 10, is_final=True))


def by_another(call: CallInfo, start_ms: int) -> Heard:
    return replace(final(call, start_ms), service="Gladia")


MAKES: list[Callable[[CallInfo, int], Heard]] = [
    final,
    by_another,
    lambda call, at: Heard(0, call, Gap(OUT, at, at + 10, "away")),
    lambda call, at: Heard(0, call, ServiceRefused("Deepgram", "no")),
]


@given(
    st.lists(st.tuples(st.sampled_from(MAKES), st.integers(0, 3)), max_size=200),
    st.integers(1, 20),
    st.integers(1, 10),
)
def test_a_backlog_stays_bounded_and_knows_of_every_word_it_dropped(
    things: list[tuple[Callable[[CallInfo, int], Heard], int]], most: int, at_once: int
) -> None:
    calls = [CallInfo(f"CA{number}", f"MZ{number}", (IN, OUT)) for number in range(4)]
    backlog = Backlog(most, at_once)
    for call in calls:
        backlog.add(Heard(0, call, StreamBegun()))
    for at, (make, number) in enumerate(things):
        backlog.add(make(calls[number], at * 10))
    for call in calls:
        backlog.add(Heard(0, call, StreamEnded("stop", 0, 0, 0, 0, 0, 0, 0, 0, None, None)))
    assert len(backlog) <= most + 8 + 12
    kept = backlog.take(10_000)
    left = [heard.event for heard in kept]
    assert sum(isinstance(event, StreamBegun) for event in left) == 4
    assert sum(isinstance(event, StreamEnded) for event in left) == 4
    told = [make(calls[number], at * 10) for at, (make, number) in enumerate(things)]
    for said in told:
        if isinstance(said.event, Transcript):
            assert said in kept or any(covers(gap, said) for gap in kept)
    assert backlog.dropped == droppable(heard.event for heard in told) - droppable(left)


def covers(gap: Heard, said: Heard) -> bool:
    if not isinstance(gap.event, Gap) or not isinstance(said.event, Transcript):
        return False
    whose, of = (gap.call, gap.service, gap.event.track), (said.call, said.service, said.event.track)
    return whose == of and gap.event.start_ms <= said.event.start_ms <= said.event.end_ms <= gap.event.end_ms


def droppable(events: Iterable[object]) -> int:
    return sum(isinstance(event, Transcript | ServiceRefused) for event in events)
