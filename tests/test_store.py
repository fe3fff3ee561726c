"""What happens on calls is stored and announced; the same on SQLite and PostgreSQL."""

from __future__ import annotations

import os
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.runtime.environment import EnvironmentContext
from gevent.monkey import get_original
from sqlalchemy import create_engine, func, select, text, update
from sqlalchemy.pool import PoolProxiedConnection

from relay.errors import SettingsError
from relay.events import (
    MediaReceived,
    NotTranscribed,
    ServiceRefused,
    ServiceReplaced,
    StreamReported,
    Transcript,
    Word,
)
from relay.hub import Happened
from relay.store.batch import now_ms
from relay.store.database import _SCRIPT as SCRIPT
from relay.store.database import BUSY_MS, Database, address
from relay.store.lifetime import BETWEEN, KILLED, UNHEARD
from relay.store.owner import STALE_MS, is_gone, this_process
from relay.store.records import Kind, State, as_time
from relay.store.store import StillLive, Store
from relay.store.tables import calls as calls_table
from relay.store.tables import metadata, owners, streams
from tests.program import ROOT
from tests.storing import IN, OUT, PATIENCE, Reader, Talk, dead_process, eventually, kinds, opened, texts

if TYPE_CHECKING:
    from tests.databases import Server

pytest_plugins = ("tests.databases",)


def rows(url: str) -> dict[str, int]:
    """How many rows each table has."""
    engine = create_engine(address(url))
    with engine.connect() as connection:
        counts = {
            table.name: connection.scalar(select(func.count()).select_from(table)) or 0
            for table in metadata.sorted_tables
        }
    engine.dispose()
    return counts


# --- What is stored -----------------------------------------------------------------------------------------


def test_a_call_is_stored_as_it_was(database: str) -> None:
    with opened(database) as store:
        reader = Reader(store)
        talk = Talk(store).begin(("Deepgram",), "+15550100", "+15550199")
        talk.say("good morning", 500, 1500).say("hello", 1700, 2200, track=OUT).listen(2500).end(3000)
        reader.until_ended()

        call = store.call(talk.sid)
        assert call is not None
        assert (call.caller, call.called) == ("+15550100", "+15550199")
        assert call.state is State.ENDED
        assert call.end_reason == "stop"
        assert call.duration_ms == 3000
        assert call.services == ("Deepgram",)
        assert call.tracks == ("inbound", "outbound")
        assert call.streams[0].summary is not None
        assert call.streams[0].summary["final_delay_ms"] == 500

        first, second = store.segments(talk.sid)
        assert (first.text, first.track, first.start_ms, first.end_ms) == ("good morning", "inbound", 500, 1500)
        assert first.words == (Word("good", 500, 1000, 0.5), Word("morning", 1000, 1500, 0.5))
        assert (first.confidence, first.language, first.service, first.backfilled) == (0.5, "en", "Deepgram", False)
        assert second.track == "outbound"
        assert store.gaps(talk.sid) == []


def test_events_tell_the_whole_of_it_in_order(database: str) -> None:
    with opened(database) as store:
        reader = Reader(store)
        talk = Talk(store).begin(("Deepgram",), "+15550100").say("hello").miss(1000, 2000)
        talk.tell(ServiceReplaced("Deepgram", "Gladia", "it is down", 2000)).tell(ServiceRefused("Gladia", "no"))
        talk.tell(NotTranscribed("nobody listens")).end(2000)
        events = reader.until_ended()

        assert kinds(events) == [
            "call.started",
            "segment.final",
            "gap",
            "service.replaced",
            "error",
            "error",
            "call.ended",
        ]
        assert [event.sequence for event in events] == [1, 2, 3, 4, 5, 6, 7]
        assert all(event.is_stored and event.call_sid == event.data["call_sid"] == talk.sid for event in events)
        started, said, gap, replaced, refused, not_heard, ended = (event.data for event in events)
        assert started["caller"] == "+15550100"
        assert started["tracks"] == ["inbound", "outbound"]
        assert said["segment"] == store.segments(talk.sid)[0].as_json()
        assert gap["gap"] == store.gaps(talk.sid)[0].as_json()
        assert (replaced["service"], replaced["by"], replaced["from_ms"]) == ("Deepgram", "Gladia", 2000)
        assert (refused["service"], refused["reason"]) == ("Gladia", "no")
        assert (not_heard["service"], not_heard["reason"]) == (None, "nobody listens")
        assert [segment["text"] for segment in ended["segments"]] == ["hello"]
        assert [missing["reason"] for missing in ended["gaps"]] == ["Deepgram was away"]
        assert (ended["duration_ms"], ended["reason"]) == (2000, "stop")
        assert ended["services"] == ["Deepgram", "Gladia"]
        assert store.events_after(0) == events


def test_interims_pauses_and_what_belongs_to_no_call_are_not_stored(database: str) -> None:
    with opened(database) as store:
        reader = Reader(store)
        talk = Talk(store).begin()
        talk.tell(Transcript(IN, "hel", 0, 500, is_final=False)).tell(Transcript(IN, "", 0, 500, is_final=True))
        talk.tell(MediaReceived(1, 160)).end()
        store.hear(Happened(None, NotTranscribed("nobody")))
        assert kinds(reader.until_ended()) == ["call.started", "call.ended"]


def test_a_live_call_can_be_read_while_it_runs(database: str) -> None:
    with opened(database) as store:
        reader = Reader(store)
        talk = Talk(store).begin().say("one moment", 0, 4000)
        reader.until(texts)
        call = store.call(talk.sid)
        assert call is not None
        assert call.state is State.LIVE
        assert call.duration_ms == 4000
        assert [segment.text for segment in store.segments(talk.sid)] == ["one moment"]
        talk.listen(9000)
        eventually(lambda: (again := store.call(talk.sid)) and again.duration_ms == 9000)
        talk.end(9000)


def test_a_final_without_words_keeps_its_own_times_and_strange_values_are_kept_as_well_as_can_be(
    database: str,
) -> None:
    with opened(database) as store:
        reader = Reader(store)
        talk = Talk(store).begin()
        talk.tell(Transcript(IN, "cafe\u0301 \0 \ud800", 100, 900, True, (), float("nan")), "Deepgram")
        words = (Word("a\0", 5, 6, 7.0, 2), Word("b", 8, 9, 0.1, 1), Word("c", 9, 10, 0.1, 1))
        talk.tell(Transcript(IN, "abc", 0, 900, True, words), "Deepgram").end()
        reader.until_ended()
        of_words, plain = store.segments(talk.sid)
        assert (plain.text, plain.start_ms, plain.end_ms, plain.confidence) == ("caf\u00e9   ?", 100, 900, 0.0)
        assert (of_words.start_ms, of_words.end_ms, of_words.speaker) == (5, 10, 1)
        assert of_words.words[0] == Word("a ", 5, 6, 0.0, 2)


def test_names_that_are_none_and_values_no_database_takes_harm_no_other_call(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(database) as store:
        reader = Reader(store)
        strange = Talk(store, "CA\0\ud800" + "x" * 5000, stream_sid="MZ" + "'; --" * 1000).begin()
        other = Talk(store).begin()
        strange.tell(Transcript(IN, "too late", 2**70, 2**70 + 1, is_final=True), "Deepgram").say("fine").end()
        other.say("also fine").end()
        reader.until_ended(2)
        assert texts(reader.events) == ["fine", "also fine"]
        assert store.dropped == 1
        assert not store.trouble
        assert "too late" not in caplog.text
        for call in store.calls().items:
            assert store.call(call.sid) == call


def test_what_is_of_no_stream_that_began_is_left_out(database: str) -> None:
    with opened(database) as store:
        reader = Reader(store)
        Talk(store).say("from nowhere").end()
        Talk(store).begin().end()
        reader.until_ended()
        assert texts(reader.events) == []
        assert len(store.calls().items) == 1


def test_what_is_of_no_stream_that_began_takes_nothing_from_the_streams_of_its_call(database: str) -> None:
    with opened(database) as store:
        reader = Reader(store)
        talk = Talk(store).begin()
        reader.until(len)
        talk.say("far into the call", 60_000, 61_000)
        Talk(store, talk.sid).say("from nowhere")
        reader.until(texts)
        assert (call := store.call(talk.sid)) is not None
        assert call.duration_ms == 61_000
        talk.end()


# --- One call, one clock ------------------------------------------------------------------------------------


def test_two_streams_are_one_call_with_a_named_gap_between_them_on_one_clock(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(database) as store:
        reader = Reader(store)
        first = Talk(store).begin(caller="+1").say("before", 1000, 2000).end(2500, "server stopped")
        reader.until_ended()
        passes(monkeypatch, 10_000)
        second = Talk(store, first.sid).begin(called="+2").say("after", 1000, 2000).miss(2000, 3000)
        second.tell(ServiceReplaced("Deepgram", "Gladia", "it is down", 2000)).end(4000)
        events = reader.until_ended(2)

        assert kinds(events) == [
            *("call.started", "segment.final", "call.ended"),
            *("call.resumed", "gap", "gap", "segment.final", "gap", "service.replaced", "call.ended"),
        ]
        assert [event.sequence for event in events] == list(range(1, 11))
        call = store.call(first.sid)
        assert call is not None
        begins_ms = call.streams[1].offset_ms
        assert begins_ms == call.streams[1].started_at - call.started_at >= 10_000
        assert call.duration_ms == begins_ms + 4000

        assert [gap.service for gap in store.gaps(first.sid)] == [None, None, "Deepgram"]
        before, after = store.segments(first.sid)
        assert (before.start_ms, after.start_ms) == (1000, begins_ms + 1000)
        assert after.words[0].start_ms == begins_ms + 1000
        gaps = [(gap.track, gap.start_ms, gap.end_ms, gap.reason) for gap in store.gaps(first.sid)]
        assert sorted(gaps[:2]) == [(track, 2500, begins_ms, BETWEEN) for track in ("inbound", "outbound")]
        assert gaps[-1] == ("inbound", begins_ms + 2000, begins_ms + 3000, "Deepgram was away")
        resumed, replaced, ended = (events[index].data for index in (3, 8, 9))
        assert resumed["offset_ms"] == begins_ms
        assert replaced["from_ms"] == begins_ms + 2000
        assert [segment["text"] for segment in ended["segments"]] == ["before", "after"]


def passes(monkeypatch: pytest.MonkeyPatch, ms: int) -> None:
    """So much time passes, for all that is heard from now on."""
    monkeypatch.setattr("relay.store.store.now_ms", lambda: now_ms() + ms)


def test_a_stream_never_begins_before_what_an_earlier_one_has_brought(database: str) -> None:
    with opened(database) as store:
        reader = Reader(store)
        first = Talk(store).begin().end(60_000)
        Talk(store, first.sid).begin().say("after", 0, 1000).end(2000)
        reader.until_ended(2)
        assert [segment.start_ms for segment in store.segments(first.sid)] == [60_000]
        assert store.gaps(first.sid) == []


def test_a_second_stream_beside_the_first_ends_nothing_and_leaves_no_gap(database: str) -> None:
    with opened(database) as store:
        reader = Reader(store)
        first = Talk(store).begin()
        second = Talk(store, first.sid).begin()
        first.say("from the first", 0, 500).end(3000)
        second.say("from the second", 3000, 3500).end(6000)
        events = reader.until_ended()
        assert kinds(events) == ["call.started", "segment.final", "segment.final", "call.ended"]
        assert store.gaps(first.sid) == []
        call = store.call(first.sid)
        assert call is not None
        assert len(call.streams) == 2


def test_a_stream_that_comes_again_under_its_old_name_goes_on(database: str) -> None:
    with opened(database) as store:
        reader = Reader(store)
        first = Talk(store).begin().say("once", 0, 500).end(1000)
        Talk(store, first.sid, stream_sid=first.call.stream_sid).begin().say("again", 0, 500).end(1000)
        reader.until_ended(2)
        call = store.call(first.sid)
        assert call is not None
        assert len(call.streams) == 1
        assert [segment.text for segment in store.segments(first.sid)] == ["once", "again"]
        assert call.duration_ms >= 2000


def test_who_calls_whom_stays_as_the_first_stream_told_it(database: str) -> None:
    with opened(database) as store:
        reader = Reader(store)
        first = Talk(store).begin(caller="+1", called="+2").end()
        Talk(store, first.sid).begin(caller="+3").end()
        reader.until_ended(2)
        call = store.call(first.sid)
        assert call is not None
        assert (call.caller, call.called) == ("+1", "+2")


# --- Calls that nobody ended --------------------------------------------------------------------------------


def abandon(url: str, owner: str, seen_at: int | None = None) -> None:
    """Gives all live streams to this process, which last wrote then."""
    engine = create_engine(address(url))
    with engine.begin() as connection:
        connection.execute(update(streams).where(streams.c.ended_at.is_(None)), {"owner": owner})
        if seen_at is not None:
            connection.execute(owners.insert(), {"owner": owner, "seen_at": seen_at, "written": 1})
    engine.dispose()


def test_what_a_killed_process_left_is_closed_at_the_next_start_with_its_last_second(database: str) -> None:
    with opened(database) as store:
        reader = Reader(store)
        talk = Talk(store).begin().say("hello", 0, 1000).listen(7000)
        eventually(lambda: (call := store.call(talk.sid)) and call.duration_ms == 7000)
        assert reader.events
    abandon(database, dead_process())

    with opened(database) as store:
        call = store.call(talk.sid)
        assert call is not None
        assert call.state is State.ENDED
        assert call.end_reason == KILLED
        assert call.duration_ms == 7000
        assert call.ended_at == call.started_at + 7000
        ended = store.events_after(0)[-1]
        assert (ended.kind, ended.data["reason"]) == ("call.ended", KILLED)
        assert [segment["text"] for segment in ended.data["segments"]] == ["hello"]
        assert ended.data["ended_at"] == as_time(call.ended_at)


def test_a_process_elsewhere_is_dead_when_it_has_not_written_for_a_minute(database: str) -> None:
    with opened(database) as store:
        reader = Reader(store)
        talk = Talk(store).begin()
        (begun,) = reader.until(len)
    abandon(database, "elsewhere 1 1 x", seen_at=begun.created_at)
    with opened(database) as other:
        assert (call := other.call(talk.sid)) is not None
        assert call.state is State.LIVE
        with_age = create_engine(address(database))
        with with_age.begin() as connection:
            connection.execute(update(owners).values(seen_at=owners.c.seen_at - STALE_MS - 1000))
        with_age.dispose()
    with opened(database) as other:
        assert (call := other.call(talk.sid)) is not None
        assert call.state is State.ENDED


def places(store: Store, sid: str) -> list[tuple[str, int, int, str]]:
    """What is missing of a call, and why."""
    return sorted((gap.track, gap.start_ms, gap.end_ms, gap.reason) for gap in store.gaps(sid) if not gap.filled)


def by_service(store: Store, sid: str) -> list[tuple[str | None, int, int]]:
    """What each service has missed of a call."""
    return [(gap.service, gap.start_ms, gap.end_ms) for gap in store.gaps(sid)]


def note_finals_as_before(url: str, stream_sid: str, final_ms: dict[str, int]) -> None:
    """What an older version of this program knew: how far a track was transcribed, but not by whom."""
    engine = create_engine(address(url))
    with engine.begin() as connection:
        connection.execute(update(streams).where(streams.c.sid == stream_sid).values(final_ms=final_ms))
    engine.dispose()


def heard_until(store: Store, sid: str, ms: int) -> None:
    """Returns when the store knows that all streams of a call have come so far."""

    def has_come() -> bool:
        call = store.call(sid)
        return call is not None and all(stream.heard_ms - stream.offset_ms >= ms for stream in call.streams)

    eventually(has_come)


def test_what_a_killed_process_had_not_transcribed_is_named_on_each_track(database: str) -> None:
    with opened(database) as store:
        talk = Talk(store).begin().say("one", 0, 1000).say("two", 500, 4000, track=OUT).say("three", 1000, 3000)
        pause = Transcript(OUT, "", 4000, 6500, is_final=True)
        talk.tell(pause, "Deepgram").miss(7000, 7500, track=OUT).listen(8000)
        unrecognised = Talk(store).begin(services=()).listen(8000)
        two = Talk(store, tracks=(IN,)).begin(services=("Deepgram", "Gladia")).say("by one", 0, 2000)
        two.tell(Transcript(IN, "by the other", 0, 5000, is_final=True), "Gladia")
        two.tell(Transcript(IN, "", 5000, 6500, is_final=True), "Gladia").listen(8000)
        chain = Talk(store, tracks=(IN,)).begin().say("by one", 0, 2000)
        chain.tell(ServiceReplaced("Deepgram", "Gladia", "it is down", 2000))
        chain.tell(Transcript(IN, "by the other", 2000, 6000, is_final=True), "Gladia").listen(8000)
        before = Talk(store, tracks=(IN,)).begin(services=("Deepgram", "Gladia")).listen(8000)
        nearly = Talk(store, tracks=(IN,)).begin().say("all", 0, 7950).listen(8000)
        for sid in (talk.sid, unrecognised.sid, two.sid, chain.sid, before.sid, nearly.sid):
            heard_until(store, sid, 8000)
        assert [segment.text for segment in store.segments(talk.sid)] == ["one", "two", "three"]
    abandon(database, dead_process())
    note_finals_as_before(database, before.call.stream_sid, {"inbound": 3000})
    with opened(database) as store:
        assert places(store, talk.sid) == [
            ("inbound", 3000, 8000, UNHEARD),
            ("outbound", 6500, 7000, UNHEARD),
            ("outbound", 7000, 7500, "Deepgram was away"),
            ("outbound", 7500, 8000, UNHEARD),
        ]
        assert by_service(store, two.sid) == [("Deepgram", 2000, 8000), ("Gladia", 6500, 8000)]
        assert by_service(store, chain.sid) == [(None, 6000, 8000)]
        assert by_service(store, before.sid) == [("Deepgram", 3000, 8000), ("Gladia", 3000, 8000)]
        assert places(store, unrecognised.sid) == places(store, nearly.sid) == []
        events = store.events_after(0, call_sid=talk.sid)
        assert kinds(events)[-5:] == ["gap"] * 4 + ["call.ended"]
        assert len(events[-1].data["gaps"]) == 4


def test_what_another_stream_transcribes_is_not_missing(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(database) as store:
        whole, beside = Talk(store).begin(), Talk(store).begin()
        Talk(store, whole.sid).begin().say("all of it", 0, 6000).listen(10_000).end(10_000)  # on another server
        Talk(store, beside.sid).begin().listen(8000)  # stands by
        whole.say("some", 0, 2000).listen(8000)
        beside.say("some", 0, 2000).listen(8000)
        heard_until(store, whole.sid, 8000)
        heard_until(store, beside.sid, 8000)
    with opened(database) as store:
        abandon(database, dead_process())
        passes(monkeypatch, 60_000)
        lives = Talk(store, whole.sid).begin()
        eventually(lambda: not store.waiting)
        with opened(database):
            pass
        assert not [gap for gap in store.gaps(whole.sid) if gap.reason == UNHEARD and gap.track == "inbound"]
        once = {(track, end_ms // 1000) for track, _, end_ms, reason in places(store, beside.sid) if reason == UNHEARD}
        assert once == {("inbound", 8), ("outbound", 8)}
        assert sum(end - start for track, start, end, _ in places(store, beside.sid) if track == "inbound") < 6500
        lives.end()


def test_what_was_named_too_early_is_taken_back_when_the_process_lives(database: str) -> None:
    with opened(database) as store:
        reader, talk = Reader(store), Talk(store, tracks=(IN,)).begin().say("one").listen(5000)
        heard_until(store, talk.sid, 5000)
        abandon(database, dead_process())
        with opened(database):
            pass
        events = reader.until_ended()  # at its next beat the process takes back what was named
        (gap,) = next(event.data["gaps"] for event in events if event.kind is Kind.CALL_ENDED)
        assert (gap["track"], gap["start_ms"], gap["end_ms"], gap["reason"]) == ("inbound", 1000, 5000, UNHEARD)
        talk.say("two", 1000, 5000).end(5000)
        reader.until_ended(2)
        assert places(store, talk.sid) == []


def test_what_twilio_reports_of_a_stream_is_kept_with_its_call_and_wakes_no_dead_one(database: str) -> None:
    failed = StreamReported("CA1", "stream-error", "31903 broken off.", "Was the tunnel restarted?")
    with opened(database) as store:
        talk = Talk(store).begin().say("one").listen(5000)
        heard_until(store, talk.sid, 5000)
    abandon(database, dead_process())
    with opened(database) as store:
        reader, late = Reader(store), Talk(store, talk.sid, stream_sid=talk.call.stream_sid, tracks=())
        late.tell(StreamReported("CA1", "stream-started")).tell(failed)
        (event,) = reader.until(len)
        assert (event.kind, event.data["reason"]) == (
            Kind.ERROR,
            "Twilio reports: 31903 broken off. Was the tunnel restarted?",
        )
        call = store.call(talk.sid)
        assert call is not None
        assert call.state is State.ENDED


def test_a_redeploy_that_killed_the_first_stream_is_one_call_with_a_gap(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(database) as store:
        reader = Reader(store)
        with opened(database) as killed:  # one that lives would take back at its next beat what is said of it
            talk = Talk(killed).begin().say("before", 0, 1000).listen(3000)
            eventually(lambda: (call := store.call(talk.sid)) and call.duration_ms == 3000)
        abandon(database, dead_process())
        passes(monkeypatch, 10_000)
        Talk(store, talk.sid).begin().say("after", 0, 1000).end(2000)
        events = reader.until_ended(2)
        assert kinds(events)[:6] == ["call.started", "segment.final", "gap", "gap", "call.ended", "call.resumed"]
        assert events[4].data["reason"] == KILLED
        call = store.call(talk.sid)
        assert call is not None
        begins_ms = call.streams[1].offset_ms
        assert begins_ms >= 10_000
        assert places(store, talk.sid) == [
            *[("inbound", 1000, 3000, UNHEARD), ("inbound", 3000, begins_ms, BETWEEN)],
            *[("outbound", 0, 3000, UNHEARD), ("outbound", 3000, begins_ms, BETWEEN)],
        ]


def test_a_gap_is_named_also_when_the_first_stream_is_found_dead_only_later(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(database) as store:
        reader = Reader(store)
        with opened(database) as killed:
            talk = Talk(killed).begin().listen(10)
            eventually(lambda: (call := store.call(talk.sid)) and call.duration_ms == 10)
        abandon(database, "elsewhere 1 1 x", seen_at=store.events_after(0)[0].created_at)
        passes(monkeypatch, 10_000)
        second = Talk(store, talk.sid).begin().say("after", 0, 1000)
        reader.until(texts)
        assert store.gaps(talk.sid) == []
        abandon_engine = create_engine(address(database))
        with abandon_engine.begin() as connection:
            long_ago = owners.c.seen_at - 2 * STALE_MS
            connection.execute(update(owners).where(owners.c.owner == "elsewhere 1 1 x").values(seen_at=long_ago))
        abandon_engine.dispose()
        with opened(database):
            pass
        call = store.call(talk.sid)
        assert call is not None
        begins_ms = call.streams[1].offset_ms
        assert places(store, talk.sid) == [(track, 10, begins_ms, BETWEEN) for track in ("inbound", "outbound")]
        second.end(1000)
        reader.until_ended()


def test_a_stream_that_was_taken_for_dead_and_lives_goes_on(database: str) -> None:
    with opened(database) as store:
        reader = Reader(store)
        talk = Talk(store).begin().say("one")
        reader.until(texts)
        abandon(database, dead_process())
        with opened(database):
            pass
        reader.until_ended()
        talk.say("two").end(5000)
        events = reader.until_ended(2)
        assert kinds(events)[2:] == ["gap", "call.ended", "call.resumed", "segment.final", "call.ended"]
        assert [segment["text"] for segment in events[-1].data["segments"]] == ["one", "two"]


def test_a_process_is_gone_when_its_pid_is_another_ones_now() -> None:
    me = this_process()
    place, pid, begun, word = me.split(" ")
    assert not is_gone(me, 0, 10 * STALE_MS)
    assert is_gone(f"{place} {pid} {int(begun) - 1} {word}", 0, 0)
    assert is_gone(dead_process(), 0, 0)
    elsewhere = f"{socket.gethostname()}-2 {pid} {begun} {word}"
    assert not is_gone(elsewhere, 1000, 1000 + STALE_MS)
    assert is_gone(elsewhere, 1000, 1001 + STALE_MS)
    assert is_gone("nonsense", 0, STALE_MS + 1)


# --- Deleting -----------------------------------------------------------------------------------------------


def test_deleting_a_call_leaves_nothing_of_it(database: str, tmp_path: Path) -> None:
    recording = tmp_path / "call.wav"
    recording.write_bytes(b"sound")
    with opened(database, endpoints={"one": frozenset({"segment.final", "call.ended"})}) as store:
        reader = Reader(store)
        gone = Talk(store).begin().say("secret").miss(1000, 2000).end()
        stays = Talk(store).begin().say("secret").end()
        reader.until_ended(2)
        assert store.note_recording(gone.sid, str(recording))
        assert not store.note_recording("CA-nobody", "x")
        both = rows(database)
        assert store.delete(gone.sid)
        assert not store.delete(gone.sid)

        assert not recording.exists()
        assert store.call(gone.sid) is None
        assert store.segments(gone.sid) == []
        assert [hit.call.sid for hit in store.search("secret").items] == [stays.sid]
        assert [delivery.event.call_sid for delivery in store.deliveries().items] == [stays.sid] * 2
        left = rows(database)
        assert {name: both[name] - left[name] for name in left} == {
            "calls": 1,
            "streams": 1,
            "segments": 1,
            "gaps": 1,
            "events": 4,
            "deliveries": 2,
            "owners": 0,
        }
        assert store.delete(stays.sid)
        assert {name: count for name, count in rows(database).items() if count} == {"owners": 1}
        assert index_terms(database) == []


def test_the_words_of_a_deleted_call_are_no_more_in_any_file(tmp_path: Path) -> None:
    def files_with(words: bytes) -> list[str]:
        return [path.name for path in (tmp_path / "data").iterdir() if words in path.read_bytes().lower()]

    with opened(f"sqlite:///{tmp_path}/data/calls.db") as store:
        reader = Reader(store)
        talks = [Talk(store).begin().say(f"xylophone number {number} and more").end() for number in range(200)]
        secret = Talk(store).begin(caller="+15550123").say("quicksilver " * 20 + "zweihundert").end()
        reader.until_ended(201)
        assert files_with(b"quicksilver")
        store.delete(secret.sid)
        store.scour()
        for words in (b"quicksilver", b"quicks", b"zweihundert", b"15550123", secret.sid.encode()):
            assert files_with(words) == [], words
        assert [hit.call.sid for hit in store.search("xylophone 7").items] == [talks[7].sid]


def test_what_was_deleted_is_scoured_by_itself(tmp_path: Path) -> None:
    with opened(f"sqlite:///{tmp_path}/calls.db") as store:
        reader = Reader(store)
        Talk(store).begin().say("xylophone").end()
        secret = Talk(store).begin().say("quicksilver").end()
        reader.until_ended(2)
        store.delete(secret.sid)
        eventually(lambda: not any(b"quicksilver" in path.read_bytes().lower() for path in tmp_path.iterdir()))


def index_terms(url: str) -> list[str]:
    """What words the index for search still has."""
    engine = create_engine(address(url))
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.execute(text("CREATE VIRTUAL TABLE temp.terms USING fts5vocab('main', 'segments_text', 'row')"))
            return list(connection.scalars(text("SELECT term FROM temp.terms")))
        return list(connection.scalars(text("SELECT word FROM ts_stat('SELECT searchable FROM segments')")))


def test_a_call_that_runs_is_not_deleted(database: str) -> None:
    with opened(database) as store:
        reader = Reader(store)
        talk = Talk(store).begin()
        reader.until(len)
        with pytest.raises(StillLive, match="still runs"):
            store.delete(talk.sid)
        talk.end()
        reader.until_ended()
        assert store.delete(talk.sid)


def test_the_ids_of_deleted_events_are_not_given_again(database: str) -> None:
    with opened(database) as store:
        reader = Reader(store)
        talk = Talk(store).begin().end()
        newest = reader.until_ended()[-1].id
        store.delete(talk.sid)
        Talk(store).begin().end()
        assert reader.until_ended(2)[-1].id > newest


def test_calls_older_than_they_are_to_be_kept_are_deleted(database: str, tmp_path: Path) -> None:
    recording = tmp_path / "old.wav"
    recording.write_bytes(b"sound")
    with opened(database) as store:
        reader = Reader(store)
        old = [Talk(store).begin().say("old").end() for _ in range(45)]
        new, live = Talk(store).begin().say("new").end(), Talk(store).begin()
        reader.until_ended(46)
        store.note_recording(old[0].sid, str(recording))
        two_days = 2 * 24 * 3600 * 1000
        engine = create_engine(address(database))
        with engine.begin() as connection:
            earlier = {"ended_at": calls_table.c.ended_at - two_days, "started_at": calls_table.c.started_at - two_days}
            connection.execute(
                update(calls_table).where(calls_table.c.sid.in_([talk.sid for talk in old])).values(**earlier)
            )
        engine.dispose()
        with opened(database, keep_days=1) as tidy:
            eventually(lambda: len(tidy.calls().items) == 2)
            assert {call.sid for call in tidy.calls().items} == {new.sid, live.sid}
            assert not recording.exists()
            assert texts(store.events_after(0)) == ["new"]
        live.end()


def test_recordings_of_no_call_go_when_they_are_too_old(database: str, tmp_path: Path) -> None:
    folder, long_ago = tmp_path / "recordings", 1_000_000_000
    folder.mkdir()
    with opened(database) as store:
        reader, known = Reader(store), Talk(store).begin().end()
        reader.until_ended()
        names = {name: folder / name for name in (f"CA{7:032x}.wav", f"CA{8:032x}.wav", f"{known.sid}.wav", "mine.wav")}
        for path in names.values():
            path.write_bytes(b"sound")
            if path.name != f"CA{8:032x}.wav":
                os.utime(path, (long_ago, long_ago))
        with opened(database, keep_days=1, recordings=folder):
            eventually(lambda: not names[f"CA{7:032x}.wav"].exists())
        assert {path.name for path in folder.iterdir()} == {*names} - {f"CA{7:032x}.wav"}
        with opened(database, keep_days=1, recordings=tmp_path / "nowhere"):
            pass


def test_processes_of_which_nothing_is_live_are_forgotten(database: str) -> None:
    with opened(database) as store:
        Talk(store).begin()
        eventually(lambda: rows(database)["streams"])
        engine = create_engine(address(database))

        def known() -> set[str]:
            with engine.connect() as connection:
                return set(connection.scalars(select(owners.c.owner)))

        with engine.begin() as connection:
            connection.execute(owners.insert(), {"owner": "elsewhere 1 1 x", "seen_at": 1, "written": 1})
        with opened(database):
            eventually(lambda: "elsewhere 1 1 x" not in known())
            assert store._owner in known()
        engine.dispose()


# --- Filling gaps -------------------------------------------------------------------------------------------


def test_a_gap_is_filled_once_and_in_its_place(database: str) -> None:
    with opened(database) as store:
        reader = Reader(store)
        talk = Talk(store).begin().say("first", 0, 1000).miss(1000, 2000).say("third", 2000, 3000).end(3000)
        reader.until_ended()
        gap = store.gaps(talk.sid)[0]
        finals = [
            Transcript(IN, "second", 1100, 1900, True, (Word("second", 1200, 1800, 0.9),)),
            Transcript(IN, "", 1900, 2000, is_final=True),
        ]
        assert not store.fill_gap(talk.sid, replace(gap, end_ms=1900), finals, "Gladia")
        assert store.fill_gap(talk.sid, gap, finals, "Gladia")
        assert not store.fill_gap(talk.sid, gap, finals, "Gladia")
        assert not store.fill_gap(talk.sid, replace(gap, id=4711), finals, "Gladia")

        segments = store.segments(talk.sid)
        assert [segment.text for segment in segments] == ["first", "second", "third"]
        assert (segments[1].start_ms, segments[1].service, segments[1].backfilled) == (1200, "Gladia", True)
        assert [(gap.service, gap.filled) for gap in store.gaps(talk.sid)] == [("Deepgram", True)]
        event = reader.until(lambda events: len(texts(events)) == 3)[-1]
        assert event.data["segment"]["backfilled"]
        assert event.data["stream_sid"] is None
        assert [hit.segment.text for hit in store.search("second").items] == ["second"]


# --- Who is told --------------------------------------------------------------------------------------------


def test_all_processes_tell_the_same_in_the_order_of_ids(database: str) -> None:
    with opened(database) as one, opened(database) as two:
        readers = [Reader(one), Reader(two)]
        for turn in range(20):
            for store in (one, two):
                Talk(store).begin().say(f"turn {turn}").end()
                gevent.sleep(0)
        told = [reader.until_ended(40) for reader in readers]
        assert told[0] == told[1] == one.events_after(0, limit=500)
        assert all(before.id < after.id for before, after in pairwise(told[0]))


def test_what_was_seen_by_a_look_around_is_not_told_again_by_who_wrote_it(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(database) as store:
        reader, talk = Reader(store), Talk(store).begin()
        reader.until(len)
        dialect = store._database.writer.dialect
        commit, pause = dialect.do_commit, get_original("time", "sleep")  # of this thread alone

        def commit_and_dawdle(connection: PoolProxiedConnection) -> None:
            commit(connection)
            for _ in range(300):  # three seconds: the commit of something else brings no text
                pause(0 if texts(reader.events) else 0.01)

        monkeypatch.setattr(dialect, "do_commit", commit_and_dawdle)
        talk.say("once").end()
        reader.until_ended()
        eventually(lambda: not store.waiting)
        assert kinds(reader.events) == ["call.started", "segment.final", "call.ended"]


def test_who_unsubscribed_is_told_no_more_and_who_fails_harms_nobody(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(events: object) -> None:
        raise ZeroDivisionError

    with opened(database) as store:
        leaves, stays = Reader(store), Reader(store)
        store.subscribe(fail)
        leaves.leave()
        Talk(store).begin().end()
        stays.until_ended()
        assert leaves.events == []
        assert "a listener failed" in caplog.text


def test_someone_who_comes_later_is_told_of_what_comes_then(database: str) -> None:
    with opened(database) as store:
        Talk(store).begin().end()
        eventually(lambda: not store.waiting)  # and not only in the database, which is a moment before
        reader = Reader(store)
        second = Talk(store).begin().end()
        assert {event.call_sid for event in reader.until_ended()} == {second.sid}


def test_events_can_be_read_from_any_id_of_all_calls_or_one(database: str) -> None:
    with opened(database) as store:
        assert store.newest_event_id() == 0
        reader = Reader(store)
        talks = [Talk(store).begin() for _ in range(3)]
        for turn in range(10):
            for talk in talks:
                talk.say(f"{turn}")
        for talk in talks:
            talk.end()
        events = reader.until_ended(3)
        assert store.newest_event_id() == events[-1].id
        assert store.events_after(events[10].id, limit=7) == events[11:18]
        one = [event for event in events if event.call_sid == talks[1].sid]
        assert store.events_after(one[3].id, call_sid=talks[1].sid, limit=5) == one[4:9]
        assert store.events_after(events[-1].id) == []


# --- The database itself ------------------------------------------------------------------------------------


def test_the_tables_are_what_the_migrations_make(database: str) -> None:
    with opened(database):
        pass
    engine = create_engine(address(database))
    with engine.connect() as connection:
        of_search = ("segments_text", "segments_searchable")

        def is_shared(thing: object, name: str | None, kind: str, reflected: bool, other: object) -> bool:
            return not (name or "").startswith(of_search)

        context = MigrationContext.configure(connection, opts={"include_object": is_shared, "compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def made_by_version(revision: str, url: str) -> None:
    """A database as an earlier version of the program left it: with a call that its server was killed in."""
    made = Database(address(url))
    made.standing()
    with made.writer.begin() as connection, EnvironmentContext(Config(), SCRIPT, fn=up_to(revision)) as environment:
        environment.configure(connection=connection)
        environment.run_migrations()
    with made.writer.begin() as connection:
        for line in AN_OLD_CALL:
            connection.execute(text(line))


def up_to(revision: str) -> Callable[[Any, object], Any]:
    return lambda present, _context: SCRIPT._upgrade_revs(revision, present)


AN_OLD_CALL = (
    "INSERT INTO calls VALUES (1, 'CA1', '+1', '+2', 1000, NULL, NULL, 5000, NULL)",
    "INSERT INTO streams VALUES (1, 1, 'MZ1', '[\"inbound\"]', '[\"Deepgram\"]', 'x', 1000, 0, 5000, NULL, NULL, NULL)",
    "INSERT INTO segments (call_id, stream_id, track, start_ms, end_ms, confidence, service, backfilled, created_at,"
    " text, words) VALUES (1, 1, 'inbound', 0, 1000, 0.9, 'Deepgram', false, 1000, 'quicksilver mercury 5€ Zoë', '[]')",
    "INSERT INTO gaps (call_id, stream_id, track, start_ms, end_ms, reason, filled) VALUES"
    " (1, 1, 'inbound', 1000, 2000, 'away', false)",
)


def test_a_database_of_an_earlier_version_is_brought_up_to_date(database: str) -> None:
    made_by_version("1", database)
    said: list[str] = []
    store = Store(database)
    store.open(said.append)
    assert said == ["The database is brought up to date. With many calls in it this takes a while."]
    assert [hit.segment.start_ms for hit in store.search('quick* "mercury 5 zoe"').items] == [0]
    assert (call := store.call("CA1")) is not None
    assert (call.state, call.end_reason, call.duration_ms) == (State.ENDED, KILLED, 5000)
    (gap,) = store.gaps("CA1")  # and no other: nobody noted how far it was transcribed
    assert (gap.reason, gap.service) == ("away", None)
    assert store.delete("CA1")
    assert index_terms(database) == []
    store.close(10)
    with opened(database) as again:
        Talk(again).begin().say("later").end()
        eventually(lambda: again.search("later").items)


def test_who_comes_while_another_process_brings_the_tables_up_to_date_waits_for_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/calls.db"
    made_by_version("1", url)
    with closing(sqlite3.connect(tmp_path / "calls.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        opening = gevent.spawn(Store(url).open)
        gevent.sleep(BUSY_MS / 1000 + 1)
        assert not opening.ready(), "it did not wait"
        other.execute("COMMIT")
    opening.get(timeout=PATIENCE)


def test_a_database_made_by_a_newer_version_is_refused(database: str) -> None:
    with opened(database):
        pass
    engine = create_engine(address(database))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = 'later'"))
    engine.dispose()
    with pytest.raises(SettingsError, match="newer version"):
        Store(database).open()


def test_several_processes_may_make_the_tables_at_once(database: str) -> None:
    script = (
        "from gevent import monkey; monkey.patch_all()\n"
        "import sys\n"
        "from relay.store.store import Store\n"
        "store = Store(sys.argv[1]); print(flush=True); sys.stdin.readline(); store.open(); store.close(5)\n"
    )
    command, pipe = [sys.executable, "-c", script, database], subprocess.PIPE
    starting = [subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe) for _ in range(6)]
    for process in starting:
        assert process.stdout is not None
        process.stdout.readline()
    for process in starting:
        assert process.stdin is not None
        process.stdin.close()
    assert [process.wait() for process in starting] == [0] * 6
    with opened(database) as store:
        assert store.calls().items == ()


def test_a_file_is_made_with_its_folder_for_its_owner_alone_and_written_to_the_disk(tmp_path: Path) -> None:
    file = tmp_path / "some" / "where" / "calls.db"
    mask = os.umask(0)
    try:
        with opened(f"sqlite:///{file}") as store:
            Talk(store).begin()
            eventually(lambda: store.calls().items)
            assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()} == {
                "calls.db": 0o600,
                "calls.db-wal": 0o600,
                "calls.db-shm": 0o600,
            }
            for name, wanted in {
                "journal_mode": "wal",
                "synchronous": 2,
                "foreign_keys": 1,
                "secure_delete": 1,
            }.items():
                assert pragma(store, name) == wanted
    finally:
        os.umask(mask)


def pragma(store: Store, name: str) -> object:
    """A setting of the connection that writes."""
    return store._writers.run(lambda connection: connection.scalar(text(f"PRAGMA {name}")))


def test_commits_to_postgresql_wait_for_the_disk(postgresql: Server) -> None:
    with opened(postgresql.new_database()) as store:
        assert store._writers.run(lambda connection: connection.scalar(text("SHOW synchronous_commit"))) == "on"


@pytest.mark.parametrize(
    "url",
    [
        *("", "nonsense", "mysql://u:secret@h/d", "postgresql+asyncpg://u:secret@h/d"),
        *("sqlite://", "sqlite:///:memory:", "sqlite:///calls.db?uri=true", "sqlite:///calls.db?mode=ro"),
    ],
)
def test_a_url_that_is_none_of_ours_is_refused_in_one_sentence_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL should be") as refusal:
        Store(url)
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgresql_goes_by_the_names_that_hosts_give_it(scheme: str) -> None:
    assert address(f"{scheme}://u:p@h/d").drivername == "postgresql+psycopg"


def test_a_database_that_is_not_there_is_said_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="DATABASE_URL: The database cannot be reached: ") as refusal:
        Store(f"postgresql://u:secret@/d?host={tmp_path}").open()
    assert "secret" not in str(refusal.value)
    with pytest.raises(SettingsError, match="DATABASE_URL: The database's host is not found") as refusal:
        Store("postgresql://u:half@secret@nobody.invalid/d").open()
    assert "secret" not in str(refusal.value)
    (tmp_path / "file").write_bytes(b"no database" * 1000)
    with pytest.raises(SettingsError, match="DATABASE_URL: The file of the database is no database"):
        Store(f"sqlite:///{tmp_path}/file").open()
    with pytest.raises(SettingsError, match=r"DATABASE_URL: .* cannot be made"):
        Store(f"sqlite:///{tmp_path}/file/calls.db").open()


def test_a_database_in_another_encoding_is_refused(postgresql: Server) -> None:
    with pytest.raises(SettingsError, match="whose encoding is UTF8"):
        Store(postgresql.new_database("ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")).open()


def test_the_sqlite_file_stays_sound(tmp_path: Path) -> None:
    with opened(f"sqlite:///{tmp_path}/calls.db") as store:
        reader = Reader(store)
        talks = [Talk(store).begin().say(f"call {number}").end() for number in range(30)]
        reader.until_ended(30)
        for talk in talks[::2]:
            store.delete(talk.sid)
    with sqlite3.connect(tmp_path / "calls.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.execute("INSERT INTO segments_text (segments_text) VALUES ('integrity-check')")
    connection.close()
